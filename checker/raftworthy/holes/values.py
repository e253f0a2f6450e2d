"""Values of commands that no line tells: they may be any, until some line shows which one it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET

from raftworthy.replay.steps import Steps

UNKNOWN = "?"  # a value that begins so stands for any


class GivenUpError(Exception):
    """It would take more steps than were allowed."""


class Values(Steps):
    """Steps in which some values of entries aren't known so far. Whatever is learned can be taken back."""

    def __init__(self, servers: tuple[str, ...], extensions: frozenset[str], limit: int | None) -> None:
        super().__init__(servers, extensions)
        self.limit = limit  # how many steps may be tried
        self.steps = 0
        self.trail: list[Callable[[], Any]] = []  # how to go back, the newest last
        self.bindings: dict[str, str] = {}  # what values that stood for any turned out to be

    def spend(self, steps: int = 1) -> None:
        """Count what was tried. The clock isn't asked: a verdict is the same on a busy machine.

        Raises:
            GivenUpError: that is more than may be.
        """
        self.steps += steps
        if self.limit is not None and self.steps > self.limit:
            raise GivenUpError

    def fits(self, m: Any, pattern: Mapping[str, Any]) -> bool:
        """Whether a message is what is known of it, or may be: unknown values may be any."""
        return self.misfit(m, pattern) is None

    def misfit(self, m: Any, pattern: Mapping[str, Any]) -> str | None:
        """The first field of a message that isn't what is known of it, and can't be."""
        f: str
        for f in m.__struct_fields__:
            x, y = pattern.get(f, UNSET), getattr(m, f)
            if x is not UNSET and y != x and not (f == "entries" and self.alike(y, x)):
                return f
        return None

    def alike(self, entries: Sequence[Any], others: Sequence[Any]) -> bool:
        pairs = zip(entries, others, strict=False)
        return len(entries) == len(others) and all(
            a.term == b.term
            and (self.known_value(a.value) == b.value or self.known_value(a.value)[0] == UNKNOWN)
            for a, b in pairs
        )

    def known_value(self, value: str) -> str:
        """What a value is known to be by now."""
        return self.bindings.get(value, value)

    def learn(self, entries: Sequence[Any], others: Sequence[Any]) -> None:
        """Unknown values among entries are those of the others."""
        for a, b in zip(entries, others, strict=True):
            value = self.known_value(a.value)
            if value[0] == UNKNOWN and b.value[0] != UNKNOWN:
                self.bindings[value] = b.value
                self.trail.append(partial(self.bindings.pop, value))

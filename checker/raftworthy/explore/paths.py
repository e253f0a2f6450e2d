"""What an exploration finds: steps, the ways that they make, and what was counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from raftworthy.explore.bounds import Bounds
from raftworthy.generated import World


class Move(NamedTuple):
    """A step that was taken: the action, its parameters, the messages sent, the state after it."""

    action: str
    params: tuple[Any, ...]
    sent: tuple[Any, ...]
    world: World

    @property
    def server(self) -> str:
        """Who took the step: a message's receiver, or the first parameter."""
        first = self.params[0]
        return str(first if isinstance(first, str) else first.target)

    @property
    def message(self) -> Any | None:
        """The message received, if the step handles one."""
        return None if isinstance(self.params[0], str) else self.params[0]

    def __str__(self) -> str:
        shown = (x if isinstance(x, str | int) else _described(x) for x in self.params)
        return f"{self.action}({', '.join(map(str, shown))})"


@dataclass(frozen=True)
class Path:
    """Steps from a state, each with the state that it leads to."""

    start: World
    moves: tuple[Move, ...] = ()

    @property
    def world(self) -> World:
        """Where the path ends."""
        return self.moves[-1].world if self.moves else self.start

    def __len__(self) -> int:
        return len(self.moves)

    def then(self, *moves: Move) -> Path:
        """The path with more moves at its end."""
        return Path(self.start, (*self.moves, *moves))

    def worlds(self) -> list[World]:
        """Every state on the path, the first included."""
        return [self.start, *(m.world for m in self.moves)]


class Violation(NamedTuple):
    """A property that does not hold, its words, and a shortest way to where it fails."""

    property: str
    doc: str
    path: Path


class Progress(NamedTuple):
    """How far an exploration has come."""

    states: int
    distinct: int
    depth: int
    frontier: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What an exploration found, and within which bounds.

    `states` counts the successors computed, `distinct` the different states among them and the first.
    """

    bounds: Bounds
    without: frozenset[str]
    mutant: str | None
    symmetry: bool
    states: int
    distinct: int
    depth: int
    seconds: float
    stopped: str
    violation: Violation | None = None
    witness: Path | None = None
    collision: float = 0.0  # how likely it is that two states were taken for one

    @property
    def rate(self) -> float:
        """Distinct states a second."""
        return self.distinct / self.seconds if self.seconds else 0.0

    @property
    def exhausted(self) -> bool:
        """Whether everything within the bounds was seen."""
        return self.stopped == EXHAUSTED


def _described(param: Any) -> str:
    return "{" + ", ".join(sorted(param)) + "}" if isinstance(param, frozenset) else describe(param)


EXHAUSTED = "everything within the bounds was explored"

VIOLATED = "a property was violated"

WITNESSED = "what was looked for was found"


def describe(m: Any) -> str:
    """A message in one line."""
    tag = m.__struct_config__.tag
    fields = {f: getattr(m, f) for f in m.__struct_fields__ if f not in ("source", "target")}
    shown = ", ".join(f"{f}={_short(x)}" for f, x in fields.items())
    return f"{tag} {m.source}→{m.target} {shown}"


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + " ".join(f"{e.term}:{e.value}" for e in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)

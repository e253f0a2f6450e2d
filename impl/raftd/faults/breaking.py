"""What all broken servers have in common, and their catalogue."""

from __future__ import annotations

from collections.abc import Callable

from raftd.core import Core, Variables
from raftd.messages import Message

BREAKS: dict[str, type[Core]] = {}


def breaks(rule: str) -> Callable[[type[Core]], type[Core]]:
    """The class that follows breaks this rule."""

    def note(core: type[Core]) -> type[Core]:
        assert rule not in BREAKS
        BREAKS[rule] = core
        return core

    return note


class Broken(Core):
    """A server that breaks a rule, and checks none."""

    def _check_message(self, m: Message) -> None:
        """Nothing is found."""

    def _check_step(self, before: Variables, after: Variables) -> None:
        """Nothing is found."""

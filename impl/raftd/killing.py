"""Where a server can be told to kill itself, for tests: between any two effects of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KILL_POINTS: Final = (
    "before-trace",
    "after-trace",
    "after-write",  # the write is with the system, which has not been told to fsync it
    "after-persist",
    "after-first-send",
    "after-send",
    "after-apply",
)


@dataclass(frozen=True)
class KillAt:
    """Where this process shall kill itself, in its `nth` step that changes the disk, or later."""

    point: str
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> KillAt:
        """From `after-persist` or `after-persist:3`."""
        point, colon, nth = text.partition(":")
        if point not in KILL_POINTS:
            raise ValueError(f"{point!r} is not a kill point: choose from {', '.join(KILL_POINTS)}")
        if colon and not (nth.isdigit() and int(nth) > 0):
            raise ValueError(f"{nth!r} does not count steps: write {point}:1 for the first")
        return cls(point, int(nth) if colon else 1)

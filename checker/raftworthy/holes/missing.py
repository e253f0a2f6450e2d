"""Whether ordinary replay lacks the information to decide about a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raftworthy.files import Unusable

if TYPE_CHECKING:
    from raftworthy.replay.verdict import Verdict


def information_missing(verdict: Verdict, paths: Sequence[Path]) -> str | None:
    """What is missing, if a trace doesn't conform for lack of it as far as ordinary replay can tell."""
    if verdict.report is not None:  # if anything is wrong, it is what clients saw
        return None
    from raftworthy.holes.lines import read_lines

    try:
        lines = read_lines(paths)
    except (Unusable, OSError):
        return None
    if not any(lines.of.values()):
        return None
    if lost := [i for i in lines.lost if i in lines.voters]:  # others may never have been started
        return f"there are no lines of {', '.join(lost)}"
    if lines.holes and verdict.verdict == "unusable":
        return f"{lines.holes} lines lack what replay needs"
    return None

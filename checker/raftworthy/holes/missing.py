"""Whether ordinary replay lacks the information to decide about a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raftworthy.files import Unusable
from raftworthy.replay.reading import TraceFile, is_history

if TYPE_CHECKING:
    from raftworthy.replay.verdict import Verdict


def information_missing(verdict: Verdict, paths: Sequence[Path]) -> str | None:
    """What is missing, if a trace doesn't conform for lack of it as far as ordinary replay can tell."""
    if verdict.report is not None:  # if anything is wrong, it is what clients saw
        return None
    from raftworthy.holes.lines import BeyondError, read_lines

    try:
        lines = read_lines(paths)
    except (Unusable, OSError):
        return None
    except BeyondError:
        return _of(_unseen(paths))
    if not any(lines.of.values()):
        return None
    if lines.lost:
        return _of(lines.lost)
    if lines.holes and verdict.verdict == "unusable":
        return f"{lines.holes} lines lack what replay needs"
    return None


def _of(lost: Sequence[str]) -> str | None:
    return f"there are no lines of {', '.join(lost)}" if lost else None


def _unseen(paths: Sequence[Path]) -> list[str]:
    """The servers of the first configuration of which there is no line."""
    files = [TraceFile.headed(path) for path in paths if not is_history(path)]
    servers: set[str] = {
        e.server for file in files for _, events in file.events(lenient=True) for e in events
    }
    return [i for i in files[0].voters if i not in servers]

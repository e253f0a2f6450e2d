"""Questions about logs for somebody at a terminal. Exit codes: 0 yes, 1 no, 2 undecided or unusable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftworthy.ask.change import RAFT, Change
from raftworthy.ask.electable import Election
from raftworthy.ask.logs import read_logs
from raftworthy.ask.reachable import reachable
from raftworthy.ask.telling import election_data, election_text, history_data, history_text
from raftworthy.explore.export import write_trace

YES, NO, UNDECIDED = 0, 1, 2


def run_electable(
    file: Path,
    term: int,
    *,
    change: Change = RAFT,
    steps: bool = False,
    width: int = 100,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[dict[str, Any], str, int]:
    """Ask who can be elected. Returns data, text and exit code."""
    logs = read_logs(file)
    election = Election(logs, term, change)
    found = []
    for k, c in enumerate(logs.names):
        progress(k, len(logs.names))
        found.append(election.candidate(c))
    text = election_text(logs, term, change, found, width, steps)
    return election_data(logs, term, change, found), text, YES if any(c.electable for c in found) else NO


def run_reachable(
    file: Path,
    *,
    change: Change = RAFT,
    save: Path | None = None,
    steps: bool = False,
    width: int = 100,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[dict[str, Any], str, int]:
    """Ask whether logs can exist side by side. Returns data, text and exit code."""
    logs = read_logs(file)
    found = reachable(logs, progress, change)
    text = history_text(logs, found, change, width, steps)
    if save is not None and found.path:
        write_trace(found.path, save)
        text += f"\nwritten to {save}; try: raftworthy replay {save}"
    code = {"reachable": YES, "impossible": NO}.get(found.verdict, UNDECIDED)
    return history_data(logs, found, change), text, code

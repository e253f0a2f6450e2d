"""Can servers come to have these logs? A history that leads there, or why there is none.

A history is found by Z3 term by term and taken step by step by the Python back end. That there is none
follows from claims that every step of the specification keeps, for any number of terms: `raftspec.rounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raftworthy.ask.because import Because, because
from raftworthy.ask.histories import Histories, Round
from raftworthy.ask.logs import Logs
from raftworthy.ask.taking import PlanError, model_for, take
from raftworthy.explore.reference import Path

Progress = Callable[[int, int | None], None]


@dataclass
class Reachable:
    """A path to the logs and its plan, or why there is none, or neither; `tried` says what was asked."""

    entries: int
    path: Path | None = None
    plan: list[Round] = field(default_factory=list)
    because: Because | None = None
    tried: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "reachable" if self.path else "impossible" if self.because else "undecided"


def reachable(logs: Logs, progress: Progress = lambda done, total: None) -> Reachable:
    """Decide whether logs can exist side by side.

    After the last term that is mentioned, leaders may be needed that only pass on what they have. How many is
    tried out, after it was asked whether any number of them would do.
    """
    out = Reachable(logs.longest)
    last = max(logs.last_term, 1)
    later = (len(logs.names) - 1) // 2 + 1
    for k in range(later + 1):
        progress(k, later + 1)
        if k == 1:
            anything = Histories(logs, last + 1, out.entries, open_end=True)
            if not anything.exists():
                out.tried.append("histories with any number of terms: none")
                out.because = because(anything, progress)
                return out
        histories = Histories(logs, last + k, out.entries)
        if k == 0 and not histories.exists(rounds=False):
            out.tried.append("these logs by themselves, whatever their history: they contradict each other")
            out.because = because(histories, progress, rounds=False)
            return out
        plan = histories.plan()
        if plan is None:
            out.tried.append(f"histories with terms up to {last + k}: none")
            continue
        try:
            out.path, out.plan = take(logs, plan, model_for(logs, plan)), plan
            return out
        except PlanError as error:
            out.tried.append(
                f"a history with terms up to {last + k}, which the specification doesn't take: {error}"
            )
    return out

"""Can servers come to have these logs? A history that leads there, or why there is none.

A history is found by Z3 term by term and taken step by step by the Python back end. That there is none
follows from claims that every step of the specification keeps, for any number of terms: `raftspec.rounds`.
Without a rule, or with a bug, it follows from those claims that are still kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from raftspec.rounds import HISTORIES
from raftworthy.ask.because import Because, because, satisfiable
from raftworthy.ask.change import RAFT, Change, Progress, kept_claims
from raftworthy.ask.histories import Histories, Round
from raftworthy.ask.logs import Logs
from raftworthy.ask.taking import PlanError, model_for, take
from raftworthy.explore.paths import Path

# What is said of commits in terms after those that the file mentions rests on these.
OF_COMMITS = frozenset(
    {"d1_commits_are_of_the_leaders_term", "h8_commits_were_stored", "committed_on_quorum"}
)


@dataclass
class Reachable:
    """A path to the logs and its plan, or why there is none, or neither; `tried` says what was asked.

    `gone` are the claims that don't hold of every history of a changed Raft; nothing follows from them.
    """

    entries: int
    path: Path | None = None
    plan: list[Round] = field(default_factory=list)
    because: Because | None = None
    tried: list[str] = field(default_factory=list)
    gone: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        return "reachable" if self.path else "impossible" if self.because else "undecided"


def reachable(logs: Logs, progress: Progress = lambda done, total: None, change: Change = RAFT) -> Reachable:
    """Decide whether logs can exist side by side.

    After the last term that is mentioned, leaders may be needed that only pass on what they have. How many is
    tried out, after it was asked whether any number of them would do. Of a changed Raft a history is looked
    for first that is one of Raft's, too.
    """
    out = Reachable(logs.longest)
    last = max(logs.last_term, 1)
    later = (len(logs.names) - 1) // 2 + 1
    claims = frozenset(HISTORIES)
    sure: Logs | None = logs
    for k in range(later + 1):
        progress(k, later + 1)
        usual = Histories(logs, last + k, out.entries)
        if change:
            if _leads_there(out, logs, usual, change):
                return out
            if k == 0:
                claims = kept_claims(change, progress)
                out.gone = tuple(name for name in HISTORIES if name not in claims)
                sure = certain(out, logs, change, claims)
        if sure and k < 2:
            asked = Histories(sure, last + k, out.entries, k == 1, claims)
            out.because = _contradiction(out, asked, progress)
            if out.because:
                return out
        for histories in _others(usual, claims) if change else [usual]:
            if _leads_there(out, logs, histories, change):
                return out
    return out


def _others(usual: Histories, kept: frozenset[str]) -> Iterator[Histories]:
    """Histories that break as few as can be of the claims that a changed Raft doesn't keep."""
    for claims in satisfiable(usual, kept):
        if claims != HISTORIES.keys():
            yield Histories(usual.logs, usual.terms, usual.entries, claims=claims)


def certain(out: Reachable, logs: Logs, change: Change, claims: frozenset[str]) -> Logs | None:
    """The facts that terms later than the file's can't explain otherwise; None if anything can be."""
    if change and not change.passes_terms() and any(log.term is None for log in logs.servers):
        out.tried.append("a timeout isn't a step to the next term, so nothing follows from unknown terms")
        return None
    if claims >= OF_COMMITS or not any(log.commit for log in logs.servers):
        return logs
    out.tried.append("what the file says of commits isn't held against it, as commits are not what they were")
    return Logs(tuple(replace(log, commit=None) for log in logs.servers))


def _contradiction(out: Reachable, histories: Histories, progress: Progress) -> Because | None:
    """Why no history has these logs, whatever happens after the last term that is mentioned."""
    rounds = histories.open_end
    if histories.exists(rounds):
        return None
    by_themselves = "these logs by themselves, whatever their history: they contradict each other"
    out.tried.append("histories with any number of terms: none" if rounds else by_themselves)
    return because(histories, progress, rounds)


def _leads_there(out: Reachable, logs: Logs, histories: Histories, change: Change) -> bool:
    """Whether a history of so many terms is found that the specification takes."""
    plan, terms = histories.plan(), histories.terms
    if plan is None:
        out.tried.append(f"histories with terms up to {terms}: none")
        return False
    try:
        out.path, out.plan = take(logs, plan, model_for(logs, plan, change)), plan
    except PlanError as error:
        out.tried.append(f"a history with terms up to {terms}, which the specification doesn't take: {error}")
    return out.path is not None

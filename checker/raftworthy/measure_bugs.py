"""Who catches the bugs that real Raft servers had: the explorer, lockstep, or the replay of their traces.

A bug is a change of the specification (`raftspec.mutants`), and, where raftd can have it, too, one of
`raftd.faults`. Each is looked for in all three ways, and the table says how much each took.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raftd.core import Config
from raftd.faults import BREAKS
from raftd.simulated_faults import ALL_FAULTS
from raftd.simulator import SIMULATED, server_names, simulate
from raftspec.mutants import MUTANTS, Mutant
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.why import why
from raftworthy.lockstep.run import DEFAULT_BOUNDS, lockstep
from raftworthy.replay.verdict import Verdict, check

# The fault of raftd that is the same bug, where it isn't the one named after the mutant's only rule.
FAULTS = {
    "E03": "vote.persist",
    "E04": "restart.keep_term",
    "E10": "vote.persist",
    "E11": "restart.keep_term",
    "E13": "pre_vote.leader_asks",
    "E14": "pre_vote.keep_timer",
    "E16": "term.step_down",
    "L01": "reads.leader_only",
    "L07": "session.kept_by_all",
    "L08": "session.in_snapshot",
    "M02": "membership.votes_of_each",
    "R11": "append.keep_log",
    "R14": "check_quorum.current_term",
    "R16": "append.read_previous",
    "R17": "membership.leader_without_vote",
    "S02": "snapshot.keep_term",
    "R08": "append.refusal_matches_nothing",
}
SEEDS = 20  # simulations that are tried
STEPS = 5_000
SMALL = Bounds(servers=2, max_messages=6)  # for lockstep with an extension
ALONE = Bounds(servers=1, max_term=1, max_log=2, requests=2)  # and where clients have sessions


@dataclass(frozen=True)
class Caught:
    """That somebody caught a bug: what was said, and how many CPU seconds it took."""

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what}, {self.seconds:.1f} s"


@dataclass(frozen=True)
class Bug:
    """A bug, and who catches it. None: nobody does in this way, or it has no place there."""

    mutant: Mutant
    fault: str | None
    explorer: Caught | None
    lockstep: Caught | None
    replay: Caught | None

    def as_data(self) -> dict[str, Any]:
        """The bug for a machine."""
        found = {x: getattr(self, x) and asdict(getattr(self, x)) for x in ("explorer", "lockstep", "replay")}
        return {"bug": self.mutant.name, "fault": self.fault, "harmless": self.mutant.harmless} | found

    def row(self) -> tuple[str, ...]:
        """The bug as a row of a table."""
        m = self.mutant
        none = "not caught" if self.fault else "raftd has no such fault"
        found = [str(x) if x else none for x in (self.explorer, self.lockstep, self.replay)]
        if not self.explorer and m.harmless:
            found[0] = f"nothing unsafe: {m.harmless}"
        return (m.name, m.source, m.story, *found)


def fault_of(mutant: Mutant) -> str | None:
    """The fault of raftd that is this bug; None if raftd can't have it."""
    rules = mutant.without & BREAKS.keys()
    return FAULTS.get(mutant.name) or (next(iter(rules)) if len(rules) == 1 else None)


def measure_bugs(names: Iterable[str] | None, progress: Callable[[int, int | None], None]) -> list[Bug]:
    """Look for bugs in all three ways; for all that the specification knows if none are named."""
    wanted = [MUTANTS[name] for name in (MUTANTS if names is None else names)]
    bugs = []
    for number, mutant in enumerate(wanted):
        progress(number, len(wanted))
        fault = fault_of(mutant)
        bugs.append(
            Bug(
                mutant,
                fault,
                _explored(mutant),
                _compared(mutant, fault) if fault else None,
                _replayed(mutant, fault) if fault else None,
            )
        )
    return bugs


def _explored(mutant: Mutant) -> Caught | None:
    began = time.process_time()
    found = why(mutant.name).disaster
    if found is None:
        return None
    return Caught(f"{found.property} after {len(found.path)} steps", time.process_time() - began)


def _compared(mutant: Mutant, fault: str) -> Caught | None:
    began = time.process_time()
    names = mutant.extensions
    small = ALONE if "sessions" in names else SMALL
    bounds = replace(small, extensions=names) if names else DEFAULT_BOUNDS
    result = lockstep(bounds, broken=fault)
    if result.disagreement is None:
        return None
    rule = result.disagreement.rule
    named = f"{rule} in " if rule else ""
    return Caught(f"{named}{result.disagreement.input.partition('(')[0]}", time.process_time() - began)


def _replayed(mutant: Mutant, fault: str) -> Caught | None:
    """The first simulation of servers with the bug whose trace is no behaviour of the specification."""
    began = time.process_time()
    clients = 0 if {"reads", "sessions"}.isdisjoint(mutant.extensions) else 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.ndjson"
        for seed in range(1, SEEDS + 1):
            with file.open("wb") as out:
                simulate(
                    seed, server_names(3), STEPS, ALL_FAULTS, out,
                    broken=fault, clients=clients, config=_config(mutant),
                )  # fmt: skip
            verdict = check([file])
            if verdict.verdict == "violates":
                return Caught(_told(verdict, seed), time.process_time() - began)
    return None


def _config(mutant: Mutant) -> Config:
    """Servers in which the bug has its place; snapshots are a matter of a size."""
    config = SIMULATED.having(name for name in mutant.extensions if name != "snapshots")
    return replace(config, snapshot_after=200) if "snapshots" in mutant.extensions else config


def _told(verdict: Verdict, seed: int) -> str:
    wrong = verdict.explanation
    if wrong is None:
        return f"what clients saw (seed {seed})"
    return f"{wrong.rule or wrong.event} at line {wrong.line} (seed {seed})"


PAGE = """\
# Who catches the bugs that real Raft servers had

Each is explored in the specification, held against it in raftd's core (lockstep), and looked for in the
traces of simulated servers that have it, in up to {seeds} simulations of {steps:,} steps. Seconds are of CPU,
compiling included, on a machine with other work.

This page is generated: `raftworthy bench bugs --markdown > docs/bugs.md`.

"""
HEAD = ("bug", "told in", "what it is", "explorer", "lockstep", "replay of servers that have it")


def page(bugs: Iterable[Bug]) -> str:
    """The table as a page of the documentation."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(bug.row())} |" for bug in bugs]
    return PAGE.format(seeds=SEEDS, steps=STEPS) + "\n".join(lines)


def table(bugs: Iterable[Bug]) -> str:
    """The table for a terminal: a few lines for each bug."""
    out = []
    for bug in bugs:
        name, source, story, *found = bug.row()
        out.append(f"{name}  {story} ({source})")
        out += [f"     {who}: {what}" for who, what in zip(HEAD[3:], found, strict=True)]
    return "\n".join(out)

"""Thousands of simulated runs, each in a weather of its own, each replayed: all have to conform.

Every seed draws which faults there are and how often, how many servers and clients, and what the trace logs,
so that no fault is always there to hide what happens without it. What came of a seed is a line in a file of
results; a campaign that is stopped goes on from there, and several may share a file, each with its own seeds.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from raftd.core import Config
from raftd.simulated_faults import FAULT_NAMES, USUAL_RATES, Faults
from raftd.simulator import SIMULATED, SimulationError, server_names, simulate
from raftspec.extensions import EXTENSIONS
from raftworthy.measure import FORMS, Progress
from raftworthy.replay.verdict import check

TOLERATED = tuple(name for name in FAULT_NAMES if name != "corruption")
SERVERS = (1, 2, 3, 3, 3, 4, 5, 5, 7)
FORM = ("full", "full", "full", "minimal")
CLIENTS = (0, 0, 2, 6)
# How a server is told to have an extension, in one of several ways.
EXTENDED: dict[str, tuple[dict[str, Any], ...]] = {
    "pre_vote": ({"pre_vote": True},),
    "check_quorum": ({"check_quorum": True},),
    "leadership_transfer": ({"leadership_transfer": True},),
    "membership": ({"membership": True},),
    "reads": ({"reads": True}, {"reads": True, "lease_drift": 4.0}),
    "sessions": ({"sessions": True, "session_timeout": 1.0}, {"sessions": True}),
    "snapshots": ({"snapshot_after": 60}, {"snapshot_after": 600}),
}
MOST = 0.5  # of any rate


class ResultsError(ValueError):
    """A file of results can't be gone on with: why."""


class Weather(NamedTuple):
    """What the world of a seed is like."""

    servers: int
    form: str  # of the trace: what it logs
    clients: int
    faults: Faults
    config: Config


class Run(msgspec.Struct, frozen=True):
    """What came of one seed: a line in the file of results."""

    seed: int
    steps: int
    broken: str | None
    servers: int
    form: str
    clients: int
    faults: str
    extensions: tuple[str, ...]
    verdict: str  # of replay; "disagree" if the simulation itself saw the servers disagree
    events: int = 0
    terms: int = 0
    leaders: int = 0
    committed: int = 0
    restarts: int = 0
    lost_steps: int = 0  # logged, and not on the disk after a crash
    hidden_steps: int = 0  # on the disk, and not logged
    happened: dict[str, int] = {}  # each fault: how often
    rules: tuple[str, ...] = ()  # exercised
    wrong: str = ""


@dataclass
class Campaign:
    """The sum of all runs."""

    steps: int
    runs: int = 0
    conforming: int = 0
    events: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    weathers: Counter[str] = field(default_factory=Counter)  # seeds that had the fault
    rules: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    wrong: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Count one seed in."""
        self.runs += 1
        self.conforming += run.verdict == "conforms"
        self.events += run.events
        self.happened.update(run.happened)
        self.weathers.update(part.partition("=")[0] for part in run.faults.split(",") if part != "none")
        self.weathers.update(run.extensions)
        self.rules.update(run.rules)
        for name in ("terms", "leaders", "committed", "restarts", "lost_steps", "hidden_steps"):
            self.sums[name] += getattr(run, name)
        if run.verdict != "conforms":
            self.wrong.append(run)

    def __str__(self) -> str:
        n = self.sums
        lines = [
            f"{self.conforming:,} of {self.runs:,} seeds of {self.steps:,} steps conform",
            f"  {self.events:,} events: {n['terms']:,} terms, {n['leaders']:,} leaders, "
            f"{n['committed']:,} entries committed, {n['restarts']:,} starts",
            f"  at crashes, {n['lost_steps']:,} logged steps were not on the disk, "
            f"{n['hidden_steps']:,} on the disk were not logged",
            f"{'fault, or extension':24}{'seeds with it':>14}",
            *(f"  {name:22}{count:>14,}" for name, count in sorted(self.weathers.items())),
            f"{'what happened':24}{'times':>14}",
            *(f"  {name:22}{count:>14,}" for name, count in sorted(self.happened.items())),
            f"{len(self.rules)} rules exercised",
        ]
        return "\n".join(lines)


def weather(seed: int) -> Weather:
    """How many servers and clients a seed has, what its trace logs, and what goes wrong."""
    rng = random.Random(f"weather {seed}")
    rates = {
        name: min(MOST, round(USUAL_RATES[name] * 2 ** rng.uniform(-2, 3), 4))
        for name in TOLERATED
        if rng.random() < 0.75
    }
    servers, form, clients = rng.choice(SERVERS), rng.choice(FORM), rng.choice(CLIENTS)
    config = SIMULATED
    # The least that is useful is the least of Figure 2.
    for name in sorted(EXTENDED.keys() & EXTENSIONS.keys()) if form == "full" else ():
        if random.Random(f"{name} {seed}").random() < 0.5:
            config = replace(config, **rng.choice(EXTENDED[name]))
    return Weather(servers, form, clients, Faults(**rates), config)


def command(run: Run) -> str:
    """The one command that does a seed again, and keeps its trace."""
    broken = f" --break {run.broken}" if run.broken else ""
    return f"raftworthy campaign --first {run.seed} --seeds 1 --steps {run.steps}{broken} --keep FOLDER"


def run_seed(seed: int, steps: int, broken: str | None, keep: Path | None) -> Run:
    """Simulate one seed in its weather and replay its trace, kept in `keep` if it doesn't conform."""
    servers, form, clients, faults, config = weather(seed)
    with tempfile.TemporaryDirectory(prefix="raftworthy-") as folder:
        path = (keep or Path(folder)) / f"{seed}.ndjson"
        run = Run(seed, steps, broken, servers, form, clients, str(faults), config.extensions, "disagree")
        try:
            with path.open("wb") as out:
                names = server_names(servers)
                summary = simulate(
                    seed, names, steps, faults, out, broken=broken, config=config, clients=clients
                )
        except SimulationError as error:
            return msgspec.structs.replace(run, wrong=str(error))
        if form != "full":
            path.write_bytes(b"\n".join([*FORMS[form](path.read_bytes().splitlines()), b""]))
        verdict = check([path])
        happened = dict(sorted(summary.faults.items()))
        happened |= {"snapshot taken": summary.snapshots, "snapshot installed": summary.installed}
        if verdict.report is None:
            x = verdict.explanation
            wrong = f"line {x.line}: {x.rule or x.no_rule}" if x else verdict.error or ""
            return msgspec.structs.replace(run, verdict=verdict.verdict, happened=happened, wrong=wrong)
        if keep and verdict.verdict == "conforms":
            path.unlink()
        r = verdict.report
        return msgspec.structs.replace(
            run,
            verdict=verdict.verdict,
            events=r.events,
            terms=r.terms,
            leaders=len(r.leaders),
            committed=r.committed,
            restarts=r.restarts,
            lost_steps=r.lost_steps,
            hidden_steps=r.hidden_steps,
            happened=happened,
            rules=r.exercised,
        )


def campaign(
    seeds: Sequence[int],
    steps: int,
    results: Path | None,
    keep: Path | None,
    broken: str | None = None,
    jobs: int = 1,
    progress: Progress = lambda done, total: None,
) -> Campaign:
    """Run all these seeds, those in the file of results excepted, and sum up, theirs included.

    Raises:
        ResultsError: the file is not one of this campaign's.
    """
    total = Campaign(steps)
    done = {run.seed: run for run in _read(results, steps, broken)} if results else {}
    for seed in seeds:
        if seed in done:
            total.add(done[seed])
    progress(total.runs, len(seeds))
    todo = [(seed, steps, broken, keep) for seed in seeds if seed not in done]
    with results.open("ab", buffering=0) if results else nullcontext() as file:
        for run in _runs(todo, jobs):
            if file:  # each a whole line, so that several campaigns may share the file
                file.write(msgspec.json.encode(run) + b"\n")
            total.add(run)
            progress(total.runs, len(seeds))
    return total


def _runs(todo: list[tuple[Any, ...]], jobs: int) -> Iterator[Run]:
    if jobs == 1:
        yield from (run_seed(*arguments) for arguments in todo)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_run_seed, todo, chunksize=4)


def _run_seed(arguments: tuple[Any, ...]) -> Run:
    return run_seed(*arguments)


def _read(results: Path, steps: int, broken: str | None) -> Iterable[Run]:
    if not results.exists():
        return
    for number, line in enumerate(results.read_bytes().splitlines(), 1):
        try:
            run = msgspec.json.decode(line, type=Run)
        except msgspec.DecodeError as error:
            raise ResultsError(
                f"{results}:{number}: no result of a campaign ({error}); name another file"
            ) from None
        if (run.steps, run.broken) != (steps, broken):
            told = f"{run.steps} steps{f' without {run.broken}' if run.broken else ''}"
            raise ResultsError(f"{results}:{number}: a seed of {told}; give the same, or another file")
        yield run

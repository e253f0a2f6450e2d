"""Real servers under every fault that Raft has to bear; their traces and what clients saw are then judged.

The schedule of faults comes from a seed. What the servers make of it depends on the machine, too, so a seed
repeats what is done to them, not what happens. Nothing that was acknowledged may be lost, whatever is done.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftd.client import RequestError
from raftd.cluster import Cluster
from raftd.state import EXTENSIONS
from raftd.trace import digest_of_put
from raftworthy.linearize.checking import Result as Linearized
from raftworthy.linearize.checking import check as check_history
from raftworthy.linearize.reading import read_history
from raftworthy.linearize.recording import Recorder
from raftworthy.replay.verdict import Verdict, check
from raftworthy.torture.clients import Load
from raftworthy.torture.faults import Progress, TortureError, Torturer

# Servers have all that there is. With so many bytes of commands between two snapshots, logs are compacted
# every few seconds, and who was away for long is sent one. Clocks that jump end a session now and then.
SERVED = (
    *(option for name in EXTENSIONS for option in ("--with", name)),
    *("--snapshot-after", "5000", "--session-timeout", "20"),
)
SPARE = 2  # servers that are no members in the beginning, and take others' places


@dataclass(frozen=True)
class Tortured:
    """What came of it. `faults` counts what was done, by kind, and `changes` those of the members."""

    seed: int
    servers: int
    seconds: float
    faults: Counter[str]
    changes: Counter[str]
    sessions: int
    acknowledged: int
    failed: int  # requests without a certain answer
    copies: int  # of answered requests, that came late
    complaint: str | None  # of a server that ended by itself, or a cluster that didn't recover
    traces: Verdict
    history: Linearized

    def __str__(self) -> str:
        events: Counter[str] = self.traces.report.kinds if self.traces.report else Counter()
        lines = [
            f"{self.servers} servers, {self.seconds:.0f} s, seed {self.seed}: {self.faults.total():,} faults",
            f"faults: {_counted(self.faults)}",
            f"members: {_counted(self.changes)}",
            f"snapshots: {events['take_snapshot']:,} taken, {events['handle_install_snapshot']:,} received",
            f"{self.acknowledged:,} writes acknowledged, in {self.sessions:,} sessions; "
            f"{self.failed:,} requests not answered in time, {self.copies:,} that came again late",
        ]
        return "\n".join([*lines, f"error: {self.complaint}"] if self.complaint else lines)

    @property
    def exit_code(self) -> int:
        """1 if anything is wrong for certain, else 2 if anything is undecided, else 0."""
        codes = {self.traces.exit_code, self.history.exit_code}
        return 1 if 1 in codes else 2 if 2 in codes or self.complaint else 0

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        plain = {name: value for name, value in vars(self).items() if name not in ("traces", "history")}
        return plain | {"traces": self.traces.as_data(), "history": self.history.as_data()}


def torture(
    folder: Path,
    seconds: float,
    seed: int,
    servers: int = 3,
    broken: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Tortured:
    """Run a cluster with its data in `folder`, do to it what the seed says for so long, and judge it.

    With `broken`, all servers leave out this rule of Raft, which should be found.
    """
    began = time.monotonic()
    history = folder / "history.ndjson"
    folder.mkdir(parents=True, exist_ok=True)
    complaint = None
    options = [*SERVED, *(() if broken is None else ("--break", broken))]
    with (
        Cluster(servers, folder, options=options) as cluster,
        closing(Recorder(history, digest_of_put)) as recorder,
    ):
        for _ in range(SPARE):
            cluster.join()
        torturer, load = Torturer(cluster, random.Random(seed)), Load(cluster, recorder, seed)
        try:
            with load:
                torturer.run(seconds, progress)
                load.operator.stopping.set()
                torturer.relent()
            load.read_all()
        except (TortureError, RequestError) as error:
            complaint = str(error)
    spent = time.monotonic() - began
    traces = check([*sorted(cluster.traces.glob("*.ndjson")), history])
    seen = check_history(read_history([history]), seconds=max(60.0, seconds))
    return Tortured(
        seed,
        len(cluster.servers),
        spent,
        torturer.counts,
        load.operator.counts,
        load.sessions,
        load.acknowledged,
        load.failed,
        load.copies,
        complaint,
        traces,
        seen,
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "nothing"

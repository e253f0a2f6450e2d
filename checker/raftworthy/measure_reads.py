"""What a read costs, by each way that servers have: in the log, by read index, by lease, out of date.

Three real servers and their clients share one machine, as in `measure_server`. The ways take turns.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raftd.cluster import Cluster
from raftd.codec import Read
from raftworthy.measure import machine
from raftworthy.measure_server import Load, Put, load

LEASE = "1.1"  # how many times as fast as another a clock may run

WAYS: dict[str, tuple[Read, tuple[str, ...]]] = {
    "in the log": (Read.LOG, ()),
    "by read index": (Read.INDEX, ()),
    "by lease": (Read.INDEX, ("--lease-reads", LEASE)),
    "out of date": (Read.STALE, ()),
}


@dataclass(frozen=True)
class ReadSpeed:
    """All loads in the order in which they were measured."""

    loads: list[Load]
    machine: str

    def of(self, way: str, clients: int) -> tuple[float, float, float]:
        """A way's median rate, p50 and p99 under a load."""
        found = [x for x in self.loads if (x.system, x.clients) == (way, clients)]
        rates, p50s, p99s = ([getattr(x, name) for x in found] for name in ("rate", "p50", "p99"))
        return statistics.median(rates), statistics.median(p50s), statistics.median(p99s)

    def __str__(self) -> str:
        lines = [f"three servers and clients that read ({self.machine})"]
        lines.append(f"{'':24}{'clients':>8}{'reads/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of the log':>12}")
        for clients in dict.fromkeys(x.clients for x in self.loads):
            whole, _, _ = self.of("in the log", clients)
            for way in WAYS:
                rate, p50, p99 = self.of(way, clients)
                times = f"{rate / whole:.1f} x"
                lines.append(f"{way:24}{clients:>8}{rate:>10,.0f}{p50:>9.2f}{p99:>9.2f}{times:>12}")
        return "\n".join(lines)


def measure_reads(
    clients: Sequence[int],
    seconds: float,
    size: int,
    rounds: int,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> ReadSpeed:
    """Read values of `size` bytes for `seconds` under each load, by each way, `rounds` times."""
    loads = []
    for number in range(rounds):
        for at, (way, (read, options)) in enumerate(WAYS.items()):
            progress(number * len(WAYS) + at, rounds * len(WAYS))
            with (
                tempfile.TemporaryDirectory(prefix="raftworthy-") as folder,
                Cluster(folder=Path(folder), trace=False, options=options) as cluster,
            ):
                opened = partial(_reader, cluster, read)
                loads += [load(way, n, seconds, size, opened) for n in clients]
    return ReadSpeed(loads, machine())


@contextlib.asynccontextmanager
async def _reader(cluster: Cluster, read: Read) -> AsyncIterator[Put]:
    """A client that puts each key once, and then reads it."""
    async with cluster.client(10.0) as client:
        written: set[str] = set()

        async def ask(key: str, value: bytes) -> None:
            if key not in written:
                await client.put(key, value)
                written.add(key)
            await client.get(key, read=read)

        yield ask

"""The shards of one process: its threads, their tables, its disk.

Where all shards are of one process, their threads share all tables, and whoever finds a new state keeps it.
Tables grow only while nobody searches. Shards elsewhere get all that was not sent before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raftworthy.native.context import MOST_SHARDS, SLACK
from raftworthy.native.functions import Functions
from raftworthy.native.shard import Shard, Tally, files_of
from raftworthy.native.storage import Disk, Memory

ROUND = 1 << 16  # rows of each thread: some tens of milliseconds
FEW = 4096  # rows of a level that one thread expands alone, always in the same order
OURS = {"rows", "steps", "run", "dead", "dead_next"}  # how names of files begin
Result = TypeVar("Result")
Parcels = list[tuple[int, int]]  # where, and how many bytes


@dataclass
class Work:
    """What a worker has done, and how long it took, in seconds."""

    expanding: float = 0.0
    exchanging: float = 0.0
    cpu: float = 0.0
    bytes_sent: int = 0
    rounds: int = 0


class Team:
    """Shards of a search, by their `numbers` in all of it; all of them, or one."""

    def __init__(self, functions: Functions, numbers: range, size: int, memory: int, disk: Disk) -> None:
        assert 0 < size <= MOST_SHARDS
        assert len(numbers) in (1, size)
        self.size, self.round, self.disk = size, ROUND, disk
        self.shards = [Shard(functions, k, size, Memory(memory // len(numbers)), disk) for k in numbers]
        for shard in self.shards:
            shard.join(self.shards)
        self._frontier = 0
        self._pool = ThreadPoolExecutor(len(numbers)) if len(numbers) > 1 else None

    def close(self) -> None:
        """Let go of threads and temporary files."""
        if self._pool:
            self._pool.shutdown()
        for shard in self.shards:
            for stream in (shard.trail, shard.level, shard.next):
                stream.close()
        self.disk.close()

    def tallies(self) -> list[Tally]:
        """How far each is."""
        return [s.tally() for s in self.shards]

    def written(self) -> int:
        return self.disk.written

    def work(self) -> tuple[Work, ...]:
        return ()

    def begin(self, row: bytes) -> list[Tally]:
        for shard in self.shards:
            shard.start(row)
        return self.tallies()

    def expand(self, rows: int, limits: list[int]) -> list[Tally]:
        work = list(zip(self.shards, limits, strict=True))
        stops = self._all([lambda s=s, n=n: s.expand(rows, n) for s, n in work])  # type: ignore[misc]
        if len(self.shards) < self.size:
            self.shards[0].close_outgoing()
        return [s.tally(stop) for s, stop in zip(self.shards, stops, strict=True)]

    def exchange(self, elsewhere: Mapping[int, Parcels] | None = None) -> list[Tally]:
        """Make room for what comes next, and take up what shards elsewhere found, by their numbers."""
        if not all(self._all([s.known.settle for s in self.shards])):
            self._all([s.look_up for s in self.shards])
            self._all([s.spill for s in self.shards])
        if elsewhere is not None:
            (shard,) = self.shards
            shard.receive(parcel for k in sorted(elsewhere) for parcel in elsewhere[k])
            shard.reset_outgoing()
        return self.tallies()

    def parcel(self, owner: int) -> bytes:
        """What the one shard here found for another, in one piece, with room behind."""
        (shard,) = self.shards
        return b"".join([*(records[:used] for records, used in shard.outgoing[owner]), bytes(SLACK)])

    def descend(self) -> tuple[int, list[Tally]]:
        self._frontier = sum(self._all([s.descend for s in self.shards]))
        return self._frontier, self.tallies()

    def _all(self, calls: list[Callable[[], Result]]) -> list[Result]:
        if self._pool is None or self._frontier < FEW:
            return [call() for call in calls]
        futures = [self._pool.submit(call) for call in calls]
        return [f.result() for f in futures]

    def step(self, shard: int, number: int) -> tuple[int, int] | None:
        return self.shards[shard - self.shards[0].number].step(number)

    # --- checkpoints ---

    def save(self, number: int) -> list[dict[str, Any]]:
        saved = [s.save(number) for s in self.shards]
        for name in set().union(*map(files_of, saved)):
            make_durable(self.disk.path(name))
        make_durable(self.disk.folder)
        return saved

    def keep(self, saved: list[dict[str, Any]]) -> None:
        self.disk.kept = set().union(*map(files_of, saved))
        in_use = {stream.name for s in self.shards for stream in (s.level, s.next, s.trail)}
        self._remove_but(self.disk.kept | in_use)

    def load(self, saved: list[dict[str, Any]]) -> list[Tally]:
        self.disk.kept = set().union(*map(files_of, saved))
        for shard, what in zip(self.shards, saved, strict=True):
            shard.load(what)
        for shard in self.shards:
            shard.refill()
        return self.tallies()

    def recover(self) -> None:
        raise AssertionError("threads don't get lost")

    def clear(self) -> None:
        self.disk.kept = set()
        self._remove_but(set())

    def _remove_but(self, names: set[str]) -> None:
        for path in self.disk.folder.iterdir():
            if path.name not in names and path.name.split("-")[0] in OURS:
                path.unlink()


def make_durable(path: Path) -> None:
    """Have a file, or a folder's names, on disk when this returns."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

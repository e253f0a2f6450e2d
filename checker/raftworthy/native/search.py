"""Breadth first by several threads, each of which owns a range of fingerprints; nothing is locked.

A level is done in rounds. First each thread expands some of its rows. New states in its own range it keeps;
others it looks up in their owners' tables, and writes down those that it doesn't find. When all have
finished, each takes up what others have written down for it, unless it has come upon that itself meanwhile.
Tables grow only then, and how many rows a round has depends on each thread's own range alone; so the same
number of threads always finds the same path.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.context import ACTION_BITS, ORDINAL_BITS, SHARD_BITS, SLICES, At, Stop, Table
from raftworthy.native.program import Program
from raftworthy.native.shard import Shard
from raftworthy.native.storage import Disk, Memory

ROUND = 8192  # rows of each thread
FEW = 512  # rows of a level, for which starting threads doesn't pay
Result = TypeVar("Result")
WORST_FIRST = (Stop.MISFIT, Stop.CROWDED, Stop.VIOLATED)


@dataclass(frozen=True)
class Found:
    """Why a search ended early: where, by which step, and which property this breaks, from 1."""

    why: Stop
    shard: Shard
    move: tuple[int, int]
    property: int


class Search:
    """A search as it stands: the level at hand, the next one, and all that was seen."""

    def __init__(self, program: Program, memory: int, threads: int = 1, disk: Disk | None = None) -> None:
        assert 0 < threads <= 1 << SHARD_BITS
        assert threads == 1 or not program.exact
        self.program, self.threads = program, threads
        self.disk = disk or Disk()
        self._tables = np.zeros((threads * SLICES, int(Table.WORDS)), np.uint64)
        self.shards = [
            Shard(program, k, threads, self._tables, Memory(memory // threads), self.disk)
            for k in range(threads)
        ]
        self.frontier = 0
        self.depth = 0
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def close(self) -> None:
        """Let go of threads and temporary files."""
        if self._pool:
            self._pool.shutdown()
        for shard in self.shards:
            for stream in (shard.trail, shard.level, shard.next):
                stream.close()
        self.disk.close()

    # --- how far it is ---

    @property
    def distinct(self) -> int:
        return sum(s.distinct for s in self.shards)

    @property
    def steps(self) -> int:
        return sum(s.at(At.STEPS) for s in self.shards)

    @property
    def expanded(self) -> int:
        """Rows of the level at hand whose successors were made."""
        return sum(s.at(At.ROW) for s in self.shards)

    @property
    def peak_memory(self) -> int:
        return sum(s.memory.peak for s in self.shards)

    @property
    def table_bytes(self) -> int:
        return sum(s.table_bytes for s in self.shards)

    # --- the search ---

    def begin(self, s: World) -> None:
        """Put in the first state."""
        lay = self.program.layout
        row = self.program.rows.pack(lay.pack(s), [lay.pack_message(m) for m in sorted(s.messages, key=repr)])
        for shard in self.shards:
            shard.start(row)
        self.descend()

    def round(self, limit: int, rows: int = ROUND) -> Found | None:
        """Expand some rows, unless there are `limit` states; what ended the search, if something did."""
        share = -(-max(limit - self.distinct, 0) // self.threads)
        limits = [s.at(At.DISTINCT) + share for s in self.shards]
        work = list(zip(self.shards, limits, strict=True))
        stops = self._all([lambda s=s, n=n: s.expand(rows, n) for s, n in work])  # type: ignore[misc]
        for why in WORST_FIRST:
            for shard, stop in zip(self.shards, stops, strict=True):
                if stop is why:
                    return Found(stop, shard, split(shard.at(At.MOVE)), shard.at(At.PROPERTY))
        for shard in self.shards:
            shard.close_outgoing()
        self._all([lambda s=s: s.receive(self.shards) for s in self.shards])  # type: ignore[misc]
        for shard in self.shards:
            shard.reset_outgoing()
        return None

    @property
    def level_done(self) -> bool:
        return not any(s.level.pieces for s in self.shards)

    def descend(self) -> None:
        """Take the next level."""
        self.frontier = sum(self._all([s.descend for s in self.shards]))

    def _all(self, calls: list[Callable[[], Result]]) -> list[Result]:
        if self._pool is None or self.frontier < FEW:
            return [call() for call in calls]
        futures = [self._pool.submit(call) for call in calls]
        return [f.result() for f in futures]

    def steps_to(self, shard: int, number: int) -> list[tuple[int, int]]:
        """The action and the choice of each step to a state, by its thread and its number there."""
        steps = []
        while (found := self.shards[shard].step(number)) is not None:
            parent, move = found
            steps.append(split(move))
            number, shard = parent >> SHARD_BITS, parent & ((1 << SHARD_BITS) - 1)
        return steps[::-1]


def split(step: int) -> tuple[int, int]:
    """The action and the choice that a step's word names."""
    return step >> ORDINAL_BITS & (1 << ACTION_BITS) - 1, step & (1 << ORDINAL_BITS) - 1


def successors(program: Program, s: World) -> set[World]:
    """The states after one step, other than s itself. If a property fails, those up to that step."""
    search = Search(program, 1 << 30)
    try:
        search.begin(s)
        search.round(1 << 62)
        search.descend()
        out = set()
        for piece in search.shards[0].level.pieces:
            assert piece.array is not None
            data, at = piece.array[: piece.used].tobytes(), 0
            while at < len(data):
                words, messages, size = program.rows.parse(data[at:])
                out.add(program.layout.unpack(words, messages))
                at += size
        return out
    finally:
        search.close()


def refuse(found: Found, program: Program) -> NoPlaceError:
    """What to say of a state that has no place."""
    if found.why is Stop.CROWDED:
        return NoPlaceError(f"a state has more than {program.rows.most_messages} messages")
    action = program.transitions[found.move[0]].name
    bounds = program.layout.bounds
    return NoPlaceError(f"{action} makes a value beyond the bounds ({bounds}); try: --engine python")


@contextlib.contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask to stop instead of stopping; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""A part of a search, a shard: its range of fingerprints, its rows of both levels, its steps.

One thread at a time works on it, of this process or of another machine's.

What it allocates is counted, and goes to disk when there is too much: closed pieces of rows and steps one by
one, and all fingerprints at once when their tables may not grow any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raftworthy.native.context import NO_PARENT, RECORD, SLACK, SLICES, At, Out, Stop, Table
from raftworthy.native.functions import Functions
from raftworthy.native.runs import Runs
from raftworthy.native.storage import Bytes, Disk, Memory, Stream, Words, chunks

FULL = 0.75  # of a table's places, before it grows
GROWTH = 1.4  # so that it is never less than half full once it is large
FIRST_TABLE = 1 << 12  # places
TABLES_SHARE = 0.6  # of memory, that tables may take
SENT_SHARE = 0.1  # of memory, that what was sent may take
FEWEST = 256  # places for each table elsewhere
STEPS_IN_MEMORY = 32 << 20  # bytes of steps, before the older ones go to disk
SMALLEST_PIECE, LARGEST_PIECE = 1 << 16, 1 << 24  # bytes
CHECKED_AT_ONCE = 1 << 20  # fingerprints that are looked up in the runs
DEAD = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tally:
    """How far a shard is, and why it stopped last."""

    shard: int
    stop: Stop
    distinct: int
    steps: int
    expanded: int  # rows of the level at hand
    left: bool  # whether there are rows to expand
    found: int  # states that count for the limit, those that turned out to be known included
    parent: int  # the state that was expanded last
    move: int
    property: int
    peak_memory: int
    table_bytes: int


class Shard:
    """What a thread owns. `tables` describes all shards' tables.

    It is shared, if all shards are of this process. If not, the tables of shards elsewhere are one that notes
    what was sent to any of them, so that it isn't sent twice.
    """

    def __init__(
        self, functions: Functions, number: int, shards: int, tables: Words, memory: Memory, disk: Disk
    ) -> None:
        self.functions, self.number, self.shards = functions, number, shards
        self.memory, self.disk, self.tables = memory, disk, tables
        self.context: Words = np.zeros(functions.context_words, np.uint64)
        self.places: list[Words] = []  # of its tables
        self.outgoing: list[list[tuple[Bytes, int]]] = [[] for _ in range(shards)]
        self._out: Words = np.zeros((shards + 2, int(Out.WORDS)), np.uint64)[1:-1]
        self.trail = Stream(f"steps-{number}", memory, disk)
        self.levels = 0
        self.level = self._new_level()
        self.next = self._new_level()
        self.runs = Runs(disk, number)
        self.dead: DEAD | None = None  # for each row of the level, whether it was known after all
        self.dead_next: list[DEAD] = []  # the same for the next one, as far as it was looked up
        self.checked = 0  # the first step whose state wasn't looked up in the runs
        self.spilled = 0  # the first step whose state is in no run
        self.died = 0  # states that turned out to be known
        self.states: list[Words] = []  # whole states, in exact mode
        c = self.context
        c[At.SHARD], c[At.SHARDS] = number, shards
        c[At.TABLES], c[At.OUT] = tables.ctypes.data, self._out.ctypes.data
        for k in range(SLICES):
            self.places.append(np.zeros(FIRST_TABLE * functions.width, np.uint64))
            memory.take(self.places[k].nbytes)
            self._describe(k, 0)
        self.sent: Words | None = None  # fingerprints

    def at(self, place: At) -> int:
        return int(self.context[place])

    @property
    def distinct(self) -> int:
        return self.at(At.DISTINCT) - self.died

    @property
    def table_bytes(self) -> int:
        return sum(p.nbytes for p in self.places)

    def _new_level(self) -> Stream:
        self.levels += 1
        return Stream(f"rows-{self.number}-{self.levels}", self.memory, self.disk)

    # --- rounds ---

    def tally(self, stop: Stop = Stop.DONE) -> Tally:
        """How far it is."""
        return Tally(
            self.number, stop, self.distinct, self.at(At.STEPS), self.at(At.ROW), bool(self.level.pieces),
            self.at(At.DISTINCT), self.at(At.PARENT), self.at(At.MOVE), self.at(At.PROPERTY),
            self.memory.peak, self.table_bytes,
        )  # fmt: skip

    def start(self, row: bytes) -> None:
        """Put in the first state, if it is this thread's."""
        array = np.frombuffer(row, np.uint8).copy()
        self.context[At.NEED] = len(row) + SLACK
        self._make_room(SMALLEST_PIECE)
        self.functions.start(self.context.ctypes.data, array.ctypes.data)

    def expand(self, rows: int, limit: int) -> Stop:
        """Go on with the level at hand, for so many rows or until there are so many states."""
        c = self.context
        c[At.BUDGET], c[At.STATES_LIMIT], c[At.SENT] = rows, limit, 0
        while self.level.pieces:
            if self.level.pieces[0].array is None:
                self._allocate(self.level.pieces[0].used + SLACK)
            piece = self.level.first()
            assert piece.array is not None
            c[At.ROWS], c[At.ROWS_END] = piece.array.ctypes.data, piece.used
            stop = Stop(self.functions.expand(c.ctypes.data))
            if stop is Stop.ROOM:
                self._make_room(self._piece_size())
            elif stop is Stop.DONE:
                self.level.pop()
                c[At.ROWS_AT] = 0
            elif stop is Stop.FULL and self.sent is not None:
                self._grow()  # nobody else looks into these tables
            else:
                return stop
        return Stop.DONE

    def receive(self, parcels: Iterable[tuple[Bytes, int]]) -> None:
        """Grow, if need be, and take up what others found for this one."""
        if self.at(At.FULL):
            self._grow()
        c, kept = self.context, self.at(At.ROWS_AT)
        for records, used in parcels:
            c[At.ROWS_AT] = 0
            while stop := Stop(self.functions.receive(c.ctypes.data, records.ctypes.data, used)):
                if stop is Stop.FULL:
                    self._grow()
                else:
                    self._make_room(self._piece_size())
        c[At.ROWS_AT] = kept

    def close_outgoing(self) -> None:
        """Note how much goes to each other thread."""
        for k, sent in enumerate(self.outgoing):
            if sent:
                sent[-1] = (sent[-1][0], int(self._out[k, Out.USED]))

    def reset_outgoing(self) -> None:
        """Forget what was received."""
        for k, sent in enumerate(self.outgoing):
            for records, _ in sent[1:]:
                self.memory.free(records.nbytes)
            del sent[1:]
            if sent:
                self._out[k, :3] = sent[0][0].ctypes.data, sent[0][0].nbytes, 0

    def descend(self) -> int:
        """Take the next level; how many states it has."""
        c, first = self.context, self.at(At.PARENT)
        size = self.at(At.DISTINCT) - first
        self.next.close_piece(self.at(At.NEXT_USED))
        dead = None
        if self.runs:
            self._look_up()
            dead = np.concatenate(self.dead_next) if self.dead_next else np.zeros(0, np.uint8)
        self.checked = self.at(At.DISTINCT)
        self.dead, self.dead_next = dead, []
        self.level.discard()
        self.level, self.next = self.next, self._new_level()
        c[At.NEXT_ROOM] = c[At.NEXT_USED] = c[At.ROWS_AT] = c[At.ROW] = 0
        c[At.DEAD] = self.dead.ctypes.data if self.dead is not None and len(self.dead) else 0
        return size - (int(self.dead.sum()) if self.dead is not None else 0)

    def step(self, number: int) -> tuple[int, int] | None:
        """How a state was reached: the one before, and the step; None: it is the first."""
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        _, word = self.trail.read(number * RECORD, RECORD).view(np.uint64)
        return None if int(word) == NO_PARENT else (int(word) >> 24, int(word) & ((1 << 24) - 1))

    # --- memory ---

    def _piece_size(self) -> int:
        most = max(SMALLEST_PIECE, min(LARGEST_PIECE, self.memory.limit // 32))
        return min(most, max(SMALLEST_PIECE, 8 * self.at(At.DISTINCT)))

    def _allocate(self, size: int) -> None:
        """Make sure that there is memory for so many bytes.

        Raises:
            MemoryError: nothing more can go to disk.
        """
        while not self.memory.has(size):
            if self.functions.exact or not (
                self.trail.evict() or self.next.evict() or self.level.evict(keep_first=True)
            ):
                raise MemoryError

    def _make_room(self, size: int) -> None:
        c, need = self.context, self.at(At.NEED)
        size = max(size, 2 * need)
        if self.at(At.NEXT_ROOM) - self.at(At.NEXT_USED) < need:
            self.next.close_piece(self.at(At.NEXT_USED))
            self._allocate(size)
            piece = self.next.open_piece(size)
            c[At.NEXT], c[At.NEXT_ROOM], c[At.NEXT_USED] = piece.ctypes.data, size, 0
        if self.at(At.TRAIL_ROOM) - self.at(At.TRAIL_USED) < need // RECORD + 1:
            self._new_steps(size)
        if self.functions.exact and self.at(At.STATES_ROOM) - self.at(At.STATES_USED) < need:
            self._allocate(size)
            self.memory.take(size)
            self.states.append(np.empty(size // 8, np.uint64))
            c[At.STATES], c[At.STATES_ROOM] = self.states[-1].ctypes.data, size // 8 * 8
            c[At.STATES_USED] = 0
        for k, sent in enumerate(self.outgoing):
            if k != self.number and int(self._out[k, Out.ROOM] - self._out[k, Out.USED]) < need:
                if sent:
                    sent[-1] = (sent[-1][0], int(self._out[k, Out.USED]))
                part = max(2 * need, size // max(1, self.shards // 4))  # many others get little each
                self._allocate(part)
                self.memory.take(part)
                sent.append((np.empty(part, np.uint8), 0))
                self._out[k, :3] = sent[-1][0].ctypes.data, part, 0

    def _new_steps(self, size: int) -> None:
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        if not self.functions.exact:
            in_memory = sum(p.array.nbytes for p in self.trail.pieces if p.array is not None)
            while in_memory > STEPS_IN_MEMORY // self.shards and self.trail.evict():
                in_memory -= self._piece_size()
        self._allocate(size)
        piece = self.trail.open_piece(size)
        c = self.context
        c[At.TRAIL], c[At.TRAIL_ROOM], c[At.TRAIL_USED] = piece.ctypes.data, size // RECORD, 0

    # --- fingerprints ---

    def _describe(self, k: int, used: int) -> None:
        places, row = self.places[k], self.number * SLICES + k
        size = len(places) // self.functions.width
        self.tables[row, [Table.ADDRESS, Table.SIZE]] = places.ctypes.data, size
        self.tables[row, [Table.LIMIT, Table.USED]] = int(size * FULL), used

    def _grow(self, may_spill: bool = True) -> None:
        """Make the tables that are full larger; or, without memory for that, a run of all."""
        width = self.functions.width
        for k, old in enumerate(self.places):
            row = self.tables[self.number * SLICES + k]
            if row[Table.USED] < row[Table.LIMIT]:
                continue
            size = int(int(row[Table.SIZE]) * GROWTH) * width * 8
            try:
                if self.table_bytes + size - old.nbytes > TABLES_SHARE * self.memory.limit:
                    raise MemoryError
                self._allocate(size)
            except MemoryError:
                if self.functions.exact or not may_spill:
                    raise
                self._spill()
                break
            self.memory.take(size)
            self.places[k] = np.zeros(size // 8, np.uint64)
            self._describe(k, 0)
            address = old.ctypes.data
            self.functions.insert(self.context.ctypes.data, address, width, len(old) // width)
            self.memory.free(old.nbytes)
        self._grow_sent()
        self.context[At.FULL] = 0

    # --- what was sent ---

    def remember_sent(self) -> None:
        """From now on, note what is sent: the other shards' tables are elsewhere."""
        self.context[At.REMEMBER] = 1
        self._describe_sent(max(FIRST_TABLE, SLICES * self.shards * FEWEST))

    def _describe_sent(self, size: int) -> None:
        self.sent = np.zeros(size, np.uint64)
        self.memory.take(self.sent.nbytes)
        elsewhere = self._elsewhere()
        self.tables[elsewhere, Table.ADDRESS], self.tables[elsewhere, Table.SIZE] = (
            self.sent.ctypes.data,
            size,
        )
        self.tables[elsewhere, Table.LIMIT] = int(size * FULL / elsewhere.sum())
        self.tables[elsewhere, Table.USED] = 0

    def _elsewhere(self) -> npt.NDArray[np.bool_]:
        """Which tables are of other shards."""
        elsewhere: npt.NDArray[np.bool_] = np.arange(len(self.tables)) // SLICES != self.number
        return elsewhere

    def _grow_sent(self) -> None:
        """Note more of what is sent; or, without memory for that, forget all of it."""
        if self.sent is None:
            return
        table = self.tables[self._elsewhere()]
        if (table[:, Table.USED] < table[:, Table.LIMIT]).all():
            return
        old = self.sent
        try:
            size = 2 * old.nbytes
            if size > SENT_SHARE * self.memory.limit:
                raise MemoryError
            self._allocate(size)
        except MemoryError:
            self.memory.free(old.nbytes)
            self._describe_sent(len(old))
        else:
            self._describe_sent(2 * len(old))
            self.functions.insert(self.context.ctypes.data, old.ctypes.data, 1, len(old))
            self.memory.free(old.nbytes)

    def _spill(self) -> None:
        """Make a run of all fingerprints, and empty the tables."""
        self._look_up()
        self.runs.add(np.concatenate([p[p != 0] for p in self.places]))
        self.spilled = self.at(At.DISTINCT)
        for k, p in enumerate(self.places):
            p.fill(0)
            self._describe(k, 0)

    def _look_up(self) -> None:
        """Find out which new states of the level are in a run."""
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        for start, end in chunks(self.checked, self.at(At.DISTINCT), CHECKED_AT_ONCE):
            keys = self.keys(start, end)
            dead = self.runs.contain(keys).astype(np.uint8) if self.runs else np.zeros(len(keys), np.uint8)
            self.dead_next.append(dead)
            self.died += int(dead.sum())
        self.checked = self.at(At.DISTINCT)

    def keys(self, start: int, end: int) -> Words:
        """The fingerprints of states by their numbers."""
        steps = self.trail.read(start * RECORD, (end - start) * RECORD).view(np.uint64)
        return steps[::2].copy()

    # --- checkpoints ---

    def save(self, number: int) -> dict[str, Any]:
        """Have everything on disk; what a checkpoint has to know."""
        c = self.context
        out: dict[str, Any] = {
            "trail": self.trail.save(self.at(At.TRAIL_USED) * RECORD),
            "level": self.level.save(self.level.pieces[-1].used if self.level.pieces else 0),
            "next": self.next.save(self.at(At.NEXT_USED)),
            "runs": self.runs.names,
        }
        c[At.TRAIL_ROOM] = c[At.TRAIL_USED] = c[At.NEXT_ROOM] = c[At.NEXT_USED] = 0
        for name in ("ROWS_AT", "PARENT", "ROW", "STEPS", "DISTINCT"):
            out[name] = self.at(At[name])
        for name in ("levels", "checked", "spilled", "died"):
            out[name] = getattr(self, name)
        out["run_number"] = self.runs.number
        out["dead"] = {}
        for name, dead in (("dead", self.dead), ("dead_next", _joined(self.dead_next))):
            if dead is not None:
                file = f"{name}-{self.number}-{number}"
                with self.disk.path(file).open("wb") as f:
                    f.write(dead.data)
                out["dead"][name] = file
        return out

    def load(self, saved: dict[str, Any]) -> None:
        """Take up what `save` said."""
        c = self.context
        for name in ("trail", "level", "next"):
            getattr(self, name).load(saved[name])
        self.runs.names, self.runs.number = list(saved["runs"]), saved["run_number"]
        for name in ("ROWS_AT", "PARENT", "ROW", "STEPS", "DISTINCT"):
            c[At[name]] = saved[name]
        for name in ("levels", "checked", "spilled", "died"):
            setattr(self, name, saved[name])
        dead = {name: np.fromfile(self.disk.path(file), np.uint8) for name, file in saved["dead"].items()}
        self.dead = dead.get("dead")
        self.dead_next = [dead["dead_next"]] if "dead_next" in dead else []
        c[At.DEAD] = self.dead.ctypes.data if self.dead is not None and len(self.dead) else 0
        for start, end in chunks(self.spilled, self.at(At.DISTINCT), CHECKED_AT_ONCE):
            keys = self.keys(start, end)
            for a, b in chunks(0, len(keys), FIRST_TABLE // 8):
                self.functions.insert(c.ctypes.data, keys[a:].ctypes.data, 1, b - a)
                if self.at(At.FULL):
                    self._grow(may_spill=False)


def _joined(parts: list[DEAD]) -> DEAD | None:
    return np.concatenate(parts) if parts else None


def files_of(saved: dict[str, Any]) -> set[str]:
    """The files that a checkpoint needs of a thread."""
    streams = [saved[name] for name in ("trail", "level", "next")]
    names = {stream["name"] for stream in streams if stream["pieces"]}
    return names | set(saved["runs"]) | set(saved["dead"].values())

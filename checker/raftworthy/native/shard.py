"""A part of a search, a shard: its range of fingerprints, its rows of both levels, its steps.

One thread at a time works on it, of this process or of another machine's. Threads of a process are peers:
what one finds is its own, whosever range it is in, and one that has no rows left takes another's.

What it allocates is counted, and goes to disk when there is too much: closed pieces of rows and steps one by
one, and all fingerprints at once when their tables may not grow any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raftworthy.native.context import NO_PARENT, PARENT_SHIFT, RECORD, SLACK, At, Out, Stop
from raftworthy.native.functions import Functions
from raftworthy.native.known import Known
from raftworthy.native.storage import (
    Bytes,
    Disk,
    Memory,
    Piece,
    Stream,
    Words,
    address_of,
    chunks,
    zero_words,
    zeros,
)

STEPS_IN_MEMORY = 32 << 20  # bytes of steps, before the older ones go to disk
SMALLEST_PIECE, LARGEST_PIECE = 1 << 16, 1 << 24  # bytes
LARGEST_ROWS = 1 << 18  # bytes of rows: some milliseconds, for which threads wait at the end of a level
CHECKED_AT_ONCE = 1 << 20  # fingerprints that are looked up in the runs
KEPT = ("levels", "first", "next_first", "checked", "spilled", "died")  # what a checkpoint has of a shard


@dataclass(frozen=True)
class Tally:
    """How far a shard is, and why it stopped last."""

    shard: int  # whose state was expanded last
    stop: Stop
    distinct: int
    steps: int
    left: bool  # whether there are rows to expand
    found: int  # states that count for the limit, those that turned out to be known included
    parent: int  # the number of the state that was expanded last
    move: int
    property: int
    peak_memory: int
    table_bytes: int


class Shard:
    """What a thread owns."""

    def __init__(self, functions: Functions, number: int, shards: int, memory: Memory, disk: Disk) -> None:
        self.functions, self.number, self.shards = functions, number, shards
        self.memory, self.disk = memory, disk
        self.context = zero_words(functions.context_words)
        self.address = address_of(self.context)
        self.peers: Sequence[Shard] = ()
        self.outgoing: list[list[tuple[Bytes, int]]] = [[] for _ in range(shards)]
        self._out = zero_words(shards * Out.WORDS)
        self.trail = Stream(f"steps-{number}", memory, disk)
        self.levels = 0
        self.level = self._new_level()
        self.next = self._new_level()
        self.first = self.next_first = 0  # the number of each level's first state
        self.dead: bytearray | None = None  # for each row of the level, whether it was known after all
        self.dead_next: list[bytearray] = []  # the same for the next one, as far as it was looked up
        self.checked = 0  # the first step whose state wasn't looked up in the runs
        self.spilled = 0  # the first step whose state is in no run
        self.died = 0  # states that turned out to be known
        self.states: list[Words] = []  # whole states, in exact mode
        c = self.context
        c[At.SHARD], c[At.SHARDS], c[At.OUT] = number, shards, address_of(self._out)
        self.known = Known(functions, number, shards, c, memory, disk, self._allocate)

    def join(self, peers: Sequence[Shard]) -> None:
        """Work with the shards of this process, this one among them."""
        self.peers = peers
        self.known.join([peer.known for peer in peers])

    def at(self, place: At) -> int:
        return self.context[place]

    @property
    def distinct(self) -> int:
        return self.at(At.DISTINCT) - self.died

    def _new_level(self) -> Stream:
        self.levels += 1
        return Stream(f"rows-{self.number}-{self.levels}", self.memory, self.disk)

    # --- rounds ---

    def tally(self, stop: Stop = Stop.DONE) -> Tally:
        """How far it is."""
        return Tally(
            self.at(At.FROM), stop, self.distinct, self.at(At.STEPS), bool(self.level.pieces),
            self.at(At.DISTINCT), self.at(At.PARENT), self.at(At.MOVE), self.at(At.PROPERTY),
            self.memory.peak, self.known.bytes,
        )  # fmt: skip

    def start(self, row: bytes) -> None:
        """Put in the first state, if it is this shard's."""
        array = bytearray(row + bytes(SLACK))
        self.context[At.NEED] = len(row) + SLACK
        self._make_room(SMALLEST_PIECE)
        self.functions.start(self.address, address_of(array))

    def expand(self, rows: int, limit: int) -> Stop:
        """Go on with the level at hand, for so many rows or until there are so many states."""
        c = self.context
        c[At.BUDGET], c[At.STATES_LIMIT], c[At.SENT] = rows, limit, 0
        while not any(peer.at(At.FULL) for peer in self.peers):
            owner, piece = self._take()
            if piece is None:
                return Stop.DONE
            stop = self._expand(owner, piece)
            if stop is Stop.DONE:
                piece.release()
                continue
            piece.start, piece.number = self.at(At.ROWS_AT), self.at(At.PARENT)
            owner.level.put_back(piece)
            if stop is not Stop.FULL or len(self.peers) > 1:
                return stop
            self.fit()
        return Stop.FULL

    def _take(self) -> tuple[Shard, Piece | None]:
        """A piece of the level, from its beginning; or from the end of a peer's, who has some left."""
        piece = self.level.take()
        if piece is not None:
            return self, piece
        for peer in self.peers:
            piece = peer.level.take(last=True)
            if piece is not None:
                return peer, piece
        return self, None

    def _expand(self, owner: Shard, piece: Piece) -> Stop:
        c = self.context
        if piece.array is None:
            self._allocate(piece.used + SLACK)
            owner.level.fetch(piece, self.memory)
        assert piece.array is not None
        c[At.ROWS], c[At.ROWS_END], c[At.ROWS_AT] = address_of(piece.array), piece.used, piece.start
        c[At.FROM], c[At.PARENT], c[At.ROW] = owner.number, piece.number, piece.number - owner.first
        c[At.DEAD] = address_of(owner.dead) if owner.dead else 0
        while (stop := Stop(self.functions.expand(self.address))) is Stop.ROOM:
            self._make_room(self._piece_size())
        return stop

    def receive(self, parcels: Iterable[tuple[int, int]]) -> None:
        """Take up what shards elsewhere found for this one, by where that is and how many bytes."""
        for records, used in parcels:
            self.context[At.ROWS_AT] = 0
            while stop := Stop(self.functions.receive(self.address, records, used)):
                if stop is Stop.FULL:
                    self.fit()
                else:
                    self._make_room(self._piece_size())

    def close_outgoing(self) -> None:
        """Note how much goes to each shard elsewhere."""
        for k, sent in enumerate(self.outgoing):
            if sent:
                sent[-1] = (sent[-1][0], self._out[k * Out.WORDS + Out.USED])

    def reset_outgoing(self) -> None:
        """Forget what was received. The last piece, the largest, is written again."""
        for k, sent in enumerate(self.outgoing):
            for records, _ in sent[:-1]:
                self.memory.free(records.nbytes)
            del sent[:-1]
            if sent:
                self._write_to(k, sent[0][0])

    def _write_to(self, k: int, records: Bytes) -> None:
        """Have what goes to a shard elsewhere written down here."""
        for place, value in ((Out.ADDRESS, address_of(records)), (Out.ROOM, records.nbytes), (Out.USED, 0)):
            self._out[k * Out.WORDS + place] = value

    def descend(self) -> int:
        """Take the next level; how many states it has."""
        c = self.context
        size = self.at(At.DISTINCT) - self.next_first
        self.first, self.next_first = self.next_first, self.at(At.DISTINCT)
        self.next.close_piece(self.at(At.NEXT_USED))
        dead = None
        if self.known.spilled:
            self.look_up()
            dead = bytearray().join(self.dead_next)
        self.checked = self.at(At.DISTINCT)
        self.dead, self.dead_next = dead, []
        self.level.discard()
        self.level, self.next = self.next, self._new_level()
        c[At.NEXT_ROOM] = c[At.NEXT_USED] = 0
        return size - (self.dead.count(1) if self.dead is not None else 0)

    def step(self, number: int) -> tuple[int, int] | None:
        """How a state was reached: the one before, and the step; None: it is the first."""
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        _, word = self.trail.read(number * RECORD, RECORD).cast("Q")
        return None if word == NO_PARENT else (word >> PARENT_SHIFT, word & ((1 << PARENT_SHIFT) - 1))

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
            if self.functions.exact or not (self.trail.evict() or self.next.evict() or self.level.evict()):
                raise MemoryError

    def _make_room(self, size: int) -> None:
        c, need = self.context, self.at(At.NEED)
        size = max(size, 2 * need)
        if self.at(At.NEXT_ROOM) - self.at(At.NEXT_USED) < need:
            self.next.close_piece(self.at(At.NEXT_USED))
            part = max(min(size, LARGEST_ROWS), 2 * need)
            self._allocate(part)
            piece = self.next.open_piece(part, self.at(At.DISTINCT))
            c[At.NEXT], c[At.NEXT_ROOM], c[At.NEXT_USED] = address_of(piece), part, 0
        if self.at(At.TRAIL_ROOM) - self.at(At.TRAIL_USED) < need // RECORD + 1:
            self._new_steps(size)
        if self.functions.exact and self.at(At.STATES_ROOM) - self.at(At.STATES_USED) < need:
            self._allocate(size)
            self.memory.take(size)
            self.states.append(zero_words(size // 8))
            c[At.STATES], c[At.STATES_ROOM] = address_of(self.states[-1]), size // 8 * 8
            c[At.STATES_USED] = 0
        elsewhere = [k for k in range(self.shards) if len(self.peers) < self.shards and k != self.number]
        for k in elsewhere:
            room, used = (self._out[k * Out.WORDS + place] for place in (Out.ROOM, Out.USED))
            if room - used < need:
                sent = self.outgoing[k]
                if sent:
                    sent[-1] = (sent[-1][0], used)
                part = max(2 * need, size // max(1, self.shards // 4))  # many others get little each
                self._allocate(part)
                self.memory.take(part)
                sent.append((zeros(part), 0))
                self._write_to(k, sent[-1][0])

    def _new_steps(self, size: int) -> None:
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        if not self.functions.exact:
            in_memory = sum(p.array.nbytes for p in self.trail.pieces if p.array is not None)
            while in_memory > STEPS_IN_MEMORY // self.shards and self.trail.evict():
                in_memory -= self._piece_size()
        self._allocate(size)
        piece = self.trail.open_piece(size)
        c = self.context
        c[At.TRAIL], c[At.TRAIL_ROOM], c[At.TRAIL_USED] = address_of(piece), size // RECORD, 0

    # --- fingerprints ---

    def fit(self) -> None:
        """Make full tables larger; or, without memory for that, a run of all. There are no peers."""
        if not self.known.settle():
            self.look_up()
            self.spill()

    def spill(self) -> None:
        """Make a run of all fingerprints, after peers have looked up theirs."""
        self.known.spill()
        self.spilled = self.at(At.DISTINCT)

    def look_up(self) -> None:
        """Find out which new states of the level are in a run."""
        self.trail.close_piece(self.at(At.TRAIL_USED) * RECORD)
        for start, end in chunks(self.checked, self.at(At.DISTINCT), CHECKED_AT_ONCE):
            dead = self.known.look_up(self.keys(start, end))
            self.dead_next.append(dead)
            self.died += dead.count(1)
        self.checked = self.at(At.DISTINCT)

    def keys(self, start: int, end: int) -> Words:
        """The fingerprints of states by their numbers."""
        steps = self.trail.read(start * RECORD, (end - start) * RECORD).cast("Q")
        return memoryview(bytearray(steps[::2].tobytes())).cast("Q")

    # --- checkpoints ---

    def save(self, number: int) -> dict[str, Any]:
        """Have everything on disk; what a checkpoint has to know."""
        c = self.context
        out: dict[str, Any] = {
            "trail": self.trail.save(self.at(At.TRAIL_USED) * RECORD),
            "level": self.level.save(self.level.pieces[-1].used if self.level.pieces else 0),
            "next": self.next.save(self.at(At.NEXT_USED)),
            "runs": self.known.runs.names,
        }
        c[At.TRAIL_ROOM] = c[At.TRAIL_USED] = c[At.NEXT_ROOM] = c[At.NEXT_USED] = 0
        for name in ("STEPS", "DISTINCT"):
            out[name] = self.at(At[name])
        for name in KEPT:
            out[name] = getattr(self, name)
        out["run_number"] = self.known.runs.number
        out["dead"] = {}
        parts = bytearray().join(self.dead_next) if self.dead_next else None
        for name, dead in (("dead", self.dead), ("dead_next", parts)):
            if dead is not None:
                file = f"{name}-{self.number}-{number}"
                self.disk.path(file).write_bytes(dead)
                out["dead"][name] = file
        return out

    def load(self, saved: dict[str, Any]) -> None:
        """Take up what `save` said."""
        c = self.context
        for name in ("trail", "level", "next"):
            getattr(self, name).load(saved[name])
        self.known.runs.names, self.known.runs.number = list(saved["runs"]), saved["run_number"]
        for name in ("STEPS", "DISTINCT"):
            c[At[name]] = saved[name]
        for name in KEPT:
            setattr(self, name, saved[name])
        dead = {name: bytearray(self.disk.path(file).read_bytes()) for name, file in saved["dead"].items()}
        self.dead = dead.get("dead")
        self.dead_next = [dead["dead_next"]] if "dead_next" in dead else []

    def refill(self) -> None:
        """Put what was known when `save` was called, and is in no run, into the tables."""
        for start, end in chunks(self.spilled, self.at(At.DISTINCT), CHECKED_AT_ONCE):
            self.known.insert(self.keys(start, end))


def files_of(saved: dict[str, Any]) -> set[str]:
    """The files that a checkpoint needs of a thread."""
    streams = [saved[name] for name in ("trail", "level", "next")]
    names = {stream["name"] for stream in streams if stream["pieces"]}
    return names | set(saved["runs"]) | set(saved["dead"].values())

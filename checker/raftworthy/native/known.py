"""A shard's fingerprints: its tables, which the threads of a process share, and its runs on disk.

Between rounds, while nobody searches, each counts what was put into its tables and grows those that are
full. Each thread is told how many places it may take before that has to be done again.
"""

from __future__ import annotations

import ctypes
import functools
import operator
from collections.abc import Callable, Sequence

from raftworthy.native.context import SLICES, At, Table
from raftworthy.native.functions import Functions
from raftworthy.native.runs import Runs
from raftworthy.native.storage import HUGE, Disk, Memory, Words, address_of, zero_words

FULL = 0.75  # of a table's places, before it grows
NEARLY = 0.72  # from which it grows if another does: then threads wait once for all of them
MOST = 0.8  # that may be taken before threads wait
GROWTH = 1.35  # so that it is never less than half full once it is large
FIRST_GROWTH = 4  # until then: what is moved each time adds up to less
FIRST_TABLE = 1 << 10  # places
TABLES_SHARE = 0.6  # of memory, that tables may take
SENT_SHARE = 0.1  # of memory, that what was sent may take
FEWEST = 256  # places for each table elsewhere


class Known:
    """What is known in a shard's range. `allocate` makes sure that there is memory for so many bytes."""

    def __init__(
        self, functions: Functions, number: int, shards: int, context: Words, memory: Memory, disk: Disk,
        allocate: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.functions, self.number, self.shards = functions, number, shards
        self.context, self.memory, self.allocate = context, memory, allocate
        self.runs = Runs(disk, number)
        # Of all shards' tables, as this one's thread sees them.
        self.described = zero_words(shards * SLICES * Table.WORDS)
        context[At.TABLES] = address_of(self.described)
        self.sizes, self.used = [FIRST_TABLE] * SLICES, [0] * SLICES
        self.places = [zero_words(FIRST_TABLE * functions.width) for _ in range(SLICES)]
        self.addresses = [*map(address_of, self.places)]
        memory.take(self.bytes)
        self.sent: Words | None = None  # fingerprints
        self.peers: Sequence[Known] = ()

    def join(self, peers: Sequence[Known]) -> None:
        """Share tables with the shards of this process, this one among them."""
        self.peers, c = peers, self.context
        c[At.FIRST_HERE], c[At.HERE] = peers[0].number, len(peers)
        self._describe()
        if len(peers) < self.shards:
            self._describe_sent(max(FIRST_TABLE, SLICES * self.shards * FEWEST))

    @property
    def bytes(self) -> int:
        return sum(p.nbytes for p in self.places)

    def _describe(self) -> None:
        """Say where the tables are, and how many places each thread may take."""
        sharing = len(self.peers)
        for k, size in enumerate(self.sizes):
            limit = max(int(size * MOST) - self.used[k], 1) // sharing + 1
            for peer in self.peers:
                peer.describe(self.number * SLICES + k, self.addresses[k], size, limit)

    def describe(self, g: int, address: int, size: int, limit: int) -> None:
        """Say where a table is, and how many of its places this shard's thread may take."""
        for place, value in (
            (Table.ADDRESS, address), (Table.SIZE, size), (Table.LIMIT, limit), (Table.USED, 0)
        ):  # fmt: skip
            self.described[g * Table.WORDS + place] = value

    def taken(self, g: int) -> int:
        """How many of a table's places this shard's thread has taken."""
        return self.described[g * Table.WORDS + Table.USED]

    def settle(self) -> bool:
        """Count what was put in, and grow the tables that are full; whether there was memory for it.

        Raises:
            MemoryError: there is none, and nothing can go to disk.
        """
        for k in range(SLICES):
            self.used[k] += sum(peer.taken(self.number * SLICES + k) for peer in self.peers)
        full = [used >= size * FULL for used, size in zip(self.used, self.sizes, strict=True)]
        fits = True
        if any(full):
            for k in range(SLICES):
                if self.used[k] >= self.sizes[k] * NEARLY:
                    fits = (self._grow(k) or not full[k]) and fits
        self._describe()
        self._grow_sent()
        self.context[At.FULL] = 0
        return fits

    def _grow(self, k: int) -> bool:
        """Make a table larger, if there is memory for it."""
        width, old = self.functions.width, self.places[k]
        most = TABLES_SHARE * self.memory.limit
        small = FIRST_GROWTH * old.nbytes <= HUGE and FIRST_GROWTH * self.bytes <= most
        places = int(self.sizes[k] * (FIRST_GROWTH if small else GROWTH))
        size = places * width * 8
        try:
            if self.bytes + size - old.nbytes > most:
                raise MemoryError
            self.allocate(size)
        except MemoryError:
            if self.functions.exact:
                raise
            return False
        self.memory.take(size)
        self.places[k] = zero_words(places * width)
        self.addresses[k], self.sizes[k] = address_of(self.places[k]), places
        g = self.number * SLICES + k
        self.describe(g, self.addresses[k], places, places)
        self._insert(old, width)
        self.used[k] = self.taken(g)
        self.memory.free(old.nbytes)
        return True

    def _insert(self, places: Words, width: int = 1) -> None:
        self.functions.insert(address_of(self.context), address_of(places), width, len(places) // width)

    def insert(self, keys: Words) -> None:
        """Put in fingerprints that weren't spilled.

        Raises:
            MemoryError: there is none for them.
        """
        for a in range(0, len(keys), FIRST_TABLE // 8):
            some = keys[a : a + FIRST_TABLE // 8]
            self._insert(some)
            if self.context[At.FULL]:
                fits = [peer.settle() for peer in self.peers]
                if not all(fits):
                    raise MemoryError

    # --- runs ---

    @property
    def spilled(self) -> bool:
        """Whether there are runs in this process."""
        return any(peer.runs for peer in self.peers)

    def spill(self) -> None:
        """Make a run of all fingerprints, and empty the tables. All that is new was looked up in the runs."""
        self.runs.add(*self.places)
        for address, table in zip(self.addresses, self.places, strict=True):
            ctypes.memset(address, 0, table.nbytes)
        self.used = [0] * SLICES
        self._describe()

    def look_up(self, keys: Words) -> bytearray:
        """For each of these fingerprints, whether it is in a run of this process."""
        found = [peer.runs.contain(keys) for peer in self.peers if peer.runs]
        return bytearray(functools.reduce(operator.or_, found).tobytes() if found else len(keys))

    # --- what was sent ---

    def _elsewhere(self) -> list[int]:
        """The tables of shards elsewhere: that is one here, for all that was sent to any of them."""
        here = {peer.number for peer in self.peers}
        return [g for g in range(self.shards * SLICES) if g // SLICES not in here]

    def _describe_sent(self, size: int) -> None:
        self.sent = zero_words(size)
        self.memory.take(self.sent.nbytes)
        elsewhere = self._elsewhere()
        for g in elsewhere:
            self.describe(g, address_of(self.sent), size, int(size * FULL / len(elsewhere)))

    def _grow_sent(self) -> None:
        """Note more of what is sent; or, without memory for that, forget all of it."""
        if self.sent is None:
            return
        limit = int(len(self.sent) * FULL / len(elsewhere := self._elsewhere()))
        if all(self.taken(g) < limit for g in elsewhere):
            return
        old = self.sent
        try:
            size = 2 * old.nbytes
            if size > SENT_SHARE * self.memory.limit:
                raise MemoryError
            self.allocate(size)
        except MemoryError:
            self.memory.free(old.nbytes)
            self._describe_sent(len(old))
        else:
            self._describe_sent(2 * len(old))
            self._insert(old)
            self.memory.free(old.nbytes)

"""A shard's fingerprints: its tables, which the threads of a process share, and its runs on disk.

Between rounds, while nobody searches, each counts what was put into its tables and grows those that are
full. Each thread is told how many places it may take before that has to be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from raftworthy.native.context import SLICES, At, Table
from raftworthy.native.functions import Functions
from raftworthy.native.runs import Runs
from raftworthy.native.storage import Disk, Memory, Words

FULL = 0.75  # of a table's places, before it grows
NEARLY = 0.72  # from which it grows if another does: then threads wait once for all of them
MOST = 0.8  # that may be taken before threads wait
GROWTH = 1.35  # so that it is never less than half full once it is large
FIRST_TABLE = 1 << 12  # places
TABLES_SHARE = 0.6  # of memory, that tables may take
SENT_SHARE = 0.1  # of memory, that what was sent may take
FEWEST = 256  # places for each table elsewhere
APART = 16  # descriptions' rows on either side that nobody uses: two threads' would share a line of the cache


class Known:
    """What is known in a shard's range. `allocate` makes sure that there is memory for so many bytes."""

    def __init__(
        self, functions: Functions, number: int, shards: int, context: Words, memory: Memory, disk: Disk,
        allocate: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.functions, self.number, self.shards = functions, number, shards
        self.context, self.memory, self.allocate = context, memory, allocate
        self.runs = Runs(disk, number)
        self.mine = slice(number * SLICES, (number + 1) * SLICES)
        # Of all shards' tables, as this one's thread sees them.
        self.described: Words = np.zeros((shards * SLICES + 2 * APART, int(Table.WORDS)), np.uint64)
        self.described = self.described[APART:-APART]
        context[At.TABLES] = self.described.ctypes.data
        self.sizes: npt.NDArray[np.int64] = np.full(SLICES, FIRST_TABLE)
        self.used: npt.NDArray[np.int64] = np.zeros(SLICES, np.int64)
        self.places: list[Words] = [np.zeros(FIRST_TABLE * functions.width, np.uint64) for _ in range(SLICES)]
        self.addresses = [p.ctypes.data for p in self.places]
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
        left = np.maximum((self.sizes * MOST).astype(np.int64) - self.used, 1)
        for peer in self.peers:
            tables = peer.described[self.mine]
            tables[:, Table.ADDRESS], tables[:, Table.SIZE] = self.addresses, self.sizes
            tables[:, Table.LIMIT], tables[:, Table.USED] = left // len(self.peers) + 1, 0

    def settle(self) -> bool:
        """Count what was put in, and grow the tables that are full; whether there was memory for it.

        Raises:
            MemoryError: there is none, and nothing can go to disk.
        """
        for peer in self.peers:
            self.used += peer.described[self.mine, Table.USED].astype(np.int64)
        fits = True
        full = self.used >= self.sizes * FULL
        if full.any():
            for k in np.flatnonzero(self.used >= self.sizes * NEARLY):
                fits = (self._grow(int(k)) or not full[k]) and fits
        self._describe()
        self._grow_sent()
        self.context[At.FULL] = 0
        return fits

    def _grow(self, k: int) -> bool:
        """Make a table larger, if there is memory for it."""
        width, old = self.functions.width, self.places[k]
        places = int(self.sizes[k] * GROWTH)
        size = places * width * 8
        try:
            if self.bytes + size - old.nbytes > TABLES_SHARE * self.memory.limit:
                raise MemoryError
            self.allocate(size)
        except MemoryError:
            if self.functions.exact:
                raise
            return False
        self.memory.take(size)
        self.places[k] = np.zeros(places * width, np.uint64)
        self.addresses[k], self.sizes[k] = self.places[k].ctypes.data, places
        table = self.described[self.number * SLICES + k]
        table[Table.ADDRESS], table[Table.SIZE] = self.addresses[k], places
        table[Table.LIMIT], table[Table.USED] = places, 0
        self.functions.insert(self.context.ctypes.data, old.ctypes.data, width, len(old) // width)
        self.used[k] = int(table[Table.USED])
        self.memory.free(old.nbytes)
        return True

    def insert(self, keys: Words) -> None:
        """Put in fingerprints that weren't spilled.

        Raises:
            MemoryError: there is none for them.
        """
        for a in range(0, len(keys), FIRST_TABLE // 8):
            some = keys[a : a + FIRST_TABLE // 8]
            self.functions.insert(self.context.ctypes.data, some.ctypes.data, 1, len(some))
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
        self.runs.add(np.concatenate([p[p != 0] for p in self.places]))
        for p in self.places:
            p.fill(0)
        self.used[:] = 0
        self._describe()

    def look_up(self, keys: Words) -> npt.NDArray[np.uint8]:
        """For each of these fingerprints, whether it is in a run of this process."""
        found = np.zeros(len(keys), np.uint8)
        for peer in self.peers:
            if peer.runs:
                found |= peer.runs.contain(keys)
        return found

    # --- what was sent ---

    def _elsewhere(self) -> npt.NDArray[np.bool_]:
        """Which tables are of shards elsewhere: that is one here, for all that was sent to any of them."""
        elsewhere: npt.NDArray[np.bool_] = np.ones(self.shards * SLICES, np.bool_)
        for peer in self.peers:
            elsewhere[peer.mine] = False
        return elsewhere

    def _describe_sent(self, size: int) -> None:
        self.sent = np.zeros(size, np.uint64)
        self.memory.take(self.sent.nbytes)
        elsewhere = self._elsewhere()
        self.described[elsewhere, Table.ADDRESS] = self.sent.ctypes.data
        self.described[elsewhere, Table.SIZE] = size
        self.described[elsewhere, Table.LIMIT] = int(size * FULL / elsewhere.sum())
        self.described[elsewhere, Table.USED] = 0

    def _grow_sent(self) -> None:
        """Note more of what is sent; or, without memory for that, forget all of it."""
        if self.sent is None:
            return
        table = self.described[self._elsewhere()]
        if (table[:, Table.USED] < table[:, Table.LIMIT]).all():
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
            self.functions.insert(self.context.ctypes.data, old.ctypes.data, 1, len(old))
            self.memory.free(old.nbytes)

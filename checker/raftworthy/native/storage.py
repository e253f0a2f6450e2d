"""Memory up to a limit, and files for what it has no room for.

Memory is seen as bytes or as words. numpy would do as well, but to import it takes longer than most searches.

A stream is a sequence of bytes in pieces, written at its end and read from its beginning; a piece is in
memory, in the stream's file, or both. Files only grow, so a checkpoint is how long they were.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Bytes: TypeAlias = memoryview
Words: TypeAlias = memoryview  # cast to "Q"

LINE = 64  # bytes of a line of the cache, which two threads had better not share
HUGE = 2 << 20  # bytes from which large pages pay; what is smaller is better taken from what was used before


def zeros(size: int) -> Bytes:
    """So many bytes, all 0.

    Raises:
        MemoryError: there is no memory.
    """
    if size < HUGE:
        return memoryview(bytearray(size + 2 * LINE))[LINE:-LINE]
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)


def zero_words(n: int) -> Words:
    """So many words, all 0."""
    return zeros(8 * n).cast("Q")


def address_of(block: Bytes | bytearray) -> int:
    """Where memory is that can be written. Whoever uses the address keeps the memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def memory_to_use() -> int:
    """Three quarters of what the machine has free, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30
    return free * 3 // 4


class Memory:
    """Counts what a thread has allocated, and keeps some pieces: new ones would have to be cleared.

    Pieces may be given back by others.
    """

    KEPT = 16

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.peak = 0
        self._spare: list[Bytes] = []
        self._lock = threading.Lock()

    def has(self, size: int) -> bool:
        while self._spare and self.used + size > self.limit:
            self.free(self._spare.pop().nbytes)
        return self.used + size <= self.limit

    def piece(self, size: int) -> Bytes:
        """Memory for a piece; there has to be so much."""
        while self._spare:
            array = self._spare.pop()
            if array.nbytes == size:
                return array
            self.free(array.nbytes)
        self.take(size)
        return zeros(size)

    def give_back(self, array: Bytes) -> None:
        if len(self._spare) < self.KEPT:
            self._spare.append(array)
        else:
            self.free(array.nbytes)

    def take(self, size: int) -> None:
        with self._lock:
            self.used += size
            self.peak = max(self.peak, self.used)

    def free(self, size: int) -> None:
        with self._lock:
            self.used -= size


class Disk:
    """A folder for what memory has no room for: one that was given, or a temporary one made when needed."""

    def __init__(self, folder: Path | None = None) -> None:
        self.given = folder
        self._folder: Path | None = None
        self._lock = threading.Lock()  # threads would make a folder each
        self.kept: set[str] = set()  # files that the last checkpoint needs
        self.stays = False  # even if it is a temporary one: somebody is told to go on from there
        self.written = 0  # bytes

    @property
    def folder(self) -> Path:
        with self._lock:
            if self._folder is None:
                if self.given is not None:
                    self.given.mkdir(parents=True, exist_ok=True)
                self._folder = self.given or Path(tempfile.mkdtemp(prefix="raftworthy-"))
            return self._folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def discard(self, name: str) -> None:
        """Remove a file, unless the last checkpoint needs it."""
        if self._folder is not None and name not in self.kept:
            self.path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder, if it is a temporary one that holds nothing to go on from."""
        if self._folder is not None and self.given is None and not self.stays:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass
class Piece:
    """A part of a stream: in memory, unless `array` is None; in the file, unless `offset` is None."""

    array: Bytes | None
    used: int
    offset: int | None = None
    start: int = 0  # bytes at its beginning that are done with
    number: int = 0  # of the state whose row comes next
    memory: Memory | None = None  # whose the array is

    def release(self) -> None:
        """Give its memory back."""
        if self.array is not None and self.memory is not None:
            self.memory.give_back(self.array)
        self.array = None


class Stream:
    """Bytes in pieces. The last piece may be under work: its length is noted by `close_piece`.

    Several threads may take pieces.
    """

    def __init__(self, name: str, memory: Memory, disk: Disk) -> None:
        self.name, self.memory, self.disk = name, memory, disk
        self.pieces: deque[Piece] = deque()
        self._file: int | None = None
        self._end = 0  # of the file
        self._writing = False  # whether the last piece may still become longer
        self._lock = threading.Lock()

    def open_piece(self, size: int, number: int = 0) -> Bytes:
        """Begin a piece; there has to be memory for it."""
        array = self.memory.piece(size)
        self.pieces.append(Piece(array, 0, number=number, memory=self.memory))
        self._writing = True
        return array

    def close_piece(self, used: int) -> None:
        """Note how much of the last piece is used, if it is under work."""
        if self._writing:
            self.pieces[-1].used = used

    def evict(self) -> bool:
        """Move one piece to the file, but not the last; whether there was one."""
        with self._lock:
            for piece in reversed(list(self.pieces)[:-1]):
                if piece.array is not None and piece.memory is not None:
                    self._write(piece)
                    piece.memory.free(piece.array.nbytes)
                    piece.array = None
                    return True
        return False

    def take(self, last: bool = False) -> Piece | None:
        """Take the first piece out, or the last one; None if there is none."""
        with self._lock:
            if not self.pieces:
                return None
            return self.pieces.pop() if last else self.pieces.popleft()

    def put_back(self, piece: Piece) -> None:
        """Put a piece that was taken at the beginning."""
        with self._lock:
            self.pieces.appendleft(piece)

    def fetch(self, piece: Piece, memory: Memory) -> None:
        """Bring a piece that was taken into memory."""
        piece.array, piece.memory = self._read(piece), memory
        memory.take(piece.array.nbytes)

    def close(self) -> None:
        """Drop everything but the file."""
        while (piece := self.take()) is not None:
            piece.release()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """Drop everything, and the file."""
        self.close()
        self.disk.discard(self.name)

    def read(self, start: int, size: int) -> Bytes:
        """So many bytes from a place on."""
        out, at, before = memoryview(bytearray(size)), 0, 0
        for piece in self.pieces:
            a, b = max(start - before, 0), min(start + size - before, piece.used)
            if a < b:
                array = self._read(piece, a, b) if piece.array is None else piece.array[a:b]
                out[at : at + b - a] = array[: b - a]
                at += b - a
            before += piece.used
        assert at == size
        return out

    # --- the file ---

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.disk.path(self.name), os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._file, self._end)
        return self._file

    def _write(self, piece: Piece) -> None:
        if piece.offset is None:
            assert piece.array is not None
            data, file = piece.array[: piece.used], self._open()
            piece.offset, at = self._end, 0
            while at < len(data):
                at += os.pwrite(file, data[at:], self._end + at)
            self._end += len(data)
            self.disk.written += len(data)

    def _read(self, piece: Piece, start: int = 0, end: int | None = None) -> Bytes:
        """A piece's bytes, with some behind them that mean nothing."""
        assert piece.offset is not None
        size = (piece.used if end is None else end) - start
        out = zeros(size + 16)
        at = 0
        while at < size:
            got = os.preadv(self._open(), [out[at:size]], piece.offset + start + at)
            if got == 0:
                raise OSError(f"{self.disk.path(self.name)} is shorter than it was")
            at += got
        return out

    def save(self, last_used: int) -> dict[str, Any]:
        """Have everything in the file, for good; what a checkpoint has to know of it.

        The last piece is closed: what comes next begins another.
        """
        self.close_piece(last_used)
        self._writing = False
        for piece in self.pieces:
            self._write(piece)
        if self._file is not None:
            os.fsync(self._file)
        pieces = [[p.used, p.offset, p.start, p.number] for p in self.pieces]
        return {"name": self.name, "pieces": pieces, "end": self._end}

    def load(self, saved: dict[str, Any]) -> None:
        """Take up what `save` said."""
        self.name = saved["name"]
        self._end = saved["end"] if saved["pieces"] else 0
        self.pieces = deque(Piece(None, used, *where) for used, *where in saved["pieces"])
        if self.pieces:
            if self.disk.path(self.name).stat().st_size < self._end:
                raise OSError(f"{self.disk.path(self.name)} is shorter than it was")
            self._open()


def chunks(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """A range, cut into parts."""
    while start < end:
        yield start, min(start + size, end)
        start += size

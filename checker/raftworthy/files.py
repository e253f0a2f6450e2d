"""The files that traces and histories are read from, and what is said of those that can't be used."""

from __future__ import annotations

import codecs
import gzip
import io
from pathlib import Path
from typing import IO, NamedTuple

VERSION = 1
CHUNK = 1 << 14  # bytes; the events of a chunk stay in the processor's cache
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Place(NamedTuple):
    """Where an event stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Unusable(Exception):  # noqa: N818  (the input is, not the program)
    """The input can't be used. The message says where, what is wrong, and what to do."""

    def __init__(self, place: Place | str, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.place = place
        self.what = what


def open_trace(path: Path) -> IO[bytes]:
    """A trace file's bytes, unpacked if its name says that it is packed."""
    try:
        if path.suffix == ".gz":
            return io.BufferedReader(gzip.open(path, "rb"))
        if path.suffix == ".zst":
            import zstandard

            return io.BufferedReader(zstandard.open(path, "rb"))
        return path.open("rb", buffering=4 * CHUNK)
    except OSError as error:
        raise Unusable(str(path), f"can't be opened: {error.strerror or error}") from error


def unreadable() -> tuple[type[Exception], ...]:
    """What reading a file raises that is gone, not packed as its name says, or damaged."""
    import zlib

    import zstandard

    return OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError


def read_header_line(path: Path, file: IO[bytes]) -> bytes:
    try:
        line = file.readline(1 << 16)
    except unreadable() as error:
        raise Unusable(str(path), f"can't be read: {error}") from error
    if not line:
        raise Unusable(str(path), "the file is empty; a trace begins with a header line")
    if line.startswith(BYTE_ORDER_MARKS):
        raise Unusable(Place(str(path), 1), "begins with a byte order mark; write plain UTF-8 without one")
    return line

"""The trace a server writes: NDJSON, one event a line, as docs/traces.md says.

What a step's event says is decided in `core`, at the end of each step; how it looks
and where it goes, here.

`TraceFile` is for a real server: a line is one write to a file opened for appending,
so a kill loses at most the line being written. `TraceStream` is for the simulator:
all servers in one buffered file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, get_args

import msgspec

from raftd.kv import Put, encode_command
from raftd.messages import AppendEntries, Entry, InstallSnapshot, Message
from raftd.sessions import meaning

VERSION = 1

_encode = msgspec.json.Encoder().encode


def header(
    servers: tuple[str, ...], extensions: tuple[str, ...] = (), voters: tuple[str, ...] | None = None
) -> bytes:
    """The first line of a trace; `extensions` are what these servers have beside Figure 2.

    `voters` are those of the first configuration, if they are not all.
    """
    more: dict[str, Any] = {"extensions": extensions} if extensions else {}
    if voters is not None and voters != servers:
        more["voters"] = voters
    return _encode({"raftworthy": VERSION, "servers": servers, **more}) + b"\n"


def line(event: dict[str, Any], seq: int, start: int) -> bytes:
    """One event as a line; `start` says how often its server has started, and shows at a restart."""
    numbered = {"server": event["server"], "seq": seq, **event}
    if event["event"] == "restart":
        numbered["start"] = start
    if event.get("state") == {}:  # nothing changed, as in most steps of a quiet cluster
        del numbered["state"]
    return _encode(numbered) + b"\n"


def client_line(event: dict[str, Any]) -> bytes:
    """What a client asked or was told, as a line; docs/linearize.md has the format."""
    return _encode(event) + b"\n"


@lru_cache(maxsize=512)  # a leader shows an entry when it appends it, and whenever it sends it
def digest(command: bytes) -> str:
    """A command in the trace: equal for equal commands, short for long ones."""
    return blake2b(command, digest_size=8).hexdigest()


def digest_of_put(key: str, value: bytes) -> str:
    """What the trace calls the entry of a put, for clients who note what they ask for."""
    return digest(encode_command(Put(key, value)))


def traced_entries(entries: Sequence[Entry], meanings: bool = False) -> list[list[Any]]:
    """Entries as the trace shows them: `[[term, digest], ...]`, or with what those about sessions mean."""
    traced: list[list[Any]] = [[entry.term, digest(entry.command)] for entry in entries]
    if meanings:
        for shown, entry in zip(traced, entries, strict=True):
            if said := meaning(entry.command):
                shown.append(said)
    return traced


def traced_message(m: Message) -> dict[str, Any]:
    """A message as the trace shows it: its fields, entries as digests, and of a snapshot only its place.

    `hint` and `promise` are left out: no rule depends on them.
    """
    kind, fields = _SHOWN[type(m)]
    traced: dict[str, Any] = {"kind": kind}
    for name in fields:
        traced[name] = getattr(m, name)
    if isinstance(m, AppendEntries):
        traced["entries"] = traced_entries(m.entries)
    elif isinstance(m, InstallSnapshot):
        traced["last_included_index"] = m.snapshot.last_included_index
        traced["last_included_term"] = m.snapshot.last_included_term
    return traced


_SHOWN: dict[type, tuple[str, tuple[str, ...]]] = {
    kind: (
        kind.__struct_config__.tag,
        tuple(name for name in kind.__struct_fields__ if name not in ("hint", "promise", "snapshot")),
    )
    for kind in get_args(Message)
}


class TraceFile:
    """The trace of one server from one start to its end, such as `n1.3.ndjson`.

    Its number follows `started`, the last start that the disk knows of, and the files that are there: a
    kill may come between a file's first line and `note_started`, which makes the new number durable. A
    server that dies before its first line has not started.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        server: str,
        servers: tuple[str, ...],
        started: int = 0,
        note_started: Callable[[int], None] = lambda number: None,
        extensions: tuple[str, ...] = (),
        voters: tuple[str, ...] | None = None,
    ) -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.server = server
        self.start = max(started, last_start(directory, server)) + 1
        self._note_started = note_started
        self.path = directory / f"{server}.{self.start}.ndjson"
        self.seq = 0
        # The header goes out with the first event: a file without events is no start.
        self._unwritten = header(servers, extensions, voters)
        self._descriptor = -1

    def write(self, event: dict[str, Any]) -> None:
        """Append one event, with one write that survives the death of this process."""
        assert event["server"] == self.server
        assert (event["event"] == "restart") == (self.seq == 0), "a file begins with its only restart"
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor = os.open(self.path, flags, 0o644)
        data = self._unwritten + line(event, self.seq + 1, self.start)
        written = os.write(self._descriptor, data)
        if written < len(data):
            # Going on would put a second line behind half of this one.
            raise OSError(f"{self.path}: {written} of {len(data)} bytes written: is the disk full?")
        self._unwritten = b""
        self.seq += 1
        if self.seq == 1:
            self._note_started(self.start)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def last_start(directory: Path, server: str) -> int:
    """How often a server has started so far, by the trace files in a directory; 0 for never."""
    name = re.compile(re.escape(server) + r"\.([0-9]+)\.ndjson")
    starts = [int(found[1]) for path in directory.iterdir() if (found := name.fullmatch(path.name))]
    return max(starts, default=0)


class TraceStream:
    """The trace of all servers of a simulation, in one file in the order of their steps."""

    def __init__(
        self,
        file: BinaryIO,
        servers: tuple[str, ...],
        extensions: tuple[str, ...] = (),
        voters: tuple[str, ...] | None = None,
    ) -> None:
        self._file = file
        self._seq = dict.fromkeys(servers, 0)
        self._start = dict.fromkeys(servers, 0)
        file.write(header(servers, extensions, voters))

    def write(self, event: dict[str, Any]) -> None:
        """Append one event; a restart begins its server's count anew."""
        server = event["server"]
        if event["event"] == "restart":
            self._seq[server] = 0
            self._start[server] += 1
        self._seq[server] += 1
        self._file.write(line(event, self._seq[server], self._start[server]))

    def write_client(self, event: dict[str, Any]) -> None:
        """Append what a client asked or was told."""
        self._file.write(client_line(event))

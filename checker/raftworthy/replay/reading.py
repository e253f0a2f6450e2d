"""Reading traces: JSON lines into events, with a clear word for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from raftspec.extensions import EXTENSIONS
from raftworthy.files import CHUNK, VERSION, Place, Unusable, open_trace, read_header_line, unreadable
from raftworthy.replay.format import Header, trace_format


class _Anybody(msgspec.Struct):
    """Whose event a line is."""

    server: Any = UNSET
    client: Any = UNSET
    servers: Any = UNSET  # of a header


def agreed(files: Sequence[TraceFile]) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...]]:
    """The servers, extensions, and first voters that the headers of files of one cluster have in common.

    Where membership can change, a server that joined later is known to the files that were begun later.

    Raises:
        Unusable: the headers differ.
    """
    servers, extensions, voters = files[0].servers, files[0].extensions, files[0].voters
    if "membership" in extensions:
        servers = tuple(dict.fromkeys(i for file in files for i in file.servers))
        for file in files:
            file.servers = servers
    for file in files:
        if file.extensions != extensions:
            raise Unusable(
                Place(str(file.path), 1),
                f"extensions {sorted(file.extensions)} differ from those of {files[0].path}, "
                f"{sorted(extensions)}",
            )
        if sorted(file.voters) != sorted(voters) and "membership" in extensions:
            raise Unusable(
                Place(str(file.path), 1),
                f"voters of the first configuration {sorted(file.voters)} differ from those of "
                f"{files[0].path}, {sorted(voters)}",
            )
        if file.servers != servers:
            raise Unusable(
                Place(str(file.path), 1),
                f"servers {file.servers} differ from those of {files[0].path}, {servers}",
            )
    return servers, extensions, voters


def is_clients(text: bytes) -> bool:
    """Whether a line of a trace is a client's event."""
    if b'"invoke"' not in text and b'"return"' not in text:
        return False
    if b'"server"' not in text:
        return True
    try:
        return msgspec.json.decode(text, type=_Anybody).server is UNSET
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def is_history(path: Path) -> bool:
    """Whether a file has clients' events alone: its header names no servers, nor does its first event."""
    with open_trace(path) as file:
        try:
            header, first = (msgspec.json.decode(file.readline(1 << 16), type=_Anybody) for _ in range(2))
        except unreadable():  # a DecodeError is a ValueError
            return False
    return header.servers is UNSET and first.server is UNSET and first.client is not UNSET


@dataclass
class TraceFile:
    """One file: its header, and its events in order. `events` may be called several times."""

    path: Path
    servers: tuple[str, ...]
    first: Any  # the first event, or None in a file that has only a header
    extensions: frozenset[str] = frozenset()  # what the servers' Raft has beside Figure 2
    voters: tuple[str, ...] = ()  # the first configuration
    has_clients: bool = False  # among the servers' events, as far as it has been read; `events` has none

    @classmethod
    def open(cls, path: Path) -> TraceFile:
        """Read the header and look at the first event.

        Raises:
            Unusable: no such file, empty, no header, an unknown version, or a first event that can't be read.
        """
        made = cls.headed(path)
        _, events = next(made.events(lenient=True), (0, ()))
        made.first = events[0] if events else None
        return made

    @classmethod
    def headed(cls, path: Path) -> TraceFile:
        """Read the header alone.

        Raises:
            Unusable: no such file, empty, no header, an unknown version.
        """
        with open_trace(path) as file:
            line = read_header_line(path, file)
        place = Place(str(path), 1)
        try:
            header = msgspec.json.decode(line, type=Header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unusable(
                place,
                f"the first line is not a trace header ({error}); "
                'it should read {"raftworthy":1,"servers":[…]}',
            ) from error
        if header.raftworthy != VERSION:
            raise Unusable(
                place,
                f"version {header.raftworthy} of the trace format is not known; this reads version {VERSION}",
            )
        if not header.servers or len(set(header.servers)) != len(header.servers):
            raise Unusable(place, f"servers must be distinct names, at least one; found {header.servers}")
        if unknown := sorted(set(header.extensions) - EXTENSIONS.keys()):
            there = f"this knows {', '.join(EXTENSIONS)}"
            raise Unusable(place, f"no extension of Raft is called {unknown[0]}; {there}")
        if unknown := sorted(set(header.voters) - set(header.servers)):
            raise Unusable(
                place, f"{unknown[0]} votes in the first configuration and is not among the servers"
            )
        if header.voters and "membership" not in header.extensions:
            raise Unusable(place, 'voters of a first configuration need "extensions":["membership"]')
        voters = tuple(header.voters or header.servers)
        return cls(path, tuple(header.servers), None, frozenset(header.extensions), voters)

    def events(self, lenient: bool = False) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """Chunks of servers' events, each with the numbers of its lines.

        A last line without its newline is refused if it isn't a whole event; with `lenient` it is
        dropped, as a process killed while writing leaves one.

        Raises:
            Unusable: the first line that isn't an event, with what is wrong about it.
        """
        decode_lines = trace_format(self.servers, self.extensions).decode.decode_lines
        line = 2
        with open_trace(self.path) as file:
            read_header_line(self.path, file)
            while True:
                try:
                    # Lines and not bytes: that counts them on the way, which takes longer afterwards.
                    lines = file.readlines(CHUNK)
                except unreadable() as error:
                    raise Unusable(
                        Place(str(self.path), line), f"the packed file breaks off: {error}"
                    ) from error
                if not lines:
                    return
                rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
                numbers: Sequence[int] = range(line, line + len(lines))
                line += len(lines)
                if self.has_clients:
                    numbers, lines = self._of_servers(numbers, lines)
                try:
                    events = decode_lines(b"".join(lines))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    # Nobody looks for clients before there is one: most traces have none.
                    numbers, lines = self._of_servers(numbers, lines)
                    events = self._one_by_one(numbers, lines)
                if len(events) != len(lines):  # blank lines, or an event on more lines than one
                    self._one_by_one(numbers, lines)
                if lines:
                    yield numbers, events
                if rest and not is_clients(rest):
                    yield from self._last(rest, line, lenient)

    def _of_servers(
        self, numbers: Sequence[int], lines: Sequence[bytes]
    ) -> tuple[Sequence[int], list[bytes]]:
        """The lines that are servers' events, with their numbers."""
        kept = [(n, text) for n, text in zip(numbers, lines, strict=True) if not is_clients(text)]
        self.has_clients = self.has_clients or len(kept) < len(lines)
        return [n for n, _ in kept], [text for _, text in kept]

    def _last(self, text: bytes, line: int, lenient: bool) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """A last line without its newline."""
        try:
            yield [line], [_read_event(text, self.servers, self.extensions)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not lenient:
                raise Unusable(
                    Place(str(self.path), line),
                    "the last line is cut off; remove it, or add the trace of the server's next start",
                ) from error

    def _one_by_one(self, numbers: Sequence[int], lines: Sequence[bytes]) -> list[Any]:
        """The same lines, to find the one that is wrong."""
        events = []
        for number, text in zip(numbers, lines, strict=True):
            if not text.strip():
                raise Unusable(Place(str(self.path), number), "a blank line; remove it")
            try:
                events.append(_read_event(text.rstrip(b"\r\n"), self.servers, self.extensions))
            except msgspec.ValidationError as error:
                raise Unusable(Place(str(self.path), number), f"not an event: {error}") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Unusable(Place(str(self.path), number), f"not JSON: {error}") from error
        return events


def _read_event(text: bytes, servers: tuple[str, ...], extensions: frozenset[str]) -> Any:
    """One event, even if it names servers that are not in the header's list: replay says what is wrong then.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError
    """
    ours, any_servers = trace_format(servers, extensions), trace_format((), extensions)
    try:
        return ours.decode.decode(text)
    except msgspec.ValidationError:
        e = any_servers.decode.decode(text)
    known = {made: ours.structs[cls] for cls, made in any_servers.structs.items()}
    known |= {made: ours.told[cls] for cls, made in any_servers.told.items()}
    for name in ("message", "sends", "entries"):
        setattr(e, name, _translated(getattr(e, name), known))
    return e


def _translated(value: Any, known: Mapping[Any, type[msgspec.Struct]]) -> Any:
    """A value of a format with all its structs in the ones `known` for them, unchecked."""
    if isinstance(value, tuple):
        return tuple(_translated(x, known) for x in value)
    if type(value) in known:
        return known[type(value)](*(_translated(x, known) for x in msgspec.structs.astuple(value)))
    return value

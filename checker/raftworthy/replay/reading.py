"""Reading traces: files of JSON lines, plain or packed, into events, with a clear word for what is wrong.

The format is docs/traces.md. The types here are its schema: `traces/schema.json` is generated from them.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple, Union

import msgspec
from msgspec import UNSET, UnsetType

from raftspec.extensions import EXTENSIONS, having
from raftspec.raft import raft
from raftspec.spec import Spec
from raftspec.types import Record, Type
from raftworthy.replay.prefixes import told_structs
from raftworthy.structs import Natural, annotation_of, name_of, structs_of

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


class Header(msgspec.Struct):
    """The first line of a trace file."""

    raftworthy: int
    servers: list[str]  # left out where a file has clients' events alone
    extensions: list[str] = []
    voters: list[str] = []  # the first configuration, where membership can change; left out: all servers


class Format(NamedTuple):
    """What a trace of a specification looks like: its event type and the structs of its records."""

    structs: Mapping[type[Record], type[msgspec.Struct]]
    event: type[msgspec.Struct]
    decode: msgspec.json.Decoder[Any]
    told: Mapping[type[Record], type[msgspec.Struct]]  # messages that a trace has otherwise


def trace_format(servers: tuple[str, ...] = (), extensions: frozenset[str] = frozenset()) -> Format:
    """The types that a trace of Raft is read into, derived from the specification with these extensions.

    With a cluster's servers, for events that name no others; those are the quickest to replay.
    """
    return _trace_format(servers, extensions)


@cache
def _trace_format(servers: tuple[str, ...], extensions: frozenset[str]) -> Format:
    return format_of(having(*extensions), servers)


def format_of(spec: Spec, servers: tuple[str, ...] = ()) -> Format:
    structs = structs_of(spec, servers)
    told = told_structs(structs, servers)
    message = Union[tuple({**structs, **told}[m] for m in spec.messages)]  # type: ignore[valid-type]  # noqa: UP007
    entry = next(s for cls, s in structs.items() if cls not in spec.messages)
    variables = _state_fields(spec, structs, servers)
    state = msgspec.defstruct("State", [(name, t | UnsetType, UNSET) for name, t in variables], gc=False)
    optional_natural = Annotated[int, msgspec.Meta(ge=1)] | UnsetType
    event = msgspec.defstruct(
        "Event",
        [
            ("server", name_of(servers)),
            ("event", Literal[tuple(spec.actions)]),
            ("message", message | UnsetType, UNSET),
            ("state", state | UnsetType, UNSET),
            ("sends", tuple[message, ...] | UnsetType, UNSET),  # type: ignore[valid-type]
            ("entries", tuple[_appended(spec, entry), ...] | UnsetType, UNSET),  # type: ignore[misc]
            ("after", Natural | UnsetType, UNSET),
            ("seq", optional_natural, UNSET),
            ("start", optional_natural, UNSET),
            ("time", float | None, None),
            *((name, t | UnsetType, UNSET) for name, t in _said(spec, servers).items()),
            *([("answers", dict[int, Natural] | UnsetType, UNSET)] if "sessions" in spec.extensions else []),
        ],
        gc=False,
    )
    return Format(structs, event, msgspec.json.Decoder(event), told)


def appending(spec: Spec) -> dict[str, frozenset[str]]:
    """The actions that append a command with a meaning told in numbers, each with what the meaning has."""
    made = {}
    for a in spec.actions.values():
        numbers = [name for name, t in a.params.items() if t.kind == "num" and t.name != "value"]
        if a.name not in raft.actions and any(t.name == "value" for t in a.params.values()) and numbers:
            made[a.name] = frozenset(numbers)
    return made


def _appended(spec: Spec, entry: Any) -> Any:
    """An entry that an event appends: with what its command means, where some mean anything."""
    names = sorted(set[str]().union(*appending(spec).values()))
    if not names:
        return entry
    meaning = msgspec.defstruct("Meaning", [(x, Natural | UnsetType, UNSET) for x in names], gc=False)
    fields = [(f.name, f.type) for f in msgspec.structs.fields(entry)]
    return msgspec.defstruct(
        "Appended", [*fields, ("meaning", meaning | None, None)], array_like=True, gc=False
    )


def _said(spec: Spec, servers: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of actions that name several servers: an event tells them in fields of their own."""
    params = (x for a in spec.actions.values() if not a.message for x in a.params.items())
    return {name: annotation_of(t, {}, servers) for name, t in params if t.kind == "set"}


def _state_fields(
    spec: Spec, structs: Mapping[type[Record], type[msgspec.Struct]], servers: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """The server's variables; a log is told by its length and its last entry's term."""
    for name, t in spec.server.types().items():
        if t.kind == "seq":
            yield f"{name}_length", Natural
            yield f"last_{name}_term", Natural
        else:
            yield name, annotation_of(t, structs, servers)


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


def schema() -> dict[str, Any]:
    """The JSON Schema of a trace's lines: a header, then events of servers, and of clients."""
    from raftworthy.linearize.reading import client_event

    (header, *events), components = msgspec.json.schema_components(
        [Header, trace_format((), frozenset(EXTENSIONS)).event, client_event()],
        ref_template="#/$defs/{name}",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of a raftworthy trace, version 1",
        "description": "The first line of a file is a Header, every other line an Event, or a ClientEvent. "
        "See docs/traces.md and docs/linearize.md.",
        "anyOf": [header, *events],
        "$defs": components,
    }


# --- files ---------------------------------------------------------------------


class _Anybody(msgspec.Struct):
    """Whose event a line is."""

    server: Any = UNSET
    client: Any = UNSET
    servers: Any = UNSET  # of a header


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


__all__ = ["Format", "Place", "TraceFile", "Type", "Unusable", "format_of", "schema", "trace_format"]

"""Reading traces in which anything may be missing: fields of messages, whole messages, a server's lines.

A line is an event as far as it was logged. What it says of messages is a pattern: a struct of the same
fields as the specification's message, of which some are not set. The format is docs/traces.md, in which
`null` may stand for what is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace as but

from raftspec.extensions import WHOLE, having
from raftworthy.files import Place, Unusable, open_trace
from raftworthy.replay.format import trace_format
from raftworthy.replay.reading import TraceFile, agreed, is_clients, is_history
from raftworthy.structs import snake_case

HANDLERS = {a.name: a.message for a in WHOLE.actions.values() if a.message}
KINDS = {name: snake_case(m.__name__) for name, m in HANDLERS.items()}


@dataclass(slots=True, eq=False)
class Line:
    """One line of a trace: where it stands, and its event as far as it was logged."""

    place: Place
    e: Any
    number: int  # in the order in which they were read
    entries_unknown: bool  # something may have been appended, and nothing says what

    @property
    def receives(self) -> bool:
        return self.e.event in HANDLERS

    def told(self, variable: str) -> Any:
        """What the line says that a variable of its server is after the event; None if it doesn't."""
        value = UNSET if self.e.state is UNSET else getattr(self.e.state, variable)
        return None if value is UNSET else value


@dataclass
class Lines:
    """A trace with holes: each server's lines in order."""

    servers: tuple[str, ...]
    of: dict[str, list[Line]]
    holes: int  # lines that ordinary replay can't use
    clients: int = 0  # lines that are clients', and left out
    extensions: frozenset[str] = frozenset()  # what the servers' Raft has beside Figure 2
    voters: tuple[str, ...] = ()  # the first configuration, where membership can change

    @property
    def lost(self) -> tuple[str, ...]:
        """The servers of which there is no line."""
        return tuple(i for i in self.servers if not self.of[i])

    def all(self) -> Iterator[Line]:
        for lines in self.of.values():
            yield from lines

    def keep(self, kept: Mapping[str, Sequence[Line]]) -> Lines:
        """The same trace with these lines only."""
        of = {i: list(kept.get(i, ())) for i in self.servers}
        return Lines(self.servers, of, self.holes, extensions=self.extensions, voters=self.voters)


@cache
def _lenient(servers: tuple[str, ...], extensions: frozenset[str]) -> tuple[Any, Mapping[type, type]]:
    """The event type in which much of a message may be missing, and its messages by the strict ones."""
    strict = trace_format(servers, extensions)
    made = {}
    for m in having(*extensions).messages:
        known = {**strict.structs, **strict.told}[m]
        optional = [(f.name, f.type | None | UnsetType, UNSET) for f in msgspec.structs.fields(known)]
        made[known] = msgspec.defstruct(
            m.__name__, optional, frozen=True, gc=False, tag_field="kind", tag=snake_case(m.__name__)
        )
    message = Union[tuple(made.values())]  # type: ignore[valid-type]  # noqa: UP007
    fields: list[Any] = []
    for f in msgspec.structs.fields(strict.event):
        t = {"message": message | UnsetType, "sends": tuple[message, ...] | UnsetType}.get(f.name, f.type)  # type: ignore[valid-type]
        default = f.default if f.default is not msgspec.NODEFAULT else ...
        fields.append((f.name, t) if default is ... else (f.name, t, default))
    return msgspec.defstruct("Event", fields, gc=False), made


def decode(
    text: bytes, servers: tuple[str, ...], extensions: frozenset[str] = frozenset()
) -> tuple[Any, bool, bool]:
    """A line's event; whether ordinary replay could use it; whether its entries are unknown.

    Raises:
        msgspec.DecodeError: not JSON, or not an event even so.
    """
    try:
        e = trace_format(servers, extensions).decode.decode(text)
    except msgspec.ValidationError:
        pass
    else:
        lacks = (e.event in HANDLERS and e.message is UNSET) or (
            e.event == "client_request" and not e.entries
        )
        return e, not lacks, e.event == "client_request" and not e.entries
    data = msgspec.json.decode(text)
    if not isinstance(data, dict):
        raise msgspec.ValidationError("Expected `object`")
    unknown = "entries" in data and data["entries"] is None
    for name in [name for name, x in data.items() if x is None]:
        del data[name]
    event = data.get("event")
    if isinstance(data.get("message"), dict) and event in KINDS:
        data["message"].setdefault("kind", KINDS[event])
    if isinstance(data.get("state"), dict):
        data["state"] = {k: x for k, x in data["state"].items() if x is not None or k == "voted_for"}
    e = msgspec.convert(data, _lenient(servers, extensions)[0], str_keys=True)
    form = trace_format(servers, extensions)
    strict = {**form.structs, **form.told}.values()
    if e.message is not UNSET:
        e.message = _with_address(e.message, "target", e.server, strict)
    if e.sends is not UNSET:
        e.sends = tuple(_with_address(m, "source", e.server, strict) for m in e.sends)
    return e, False, unknown or (event == "client_request" and not e.entries)


def _with_address(m: Any, name: str, server: str, strict: Iterable[Any]) -> Any:
    """A message with its sender or receiver, which the line tells; the specification's if it is whole."""
    if getattr(m, name) in (UNSET, None):
        m = but(m, **{name: server})
    if not whole(m):
        return m
    kind = next(s for s in strict if s.__name__ == type(m).__name__)
    return kind(*(getattr(m, f) for f in kind.__struct_fields__))


def read_lines(paths: Sequence[Path]) -> Lines:
    """Read trace files as far as they go.

    Raises:
        Unusable: no header, unlike headers, or a line that isn't an event of a server of the cluster.
    """
    files = [TraceFile.headed(p) for p in paths if not is_history(p)]
    if not files:
        raise Unusable(str(paths[0]), "no server's trace beside it")
    servers, extensions, voters = agreed(files)
    read: list[Line] = []
    holes = 0
    clients = sum(1 for path in paths if is_history(path) for _ in _texts(path))
    for file in files:
        for place, text in _texts(file.path):
            if is_clients(text):
                clients += 1
                continue
            try:
                e, usable, unknown = decode(text, servers, extensions)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Unusable(place, f"not an event: {error}") from error
            if e.server not in servers:
                listed = ", ".join(servers)
                raise Unusable(place, f"server {e.server} is not in the header's list ({listed})")
            if e.message is not UNSET and type(e.message).__name__ != HANDLERS[e.event].__name__:
                raise Unusable(place, f"{e.event} needs a message of kind {KINDS[e.event]}")
            holes += not usable
            read.append(Line(place, e, len(read), unknown))
    return Lines(servers, _by_server(servers, read), holes, clients, extensions, voters)


def _texts(path: Path) -> Iterator[tuple[Place, bytes]]:
    with open_trace(path) as file:
        file.readline()
        for number, text in enumerate(file, 2):
            if text.endswith(b"\n"):
                yield Place(str(path), number), text


def _by_server(servers: tuple[str, ...], read: Sequence[Line]) -> dict[str, list[Line]]:
    """Each server's lines, its files in the order of its starts.

    Raises:
        Unusable: lines are missing in the middle.
    """
    runs: dict[str, dict[str, list[Line]]] = {i: {} for i in servers}
    for line in read:
        runs[line.e.server].setdefault(line.place.file, []).append(line)
    out: dict[str, list[Line]] = {}
    for i, files in runs.items():
        parts = sorted(files.values(), key=_start) if len(files) > 1 else list(files.values())
        out[i] = [line for part in parts for line in part]
        _check_sequence(out[i])
    return out


def _start(part: Sequence[Line]) -> tuple[int, int]:
    e = part[0].e
    return (e.start if e.start is not UNSET else 0, e.seq if e.seq is not UNSET else 0)


def _check_sequence(lines: Sequence[Line]) -> None:
    seq = 0
    for line in lines:
        e = line.e
        if e.seq is not UNSET and e.seq != seq + 1 and not (e.event == "restart" and e.seq == 1):
            what = f"seq {e.seq} of {e.server} follows {seq}: lines are missing here or given twice"
            raise Unusable(
                line.place,
                f"{what}; a server's lines may lack fields, or be lost all together, not here and there",
            )
        seq = e.seq if e.seq is not UNSET else seq + 1


def known(m: Any) -> dict[str, Any]:
    """What is known of a message."""
    values = ((f, getattr(m, f)) for f in m.__struct_fields__)
    return {f: x for f, x in values if x is not UNSET and x is not None}


def whole(m: Any) -> bool:
    """Whether all of a message is known."""
    return m is not UNSET and all(
        getattr(m, f) is not UNSET and getattr(m, f) is not None for f in m.__struct_fields__
    )

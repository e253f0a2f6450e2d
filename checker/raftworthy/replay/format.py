"""The format of traces, derived from the specification: docs/traces.md says it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec
from msgspec import UNSET, UnsetType

from raftspec.extensions import having
from raftspec.raft import raft
from raftspec.spec import Spec
from raftspec.types import Record
from raftworthy.replay.prefixes import told_structs
from raftworthy.structs import Natural, annotation_of, name_of, structs_of


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

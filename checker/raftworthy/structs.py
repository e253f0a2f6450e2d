"""The specification's records as msgspec structs: fast to make, to compare, and to read from JSON.

Derived from the specification, so that a trace's messages have exactly the fields
that the handlers read.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Optional

import msgspec

from raftspec.spec import Spec
from raftspec.types import Message, Record, Type

Natural = Annotated[int, msgspec.Meta(ge=0)]


def snake_case(name: str) -> str:
    """AppendEntriesReply as append_entries_reply."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def name_of(servers: tuple[str, ...]) -> Any:
    """The type of a server's name: one of these, or any if none are given."""
    return Literal[servers] if servers else str


def structs_of(
    spec: Spec,
    servers: tuple[str, ...] = (),
    known: Mapping[type[Record], type[msgspec.Struct]] = MappingProxyType({}),
) -> dict[type[Record], type[msgspec.Struct]]:
    """A struct for each record that is sent or stored.

    Messages carry their name in snake_case as `kind`. Entries are JSON arrays in the order of their fields.
    If the servers are given, no other names are read, and each is always one string, quick to compare.
    What is `known` isn't made again.
    """
    made: dict[type[Record], type[msgspec.Struct]] = {}
    held = (*spec.server.types().values(), *spec.history.types().values())
    stored = [t.of.cls for t in held if t.of and t.of.kind == "record" and t.of.cls]
    for cls in dict.fromkeys((*stored, *spec.messages)):
        if cls in known:
            made[cls] = known[cls]
            continue
        fields = [(name, annotation_of(t, made, servers)) for name, t in cls.types().items()]
        if issubclass(cls, Message):
            made[cls] = msgspec.defstruct(
                cls.__name__, fields, frozen=True, gc=False, tag_field="kind", tag=snake_case(cls.__name__)
            )
        else:
            made[cls] = msgspec.defstruct(cls.__name__, fields, frozen=True, gc=False, array_like=True)
    return made


def annotation_of(
    t: Type, structs: Mapping[type[Record], type[msgspec.Struct]], servers: tuple[str, ...] = ()
) -> Any:
    """What a reader of JSON should accept for a type of the specification."""
    server: Any = name_of(servers)
    match t.kind:
        case "bool":
            return bool
        case "num":
            return str if t.name == "value" else Natural
        case "server":
            return server
        case "maybe":
            return Optional[server]  # noqa: UP045  (a Literal and None can't be joined by |)
        case "set":
            return frozenset[server]
        case "enum":
            assert t.cls is not None
            assert issubclass(t.cls, enum.Enum)
            return t.cls
        case "seq":
            assert t.of is not None
            return tuple[annotation_of(t.of, structs, servers), ...]  # type: ignore[misc]
        case "map":
            assert t.of is not None
            assert t.key is not None
            key, of = (annotation_of(x, structs, servers) for x in (t.key, t.of))
            return dict[key, of]  # type: ignore[valid-type]
        case _:
            assert t.cls is not None
            return structs[t.cls]

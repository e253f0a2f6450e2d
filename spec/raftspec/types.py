"""The types of a specification: what a variable, a parameter or a message field can hold.

They are written as ordinary annotations, so that a type checker reads a
specification as plain Python; `type_of` turns an annotation into what a back end needs.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Self,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from raftspec.values import NOT_COMPARABLE, Map, Seq, ServerSet

if TYPE_CHECKING:
    from raftspec.tracing import Tracer


@dataclass(frozen=True)
class Type:
    """What a value can be.

    `kind` is one of bool, num, enum, server, maybe, set, map, seq, record. A `num` has a
    `name`, and numbers of two names don't mix. `of` is what a map or a sequence
    holds, `key` what a map is indexed by, `cls` the class of an enum or a record.
    """

    kind: str
    name: str = ""
    of: Type | None = None
    key: Type | None = None
    cls: type[Any] | None = None

    def __str__(self) -> str:
        return self.name or (f"{self.kind} of {self.of}" if self.of else self.kind)

    def accepts(self, other: Type) -> bool:
        """Whether a value of type `other` can stand where this type is expected."""
        return self == other or (self.kind == "maybe" and other.kind == "server")


BOOL = Type("bool")
SERVER = Type("server")
MAYBE_SERVER = Type("maybe", "server or nobody")
SERVER_SET = Type("set", "set of servers")
TERM, INDEX, COUNT, VALUE = (Type("num", name) for name in ("term", "index", "count", "value"))

Server = Annotated[str, SERVER]
MaybeServer = Annotated[str | None, MAYBE_SERVER]
Term = Annotated[int, TERM]
Index = Annotated[int, INDEX]
Count = Annotated[int, COUNT]
Value = Annotated[Any, VALUE]


@dataclass_transform(frozen_default=True, kw_only_default=False)
class Record:
    """A group of named values: a server's variables, a log entry, a message.

    A record is a value. `but` gives a changed copy.
    """

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, eq=False)(cls)

    def __post_init__(self) -> None:
        for name, t in self.types().items():
            value = getattr(self, name)
            if t.kind == "seq" and isinstance(value, Seq) and value.missing is None:
                assert t.of is not None
                object.__setattr__(self, name, Seq(value, zero(t.of)))

    def __eq__(self, other: object) -> bool:
        if self.tracer or getattr(other, "tracer", None):
            raise TypeError(NOT_COMPARABLE)
        return type(self) is type(other) and isinstance(other, Record) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name}; it has {', '.join(self.types())}")

    @property
    def tracer(self) -> Tracer | None:
        """Who traces this record, or None if all its values are concrete."""
        return next((t for x in self.values() if (t := getattr(x, "tracer", None))), None)

    @classmethod
    def types(cls) -> dict[str, Type]:
        """Each field's type, in order."""
        return _field_types(cls)  # type: ignore[arg-type]

    def but(self, **changes: Any) -> Self:
        """The same record with some fields changed; an unknown field is a TypeError."""
        unknown = changes.keys() - self.types().keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            raise TypeError(f"{type(self).__name__} has no {names}; it has {', '.join(self.types())}")
        return type(self)(**{name: getattr(self, name) for name in self.types()} | changes)

    def values(self) -> tuple[Any, ...]:
        """The fields' values, in order."""
        return tuple(getattr(self, name) for name in self.types())


class Message(Record):
    """What one server sends to another. Every message carries its sender's term (section 5.1)."""

    source: Server
    target: Server
    term: Term


@cache
def _field_types(cls: Any) -> dict[str, Type]:
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: type_of(hints[f.name]) for f in dataclasses.fields(cls)}


def type_of(annotation: Any) -> Type:
    """The type that an annotation stands for; TypeError if it stands for none."""
    if annotation is bool:
        return BOOL
    if annotation is ServerSet:
        return SERVER_SET
    if get_origin(annotation) is Annotated:
        return next(a for a in get_args(annotation) if isinstance(a, Type))
    if get_origin(annotation) is Seq:
        return Type("seq", of=type_of(get_args(annotation)[0]))
    if get_origin(annotation) is Map:
        key, value = map(type_of, get_args(annotation))
        return Type("map", key=key, of=value)
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return Type("enum", annotation.__name__, cls=annotation)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return Type("record", annotation.__name__, cls=annotation)
    raise TypeError(
        f"no type of the specification language: {annotation!r}; "
        "write bool, Term, Index, Count, Value, Server, MaybeServer, ServerSet, Seq[...], "
        "Map[..., ...], a StrEnum or a Record"
    )


def zero(t: Type) -> Any:
    """What a total operation gives outside its range: 0, nobody, empty, the first member."""
    match t.kind:
        case "bool":
            return False
        case "num":
            return 0
        case "server":
            return ""
        case "maybe":
            return None
        case "set":
            return ServerSet()
        case "seq":
            assert t.of is not None
            return Seq((), zero(t.of))
        case "map":
            assert t.of is not None
            return Map((), zero(t.of))
        case "enum":
            assert t.cls is not None
            return next(iter(t.cls.__members__.values()))
        case _:
            assert t.cls is not None
            return t.cls(*(zero(f) for f in t.cls.types().values()))

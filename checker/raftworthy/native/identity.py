"""Expressions and types as text: equal for two questions only if the same machine code answers both."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

from raftspec.graph import Node, postorder
from raftspec.types import Record, Type
from raftspec.values import Map, ServerSet


def text_of(roots: Iterable[Node]) -> Iterator[str]:
    """Expressions as text: the same for the same expressions, whatever else their graph holds."""
    roots = list(roots)
    numbers: dict[Node, int] = {}
    for n in postorder(*roots):
        args = ",".join(str(numbers[a]) for a in n.args)
        numbers[n] = len(numbers)
        yield f"{n.op}({args}) {_text(n.attr)} {text_of_type(n.type)}"
    yield "roots " + ",".join(str(numbers[n]) for n in roots)


def text_of_type(t: Type) -> str:
    """A type, with the fields of its records and the members of its enumerations."""
    inside = []
    if t.cls is not None and issubclass(t.cls, Record):
        inside = [f"{name}: {text_of_type(f)}" for name, f in t.cls.types().items()]
    elif t.cls is not None and issubclass(t.cls, enum.Enum):
        inside = list(t.cls.__members__)
    inside += [text_of_type(x) for x in (t.key, t.of) if x is not None]
    return f"{t.kind} {t.name}[{'; '.join(inside)}]"


def _text(value: Any) -> str:
    match value:
        case Type():
            return text_of_type(value)
        case ServerSet():
            return repr(sorted(value))
        case Map():
            return repr(sorted((repr(k), repr(x)) for k, x in value.items.items()))
    return repr(value)

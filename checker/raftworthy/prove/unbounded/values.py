"""What the variables of a state of any size are: functions of servers, terms and indices.

A number is an integer of Z3, without a largest one. Sets and maps are functions, a sequence is its length
and a function that gives an entry of zeros outside, as in the specification.

    t  a type     k  a number or key     q, r  sequences
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import z3

from raftspec.types import VALUE, Type, zero
from raftspec.values import Map
from raftworthy.explore.bounds import UnusableError
from raftworthy.prove.unbounded.formulas import Formula, Junction, Quantified, both, either, every, no

Value: TypeAlias = Any  # a Formula, a Z3 term, one of those below, or a tuple: a record's fields

SERVER_SORT = z3.DeclareSort("Server")
VALUE_SORT = z3.DeclareSort("Value")
QUORUM_SORT = z3.DeclareSort("Quorum")
CROWD_SORT = z3.DeclareSort("Crowd")  # a set of servers, of which others can be majorities
NUMBER_SORT = z3.IntSort()
NOTHING = z3.Const("nothing", VALUE_SORT)
NO_SERVER = z3.Const("no_server", SERVER_SORT)  # stands where there is none; nothing is known of it

quorum = z3.Function("quorum", QUORUM_SORT, z3.BoolSort())
member = z3.Function("member", SERVER_SORT, QUORUM_SORT, z3.BoolSort())
EVERYBODY = z3.Const("everybody", QUORUM_SORT)
shared = z3.Function("shared?", QUORUM_SORT, QUORUM_SORT, SERVER_SORT)
inside = z3.Function("inside", SERVER_SORT, CROWD_SORT, z3.BoolSort())
most = z3.Function("most", QUORUM_SORT, CROWD_SORT, z3.BoolSort())  # more than half as large
stranger = z3.Function("stranger?", QUORUM_SORT, CROWD_SORT, SERVER_SORT)
other = z3.Function("other?", CROWD_SORT, CROWD_SORT, SERVER_SORT)
another = z3.Function("another?", CROWD_SORT, CROWD_SORT, SERVER_SORT)


class Maybe(NamedTuple):
    """A server, or nobody."""

    there: Formula
    server: z3.ExprRef


@dataclass(frozen=True, eq=False)
class Members:
    """A set of servers."""

    has: Callable[[Any], Formula]
    key: tuple[Any, ...] = ()  # a name and arguments: sets with the same ones are the same


@dataclass(frozen=True, eq=False)
class Table:
    """A map."""

    at: Callable[[Any], Value]


@dataclass(frozen=True, eq=False)
class Entries:
    """A sequence."""

    length: Any
    at: Callable[[Any], Value]


@dataclass(frozen=True, eq=False)
class Size:
    """How many servers are in a set: not a number, as it isn't known how many there are."""

    of: Members
    times: int = 1


class AllServers:
    """How many servers there are."""


_ENUMS: dict[type, tuple[z3.SortRef, dict[Any, z3.ExprRef]]] = {}


def _enumeration(cls: Any) -> tuple[z3.SortRef, dict[Any, z3.ExprRef]]:
    if cls not in _ENUMS:
        sort, constants = z3.EnumSort(cls.__name__, [x.name for x in cls])
        _ENUMS[cls] = sort, dict(zip(list(cls), constants, strict=True))
    return _ENUMS[cls]


def sort_of(t: Type) -> z3.SortRef:
    """The sort of what is one term: conditions, numbers, enumerations, servers."""
    match t.kind:
        case "bool":
            return z3.BoolSort()
        case "num":
            return VALUE_SORT if t == VALUE else NUMBER_SORT
        case "server":
            return SERVER_SORT
    assert t.kind == "enum", t
    return _enumeration(t.cls)[0]


def unknown(t: Type, name: str, *sorts: z3.SortRef) -> Callable[..., Value]:
    """A value of a type that depends on arguments of these sorts, and of which nothing is known."""
    match t.kind:
        case "maybe":
            there = z3.Function(f"{name}.there", *sorts, z3.BoolSort())
            who = z3.Function(f"{name}.who", *sorts, SERVER_SORT)
            return lambda *a: Maybe(there(*a), who(*a))
        case "set":
            has = z3.Function(name, *sorts, SERVER_SORT, z3.BoolSort())
            return lambda *a: Members(lambda j: has(*a, j))
        case "map":
            assert t.of is not None
            assert t.key is not None
            inner = unknown(t.of, name, *sorts, sort_of(t.key))
            return lambda *a: Table(lambda k: inner(*a, k))
        case "seq":
            assert t.of is not None
            length = z3.Function(f"{name}.length", *sorts, NUMBER_SORT)
            item = unknown(t.of, name, *sorts, NUMBER_SORT)
            return lambda *a: Entries(length(*a), lambda k: item(*a, k))
        case "record":
            assert t.cls is not None
            parts = [unknown(ft, f"{name}.{f}", *sorts) for f, ft in t.cls.types().items()]
            return lambda *a: tuple(part(*a) for part in parts)
    function = z3.Function(name, *sorts, sort_of(t))
    return lambda *a: function(*a)


def known(t: Type, value: Any) -> Value:
    """A constant of the specification."""
    match t.kind:
        case "bool":
            return bool(value)
        case "num":
            if t != VALUE:
                return z3.IntVal(value)
            if value:
                raise UnusableError(f"the proof knows no command {value!r}")
            return NOTHING
        case "enum":
            assert t.cls is not None
            return _enumeration(t.cls)[1][value]
        case "maybe" if value is None:
            return Maybe(False, NO_SERVER)
        case "set" if not value:
            return Members(lambda j: False)
        case "seq" if not value:
            nothing = nothing_of(t.of)
            return Entries(z3.IntVal(0), lambda k: nothing)
        case "map" if isinstance(value, Map) and not value.items:
            nothing = nothing_of(t.of)
            return Table(lambda k: nothing)
        case "record":
            assert t.cls is not None
            types = t.cls.types().items()
            return tuple(known(ft, getattr(value, f)) for f, ft in types)
        case "server" if value == "":
            return NO_SERVER
    raise UnusableError(f"the proof for any number of servers knows no {t} {value!r}")


def nothing_of(t: Type | None) -> Value:
    """What a total operation gives outside its range."""
    assert t is not None
    return known(t, zero(t))


def typed(t: Type, value: Value) -> Formula:
    """What every value of a type satisfies: numbers are natural, a sequence has zeros outside."""
    match t.kind:
        case "num":
            return True if t == VALUE else value >= 0
        case "map":
            assert t.of is not None
            assert t.key is not None
            of = t.of
            if typed(of, unknown(of, "probe")()) is True:
                return True
            return every(sort_of(t.key), lambda k: typed(of, value.at(k)), "k")
        case "seq":
            assert t.of is not None
            of, nothing = t.of, nothing_of(t.of)

            def item(k: Any) -> Formula:
                inside = z3.And(k >= 1, k <= value.length)
                return both(either(inside, same(value.at(k), nothing)), typed(of, value.at(k)))

            return both(value.length >= 0, every(NUMBER_SORT, item, "k"))
        case "record":
            assert t.cls is not None
            return both(*(typed(ft, x) for ft, x in zip(t.cls.types().values(), value, strict=True)))
    return True


def same(a: Value, b: Value) -> Formula:
    """Two values are equal."""
    if isinstance(a, Maybe) or isinstance(b, Maybe):
        a, b = maybe(a), maybe(b)
        return either(both(no(a.there), no(b.there)), both(a.there, b.there, same(a.server, b.server)))
    if isinstance(a, tuple):
        return both(*map(same, a, b))
    if isinstance(a, Members):
        return every(SERVER_SORT, lambda j: same(a.has(j), b.has(j)), "j")
    if isinstance(a, bool | z3.BoolRef | Quantified | Junction):
        if isinstance(a, bool):
            return b if a else no(b)
        if isinstance(b, bool):
            return a if b else no(a)
        return both(either(no(a), b), either(a, no(b)))
    if a.eq(b):
        return True
    if z3.is_int_value(a) and z3.is_int_value(b):
        return False
    return a == b


def maybe(a: Value) -> Maybe:
    """A server as one that may be nobody."""
    return a if isinstance(a, Maybe) else Maybe(True, a)

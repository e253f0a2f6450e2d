"""What a specification's types become in Z3 within bounds, and how values go there and come back.

A condition is a Bool; a number, a server and an enumeration's member a bit-vector; a set a Bool for each
server; a map a value for each key; a sequence its length and its entries. Nobody is 0, the first server 1.

    t  a type     room  how many entries a sequence has place for
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import z3

from raftspec.graph import QUANTIFIERS, Node, postorder
from raftspec.types import Record, Type, zero
from raftspec.values import Map
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.prove.logic import CONTEXT, Entries, Logic, Table, Truth, Value


class Shapes:
    """The values of every type within bounds. `width` is that of all numbers; see `Ranges`."""

    def __init__(
        self, bounds: Bounds, structs: Mapping[type[Record], type[msgspec.Struct]], width: int
    ) -> None:
        self.bounds = bounds
        self.servers = bounds.names
        self.structs = structs
        self.logic = Logic(width)

    # --- new values ---

    def fresh(self, t: Type, name: str, room: int | None = None) -> tuple[Value, list[Truth]]:
        """An unknown value of a type, and what makes it one. No entry behind a sequence's end is but zero."""
        rules: list[Truth] = []
        return self._fresh(t, name, self.bounds.max_log if room is None else room, rules), rules

    def _fresh(self, t: Type, name: str, room: int, rules: list[Truth]) -> Value:
        match t.kind:
            case "bool":
                return z3.Bool(name)
            case "set":
                return tuple(z3.Bool(f"{name}.{i}") for i in self.servers)
            case "map":
                assert t.of is not None
                return Table(tuple(self._fresh(t.of, f"{name}.{k}", room, rules) for k in self.keys(t)))
            case "record":
                assert t.cls is not None
                types = t.cls.types().items()
                return tuple(self._fresh(ft, f"{name}.{f}", room, rules) for f, ft in types)
            case "seq":
                assert t.of is not None
                items = tuple(self._fresh(t.of, f"{name}.{k}", room, rules) for k in range(1, room + 1))
                length = self._number(f"{name}.length", room, rules)
                for k, item in enumerate(items):
                    rules.append(self.logic.either(self.logic.less(k, length), self._is_zero(item)))
                return Entries(length, items)
        low = 1 if t.kind == "server" else 0
        value = self._number(name, self.largest(t), rules)
        rules.append(self.logic.at_most(low, value))
        return value

    def _number(self, name: str, largest: int, rules: list[Truth]) -> Any:
        """A number from 0 to `largest`: as few bits as that takes, and zeros above."""
        bits = max(largest.bit_length(), 1)
        few = z3.BitVec(name, bits)
        if largest + 1 < 1 << bits:
            rules.append(z3.ULE(few, largest))
        return z3.BitVecRef(z3.Z3_mk_zero_ext(CONTEXT.ref(), self.logic.width - bits, few.as_ast()), CONTEXT)

    def _is_zero(self, value: Value) -> Truth:
        parts = value if isinstance(value, tuple) else (value,)
        return self.logic.both(
            *(self.logic.no(x) if isinstance(x, bool | z3.BoolRef) else self.logic.same(x, 0) for x in parts)
        )

    # --- limits ---

    def largest(self, t: Type) -> int:
        """The largest number that stands for a value of a type; next_index may be one past the log."""
        b = self.bounds
        match t.kind:
            case "num":
                return {
                    "term": b.max_term,
                    "index": b.max_log + 1,
                    "count": b.most_counted,
                    "value": b.max_commands,
                }[t.name]
            case "enum":
                return len(_members(t)) - 1
            case "server" | "maybe":
                return len(self.servers)
        raise UnusableError(f"the prover has no place for a {t}")

    def keys(self, t: Type) -> list[Any]:
        """A map's keys."""
        assert t.key is not None
        if t.key.kind == "server":
            return list(self.servers)
        return [_named(t.key, k) for k in range(self.largest(t.key) + 1)]

    def first_key(self, t: Type) -> int:
        """The number that stands for a map's first key."""
        assert t.key is not None
        return 1 if t.key.kind == "server" else 0

    def within(self, t: Type, value: Value, room: int | None = None) -> Truth:
        """Whether a computed value is one that `fresh` could be."""
        logic = self.logic
        match t.kind:
            case "bool" | "set":
                return True
            case "map":
                assert t.of is not None
                return logic.both(value.fits, *(self.within(t.of, x, room) for x in value.items))
            case "record":
                assert t.cls is not None
                types = t.cls.types().values()
                return logic.both(*(self.within(f, x, room) for f, x in zip(types, value, strict=True)))
            case "seq":
                assert t.of is not None
                room = self.bounds.max_log if room is None else room
                inside = (self.within(t.of, x, room) for x in value.items[:room])
                return logic.both(logic.at_most(value.length, room), *inside)
        if isinstance(value, int):
            return 0 <= value <= self.largest(t)
        return logic.both(logic.at_most(0, value), logic.at_most(value, self.largest(t)))

    def cut(self, t: Type, value: Value, room: int | None = None) -> Value:
        """A value within bounds in the places that `fresh` gives it."""
        room = self.bounds.max_log if room is None else room
        if t.kind == "seq":
            assert isinstance(value, Entries)
            items = self.logic.filled(value, self.encode(t, (), 1), max(room, len(value.items)))[:room]
            return Entries(value.length, items)
        if t.kind == "map":
            assert t.of is not None
            return Table(tuple(self.cut(t.of, x, room) for x in value.items))
        return value

    # --- known values ---

    def encode(self, t: Type, value: Any, room: int | None = None) -> Value:
        """A value of the specification or of the Python back end, as known numbers and conditions."""
        match t.kind:
            case "bool":
                return bool(value)
            case "num":
                return int(value[1:]) if isinstance(value, str) else int(value)
            case "enum":
                return _members(t).index(value)
            case "server" | "maybe":
                return self.servers.index(value) + 1 if value else 0
            case "set":
                return tuple(i in value for i in self.servers)
            case "map":
                assert t.of is not None
                items = value.items if isinstance(value, Map) else value
                nothing = zero(t.of)
                return Table(tuple(self.encode(t.of, items.get(k, nothing), room) for k in self.keys(t)))
            case "seq":
                assert t.of is not None
                places = max(len(value), self.bounds.max_log if room is None else room)
                missing = [zero(t.of)] * (places - len(value))
                return Entries(len(value), tuple(self.encode(t.of, x) for x in (*value, *missing)))
        assert t.cls is not None
        return tuple(self.encode(f, getattr(value, name), room) for name, f in t.cls.types().items())

    def decode(self, t: Type, value: Value) -> Any:
        """The Python back end's value for known numbers and conditions."""
        match t.kind:
            case "bool":
                return bool(value)
            case "num":
                return _named(t, value)
            case "enum":
                return _members(t)[value]
            case "server" | "maybe":
                return self.servers[value - 1] if value else zero(t)
            case "set":
                return frozenset(i for i, c in zip(self.servers, value, strict=True) if c)
            case "map":
                assert t.of is not None
                nothing = zero(t.of)
                pairs = zip(self.keys(t), (self.decode(t.of, x) for x in value.items), strict=True)
                return {
                    k: tuple(x) if isinstance(x, list) else x
                    for k, x in pairs
                    if x != nothing and x not in ([], {})
                }
            case "seq":
                assert t.of is not None
                return [self.decode(t.of, x) for x in value.items[: value.length]]
        assert t.cls is not None
        types = t.cls.types().values()
        return self.structs[t.cls](*(self.decode(f, x) for f, x in zip(types, value, strict=True)))

    def seen(self, model: z3.ModelRef, value: Value) -> Value:
        """A value as a model has it."""
        if isinstance(value, bool | int):
            return value
        if isinstance(value, tuple):
            parts = [self.seen(model, x) for x in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        found = model.eval(value, model_completion=True)
        if isinstance(found, z3.BitVecNumRef):
            return found.as_signed_long()
        return z3.is_true(found)


def _named(t: Type, number: int) -> Any:
    """The Python back end's number of a type; commands have names."""
    return f"c{number}" if t.name == "value" and number else number


def _members(t: Type) -> list[Any]:
    """An enumeration's values, in order."""
    assert t.cls is not None
    assert issubclass(t.cls, enum.Enum)
    return [x.value for x in t.cls]


def leaves(value: Value) -> Iterator[Any]:
    """The conditions and numbers that a value is made of."""
    if isinstance(value, Table):
        yield from leaves(value.items)
    elif isinstance(value, tuple):
        for x in value:
            yield from leaves(x)
    else:
        yield value


class Ranges:
    """Between which numbers each expression lies, so that bit-vectors can be wide enough for all of them.

    A quantifier's variable is taken to be at most `furthest`; a quantifier that goes beyond is refused.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        b = shapes.bounds
        self.furthest = max(2 * b.max_log + 2, b.max_term + 1, len(shapes.servers))
        self.done: dict[Node, tuple[int, int]] = {}

    def width(self, roots: Iterable[Node]) -> int:
        """How many bits, with a sign, hold every number below the roots."""
        low, high = -1, self.furthest
        for n in postorder(*roots):
            if n.type.kind == "num" and n.op != "const":
                a, b = self.of(n)
                low, high = min(low, a), max(high, b)
            if n.op in QUANTIFIERS and self.of(n.args[0])[1] > self.furthest:
                raise UnusableError(f"a quantifier goes beyond {self.furthest}: {n!r}")
        biggest = max(high, self.shapes.bounds.max_log, len(self.shapes.servers))
        return max(biggest.bit_length(), (-low - 1).bit_length()) + 1

    def of(self, n: Node) -> tuple[int, int]:
        """The least and the largest that a number can be."""
        if n not in self.done:
            self.done[n] = self._of(n)
        return self.done[n]

    def _of(self, n: Node) -> tuple[int, int]:
        match n.op:
            case "const":
                return n.attr, n.attr
            case "bound":
                return 0, self.furthest
            case "add" | "sub":
                (a, b), (c, d) = map(self.of, n.args)
                return (a + c, b + d) if n.op == "add" else (a - d, b - c)
            case "ite":
                (a, b), (c, d) = map(self.of, n.args[1:])
                return min(a, c), max(b, d)
            case "count":
                return 0, len(n.args)
            case "set_size":
                return 0, len(self.shapes.servers)
            case "len":
                return 0, self.longest(n.args[0])
            case "latest":
                return 0, max(self.of(n.args[0])[1], 0)
        return 0, self.shapes.largest(n.type)

    def longest(self, n: Node) -> int:
        """How many entries a sequence can have."""
        match n.op:
            case "const":
                return len(n.attr)
            case "append":
                return self.longest(n.args[0]) + 1
            case "concat" | "ite":
                sizes = [self.longest(a) for a in n.args if a.type.kind == "seq"]
                return sum(sizes) if n.op == "concat" else max(sizes)
            case "prefix" | "slice":
                return self.longest(n.args[0])
        return self.shapes.bounds.max_log

"""The Z3 back end: one rule for each operation of the graph.

Every operation means what it means in the specification, on any numbers that fit the bit-vectors. An
expression is computed in an environment: what its parameters, the received message's fields and a
quantifier's variable are. What is known there is computed at once.

    w  a lowering under way     n  a node     q, r  sequences     k  a number
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from raftspec.graph import OPERATIONS, QUANTIFIERS, Node
from raftspec.types import Type, zero
from raftworthy.prove.logic import Entries, Number, Table, Truth, Value, nothing_like
from raftworthy.prove.shapes import Ranges, Shapes

Rule: TypeAlias = Callable[..., Value]
Environment: TypeAlias = Mapping[Any, Value]


@dataclass(frozen=True)
class Variables:
    """A state without its messages: each server's variables in order, and history's."""

    servers: tuple[Mapping[str, Value], ...]
    past: Mapping[str, Value]


class Terms:
    """Computes expressions over one state, or two, each once in the same environment.

    `switches` has conditions for rules: where one is false, its rule comes out as if it were taken away.
    """

    def __init__(
        self,
        shapes: Shapes,
        *states: Variables,
        ranges: Ranges | None = None,
        switches: Mapping[str, tuple[Truth, bool]] | None = None,
    ) -> None:
        self.shapes = shapes
        self.logic = shapes.logic
        self.states = states
        self.ranges = ranges or Ranges(shapes)
        self.switches = switches or {}
        self._environment: dict[Any, Value] = {}
        self._done: dict[Any, Value] = {}
        self._depends: dict[Node, tuple[Any, ...]] = {}
        self._tokens: dict[Any, Any] = {}
        self._kept: list[Value] = []

    def value(self, n: Node, environment: Environment | None = None) -> Value:
        """The value of an expression, where parameters and message fields are what `environment` says."""
        outer = self._environment, self._tokens
        self._environment, self._tokens = {}, {}
        for name, x in (environment or {}).items():
            self._bind(name, x)
        try:
            return self._value(n)
        finally:
            self._environment, self._tokens = outer

    def _bind(self, name: Any, x: Value) -> None:
        self._environment[name] = x
        if not isinstance(x, int):
            self._kept.append(x)  # so that no other value gets its id
        self._tokens[name] = x if isinstance(x, int) else ("term", id(x))

    def _value(self, n: Node) -> Value:
        key = (n, *(self._tokens.get(name) for name in self._needs(n)))
        if key not in self._done:
            self._done[key] = self._compute(n)
        return self._done[key]

    def _needs(self, n: Node) -> tuple[Any, ...]:
        """What of the environment an expression depends on."""
        found = self._depends.get(n)
        if found is None:
            if n.op in ("param", "message", "bound"):
                names = {n.attr}
            else:
                names = {name for a in n.args for name in self._needs(a)}
                if n.op in QUANTIFIERS:
                    names.discard(n.attr)
            found = self._depends[n] = tuple(sorted(names, key=str))
        return found

    def _compute(self, n: Node) -> Value:
        match n.op:
            case "const":
                return self.shapes.encode(n.type, n.attr, 0)
            case "param" | "message" | "bound":
                return self._environment[n.attr]
            case "past":
                name, prime = n.attr
                return self.states[prime].past[name]
            case "get":
                name, prime = n.attr
                columns = [v[name] for v in self.states[prime].servers]
                return self.logic.pick(columns, self._value(n.args[0]), columns[-1], first=1)
        if n.op in QUANTIFIERS:
            return RULES[n.op](self, n, self._value(n.args[0]))
        return RULES[n.op](self, n, *map(self._value, n.args))

    def claims(self, n: Node, top: Number) -> list[tuple[Truth, Truth]]:
        """For each number that a quantifier could reach: whether it does, and what it claims there."""
        out = []
        known = self._environment.get(n.attr), self._tokens.get(n.attr)
        for k in range(1, (top if isinstance(top, int) else self.ranges.of(n.args[0])[1]) + 1):
            self._bind(n.attr, k)
            out.append((self.logic.at_most(k, top), self._value(n.args[1])))
        self._environment[n.attr], self._tokens[n.attr] = known
        return out


def _rule(w: Terms, n: Node, c: Truth) -> Truth:
    if n.attr not in w.switches:
        return c
    followed, without = w.switches[n.attr]
    return w.logic.where(followed, c, without)


def _set_add(w: Terms, n: Node, s: Sequence[Truth], i: Number) -> Value:
    return tuple(w.logic.either(c, w.logic.same(i, k)) for k, c in enumerate(s, 1))


def _map_get(w: Terms, n: Node, m: Table, k: Number) -> Value:
    return w.logic.pick(m.items, k, nothing_like(m.items[0]), w.shapes.first_key(n.args[0].type))


def _map_set(w: Terms, n: Node, m: Table, k: Number, x: Value) -> Table:
    """Beyond the keys all is zero, so only a zero can be put there."""
    first, logic = w.shapes.first_key(n.type), w.logic
    places = [logic.same(k, number) for number in range(first, first + len(m.items))]
    room = _room(m.items)
    x = w.shapes.cut(_of(n.type), x, max(room, _room([x])))
    items = tuple(logic.where(here, x, old) for here, old in zip(places, m.items, strict=True))
    return Table(items, logic.both(m.fits, logic.either(*places, logic.same(x, nothing_like(x)))))


def _of(t: Type) -> Type:
    assert t.of is not None
    return t.of


def _room(values: Sequence[Value]) -> int:
    return max((len(x.items) for x in values if isinstance(x, Entries)), default=0)


def _at(w: Terms, n: Node, q: Entries, k: Number) -> Value:
    nothing = w.shapes.encode(n.type, zero(n.type))
    return w.logic.pick(q.items, k, nothing, first=1)


def _first(w: Terms, items: Sequence[Value], length: Number) -> tuple[Value, ...]:
    """The first items, zeros behind them."""
    return tuple(w.logic.where(w.logic.less(k, length), x, nothing_like(x)) for k, x in enumerate(items))


def _prefix(w: Terms, n: Node, q: Entries, k: Number) -> Entries:
    length = w.logic.least(w.logic.natural(k), q.length)
    return Entries(length, _first(w, q.items, length))


def _slice(w: Terms, n: Node, q: Entries, after: Number, upto: Number) -> Entries:
    logic = w.logic
    start = logic.natural(after)
    length = logic.natural(logic.minus(logic.least(upto, q.length), start))
    if not q.items:
        return Entries(0, ())
    nothing = nothing_like(q.items[0])
    moved = []
    for k in range(len(q.items)):
        out = nothing
        for shift in reversed(range(len(q.items) - k)):
            out = logic.where(logic.same(start, shift), q.items[k + shift], out)
        moved.append(out)
    return Entries(length, _first(w, moved, length))


def _append(w: Terms, n: Node, q: Entries, x: Value) -> Entries:
    items = w.logic.filled(q, Entries(1, (x,)), len(q.items) + 1)
    placed = (w.logic.where(w.logic.same(q.length, k), x, old) for k, old in enumerate(items))
    return Entries(w.logic.plus(q.length, 1), tuple(placed))


def _concat(w: Terms, n: Node, q: Entries, r: Entries) -> Entries:
    logic = w.logic
    if not r.items:
        return q
    items = list(logic.filled(q, r, len(q.items) + len(r.items)))
    for k in range(len(items)):
        for size in range(max(0, k - len(r.items) + 1), min(k, len(q.items)) + 1):
            items[k] = logic.where(logic.same(q.length, size), r.items[k - size], items[k])
    return Entries(logic.plus(q.length, r.length), tuple(items))


def _agrees(w: Terms, n: Node, q: Entries, r: Entries, k: Number) -> Truth:
    logic = w.logic
    pairs = enumerate(zip(q.items, r.items, strict=False))
    same = (logic.either(logic.at_most(k, at), logic.same(a, b)) for at, (a, b) in pairs)
    return logic.both(logic.at_most(k, q.length), logic.at_most(k, r.length), *same)


def _field(w: Terms, n: Node, record: Sequence[Value]) -> Value:
    cls = n.args[0].type.cls
    assert cls is not None
    return record[list(cls.types()).index(n.attr)]


def _forall(w: Terms, n: Node, top: Number) -> Truth:
    return w.logic.both(*(w.logic.either(w.logic.no(there), claim) for there, claim in w.claims(n, top)))


def _exists(w: Terms, n: Node, top: Number) -> Truth:
    return w.logic.either(*(w.logic.both(there, claim) for there, claim in w.claims(n, top)))


def _latest(w: Terms, n: Node, top: Number) -> Number:
    out: Number = 0
    for k, (there, claim) in enumerate(w.claims(n, top), 1):
        out = w.logic.where(w.logic.both(there, claim), k, out)
    return out


RULES: Mapping[str, Rule] = {
    "not": lambda w, n, a: w.logic.no(a),
    "and": lambda w, n, a, b: w.logic.both(a, b),
    "or": lambda w, n, a, b: w.logic.either(a, b),
    "eq": lambda w, n, a, b: w.logic.same(a, b),
    "lt": lambda w, n, a, b: w.logic.less(a, b),
    "le": lambda w, n, a, b: w.logic.at_most(a, b),
    "add": lambda w, n, a, b: w.logic.plus(a, b),
    "sub": lambda w, n, a, b: w.logic.minus(a, b),
    "ite": lambda w, n, c, a, b: w.logic.where(c, a, b),
    "count": lambda w, n, *conditions: w.logic.count(conditions),
    "rule": _rule,
    "set_add": _set_add,
    "set_has": lambda w, n, s, i: w.logic.pick(s, i, False, first=1),
    "set_size": lambda w, n, s: w.logic.count(s),
    "map_get": _map_get,
    "map_set": _map_set,
    "len": lambda w, n, q: q.length,
    "at": _at,
    "prefix": _prefix,
    "slice": _slice,
    "append": _append,
    "concat": _concat,
    "agrees": _agrees,
    "forall": _forall,
    "exists": _exists,
    "latest": _latest,
    "record": lambda w, n, *fields: fields,
    "field": _field,
}
assert RULES.keys() == OPERATIONS.keys()

"""Expressions for any number of servers as Z3 terms: one rule for each operation of the graph.

w  a lowering under way     n  a node     q, r  sequences     k  a number
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import z3

from raftspec.graph import BINDERS, OPERATIONS, OVER_SERVERS, Node, free_variables, postorder
from raftworthy.explore.bounds import UnusableError
from raftworthy.prove.unbounded import values as v
from raftworthy.prove.unbounded.formulas import (
    Formula,
    Junction,
    Quantified,
    among,
    both,
    either,
    every,
    implies,
    is_plain,
    no,
    some,
)
from raftworthy.prove.unbounded.naming import Named
from raftworthy.prove.unbounded.values import (
    CROWD_SORT,
    NUMBER_SORT,
    QUORUM_SORT,
    SERVER_SORT,
    AllServers,
    Entries,
    Maybe,
    Members,
    Size,
    Table,
    Value,
)

Environment: TypeAlias = Mapping[Any, Value]


# Some order of the servers; all that is used of it is that no server is before itself.
before: Any = z3.Function("before", SERVER_SORT, SERVER_SORT, z3.BoolSort())


@dataclass(frozen=True)
class State:
    """A state without its messages: each variable as a function of the server, and history's."""

    servers: Mapping[str, Callable[[Any], Value]]
    past: Mapping[str, Value]
    name: str = ""


class Terms:
    """Computes expressions over one state, or two, where parameters and message fields are known."""

    def __init__(self, named: Named, *states: State, environment: Environment | None = None) -> None:
        self.named = named
        self.states = states
        self.environment = dict(environment or {})
        self._done: dict[Node, Value] = {}
        self._outer: Terms | None = None
        self._bound = ""
        self._free: dict[Node, frozenset[str]] = {}

    def inside(self, name: str, x: Any) -> Terms:
        """The same inside a quantifier, whose variable is x."""
        made = Terms(self.named, *self.states, environment={**self.environment, name: x})
        made._outer, made._bound, made._free = self, name, self._free
        return made

    def value(self, n: Node) -> Value:
        """The value of an expression."""
        if self._outer is not None and self._bound not in self.free(n):
            return self._outer.value(n)
        if n not in self._done:
            self._done[n] = self._compute(n)
        return self._done[n]

    def mentioned(self, n: Node) -> set[Any]:
        """What of the environment an expression depends on."""
        return {m.attr for m in postorder(n) if m.op in ("param", "message")} | self.free(n)

    def free(self, n: Node) -> frozenset[str]:
        if n not in self._free:
            self._free[n] = free_variables(n)
        return self._free[n]

    def _compute(self, n: Node) -> Value:
        match n.op:
            case "const":
                return v.known(n.type, n.attr)
            case "param" | "message" | "bound":
                return self.environment[n.attr]
            case "past":
                name, prime = n.attr
                return self.states[prime].past[name]
            case "get":
                name, prime = n.attr
                return self.states[prime].servers[name](self.value(n.args[0]))
            case "servers":
                return AllServers()
        if n.op in BINDERS:
            return RULES[n.op](self, n, *map(self.value, n.args[:-1]))
        return RULES[n.op](self, n, *map(self.value, n.args))

    def where(self, c: Formula, a: Value, b: Value) -> Value:
        """`a` if c, else `b`."""
        if isinstance(c, bool):
            return a if c else b
        if a is b:
            return a
        if isinstance(a, bool | z3.BoolRef | Quantified | Junction):
            return self._where_condition(c, a, b)
        c = self.named.plain(c)
        if isinstance(a, Maybe) or isinstance(b, Maybe):
            a, b = v.maybe(a), v.maybe(b)
            return Maybe(self.where(c, a.there, b.there), self.where(c, a.server, b.server))
        if isinstance(a, tuple):
            return tuple(self.where(c, x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, Members):
            return Members(lambda j: self.where(c, a.has(j), b.has(j)))
        if isinstance(a, Table):
            return Table(lambda k: self.where(c, a.at(k), b.at(k)))
        if isinstance(a, Entries):
            return Entries(self.where(c, a.length, b.length), lambda k: self.where(c, a.at(k), b.at(k)))
        if isinstance(a, Size | AllServers) or isinstance(b, Size | AllServers):
            raise UnusableError("how many servers there are can't be chosen by a condition in a proof")
        return a if a.eq(b) else z3.If(c, a, b)

    def _where_condition(self, c: Formula, a: Formula, b: Formula) -> Formula:
        if isinstance(a, bool):
            return either(c, b) if a else both(no(c), b)
        if isinstance(b, bool):
            return either(no(c), a) if b else both(c, a)
        if is_plain(c) and is_plain(a) and is_plain(b):
            return z3.If(c, a, b)
        return both(either(no(c), a), either(c, b))


def within(quorum: Any, s: Members) -> Formula:
    """All members of a quorum are in a set."""
    key = (*s.key, quorum) if s.key else ()
    return Quantified(True, SERVER_SORT, lambda j: implies(v.member(j, quorum), s.has(j)), "j", key)


def is_quorum(s: Members) -> Formula:
    """A set holds a majority: some quorum lies within it."""
    return some(QUORUM_SORT, lambda q: both(v.quorum(q), within(q, s)), "q")


def is_majority(who: Members, of: Members) -> Formula:
    """A set is more than half as large as another, which some crowd is.

    It has a name where it can be said in hypotheses what that means, as so many mention it.
    """

    def claim(c: Any) -> Formula:
        crowd = every(SERVER_SORT, lambda j: v.same(v.inside(j, c), of.has(j)), "j")
        return both(crowd, some(QUORUM_SORT, lambda q: both(v.most(q, c), within(q, who)), "q"))

    (one, *depends), (other, *fewer) = who.key or ("",), of.key or ("",)
    named = bool(one and other) and among(fewer, depends)
    key = (f"{one} of {other}", *depends) if named else ()
    return Quantified(False, CROWD_SORT, claim, "c", key, named)


def _refused(n: Node) -> UnusableError:
    return UnusableError(f"the proof doesn't know what to make of this number of servers: {n!r}")


def _number(x: Any) -> int | None:
    return x.as_long() if isinstance(x, z3.IntNumRef) else None


def _at_most(n: Node, s: Size, k: int | None) -> Formula:
    """A set has at most k servers."""
    if k is None or s.times != 1 or k > 1:
        raise _refused(n)
    has = s.of.has
    if k < 1:
        return every(SERVER_SORT, lambda i: no(has(i)), "i") if k == 0 else False

    def one(i: Any) -> Formula:
        return every(SERVER_SORT, lambda j: either(no(has(i)), no(has(j)), v.same(i, j)), "j")

    return every(SERVER_SORT, one, "i")


def _less(w: Terms, n: Node, a: Value, b: Value) -> Formula:
    if isinstance(a, AllServers) and isinstance(b, Size) and b.times == 2:
        return is_quorum(b.of)
    if isinstance(a, Size) and isinstance(b, Size) and (a.times, b.times) == (1, 2):
        return is_majority(b.of, a.of)
    if isinstance(a, Size) and (k := _number(b)) is not None:
        return _at_most(n, a, k - 1)
    if isinstance(b, Size):
        return no(_at_most(n, b, _number(a)))
    return _compared(n, a, b, lambda x, y: x < y)


def _le(w: Terms, n: Node, a: Value, b: Value) -> Formula:
    if isinstance(b, AllServers) and isinstance(a, Size) and a.times == 2:
        return no(is_quorum(a.of))
    if isinstance(a, Size) and isinstance(b, Size) and (a.times, b.times) == (2, 1):
        return no(is_majority(a.of, b.of))
    if isinstance(a, Size):
        return _at_most(n, a, _number(b))
    if isinstance(b, Size) and (k := _number(a)) is not None:
        return no(_at_most(n, b, k - 1))
    return _compared(n, a, b, lambda x, y: x <= y)


def _compared(n: Node, a: Value, b: Value, f: Callable[[Any, Any], Any]) -> Formula:
    if isinstance(a, Size | AllServers) or isinstance(b, Size | AllServers):
        raise _refused(n)
    if a.sort() != NUMBER_SORT:
        raise UnusableError(f"the proof knows no order of commands: {n!r}")
    x, y = _number(a), _number(b)
    if x is not None and y is not None:
        return bool(f(x, y))
    return f(a, b)


def _equal(w: Terms, n: Node, a: Value, b: Value) -> Formula:
    if isinstance(b, Size):
        a, b = b, a
    if isinstance(a, Size) and _number(b) == 0:
        return _at_most(n, a, 0)
    if isinstance(a, Size) and _number(b) == 1:
        return both(_at_most(n, a, 1), no(_at_most(n, a, 0)))
    if isinstance(a, Size | AllServers):
        raise _refused(n)
    return v.same(a, b)


def _add(w: Terms, n: Node, a: Value, b: Value) -> Value:
    if isinstance(a, Size) or isinstance(b, Size):
        if isinstance(a, Size) and isinstance(b, Size) and a.of is b.of:
            return Size(a.of, a.times + b.times)
        raise _refused(n)
    return a + b


def _sub(w: Terms, n: Node, a: Value, b: Value) -> Value:
    if isinstance(a, Size | AllServers) or isinstance(b, Size | AllServers):
        raise _refused(n)
    return a - b


def _least(a: Any, b: Any) -> Any:
    return z3.If(a <= b, a, b)


def _natural(a: Any) -> Any:
    k = _number(a)
    return z3.If(a < 0, z3.IntVal(0), a) if k is None else z3.IntVal(max(k, 0))


def _prefix(w: Terms, n: Node, q: Entries, k: Any) -> Entries:
    nothing = v.nothing_of(n.type.of)
    return Entries(_least(_natural(k), q.length), lambda x: w.where(x <= k, q.at(x), nothing))


def _slice(w: Terms, n: Node, q: Entries, after: Any, upto: Any) -> Entries:
    start, nothing = _natural(after), v.nothing_of(n.type.of)
    length = _natural(_least(upto, q.length) - start)
    return Entries(length, lambda x: w.where(z3.And(x >= 1, x <= upto - start), q.at(start + x), nothing))


def _append(w: Terms, n: Node, q: Entries, x: Value) -> Entries:
    last = q.length + 1
    return Entries(last, lambda k: w.where(k == last, x, q.at(k)))


def _concat(w: Terms, n: Node, q: Entries, r: Entries) -> Entries:
    return Entries(q.length + r.length, lambda k: w.where(k <= q.length, q.at(k), r.at(k - q.length)))


def _agrees(w: Terms, n: Node, q: Entries, r: Entries, k: Any) -> Formula:
    equal = lambda x: either(x < 1, x > k, v.same(q.at(x), r.at(x)))  # noqa: E731
    return both(k <= q.length, k <= r.length, every(NUMBER_SORT, equal, "k"))


def _upto(w: Terms, n: Node, top: Any) -> Formula:
    """For all numbers from 1 to a largest one."""

    def claim(k: Any) -> Formula:
        return either(k < 1, k > top, w.inside(n.attr, k).value(n.args[-1]))

    return every(NUMBER_SORT, claim, "k")


def _exists(w: Terms, n: Node, top: Any) -> Formula:
    def claim(k: Any) -> Formula:
        return both(k >= 1, k <= top, w.inside(n.attr, k).value(n.args[-1]))

    return some(NUMBER_SORT, claim, "k")


def _latest(w: Terms, n: Node, top: Any) -> Any:
    return w.named.last(top, lambda k: w.inside(n.attr, k).value(n.args[-1]))


def _count(w: Terms, n: Node, *conditions: Formula) -> Value:
    one, zero = z3.IntVal(1), z3.IntVal(0)
    return z3.Sum([w.where(c, one, zero) for c in conditions])


def _count_servers(w: Terms, n: Node) -> Size:
    names = sorted(w.mentioned(n), key=str)
    # Only of the one state that has a name: what follows a step is another state for each action.
    named = len(w.states) == 1 and w.states[0].name
    key = (f"{named}{n.id}", *(w.environment[x] for x in names)) if named else ()
    return Size(Members(lambda j: w.inside(n.attr, j).value(n.args[-1]), key))


def _those(w: Terms, n: Node) -> Members:
    return Members(lambda j: w.inside(n.attr, j).value(n.args[-1]))


def _set_each(w: Terms, n: Node, m: Table) -> Table:
    return Table(lambda j: w.inside(n.attr, j).value(n.args[-1]))


def _field(w: Terms, n: Node, record: Any) -> Value:
    cls = n.args[0].type.cls
    assert cls is not None
    return record[list(cls.types()).index(n.attr)]


RULES: Mapping[str, Callable[..., Value]] = {
    "not": lambda w, n, a: no(a),
    "and": lambda w, n, a, b: both(a, b),
    "or": lambda w, n, a, b: either(a, b),
    "eq": _equal,
    "lt": _less,
    "le": _le,
    "add": _add,
    "sub": _sub,
    "ite": lambda w, n, c, a, b: w.where(c, a, b),
    "count": _count,
    "rule": lambda w, n, c: c,
    "set_add": lambda w, n, s, i: Members(lambda j: either(s.has(j), v.same(i, j))),
    "set_has": lambda w, n, s, i: s.has(i),
    "set_size": lambda w, n, s: Size(s),
    "map_get": lambda w, n, m, k: m.at(k),
    "map_set": lambda w, n, m, k, x: Table(lambda key: w.where(v.same(k, key), x, m.at(key))),
    "len": lambda w, n, q: q.length,
    "at": lambda w, n, q, k: q.at(k),
    "prefix": _prefix,
    "slice": _slice,
    "append": _append,
    "concat": _concat,
    "agrees": _agrees,
    "forall": _upto,
    "exists": _exists,
    "latest": _latest,
    "record": lambda w, n, *fields: fields,
    "field": _field,
    "every_server": lambda w, n: every(SERVER_SORT, lambda j: w.inside(n.attr, j).value(n.args[-1]), "j"),
    "count_servers": _count_servers,
    "those": _those,
    "set_each": _set_each,
    "before": lambda w, n, i, j: before(i, j),
}
assert RULES.keys() == OPERATIONS.keys() | OVER_SERVERS.keys()

"""The proof's formulas over few servers, computed: what each function of the state is comes from a world.

Numbers have no largest one in a proof; here a bound variable runs over `NUMBERS`, which holds more than any
expression of these tests reaches, on both sides. Majorities are the sets of more than half of the servers.

    c  a condition     t  a term     env  what bound variables stand for, by the term's number
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import z3

from raftspec.types import Type, zero
from raftworthy.prove.unbounded import values as v
from raftworthy.prove.unbounded.formulas import Clauses, Formula, Junction, Quantified
from raftworthy.prove.unbounded.terms import Named
from raftworthy.prove.unbounded.values import Entries, Maybe, Members, Size, Table, Value

NUMBERS = range(-4, 12)
Env = Mapping[int, Any]

FOLDED: Mapping[int, Callable[..., Any]] = {
    z3.Z3_OP_ADD: operator.add,
    z3.Z3_OP_SUB: operator.sub,
    z3.Z3_OP_MUL: operator.mul,
    z3.Z3_OP_EQ: operator.eq,
    z3.Z3_OP_LE: operator.le,
    z3.Z3_OP_LT: operator.lt,
    z3.Z3_OP_GE: operator.ge,
    z3.Z3_OP_GT: operator.gt,
}


class Finite:
    """Computes formulas, where functions are those of Python and servers have names."""

    def __init__(self, servers: Iterable[str], numbers: Iterable[int] = NUMBERS) -> None:
        self.servers = tuple(servers)
        n = len(self.servers)
        subsets = itertools.chain(*(itertools.combinations(self.servers, k) for k in range(n + 1)))
        self.quorums = tuple(map(frozenset, subsets))  # of which `quorum` says which are majorities
        self.domains: dict[str, Iterable[Any]] = {
            "Server": self.servers,
            "Quorum": self.quorums,
            "Int": tuple(numbers),
        }
        self.functions: dict[str, Callable[..., Any]] = {
            "quorum": lambda q: 2 * len(q) > n,
            "member": lambda j, q: j in q,
            "everybody": lambda: frozenset(self.servers),
            "shared?": lambda p, q: min(p & q, default=self.servers[0]),
            "before": lambda i, j: i < j,
            "nothing": lambda: 0,
            "no_server": lambda: self.servers[0],
        }
        self.named = Named(Clauses())
        self.also: list[Named] = []  # where else conditions got names
        self._bodies: dict[int, tuple[Quantified, z3.ExprRef, Formula]] = {}

    def holds(self, c: Formula, env: Env | None = None) -> bool:
        """Whether a condition is true."""
        env = env or {}
        if isinstance(c, bool):
            return c
        if isinstance(c, Junction):
            return (all if c.every else any)(self.holds(p, env) for p in c.parts)
        if isinstance(c, Quantified):
            if id(c) not in self._bodies:
                x = self.named.clauses.variable(c.name, c.sort)
                self._bodies[id(c)] = c, x, c.body(x)
            _, x, body = self._bodies[id(c)]
            domain = self.domains[c.sort.name()]
            return (all if c.every else any)(self.holds(body, {**env, x.get_id(): k}) for k in domain)
        return bool(self.term(c, env))

    def term(self, t: z3.ExprRef, env: Env) -> Any:
        """What a term is."""
        if t.get_id() in env:
            return env[t.get_id()]
        kind, args = t.decl().kind(), t.children()
        match kind:
            case z3.Z3_OP_ANUM:
                return t.as_long()  # type: ignore[attr-defined]
            case z3.Z3_OP_TRUE | z3.Z3_OP_FALSE:
                return kind == z3.Z3_OP_TRUE
            case z3.Z3_OP_AND:
                return all(self.term(a, env) for a in args)
            case z3.Z3_OP_OR:
                return any(self.term(a, env) for a in args)
            case z3.Z3_OP_NOT:
                return not self.term(args[0], env)
            case z3.Z3_OP_ITE:
                return self.term(args[1] if self.term(args[0], env) else args[2], env)
            case z3.Z3_OP_DT_CONSTRUCTOR:
                return t.decl().name()
            case z3.Z3_OP_UNINTERPRETED:
                return self._applied(t, [self.term(a, env) for a in args])
        return reduce(FOLDED[kind], (self.term(a, env) for a in args))

    def _applied(self, t: z3.ExprRef, args: list[Any]) -> Any:
        name = t.decl().name()
        if name in self.functions:
            return self.functions[name](*args)
        # A name for a condition inside of a term; its definition is what it is equal to.
        for c, named in itertools.chain(*(n._known.values() for n in (self.named, *self.also))):
            if named.decl().name() == name:
                free = dict(zip((a.get_id() for a in named.children()), args, strict=True))
                return self.holds(c, free)
        raise AssertionError(f"nothing is known of {name}")

    # --- values of the specification ---

    def given(self, t: Type, name: str, value: Callable[..., Any]) -> None:
        """Say what `values.unknown` with this name is: the specification's value for its arguments."""
        f = self.functions
        match t.kind:
            case "maybe":
                f[f"{name}.there"] = lambda *a: value(*a) is not None
                f[f"{name}.who"] = lambda *a: value(*a) or self.servers[-1]
            case "set":
                f[name] = lambda *a: a[-1] in value(*a[:-1])
            case "map":
                assert t.of is not None
                self.given(t.of, name, lambda *a: entry(value(*a[:-1]), a[-1], t))
            case "seq":
                assert t.of is not None
                f[f"{name}.length"] = lambda *a: len(value(*a))
                of = t.of
                self.given(of, name, lambda *a: item(value(*a[:-1]), a[-1], of))
            case "record":
                assert t.cls is not None
                for field, ft in t.cls.types().items():
                    self.given(ft, f"{name}.{field}", lambda *a, field=field: getattr(value(*a), field))
            case "enum":
                f[name] = lambda *a: value(*a).name
            case _:
                f[name] = value

    def same(self, t: Type, value: Value, expected: Any, env: Env | None = None) -> bool:
        """Whether what was computed is a value of the specification, outside of a sequence, too."""
        env = env or {}
        match t.kind:
            case "bool":
                return self.holds(value, env) == expected
            case "maybe":
                m: Maybe = v.maybe(value)
                there = self.holds(m.there, env)
                return there == (expected is not None) and (not there or self.term(m.server, env) == expected)
            case "set":
                assert isinstance(value, Members)
                return all(self.holds(has, e) == (j in expected) for j, has, e in self.at_each(value.has))
            case "map":
                assert isinstance(value, Table)
                assert t.of is not None
                of = t.of
                keys = v.sort_of(t.key) if t.key else v.NUMBER_SORT
                return all(
                    self.same(of, x, entry(expected, k, t), {**env, **e})
                    for k, x, e in self.at_each(value.at, keys)
                )
            case "seq":
                assert isinstance(value, Entries)
                assert t.of is not None
                of = t.of
                return self.term(value.length, env) == len(expected) and all(
                    self.same(of, x, item(expected, k, of), {**env, **e})
                    for k, x, e in self.at_each(value.at, v.NUMBER_SORT)
                )
            case "record":
                assert t.cls is not None
                parts = zip(t.cls.types().items(), value, strict=True)
                return all(self.same(ft, x, getattr(expected, f), env) for (f, ft), x in parts)
            case "enum":
                return bool(self.term(value, env) == expected.name)
        if isinstance(value, Size):
            has = list(self.at_each(value.of.has))
            return value.times * sum(self.holds(c, e) for _, c, e in has) == expected
        return bool(self.term(value, env) == expected)

    def at_each(
        self, f: Callable[[Any], Value], sort: z3.SortRef = v.SERVER_SORT
    ) -> Iterable[tuple[Any, Value, dict[int, Any]]]:
        """What a function gives for an unknown argument, with each value that this can have."""
        x = self.named.clauses.variable("at", sort)
        made = f(x)
        return ((k, made, {x.get_id(): k}) for k in self.domains[sort.name()])


def entry(m: Any, key: Any, t: Type) -> Any:
    """A map's value: of the specification's maps, or of the Python back end's."""
    return m.get(key) if not isinstance(m, dict) else m.get(key, zero_of(t))


def item(q: Any, k: int, of: Type) -> Any:
    """A sequence's entry, zeros outside."""
    return q[k - 1] if 0 < k <= len(q) else zero_of(of)


def zero_of(t: Type) -> Any:
    """What a sequence of such entries, or such a map, has where nothing was set."""
    return zero(t.of if t.kind == "map" and t.of is not None else t)

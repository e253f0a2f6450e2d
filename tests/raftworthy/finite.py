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
from raftworthy.prove.unbounded.formulas import Clauses, Formula, Junction, Quantified, is_plain
from raftworthy.prove.unbounded.naming import Latest, Named
from raftworthy.prove.unbounded.values import Entries, Maybe, Members, Size, Table, Value

NUMBERS = range(-4, 12)
Env = Mapping[int, Any]
Computed = Callable[[dict[int, Any]], Any]

FOLDED: Mapping[int, Callable[..., Any]] = {
    z3.Z3_OP_ADD: operator.add,
    z3.Z3_OP_SUB: operator.sub,
    z3.Z3_OP_MUL: operator.mul,
    z3.Z3_OP_EQ: operator.eq,
    z3.Z3_OP_DISTINCT: operator.ne,  # of two
    z3.Z3_OP_LE: operator.le,
    z3.Z3_OP_LT: operator.lt,
    z3.Z3_OP_GE: operator.ge,
    z3.Z3_OP_GT: operator.gt,
}


def _all(parts: list[Computed]) -> Computed:
    return lambda env: all(p(env) for p in parts)


def _any(parts: list[Computed]) -> Computed:
    return lambda env: any(p(env) for p in parts)


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
            "Crowd": self.quorums,
            "Int": tuple(numbers),
            "Value": (0, *(f"c{k}" for k in range(1, 4))),
        }
        self.functions: dict[str, Callable[..., Any]] = {
            "quorum": lambda q: 2 * len(q) > n,
            "member": lambda j, q: j in q,
            "everybody": lambda: frozenset(self.servers),
            "shared?": lambda p, q: min(p & q, default=self.servers[0]),
            "inside": lambda j, c: j in c,
            "most": lambda q, c: 2 * len(q) > len(c),
            "stranger?": lambda q, c: min(q - c, default=self.servers[0]),
            "other?": lambda c, d: min(c ^ d, default=self.servers[0]),
            "another?": lambda c, d: max(c ^ d, default=self.servers[0]),
            "before": lambda i, j: i < j,
            "nothing": lambda: 0,
            "no_server": lambda: self.servers[0],
        }
        self.named = Named(Clauses())
        self.also: list[Named] = []  # where else conditions got names
        self._done: dict[tuple[str, int], tuple[Any, Computed]] = {}
        self._made: dict[int, tuple[Value, z3.ExprRef, Value]] = {}

    def holds(self, c: Formula, env: Env | None = None) -> bool:
        """Whether a condition is true."""
        return bool(self._compiled(c)({} if env is None else dict(env)))

    def term(self, t: z3.ExprRef, env: Env) -> Any:
        """What a term is."""
        return self._compiled(t)(dict(env))

    def _compiled(self, c: Any) -> Computed:
        """A function that computes a condition or a term; made once, as asking Z3 takes time."""
        key = ("term", c.get_id()) if isinstance(c, z3.ExprRef) else ("formula", id(c))
        if key not in self._done:
            self._done[key] = c, self._compile(c)
        return self._done[key][1]

    def _compile(self, c: Any) -> Computed:
        if isinstance(c, bool):
            return lambda env: c
        if isinstance(c, Junction):
            parts = [self._compiled(p) for p in sorted(c.parts, key=lambda p: not is_plain(p))]
            return _all(parts) if c.every else _any(parts)
        if isinstance(c, Quantified):
            return self._compile_quantified(c)
        kind, args = c.decl().kind(), [self._compiled(a) for a in c.children()]
        match kind:
            case z3.Z3_OP_ANUM:
                k = c.as_long()
                return lambda env: k
            case z3.Z3_OP_TRUE | z3.Z3_OP_FALSE:
                return lambda env: kind == z3.Z3_OP_TRUE
            case z3.Z3_OP_AND:
                return _all(args)
            case z3.Z3_OP_OR:
                return _any(args)
            case z3.Z3_OP_NOT:
                (a,) = args
                return lambda env: not a(env)
            case z3.Z3_OP_ITE:
                test, yes, other = args
                return lambda env: yes(env) if test(env) else other(env)
            case z3.Z3_OP_DT_CONSTRUCTOR:
                name = c.decl().name()
                return lambda env: name
            case z3.Z3_OP_UNINTERPRETED:
                return self._compile_applied(c, args)
        f = FOLDED[kind]
        return lambda env: reduce(f, [a(env) for a in args])

    def _compile_quantified(self, c: Quantified) -> Computed:
        x = self.named.clauses.variable(c.name, c.sort)
        number, body, stop = x.get_id(), self._compiled(c.body(x)), not c.every
        domain = self.domains[c.sort.name()]

        def computed(env: dict[int, Any]) -> bool:
            for k in domain:
                env[number] = k
                if bool(body(env)) is stop:
                    return stop
            return not stop

        return computed

    def _compile_applied(self, t: z3.ExprRef, args: list[Computed]) -> Computed:
        name, number, functions = t.decl().name(), t.get_id(), self.functions
        for c, named in itertools.chain(*(n._known.values() for n in (self.named, *self.also))):
            if named.decl().name() == name:
                # A name for a condition inside of a term; its definition is what it is equal to.
                meaning, free = self._compiled(c), [a.get_id() for a in named.children()]
                return lambda env: meaning({**env, **dict(zip(free, [a(env) for a in args], strict=True))})
        for asked in (n.latest[name] for n in (self.named, *self.also) if name in n.latest):
            return self._compile_latest(asked, args)
        if args:
            return lambda env: functions[name](*[a(env) for a in args])
        return lambda env: env[number] if number in env else functions[name]()

    def _compile_latest(self, asked: Latest, args: list[Computed]) -> Computed:
        top, claim, x = self._compiled(asked.top), self._compiled(asked.claim), asked.x.get_id()
        free = [a.get_id() for a in asked.free]

        def computed(env: dict[int, Any]) -> int:
            env = {**env, **dict(zip(free, [a(env) for a in args], strict=True))}
            return next((k for k in range(top(env), 0, -1) if claim({**env, x: k})), 0)

        return computed

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
                assert t.cls is not None
                cls: Any = t.cls
                f[name] = lambda *a: cls(value(*a)).name
            case _:
                f[name] = value

    def same(self, t: Type, value: Value, expected: Any, env: Env | None = None) -> bool:
        """Whether what was computed is a value of the specification, outside of a sequence, too."""
        env = env or {}
        match t.kind:
            case "bool":
                return self.holds(value, env) is bool(expected)
            case "maybe":
                m: Maybe = v.maybe(value)
                there = self.holds(m.there, env)
                return there == (expected is not None) and (not there or self.term(m.server, env) == expected)
            case "set":
                assert isinstance(value, Members)
                return all(
                    self.holds(has, {**env, **e}) == (j in expected)
                    for j, has, e in self.at_each(value.has, of=value)
                )
            case "map":
                assert isinstance(value, Table)
                assert t.of is not None
                of = t.of
                keys = v.sort_of(t.key) if t.key else v.NUMBER_SORT
                return all(
                    self.same(of, x, entry(expected, k, t), {**env, **e})
                    for k, x, e in self.at_each(value.at, keys, value)
                )
            case "seq":
                assert isinstance(value, Entries)
                assert t.of is not None
                of = t.of
                return self.term(value.length, env) == len(expected) and all(
                    self.same(of, x, item(expected, k, of), {**env, **e})
                    for k, x, e in self.at_each(value.at, v.NUMBER_SORT, value)
                )
            case "record":
                assert t.cls is not None
                parts = zip(t.cls.types().items(), value, strict=True)
                return all(self.same(ft, x, getattr(expected, f), env) for (f, ft), x in parts)
            case "enum":
                assert t.cls is not None
                member: Any = t.cls(expected)
                return bool(self.term(value, env) == member.name)
        if isinstance(value, Size):
            has = list(self.at_each(value.of.has, of=value.of))
            return bool(value.times * sum(self.holds(c, {**env, **e}) for _, c, e in has) == expected)
        return bool(self.term(value, env) == expected)

    def at_each(
        self, f: Callable[[Any], Value], sort: z3.SortRef = v.SERVER_SORT, of: Any = None
    ) -> Iterable[tuple[Any, Value, dict[int, Any]]]:
        """What a function gives for an unknown argument, with each value that this can have."""
        owner = f if of is None else of
        if id(owner) not in self._made:
            x = self.named.clauses.variable("at", sort)
            self._made[id(owner)] = owner, x, f(x)
        _, x, made = self._made[id(owner)]
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

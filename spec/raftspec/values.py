"""What a specification's functions handle: concrete values, or expressions while they are traced.

Both have the same operations. On concrete values an operation computes its
meaning; as soon as one argument is symbolic it adds a node to the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

if TYPE_CHECKING:
    from raftspec.graph import Node
    from raftspec.tracing import Tracer

T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R")

NOT_A_TRUTH_VALUE = (
    "a condition of the specification has no truth value here:\n"
    "write `&` for `and`, `|` for `or`, `no(c)` for `not`, `ite(c, a, b)` for `if`,\n"
    "`every(...)` for `all`, `some(...)` for `any`, `(a < b) & (b < c)` for `a < b < c`"
)

NOT_COMPARABLE = (
    "logs, maps and records are not compared while they are traced:\n"
    "write `a.agrees(b, n)` for two logs, and compare the records' fields or the maps' values"
)


class _SeqOps(Generic[T]):
    """A sequence. Its first entry is at index 1; outside of it, `at` gives an entry of zeros."""

    __slots__ = ()

    @property
    def length(self) -> int:
        return apply("len", self)

    @property
    def last(self) -> T:
        return self.at(self.length)

    def at(self, n: int) -> T:
        return apply("at", self, n)

    def prefix(self, n: int) -> Seq[T]:
        """The first n entries."""
        return apply("prefix", self, n)

    def slice(self, after: int, upto: int) -> Seq[T]:
        """The entries after index `after`, up to and with index `upto`."""
        return apply("slice", self, after, upto)

    def append(self, entry: T) -> Seq[T]:
        return apply("append", self, entry)

    def concat(self, other: Seq[T]) -> Seq[T]:
        return apply("concat", self, other)

    def agrees(self, other: Seq[T], n: int) -> bool:
        """Both have n entries, and the same ones."""
        return apply("agrees", self, other, n)


class _SetOps:
    """A set of servers."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return apply("set_size", self)

    def has(self, i: str) -> bool:
        return apply("set_has", self, i)

    def add(self, i: str) -> ServerSet:
        return apply("set_add", self, i)


class _MapOps(Generic[K, T]):
    """A total map: what was never set is the default."""

    __slots__ = ()

    def __getitem__(self, key: K) -> T:
        return apply("map_get", self, key)

    def set(self, key: K, value: T) -> Map[K, T]:
        return apply("map_set", self, key, value)


class Seq(_SeqOps[T], tuple[T, ...]):
    """A concrete sequence, with the entry that `at` gives outside of it.

    A record that a sequence is put into fills in `missing`, as it knows the fields' types.
    """

    missing: T | None

    def __new__(cls, entries: Iterable[T] = (), missing: T | None = None) -> Self:
        self = super().__new__(cls, entries)
        self.missing = missing
        return self

    def but(self, entries: Iterable[T]) -> Seq[T]:
        """Other entries of the same kind."""
        return Seq(entries, self.missing)

    def get(self, n: int) -> T:
        if 0 < n <= len(self):
            return self[n - 1]
        if self.missing is None:
            raise TypeError(f"no entry {n}: a Seq outside of a record needs its `missing` entry")
        return self.missing


class ServerSet(_SetOps, frozenset[str]):
    """A concrete set of servers."""

    __slots__ = ()


class Map(_MapOps[K, T]):
    """A concrete map, with the value of every key that was never set."""

    __slots__ = ("default", "items")

    def __init__(self, items: Iterable[tuple[K, T]] = (), default: T | None = None) -> None:
        self.default = default
        self.items = {k: x for k, x in items if x != default}

    def get(self, key: K) -> T | None:
        return self.items.get(key, self.default)

    def put(self, key: K, value: T) -> Map[K, T]:
        return Map([*self.items.items(), (key, value)] if value != self.default else
                   [(k, x) for k, x in self.items.items() if k != key], self.default)  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Map) and (self.items, self.default) == (other.items, other.default)

    def __hash__(self) -> int:
        return hash((frozenset(self.items.items()), self.default))

    def __repr__(self) -> str:
        return f"Map({self.items}, default={self.default})"


# What every operation computes.
MEANINGS: dict[str, Callable[..., Any]] = {
    "not": lambda a: not a,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "ite": lambda c, a, b: a if c else b,
    "count": lambda *cs: sum(cs),
    # A named rule of the protocol: its condition, with the name for messages and for switching it off.
    "rule": lambda c, attr: c,
    "set_add": lambda s, i: ServerSet(s | {i}),
    "set_has": lambda s, i: i in s,
    "set_size": len,
    "map_get": lambda m, k: m.get(k),
    "map_set": lambda m, k, x: m.put(k, x),
    "len": len,
    "at": lambda q, n: q.get(n),
    "prefix": lambda q, n: q.but(q[: max(n, 0)]),
    "slice": lambda q, a, b: q.but(q[max(a, 0) : max(b, 0)]),
    "append": lambda q, x: q.but((*q, x)),
    "concat": lambda q, r: q.but((*q, *r)),
    "agrees": lambda q, r, n: n <= len(q) and n <= len(r) and q[: max(n, 0)] == r[: max(n, 0)],
    # Over the numbers from 1 to the first argument; the second speaks of the bound variable.
    "forall": lambda n, claim: all(map(claim, range(1, n + 1))),
    "exists": lambda n, claim: any(map(claim, range(1, n + 1))),
    "latest": lambda n, claim: next(filter(claim, range(n, 0, -1)), 0),
    # Building a record (`attr` is its type) and taking a field (`attr` is its name).
    "record": lambda *fields, attr: attr.cls(*fields),
    "field": lambda r, attr: getattr(r, attr),
}


class Expr:
    """A symbolic value. `==` builds an expression, so it is never a key or an element."""

    __slots__ = ("node", "tracer")

    def __init__(self, node: Node, tracer: Tracer) -> None:
        self.node = node
        self.tracer = tracer

    def __repr__(self) -> str:
        return repr(self.node)

    def __bool__(self) -> bool:
        return self.tracer.decide(self.node)

    def __hash__(self) -> NoReturn:
        raise TypeError("an expression is no key and no element; write `votes.has(i)` for `i in votes`")

    def __index__(self) -> NoReturn:
        raise TypeError("an expression is no number yet; write forall(n, lambda k: ...) for `range(n)`")

    def __and__(self, other: Any) -> Any:
        return apply("and", self, other)

    def __or__(self, other: Any) -> Any:
        return apply("or", self, other)

    __rand__ = __and__
    __ror__ = __or__

    def __eq__(self, other: Any) -> Any:
        return apply("eq", self, other)

    def __ne__(self, other: Any) -> Any:
        return apply("not", apply("eq", self, other))

    def __lt__(self, other: Any) -> Any:
        return apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return apply("lt", other, self)

    def __ge__(self, other: Any) -> Any:
        return apply("le", other, self)

    def __add__(self, other: Any) -> Any:
        return apply("add", self, other)

    def __sub__(self, other: Any) -> Any:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return apply("sub", other, self)

    __radd__ = __add__

    def __invert__(self) -> NoReturn:
        raise TypeError("write `no(c)` for `not`; `~` means something else on a plain bool")

    def __iter__(self) -> NoReturn:
        raise TypeError(
            "an expression can't be looped over; write `for j in s.servers` or forall(n, lambda k: ...)"
        )

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError("write `votes.has(i)` for `in`")

    def __len__(self) -> NoReturn:
        raise TypeError("write `log.length` or `votes.size` for `len`")


class SeqExpr(_SeqOps[Any], Expr):
    """A symbolic sequence."""

    __slots__ = ()

    def __getitem__(self, n: object) -> NoReturn:
        raise TypeError("write `log.at(n)` for `log[n]`; the first entry is at index 1")


class SetExpr(_SetOps, Expr):
    """A symbolic set of servers."""

    __slots__ = ()


class MapExpr(_MapOps[Any, Any], Expr):
    """A symbolic map."""

    __slots__ = ()


def apply(op: str, *args: Any) -> R:  # type: ignore[type-var]
    """Compute `op` on concrete values, or add it to the graph if any argument is symbolic."""
    for a in args:
        if tracer := getattr(a, "tracer", None):
            traced: R = tracer.apply(op, args)
            return traced
    out: R = MEANINGS[op](*args)
    return out


# --- what a specification writes --------------------------------------------


def no(c: bool) -> bool:
    """Not c."""
    return apply("not", c)


def ite(c: bool, a: T, b: T) -> T:
    """`a` if c, else `b`, without going two ways."""
    return apply("ite", c, a, b)


def smallest(a: int, b: int) -> int:
    return ite(a < b, a, b)


def largest(a: int, b: int) -> int:
    return ite(a < b, b, a)


def implies(a: bool, b: bool) -> bool:
    return no(a) | b


def every(conditions: Iterable[bool]) -> bool:
    """All of them hold."""
    out: Any = True
    for c in conditions:
        out = c & out
    return out.tracer.over_servers("every", out) if isinstance(out, Expr) else out  # type: ignore[no-any-return]


def some(conditions: Iterable[bool]) -> bool:
    """At least one of them holds."""
    out: Any = False
    for c in conditions:
        out = c | out
    return out.tracer.over_servers("some", out) if isinstance(out, Expr) else out  # type: ignore[no-any-return]


def count(conditions: Iterable[bool]) -> int:
    """How many of them hold."""
    return apply("count", *conditions)


def set_each(m: Map[str, T], servers: Iterable[str], value: Callable[[str], T]) -> Map[str, T]:
    """The map with `value(j)` at each server j."""
    if tracer := getattr(servers, "tracer", None):  # of any number of servers
        return tracer.set_each(m, value)  # type: ignore[no-any-return]
    for j in servers:
        m = m.set(j, value(j))
    return m


def those(servers: Iterable[str], has: Callable[[str], bool]) -> ServerSet:
    """The set of servers j for which `has(j)` holds."""
    if tracer := getattr(servers, "tracer", None):  # of any number of servers
        return tracer.those(has)  # type: ignore[no-any-return]
    out = ServerSet()
    for j in servers:
        out = ite(has(j), out.add(j), out)
    return out


def forall(n: int, claim: Callable[[int], bool]) -> bool:
    """`claim(k)` for every number k from 1 to n."""
    if isinstance(n, Expr):
        return n.tracer.quantify("forall", n, claim)
    return every(map(claim, range(1, n + 1)))


def exists(n: int, claim: Callable[[int], bool]) -> bool:
    """`claim(k)` for some number k from 1 to n."""
    if isinstance(n, Expr):
        return n.tracer.quantify("exists", n, claim)
    return some(map(claim, range(1, n + 1)))


def latest(n: int, claim: Callable[[int], bool]) -> int:
    """The last number k from 1 to n for which `claim(k)` holds, 0 if it holds for none."""
    if isinstance(n, Expr):
        return n.tracer.quantify("latest", n, claim)
    out: Any = 0
    for k in range(1, n + 1):
        out = ite(claim(k), k, out)
    return out  # type: ignore[no-any-return]

"""What a specification's functions handle: concrete values, or expressions while they are traced.

Both have the same operations. On concrete values an operation computes its
meaning; as soon as one argument is symbolic it adds a node to the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from raftspec.types import Record

if TYPE_CHECKING:
    from raftspec.graph import Node
    from raftspec.tracing import Tracer

T = TypeVar("T")
K = TypeVar("K")

NOT_A_TRUTH_VALUE = (
    "a condition of the specification has no truth value here:\n"
    "write `&` for `and`, `|` for `or`, `no(c)` for `not`, `ite(c, a, b)` for `if`,\n"
    "`every(...)` for `all`, `some(...)` for `any`, `(a < b) & (b < c)` for `a < b < c`"
)


class _SeqOps(Generic[T]):
    """A sequence. Its first entry is at index 1; outside of it, `at` gives an entry of zeros."""

    __slots__ = ()

    @property
    def length(self) -> int:
        return apply("len", self)  # type: ignore[no-any-return]

    @property
    def last(self) -> T:
        return self.at(self.length)

    def at(self, n: int) -> T:
        return apply("at", self, n)  # type: ignore[no-any-return]

    def prefix(self, n: int) -> Seq[T]:
        """The first n entries."""
        return apply("prefix", self, n)  # type: ignore[no-any-return]

    def slice(self, after: int, upto: int) -> Seq[T]:
        """The entries after index `after`, up to and with index `upto`."""
        return apply("slice", self, after, upto)  # type: ignore[no-any-return]

    def append(self, entry: T) -> Seq[T]:
        return apply("append", self, entry)  # type: ignore[no-any-return]

    def concat(self, other: Seq[T]) -> Seq[T]:
        return apply("concat", self, other)  # type: ignore[no-any-return]

    def agrees(self, other: Seq[T], n: int) -> bool:
        """Both have n entries, and the same ones."""
        return apply("agrees", self, other, n)  # type: ignore[no-any-return]


class _SetOps:
    """A set of servers."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return apply("set_size", self)  # type: ignore[no-any-return]

    def has(self, i: str) -> bool:
        return apply("set_has", self, i)  # type: ignore[no-any-return]

    def add(self, i: str) -> ServerSet:
        return apply("set_add", self, i)  # type: ignore[no-any-return]


class _MapOps(Generic[K, T]):
    """A total map: what was never set is the default."""

    __slots__ = ()

    def __getitem__(self, key: K) -> T:
        return apply("map_get", self, key)  # type: ignore[no-any-return]

    def set(self, key: K, value: T) -> Map[K, T]:
        return apply("map_set", self, key, value)  # type: ignore[no-any-return]


class Seq(_SeqOps[T], tuple[T, ...]):
    """A concrete sequence."""

    __slots__ = ()


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


class Expr:
    """A symbolic value. `==` builds an expression, so it is never a key or an element."""

    __slots__ = ("node", "tracer")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node, tracer: Tracer) -> None:
        self.node = node
        self.tracer = tracer

    def __repr__(self) -> str:
        return repr(self.node)

    def __bool__(self) -> bool:
        return self.tracer.decide(self.node)

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
    __eq__ = Expr.__eq__
    __hash__ = None  # type: ignore[assignment]


class SetExpr(_SetOps, Expr):
    """A symbolic set of servers."""

    __slots__ = ()


class MapExpr(_MapOps[Any, Any], Expr):
    """A symbolic map."""

    __slots__ = ()


def tracer_of(value: Any) -> Tracer | None:
    """Who traces this value, or None if it is concrete."""
    if isinstance(value, Expr):
        return value.tracer
    if isinstance(value, Record):
        return next((t for x in value.values() if (t := tracer_of(x))), None)
    return None


def apply(op: str, *args: Any, attr: Any = None) -> Any:
    """Compute `op` on concrete values, or add it to the graph if any argument is symbolic."""
    from raftspec.graph import OPERATIONS

    tracer = next((t for a in args if (t := tracer_of(a))), None)
    if tracer is not None:
        return tracer.apply(op, args, attr)
    if op == "at":
        return args[0][args[1] - 1] if 0 < args[1] <= len(args[0]) else _nothing(args[0])
    meaning = OPERATIONS[op].meaning
    return meaning(*args) if attr is None else meaning(*args, attr=attr)


class _Nothing:
    """The entry that isn't there: every field is 0."""

    def __getattr__(self, name: str) -> int:
        return 0


def _nothing(seq: Any) -> Any:
    """A concrete sequence doesn't know what it holds; fields of a missing entry are numbers, so 0."""
    return _Nothing()


# --- what a specification writes --------------------------------------------


def no(c: bool) -> bool:
    """Not c."""
    return apply("not", c)  # type: ignore[no-any-return]


def ite(c: bool, a: T, b: T) -> T:
    """`a` if c, else `b`, without going two ways."""
    return apply("ite", c, a, b)  # type: ignore[no-any-return]


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
    return out  # type: ignore[no-any-return]


def some(conditions: Iterable[bool]) -> bool:
    """At least one of them holds."""
    out: Any = False
    for c in conditions:
        out = c | out
    return out  # type: ignore[no-any-return]


def count(conditions: Iterable[bool]) -> int:
    """How many of them hold."""
    return apply("count", *conditions)  # type: ignore[no-any-return]


def forall(n: int, claim: Callable[[int], bool]) -> bool:
    """`claim(k)` for every number k from 1 to n."""
    return _quantify("forall", n, claim)


def exists(n: int, claim: Callable[[int], bool]) -> bool:
    """`claim(k)` for some number k from 1 to n."""
    return _quantify("exists", n, claim)


def _quantify(op: str, n: int, claim: Callable[[int], bool]) -> bool:
    if isinstance(n, Expr):
        return n.tracer.quantify(op, n, claim)  # type: ignore[no-any-return]
    return apply(op, n, claim)  # type: ignore[no-any-return]


def typed(value: Any, like: Any) -> Any:
    """A literal with the type of `like`, where nothing else says what it is."""
    return apply("ite", True, value, like)

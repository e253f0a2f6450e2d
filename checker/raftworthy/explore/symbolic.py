"""What a `find` expression sees while it is traced: a state that isn't known, looked at as Python does.

The same expression runs once per way its conditions can go, as the specification's own functions do; what
comes of it is a property that every engine can check. What it can't be asked without knowing can't be traced,
and says so.

    t  a type     x  a value, known or not
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from raftspec.raft import raft
from raftspec.spec import Property, Spec, State
from raftspec.tracing import Tracer
from raftspec.types import BOOL, Record
from raftspec.values import Expr, count, no
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.find import FUNCTIONS, compiled, helpers

FOUND = "looked_for"  # the property that fails where the state is that is looked for


class UntraceableError(UnusableError):
    """The expression can only be evaluated by Python, state by state; the text says why."""


def shown(x: Any, longest: int) -> Any:
    """A value of the tracer's as an expression sees it. No log has more than `longest` entries."""
    if isinstance(x, Record):
        return Fields(x, longest)
    if not isinstance(x, Expr):
        return x
    kinds: dict[str, type[Unknown]] = {"seq": Sequence, "set": Servers, "map": Table}
    return kinds.get(x.node.type.kind, Unknown)(x, longest)


def hidden(x: Any) -> Any:
    return x.expr if isinstance(x, Unknown) else x


class Fields:
    """A record: a server's variables, history, an entry."""

    def __init__(self, record: Record, longest: int) -> None:
        self._record = record
        self._longest = longest

    def __getattr__(self, name: str) -> Any:
        return shown(getattr(self._record, name), self._longest)

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Fields) or type(self._record) is not type(other._record):
            return False
        return all(
            shown(a, self._longest) == shown(b, self._longest)
            for a, b in zip(self._record.values(), other._record.values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]


class Unknown:
    """A number, a condition, a role or a server that isn't known."""

    def __init__(self, expr: Any, longest: int) -> None:
        self.expr = expr
        self.longest = longest

    def shown(self, x: Any) -> Any:
        return shown(x, self.longest)

    def __bool__(self) -> bool:
        return bool(self.holds())

    __hash__ = None  # type: ignore[assignment]

    def holds(self) -> Any:
        """Whether Python takes it for true, as a condition."""
        t = self.expr.node.type
        match t.kind:
            case "bool":
                return self.expr
            case "num":
                return no(self.expr == 0)
            case "maybe":
                return no(self.expr == None)  # noqa: E711
        return True

    def _known(self, x: Any) -> Any:
        """What a known value is in the specification; None if this is never equal to it."""
        t = self.expr.node.type
        match t.kind:
            case "enum":
                return next((m for m in t.cls if m.value == x), NotImplemented)
            case "num" if t.name == "value":  # a command's name; 0 is none
                command = isinstance(x, str) and re.fullmatch(r"c[1-9][0-9]*", x)
                tracer = self.expr.tracer
                return tracer.wrap(tracer.graph.const(x, t)) if command or x == 0 else NotImplemented
            case "num":
                return x if isinstance(x, int) and not isinstance(x, bool) else NotImplemented
            case "bool":
                return x if isinstance(x, bool) else NotImplemented
        return x if x in self.expr.tracer.servers or x is None else NotImplemented

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Unknown):
            return self.shown(self.expr == other.expr)
        x = self._known(other)
        return False if x is NotImplemented else self.shown(self.expr == x)

    def __ne__(self, other: object) -> Any:
        same = self == other
        return self.shown(no(same.expr)) if isinstance(same, Unknown) else not same

    def _number(self) -> Any:
        return count([self.expr]) if self.expr.node.type == BOOL else self.expr

    def __lt__(self, other: Any) -> Any:
        return self.shown(self._number() < hidden(other))

    def __le__(self, other: Any) -> Any:
        return self.shown(self._number() <= hidden(other))

    def __gt__(self, other: Any) -> Any:
        return self.shown(self._number() > hidden(other))

    def __ge__(self, other: Any) -> Any:
        return self.shown(self._number() >= hidden(other))

    def __add__(self, other: Any) -> Any:
        return self.shown(self._number() + (other._number() if isinstance(other, Unknown) else other))

    def __radd__(self, other: Any) -> Any:
        return self.shown(self._number() + other)

    def __sub__(self, other: Any) -> Any:
        return self.shown(self._number() - hidden(other))

    def __rsub__(self, other: Any) -> Any:
        return self.shown(other - self._number())


class Sequence(Unknown):
    """A log."""

    def holds(self) -> Any:
        return self.expr.length > 0

    def __getitem__(self, k: Any) -> Any:
        if not isinstance(k, int):
            raise UntraceableError("a part of a log")
        index = k + 1 if k >= 0 else self.expr.length + (k + 1)
        if not ((index <= self.expr.length) if k >= 0 else (index > 0)):
            raise IndexError("list index out of range")
        return self.shown(self.expr.at(index))

    def __iter__(self) -> Iterator[Any]:
        for k in range(1, self.longest + 1):
            if self.expr.length < k:
                return
            yield self.shown(self.expr.at(k))

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Sequence):
            n = self.expr.length
            return self.shown((n == other.expr.length) & self.expr.agrees(other.expr, n))
        if isinstance(other, list):
            return len(other) == 0 and not self.holds()
        return False


class Servers(Unknown):
    """A set of servers."""

    def holds(self) -> Any:
        return self.expr.size > 0

    def __contains__(self, i: Any) -> bool:
        if isinstance(i, Unknown) or i in self.expr.tracer.servers:
            return bool(self.expr.has(hidden(i)))
        return False

    def __iter__(self) -> Iterator[Any]:
        return (i for i in self.expr.tracer.servers if self.expr.has(i))

    def __eq__(self, other: object) -> Any:
        raise UntraceableError("whether two sets are equal")


class Table(Unknown):
    """A map, which has a value for every key."""

    def __getitem__(self, k: Any) -> Any:
        return self.shown(self.expr[hidden(k)])

    def __eq__(self, other: object) -> Any:
        raise UntraceableError("whether two maps are equal")

    def holds(self) -> Any:
        raise UntraceableError("whether a map is empty")

    def __iter__(self) -> Iterator[Any]:
        raise UntraceableError("a map's keys")


def length(x: Any) -> Any:
    """How many there are."""
    if isinstance(x, Sequence):
        return x.shown(x.expr.length)
    if isinstance(x, Servers):
        return x.shown(x.expr.size)
    if isinstance(x, Table):
        raise UntraceableError("how many keys a map has")
    return len(x)


class View:
    """A state: servers by name, history as `past`."""

    def __init__(self, s: State[Any, Any], longest: int) -> None:
        self.s = s
        self.longest = longest
        self.servers = s.servers

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, Unknown):
            i = next((j for j in self.servers if i.expr == j), None)
        if i not in self.servers:
            raise KeyError(i)
        return Fields(self.s[i], self.longest)

    def __getattr__(self, name: str) -> Any:
        if name == "past":
            return Fields(self.s.past, self.longest)
        if name == "messages":
            raise UntraceableError("the messages")
        if name in self.servers:
            return self[name]
        raise AttributeError(name)


class _Equality(ast.NodeTransformer):
    """`is None` asks whether it is the very same; for what isn't known yet, whether it is equal."""

    def visit_Compare(self, n: ast.Compare) -> ast.AST:
        changed = {ast.Is: ast.Eq, ast.IsNot: ast.NotEq}
        for op, right in zip(n.ops, n.comparators, strict=True):
            if type(op) in changed and not (isinstance(right, ast.Constant) and right.value is None):
                raise UntraceableError("whether two things are the very same")
        n.ops = [changed.get(type(op), type(op))() for op in n.ops]
        return self.generic_visit(n)


def looking_for(text: str, bounds: Bounds, spec: Spec = raft) -> Spec:
    """The specification with one more property, which fails in a state that an expression describes.

    It fails, too, where the expression can't be evaluated; there Python has to say what is wrong.

    Raises:
        UntraceableError: only Python can tell.
    """
    tree = _Equality().visit(compiled(text).tree)
    code = compile(ast.fix_missing_locations(tree), "<find>", "eval")

    def looked_for(s: State[Any, Any]) -> bool:
        """This is looked for."""
        known = {**FUNCTIONS, **helpers(View(s, bounds.max_log)), "len": length}
        try:
            found = eval(code, {"__builtins__": {}, **known})
        except (UntraceableError, TypeError):
            raise
        except Exception:  # whatever an expression can do wrong
            return False
        found = hidden(found)
        if isinstance(found, Expr) and found.node.type == BOOL:
            return no(found)  # type: ignore[arg-type]
        return isinstance(found, bool) and not found

    try:
        Tracer(spec, bounds.names).property(looked_for)
    except UntraceableError as error:
        raise UntraceableError(f"it can't be told natively: {error}") from None
    except TypeError as error:
        raise UntraceableError(f"it can't be told natively: {str(error).splitlines()[0]}") from None
    claims = {**spec.properties, FOUND: Property(FOUND, looked_for, 1)}
    return replace(spec, properties=claims)

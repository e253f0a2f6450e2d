"""The expression graph: typed nodes, each written once, and what every operation means.

Equal nodes are the same object (hash-consing), so a back end's table from
operation to rule is applied once to each distinct expression.

    n  a node     a  its arguments     t  a type
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from raftspec.types import BOOL, COUNT, INDEX, SERVER, SERVER_SET, Type
from raftspec.values import MEANINGS


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One expression. Compared by identity; made by `Graph.node` only."""

    op: str
    args: tuple[Node, ...]
    attr: Any
    type: Type
    id: int

    def __repr__(self) -> str:
        inside = [repr(a) for a in self.args] + ([str(self.attr)] if self.attr is not None else [])
        return f"{self.op}({', '.join(inside)})"


# The names of a signature: types, and what kinds of types the others stand for.
FIXED = {"bool": BOOL, "index": INDEX, "count": COUNT, "server": SERVER, "set": SERVER_SET}
KINDS = {
    "num": {"num"},
    "seq": {"seq"},
    "map": {"map"},
    "scalar": {"bool", "num", "enum", "server", "maybe", "set"},
}


@dataclass(frozen=True)
class Operation:
    """An operation's typing and its meaning on concrete values.

    `signature` names the arguments' types and the result's. A fixed name is that type; `T` (and
    `num`, a number, and `scalar`, what can be compared) is the same type everywhere; `seq` holds
    `item`; `map` goes from `key` to `value`; a star means any number of arguments.
    """

    signature: str
    meaning: Callable[..., Any]

    def fit(self, types: Sequence[Type | None]) -> tuple[tuple[Type, ...], Type] | None:
        """The arguments' and the result's types. None stands for a literal, whose type follows from the rest.

        Returns None if there is no fit.
        """
        return _fit(self.signature, tuple(types))


@cache
def _fit(signature: str, types: tuple[Type | None, ...]) -> tuple[tuple[Type, ...], Type] | None:
    """Types are asked about far more often than there are different questions."""
    *names, _, result = signature.split()
    if names[-1].endswith("*"):
        names = [names[-1][:-1]] * len(types)
    if len(names) != len(types):
        return None
    bound: dict[str, Type | None] = dict(FIXED)
    for name, t in zip(names, types, strict=True):
        if t is not None and name not in FIXED:
            bound[name] = _wider(bound.get(name), t)
    if seq := bound.get("seq"):
        bound["item"] = seq.of
    if table := bound.get("map"):
        bound |= {"key": table.key, "value": table.of}
    expected = [bound.get(name) for name in names]
    for name, want, t in zip(names, expected, types, strict=True):
        if (
            want is None
            or (t is not None and not want.accepts(t))
            or want.kind not in KINDS.get(name, {want.kind})
        ):
            return None
    out = bound.get(result)
    return (tuple(t for t in expected if t is not None), out) if out is not None else None


def _wider(a: Type | None, b: Type) -> Type:
    return b if a is None or b.accepts(a) else a


# `record` and `field` depend on the record's class: `result_type` knows them.
SIGNATURES: dict[str, str] = {
    "not": "bool -> bool",
    "and": "bool bool -> bool",
    "or": "bool bool -> bool",
    "eq": "scalar scalar -> bool",
    "lt": "num num -> bool",
    "le": "num num -> bool",
    "add": "num num -> num",
    "sub": "num num -> num",
    "ite": "bool T T -> T",
    "count": "bool* -> count",
    "rule": "bool -> bool",
    "set_add": "set server -> set",
    "set_has": "set server -> bool",
    "set_size": "set -> count",
    "map_get": "map key -> value",
    "map_set": "map key value -> map",
    "len": "seq -> index",
    "at": "seq index -> item",
    "prefix": "seq index -> seq",
    "slice": "seq index index -> seq",
    "append": "seq item -> seq",
    "concat": "seq seq -> seq",
    "agrees": "seq seq index -> bool",
    "forall": "num bool -> bool",
    "exists": "num bool -> bool",
    "latest": "num bool -> num",
    "record": "",
    "field": "",
}
assert SIGNATURES.keys() == MEANINGS.keys()

OPERATIONS = {op: Operation(signature, MEANINGS[op]) for op, signature in SIGNATURES.items()}


def _no_meaning(*_: Any) -> Any:
    raise TypeError("how many servers there are is not known; instantiate the expression first")


# What only `raftspec.anynumber` writes. Each binds a server, whose name is its `attr`: whether a condition
# holds for all servers, for how many, the set of those, and a map in which each server has a value. `before`
# is an order in which servers can be named.
OVER_SERVERS = {
    op: Operation(signature, _no_meaning)
    for op, signature in {
        "every_server": "bool -> bool",
        "count_servers": "bool -> count",
        "those": "bool -> set",
        "set_each": "map value -> map",
        "before": "server server -> bool",
    }.items()
}
# What speaks of the numbers from 1 to its first argument.
QUANTIFIERS = frozenset({"forall", "exists", "latest"})
BINDERS = QUANTIFIERS | {"every_server", "count_servers", "those", "set_each"}


def result_type(op: str, types: Sequence[Type], attr: Any) -> Type | None:
    """The type of `op` on arguments of these types, None if they don't fit."""
    match op:
        case "record":
            wanted = list(attr.cls.types().values())
            return attr if len(wanted) == len(types) and all(map(Type.accepts, wanted, types)) else None
        case "field":
            (t,) = types
            return t.cls.types().get(attr) if t.kind == "record" and t.cls is not None else None
    fit = (OPERATIONS.get(op) or OVER_SERVERS[op]).fit(types)
    return fit[1] if fit is not None else None


# What an expression is made of: constants, the acting server's and others' variables, history,
# parameters, the received message's fields, a quantifier's variable, and how many servers there are.
LEAVES = frozenset({"const", "get", "past", "param", "message", "bound", "servers"})


class Graph:
    """Makes nodes, each distinct one once, simplified and checked.

    It can go on from another's `contents`, which it takes up when it first makes a node.
    """

    def __init__(self, nodes: Sequence[Node] = (), nameless: Mapping[Node, Node] | None = None) -> None:
        self._given = nodes
        self._nameless: dict[Node, Node] = dict(nameless or {})

    @cached_property
    def _nodes(self) -> dict[tuple[Any, ...], Node]:
        return {_key(n.op, n.args, n.attr, n.type): n for n in self._given}

    def contents(self) -> tuple[list[Node], Mapping[Node, Node]]:
        """All nodes, arguments before what uses them, and what they are without the rules' names."""
        return list(self._nodes.values()), self._nameless

    def __len__(self) -> int:
        return len(self._nodes)

    def leaf(self, op: str, attr: Any, t: Type, *args: Node) -> Node:
        assert op in LEAVES, op
        return self._intern(op, args, attr, t)

    def const(self, value: Any, t: Type) -> Node:
        return self._intern("const", (), value, t)

    def node(self, op: str, *args: Node, attr: Any = None) -> Node:
        """The expression `op(*args)`, or a smaller one that is equal. TypeError if the types don't fit."""
        types = tuple(a.type for a in args)
        t = result_type(op, types, attr)
        if t is None:
            raise TypeError(
                f"{op} doesn't take {', '.join(map(str, types))}: {op}({', '.join(map(repr, args))})"
            )
        return self._simplify(op, args, attr, t) or self._intern(op, args, attr, t)

    def without_rules(self, root: Node) -> Node:
        """The same expression without the rules' names, so that equal conditions become one."""
        done = self._nameless
        if root in done:
            return done[root]
        for n in postorder(root):
            if n in done:
                continue
            args = tuple(done[a] for a in n.args)
            if n.op == "rule":
                done[n] = args[0]
            elif n.op in LEAVES:
                done[n] = self.leaf(n.op, n.attr, n.type, *args)
            else:
                done[n] = self.node(n.op, *args, attr=n.attr)
        return done[root]

    def _intern(self, op: str, args: tuple[Node, ...], attr: Any, t: Type) -> Node:
        key = _key(op, args, attr, t)
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = Node(op, args, attr, t, len(self._nodes))
        return found

    def _simplify(self, op: str, a: tuple[Node, ...], attr: Any, t: Type) -> Node | None:
        if op in OPERATIONS and op not in QUANTIFIERS | {"rule"} and all(n.op == "const" for n in a):
            meaning = OPERATIONS[op].meaning
            values = [n.attr for n in a]
            return self.const(meaning(*values) if attr is None else meaning(*values, attr=attr), t)
        match op:
            case "and" | "or":
                unit = op == "and"
                for x, y in (a, a[::-1]):
                    if _is(x, unit):
                        return y
                    if _is(x, not unit):
                        return x
                if a[0] is a[1]:
                    return a[0]
                return self.const(not unit, BOOL) if _are_opposite(*a) else None
            case "not":
                return a[0].args[0] if a[0].op == "not" else None
            case "eq" | "le":
                return self.const(True, BOOL) if a[0] is a[1] else None
            case "lt":
                return self.const(False, BOOL) if a[0] is a[1] else None
            case "forall" | "exists" if _is(a[1], op == "forall"):
                return a[1]
            case "agrees" if a[0] is a[1]:
                return self.node("le", a[2], self.node("len", a[0]))
            case "ite":
                return self._simplify_ite(*a)
            case "field" if a[0].op == "record":
                return a[0].args[list(a[0].attr.cls.types()).index(attr)]
            case "field" if a[0].op == "ite":
                c, *sides = a[0].args
                return self.node("ite", c, *(self.node("field", x, attr=attr) for x in sides))
            case "record" if a[0].op == "field" and a[0].args[0].type == t:
                whole = a[0].args[0]
                fields = (self.node("field", whole, attr=name) for name in attr.cls.types())
                return whole if all(n is f for n, f in zip(a, fields, strict=True)) else None
            case "len":
                return self._simplify_len(a[0])
            case "map_get" if a[0].op == "map_set" and a[0].args[1] is a[1]:
                return a[0].args[2]
            case "map_set" if a[2].op == "map_get" and a[2].args == a[:2]:
                return a[0]
        return None

    def _simplify_ite(self, c: Node, x: Node, y: Node) -> Node | None:
        """One test for one change, so that an update isn't written once per path of the function."""
        if c.op == "const":
            return x if c.attr else y
        if x is y:
            return x
        if c.op == "not":
            return self.node("ite", c.args[0], y, x)
        if x.type == BOOL:
            return self._simplify_condition(c, x, y)
        no = self.node("not", c)
        if x.op == "ite":
            d, p, q = x.args
            if d is c:
                return self.node("ite", c, p, y)
            if q is y:
                return self.node("ite", self.node("and", c, d), p, y)
            if p is y:
                return self.node("ite", self.node("and", c, self.node("not", d)), q, y)
        if y.op == "ite":
            d, p, q = y.args
            if d is c:
                return self.node("ite", c, x, q)
            if p is x:
                return self.node("ite", self.node("or", c, d), x, q)
            if q is x:
                return self.node("ite", self.node("and", no, d), p, x)
            if x.op == "ite" and x.args[1:] == y.args[1:]:
                return self.node("ite", self.node("ite", c, x.args[0], d), p, q)
        return None

    def _simplify_len(self, q: Node) -> Node | None:
        """The length of a changed sequence, without making the sequence."""
        match q.op:
            case "append":
                return self.node("add", self.node("len", q.args[0]), self.const(1, INDEX))
            case "concat":
                return self.node("add", *(self.node("len", x) for x in q.args))
            case "ite":
                return self.node("ite", q.args[0], *(self.node("len", x) for x in q.args[1:]))
        return None

    def _simplify_condition(self, c: Node, x: Node, y: Node) -> Node | None:
        if x.op == "const":
            return self.node("or", c, y) if x.attr else self.node("and", self.node("not", c), y)
        if y.op == "const":
            return self.node("or", self.node("not", c), x) if y.attr else self.node("and", c, x)
        return None


def _key(op: str, args: tuple[Node, ...], attr: Any, t: Type) -> tuple[Any, ...]:
    return op, tuple(a.id for a in args), type(attr), attr, t


def _is(n: Node, value: bool) -> bool:
    return n.op == "const" and n.attr is value


def _are_opposite(a: Node, b: Node) -> bool:
    """Whether one of two conditions is the other's opposite, as it is written."""
    if "not" in (a.op, b.op):
        return a.args == (b,) or b.args == (a,)
    return {a.op, b.op} == {"lt", "le"} and a.args == b.args[::-1]


def postorder(*roots: Node) -> Iterator[Node]:
    """Every node below the roots once, arguments before what uses them."""
    seen: set[Node] = set()
    stack = [(n, False) for n in reversed(roots)]
    while stack:
        n, ready = stack.pop()
        if ready:
            yield n
        elif n not in seen:
            seen.add(n)
            stack.append((n, True))
            stack += [(a, False) for a in reversed(n.args)]


def rewritten(graph: Graph, root: Node, change: Callable[[Node], Node | None]) -> Node:
    """An expression in which some leaves are others."""
    done: dict[Node, Node] = {}
    for n in postorder(root):
        args = tuple(done[a] for a in n.args)
        found = change(n)
        if found is not None:
            done[n] = found
        elif n.op in LEAVES:
            done[n] = graph.leaf(n.op, n.attr, n.type, *args)
        else:
            done[n] = graph.node(n.op, *args, attr=n.attr)
    return done[root]


def free_variables(n: Node) -> frozenset[str]:
    """The quantified variables that an expression mentions without binding them."""
    free: dict[Node, frozenset[str]] = {}
    for m in postorder(n):
        inside = frozenset[str]().union(*(free[a] for a in m.args))
        if m.op == "bound":
            inside = frozenset({m.attr})
        elif m.op in BINDERS:  # only in the last argument
            inside = frozenset[str]().union(*(free[a] for a in m.args[:-1])) | (free[m.args[-1]] - {m.attr})
        free[m] = inside
    return free[n]


def check(roots: Iterable[Node], given: frozenset[str] = frozenset()) -> None:
    """Assert that a graph is well formed: known operations, right types, every variable bound or `given`.

    Called between passes; a pass that breaks it is wrong, not the specification.
    """
    roots = list(roots)
    for n in postorder(*roots):
        if n.op in LEAVES:
            assert not n.args or n.op == "get", f"a leaf with arguments: {n!r}"
            continue
        assert n.op in OPERATIONS or n.op in OVER_SERVERS, f"unknown operation: {n!r}"
        found = result_type(n.op, [a.type for a in n.args], n.attr)
        assert found == n.type, f"{n!r} is a {n.type}, its arguments give {found}"
        assert all(a.id < n.id for a in n.args), f"an argument is newer than its user: {n!r}"
    for n in roots:
        unbound = free_variables(n) - given
        assert not unbound, f"unbound {', '.join(unbound)} in {n!r}"

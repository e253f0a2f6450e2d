"""Tracing for any number of servers: a loop over the servers is run once, for a server that stands for each.

`every`, `some`, `count`, `those` and `set_each` then say something of all servers, and messages made in a
loop are sent to each. Whatever else is made in such a loop is refused, and so is asking for a server by its
place or name. `instantiate` gives the expressions for so many servers; that they are those that the ordinary
tracer gives is what `disagreement` checks, so a loop that was misread is found.

    j  a server that stands for each     n  a node
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NoReturn

from raftspec.graph import (
    BINDERS,
    LEAVES,
    OPERATIONS,
    OVER_SERVERS,
    Graph,
    Node,
    free_variables,
    postorder,
    rewritten,
)
from raftspec.spec import Action, OnlyIf, Spec
from raftspec.tracing import Send, Tracer, Transition
from raftspec.types import BOOL, COUNT, SERVER, SERVER_SET, Message
from raftspec.values import Expr, ServerSet

EACH = "each"  # the one variable that a message may leave unbound: it is sent for each server

ESCAPED = (
    "what a loop over servers makes can't be used after it, as it isn't known how many there are:\n"
    "write `every(...)`, `some(...)`, `count(...)`, `those(s.servers, ...)`, `set_each(m, s.servers, ...)`,\n"
    "or send a list of messages"
)


class AnyServers:
    """Servers of an unknown number. A loop over them sees one."""

    def __init__(self, tracer: AnyNumber) -> None:
        self.tracer = tracer

    def __iter__(self) -> Iterator[Any]:
        name = self.tracer.enter()
        try:
            yield self.tracer.wrap(self.tracer.graph.leaf("bound", name, SERVER))
        finally:
            self.tracer.inside.remove(name)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, Expr):
            raise TypeError("every server is in s.servers")
        return False  # none has a name

    def __len__(self) -> NoReturn:
        raise TypeError("write `s.n` for `len(s.servers)`")

    def __getitem__(self, k: object) -> NoReturn:
        raise TypeError("no server has a place; loop over s.servers")


class AnyNumber(Tracer):
    """Turns a specification's functions into expressions that hold for any number of servers."""

    given = frozenset({EACH})
    servers: Any

    def __init__(self, spec: Spec, switched_off: frozenset[str] = frozenset()) -> None:
        super().__init__(spec, (), switched_off)
        self.servers = AnyServers(self)
        self.inside: list[str] = []  # the loops that are being run
        self._loops = 0

    def enter(self) -> str:
        """A new name for a loop's server; `#` is in no other."""
        self._loops += 1
        self.inside.append(f"j#{self._loops}")
        return self.inside[-1]

    def number_of_servers(self) -> Any:
        return self.wrap(self.graph.leaf("servers", None, COUNT))

    def apply(self, op: str, args: tuple[Any, ...]) -> Any:
        if op == "count":
            return self._count([self.lift(a, BOOL) for a in args])
        if op == "lt" and all(isinstance(a, Expr) and a.node.type == SERVER for a in args):
            return self.wrap(self.graph.node("before", *(a.node for a in args)))
        return super().apply(op, args)

    def over_servers(self, op: str, condition: Expr) -> Any:
        n = condition.node if op == "every" else self.graph.node("not", condition.node)
        for name in self._left(n):
            n = self._bind("every_server", name, n)
        return self.wrap(n if op == "every" else self.graph.node("not", n))

    def _count(self, conditions: list[Node]) -> Any:
        left = [self._left(n) for n in conditions]
        if len(conditions) == 1 and len(left[0]) == 1:
            return self.wrap(self._bind("count_servers", left[0][0], *conditions))
        if any(left):
            raise TypeError("count what holds for one loop over s.servers")
        return self.wrap(self.graph.node("count", *conditions))

    def set_each(self, m: Any, value: Callable[[Any], Any]) -> Any:
        """A map in which each server has a value."""
        of = m.node.type.of if isinstance(m, Expr) else None
        if of is None:
            raise TypeError(f"set_each takes one of the state's maps, not {m!r}")
        (n,) = (self.lift(value(j), of) for j in self.servers)
        return self.wrap(self._bind("set_each", f"j#{self._loops}", m.node, n))

    def those(self, has: Callable[[Any], Any]) -> Any:
        """The set of servers for which something holds."""
        (n,) = (self.lift(has(j), BOOL) for j in self.servers)
        return self.wrap(self._bind("those", f"j#{self._loops}", n))

    def _left(self, n: Node) -> list[str]:
        """The servers of loops that have ended, the innermost first."""
        names = (x for x in free_variables(n) if "#" in x and x not in self.inside)
        return sorted(names, key=lambda name: -int(name[2:]))

    def _bind(self, op: str, name: str, *args: Node) -> Node:
        """A named server of a loop becomes that of an operation. Equal expressions get equal names."""
        *others, body = args
        inner = [int(n.attr[1:]) for n in postorder(body) if n.op in OVER_SERVERS and n.op in BINDERS]
        new = f"j{max(inner, default=0) + 1}"
        body = substitute(self.graph, body, {name: self.graph.leaf("bound", new, SERVER)})
        return self.graph.node(op, *others, body, attr=new)

    def _run(self, action: Action) -> Transition:
        t = super()._run(action)
        for n in (*(g.condition for g in t.guards), *t.updates.values(), *t.history.values(), t.server):
            if free_variables(n):
                raise TypeError(f"{action.name}: {ESCAPED}")
        return t

    def _send(self, send: Message | OnlyIf) -> Send:
        made = super()._send(send)
        left = {name for n in (made.condition, *made.fields) for name in free_variables(n)}
        if len(left) > 1:
            raise TypeError(f"{self._tracing} sends for two servers of a loop; send for one")
        target = made.fields[list(made.message.types()).index("target")]
        if left and (target.op != "bound" or target.attr not in left):
            raise TypeError(f"{self._tracing} sends once for each server, but not to it")
        new = {name: self.graph.leaf("bound", EACH, SERVER) for name in left}
        return Send(
            substitute(self.graph, made.condition, new),
            made.message,
            tuple(substitute(self.graph, n, new) for n in made.fields),
        )


def substitute(graph: Graph, root: Node, new: Mapping[str, Node]) -> Node:
    """An expression with other nodes for its free variables."""
    return rewritten(graph, root, lambda n: new.get(n.attr) if n.op == "bound" else None)


# --- for so many servers -----------------------------------------------------


def instantiate(
    graph: Graph, root: Node, servers: tuple[str, ...], known: Mapping[str, str] | None = None
) -> Node:
    """What an expression for any number of servers is for these, in `graph`."""
    known = known or {}
    done: dict[Node, Node] = {}

    def each(n: Node) -> list[Node]:
        return [instantiate(graph, n.args[-1], servers, {**known, n.attr: j}) for j in servers]

    def value(n: Node) -> Node:
        if n in done:
            return done[n]
        match n.op:
            case "bound" if n.attr in known:
                out = graph.const(known[n.attr], SERVER)
            case "servers":
                out = graph.const(len(servers), COUNT)
            case "every_server":
                out = graph.const(True, BOOL)
                for c in each(n):
                    out = graph.node("and", c, out)
            case "count_servers":
                out = graph.node("count", *each(n))
            case "those":
                out = graph.const(ServerSet(), SERVER_SET)
                for j, c in zip(servers, each(n), strict=True):
                    out = graph.node("ite", c, graph.node("set_add", out, graph.const(j, SERVER)), out)
            case "set_each":
                out = value(n.args[0])
                for j, x in zip(servers, each(n), strict=True):
                    out = graph.node("map_set", out, graph.const(j, SERVER), x)
            case "before":
                a, b = map(value, n.args)
                assert a.op == b.op == "const", "only servers of loops are ordered"
                out = graph.const(a.attr < b.attr, BOOL)
            case op if op in LEAVES:
                out = graph.leaf(n.op, n.attr, n.type, *map(value, n.args))
            case _:
                out = graph.node(n.op, *_typed(graph, n.op, list(map(value, n.args))), attr=n.attr)
        done[n] = out
        return out

    return value(root)


def _typed(graph: Graph, op: str, args: list[Node]) -> list[Node]:
    """Names of servers take the type of what they stand beside, as they do in ordinary tracing."""
    fit = OPERATIONS[op].fit([a.type for a in args]) if op not in ("record", "field") else None
    if fit is None:
        return args
    return [graph.const(a.attr, t) if a.op == "const" else a for a, t in zip(args, fit[0], strict=True)]


def disagreement(tracer: AnyNumber, ordinary: Tracer) -> str | None:
    """Where a specification for any number of servers, put down for so many, isn't the ordinary one.

    None if actions and properties agree: the same guards, new values, messages and claims, node by node.
    """
    graph, servers = ordinary.graph, ordinary.servers

    def told(n: Node, known: Mapping[str, str] | None = None) -> Any:
        return _shape(instantiate(graph, n, servers, known))

    for name, action in tracer.spec.actions.items():
        a, b = tracer.transition(action), ordinary.transition(action)
        mine: list[Any] = [told(a.server), *((g.text, told(g.condition)) for g in a.guards)]
        mine += [(f, told(n)) for f, n in (*a.updates.items(), *a.history.items())]
        for s in a.sends:
            each = any(EACH in free_variables(n) for n in (s.condition, *s.fields))
            for j in servers if each else servers[:1]:
                condition, *fields = (told(n, {EACH: j}) for n in (s.condition, *s.fields))
                if condition != _shape(graph.const(False, BOOL)):
                    mine.append((s.message, condition, fields))
        other: list[Any] = [_shape(b.server), *((g.text, _shape(g.condition)) for g in b.guards)]
        other += [(f, _shape(n)) for f, n in (*b.updates.items(), *b.history.items())]
        other += [(s.message, _shape(s.condition), list(map(_shape, s.fields))) for s in b.sends]
        for x, y in zip_longest(mine, other):
            if x != y:
                return f"{name}: {x} for any number of servers, {y} for {len(servers)}"
    for name, p in tracer.spec.properties.items():
        x = told(tracer.property(p.claim, p.states, p.params))
        y = _shape(ordinary.property(p.claim, p.states, p.params))
        if x != y:
            return f"{name}: {x} for any number of servers, {y} for {len(servers)}"
    return None


def _shape(root: Node) -> Any:
    """An expression up to the order and grouping of `and` and `or`, negations inside."""
    done: dict[Node, Any] = {}
    for n in postorder(root):
        args = tuple(done[a] for a in n.args)
        if n.op in ("and", "or"):
            parts = [a[1] if a[0] == n.op else {a} for a in args]
            done[n] = n.op, frozenset(x for part in parts for x in part)
        elif n.op == "not":
            done[n] = _negated(args[0])
        else:
            done[n] = n.op, args, n.attr, n.type
    return done[root]


def _negated(shape: Any) -> Any:
    op, parts = shape[:2]
    if op in ("and", "or"):
        return "or" if op == "and" else "and", frozenset(map(_negated, parts))
    return parts if op == "not" else ("not", shape)

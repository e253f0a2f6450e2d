"""Tracing: a transition's Python function becomes expressions, by running it once per path.

`if`, `and`, `or`, `max` and early `return` work on symbolic values because the function
is run again for each way its conditions can go; the paths are then joined.
No syntax tree is read, so helper functions and comprehensions work as always.

    c  a condition     n  a node     s  the symbolic state
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from raftspec.graph import OPERATIONS, Graph, Node, check, free_variables
from raftspec.spec import Action, OnlyIf, Spec, State, Step
from raftspec.types import BOOL, MAYBE_SERVER, SERVER, SERVER_SET, Message, Record, Type, zero
from raftspec.values import (
    NOT_A_TRUTH_VALUE,
    NOT_COMPARABLE,
    Expr,
    Map,
    MapExpr,
    Seq,
    SeqExpr,
    ServerSet,
    SetExpr,
)

PATH_LIMIT = 500

T = TypeVar("T")
Run: TypeAlias = tuple[list[tuple[Node, bool]], T]  # which way conditions went, and what came of it


class Send(NamedTuple):
    """A message that a transition sends, if a condition holds."""

    condition: Node
    message: type[Message]
    fields: tuple[Node, ...]


class Guard(NamedTuple):
    """What must hold for a transition to be taken."""

    text: str
    condition: Node


@dataclass(frozen=True)
class Transition:
    """An action as expressions over the state before it.

    `updates` and `history` name only what changes, `updates` at server `server`.
    """

    action: Action
    guards: tuple[Guard, ...]
    server: Node
    updates: Mapping[str, Node]
    history: Mapping[str, Node]
    sends: tuple[Send, ...]
    paths: int = 1

    @property
    def name(self) -> str:
        return self.action.name

    def roots(self) -> list[Node]:
        """Every expression of the transition."""
        sent = [n for s in self.sends for n in (s.condition, *s.fields)]
        return [
            *(g.condition for g in self.guards),
            self.server,
            *self.updates.values(),
            *self.history.values(),
            *sent,
        ]

    def but(self, change: Callable[[Node], Node]) -> Transition:
        """The same transition with every expression changed."""
        return replace(
            self,
            guards=tuple(Guard(g.text, change(g.condition)) for g in self.guards),
            server=change(self.server),
            updates={name: change(n) for name, n in self.updates.items()},
            history={name: change(n) for name, n in self.history.items()},
            sends=tuple(
                Send(change(s.condition), s.message, tuple(map(change, s.fields))) for s in self.sends
            ),
        )


def _hint(t: Type | None) -> str:
    if t is not None and t.kind == "enum":
        assert t.cls is not None
        return f"; write one of {', '.join(f'{t.name}.{name}' for name in t.cls.__members__)}"
    return "; write `no(c)` for `not`" if t == BOOL else ""


def _misfit(op: str, args: tuple[Any, ...], types: Sequence[Type | None]) -> str:
    """Why an operation doesn't take these arguments, and what to write instead."""
    if op == "eq" and any(t is not None and t.kind in ("seq", "map", "record") for t in types):
        return NOT_COMPARABLE
    given = ", ".join(f"{a!r} ({t or 'a literal'})" for a, t in zip(args, types, strict=True))
    if op == "ite" and types[1:] == [None, None]:
        return (
            f"ite can't tell the type of two literals: {given}\n"
            "write `ite(c, x == 1, x == 2)` for `x == ite(c, 1, 2)`"
        )
    return f"{op} takes {OPERATIONS[op].signature}, not {given}"


@dataclass
class _Path:
    """One way through a function: choices to repeat first, then `True` at every new condition."""

    script: list[bool]
    taken: list[tuple[Node, bool]] = field(default_factory=list)
    known: dict[Node, bool] = field(default_factory=dict)


class Tracer:
    """Turns what a specification's functions do to symbolic values into a graph.

    `switched_off` names rules that always come out as their `without` value.
    """

    given: frozenset[str] = frozenset()  # variables that an expression may leave unbound

    def __init__(
        self, spec: Spec, servers: tuple[str, ...], switched_off: frozenset[str] = frozenset()
    ) -> None:
        self.spec = spec
        self.servers = servers
        self.switched_off = switched_off
        self.graph = Graph()
        self.rules: dict[str, bool] = {}
        self.followed: dict[str, set[str]] = {}  # by action, the rules without a condition
        self._path: _Path | None = None
        self._depth = 0
        self._tracing = ""

    # --- what symbolic values ask for ---

    def wrap(self, n: Node) -> Any:
        """A node as a value that a specification can handle."""
        if n.type.kind == "record":
            assert n.type.cls is not None
            return n.type.cls(*(self.wrap(self.graph.node("field", n, attr=f)) for f in n.type.cls.types()))
        kinds: dict[str, type[Expr]] = {"set": SetExpr, "map": MapExpr, "seq": SeqExpr}
        return kinds.get(n.type.kind, Expr)(n, self)

    def lift(self, value: Any, t: Type | None) -> Node:
        """The node for a value where type `t` is expected, or any type if it is None.

        Raises:
            TypeError: the value is not of that type.
        """
        if isinstance(value, Expr):
            found = value.node
            if t is not None and not t.accepts(found.type):
                raise TypeError(f"expected {t}, found {found.type}: {found!r}")
            return found
        if isinstance(value, Record):
            types = type(value).types()
            fields = [self.lift(x, ft) for x, ft in zip(value.values(), types.values(), strict=True)]
            return self.graph.node(
                "record", *fields, attr=Type("record", type(value).__name__, cls=type(value))
            )
        t = t or self._type(value)
        if t is None or not self._fits(value, t):
            raise TypeError(f"expected {t or 'a typed value'}, found {value!r}{_hint(t)}")
        if t.kind == "seq":
            assert t.of is not None
            value = Seq(value, zero(t.of))
        return self.graph.const(value, t)

    def _fits(self, value: Any, t: Type) -> bool:
        match t.kind:
            case "bool":
                return isinstance(value, bool)
            case "num":
                return isinstance(value, int) and not isinstance(value, bool)
            case "server" | "maybe":
                return value in self.servers or (value is None and t.kind == "maybe")
            case "enum":
                return isinstance(value, t.cls)  # type: ignore[arg-type]
            case "set":
                return isinstance(value, ServerSet)
            case "seq":
                return isinstance(value, Seq)
            case "map":
                assert t.of is not None
                return isinstance(value, Map) and value.default == zero(t.of)
        return False

    def apply(self, op: str, args: tuple[Any, ...]) -> Any:
        """Add an operation to the graph. Literals take the type that the symbolic arguments imply."""
        known = [self._type(a) for a in args]
        fit = OPERATIONS[op].fit(known)
        if fit is None:
            raise TypeError(_misfit(op, args, known))
        nodes = [self.lift(a, t) for a, t in zip(args, fit[0], strict=True)]
        return self.wrap(self.graph.node(op, *nodes))

    def _type(self, value: Any) -> Type | None:
        """A value's own type; None for a literal that takes its type from what it stands beside."""
        match value:
            case Expr():
                return value.node.type
            case Record():
                return Type("record", type(value).__name__, cls=type(value))
            case bool():
                return BOOL
            case enum.Enum():
                return Type("enum", type(value).__name__, cls=type(value))
            case ServerSet():
                return SERVER_SET
            case None:
                return MAYBE_SERVER
            case str() if value in self.servers:
                return SERVER
        return None

    def quantify(self, op: str, n: Expr, claim: Callable[[int], bool]) -> Any:
        """A quantifier over 1 to n, its variable named by how deep it stands."""
        self._depth += 1
        try:
            name = f"k{self._depth}"
            variable = self.graph.leaf("bound", name, n.node.type)
            body = self.lift(claim(self.wrap(variable)), BOOL)
        finally:
            self._depth -= 1
        return self.wrap(self.graph.node(op, n.node, body, attr=name))

    def number_of_servers(self) -> int:
        return len(self.servers)

    def over_servers(self, op: str, condition: Expr) -> Any:
        """What `every` or `some` made of its conditions; a loop over servers is unrolled already."""
        return condition

    def rule(self, name: str, condition: Any, without: bool) -> bool:
        """A named rule's condition. `State.rule` calls this while tracing."""
        decided = self._path.known if self._path else {}
        if not isinstance(condition, Expr) or condition.node in decided:
            raise TypeError(
                f"rule {name} needs a condition that is not yet decided: write `&` for `and`, `|` for `or`, "
                "`no(c)` for `not`, `==` for `in`, `(a < b) & (b < c)` for `a < b < c`"
            )
        self._meet(name, without)
        if name in self.switched_off:
            n = self.graph.const(without, BOOL)
        else:
            n = self.graph.node("rule", self.lift(condition, BOOL), attr=name)
        holds: bool = self.wrap(n)
        return holds

    def follows(self, name: str) -> bool:
        """Whether a rule without a condition is switched on."""
        self._meet(name, False)
        self.followed.setdefault(self._tracing, set()).add(name)
        return name not in self.switched_off

    def _meet(self, name: str, without: bool) -> None:
        if name not in self.spec.rules:
            raise TypeError(
                f"rule {name} is not in the table of rules; add its section and the reason for it"
            )
        if self.rules.setdefault(name, without) != without:
            raise TypeError(f"rule {name} is taken away in two different ways: give it two names")

    def decide(self, n: Node) -> bool:
        """Which way a condition goes on the path that is being run. TypeError outside of one."""
        if n.op == "const":
            return bool(n.attr)
        if n.op == "not":
            return not self.decide(n.args[0])
        if self._path is None or free_variables(n):
            raise TypeError(NOT_A_TRUTH_VALUE)
        path = self._path
        if n not in path.known:
            if len(path.taken) == PATH_LIMIT:
                raise TypeError(
                    f"{self._tracing} asks more than {PATH_LIMIT} conditions on one path: a loop that "
                    "depends on one doesn't end; write forall(n, ...) or exists(n, ...)"
                )
            choice = path.script[len(path.taken)] if len(path.taken) < len(path.script) else True
            path.taken.append((n, choice))
            path.known[n] = choice
        return path.known[n]

    # --- tracing actions and properties ---

    def transition(self, action: Action, bound: Callable[..., bool] | None = None) -> Transition:
        """An action as expressions, with a bound of the exploration as one more guard.

        Raises:
            TypeError: the action is not of the language; the message says what to write instead.
        """
        runs = self._runs(action.name, lambda: self._run(action))
        joined = self._merge(runs, 0, self._join)
        guards = joined.guards
        if bound is not None:
            s, params = self._symbolic(action)
            guards = (*guards, Guard("within bounds", self.lift(bound(s, *params), BOOL)))
        result = Transition(
            action, guards, joined.server, joined.updates, joined.history, joined.sends, len(runs)
        )
        check(result.roots(), self.given)
        return result

    def property(
        self, claim: Callable[..., bool], states: int = 1, params: Mapping[str, Type] | None = None
    ) -> Node:
        """A property as one expression: of a state, or of a step's two states (`states=2`)."""
        arguments: list[Any] = [SymbolicState(self, prime) for prime in range(states)]
        arguments += self._parameters(params or {})
        self._tracing = claim.__name__
        runs = self._runs(claim.__name__, lambda: self.lift(claim(*arguments), BOOL))
        n = self._merge(runs, 0, lambda c, a, b: self.graph.node("ite", c, a, b))
        check([n])
        return n

    def _runs(self, name: str, run: Callable[[], T]) -> list[Run[T]]:
        """What a function does on each of its paths, and which conditions led it there."""
        runs: list[Run[T]] = []
        script: list[bool] = []
        while True:
            self._path = path = _Path(script)
            try:
                runs.append((path.taken, run()))
            finally:
                self._path = None
            if len(runs) > PATH_LIMIT:
                raise TypeError(
                    f"{name} has more than {PATH_LIMIT} paths: an `if` in a loop over servers "
                    "doubles them each time; write count(...), some(...) or ite(c, a, b) there"
                )
            script = [choice for _, choice in path.taken]
            while script and not script[-1]:
                script.pop()
            if not script:
                return runs
            script[-1] = False

    def _symbolic(self, action: Action) -> tuple[SymbolicState, list[Any]]:
        return SymbolicState(self, 0), self._parameters(action.params)

    def _parameters(self, types: Mapping[str, Type]) -> list[Any]:
        params = []
        for name, t in types.items():
            if t.kind == "record":
                assert t.cls is not None
                params.append(
                    t.cls(
                        *(
                            self.wrap(self.graph.leaf("message", (t.cls, f), ft))
                            for f, ft in t.cls.types().items()
                        )
                    )
                )
            else:
                params.append(self.wrap(self.graph.leaf("param", name, t)))
        return params

    def _run(self, action: Action) -> Transition:
        s, params = self._symbolic(action)
        self._tracing = action.name
        step = action.function(s, *params)
        if not isinstance(step, Step):
            raise TypeError(f"{action.name} returned {step!r}: an action returns a Step")
        server = self.lift(step.server, SERVER)
        return Transition(
            action,
            tuple(Guard(w.text, self.lift(w.condition, BOOL)) for w in step.guards),
            server,
            self._changes(step.then, server),
            self._changes(step.history),
            tuple(m for m in map(self._send, step.sends) if m.condition is not self.graph.const(False, BOOL)),
        )

    def _changes(self, record: Record | None, *server: Node) -> dict[str, Node]:
        """What a record has changed of the server's variables, or of history's if no server is given."""
        if record is None:
            return {}
        fields = zip(record.types().items(), record.values(), strict=True)
        new = {name: self.lift(x, t) for (name, t), x in fields}
        return {name: n for name, n in new.items() if n is not self._before(name, n.type, *server)}

    def _before(self, name: str, t: Type, *server: Node) -> Node:
        """A variable of the server before the step, or one of history's if no server is given."""
        return self.graph.leaf("get" if server else "past", (name, 0), t, *server)

    def _send(self, send: Message | OnlyIf) -> Send:
        condition, message = (send.condition, send.message) if isinstance(send, OnlyIf) else (True, send)
        types = type(message).types().values()
        fields = tuple(self.lift(x, t) for x, t in zip(message.values(), types, strict=True))
        return Send(self.lift(condition, BOOL), type(message), fields)

    def _merge(self, runs: list[Run[T]], depth: int, join: Callable[[Node, T, T], T]) -> T:
        """What happens on all paths that agree on their first `depth` conditions."""
        if len(runs) == 1:
            return runs[0][1]
        condition = runs[0][0][depth][0]
        yes, no = ([r for r in runs if r[0][depth][1] is side] for side in (True, False))
        return join(condition, self._merge(yes, depth + 1, join), self._merge(no, depth + 1, join))

    def _join(self, c: Node, a: Transition, b: Transition) -> Transition:
        """`a` if c, else `b`."""
        if a.server is not b.server:
            raise TypeError(
                f"{a.name} changes two different servers on two paths: {a.server!r} and {b.server!r}"
            )
        graph = self.graph
        yes = graph.const(True, BOOL)

        def both(x: Mapping[str, Node], y: Mapping[str, Node], *server: Node) -> dict[str, Node]:
            def after(changes: Mapping[str, Node], name: str, t: Type) -> Node:
                return changes.get(name) or self._before(name, t, *server)

            types = {name: n.type for name, n in {**x, **y}.items()}
            return {
                name: graph.node("ite", c, after(x, name, t), after(y, name, t)) for name, t in types.items()
            }

        ga, gb = dict(a.guards), dict(b.guards)
        guards = tuple(
            Guard(text, graph.node("ite", c, ga.get(text, yes), gb.get(text, yes))) for text in ga | gb
        )
        sends, rest = [], list(b.sends)
        for m in a.sends:
            other = next((x for x in rest if x.message is m.message), None)
            if other is None:
                sends.append(Send(graph.node("and", c, m.condition), m.message, m.fields))
            else:
                rest.remove(other)
                fields = tuple(
                    graph.node("ite", c, x, y) for x, y in zip(m.fields, other.fields, strict=True)
                )
                sends.append(Send(graph.node("ite", c, m.condition, other.condition), m.message, fields))
        sends += [
            Send(graph.node("and", graph.node("not", c), m.condition), m.message, m.fields) for m in rest
        ]
        updates = both(a.updates, b.updates, a.server)
        return Transition(a.action, guards, a.server, updates, both(a.history, b.history), tuple(sends))


class SymbolicState(State[Any, Any]):
    """The state that a specification is traced with. `prime` is 1 for a step's second state."""

    def __init__(self, tracer: Tracer, prime: int) -> None:
        self.tracer = tracer
        self.servers = tracer.servers
        self.extensions = tracer.spec.extensions
        self.prime = prime

    def __getitem__(self, i: Any) -> Any:
        server = self.tracer.lift(i, SERVER)
        kind = self.tracer.spec.server
        return kind(
            *(
                self.tracer.wrap(self.tracer.graph.leaf("get", (f, self.prime), t, server))
                for f, t in kind.types().items()
            )
        )

    @property
    def n(self) -> int:
        return self.tracer.number_of_servers()

    @property
    def past(self) -> Any:
        kind = self.tracer.spec.history
        return kind(
            *(
                self.tracer.wrap(self.tracer.graph.leaf("past", (f, self.prime), t))
                for f, t in kind.types().items()
            )
        )

    def rule(self, name: str, condition: bool, without: bool = True) -> bool:
        return self.tracer.rule(name, condition, without)

    def follows(self, name: str) -> bool:
        return self.tracer.follows(name)

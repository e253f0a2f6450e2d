"""A specification within bounds as Z3 terms: unknown states, and what each action makes of them.

s  a state     t  a type     x  a message
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import z3

from raftspec.graph import Node, postorder
from raftspec.tracing import Transition
from raftspec.types import VALUE, Record, Type
from raftworthy.explore.model import Model
from raftworthy.generated import World
from raftworthy.prove.logic import Truth, Value
from raftworthy.prove.shapes import Ranges, Shapes
from raftworthy.prove.terms import Environment, Terms, Variables


class Sent(NamedTuple):
    """A message that a step sends, if a condition holds."""

    condition: Truth
    kind: type[Record]
    fields: tuple[Value, ...]


class Taken(NamedTuple):
    """What an action does to a state: whether its guards let it, whether what comes of it has a place."""

    possible: Truth
    fits: Truth
    after: Variables
    sends: tuple[Sent, ...]


class Machine:
    """A compiled specification's actions and properties over Z3 terms.

    A step is possible if its guards and the bounds' hold, and fits if its end has a place. With `rules`,
    named rules stay in the expressions, so that they can be switched.
    """

    def __init__(self, model: Model, rules: bool = False) -> None:
        self.model = model
        self.spec = model.spec
        generated = model.generated
        self.tracer = generated.tracer
        graph = self.tracer.graph
        self.transitions: dict[str, Transition] = {}
        for name, t in generated.transitions.items():
            self.transitions[name] = t if rules else t.but(graph.without_rules)
        self.claims = {name: graph.without_rules(n) for name, n in generated.claims.items()}
        roots = [n for t in self.transitions.values() for n in t.roots()] + list(self.claims.values())
        probe = Shapes(model.bounds, generated.structs, 16)
        width = Ranges(probe).width(roots)
        self.shapes = Shapes(model.bounds, generated.structs, width)
        self.logic = self.shapes.logic
        self.ranges = Ranges(self.shapes)
        self.carried = min(model.bounds.entries, model.bounds.max_log)

    # --- unknown and known states ---

    def state(self, name: str) -> tuple[Variables, list[Truth]]:
        """An unknown state within bounds, and what makes it one."""
        rules: list[Truth] = []

        def fresh(types: Mapping[str, Type], of: str) -> dict[str, Value]:
            made = {f: self.shapes.fresh(t, f"{name}.{of}.{f}") for f, t in types.items()}
            rules.extend(c for _, more in made.values() for c in more)
            return {f: x for f, (x, _) in made.items()}

        servers = tuple(fresh(self.spec.server.types(), i) for i in self.shapes.servers)
        return Variables(servers, fresh(self.spec.history.types(), "past")), rules

    def known(self, world: World) -> Variables:
        """A state of the Python back end."""

        def encoded(types: Mapping[str, Type], values: Any) -> dict[str, Value]:
            return {f: self.shapes.encode(t, getattr(values, f)) for f, t in types.items()}

        servers = (encoded(self.spec.server.types(), v) for v in world.variables.values())
        return Variables(tuple(servers), encoded(self.spec.history.types(), world.past))

    def world(self, model: z3.ModelRef, s: Variables, messages: Iterable[Any] = ()) -> World:
        """The Python back end's state that a state is in a model."""
        out = self.model.generated.initial()
        types = (self.spec.server.types(), self.spec.history.types())
        groups = [(types[0], v, have) for v, have in zip(out.variables.values(), s.servers, strict=True)]
        for of, values, have in (*groups, (types[1], out.past, s.past)):
            for f, t in of.items():
                setattr(values, f, self.shapes.decode(t, self.shapes.seen(model, have[f])))
        out.messages = frozenset(messages)
        return out

    # --- parameters and messages ---

    def parameters(self, types: Mapping[str, Type], name: str) -> tuple[dict[Any, Value], list[Truth]]:
        """Unknown values for an action's or a property's parameters; a message's fields by class and name."""
        environment: dict[Any, Value] = {}
        rules: list[Truth] = []
        for p, t in types.items():
            if t.cls is not None and t.kind == "record":
                for f, ft in t.cls.types().items():
                    environment[t.cls, f], more = self.shapes.fresh(ft, f"{name}.{p}.{f}", self.carried)
                    rules += more
            else:
                environment[p], more = self.shapes.fresh(t, f"{name}.{p}")
                rules += more
                if t == VALUE:  # 0 is no command
                    rules.append(self.logic.less(0, environment[p]))
        return environment, rules

    def given(self, types: Mapping[str, Type], params: Iterable[Any]) -> dict[Any, Value]:
        """Known values for parameters, from those of the Python back end."""
        environment: dict[Any, Value] = {}
        for (p, t), x in zip(types.items(), params, strict=True):
            if t.cls is not None and t.kind == "record":
                for f, ft in t.cls.types().items():
                    environment[t.cls, f] = self.shapes.encode(ft, getattr(x, f), self.carried)
            else:
                environment[p] = self.shapes.encode(t, x)
        return environment

    def chosen(self, model: z3.ModelRef, types: Mapping[str, Type], environment: Environment) -> list[Any]:
        """The Python back end's values that parameters have in a model."""
        out = []
        for p, t in types.items():
            if t.cls is not None and t.kind == "record":
                fields = tuple(environment[t.cls, f] for f in t.cls.types())
                out.append(self.message(model, t.cls, fields))
            else:
                out.append(self.shapes.decode(t, self.shapes.seen(model, environment[p])))
        return out

    def message(self, model: z3.ModelRef, kind: type[Record], fields: Iterable[Value]) -> Any:
        """The Python back end's message that these fields are in a model."""
        types = kind.types().values()
        values = [
            self.shapes.decode(t, self.shapes.seen(model, x)) for t, x in zip(types, fields, strict=True)
        ]
        struct = self.model.generated.structs[kind]
        return struct(*(tuple(x) if isinstance(x, list) else x for x in values))

    # --- steps ---

    def take(self, action: str, s: Variables, environment: Environment, terms: Terms | None = None) -> Taken:
        """What an action with these parameters makes of a state."""
        t, shapes, logic = self.transitions[action], self.shapes, self.logic
        terms = terms or self.terms(s)
        possible = logic.both(*(terms.value(g.condition, environment) for g in t.guards))
        server = terms.value(t.server, environment)
        fits: list[Truth] = []
        servers = [dict(v) for v in s.servers]
        past = dict(s.past)
        for f, n in t.updates.items():
            new = terms.value(n, environment)
            fits.append(shapes.within(n.type, new))
            new = shapes.cut(n.type, new)
            for k, v in enumerate(servers, 1):
                v[f] = logic.where(logic.same(server, k), new, v[f])
        for f, n in t.history.items():
            new = terms.value(n, environment)
            fits.append(shapes.within(n.type, new))
            past[f] = shapes.cut(n.type, new)
        sends = []
        for send in t.sends:
            condition = terms.value(send.condition, environment)
            fields = []
            for n in send.fields:
                x = terms.value(n, environment)
                fits.append(logic.either(logic.no(condition), shapes.within(n.type, x, self.carried)))
                fields.append(shapes.cut(n.type, x, self.carried))
            sends.append(Sent(condition, send.message, tuple(fields)))
        return Taken(possible, logic.both(*fits), Variables(tuple(servers), past), tuple(sends))

    def terms(self, *states: Variables) -> Terms:
        """What computes expressions over these states."""
        return Terms(self.shapes, *states, ranges=self.ranges)

    def changes(self, action: str) -> tuple[frozenset[tuple[str, str]], frozenset[type[Record]]]:
        """Which variables an action changes, as ("get" or "past", name), and which messages it sends."""
        t = self.transitions[action]
        changed = {("get", f) for f in t.updates} | {("past", f) for f in t.history}
        return frozenset(changed), frozenset(s.message for s in t.sends)

    def reads(self, claim: Node) -> frozenset[tuple[str, str]]:
        """Which variables an expression reads."""
        return frozenset((n.op, n.attr[0]) for n in postorder(claim) if n.op in ("get", "past"))

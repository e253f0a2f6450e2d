"""Is the invariant kept by every step, for any number of servers, any terms and logs of any length?

s  the state before the step     x  a claim's parameters
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import z3

from raftspec.anynumber import EACH, AnyNumber
from raftspec.graph import Node, free_variables, postorder
from raftspec.invariant import CONJUNCTS, with_witnesses
from raftspec.mutants import Mutant
from raftspec.properties import BY_POLICY, raft
from raftspec.spec import Property
from raftspec.tracing import Transition
from raftspec.types import Message, Type
from raftworthy.prove.unbounded import values as v
from raftworthy.prove.unbounded.formulas import Clause, Clauses, Formula, both, either, every, implies, no
from raftworthy.prove.unbounded.terms import Environment, Named, State, Terms, before
from raftworthy.prove.unbounded.values import QUORUM_SORT, SERVER_SORT, Value
from raftworthy.prove.inductive import LEFT_OUT, NO_STEP, Question, message_of


# That there is a majority at all: an assumption that few claims need, so it stands with the hypotheses.
QUORUM = "all servers are a majority"


@dataclass(frozen=True)
class Step:
    """An action from the state: what lets it happen, the state after it, and the messages it sends."""

    environment: Environment
    assumed: Formula
    after: State
    sends: tuple[tuple[type[Message], Callable[[Any], tuple[Formula, tuple[Value, ...]]], bool], ...]
    named: Named


class Unbounded:
    """The questions for a specification of Raft of any size."""

    def __init__(self, without: Iterable[str] = (), mutant: Mutant | None = None) -> None:
        self.without = frozenset(without) | (mutant.without if mutant else frozenset())
        spec = with_witnesses(mutant.apply(raft) if mutant else raft)
        self.spec = spec
        self.tracer = tracer = AnyNumber(spec, self.without)
        graph = tracer.graph
        self.transitions = {
            name: tracer.transition(a).but(graph.without_rules) for name, a in spec.actions.items()
        }
        self.properties = {n: p for n, p in spec.properties.items() if n not in LEFT_OUT}
        self.claims = {
            n: graph.without_rules(tracer.property(p.claim, p.states, p.params))
            for n, p in self.properties.items()
        }
        self.clauses = Clauses()
        self.named = Named(self.clauses)
        types = spec.server.types()
        self._symbols = {f: v.unknown(t, f, SERVER_SORT) for f, t in types.items()}
        past = {f: v.unknown(t, f)() for f, t in spec.history.types().items()}
        self.s = State(self._symbols, past, "set")
        self.hypotheses: dict[str, list[Clause]] = {
            name: self.clauses.of(self._universal(name, p))
            for name, p in CONJUNCTS.items()
            if not message_of(p)
        }
        self.hypotheses[QUORUM] = self.clauses.of(v.quorum(v.EVERYBODY))
        self.always = [
            c
            for f in (self._typed(self.s), quorums_intersect(), none_is_before_itself())
            for c in self.clauses.of(f)
        ]
        self._steps: dict[str, Step] = {}

    def _typed(self, s: State) -> Formula:
        out = [
            every(SERVER_SORT, lambda i, f=f, t=t: v.typed(t, s.servers[f](i)), "i")  # type: ignore[misc]
            for f, t in self.spec.server.types().items()
            if v.typed(t, s.servers[f](v.NO_SERVER)) is not True
        ]
        return both(*out, *(v.typed(t, s.past[f]) for f, t in self.spec.history.types().items()))

    def _universal(self, name: str, p: Property) -> Formula:
        """A conjunct for every value of its parameters."""
        todo = list(p.params.items())

        def rest(k: int, environment: Environment) -> Formula:
            if k == len(todo):
                return Terms(self.named, self.s, environment=environment).value(self.claims[name])
            param, t = todo[k]
            return every(v.sort_of(t), lambda x: rest(k + 1, {**environment, param: x}), param)

        return rest(0, {})

    def _parameters(self, types: Mapping[str, Type], prefix: str) -> tuple[dict[Any, Value], Formula]:
        """Unknown values for parameters; a message's fields by class and name."""
        out: dict[Any, Value] = {}
        typed = []
        for p, t in types.items():
            fields = {(t.cls, f): ft for f, ft in t.cls.types().items()} if t.kind == "record" else {p: t}
            for key, ft in fields.items():
                name = key if isinstance(key, str) else f"{p}.{key[1]}"
                out[key] = v.unknown(ft, f"{prefix}.{name}")()
                typed.append(v.typed(ft, out[key]))
        return out, both(*typed)

    def step(self, action: str) -> Step:
        if action not in self._steps:
            self._steps[action] = self._step(self.transitions[action])
        return self._steps[action]

    def _step(self, t: Transition) -> Step:
        environment, typed = self._parameters(t.action.params, "p")
        named = Named(self.clauses)
        w = Terms(named, self.s, environment=environment)
        assumed = [typed, *(w.value(g.condition) for g in t.guards)]
        kind = t.action.message
        if kind:
            assumed.append(self._about(kind, environment, named))
        server = w.value(t.server)
        servers = dict(self.s.servers)
        for f, n in t.updates.items():
            new, old = w.value(n), self.s.servers[f]
            servers[f] = lambda j, new=new, old=old: w.where(v.same(j, server), new, old(j))  # type: ignore[misc]
        past = {**self.s.past, **{f: w.value(n) for f, n in t.history.items()}}
        sends = []
        for send in t.sends:
            roots = (send.condition, *send.fields)

            def sent(j: Any, roots: tuple[Node, ...] = roots) -> tuple[Formula, tuple[Value, ...]]:
                inside = w.inside(EACH, j)
                condition, *fields = map(inside.value, roots)
                return condition, tuple(fields)

            sends.append((send.message, sent, any(EACH in free_variables(n) for n in roots)))
        return Step(environment, both(*assumed), State(servers, past), tuple(sends), named)

    def _about(self, kind: type[Message], environment: Environment, named: Named) -> Formula:
        """What the invariant says of a message that was sent."""
        w = Terms(named, self.s, environment=environment)
        return both(*(w.value(self.claims[n]) for n, p in CONJUNCTS.items() if message_of(p) is kind))

    def questions(self) -> list[Question]:
        out = []
        for action, t in self.transitions.items():
            changed = {("get", f) for f in t.updates} | {("past", f) for f in t.history}
            sent = {s.message for s in t.sends}
            for name, p in self.properties.items():
                if p.states == 1 and name not in CONJUNCTS:
                    continue
                reads = {(n.op, n.attr[0]) for n in postorder(self.claims[name]) if n.op in ("get", "past")}
                if reads & changed or message_of(p) in sent:
                    out.append(Question(action, name))
        states = (n for n, p in self.properties.items() if p.states == 1 and n not in CONJUNCTS)
        return out + [Question(NO_STEP, name) for name in states]

    def goal(self, question: Question) -> tuple[Formula, Step | None, Named]:
        """What has to be refuted: the claim is wrong after the step."""
        p = self.properties[question.claim]
        environment, typed = self._parameters(p.params, "x")
        named = Named(self.clauses)
        step = self.step(question.action) if question.action != NO_STEP else None
        states = (self.s,) if step is None else (step.after,) if p.states == 1 else (self.s, step.after)
        w = Terms(named, *states, environment=environment)
        parts = [typed, no(w.value(self.claims[question.claim]))]
        kind = message_of(p)
        if kind and step:
            old = self._about(kind, environment, named)
            x = [environment[kind, f] for f in kind.types()]
            new = []
            for sent_kind, sent, each in step.sends:
                if sent_kind is kind:
                    target = environment[kind, "target"] if each else v.NO_SERVER
                    condition, fields = sent(target)
                    new.append(both(condition, *(same_value(a, b) for a, b in zip(fields, x, strict=True))))
            parts.append(either(old, *new))
        return both(*parts), step, named

    def ask(self, question: Question, keep=None, seed: int = 0, rlimit: int = 3000000, core: bool = False):
        goal, step, named = self.goal(question)
        prefix = self.clauses.prefix
        facts = self.clauses.of(goal) + named.definitions + self.named.definitions
        if step:
            facts += self.clauses.of(step.assumed) + step.named.definitions
        solver = z3.Solver()
        solver.set(rlimit=rlimit, mbqi=False, auto_config=False, random_seed=seed)
        for k, c in enumerate(self.always):
            solver.add(c.term(f"always{k}"))
        for name, cs in self.clauses.defined.items():
            for k, c in enumerate(cs):
                solver.add(c.term(f"{name}_{k}"))
        for k, c in enumerate(facts):
            solver.add(c.term(f"fact{k}"))
        for name, cs in self.hypotheses.items():
            if keep is None or name in keep:
                for k, c in enumerate(cs):
                    solver.add(c.term(f"{name[:3]}_{k}"))
        began = time.process_time()
        found = solver.check()
        return str(found), time.process_time() - began, solver


def same_value(a: Value, b: Value) -> Formula:
    """Equality of message fields, sequences entry by entry."""
    if isinstance(a, v.Entries):
        return both(a.length == b.length, every(v.NUMBER_SORT, lambda k: v.same(a.at(k), b.at(k)), "k"))
    return v.same(a, b)


def quorums_intersect() -> Formula:
    """Any two majorities share a server. It is all that is assumed of majorities."""

    def claim(p: Any, q: Any) -> Formula:
        meet = v.shared(p, q)
        return implies(both(v.quorum(p), v.quorum(q)), both(v.member(meet, p), v.member(meet, q)))

    return every(QUORUM_SORT, lambda p: every(QUORUM_SORT, lambda q: claim(p, q), "q"), "q")


def none_is_before_itself() -> Formula:
    """All that is assumed of the order in which servers are named."""
    return every(SERVER_SORT, lambda i: no(before(i, i)), "i")

"""Is the invariant kept by every step, for any number of servers, any terms and logs of any length?

s  the state before the step     x  a claim's parameters
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import z3

from raftspec.anynumber import EACH, AnyNumber
from raftspec.claims import RANKS
from raftspec.extensions import having
from raftspec.graph import postorder
from raftspec.invariant import conjuncts, lemmas, with_witnesses
from raftspec.mutants import Mutant
from raftspec.spec import Property
from raftspec.tracing import Send, Transition
from raftspec.types import SERVER, VALUE, Message, Type
from raftworthy.explore.broken_steps import NO_STEP, Question
from raftworthy.prove.inductive import LEFT_OUT, message_of
from raftworthy.prove.unbounded import values as v
from raftworthy.prove.unbounded.formulas import Clause, Clauses, Formula, both, either, every, implies, no
from raftworthy.prove.unbounded.naming import Named
from raftworthy.prove.unbounded.terms import Environment, State, Terms, before
from raftworthy.prove.unbounded.values import QUORUM_SORT, SERVER_SORT, Value

# That there is a majority at all: an assumption that few claims need, so it stands with the hypotheses.
QUORUM = "all servers are a majority"


AT_FIRST = "at first"  # instead of an action: the initial state
NATURAL = "numbers are natural"


class Sent(NamedTuple):
    """A message that a step sends: for a server that stands for each, if it is sent, and its fields."""

    kind: type[Message]
    made: Callable[[Any], tuple[Formula, list[Value]]]


@dataclass(frozen=True)
class Step:
    """An action from the state: what lets it happen, the state after it, and the messages it sends."""

    environment: Environment
    assumed: Formula
    after: State
    sends: tuple[Sent, ...]
    named: Named
    about: Mapping[str, Formula]  # what the conjuncts say of the message received
    changed: Mapping[str, z3.BoolRef]  # by number that the step's server has: whether it becomes another


class Unbounded:
    """The questions for a specification of Raft of any size."""

    def __init__(
        self, without: Iterable[str] = (), mutant: Mutant | None = None, extensions: Iterable[str] = ()
    ) -> None:
        self.mutant = mutant
        self.without = frozenset(without) | (mutant.without if mutant else frozenset())
        self.extensions = (*extensions, *(mutant.extensions if mutant else ()))
        spec = having(*self.extensions)
        self.conjuncts = conjuncts(spec)
        self.lemmas = lemmas(spec)
        spec = with_witnesses(mutant.apply(spec) if mutant else spec)
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
        past = {f: v.unknown(t, self.of_history(f))() for f, t in spec.history.types().items()}
        self.s = State(self._symbols, past, "set")
        self.hypotheses: dict[str, list[Clause]] = {
            name: self.clauses.of(self._universal(name, p))
            for name, p in {**self.conjuncts, **self.lemmas}.items()
            if not message_of(p)
        }
        self.hypotheses[QUORUM] = self.clauses.of(v.quorum(v.EVERYBODY))
        self.always = [
            c
            for f in (self._typed(self.s), *self._majorities(), none_is_before_itself())
            for c in self.clauses.of(f)
        ]
        first_server, first_past = spec.server(), spec.history()
        self.first = State(
            {f: always(v.known(t, getattr(first_server, f))) for f, t in types.items()},
            {f: v.known(t, getattr(first_past, f)) for f, t in spec.history.types().items()},
        )
        self._steps: dict[str, Step] = {}
        self._facts: dict[str, list[z3.BoolRef]] = {}
        self._told: dict[str, int] = {}  # how many of a step's definitions are among these
        self._terms: dict[str, list[z3.BoolRef]] = {}
        self._shared: frozenset[str] = frozenset()
        self._below: dict[tuple[str, str], list[z3.BoolRef]] = {}
        self._of_message: dict[str, dict[str, list[z3.BoolRef]]] = {}

    def of_history(self, f: str) -> str:
        """What one of history's variables is called here: servers may have one of the same name."""
        return f"past.{f}" if f in self.spec.server.types() else f

    def _majorities(self) -> Iterable[Formula]:
        yield quorums_intersect()
        if "membership" in self.spec.extensions:
            yield majorities_intersect()

    def _typed(self, s: State) -> Formula:
        out = [
            every(SERVER_SORT, lambda i, f=f, t=t: v.typed(t, s.servers[f](i)), "i")  # type: ignore[misc]
            for f, t in self.spec.server.types().items()
            if v.typed(t, s.servers[f](v.NO_SERVER)) is not True
        ]
        return both(*out, *(v.typed(t, s.past[f]) for f, t in self.spec.history.types().items()))

    def _universal(
        self, name: str, p: Property, below: Sequence[Any] = (), of: Terms | None = None
    ) -> Formula:
        """A conjunct for every value of its parameters: of their types, as it is proved of no others.

        With `below`, only where a lemma's rank is smaller than this one. If it is about a message, about that
        which is known where `of` computes.
        """
        todo = [(param, t) for param, t in p.params.items() if t.kind != "record"]
        of = of or Terms(self.named, self.s)

        def rest(k: int, w: Terms) -> Formula:
            if k == len(todo):
                value = w.value(self.claims[name])
                return implies(smaller(ranked(name, w.environment), below), value) if below else value
            param, t = todo[k]

            def claim(x: Any) -> Formula:
                known = {**w.environment, param: x}
                return implies(v.typed(t, x), rest(k + 1, Terms(w.named, self.s, environment=known)))

            return every(v.sort_of(t), claim, param)

        return rest(0, of)

    def _parameters(self, types: Mapping[str, Type], prefix: str) -> tuple[dict[Any, Value], Formula]:
        """Unknown values for parameters; a message's fields by class and name."""
        out: dict[Any, Value] = {}
        typed = []
        for p, t in types.items():
            fields: dict[Any, Type] = {p: t}
            if t.cls is not None and t.kind == "record":
                fields = {(t.cls, f): ft for f, ft in t.cls.types().items()}
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
        given = (environment[p] for p, kind in t.action.params.items() if kind == VALUE)
        typed = both(typed, *(x != v.NOTHING for x in given))  # "none" is no command
        named = Named(self.clauses)
        w = Terms(named, self.s, environment=environment)
        assumed = [typed, *(w.value(g.condition) for g in t.guards)]
        kind = t.action.message
        said = {n: p for n, p in self.conjuncts.items() if kind and message_of(p) is kind}
        about = {n: self._universal(n, p, of=w) for n, p in said.items()}
        server = w.value(t.server)
        servers = dict(self.s.servers)
        changed = {}
        for f, n in t.updates.items():
            new, old = w.value(n), self.s.servers[f]
            if self.spec.server.types()[f].kind == "num":
                changed[f] = new != old(server)
            servers[f] = lambda j, new=new, old=old: w.where(v.same(j, server), new, old(j))  # type: ignore[misc]
        past = {**self.s.past, **{f: w.value(n) for f, n in t.history.items()}}
        sends = []
        for send in t.sends:

            def made(j: Any, send: Send = send) -> tuple[Formula, list[Value]]:
                inside = w.inside(EACH, j)
                return inside.value(send.condition), [inside.value(n) for n in send.fields]

            sends.append(Sent(send.message, made))
        return Step(environment, both(*assumed), State(servers, past), tuple(sends), named, about, changed)

    def of_kind(self, claim: str) -> frozenset[str]:
        """The conjuncts about the same kind of messages as a claim; none if it is about no message."""
        kind = message_of(self.properties[claim]) if claim in self.properties else None
        return frozenset(n for n, p in self.conjuncts.items() if kind and message_of(p) is kind)

    def questions(self) -> list[Question]:
        """Every claim with the initial state and with every action that could make it wrong."""
        out = [Question(AT_FIRST, n) for n, p in self.conjuncts.items() if not message_of(p)]
        out.append(Question(AT_FIRST, NATURAL))
        for action, t in self.transitions.items():
            changed = {("get", f) for f in t.updates} | {("past", f) for f in t.history}
            sent = {s.message for s in t.sends}
            for name, p in self.properties.items():
                if p.states == 1 and name not in self.conjuncts:
                    continue
                reads = {(n.op, n.attr[0]) for n in postorder(self.claims[name]) if n.op in ("get", "past")}
                if reads & changed or message_of(p) in sent:
                    out.append(Question(action, name))
            out.append(Question(action, NATURAL))
        # Of two states: that a step which changes nothing that is read doesn't break it, either.
        return out + [Question(NO_STEP, name) for name in self.properties if name not in self.conjuncts]

    def _goal(self, question: Question, assumed: Collection[str]) -> tuple[Formula, Named]:
        """What has to be refuted: that the claim is wrong after the step, or in the state without one.

        Of a message that was sent before, the claim itself may be assumed, and conjuncts that are named.
        """
        named = Named(self.clauses)
        step = self.step(question.action) if question.action in self.transitions else None
        after = step.after if step else self.first if question.action == AT_FIRST else self.s
        if question.claim == NATURAL:
            wrong = [no(self._typed(after))]
            for send in step.sends if step else ():
                target = v.unknown(SERVER, "x.target")()
                condition, fields = send.made(target)
                types = send.kind.types().values()
                wrong.append(both(condition, no(both(*map(v.typed, types, fields)))))
            return either(*wrong), named
        p = self.properties[question.claim]
        environment, typed = self._parameters(p.params, "x")
        states = (after,) if p.states == 1 else (self.s, after)
        claim = Terms(named, *states, environment=environment).value(self.claims[question.claim])
        parts = [typed, no(claim)]
        kind = message_of(p)
        if kind and step:
            x = [environment[kind, f] for f in kind.types()]
            new = []
            for send in step.sends:
                if send.kind is kind:
                    condition, fields = send.made(environment[kind, "target"])
                    new.append(both(condition, *map(same_value, fields, x)))
            before = Terms(named, self.s, environment=environment)
            about = sorted(n for n in self.of_kind(question.claim) if n in assumed or n == question.claim)
            said = (self._universal(n, self.properties[n], of=before) for n in about)
            parts.append(either(both(*said), *new))
        return both(*parts), named

    def cases(self, question: Question) -> list[list[z3.BoolRef]]:
        """Conditions that together cover every step: which numbers that the claim reads become others."""
        if question.action not in self.transitions or question.claim not in self.claims:
            return [[]]
        read = {n.attr[0] for n in postorder(self.claims[question.claim]) if n.op == "get"}
        new = [c for f, c in self.step(question.action).changed.items() if f in read]
        return [list(case) for case in itertools.product(*((z3.Not(c), c) for c in new))]

    def facts(self, question: Question, assumed: Collection[str] = ()) -> list[z3.BoolRef]:
        """What a question says beside what is assumed of every question about its action."""
        self.assumptions()
        self.assumed(question.action)
        goal, named = self._goal(question, assumed)
        clauses = self.clauses.of(goal) + named.definitions
        for name, cs in self.clauses.defined.items():
            if name not in self._shared:
                clauses += cs
        return [c.term() for c in clauses + self._late(question.action)]

    def _late(self, action: str) -> list[Clause]:
        """What got its name only when a claim was made of the state after the step."""
        return self._steps[action].named.definitions[self._told[action] :] if action in self._steps else []

    def assumed(self, action: str) -> list[z3.BoolRef]:
        """What is assumed of every question about an action."""
        if action not in self._facts:
            clauses = list(self.always)
            if action in self.transitions:
                step = self.step(action)
                clauses += self.clauses.of(step.assumed) + step.named.definitions
                self._told[action] = len(step.named.definitions)
            self._facts[action] = [c.term() for c in clauses]
        return self._facts[action]

    def of_message(self, action: str) -> dict[str, list[z3.BoolRef]]:
        """What may be assumed of the message that an action receives, by conjunct."""
        if action not in self._of_message:
            about = self.step(action).about if action in self.transitions else {}
            self._of_message[action] = {n: [c.term() for c in self.clauses.of(f)] for n, f in about.items()}
        return self._of_message[action]

    def goes_by(self, question: Question) -> list[str]:
        """The lemmas that the proof of a lemma may assume by induction: where their ranks are smaller."""
        ranks = len(RANKS.get(question.claim, ())) if question.action == NO_STEP else 0
        return [n for n in self.lemmas if ranks and len(RANKS.get(n, ())) == ranks]

    def below(self, claim: str, lemma: str) -> list[z3.BoolRef]:
        """A lemma where its rank is smaller than that of a claim."""
        if (claim, lemma) not in self._below:
            environment, _ = self._parameters(self.properties[claim].params, "x")
            known = self._universal(lemma, self.lemmas[lemma], ranked(claim, environment))
            self._below[claim, lemma] = [c.term() for c in self.clauses.of(known)]
        return self._below[claim, lemma]

    def assumptions(self) -> dict[str, list[z3.BoolRef]]:
        """What may be assumed of a state of the invariant, by conjunct; what they share is under ""."""
        if not self._terms:
            self._shared = frozenset(self.clauses.defined)
            shared = [c for cs in self.clauses.defined.values() for c in cs] + self.named.definitions
            self._terms = {"": [c.term() for c in shared]}
            self._terms |= {name: [c.term() for c in cs] for name, cs in self.hypotheses.items()}
        return self._terms


def ranked(lemma: str, environment: Environment) -> list[Any]:
    """A lemma's rank: natural numbers."""
    return [z3.IntVal(x) if isinstance(x, int) else environment[x] for x in RANKS.get(lemma, ())]


def smaller(a: Sequence[Any], b: Sequence[Any]) -> Formula:
    """Whether of two ranks the first number that differs is smaller in the first."""
    out: Formula = False
    for x, y in zip(reversed(a), reversed(b), strict=True):
        out = z3.simplify(z3.Or(x < y, z3.And(x == y, out)))
    return out


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


def majorities_intersect() -> Formula:
    """Majorities of two crowds, with nobody from outside, share a server if these differ by at most one.

    It is all that is assumed of majorities where it depends on the configuration who votes.
    """

    def strange(q: Any, c: Any) -> Formula:
        j = v.stranger(q, c)
        return both(v.member(j, q), no(v.inside(j, c)))

    def differ(j: Any, c: Any, d: Any) -> Formula:
        return no(v.same(v.inside(j, c), v.inside(j, d)))

    def claim(p: Any, c: Any, q: Any, d: Any) -> Formula:
        meet, i, j = v.shared(p, q), v.other(c, d), v.another(c, d)
        return either(
            no(v.most(p, c)),
            no(v.most(q, d)),
            both(v.member(meet, p), v.member(meet, q)),
            strange(p, c),
            strange(q, d),
            both(i != j, differ(i, c, d), differ(j, c, d)),
        )

    def of(q: str, c: str, body: Callable[[Any, Any], Formula]) -> Formula:
        return every(QUORUM_SORT, lambda x: every(v.CROWD_SORT, lambda y: body(x, y), c), q)

    return of("p", "c", lambda p, c: of("q", "d", lambda q, d: claim(p, c, q, d)))


def always(x: Value) -> Callable[[Any], Value]:
    """The same for every server."""
    return lambda j: x


def none_is_before_itself() -> Formula:
    """All that is assumed of the order in which servers are named."""
    return every(SERVER_SORT, lambda i: no(before(i, i)), "i")

"""Is the invariant kept by every step, from any state of fixed sizes, reachable or not?

One question for each action and each claim: is there a state that satisfies every conjunct of
`raftspec.invariant`, and a step from it after which the claim is wrong? Of a conjunct about messages
only two messages matter, the one received and the one that the conjunct is said to be wrong of, so
no set of messages is needed: a state with more of them has no other steps and no other claims.
The promises of `raftspec.properties` are claims too: about every state of the invariant, and every step.

    s  the state before the step     p  the action's parameters     x  those of the claim
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import z3

from raftspec.extensions import having
from raftspec.invariant import conjuncts, with_witnesses
from raftspec.mutants import Mutant
from raftspec.properties import BY_POLICY
from raftspec.rounds import ROUNDS, with_rounds
from raftspec.spec import Property
from raftspec.types import Message, Type
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.broken_steps import NO_STEP, Question
from raftworthy.explore.model import Model
from raftworthy.prove.logic import Truth
from raftworthy.prove.machine import Machine, Taken
from raftworthy.prove.terms import Environment, Terms, Variables

# No command is committed twice if no client sends one twice, and the clients are not in the state. What only
# Figure 2's policy makes true is no matter of safety.
LEFT_OUT = frozenset({"integrity"}) | BY_POLICY

TACTICS = ("simplify", "propagate-values", "solve-eqs", "bit-blast", "sat")


def solver(seconds: float | None = None) -> z3.Solver:
    """A solver for finite questions: all becomes one formula of conditions."""
    made = z3.Then(*TACTICS).solver()
    if seconds is not None:
        made.set("timeout", max(1, int(seconds * 1000)))
    return made


@dataclass(frozen=True)
class Answer:
    """`verdict` is kept, broken or undecided; `seconds` are of CPU time."""

    question: Question
    verdict: str
    seconds: float


@dataclass(frozen=True)
class Asked:
    """A question as formulas, and what they speak of; `said` is what each conjunct says of its messages."""

    question: Question
    formulas: list[Truth]
    said: list[tuple[str, Truth]]
    s: Variables
    p: Environment
    x: Environment


def message_of(p: Property) -> type[Message] | None:
    """The kind of message that a claim is about."""
    return next((t.cls for t in p.params.values() if t.kind == "record"), None)


class Induction:
    """The questions for Raft at fixed sizes. With `rounds` also about `raftspec.rounds`."""

    def __init__(
        self,
        bounds: Bounds,
        without: Iterable[str] = (),
        mutant: Mutant | None = None,
        rounds: bool = False,
    ) -> None:
        self.without = frozenset(without) | (mutant.without if mutant else frozenset())
        self.mutant = mutant
        self.rounds = rounds
        spec = having(*bounds.extensions, *(mutant.extensions if mutant else ()))
        self.conjuncts = conjuncts(spec) | (ROUNDS if rounds else {})
        spec = mutant.apply(spec) if mutant else spec
        spec = with_rounds(bounds.max_term, spec) if rounds else with_witnesses(spec)
        self.model = Model(spec, bounds, self.without)
        self.machine = Machine(self.model)
        self.logic = self.machine.logic
        self.properties = {n: p for n, p in spec.properties.items() if n not in LEFT_OUT}
        self.s, typed = self.machine.state("s")
        self.terms = self.machine.terms(self.s)
        self.typed = [c for c in typed if c is not True]
        self.invariant = {name: list(self.instances(p)) for name, p in self.conjuncts.items()}
        self.steps: dict[str, tuple[Environment, Taken, list[Truth]]] = {}
        self._computing: dict[tuple[int, ...], Terms] = {}

    def instances(self, p: Property, message: Environment | None = None) -> Iterator[Truth]:
        """A conjunct for every value of its parameters; if it is about a message, only of a known one."""
        if message_of(p) and message is None:
            return
        types = {name: t for name, t in p.params.items() if t.kind != "record"}
        values = [range(t.kind == "server", self.furthest(t) + 1) for t in types.values()]
        for params in itertools.product(*values):
            known = {**(message or {}), **dict(zip(types, params, strict=True))}
            claim = self.terms.value(self.machine.claims[p.name], known)
            if claim is not True:
                yield claim

    def furthest(self, t: Type) -> int:
        """The largest value of a parameter that a claim is about: no log reaches further, but clients may."""
        in_logs = t.name == "index" and "sessions" not in self.machine.spec.extensions
        return self.model.bounds.max_log if in_logs else self.machine.shapes.largest(t)

    def questions(self) -> list[Question]:
        """Every claim with every action that could make it wrong, conjuncts first."""
        out = []
        for action in self.machine.transitions:
            changed, sent = self.machine.changes(action)
            for name, p in self.properties.items():
                if p.states == 1 and name not in self.conjuncts:
                    continue
                if self.machine.reads(self.machine.claims[name]) & changed or message_of(p) in sent:
                    out.append(Question(action, name))
        states = (n for n, p in self.properties.items() if p.states == 1 and n not in self.conjuncts)
        return out + [Question(NO_STEP, name) for name in states]

    def step(self, action: str) -> tuple[Environment, Taken, list[Truth]]:
        """An action from the state: its parameters, what it does, and what its parameters can be."""
        if action not in self.steps:
            t = self.machine.transitions[action].action
            p, typed = self.machine.parameters(t.params, "p")
            taken = self.machine.take(action, self.s, p, self.terms)
            self.steps[action] = p, taken, typed
        return self.steps[action]

    def _about(self, kind: type[Message] | None, environment: Environment) -> Iterator[tuple[str, Truth]]:
        """What each conjunct says of a message that was sent."""
        for name, p in self.conjuncts.items():
            if kind and message_of(p) is kind:
                yield from ((name, c) for c in self.instances(p, environment))

    def _all(self, said: Iterable[tuple[str, Truth]]) -> Truth:
        return self.logic.both(*(c for _, c in said))

    def ask(self, question: Question) -> Asked:
        """The question as formulas: if they can be true together, the claim is broken."""
        wrong = self.wrong(question)
        assumed = [*self.typed, *itertools.chain(*self.invariant.values())]
        return replace(wrong, formulas=[*assumed, *wrong.formulas])

    def wrong(self, question: Question, told: bool = True) -> Asked:
        """That the claim is broken, without what the invariant says of the state before.

        What it says of messages is told as a whole, or else is in `said`, by conjunct.
        """
        property, claim = self.properties[question.claim], self.machine.claims[question.claim]
        x, typed = self.machine.parameters(property.params, "x")
        if question.action == NO_STEP:
            formulas = [*typed, self.logic.no(self.terms.value(claim, x))]
            return Asked(question, formulas, [], self.s, {}, x)
        p, taken, params = self.step(question.action)
        received = [*self._about(self.machine.transitions[question.action].action.message, p)]
        states = (taken.after,) if property.states == 1 else (self.s, taken.after)
        broken = self.logic.no(self._after(states).value(claim, x))
        formulas = [
            *typed,
            *params,
            *([self._all(received)] if told else []),
            taken.possible,
            taken.fits,
            broken,
        ]
        said = [] if told else received
        kind = message_of(property)
        if kind:
            sent = [
                self.logic.both(
                    m.condition,
                    *(self.logic.same(a, x[kind, f]) for a, f in zip(m.fields, kind.types(), strict=True)),
                )
                for m in taken.sends
                if m.kind is kind
            ]
            about = [*self._about(kind, x)]
            if told:
                formulas.append(self.logic.either(self._all(about), *sent))
            else:
                said += [(name, self.logic.either(c, *sent)) for name, c in about]
        return Asked(question, formulas, said, self.s, p, x)

    def _after(self, states: tuple[Variables, ...]) -> Terms:
        """What computes claims over a step's end, or over both its states."""
        key = tuple(map(id, states))
        if key not in self._computing:
            self._computing[key] = self.machine.terms(*states)
        return self._computing[key]

    def answer(self, question: Question, seconds: float | None = None) -> Answer:
        """Let Z3 decide; what it can't decide in time is undecided."""
        began = time.process_time()
        asked = self.ask(question)
        if any(c is False for c in asked.formulas):
            return Answer(question, "kept", time.process_time() - began)
        s = solver(seconds)
        s.add(*(c for c in asked.formulas if c is not True))
        found = s.check()
        verdict = "kept" if found == z3.unsat else "broken" if found == z3.sat else "undecided"
        return Answer(question, verdict, time.process_time() - began)

    def check(
        self,
        progress: Callable[[int, int], None] | None = None,
        first: bool = False,
        actions: Iterable[str] | None = None,
        claims: Iterable[str] | None = None,
    ) -> list[Answer]:
        """The answers to all questions, or up to the first that is broken."""
        wanted = [
            q
            for q in self.questions()
            if (actions is None or q.action in actions) and (claims is None or q.claim in claims)
        ]
        answers = []
        for number, question in enumerate(wanted):
            if progress:
                progress(number, len(wanted))
            answers.append(self.answer(question))
            if first and answers[-1].verdict == "broken":
                break
        return answers

    def not_at_first(self) -> list[str]:
        """The conjuncts that don't hold in the initial state."""
        first = self.model.generated.initial()
        return [name for name in self.conjuncts if not self.model.claim(name)(first)]

    def possible(self, action: str) -> bool:
        """Whether an action can be taken where something is committed and two terms had leaders.

        Otherwise all that is said of it would be said of nothing. Of two terms only, one has to have had one.
        """
        p, taken, params = self.step(action)
        received = self._all(self._about(self.machine.transitions[action].action.message, p))
        possible = [*params, received, taken.possible, taken.fits]
        leaders = min(2, self.model.bounds.max_term - 1)
        elected = [self.logic.no(self.logic.same(x, 0)) for x in self.s.past["leaders"].items]
        enough = self.logic.at_most(leaders, self.logic.count(elected))
        committed = self.logic.less(0, self.s.past["committed"].length)
        s = solver()
        s.add(
            *self.typed, *itertools.chain(*self.invariant.values()), *(c for c in possible if c is not True)
        )
        s.add(self.logic.truth(enough), self.logic.truth(committed))
        return bool(s.check() == z3.sat)

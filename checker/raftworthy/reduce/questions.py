"""Questions about single steps, answered by Z3 for all states within the bounds' sizes, reachable or not.

A question is put as what would refute it: if Z3 finds no such state and step, the answer is yes.

    s  a state     i  the server that takes a step     p  its parameters     m  the message it handles
    b, a  two steps of different servers, taken one after the other     f  a variable's name
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from raftspec.graph import Node, postorder
from raftspec.types import SERVER, Message, Type
from raftworthy.explore.model import Model
from raftworthy.prove.inductive import solver
from raftworthy.prove.logic import Number, Truth, Value, nothing_like
from raftworthy.prove.machine import Machine, Taken
from raftworthy.prove.terms import Environment, Terms, Variables
from raftworthy.reduce.meanings import changing, settled

import z3  # isort: skip  (the package above says what to do without it)


@dataclass(frozen=True)
class Taking:
    """A step of an action from a state: whether its parameters are of their types, and it can be taken."""

    action: str
    p: Environment
    i: Number
    taken: Taken
    sized: Truth
    possible: Truth


class Questions:
    """What can be asked about a model whose `properties` are checked."""

    def __init__(self, model: Model, properties: Iterable[str]) -> None:
        self.model = model
        self.machine = Machine(model)
        self.logic = self.machine.logic
        declared = model.spec.properties
        names = list(properties)
        self.state_properties = [p for p in names if declared[p].states == 1]
        self.step_properties = [p for p in names if declared[p].states == 2]
        self.transitions = self.machine.transitions = dict(settled(model, self.machine.transitions))
        self.changing = changing(self.transitions)
        self.kinds: tuple[type[Message], ...] = model.spec.messages
        self.handler = {t.action.message: name for name, t in self.transitions.items() if t.action.message}
        self._sizes: list[Truth] = []
        self.s, typed = self.machine.state("s")
        self._sized(typed)
        self._terms: dict[tuple[int, ...], Terms] = {}
        self._kept: list[Any] = []
        self._of_parameters: dict[int, Truth] = {}
        self._numbers = itertools.count()
        self.asked = 0
        assert not self.never(self.logic.same(1, self.number(SERVER))), "nothing is said of no state"
        # A step of each action from the state s.
        self.steps = {a: self.take(a, self.s, self.parameters(a)) for a in self.transitions}

    # --- the solver ---

    def never(self, *conditions: Truth) -> bool:
        """Whether Z3 proves that these can't hold together, for any values of their sizes."""
        together = self.logic.both(*conditions)
        if isinstance(together, bool):
            return not together
        self.asked += 1
        s = solver()
        s.add(self.logic.truth(self.logic.both(together, *self._sizes)))
        return bool(s.check() == z3.unsat)

    def refuted(self, common: Sequence[Truth], cases: Mapping[str, Truth]) -> str:
        """The first of these cases that can hold with what is common to them; empty if none can.

        All are asked about at once, since that is mostly the end of it.
        """
        if not cases or self.never(*common, self.logic.either(*cases.values())):
            return ""
        return next(
            (name for name, case in cases.items() if not self.never(*common, case)), next(iter(cases))
        )

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What unknown values are made inside are of no concern for later questions."""
        before = len(self._sizes)
        try:
            yield
        finally:
            del self._sizes[before:]

    def _sized(self, typed: Iterable[Truth]) -> None:
        """Note what makes unknown values ones of their types."""
        self._sizes.append(self.logic.both(*typed))

    # --- states, steps, parameters ---

    def terms(self, *states: Variables) -> Terms:
        """What computes expressions over these states."""
        key = tuple(map(id, states))
        if key not in self._terms:
            self._kept.append(states)  # so that no other state gets an id
            self._terms[key] = self.machine.terms(*states)
        return self._terms[key]

    def state(self) -> Variables:
        """Another unknown state."""
        s, typed = self.machine.state(f"s{next(self._numbers)}")
        self._sized(typed)
        return s

    def number(self, t: Type) -> Number:
        """An unknown number."""
        x, typed = self.machine.shapes.fresh(t, f"x{next(self._numbers)}")
        self._sized(typed)
        return x

    def server(self) -> Number:
        """An unknown server."""
        return self.number(SERVER)

    def parameters(self, action: str) -> dict[Any, Value]:
        """Unknown parameters of an action."""
        types = self.transitions[action].action.params
        p, typed = self.machine.parameters(types, f"p{next(self._numbers)}")
        # They may have no values at all, such as a command where there are none: then no step is possible,
        # but nothing is said of other steps.
        self._kept.append(p)
        self._of_parameters[id(p)] = self.logic.both(*typed)
        return p

    def take(self, action: str, s: Variables, p: Environment) -> Taking:
        """An action with these parameters from a state."""
        terms = self.terms(s)
        taken = self.machine.take(action, s, p, terms)
        i = terms.value(self.transitions[action].server, p)
        sized = self._of_parameters.get(id(p), True)
        return Taking(action, p, i, taken, sized, self.logic.both(sized, taken.possible, taken.fits))

    def own(self, s: Variables, i: Number, f: str) -> Value:
        """A variable of server i."""
        columns = [v[f] for v in s.servers]
        return self.logic.pick(columns, i, columns[-1], first=1)

    def with_own(self, s: Variables, i: Number, new: Mapping[str, Value]) -> Variables:
        """The state in which server i has these variables."""
        servers = [dict(v) for v in s.servers]
        for k, v in enumerate(servers, 1):
            for f, x in new.items():
                v[f] = self.logic.where(self.logic.same(i, k), x, v[f])
        return Variables(tuple(servers), s.past)

    @staticmethod
    def nothing(x: Value) -> Value:
        """The value of the same shape that says nothing."""
        return nothing_like(x)

    def holds(self, p: str, *states: Variables) -> Truth:
        """A property of a state, or of a step's two states."""
        return self.terms(*states).value(self.machine.claims[p])

    def reads(self, *roots: Node) -> frozenset[tuple[str, str]]:
        """Which variables expressions read, as ("get" or "past", name)."""
        return frozenset((n.op, n.attr[0]) for n in postorder(*roots) if n.op in ("get", "past"))

    def claimed(self, p: str) -> frozenset[tuple[str, str]]:
        """Which variables a property reads."""
        return self.reads(self.machine.claims[p])

    def same_effect(self, a: Taking, b: Taking, history: bool = True) -> Truth:
        """Two steps of one server leave it with the same variables, send the same, and record the same."""
        after = (
            self.logic.same(self.own(a.taken.after, a.i, f), self.own(b.taken.after, b.i, f))
            for f in self.model.spec.server.types()
        )
        past = self.same_past(a, b) if history else True
        return self.logic.both(*after, past, self.same_sends(a, b))

    def same_past(self, a: Taking, b: Taking) -> Truth:
        """Two steps leave the same history."""
        return self.logic.both(
            *(self.logic.same(x, b.taken.after.past[h]) for h, x in a.taken.after.past.items())
        )

    def same_sends(self, a: Taking, b: Taking) -> Truth:
        """Two steps of one action send the same messages."""
        logic = self.logic
        return logic.both(
            *(
                logic.both(
                    logic.same(x.condition, y.condition),
                    logic.either(logic.no(x.condition), logic.same(x.fields, y.fields)),
                )
                for x, y in zip(a.taken.sends, b.taken.sends, strict=True)
            )
        )

    def changes_nothing(self, a: Taking, s: Variables) -> Truth:
        """A step changes no variable, of its server or of history."""
        logic, t = self.logic, self.transitions[a.action]
        kept = (logic.same(self.own(a.taken.after, a.i, f), self.own(s, a.i, f)) for f in t.updates)
        past = (logic.same(a.taken.after.past[h], s.past[h]) for h in t.history)
        return logic.both(*kept, *past)

    def sends_nothing(self, a: Taking) -> Truth:
        return self.logic.both(*(self.logic.no(x.condition) for x in a.taken.sends))

    def to_itself(self, cls: type[Message]) -> str:
        """The action in which a server may send a message of this kind to itself; empty if there is none."""
        for name, a in self.steps.items():
            for x in a.taken.sends:
                ends = dict(zip(x.kind.types(), x.fields, strict=True))
                same = self.logic.same(ends["source"], ends["target"])
                if x.kind is cls and not self.never(a.possible, x.condition, same):
                    return name
        return ""

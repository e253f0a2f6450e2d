"""Bounded model checking: can a property be violated within so many steps from the initial state?

The steps are unrolled: a state for each, and one formula that says that each follows from the one before
by some action. A message that is received is one that an earlier step sent, so nothing bounds how many
there are. Good at short counterexamples, and no more: each further step costs more than all before.
What Z3 finds is taken again by the Python back end.

    k  a step's number     s  a state     p  an action's parameters
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import z3

from raftspec.extensions import having
from raftspec.mutants import Mutant
from raftspec.properties import BY_POLICY
from raftspec.types import SERVER, VALUE, Record, Type
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path, Violation
from raftworthy.prove.inductive import solver
from raftworthy.prove.logic import Truth, Value
from raftworthy.prove.machine import Machine, Sent
from raftworthy.prove.shapes import leaves
from raftworthy.prove.terms import Environment, Variables


@dataclass
class Reached:
    """What was found: the depth that is completed, and a violation if there is one."""

    completed: int = 0
    stopped: str = ""
    violation: Violation | None = None
    seconds: list[float] = field(default_factory=list)  # of each depth, CPU time


@dataclass(frozen=True)
class _Step:
    """A step of the unrolling: which action it is, with which parameters, and what that sends."""

    chosen: Mapping[str, z3.BoolRef]
    parameters: Mapping[str, Environment]
    sends: list[Sent]


class Unrolling:
    """States one after the other, from the initial one."""

    def __init__(self, model: Model, properties: Iterable[str] | None = None) -> None:
        self.model = model
        self.machine = Machine(model)
        self.logic = self.machine.logic
        declared = model.spec.properties
        default = [p for p in declared if not (model.without >= model.spec.policy and p in BY_POLICY)]
        self.properties = list(default if properties is None else properties)
        if unknown := [p for p in self.properties if p not in declared]:
            raise UnusableError(
                f"no property is called {', '.join(unknown)}; there are {', '.join(declared)}"
            )
        self.states = [self.machine.known(model.generated.initial())]
        self.steps: list[_Step] = []
        self.formulas: list[Truth] = []

    def extend(self) -> None:
        """One more step: some action, from the last state."""
        machine, logic, k = self.machine, self.logic, len(self.steps) + 1
        s = self.states[-1]
        terms = machine.terms(s)
        shared = _Shared(machine, k)
        chosen: dict[str, z3.BoolRef] = {}
        parameters: dict[str, Environment] = {}
        sends: list[Sent] = []
        t = s
        for action in machine.transitions:
            p = shared.parameters(action)
            commands = [
                p[name] for name, t in machine.transitions[action].action.params.items() if t == VALUE
            ]
            new = [logic.same(v, logic.plus(s.past["commands"], 1)) for v in commands]  # as in exploring
            taken = machine.take(action, s, p, terms)
            if taken.possible is False:
                continue
            here = chosen[action] = z3.Bool(f"{action}@{k}")
            parameters[action] = p
            kind = machine.transitions[action].action.message
            arrives = self._sent_before(kind, p) if kind else True
            self.formulas += [
                logic.either(logic.no(here), c)
                for c in (taken.possible, taken.fits, arrives, *new)
                if c is not True
            ]
            sends += [Sent(logic.both(here, m.condition), m.kind, m.fields) for m in taken.sends]
            t = where(machine, here, taken.after, t)
        self.formulas.append(logic.either(*chosen.values()))
        names = list(chosen.values())
        self.formulas += [logic.no(logic.both(a, b)) for n, a in enumerate(names) for b in names[n + 1 :]]
        self.formulas += shared.rules
        if k == 1:  # all servers are alike at first, so who begins is a matter of names
            self.formulas += [logic.same(shared.actor, 1)]
        fresh, typed = machine.state(f"s{k}")
        for a, b in zip(_parts(fresh), _parts(t), strict=True):
            self.formulas += [logic.same(x, y) for x, y in zip(leaves(a), leaves(b), strict=True)]
        self.formulas += typed
        self.states.append(fresh)
        self.steps.append(_Step(chosen, parameters, sends))

    def _sent_before(self, kind: type[Record], p: Environment) -> Truth:
        """Some earlier step sent the message that these parameters are."""
        fields = [p[kind, f] for f in kind.types()]
        return self.logic.either(
            *(
                self.logic.both(
                    m.condition, *(self.logic.same(a, b) for a, b in zip(m.fields, fields, strict=True))
                )
                for step in self.steps
                for m in step.sends
                if m.kind is kind
            )
        )

    def broken(self) -> dict[str, Truth]:
        """For each property, that the last state or step violates it."""
        one = self.machine.terms(self.states[-1])
        two = self.machine.terms(*self.states[-2:])
        out = {}
        for name in self.properties:
            terms = one if self.model.spec.properties[name].states == 1 else two
            out[name] = self.logic.no(terms.value(self.machine.claims[name]))
        return out

    def path(self, found: z3.ModelRef) -> Path:
        """What a model says, taken again by Python. ValueError where Python doesn't take a step."""
        taken = []
        for step in self.steps:
            action = next(
                a for a, c in step.chosen.items() if z3.is_true(found.eval(c, model_completion=True))
            )
            types = self.machine.transitions[action].action.params
            taken.append((action, tuple(self.machine.chosen(found, types, step.parameters[action]))))
        return self.model.repeat(self.model.generated.initial(), taken)


class _Shared:
    """The parameters of one step. Only one action is taken, so actions share unknowns of the same type."""

    def __init__(self, machine: Machine, k: int) -> None:
        self.machine, self.k = machine, k
        self.pool: dict[tuple[str, int], Value] = {}
        self.rules: list[Truth] = []
        self.actor = self._take(SERVER, 0)

    def _take(self, t: Type, number: int) -> Value:
        key = (f"{t}", number)
        if key not in self.pool:
            room = self.machine.carried
            self.pool[key], rules = self.machine.shapes.fresh(t, f"p{self.k}.{t}.{number}", room)
            self.rules += rules
        return self.pool[key]

    def parameters(self, action: str) -> dict[Any, Value]:
        """Unknown values for an action; the acting server is the same in all."""
        transition = self.machine.transitions[action]
        acting = transition.server.attr
        used: dict[str, int] = {"server": 1}
        out: dict[Any, Value] = {}
        for p, t in transition.action.params.items():
            of = t.cls.types().items() if t.cls is not None else [(None, t)]
            for f, ft in of:
                name = (t.cls, f) if f is not None else p
                if name == acting:
                    out[name] = self.actor
                    continue
                number = used.get(str(ft), 0)
                used[str(ft)] = number + 1
                out[name] = self._take(ft, number)
        return out


def where(machine: Machine, c: Truth, a: Variables, b: Variables) -> Variables:
    """State a if c, else b."""

    def mixed(x: Mapping[str, Value], y: Mapping[str, Value]) -> dict[str, Value]:
        return {f: x[f] if x[f] is y[f] else machine.logic.where(c, x[f], y[f]) for f in x}

    servers = tuple(mixed(x, y) for x, y in zip(a.servers, b.servers, strict=True))
    return Variables(servers, mixed(a.past, b.past))


def _parts(s: Variables) -> list[Value]:
    return [x for v in (*s.servers, s.past) for x in v.values()]


def reach(
    bounds: Bounds,
    depth: int,
    *,
    without: Iterable[str] = (),
    mutant: Mutant | None = None,
    properties: Iterable[str] | None = None,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reached:
    """Look for a violation in 1, 2, … `depth` steps, for at most so many seconds of wall-clock time.

    Raises:
        UnusableError: a rule or property is not known, or the bounds limit the number of messages.
    """
    if bounds.max_messages is not None:
        raise UnusableError("the number of messages can't be limited here; leave max_messages out")
    unrolling = Unrolling(Model(having(*bounds.extensions), bounds, without, mutant), properties)
    logic = unrolling.logic
    began = time.monotonic()
    out = Reached()
    for k in range(1, depth + 1):
        if progress:
            progress(k - 1, depth)
        cpu = time.process_time()
        left = None if seconds is None else seconds - (time.monotonic() - began)
        if left is not None and left <= 0:
            out.stopped = f"the time is up: {seconds:g} s"
            return out
        unrolling.extend()
        broken = unrolling.broken()
        s = solver(left)
        s.add(*(logic.truth(c) for c in unrolling.formulas if c is not True))
        s.add(logic.truth(logic.either(*broken.values())))
        found = s.check()
        out.seconds.append(time.process_time() - cpu)
        if found == z3.sat:
            model = s.model()
            path = unrolling.path(model)
            name = next(n for n, c in broken.items() if z3.is_true(model.eval(logic.truth(c), True)))
            states = [path.start, *(m.world for m in path.moves)][
                -unrolling.model.spec.properties[name].states :
            ]
            assert not unrolling.model.claim(name)(*states), (
                f"Python says that {name} holds after {path.moves}"
            )
            out.violation = Violation(name, unrolling.model.spec.properties[name].doc, path)
            out.stopped = "a property was violated"
            return out
        if found != z3.unsat:
            out.stopped = f"the time is up: {seconds:g} s"
            return out
        out.completed = k
    out.stopped = "every depth asked for was completed"
    return out

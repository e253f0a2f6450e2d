"""What a rule is there for: the specification without it, the shortest disaster, and the step it prevents.

An answer is data first; `telling` says it. Rules that nothing goes wrong without get the evidence for that.

    t  a state after a step     right, wrong  the specification with the rule, and without it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raftspec.extensions import WHOLE
from raftspec.mutants import MUTANTS, Mutant
from raftspec.spec import Rule, State
from raftspec.types import Type
from raftworthy.diagram import show
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.broken_steps import Counterexample
from raftworthy.explore.cases import EXTENSION_CASES, MUTANT_CASES, RULE_CASES, Case
from raftworthy.explore.choosing import explore_with
from raftworthy.explore.find import predicate
from raftworthy.explore.means import Means
from raftworthy.explore.model import Model
from raftworthy.explore.needless import EXTENSION_NEEDLESS, EXTENSION_WAITS, NEEDLESS, WAITS, Needless, Wait
from raftworthy.explore.paths import Move, Path, Result
from raftworthy.explore.unkept import first_unkept
from raftworthy.generated import Variables, World, to_spec
from raftworthy.native import NoPlaceError, available
from raftworthy.wording import Reader


@dataclass(frozen=True)
class Prevented:
    """The first step of a path that a rule prevents: which (from 1), and what happens to it with the rule."""

    step: int
    refused: str  # the guard that fails, and its values; empty if the step is only different
    instead: tuple[str, ...]  # what comes out otherwise


@dataclass(frozen=True)
class Disaster:
    """What goes wrong: a shortest path within the case, and where the rule would have stopped it."""

    case: Case
    beginning: int  # steps of the path that were given
    result: Result
    path: Path
    property: str
    prevented: Prevented


@dataclass(frozen=True)
class Explored:
    """An exploration without the rule that found nothing wrong, and how many states there are with it."""

    bounds: Bounds
    distinct: int
    with_rule: int | None


@dataclass(frozen=True)
class Waits:
    """What happens with the rule after so many steps, and never without it, though all was explored."""

    wait: Wait
    steps: int
    distinct: int


@dataclass(frozen=True)
class Answer:
    """Why a rule, or what is wrong with a mutant. Without any finding the question is undecided."""

    name: str
    rule: Rule | None
    mutant: Mutant | None
    disaster: Disaster | None = None
    waits: Waits | None = None
    needless: Needless | None = None
    explored: tuple[Explored, ...] = ()

    @property
    def decided(self) -> bool:
        return bool(self.disaster or self.waits or self.explored)

    @property
    def without(self) -> frozenset[str]:
        """The rules that are taken away."""
        return frozenset({self.name}) if self.mutant is None else self.mutant.without

    @cached_property
    def unkept(self) -> Counterexample | None:
        """What Raft's invariant lacks then: the smallest step that leaves it, from any state."""
        return first_unkept(self.name)


NAMES = (*WHOLE.rules, *MUTANTS)
FEW_STATES = 1_000  # are explored by Python before machine code for them is compiled


def why(name: str) -> Answer:
    """Explore the specification without a rule, or with a bug, where something is known to come of it.

    Raises:
        UnusableError: there is no such rule and no such mutant.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 3, 0.4)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UnusableError(f"no rule or mutant is called {name}{meant} `raftworthy rules` lists the rules")
    rule, mutant = WHOLE.rules.get(name), MUTANTS.get(name)
    blank = Answer(name, rule, mutant)
    cases, waits = {**RULE_CASES, **MUTANT_CASES, **EXTENSION_CASES}, {**WAITS, **EXTENSION_WAITS}
    case = cases.get(name)
    if case is not None:
        return Answer(name, rule, mutant, _disaster(blank, case, *_explored(case, blank.without, mutant)))
    if name in waits:
        return _waits(blank, waits[name])
    return _needless(blank, {**NEEDLESS, **EXTENSION_NEEDLESS}[name])


def _explored(
    case: Case, without: frozenset[str] = frozenset(), mutant: Mutant | None = None
) -> tuple[Result, int]:
    """What the reference explorer finds; where that takes long, what the native one does: as short a way.

    And how many steps the beginning has.
    """
    _, begun = made = case.begun(case.spec, without, mutant)
    first = case.explore(made=made, limit_states=FEW_STATES)
    if first.stopped.startswith("stopped") and available():
        from raftworthy.native.engine import explore_native  # imports llvmlite

        with suppress(NoPlaceError):
            return case.explore(made=made, explorer=explore_native, hopeless=lambda *_: False), len(begun)
    if first.stopped.startswith("stopped"):
        first = case.explore(made=made)
    return first, len(begun)


def _disaster(a: Answer, case: Case, result: Result, beginning: int) -> Disaster | None:
    if result.violation is None:
        return None
    path = result.violation.path
    prevented = prevention(path, beginning, case, a.without, a.mutant)
    return Disaster(case, beginning, result, path, result.violation.property, prevented)


def _waits(a: Answer, wait: Wait) -> Answer:
    there, never = _looked_for(wait, frozenset(), None), _looked_for(wait, a.without, a.mutant)
    if never.violation:
        _, begun = wait.case.begun(wait.case.spec, a.without, a.mutant)
        return Answer(a.name, a.rule, a.mutant, _disaster(a, wait.case, never, len(begun)))
    if there.witness is None or not never.exhausted:
        return a
    return Answer(a.name, a.rule, a.mutant, waits=Waits(wait, len(there.witness), never.distinct))


def _looked_for(wait: Wait, without: frozenset[str], mutant: Mutant | None) -> Result:
    """The shortest way to what is waited for, or that there is none; by the engine that is quicker."""
    find, _ = predicate(wait.good, wait.case.bounds.names)
    return explore_with(
        wait.case, "auto", text=wait.good, find=find, limit_states=None, counts=None, means=Means(),
        without=without, mutant=mutant, symmetry=False,
    )[0]  # fmt: skip


def _needless(a: Answer, needless: Needless) -> Answer:
    explored = []
    for bounds in needless.bounds:
        case = Case(bounds)
        result, beginning = _explored(case, a.without, a.mutant)
        if result.violation:
            return Answer(a.name, a.rule, a.mutant, _disaster(a, case, result, beginning))
        complete = _explored(case)[0].distinct if needless.same else None
        if complete not in (None, result.distinct):
            return a
        explored.append(Explored(bounds, result.distinct, complete))
    return Answer(a.name, a.rule, a.mutant, needless=needless, explored=tuple(explored))


# --- what the rule would have prevented --------------------------------------


def prevention(
    path: Path, beginning: int, case: Case, without: frozenset[str], mutant: Mutant | None
) -> Prevented:
    """The first step that comes out otherwise if every rule is followed: each is taken again with them.

    Raises:
        ValueError: none does, so that the path is a behaviour of Raft.
    """
    figure_2 = Model(case.spec, case.bounds, properties=False)
    after = Model(case.spec, case.bounds, any_policy=True, properties=False) if case.any_policy else figure_2
    s = path.start
    for k, move in enumerate(path.moves):
        right = figure_2 if k < beginning else after
        instead = right.take(s, move.action, move.params)
        if instead is None:
            return Prevented(k + 1, _refusal(right, s, move), ())
        if instead.world != move.world or set(instead.sent) != set(move.sent):
            return Prevented(k + 1, "", tuple(_differences(instead, move)))
        s = move.world
    raise ValueError(f"without {', '.join(without) or mutant}: every step is one of Raft")


def _refusal(model: Model, s: World, move: Move) -> str:
    """The first guard that fails, with the values that it is about."""
    t = model.generated.transitions[move.action]
    params = dict(zip(t.action.params, move.params, strict=True))
    record = Type("record", cls=model.spec.server)
    state: State[Any, Any] = State(
        {i: to_spec(v, record) for i, v in s.variables.items()},
        to_spec(s.past, Type("record", cls=model.spec.history)),
        extensions=model.spec.extensions,
    )
    reader = Reader(state, move.server, params, None)
    guard = next(g for g in t.guards if not reader.value(g.condition))
    return f"{guard.text}: {reader.values(guard.condition)}"


def _differences(right: Move, wrong: Move) -> Iterator[str]:
    """What is otherwise with the rule: the acting server's variables, then messages, then history."""
    i = wrong.server
    yield from _changed(right.world.variables[i], wrong.world.variables[i], f"{i}'s ")
    unsent = [m for m in wrong.sent if m not in right.sent]
    for m in right.sent:
        if m in wrong.sent:
            continue
        kind = m.__struct_config__.tag
        other = next((x for x in unsent if type(x) is type(m) and x.target == m.target), None)
        if other is None:
            yield f"a {kind} goes to {m.target}"
            continue
        unsent.remove(other)
        for f in m.__struct_fields__:
            if getattr(m, f) != getattr(other, f):
                yield f"{f} in the {kind} is {show(getattr(m, f))}, not {show(getattr(other, f))}"
    for m in unsent:
        yield f"no {m.__struct_config__.tag} goes to {m.target}"
    if right.world.variables[i] == wrong.world.variables[i]:
        yield from _changed(right.world.past, wrong.world.past, "")


def _changed(right: Variables, wrong: Variables, whose: str) -> Iterator[str]:
    for name in right.__slots__:
        if getattr(right, name) != getattr(wrong, name):
            yield f"{whose}{name} is {show(getattr(right, name))}, not {show(getattr(wrong, name))}"

"""A state of the invariant and a step that leaves it, as small as Z3 finds it, and taken again by Python."""

from __future__ import annotations

from collections.abc import Iterator

import z3

from raftworthy.explore.broken_steps import (
    NO_STEP,
    Counterexample,
    DisagreementError,
    Question,
    confirmed,
    sizes,
)
from raftworthy.prove.inductive import Asked, Induction, solver
from raftworthy.prove.logic import Truth, Value
from raftworthy.prove.shapes import leaves


def find(question: Question, induction: Induction) -> Counterexample:
    """The counterexample to a broken claim, at the smallest sizes that have one.

    Raises:
        DisagreementError: Python doesn't confirm it.
    """
    b = induction.model.bounds
    steps = sorted(
        ((t, n) for t in range(1, b.max_term + 1) for n in range(b.max_log + 1)), key=lambda x: (sum(x), x)
    )
    for max_term, max_log in steps:
        small = induction
        if (max_term, max_log) != (b.max_term, b.max_log):
            small = Induction(
                sizes(b.servers, max_term, max_log, b.extensions),
                induction.without,
                induction.mutant,
                induction.rounds,
            )
        if question not in small.questions():
            continue
        asked = small.ask(question)
        model = _smallest(small, asked)
        if model is not None:
            return _confirmed(small, asked, model)
    raise DisagreementError(
        f"{question.claim} is broken by {question.action} at some sizes, and then at none"
    )


def _smallest(induction: Induction, asked: Asked) -> z3.ModelRef | None:
    """A model in which whatever can be is as in the initial state."""
    s = solver()
    s.add(*(induction.logic.truth(c) for c in asked.formulas))
    if s.check() != z3.sat:
        return None
    model = s.model()
    for c in _wishes(induction, asked):
        if not z3.is_true(model.eval(c, model_completion=True)):
            s.push()
            s.add(c)
            if s.check() != z3.sat:
                s.pop()
                continue
            model = s.model()
        else:
            s.add(c)
    return model


def _wishes(induction: Induction, asked: Asked) -> Iterator[z3.BoolRef]:
    """What would make a counterexample smaller: a log that is empty, then each value that is as at first."""
    first = induction.machine.known(induction.model.generated.initial())
    logic = induction.logic
    groups = [*zip(asked.s.servers, first.servers, strict=True), (asked.s.past, first.past)]

    def as_at_first(have: Value, was: Value) -> Iterator[Truth]:
        yield logic.same(have, was)
        parts = list(zip(leaves(have), leaves(was), strict=True))
        if len(parts) > 1:
            yield from (logic.same(x, y) for x, y in reversed(parts))

    for name in ("log", "logs", "commits", "committed", "leaders", "voted", "acked", "role", "match_index"):
        for have, was in groups:
            if name in have:
                yield from (c for c in as_at_first(have[name], was[name]) if not isinstance(c, bool))
    for have, was in groups:
        for name in have:
            yield from (c for c in as_at_first(have[name], was[name]) if not isinstance(c, bool))
    for x in (*asked.p.values(), *asked.x.values()):
        numbers = [y for y in leaves(x) if isinstance(y, z3.BitVecRef)]
        yield from (logic.truth(logic.same(y, k)) for y in numbers for k in (0, 1))


def _confirmed(induction: Induction, asked: Asked, found: z3.ModelRef) -> Counterexample:
    """What Z3 found, taken again by Python."""
    machine, action = induction.machine, asked.question.action
    property = induction.properties[asked.question.claim]
    types = {} if action == NO_STEP else machine.transitions[action].action.params
    params = tuple(machine.chosen(found, types, asked.p))
    values = dict(zip(property.params, machine.chosen(found, property.params, asked.x), strict=True))
    before = machine.world(found, asked.s)
    return confirmed(asked.question, induction.model, before, params, values, induction.conjuncts)

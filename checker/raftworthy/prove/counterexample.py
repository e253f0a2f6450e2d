"""A state of the invariant and a step that leaves it, as small as Z3 finds it, and as a table.

What is shown has been checked by the Python back end: the conjuncts hold before the step, the step is taken,
and the claim is wrong after it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import z3

from raftworthy.diagram import HARD_SPACE, contents, kind, show
from raftworthy.explore.reference import Move
from raftworthy.generated import World
from raftworthy.prove.inductive import NO_STEP, Asked, Induction, Question, sizes, solver
from raftworthy.prove.logic import Truth, Value
from raftworthy.prove.shapes import leaves


class DisagreementError(AssertionError):
    """Z3 and Python say different things of the same step: a back end is wrong, not the specification."""


@dataclass(frozen=True)
class Counterexample:
    """A claim that is wrong after a step, or in a state if there is no step, for these `values`."""

    question: Question
    doc: str
    before: World
    move: Move | None
    values: Mapping[str, Any]


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
                sizes(b.servers, max_term, max_log), induction.without, induction.mutant, induction.rounds
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
    machine, model = induction.machine, induction.model
    property = induction.properties[asked.question.claim]
    values = machine.chosen(found, property.params, asked.x)
    messages = []
    if z3.is_true(found.eval(induction.logic.truth(asked.old), model_completion=True)):
        messages += [x for x in values if isinstance(x, msgspec.Struct)]
    action, params = asked.question.action, []
    if action != NO_STEP:
        types = machine.transitions[action].action.params
        params = machine.chosen(found, types, asked.p)
        messages += [x for x in params if isinstance(x, msgspec.Struct)]
    before = machine.world(found, asked.s, messages)
    for name in induction.conjuncts:
        if not model.claim(name)(before):
            raise DisagreementError(f"Python says that {name} doesn't hold before {action}")
    move = None
    if action != NO_STEP:
        move = model.take(before, action, tuple(params))
        if move is None:
            raise DisagreementError(f"Python doesn't take {action}{tuple(params)}")
    states = [before] if move is None else [move.world] if property.states == 1 else [before, move.world]
    if model.generated.properties[property.name](*states, *values):
        raise DisagreementError(f"Python says that {property.name} holds after {action}")
    shown = dict(zip(property.params, values, strict=True))
    return Counterexample(asked.question, property.doc, before, move, shown)


# --- as text -------------------------------------------------------------------


def title(claim: str) -> str:
    """A claim's name to be read: `C3 voters pass …` for a conjunct, else as it is."""
    if not re.match(r"[a-z]+\d+_", claim):
        return claim
    number, _, words = claim.partition("_")
    return f"{number.upper()} {words.replace('_', ' ')}"


def table(c: Counterexample, width: int = 100) -> str:
    """The servers before the step, what it changes, and what is then wrong."""
    after = c.move.world if c.move else c.before
    names = list(c.before.variables)
    rows: list[list[str]] = [["", *names]]
    for f in type(next(iter(c.before.variables.values()))).__slots__:
        cells = [_cell(getattr(c.before.variables[i], f), getattr(after.variables[i], f)) for i in names]
        if any(cells):
            rows.append([f, *cells])
    widths = [max(len(row[k]) for row in rows) for k in range(len(names) + 1)]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for f in type(c.before.past).__slots__:
        cell = _cell(getattr(c.before.past, f), getattr(after.past, f))
        if cell:
            lines.append(f"{f.ljust(widths[0])}  {cell}")
    step = _step(c.move) if c.move else "no step"
    out = ["a state of the invariant, and what the step changes:", *("  " + x for x in lines)]
    out += [f"step:   {step}", f"broken: {title(c.question.claim)}{_about(c.values)}"]
    out.append(
        textwrap.fill(" ".join(c.doc.split()), width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    )
    return "\n".join(out)


def _cell(before: Any, after: Any) -> str:
    """A value, and what it becomes; nothing if it is as at first and stays so."""
    if before == after:
        return show(before) if before or isinstance(before, list) else ""
    return f"{show(before)} → {show(after)}"


def _step(move: Move) -> str:
    m = move.message
    return (
        f"{move.action}({', '.join(map(show, move.params))})"
        if m is None
        else f"{move.action}: {_content(m)}"
    )


def _about(values: Mapping[str, Any]) -> str:
    """The values that the claim is wrong for."""
    shown = (
        f"{name} = {f'{kind(x)} {_content(x)}' if isinstance(x, msgspec.Struct) else show(x)}"
        for name, x in values.items()
    )
    return f", for {', '.join(shown)}" if values else ""


def _content(m: Any) -> str:
    return f"{m.source}→{m.target} {contents(m)}".replace(HARD_SPACE, " ")

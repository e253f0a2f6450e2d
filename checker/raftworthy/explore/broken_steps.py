"""A step that breaks a claim, from a state of the invariant: taken by Python, as a table, as data.

Z3 finds such steps. Whatever is shown has been checked by the Python back end: the conjuncts hold before the
step, the step is taken, and the claim is wrong after it. That takes no Z3.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from raftspec.extensions import having
from raftspec.invariant import conjuncts, with_witnesses
from raftspec.mutants import Mutant
from raftworthy.diagram import HARD_SPACE, contents, kind, show
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move
from raftworthy.generated import Variables, World

# For claims about states that follow from the invariant without a step.
NO_STEP = "every state"


class Question(NamedTuple):
    """Whether a claim can be wrong after an action, or in any state of the invariant."""

    action: str
    claim: str


class DisagreementError(AssertionError):
    """Z3 and Python say different things of the same step: a back end is wrong, not the specification."""


@dataclass(frozen=True)
class Counterexample:
    """A claim that is wrong after a step, or in a state if there is no step, for these `values`."""

    question: Question
    doc: str
    bounds: Bounds
    before: World
    move: Move | None
    values: Mapping[str, Any]


def sizes(servers: int = 3, max_term: int = 4, max_log: int = 4, extensions: Iterable[str] = ()) -> Bounds:
    """Bounds that limit nothing but the sizes of a state: any entries a message, restarts, commands twice.

    With membership or sessions no command is given twice, as what an entry says stands under its value.
    """
    extensions = tuple(extensions)
    commands = 1 if {"membership", "sessions"}.isdisjoint(extensions) else max(2, max_log)
    return Bounds(
        servers, max_term, max_log, crashes=1, commands=commands, entries=max_log, applies=True,
        extensions=extensions,
    )  # fmt: skip


def witnessed(bounds: Bounds, without: Iterable[str] = (), mutant: Mutant | None = None) -> Model:
    """The specification without a rule, or with a bug, and with what the invariant speaks of."""
    spec = having(*bounds.extensions, *(mutant.extensions if mutant else ()))
    spec = with_witnesses(mutant.apply(spec) if mutant else spec)
    return Model(spec, bounds, frozenset(without) | (mutant.without if mutant else frozenset()))


def confirmed(
    question: Question, model: Model, before: World, params: tuple[Any, ...], values: Mapping[str, Any],
    names: Iterable[str] | None = None,
) -> Counterexample:  # fmt: skip
    """A step, taken by Python from a state that has only the messages that matter.

    `names` are the conjuncts that hold before; all, if none are given.

    Raises:
        DisagreementError: it breaks nothing.
    """
    action, property, move = question.action, model.spec.properties[question.claim], None
    spoken_of = {x for x in values.values() if isinstance(x, msgspec.Struct)}
    before.messages = frozenset(x for x in params if isinstance(x, msgspec.Struct))
    if action != NO_STEP:
        move = _taken(model, before, action, params)
        spoken_of -= {*move.sent}
    before.messages |= spoken_of
    for name in conjuncts(model.spec) if names is None else names:
        if not model.claim(name)(before):
            raise DisagreementError(f"Python says that {name} doesn't hold before {action}")
    if move is not None:
        move = _taken(model, before, action, params)
    states = [before] if move is None else [move.world] if property.states == 1 else [before, move.world]
    if model.generated.properties[property.name](*states, *values.values()):
        raise DisagreementError(f"Python says that {property.name} holds after {action}")
    return Counterexample(question, property.doc, model.bounds, before, move, values)


def _taken(model: Model, before: World, action: str, params: tuple[Any, ...]) -> Move:
    move = model.take(before, action, params)
    if move is None:
        raise DisagreementError(f"Python doesn't take {action}{params}")
    return move


INDENT = " " * 8

# --- as data and as text -------------------------------------------------------


def as_data(c: Counterexample) -> dict[str, Any]:
    """All of it, for machines."""
    before = {i: _values(v) for i, v in c.before.variables.items()}
    step = c.move and {"action": c.move.action, "params": [plain(x) for x in c.move.params]}
    return {
        "action": c.question.action,
        "claim": c.question.claim,
        "because": " ".join(c.doc.split()),
        "about": {name: plain(x) for name, x in c.values.items()},
        "before": {"servers": before, "past": _values(c.before.past)},
        "step": step,
    }


def _values(variables: Variables) -> dict[str, Any]:
    return {f: plain(getattr(variables, f)) for f in variables.__slots__}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(k): plain(x) for k, x in value.items()}
    return sorted(value) if isinstance(value, frozenset) else msgspec.to_builtins(value)


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
    told = (f"step:   {step}", f"broken: {title(c.question.claim)}{_about(c.values)}")
    out += (_filled(text, "", width) for text in told)
    return "\n".join([*out, _filled(" ".join(c.doc.split()), INDENT, width)])


def _filled(text: str, indent: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=INDENT, break_on_hyphens=False)


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

"""Choices that what is asked doesn't depend on, such as which entries a leader tries next, left open.

Some guards choose among what is safe: which entries are sent next, or whether a quorum would vote for who is
about to stand for election. Each is a rule with a name. Where nothing else reads a variable, the
specification without them needs no such variable, nor what only sets it. It does all that the one with them
does, and more. So a property that holds there holds. What it needs is seen by looking, from the properties
backwards:

- a variable is needed if a property that is searched for reads it, or a step that has an effect, to decide
  whether it is taken, by whom, and what the effect is;
- a step has an effect if it changes a needed variable or history, or sends what is received with an effect;
- of a message those fields are needed that are read where it is received. If only its sender and receiver
  are, it is taken to have been sent by everybody to everybody.

A property about a variable that isn't needed isn't searched for: Z3 is asked whether every step keeps it,
from any state where the others hold. What is found in the wider specification has to be possible in the one
that was asked about (`native/narrowing.py`), or it is looked for again there.

    wide  the specification with choices left open
    f  a server's variable     r  a rule     t  an action as expressions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from raftspec.graph import Node, postorder
from raftspec.spec import Action, OnlyIf, Spec, Step
from raftspec.tracing import Transition
from raftspec.types import SERVER, Message, zero
from raftworthy.explore.model import Model

NO_CHOICE = "no rule's choice is all that reads a variable"
ENDS = frozenset({"source", "target"})
UNSAFE = ("safety", "implied")  # kinds of rules without which what is asked about isn't safe


@dataclass(frozen=True)
class Needs:
    """What the answer depends on: variables, kinds of messages with their fields, actions."""

    variables: frozenset[str]
    fields: Mapping[type[Message], frozenset[str]]
    actions: frozenset[str]


@dataclass(frozen=True)
class Opened:
    """The specification without some rules, what that needs, and which properties it is searched for."""

    wide: Model
    rules: tuple[str, ...]
    needs: Needs
    searched: tuple[str, ...]
    kept: tuple[str, ...]  # properties about what isn't needed, which every step keeps


def opened(model: Model, properties: list[str], policy: bool = True) -> Opened | str:
    """The specification with as many choices left open as can be, of policy or not; or why there are none.

    Needs Z3 if a property is about what was chosen by.
    """
    rules: frozenset[str] = frozenset()
    needs, searched, kept = None, list(properties), list[str]()
    why = NO_CHOICE
    choices = _choices(model, policy)
    for f in model.spec.server.types():
        more = frozenset(r for r, read in choices.items() if f in read)
        if more <= rules:
            continue
        others = [p for p in searched if f not in _read(model.generated.claims[p])]
        found = _needs(model, rules | more, others)
        if f in found.variables:
            continue
        about = [p for p in properties if p not in others]
        if about != kept:
            from raftworthy.reduce.deriving import kept_by_steps

            if broken := kept_by_steps(model, about, others):
                why = broken
                continue
        rules, needs, searched, kept = rules | more, found, others, about
    if needs is None:
        return why
    wide = Model(widened(model.spec, needs, searched), model.bounds, model.without | rules)
    return Opened(wide, tuple(sorted(rules)), needs, tuple(searched), tuple(kept))


def _choices(model: Model, policy: bool) -> Mapping[str, frozenset[str]]:
    """The rules that do nothing but forbid a step, and aren't there for safety; with what each reads."""
    made, rules = model.generated, model.spec.rules
    closed = UNSAFE if policy else (*UNSAFE, "policy")
    guards = [g.condition for t in made.transitions.values() for g in t.guards]
    whole = {n for n in guards if n.op == "rule" and rules[n.attr].kind not in closed}
    read: dict[str, frozenset[str]] = {n.attr: _read(*(m for m in whole if m.attr == n.attr)) for n in whole}
    others = [n for t in made.transitions.values() for n in t.roots() if n not in whole]
    elsewhere = {n.attr for n in postorder(*others, *made.claims.values()) if n.op == "rule"}
    return {r: f for r, f in read.items() if r not in elsewhere and made.tracer.rules[r]}


def _read(*roots: Node) -> frozenset[str]:
    """The servers' variables that expressions read."""
    return frozenset(n.attr[0] for n in postorder(*roots) if n.op == "get")


def _needs(model: Model, rules: frozenset[str], searched: Iterable[str]) -> Needs:
    """What properties need where some rules' guards are left out."""
    needs = Needs(_read(*(model.generated.claims[p] for p in searched)), {}, frozenset())
    while (more := _and_causes(model, rules, needs)) != needs:
        needs = more
    return needs


def _and_causes(model: Model, rules: frozenset[str], needs: Needs) -> Needs:
    """What is needed, and what the steps need that have an effect on it."""
    variables, fields, actions = needs.variables, {**needs.fields}, needs.actions
    for name, t in model.generated.transitions.items():
        if effects := list(_effects(t, needs)):
            guards = [g.condition for g in t.guards]
            asked = [n for n in guards if n.op != "rule" or n.attr not in rules]
            decisive = list(postorder(t.server, *asked, *effects))
            actions |= {name}
            variables |= _read(*decisive)
            if kind := t.action.message:
                fields[kind] = fields.get(kind, ENDS) | {n.attr[1] for n in decisive if n.op == "message"}
    return Needs(variables, fields, actions)


def _effects(t: Transition, needs: Needs) -> Iterator[Node]:
    """The expressions of what a step does that is needed."""
    yield from (n for f, n in t.updates.items() if f in needs.variables)
    yield from t.history.values()
    for s in t.sends:
        if (needed := needs.fields.get(s.message, ENDS)) != ENDS:
            yield s.condition
            yield from (n for f, n in zip(s.message.types(), s.fields, strict=True) if f in needed)


def widened(spec: Spec, needs: Needs, searched: Iterable[str]) -> Spec:
    """The specification in which steps do only what is needed."""
    actions = {}
    for name, a in spec.actions.items():
        if name in needs.actions:
            kind, function = a.message, _needed(a.function, needs)
            if kind is not None and needs.fields[kind] == ENDS:
                actions[name] = Action(name, _unasked(function, kind), {"target": SERVER, "source": SERVER})
            else:
                actions[name] = Action(name, function, a.params)
    return replace(spec, actions=actions, properties={p: spec.properties[p] for p in searched})


def _needed(function: Callable[..., Step], needs: Needs) -> Callable[..., Step]:
    """An action that leaves what isn't needed as it was."""

    @wraps(function)
    def taken(s: Any, *params: Any) -> Step:
        step = function(s, *params)
        then = step.then
        if then is not None:
            me = s[step.server]
            then = then.but(**{f: getattr(me, f) for f in then.types() if f not in needs.variables})
        return Step(step.server, *step.guards, then=then, send=list(_sent(step, needs)), history=step.history)

    return taken


def _sent(step: Step, needs: Needs) -> Iterator[OnlyIf]:
    """What a step sends that is needed, with those fields that are."""
    for x in step.sends:
        condition, m = x if isinstance(x, OnlyIf) else OnlyIf(True, x)
        needed = needs.fields.get(type(m), ENDS)
        if needed != ENDS:
            yield OnlyIf(condition, m.but(**_blank(type(m), needed)))


def _unasked(function: Callable[..., Step], kind: type[Message]) -> Callable[..., Step]:
    """A handler that takes its message for sent."""

    @wraps(function)
    def taken(s: Any, target: Any, source: Any) -> Step:
        return function(s, kind(**_blank(kind, ENDS), source=source, target=target))

    return taken


def _blank(kind: type[Message], needed: Iterable[str]) -> dict[str, Any]:
    """Values that say nothing, for the other fields of a message."""
    return {f: zero(t) for f, t in kind.types().items() if f not in needed}

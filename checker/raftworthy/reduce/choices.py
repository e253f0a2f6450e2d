"""Choices that nothing but later choices depends on, such as which entries a leader tries next, left open.

Some rules are policy: what they choose among is safe. If a variable is read by such choices and by nothing
else, the specification without them needs no such variable, and does all that the one with them does, and
more. So a property that holds there holds. That this is so is seen by comparing the two, expression by
expression: without the rules, guards that read the variable are gone, it may come out otherwise, and all
else is the same. A property about the variable itself isn't searched for: Z3 is asked whether every step
keeps it, from any state where the others hold. What is found without the rules has to be possible with them,
or it is looked for again with them.

    narrow, wide  the specification with the rules and without     f  the variable     r  a rule
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raftspec.graph import Node, postorder
from raftspec.tracing import Transition
from raftworthy.explore.model import Model
from raftworthy.native.identity import text_of

NO_CHOICE = "no rule of policy is about a variable that only policy reads"


@dataclass(frozen=True)
class Opened:
    """The specification without some rules of policy, and which properties it is searched for."""

    wide: Model
    variable: str
    searched: tuple[str, ...]
    kept: tuple[str, ...]  # properties about the variable, which every step keeps


def opened(model: Model, properties: list[str]) -> Opened | str:
    """The specification with as many choices left open as can be; or why there are none.

    Needs Z3 if a property is about the variable.
    """
    narrow = _Parts(model)
    rules = sorted(model.spec.policy - model.without)
    changed = {r: _changed(narrow, _without(model, [r], properties=False)) for r in rules}
    for f in model.spec.server.types():
        about = [r for r in rules if changed[r] == {f}]
        if not about:
            continue
        wide = _without(model, about)
        kept = [p for p in properties if f in _read(narrow.claims[p])]
        searched = [p for p in properties if p not in kept]
        if _changed(narrow, wide) != {f} or _depends(_Parts(wide), f, searched):
            continue
        if kept:
            from raftworthy.reduce.deriving import kept_by_steps

            if why := kept_by_steps(model, kept, searched):
                return why
        return Opened(wide, f, tuple(searched), tuple(kept))
    return NO_CHOICE


def _without(model: Model, rules: list[str], properties: bool = True) -> Model:
    return Model(model.spec, model.bounds, model.without | set(rules), properties=properties)


class _Parts:
    """A model's transitions and claims without rules' names, and as text, to compare with another's."""

    def __init__(self, model: Model) -> None:
        graph = model.generated.tracer.graph
        self.transitions = {n: t.but(graph.without_rules) for n, t in model.generated.transitions.items()}
        self.claims: Mapping[str, Node] = {
            p: graph.without_rules(n) for p, n in model.generated.claims.items()
        }


def _text(*nodes: Node | None) -> list[str]:
    return list(text_of([n for n in nodes if n is not None]))


def _read(n: Node) -> set[str]:
    """The servers' variables that an expression reads."""
    return {m.attr[0] for m in postorder(n) if m.op == "get"}


def _changed(narrow: _Parts, wide: Model | _Parts) -> set[str] | None:
    """The variables that guards which are gone read, or that come out otherwise; None if more differs."""
    wide = wide if isinstance(wide, _Parts) else _Parts(wide)
    changed: set[str] = set()
    for name, t in narrow.transitions.items():
        found = _differs(t, wide.transitions[name])
        if found is None:
            return None
        changed |= found
    return changed


def _differs(t: Transition, w: Transition) -> set[str] | None:
    """As `_changed`, of one action."""

    def effects(x: Transition) -> list[object]:
        sends = [(s.message, _text(s.condition, *s.fields)) for s in x.sends]
        return [_text(x.server), sends, {h: _text(n) for h, n in x.history.items()}]

    if effects(t) != effects(w) or [g.text for g in t.guards] != [g.text for g in w.guards]:
        return None
    changed = {
        f for f in t.updates.keys() | w.updates.keys() if _text(t.updates.get(f)) != _text(w.updates.get(f))
    }
    for g, h in zip(t.guards, w.guards, strict=True):
        if _text(g.condition) != _text(h.condition):
            if h.condition.op != "const" or h.condition.attr is not True:
                return None
            changed |= _read(g.condition)
    return changed


def _depends(wide: _Parts, f: str, searched: list[str]) -> bool:
    """Whether anything but variable f itself depends on it."""

    def others() -> Iterator[Node]:
        for t in wide.transitions.values():
            yield t.server
            yield from (g.condition for g in t.guards)
            yield from (n for name, n in t.updates.items() if name != f)
            yield from t.history.values()
            for s in t.sends:
                yield from (s.condition, *s.fields)
        yield from (wide.claims[p] for p in searched)

    return any(f in _read(n) for n in others())

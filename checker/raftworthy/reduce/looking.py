"""What is seen of a specification without a solver, by looking at its expressions: what steps read and send.

That is enough to send eagerly, which leaves so few states of a small question that nothing else is worth a
proof.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftspec.graph import Node, postorder
from raftspec.tracing import Transition
from raftworthy.explore.model import Model
from raftworthy.reduce.meanings import Transitions, changing, settled
from raftworthy.reduce.permits import FEW_LEFT, REDUCTIONS, UNWANTED, Permits


def at_sight(model: Model, properties: Iterable[str], unwanted: Iterable[str]) -> Permits:
    """What a search begun in the initial state may leave out as the expressions are, messages not counted."""
    off = {**dict.fromkeys(REDUCTIONS, FEW_LEFT), **dict.fromkeys(unwanted, UNWANTED)}
    if off.pop("eager") == UNWANTED:
        return Permits(off={**off, "eager": UNWANTED})
    graph = model.generated.tracer.graph
    named = {name: t.but(graph.without_rules) for name, t in model.generated.transitions.items()}
    transitions = settled(model, named)
    if why := lazy(model, transitions, properties):
        return Permits(off={**off, "eager": why})
    return Permits(eager=True, off=off)


def lazy(model: Model, transitions: Transitions, properties: Iterable[str]) -> str:
    """Why what a step would only send isn't sent at once; empty if it may be."""
    if any(t.kind == "record" for p in properties for t in model.spec.properties[p].params.values()):
        return "a property is about the messages that were sent"
    if name := sends_by_others(transitions):
        return f"whether {name} sends depends on more than its own server and its message"
    return ""


def sends_by_others(transitions: Transitions) -> str:
    """A step that may send and reads more than its own server's variables and its message; or none.

    Whether it sends can change when another server takes a step.
    """
    changed = changing(transitions)
    for name, t in transitions.items():
        asked = [*(g.condition for g in t.guards), *t.updates.values(), *t.history.values()]
        asked += [x for s in t.sends for x in (s.condition, *s.fields)]
        if t.sends and any(_is_of_others(n, t, changed) for n in postorder(*asked)):
            return name
    return ""


def _is_of_others(n: Node, t: Transition, changed: frozenset[str]) -> bool:
    """Whether an expression reads what other servers' steps may change."""
    return (n.op == "past" and n.attr[0] in changed) or (n.op == "get" and n.args[0] is not t.server)


def reads_others(transitions: Transitions) -> str:
    """A step that reads more than its own server's variables, its parameters and its message; or none."""
    changed = changing(transitions)
    for name, t in transitions.items():
        if t.server.op not in ("param", "message"):
            return name
        for n in postorder(*t.roots()):
            if n.op == "get" and n.args[0] is not t.server:
                return name
        effects = [*t.updates.values(), *(x for s in t.sends for x in (s.condition, *s.fields))]
        if any(_is_of_others(n, t, changed) for n in postorder(*effects)):
            return name
    return ""

"""What commands mean, where history says it: then it is as if each command carried its meaning along.

A configuration entry holds a command's number only, and what the entry says stands in history under that
number. Whoever has the entry reads it there. So a step reads history, and yet nothing that other steps
change: what a command means is said once, by the step that makes it, before any server or message has it.

A map of history is such a meaning if

- its keys are commands; every step that is given a command counts it, and no other step counts, so that each
  command is a new one, since that count is what the search numbers them by;
- it is changed by such steps only, for their own command, without a condition, and says nothing at first;
- it is read for single commands only, and by a step that makes one not for that.

Take a behaviour, and what each of its commands means in the end. Any step that reads a meaning read the same
then: it asks about commands that a server, a message or history has, of which nothing is said again, or about
none (0), of which nothing ever is. So the behaviours are those of the specification in which meanings are
there from the start, whatever they are, and never change, and a step may make a command only if it means what
the step would say. That one is what Z3 is asked about. To it such a map is a constant, and where commands are
renumbered, so is what they mean.

    h  a map of history     v  a new command     t  an action as expressions
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace

from raftspec.graph import KINDS, Graph, Node, postorder
from raftspec.tracing import Guard, Transition
from raftspec.types import VALUE, Type, zero
from raftworthy.explore.model import Model

Transitions = Mapping[str, Transition]
COUNT = "commands"  # what the explorers number new commands by


def settled(model: Model, transitions: Transitions) -> Transitions:
    """The actions where what commands mean is given from the start."""
    types, declared = model.spec.history.types(), model.spec.properties
    maps = {h for h, t in types.items() if t.kind == "map" and t.key == VALUE}
    made = {name: [p for p, x in t.action.params.items() if x == VALUE] for name, t in transitions.items()}
    if not maps or not all(_counts(t, made[name]) for name, t in transitions.items()):
        return transitions
    graph = model.generated.tracer.graph
    claims = {p: graph.without_rules(n) for p, n in model.generated.claims.items()}
    told = {
        h
        for h in maps
        if _says_nothing_at_first(model, h)
        and all(_said_once(t, h, made[name]) for name, t in transitions.items())
        and all(_read_of_one([n], h, list(declared[p].params), declared[p].states) for p, n in claims.items())
    }
    found = {name: _settled(graph, types, t, told, made[name]) for name, t in transitions.items()}
    return transitions if looks_into_values(found, claims.values()) else found


def changing(transitions: Transitions) -> frozenset[str]:
    """What of history any step changes."""
    return frozenset(h for t in transitions.values() for h in t.history)


def looks_into_values(transitions: Transitions, claims: Iterable[Node]) -> str:
    """An expression that does more with a command's value than compare it, or ask what it means; or none.

    Where there is none, a behaviour whose commands are renamed is a behaviour, and no property tells.
    """
    changed = changing(transitions)
    roots = [n for t in transitions.values() for n in t.roots()]
    for n in postorder(*roots, *claims):
        compared = [a for a in n.args if a.type == VALUE]
        means = n.op == "map_get" and n.args[0].op == "past" and n.args[0].attr[0] not in changed
        if compared and not means and n.op not in ("eq", "ite", "record", "field", "map_set"):
            return n.op
        if n.op == "const" and n.type == VALUE and n.attr != 0:
            return repr(n)
    return ""


def _says_nothing_at_first(model: Model, h: str) -> bool:
    """Whether a map can be compared, and has nothing but its default at the beginning."""
    of, first = model.spec.history.types()[h].of, getattr(model.spec.history(), h)
    return of is not None and of.kind in KINDS["scalar"] and not first.items and first.default == zero(of)


def _counts(t: Transition, made: list[str]) -> bool:
    """Whether a step counts the one command that it is given, and only then counts."""
    now = t.history.get(COUNT)
    if not made:
        return now is None
    if len(made) > 1 or now is None or now.op != "add":
        return False
    was, one = now.args
    return was.op == "past" and was.attr[0] == COUNT and one.op == "const" and one.attr == 1


def _said_once(t: Transition, h: str, made: list[str]) -> bool:
    """Whether a step says at most what its own new command means, and otherwise asks for single commands."""
    others = replace(t, history={name: n for name, n in t.history.items() if name != h}).roots()
    if (n := t.history.get(h)) is not None:
        if n.op != "map_set" or not _is_map(n.args[0], h) or not _is_param(n.args[1], made):
            return False
        others.append(n.args[2])
    return _read_of_one(others, h, made, 1)


def _read_of_one(roots: Iterable[Node], h: str, made: list[str], states: int) -> bool:
    """Whether a map is only asked for single commands, which aren't new ones; of two states, in the later."""
    roots = list(roots)
    if any(_is_map(n, h) for n in roots):
        return False
    for n in postorder(*roots):
        if _is_map(n, h) and n.attr[1] != states - 1:
            return False
        if any(_is_map(a, h) for a in n.args):
            key = n.args[1] if n.op == "map_get" else None
            if key is None or any(_is_param(m, made) for m in postorder(key)):
                return False
    return True


def _is_map(n: Node, h: str) -> bool:
    return n.op == "past" and bool(n.attr[0] == h)


def _is_param(n: Node, names: list[str]) -> bool:
    return n.op == "param" and n.attr in names


def _settled(
    graph: Graph, types: Mapping[str, Type], t: Transition, told: set[str], made: list[str]
) -> Transition:
    """A step that may make a command only if it means what the step would say."""
    guards = []
    for v, h in itertools.product(made, sorted(told)):
        of = types[h].of
        assert of is not None
        means = graph.node("map_get", graph.leaf("past", (h, 0), types[h]), graph.leaf("param", v, VALUE))
        said = t.history[h].args[2] if h in t.history else graph.const(zero(of), of)
        guards.append(Guard(f"{h} says so", graph.node("eq", means, said)))
    history = {h: n for h, n in t.history.items() if h not in told}
    return replace(t, guards=(*t.guards, *guards), history=history)

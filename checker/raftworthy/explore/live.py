"""Whether a command is always decided in the end, under assumptions about time: the question and its answer.

free     the graph in which timeouts fire at any time     late  the one in which the assumption holds
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from raftspec.types import Type
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.cases import mutant_called
from raftworthy.explore.fairness import SOME, Surroundings, System, Timing, key
from raftworthy.explore.fates import prove_fates
from raftworthy.explore.keys import rename
from raftworthy.explore.lasso import Lasso, Unroller, unroll
from raftworthy.explore.liveness import (
    Circle,
    Graph,
    doomed,
    explore_graph,
    shortened,
    way_into,
    way_within,
)
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path
from raftworthy.generated import Variables, World

# How far beyond the bounds states may go once the assumption holds: from there on it has to come to an end.
MORE_TERMS, MORE_ENTRIES = 4, 2


@dataclass(frozen=True)
class Question:
    """What to look for, and within which bounds."""

    servers: int = 2
    max_term: int = 2
    max_log: int = 1
    max_messages: int | None = None
    crashes: int = 0
    without: frozenset[str] = frozenset()
    mutant: str | None = None
    timing: Timing = field(default_factory=Timing)
    goal: str = "termination"
    limit_states: int | None = 200_000

    def bounds(self, late: bool = False) -> Surroundings:
        """The bounds of a graph."""
        more = int(late)
        return Surroundings(
            self.servers, self.max_term + more * MORE_TERMS, self.max_log + more * MORE_ENTRIES,
            crashes=self.crashes, under_way=None if late else self.max_messages,
        )  # fmt: skip

    def __str__(self) -> str:
        messages = "any number of" if self.max_messages is None else f"at most {self.max_messages}"
        return (
            f"{self.servers} servers, terms up to {self.max_term} when renamed, logs up to {self.max_log}, "
            f"{messages} messages that aren't old, {self.crashes} restarts"
        )


@dataclass(frozen=True)
class Answer:
    """What was found. `complete`: all was seen that the bounds promise; else `stopped` says why not."""

    question: Question
    lasso: Lasso | None
    complete: bool
    stopped: str
    states: int  # in which timeouts fire at any time
    late: int  # in which the assumption holds
    steps: int
    seconds: float
    clock: str

    @property
    def verdict(self) -> str:
        """What was found, in a word."""
        return "livelock" if self.lasso else "holds within bounds" if self.complete else "undecided"


def ask(question: Question, progress: Callable[[int, int | None], None] | None = None) -> Answer:
    """Look for a fair behaviour that never comes to the goal.

    Raises:
        UnusableError: the question has no meaning, or terms of this specification can't be renamed.
    """
    began = time.perf_counter()
    if question.timing.alone == SOME and not question.timing.patient:
        raise UnusableError("say which server is impatient, as in --alone n1 --impatient")
    if question.timing.alone in question.timing.stopped:
        raise UnusableError(f"{question.timing.alone} is stopped: its timeouts never fire")
    if len(question.timing.stopped) >= question.servers:
        raise UnusableError("nobody is left: stop fewer servers")
    if missing := [name for name in ("networkx", "z3") if find_spec(name) is None]:
        raise UnusableError(f"{' and '.join(missing)} not installed; try: pip install 'raftworthy[live]'")
    mutant, timing = mutant_called(question.mutant), question.timing
    fates = prove_fates(question.servers, question.without, mutant, question.crashes)

    def graph(late: bool, timing: Timing) -> Graph:
        bounds = question.bounds(late)
        return Graph(System(bounds, question.goal, timing, fates, question.without, mutant))

    free = graph(False, Timing(stopped=timing.stopped))
    start = free.system.initial()
    roots = [free.system.renaming.normal(start)]
    limit = question.limit_states
    if timing.alone is None:
        found = explore_graph(free, roots, limit, progress=progress)
        return _answer(question, free, None, _first_lasso(free, found), began)
    running = [i for i in free.system.bounds.names if i not in timing.stopped]
    one = running[0] if timing.alone == SOME else timing.alone
    late = graph(True, replace(timing, alone=one))
    explore_graph(free, roots, limit, look=False, progress=progress)
    late_roots = map(late.system.renaming.normal, free.states)
    found = explore_graph(late, late_roots, limit, look=timing.alone != SOME, progress=progress)
    others = running if timing.alone == SOME else [one]
    return _answer(question, free, late, _late_lasso(free, late, found, one, others), began)


def _first_lasso(graph: Graph, found: list[Circle]) -> Lasso | None:
    if not found:
        return None
    circle = shortened(graph, min(found, key=lambda c: (len(c.way), c.state)))
    _, edges = graph.way_to(circle.state)
    return unroll(graph, edges, circle, Path(graph.system.initial()))


def _late_lasso(free: Graph, late: Graph, found: list[Circle], one: str, others: list[str]) -> Lasso | None:
    """A lasso that begins with timeouts at any time, until a state in which no server's being alone helps.

    That another server is alone is the same as that this one is after they have changed names.
    """
    lost = doomed(late, found)
    normal = late.system.renaming.normal

    def is_lost(u: int) -> bool:
        states = (normal(swapped(late.system.model, free.states[u], one, i)) for i in others)
        return all(late.index.get(key(n)) in lost for n in states)

    u = next((u for u in range(len(free.states)) if late.origins[u] in lost and is_lost(u)), None)
    if u is None:
        return None
    _, edges = free.way_to(u)
    goals = [free.states[e.target] for e in edges]
    stem = Unroller(free.system).walk(Path(free.system.initial()), edges, goals)
    way, circle = way_into(late, late.origins[u], found)
    circle = shortened(late, circle)
    way += way_within(late, way[-1].target if way else late.origins[u], circle)
    return unroll(late, way, circle, stem)


def swapped(model: Model, s: World, i: str, j: str) -> World:
    """A state after two servers have changed names."""
    names = {k: k for k in model.servers} | {i: j, j: i}

    def renamed(v: Variables, types: Mapping[str, Type]) -> Variables:
        out = v.copy()
        for f, t in types.items():
            value = getattr(v, f)
            new = rename(tuple(value.items()) if isinstance(value, dict) else value, t, names)
            setattr(out, f, type(value)(new) if isinstance(value, dict | list) else new)
        return out

    variables = {i: renamed(s.variables[names[i]], model.spec.server.types()) for i in model.servers}
    kinds = {model.generated.structs[cls]: Type("record", cls=cls) for cls in model.spec.messages}
    messages = frozenset(rename(m, kinds[type(m)], names) for m in s.messages)
    return World(variables, renamed(s.past, model.spec.history.types()), messages)


def _answer(question: Question, free: Graph, late: Graph | None, lasso: Lasso | None, began: float) -> Answer:
    unexpanded = any(len(g.edges) < len(g.states) for g in (free, late) if g)
    stopped = ""
    if unexpanded and not lasso:
        stopped = f"stopped at the limit of {question.limit_states} states"
    elif late and late.cut:
        stopped = f"{late.cut} steps lead out of the bounds"
    return Answer(
        question, lasso, not stopped, stopped, len(free.states), len(late.states) if late else 0,
        free.steps + (late.steps if late else 0), time.perf_counter() - began, free.system.renaming.clock,
    )  # fmt: skip

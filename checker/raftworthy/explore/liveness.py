"""Does something good always happen in the end? Looked for: a behaviour that goes round without it.

The states that aren't yet good, up to a renaming of terms (`renaming`), are a graph. A behaviour that never
comes to a good state goes round in a strongly connected component of it in the end, or stays where nothing
more can happen. It counts if it is fair: each step that is possible where the circle begins, an obligation,
is taken on the way round, or is impossible somewhere. Messages are followed through the renamings.

    u, v  numbers of states     s  a state     n  a state's normal form
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raftworthy.explore.fairness import Instance, System, is_fair, key
from raftworthy.explore.paths import Move
from raftworthy.generated import World

PROGRESS_EVERY = 0.2  # seconds
SHORTENING = 20_000  # steps to be tried for a shorter circle


class Edge(NamedTuple):
    """A step between normal states."""

    instance: Instance
    action: str
    params: tuple[Any, ...]
    target: int


@dataclass
class Graph:
    """Normal states that aren't good, and the steps between them, as far as they were explored."""

    system: System
    states: list[World] = field(default_factory=list)
    edges: list[list[Edge]] = field(default_factory=list)  # of those expanded
    enabled: list[frozenset[Instance]] = field(default_factory=list)  # fair steps, also out of the bounds
    parents: list[tuple[int, Edge | None]] = field(default_factory=list)
    index: dict[Any, int] = field(default_factory=dict)
    origins: list[int] = field(default_factory=list)  # the given roots' numbers
    steps: int = 0
    cut: int = 0  # steps out of the bounds

    def add(self, n: World, parent: int, edge: Edge | None = None) -> int:
        """A normal state's number; a new one's way there is kept."""
        k = self.index.setdefault(key(n), len(self.states))
        if k == len(self.states):
            self.states.append(n)
            self.parents.append((parent, edge))
        return k

    def expand(self) -> None:
        """Take every step from the oldest state that wasn't expanded yet."""
        u = len(self.edges)
        steps = self.system.steps(self.states[u])
        self.enabled.append(frozenset(x.instance for x in steps if is_fair(x.instance)))
        out = []
        for step in steps:
            self.steps += 1
            if step.decided:
                continue
            if not self.system.within(step.normal):
                self.cut += 1
                continue
            before = len(self.states)
            v = self.add(step.normal, u)
            edge = Edge(step.instance, step.move.action, step.move.params, v)
            if v == before:
                self.parents[v] = (u, edge)
            out.append(edge)
        self.edges.append(out)

    def way_to(self, u: int) -> tuple[int, list[Edge]]:
        """From which root a state was reached, and how."""
        edges: list[Edge] = []
        while (edge := self.parents[u][1]) is not None:
            edges.append(edge)
            u = self.parents[u][0]
        return u, edges[::-1]

    # --- obligations ---

    def after(self, u: int, edge: Edge, obligations: frozenset[Instance]) -> frozenset[Instance]:
        """What remains of obligations after a step: not what was taken, nor what isn't possible now."""
        rest = [x for x in obligations if x != edge.instance]
        if not rest:
            return frozenset()
        world = self._taken(u, edge).world
        images = (self._image(world, x) for x in rest)
        return frozenset(x for x in images if x in self.enabled[edge.target])

    def _taken(self, u: int, edge: Edge) -> Move:
        move = self.system.model.take(self.states[u], edge.action, edge.params)
        assert move is not None
        return move

    def _image(self, s: World, x: Instance) -> Instance | None:
        action, params = x
        if isinstance(params[0], str):
            return x
        m = self.system.renaming.image(s, params[0])
        return None if m is None else (action, (m,))


# --- circles -----------------------------------------------------------------


def components(graph: Graph) -> list[list[int]]:
    """The strongly connected components in which something goes round."""
    import networkx

    g = networkx.DiGraph()
    g.add_edges_from(
        (u, e.target) for u, edges in enumerate(graph.edges) for e in edges if e.target < len(graph.edges)
    )
    found = [sorted(c) for c in networkx.strongly_connected_components(g)]
    return sorted(c for c in found if len(c) > 1 or g.has_edge(c[0], c[0]))


def fair_circle(graph: Graph, component: list[int]) -> list[Edge] | None:
    """A way round in a component, from its first state, that leaves nothing undone; None if there is none.

    One obligation after the other is met on the shortest way. If one can't be, no way round meets it.
    """
    inside = set(component)
    start = component[0]
    way: list[Edge] = []
    u, left = start, graph.enabled[start]
    while left:
        one = min(left, key=repr)
        found = way_round(graph, inside, (u, frozenset({one})), lambda v, rest: not rest)
        if found is None:
            return None
        for edge in found:
            left = graph.after(u, edge, left)
            u = edge.target
        way += found
    back = way_round(graph, inside, (u, frozenset()), lambda v, rest: v == start, least=0 if way else 1)
    assert back is not None
    return way + back


def shortest_fair_circle(graph: Graph, component: list[int], most: int) -> list[Edge] | None:
    """The shortest fair way round of at most so many steps, from whichever state, as far as effort goes."""
    inside = set(component)
    best: list[Edge] | None = None
    effort = [SHORTENING]
    for start in component:
        if effort[0] <= 0:
            break
        found = way_round(
            graph, inside, (start, graph.enabled[start]),
            lambda v, rest, start=start: v == start and not rest,  # type: ignore[misc]
            least=1, most=most, effort=effort,
        )  # fmt: skip
        if found is not None and (best is None or len(found) < len(best)):
            best, most = found, len(found) - 1
    return best


Place = tuple[int, frozenset[Instance]]


def way_round(
    graph: Graph,
    inside: Iterable[int],
    start: Place,
    done: Callable[[int, frozenset[Instance]], bool],
    least: int = 0,
    most: int | None = None,
    effort: list[int] | None = None,
) -> list[Edge] | None:
    """The shortest way from a place to one that is done, with the obligations that are left on it."""
    if least == 0 and done(*start):
        return []
    inside = set(inside)
    known: dict[Place, tuple[Place, Edge] | None] = {start: None}
    level = [start]
    length = 0
    while level and (most is None or length < most):
        length += 1
        frontier = []
        for place in level:
            u, left = place
            for edge in graph.edges[u]:
                if edge.target not in inside:
                    continue
                if effort is not None:
                    effort[0] -= 1
                    if effort[0] <= 0:
                        return None
                after = (edge.target, graph.after(u, edge, left))
                if done(*after):
                    return [*_way(known, place), edge]
                if after not in known:
                    known[after] = (place, edge)
                    frontier.append(after)
        level = frontier
    return None


def _way(known: dict[Place, tuple[Place, Edge] | None], place: Place) -> list[Edge]:
    edges = []
    while (step := known[place]) is not None:
        place, edge = step
        edges.append(edge)
    return edges[::-1]


# --- the search --------------------------------------------------------------


class Circle(NamedTuple):
    """What goes on for ever: a state, and a fair way round from it. No way: nothing more can happen."""

    state: int
    way: list[Edge]
    component: list[int]


def circles(graph: Graph) -> list[Circle]:
    """A fair circle for each component that has one, in what was explored."""
    out = [Circle(u, [], [u]) for u, enabled in enumerate(graph.enabled) if not enabled]
    ways = ((component, fair_circle(graph, component)) for component in components(graph))
    return out + [Circle(component[0], way, component) for component, way in ways if way is not None]


def shortened(graph: Graph, circle: Circle) -> Circle:
    """A shorter circle in the same component, if there is one, from the state on it that was met first."""
    way = shortest_fair_circle(graph, circle.component, len(circle.way) - 1) or circle.way
    if not way:
        return circle
    # Round a circle it is fair from wherever it is begun.
    first = min(range(len(way)), key=lambda k: way[k - 1].target)
    way = way[first:] + way[:first]
    return Circle(way[-1].target, way, circle.component)


def doomed(graph: Graph, found: Iterable[Circle]) -> set[int]:
    """The states from which some way leads into a circle."""
    back: dict[int, list[int]] = {}
    for u, edges in enumerate(graph.edges):
        for edge in edges:
            back.setdefault(edge.target, []).append(u)
    out = {u for circle in found for u in circle.component}
    todo = list(out)
    while todo:
        for u in back.get(todo.pop(), ()):
            if u not in out:
                out.add(u)
                todo.append(u)
    return out


def way_into(graph: Graph, u: int, found: Iterable[Circle]) -> tuple[list[Edge], Circle]:
    """The shortest way from a doomed state into a circle's component."""
    by_state = {v: circle for circle in found for v in circle.component}
    way = way_round(graph, set(range(len(graph.states))), (u, frozenset()), lambda v, rest: v in by_state)
    assert way is not None
    return way, by_state[way[-1].target if way else u]


def way_within(graph: Graph, u: int, circle: Circle) -> list[Edge]:
    """The shortest way from a state of a circle's component to where the circle begins."""
    way = way_round(graph, set(circle.component), (u, frozenset()), lambda v, rest: v == circle.state)
    assert way is not None
    return way


# --- the search --------------------------------------------------------------


def explore_graph(
    graph: Graph,
    roots: Iterable[World],
    limit_states: int | None = None,
    look: bool = True,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Circle]:
    """Explore from some normal states. With `look`, stop as soon as there is a fair circle."""
    for n in roots:
        graph.origins.append(graph.add(n, -1))
    shown = time.perf_counter()
    looked = 1
    level_end = len(graph.states)
    while len(graph.edges) < len(graph.states):
        if limit_states is not None and len(graph.states) >= limit_states:
            break
        graph.expand()
        if progress and time.perf_counter() - shown > PROGRESS_EVERY:
            shown = time.perf_counter()
            progress(len(graph.edges), None)
        if len(graph.edges) == level_end:
            level_end = len(graph.states)
            # Looking costs as much as exploring, so not at every level.
            if look and len(graph.edges) > 1.5 * looked:
                looked = len(graph.edges)
                if found := circles(graph):
                    return found
    return circles(graph)

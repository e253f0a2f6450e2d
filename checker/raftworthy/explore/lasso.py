"""A livelock as a lasso: a way there, and a circle that is gone round for ever.

The search knows states up to a renaming of terms. Here its steps are taken again by the Python back end, from
the first state on and in real terms. Steps that nobody would notice, such as the refusal of a vote that its
candidate has given up, are put in where they are left undone. So the circle is fair in the textbook's sense:
whatever a step would change, be it only the set of messages, it is taken or is impossible for a moment.

    s  a state     stem  the way there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raftworthy.explore.fairness import TIMEOUT, Instance, System, is_fair, key
from raftworthy.explore.liveness import Circle, Edge, Graph
from raftworthy.explore.paths import Move, Path
from raftworthy.generated import World

ROUNDS = 2  # that are written out; the second shows what changes from one to the next


@dataclass(frozen=True)
class Lasso:
    """A way there, and the first rounds of the circle; none, if in the end nothing more can happen."""

    stem: Path
    rounds: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """All of it in a row."""
        return self.stem.then(*(move for path in self.rounds for move in path.moves))

    def terms_later(self, clock: str) -> int:
        """How much later in terms a round ends."""
        if not self.rounds:
            return 0
        first, last = (highest(s, clock) for s in (self.rounds[0].start, self.rounds[0].world))
        return last - first


def highest(s: World, clock: str) -> int:
    """The highest term of any server."""
    return max(int(getattr(v, clock)) for v in s.variables.values())


class Unroller:
    """Takes the steps of a graph in real terms."""

    def __init__(self, system: System) -> None:
        self.system = system

    def walk(self, path: Path, edges: Sequence[Edge], goals: Sequence[World]) -> Path:
        """A path, and the steps that these edges stand for; after each the state is like its goal."""
        for edge, goal in zip(edges, goals, strict=True):
            if edge.action == TIMEOUT and self.system.timing.patient:
                path = self.finished(path)
            move = self._move(path.world, edge)
            path = path.then(move)
            there = self.system.renaming.normal(path.world)
            assert key(there) == key(goal), f"the renaming of terms is wrong after {len(path)} steps: {move}"
        return path

    def _move(self, s: World, edge: Edge) -> Move:
        """The newest message, if the edge stands for several."""
        params = edge.params
        if not isinstance(params[0], str):
            image = self.system.renaming.image
            like = [m for m in s.messages if type(m) is type(params[0]) and image(s, m) == params[0]]
            params = (max(like, key=lambda m: (m.term, repr(m))),)
        move = self.system.model.take(s, edge.action, params)
        assert move is not None, f"{edge.action}{params} is not possible"
        return move

    def finished(self, path: Path) -> Path:
        """The path, and all that is left to happen and nobody would notice."""
        while (move := self._unnoticed(path.world, None)) is not None:
            path = path.then(move)
        return path

    def _unnoticed(self, s: World, only: frozenset[Instance] | None) -> Move | None:
        """A fair step that changes something, but nothing that matters."""
        here = key(self.system.renaming.normal(s))
        # The newest message first: what an old one is answered is mostly what that is answered, too.
        newest = sorted(possible(self.system, s), key=lambda x: -getattr(x[1].message, "term", 0))
        for instance, move in newest:
            if (
                (only is None or instance in only)
                and instance[0] != TIMEOUT
                and key(self.system.renaming.normal(move.world)) == here
            ):
                return move
        return None

    def fair_round(self, path: Path) -> Path:
        """A round, and the steps nobody would notice that were left undone all the time."""
        while left := undone(self.system, path):
            worlds = path.worlds()
            found = ((k, self._unnoticed(s, left)) for k, s in enumerate(worlds))
            k, move = next((k, move) for k, move in found if move is not None)
            again = Path(path.start, path.moves[:k]).then(move)
            for later in path.moves[k:]:
                taken = self.system.model.take(again.world, later.action, later.params)
                assert taken is not None
                again = again.then(taken)
            path = again
        return path


# --- the textbook's fairness, on states as they are ---------------------------


def possible(system: System, s: World) -> list[tuple[Instance, Move]]:
    """The fair steps that would change anything at all, whether it matters or not."""
    return [
        (instance, move)
        for move in system.moves(s)
        if move.server not in system.timing.stopped
        and is_fair(instance := system.instance(move.action, move.params))
        and allowed(system, move.action, move.server)
        and without_count(move.world) != without_count(s)
    ]


def allowed(system: System, action: str, server: str) -> bool:
    """Whether this server's timeouts are among those that fire."""
    return action != TIMEOUT or system.timing.alone in (None, server)


def without_count(s: World) -> tuple[Any, ...]:
    """What tells states apart: not history, which no server can read."""
    return tuple(v.key() for v in s.variables.values()), s.messages


def undone(system: System, path: Path) -> frozenset[Instance]:
    """The fair steps that are possible in every state of a round, and not taken in it."""
    left = {instance for instance, _ in possible(system, path.start)}
    left -= {system.instance(move.action, move.params) for move in path.moves}
    for s in path.worlds():
        left &= {instance for instance, _ in possible(system, s)}
    return frozenset(left)


def patient(system: System, path: Path) -> bool:
    """Whether each timeout of a round comes when nothing else is left to happen."""
    before = zip(path.worlds(), path.moves, strict=False)
    return all(
        all(instance[0] == TIMEOUT for instance, _ in possible(system, s))
        for s, move in before
        if move.action == TIMEOUT
    )


# --- from a graph --------------------------------------------------------------


def unroll(graph: Graph, edges: Sequence[Edge], circle: Circle, stem: Path) -> Lasso:
    """The lasso that a circle stands for. `edges` lead to it from where the stem ends."""
    unroller = Unroller(graph.system)
    stem = unroller.walk(stem, edges, [graph.states[e.target] for e in edges])
    if not circle.way:
        lasso = Lasso(unroller.finished(stem), ())
    else:
        goals = [graph.states[e.target] for e in circle.way]
        rounds: list[Path] = []
        while len(rounds) < ROUNDS or len({_shape(around) for around in rounds}) > 1:
            at = rounds[-1].world if rounds else stem.world
            rounds.append(unroller.fair_round(unroller.walk(Path(at), circle.way, goals)))
            if len(rounds) > ROUNDS:  # what had to be caught up with in the first round isn't repeated
                stem = stem.then(*rounds.pop(0).moves)
        lasso = Lasso(stem, tuple(rounds))
    assert_fair(graph.system, lasso)
    return lasso


def _shape(around: Path) -> tuple[tuple[str, str], ...]:
    """Who does what in a round."""
    return tuple((move.action, move.server) for move in around.moves)


def assert_fair(system: System, lasso: Lasso) -> None:
    """The lasso is what it is said to be: no state is good, each round is fair and ends where it began."""
    assert not any(map(system.goal, lasso.path.worlds())), "the goal was reached"
    if not lasso.rounds:
        assert not possible(system, lasso.stem.world), "something can still happen"
    normal = system.renaming.normal
    for around in lasso.rounds:
        assert not undone(system, around), f"left undone: {undone(system, around)}"
        assert key(normal(around.start)) == key(normal(around.world)), "not a circle"
        moves = {(move.action, move.server) for move in around.moves}
        assert all(allowed(system, action, server) for action, server in moves), "a timeout that doesn't fire"
        assert not system.timing.patient or patient(system, around), "a timeout that is too soon"

"""A way that was found with choices left open, as steps of the specification that was asked about.

There a step may take others before it, which change nothing that the answer depends on: who stands for
election has to have asked whether it would be elected, and maybe long before, when its log was as good as
others'. Those are looked for, breadth first, late ones first. A step for which there are none is left out,
such as that a server that lags stands for election: if it hears of the newer term, that will do.

    s, t  states     m  a message
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from raftspec.types import VALUE
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move, Path
from raftworthy.explore.walking import follow, shorten
from raftworthy.generated import World
from raftworthy.native.expanding import Taken, needed, settle
from raftworthy.reduce.choices import Needs
from raftworthy.reduce.permits import nothing

MOST_TRIED = 100  # states after steps that change nothing, at each place
MOST_IN_ALL = 3_000  # of them; then only the latest place is tried
EVERYTHING = nothing("a way is looked for")


class Way(NamedTuple):
    """Where steps that were taken lead."""

    s: World
    taken: tuple[Taken, ...] = ()

    def then(self, move: Move) -> Way:
        t = move.world
        return Way(t, (*self.taken, Taken(move, t.messages - self.s.messages, sends=False)))


def narrowed(model: Model, needs: Needs, start: World, found: Path, p: str) -> Path | None:
    """A way on which p fails, no single step of which can be left out; None if none was found."""
    search = _Search(model, needs)
    ways = [Way(start)]  # before each step, and after the last
    moves: list[Move] = []
    for move in found.moves:
        earliest = 0 if search.tried < MOST_IN_ALL else len(moves)
        for place in range(len(moves), earliest - 1, -1):
            if after := search.prepared(ways[place], [*moves[place:], move]):
                moves.append(move)
                ways[place + 1 :] = after
                break
    path = follow(model, Path(start), needed([*ways[-1].taken]), p)
    return shorten(model, path, p) if path else None


class _Search:
    """Looks for steps that make others possible."""

    def __init__(self, model: Model, needs: Needs) -> None:
        self.model, self.needs = model, needs
        self.tried = 0  # states

    def prepared(self, way: Way, moves: list[Move]) -> list[Way]:
        """The ways past each of these steps, after the fewest others; none if they aren't possible."""
        ways, seen = deque([way]), {way.s}
        while ways:
            way = self._settled(ways.popleft())
            if after := self._past(way, moves):
                return after
            for move in self.model.moves(way.s):
                t = move.world
                of_use = move.message is None or move.server == moves[-1].server
                if of_use and t not in seen and len(seen) < MOST_TRIED and self._changes_nothing(way.s, t):
                    seen.add(t)
                    self.tried += 1
                    ways.append(way.then(move))
        return []

    def _past(self, way: Way, moves: list[Move]) -> list[Way]:
        """The ways past each of these steps."""
        after = []
        for wanted in moves:
            way = self._settled(way)
            move = next((m for m in self.model.moves(way.s) if self._does(m, wanted)), None)
            if move is None:
                return []
            after.append(way := way.then(move))
        return after

    def _settled(self, way: Way) -> Way:
        """A way after which all is sent."""
        taken: list[Taken] = []
        s = settle(self.model, EVERYTHING, way.s, taken)
        return Way(s, (*way.taken, *taken))

    def _does(self, move: Move, wanted: Move) -> bool:
        """Whether a step is the one that is wanted, as far as that matters."""
        if move.action != wanted.action:
            return False
        m, of = move.message, wanted.message
        if m is None:
            types = self.model.spec.actions[move.action].params.values()
            pairs = zip(types, move.params, wanted.params, strict=True)
            return all(x == y for t, x, y in pairs if t != VALUE)  # commands are numbered as they come
        if of is None:
            return (m.target, m.source) == wanted.params
        kind = self.model.spec.actions[move.action].message
        assert kind is not None
        return all(getattr(m, f) == getattr(of, f) for f in self.needs.fields[kind])

    def _changes_nothing(self, s: World, t: World) -> bool:
        """Whether a step has changed nothing that is needed."""
        pairs = [(s.variables[i], v) for i, v in t.variables.items() if v is not s.variables[i]]
        return t.past.same(s.past) and all(v.same(w, self.needs.variables) for v, w in pairs)

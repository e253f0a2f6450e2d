"""A path of a reduced search, as the steps of the specification that it stands for.

Each step is taken by the Python back end on the unreduced specification. Before it, everything is sent that
a step can send that does nothing else, messages are handled that the search handles at once, and the server
that acts catches up, if it lags; what turns out not to be needed is left out again.

    s, t  states     m  a message
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move, Path
from raftworthy.explore.walking import follow, shorten
from raftworthy.generated import World
from raftworthy.native.program import Program
from raftworthy.native.search import Search, rows_of, split
from raftworthy.native.storage import Disk
from raftworthy.native.team import Team
from raftworthy.reduce.permits import Permits

MEMORY = 1 << 28


class SpuriousError(AssertionError):
    """The steps of a reduced search are none of the specification: too much was taken to be sent."""


class Taken(NamedTuple):
    """A step that was taken, what it sent that was new, and whether it only sends."""

    move: Move
    new: frozenset[Any]
    sends: bool


class Chosen(NamedTuple):
    """A step of a reduced search, and the clock that its server had there."""

    action: str
    params: tuple[Any, ...]
    clock: int


def genuine(model: Model, program: Program, start: World, steps: Iterable[tuple[int, int]], p: str) -> Path:
    """A path to where p fails, from the steps of a reduced search; no single step of it can be left out.

    Raises:
        SpuriousError: there is none.
    """
    assert program.reduction is not None
    permits = program.reduction.permits
    taken: list[Taken] = []
    s = start

    def take(action: str, params: tuple[Any, ...]) -> bool:
        nonlocal s
        move = model.take(s, action, params)
        if move is not None:
            taken.append(Taken(move, move.world.messages - s.messages, False))
            s = move.world
        return move is not None

    for step in _chosen(program, start, list(steps)):
        s = settle(model, permits, s, taken)
        first = step.params[0]
        i = first if isinstance(first, str) else first.target
        if permits.clock and permits.catch_up:
            while getattr(s.variables[i], permits.clock[0]) < step.clock and take(permits.catch_up, (i,)):
                pass
        take(step.action, _real(step.params, s))
    settle(model, permits, s, taken)
    path = follow(model, Path(start), needed(taken), p)
    if path is None:
        raise SpuriousError(f"the search found that {p} fails, and the specification doesn't")
    return shorten(model, path, p)


def _chosen(program: Program, start: World, steps: list[tuple[int, int]]) -> Iterator[Chosen]:
    """What a reduced search did: its states are made once more, one by one."""
    lay = program.layout
    assert program.reduction is not None
    clock = program.reduction.permits.clock
    row = program.rows.pack(lay.pack(start), [lay.pack_message(m) for m in sorted(start.messages, key=repr)])
    for number, (action, ordinal) in enumerate(steps):
        team = Team(program.functions, range(1), 1, MEMORY, Disk())
        search = Search(program, team)
        try:
            search.begin_at(row)
            ((words, messages),) = rows_of(program, team)
            t, here = program.transitions[action], lay.unpack(words, ())
            if t.action.message:
                m = lay.unpack_message(messages[ordinal])
                params, i = (m,), m.target
            else:
                params = program.params(t, ordinal, f"c{here.past.commands + 1}")
                i = params[0]
            yield Chosen(t.name, params, getattr(here.variables[i], clock[0]) if clock else 0)
            if number + 1 < len(steps):
                row = program.rows.pack(*_after(search, team, (action, ordinal)))
        finally:
            team.close()


def _after(search: Search, team: Team, move: tuple[int, int]) -> tuple[list[int], list[int]]:
    """The state after a move from the only one of a search's level."""
    found = search.round(1 << 62)
    assert found is None, found
    search.descend()
    for number, row in enumerate(rows_of(search.program, team), 1):
        step = team.step(0, number)
        assert step is not None
        if split(step[1]) == move:
            return row
    raise AssertionError("a state was reached by a step that doesn't lead to it")


def _real(params: tuple[Any, ...], s: World) -> tuple[Any, ...]:
    """The parameters, with a message that was really sent for one of which only the sender is known."""
    m = params[0]
    if isinstance(m, str) or m in s.messages:
        return params
    alike = [x for x in s.messages if (type(x), x.source, x.target) == (type(m), m.source, m.target)]
    return (min(alike, key=lambda x: (x.term, repr(x))),) if alike else params


def settle(model: Model, permits: Permits, s: World, taken: list[Taken]) -> World:
    """Take every step that only sends, or that handles what is handled at once, until nothing is new."""
    again = True
    while again:
        again = False
        for action, params in list(model.choices(s)):
            move = model.take(s, action, params)
            if move is None or move.world == s:
                continue
            t = move.world
            sends = t.past.same(s.past) and all(t.variables[i].same(v) for i, v in s.variables.items())
            if sends or (move.message is not None and _absorbs(permits, s, move.message)):
                taken.append(Taken(move, t.messages - s.messages, sends))
                s, again = t, True
    return s


def _absorbs(permits: Permits, s: World, m: Any) -> bool:
    """Whether the search handles a message at once."""
    if permits.clock is None or type(m).__name__ not in permits.absorbed:
        return False
    clocks = {i: getattr(v, permits.clock[0]) for i, v in s.variables.items()}
    return bool(clocks[m.target] == max(clocks.values()) == getattr(m, permits.clock[1]))


def needed(taken: list[Taken]) -> list[tuple[str, tuple[Any, ...]]]:
    """The steps without those that only send what nobody receives."""
    out: list[tuple[str, tuple[Any, ...]]] = []
    received: set[Any] = set()
    for step in reversed(taken):
        if not step.sends or step.new & received:
            received -= step.new
            if step.move.message is not None:
                received.add(step.move.message)
            out.append((step.move.action, step.move.params))
    return out[::-1]

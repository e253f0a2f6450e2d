"""Breadth first by a crew, each of whom owns a range of fingerprints, a shard; nothing is locked.

A crew are the threads of a `team` or the processes of a `cluster`. A level is done in rounds. First each
expands some of its rows. Threads share their tables and keep what they are the first to find, so it depends
on who is faster by which of several paths of the same length a state is known. Processes write down for each
other what is in another's range. When all have finished, each takes up what others have written down for it,
unless it has come upon that itself meanwhile. How many rows a round of theirs has depends on each shard
alone; so the same number of processes, or one thread, always finds the same path.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.context import ACTION_BITS, ORDINAL_BITS, Stop
from raftworthy.native.program import Program
from raftworthy.native.shard import Tally
from raftworthy.native.storage import Disk
from raftworthy.native.team import Team, Work

WORST_FIRST = (Stop.MISFIT, Stop.CROWDED, Stop.VIOLATED)


class LostError(Exception):
    """One of the crew is gone, with all that wasn't on its disk."""


class Crew(Protocol):
    """Those who search. Each answer has a tally of every shard, in their order.

    Anything but `recover` and `close` raises LostError, if one of them is lost.
    """

    size: int  # how many shards there are
    round: int  # rows of each shard that are expanded in a round, if nobody says otherwise

    def begin(self, row: bytes) -> list[Tally]:
        """Put in the first state, where it belongs."""

    def expand(self, rows: int, limits: list[int]) -> list[Tally]:
        """Go on with the level at hand, each for so many rows or until it has so many states."""

    def exchange(self) -> list[Tally]:
        """Have each take up what others found for it."""

    def descend(self) -> tuple[int, list[Tally]]:
        """Take the next level; how many states it has."""

    def step(self, shard: int, number: int) -> tuple[int, int] | None:
        """How a state was reached: the one before, and the step; None: it is the first."""

    def save(self, number: int) -> list[dict[str, Any]]:
        """Have everything on disk, for good; what a checkpoint has to know of each shard."""

    def keep(self, saved: list[dict[str, Any]]) -> None:
        """Remove what only older checkpoints need: this one is in its place."""

    def load(self, saved: list[dict[str, Any]]) -> list[Tally]:
        """Take up what `save` said."""

    def recover(self) -> None:
        """Put others in the place of those who are lost; after it comes `begin` or `load`."""

    def clear(self) -> None:
        """Remove all files: there is nothing to go on from any more."""

    def written(self) -> int:
        """Bytes written to disk."""

    def work(self) -> tuple[Work, ...]:
        """What each process of a cluster has done."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class Found:
    """Why a search ended early: where, by which step, and which property this breaks, from 1."""

    why: Stop
    shard: int
    parent: int
    move: tuple[int, int]
    property: int


class Search:
    """A search as it stands: the level at hand, the next one, and all that was seen."""

    def __init__(self, program: Program, crew: Crew) -> None:
        assert crew.size == 1 or not program.exact
        self.program, self.crew = program, crew
        self.tallies: list[Tally] = []
        self.frontier = 0
        self.depth = 0

    # --- how far it is ---

    @property
    def distinct(self) -> int:
        return sum(t.distinct for t in self.tallies)

    @property
    def steps(self) -> int:
        return sum(t.steps for t in self.tallies)

    @property
    def peak_memory(self) -> int:
        return sum(t.peak_memory for t in self.tallies)

    @property
    def table_bytes(self) -> int:
        return sum(t.table_bytes for t in self.tallies)

    # --- the search ---

    def begin(self, s: World) -> None:
        """Put in the first state."""
        lay = self.program.layout
        row = self.program.rows.pack(lay.pack(s), [lay.pack_message(m) for m in sorted(s.messages, key=repr)])
        self.begin_at(row)

    def begin_at(self, row: bytes) -> None:
        """Put in the first state, as a row."""
        self.tallies, self.depth = self.crew.begin(row), 0
        self.descend()

    def round(self, limit: int, rows: int | None = None) -> Found | None:
        """Expand some rows, unless there are `limit` states; what ended the search, if something did."""
        share = -(-max(limit - self.distinct, 0) // self.crew.size)
        self.tallies = self.crew.expand(rows or self.crew.round, [t.found + share for t in self.tallies])
        for why in WORST_FIRST:
            for t in self.tallies:
                if t.stop is why:
                    return Found(why, t.shard, t.parent, split(t.move), t.property)
        self.tallies = self.crew.exchange()
        return None

    @property
    def level_done(self) -> bool:
        return not any(t.left for t in self.tallies)

    def descend(self) -> None:
        """Take the next level."""
        self.frontier, self.tallies = self.crew.descend()

    def steps_to(self, shard: int, number: int) -> list[tuple[int, int]]:
        """The action and the choice of each step to a state, by its shard and its number there."""
        steps = []
        while (found := self.crew.step(shard, number)) is not None:
            parent, move = found
            steps.append(split(move))
            number, shard = divmod(parent, self.crew.size)
        return steps[::-1]


def split(step: int) -> tuple[int, int]:
    """The action and the choice that a step's word names."""
    return step >> ORDINAL_BITS & (1 << ACTION_BITS) - 1, step & (1 << ORDINAL_BITS) - 1


def rows_of(program: Program, team: Team) -> Iterator[tuple[list[int], list[int]]]:
    """The words and the messages of each state of the level at hand, as far as it is in memory."""
    for shard in team.shards:
        for piece in shard.level.pieces:
            assert piece.array is not None
            data, at = memoryview(piece.array[: piece.used].tobytes()), 0
            while at < len(data):
                words, messages, size = program.rows.parse(data[at:])
                yield words, messages
                at += size


def successors(program: Program, s: World) -> set[World]:
    """The states after one step, other than s itself. If a property fails, those up to that step."""
    team = Team(program.functions, range(1), 1, 1 << 30, Disk())
    search = Search(program, team)
    try:
        search.begin(s)
        search.round(1 << 62)
        search.descend()
        lay = program.layout
        return {lay.unpack(words, messages) for words, messages in rows_of(program, team)}
    finally:
        team.close()


def refuse(found: Found, program: Program) -> NoPlaceError:
    """What to say of a state that has no place."""
    if found.why is Stop.CROWDED:
        return NoPlaceError(f"a state has more than {program.rows.most_messages} messages")
    action = program.transitions[found.move[0]].name
    bounds = program.layout.bounds
    return NoPlaceError(f"{action} makes a value beyond the bounds ({bounds}); try: --engine python")


@contextlib.contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask to stop instead of stopping; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The native search: breadth first, a level at a time, states known by 64-bit fingerprints.

Finds what the reference explorer finds, within the same bounds, and gives the same results. A
counterexample is rebuilt from the steps that were written down for each new state, and taken again
by the Python back end before anybody sees it.

Memory: at most 15 bytes a state for the fingerprints, 8 for how it was reached, and the two
levels at hand. One thread; the table's places are in the order of fingerprints, so that
threads could each own a range.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt

from raftworthy.explore.reference import (
    EXHAUSTED,
    PROGRESS_EVERY,
    VIOLATED,
    Model,
    Path,
    Progress,
    Result,
    Violation,
)
from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.program import ACTION_BITS, ORDINAL_BITS, PARENT_SHIFT, At, Program, Stop

Words = npt.NDArray[np.uint64]

PAUSE_ROWS = 20_000  # between two looks at the clock
FULL = 0.75  # of the table's places, before it grows
GROWTH = 1.4  # so that it is never less than half full once it is large
FIRST_TABLE = 1 << 16
SMALLEST_PIECE, LARGEST_PIECE = 1 << 14, 1 << 22  # words of a level's memory


@dataclass(frozen=True)
class NativeResult(Result):
    """What a native search found, and what it took."""

    memory: int = 0  # bytes, at most
    table_memory: int = 0  # bytes, for the fingerprints in the end
    prepared: float = 0.0  # seconds until the functions were there
    cached: bool = False  # whether they were found on disk


class _Memory:
    """Counts what is allocated, and says when it is too much."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.peak = 0
        self._spare: list[Words] = []  # large pieces that were used; new ones would have to be cleared

    def allocate(self, words: int, zeros: bool = False) -> Words:
        if words == LARGEST_PIECE and self._spare and not zeros:
            return self._spare.pop()
        size = words * 8
        while self._spare and self.used + size > self.limit:
            self.used -= self._spare.pop().nbytes
        if self.used + size > self.limit:
            raise MemoryError
        self.used += size
        self.peak = max(self.peak, self.used)
        return np.zeros(words, np.uint64) if zeros else np.empty(words, np.uint64)

    def free(self, array: Words) -> None:
        if len(array) == LARGEST_PIECE:
            self._spare.append(array)
        else:
            self.used -= array.nbytes


def memory_to_use() -> int:
    """Three quarters of what the machine has free."""
    try:
        lines = FilePath("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30
    return free * 3 // 4


class Search:
    """A search as it stands: the table, the level at hand, the next one, and how each state was reached."""

    def __init__(self, program: Program, memory: _Memory) -> None:
        self.program = program
        self.memory = memory
        self.context: Words = np.zeros(program.context_words, np.uint64)
        self.table: Words = memory.allocate(FIRST_TABLE, zeros=True)
        self.level: list[tuple[Words, int]] = []  # memory, and how much of it is used
        self.next: list[tuple[Words, int]] = []
        self.trails: list[tuple[int, Words]] = []  # the number of the first state, and its steps
        self.frontier = 0
        self._use_table()

    def at(self, place: At) -> int:
        return int(self.context[place])

    @property
    def distinct(self) -> int:
        return self.at(At.TABLE_USED)

    def begin(self, s: World) -> None:
        """Put in the first state."""
        lay, p = self.program.layout, self.program
        self.messages = sorted(s.messages, key=repr)
        row: Words = self.memory.allocate(p.row_fixed + len(s.messages) + 1, zeros=True)
        row[0] = len(s.messages)
        row[p.row_head : p.row_fixed] = lay.pack(s)
        row[p.row_fixed :].view(p.message_view)[: len(s.messages)] = [
            lay.pack_message(m) for m in self.messages
        ]
        p.run_start(self.context.ctypes.data, row.ctypes.data)
        used = p.row_fixed + -(-len(s.messages) // p.messages_a_word)
        self.level = [(row, used)]
        self.frontier = 1

    def expand(self, budget: int, limit: int) -> Stop:
        """Go on with the level at hand, for so many states or until there are `limit`."""
        c = self.context
        c[At.BUDGET], c[At.STATES_LIMIT] = budget, limit
        while self.level:
            rows, used = self.level[0]
            c[At.ROWS], c[At.ROWS_END] = rows.ctypes.data, used
            stop = Stop(self.program.run_expand(c.ctypes.data))
            if stop is Stop.ROOM:
                self._make_room()
            elif stop is Stop.DONE:
                self.memory.free(rows)
                self.level.pop(0)
                c[At.ROWS_AT] = 0
            else:
                return stop
        return Stop.DONE

    def descend(self) -> None:
        """Take the next level."""
        self._close()
        known = self.distinct
        self.frontier = known - self.at(At.PARENT)
        self.level, self.next = self.next, []
        self.context[At.NEXT_ROOM] = self.context[At.NEXT_USED] = 0

    def steps_to(self, number: int) -> list[tuple[int, int]]:
        """The action and the choice of each step to a state, by its number."""
        self._close_trail()
        steps = []
        starts = [first for first, _ in self.trails]
        while number:
            first, trail = self.trails[bisect.bisect_right(starts, number) - 1]
            step = int(trail[number - first])
            steps.append(_split(step))
            number = step >> PARENT_SHIFT
        return steps[::-1]

    # --- memory ---

    def _make_room(self) -> None:
        c, words, states = self.context, self.at(At.NEED_WORDS), self.at(At.NEED_STATES)
        if self.at(At.NEXT_ROOM) - self.at(At.NEXT_USED) < words:
            self._close()
            size = max(SMALLEST_PIECE, min(LARGEST_PIECE, self.at(At.TABLE_USED)), words)
            piece = self.memory.allocate(size)
            self.next.append((piece, 0))
            c[At.NEXT], c[At.NEXT_ROOM], c[At.NEXT_USED] = piece.ctypes.data, size, 0
        if self.at(At.TRAIL_ROOM) - self.at(At.TRAIL_USED) < states:
            self._close_trail()
            size = max(1 << 12, min(1 << 22, self.distinct // 4), states)
            trail = self.memory.allocate(size)
            self.trails.append((self.distinct, trail))
            c[At.TRAIL], c[At.TRAIL_ROOM], c[At.TRAIL_USED] = trail.ctypes.data, size, 0
        if self.at(At.TABLE_LIMIT) - self.at(At.TABLE_USED) < states:
            old = self.table
            size = int(len(old) * GROWTH) + 2 * states
            self.table = self.memory.allocate(size, zeros=True)
            self._use_table()
            self.program.run_rehash(c.ctypes.data, old.ctypes.data, len(old))
            self.memory.free(old)

    def _use_table(self) -> None:
        c = self.context
        c[At.TABLE], c[At.TABLE_SIZE] = self.table.ctypes.data, len(self.table)
        c[At.TABLE_LIMIT], c[At.TABLE_USED] = int(len(self.table) * FULL), 0

    def _close(self) -> None:
        """Note how much of the next level's last piece is used."""
        if self.next:
            self.next[-1] = (self.next[-1][0], self.at(At.NEXT_USED))

    def _close_trail(self) -> None:
        """Note how much of the trail's last piece is used."""
        if self.trails:
            first, trail = self.trails[-1]
            self.trails[-1] = (first, trail[: self.at(At.TRAIL_USED)])


def successors(program: Program, s: World) -> set[World]:
    """The states after one step, other than s itself. If a property fails, those up to that step."""
    search = Search(program, _Memory(1 << 30))
    search.begin(s)
    search.expand(1, 1 << 62)
    search.descend()
    out = set()
    for rows, used in search.level:
        at = 0
        while at < used:
            messages = int(rows[at])
            words = [int(x) for x in rows[at + program.row_head : at + program.row_fixed]]
            at += program.row_fixed
            kept = rows[at:].view(program.message_view)[:messages]
            out.add(program.layout.unpack(words, map(int, kept)))
            at += -(-messages // program.messages_a_word)
    return out


def _split(step: int) -> tuple[int, int]:
    """The action and the choice that a step's word names."""
    return step >> ORDINAL_BITS & (1 << ACTION_BITS) - 1, step & (1 << ORDINAL_BITS) - 1


def retrace(
    model: Model, program: Program, start: World, messages: list[Any], steps: Iterable[tuple[int, int]]
) -> Path:
    """The path that these choices make, taken by the Python back end."""
    path, sent = Path(start), list(messages)
    for number, ordinal in steps:
        t = program.transitions[number]
        if t.action.message:
            params = (sent[ordinal],)
        else:
            params = program.params(t, ordinal, f"c{path.world.past.commands + 1}")
        move = model.take(path.world, t.name, params)
        if move is None:
            raise AssertionError(f"the two back ends disagree: {t.name}{params} is not possible")
        path = path.then(move)
        sent += [m for m in dict.fromkeys(move.sent) if m not in sent]
    return path


def explore_native(
    model: Model,
    *,
    properties: Iterable[str] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    limit_memory: int | None = None,
    start: Path | World | None = None,
) -> NativeResult:
    """As `explore.explore_model`, by the native engine; `limit_memory` is in bytes.

    Raises:
        NoPlaceError: a value of the model has no place in this engine's words.
        UnusableError: a property is not known.
    """
    spec, bounds, mutant = model.spec, model.bounds, model.mutant
    wanted = model.properties(properties)
    prefix = start if isinstance(start, Path) else Path(start or model.generated.initial())
    compiling = time.perf_counter()
    program = Program(model, wanted, symmetry)
    began = time.perf_counter()
    memory = _Memory(limit_memory if limit_memory is not None else memory_to_use())
    search = Search(program, memory)
    depth = 0

    def result(stopped: str, violation: Violation | None = None) -> NativeResult:
        distinct = search.distinct
        return NativeResult(
            bounds, model.without, mutant.name if mutant else None, symmetry, search.at(At.STEPS), distinct,
            depth, time.perf_counter() - began, stopped, violation,
            collision=distinct**2 / 2**65, memory=memory.peak, table_memory=search.table.nbytes,
            prepared=began - compiling, cached=program.cached,
        )  # fmt: skip

    def broken(name: str, steps: list[tuple[int, int]]) -> NativeResult:
        again = retrace(model, program, prefix.world, search.messages, steps)
        claim = model.generated.properties[name]
        states = again.worlds()[-spec.properties[name].states :]
        assert not claim(*states), f"the two back ends disagree: {name} holds"
        return result(VIOLATED, Violation(name, spec.properties[name].doc, prefix.then(*again.moves)))

    search.begin(prefix.world)
    for name in program.invariants:
        if not model.generated.properties[name](prefix.world):
            return broken(name, [])
    shown = began
    limit = limit_states if limit_states is not None else 1 << 62
    while search.frontier:
        try:
            stop = search.expand(PAUSE_ROWS, limit)
        except MemoryError:
            return result(f"stopped at the limit of {memory.limit / 1e9:.1f} GB of memory")
        if stop is Stop.VIOLATED:
            depth += 1
            name = [*program.invariants, *program.step_properties][search.at(At.PROPERTY) - 1]
            steps = [*search.steps_to(search.at(At.PARENT)), _split(search.at(At.MOVE))]
            return broken(name, steps)
        if stop is Stop.MISFIT:
            action = program.transitions[_split(search.at(At.MOVE))[0]].name
            raise NoPlaceError(f"{action} makes a value beyond the bounds ({bounds}); try: --engine python")
        if search.distinct >= limit:
            return result(f"stopped at the limit of {limit_states} states")
        now = time.perf_counter()
        if progress and now - shown > PROGRESS_EVERY:
            shown = now
            progress(Progress(search.at(At.STEPS), search.distinct, depth, search.frontier, now - began))
        if stop is Stop.DONE:
            search.descend()
            depth += bool(search.frontier)
    return result(EXHAUSTED)

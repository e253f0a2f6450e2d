"""Is a history linearizable? Each key by itself, the short ones first, all within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raftworthy.linearize.explain import Explanation, explain
from raftworthy.linearize.history import IMPOSSIBLE, History, Impossible, Operation, Value, after
from raftworthy.linearize.search import Search

Verdict = Literal["linearizable", "not linearizable", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"linearizable": 0, "not linearizable": 1, "undecided": 2}

SLICE = 2_000  # steps; a key gets one in its first turn, and twice as many in each further one
EXPLAINING = 10.0  # seconds for looking for fewer operations
MAX_CONFIGURATIONS = 8_000_000  # some 2 GB

Progress = Callable[[int, int | None], None]


@dataclass
class Result:
    """What came of a history."""

    verdict: Verdict
    operations: int
    clients: int
    unknown: int  # operations whose outcome nobody knows
    left_out: int
    skipped: int
    keys: int
    not_linearizable: list[str]  # the keys in question
    undecided: list[str]
    configurations: int
    seconds: float
    explanation: Explanation | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def __str__(self) -> str:
        unknown = f", {self.unknown:,} of unknown outcome" if self.unknown else ""
        lines = [] if self.explanation is None else [str(self.explanation)]
        lines += [
            f"{_count(self.operations, 'operation')} of {_count(self.clients, 'client')} on "
            f"{_count(self.keys, 'key')}{unknown}; {_count(self.configurations, 'configuration')} in "
            f"{self.seconds:.2f} s"
        ]
        if self.left_out:
            lines.append(f"left out: {self.left_out:,} that had no effect, or reads without an answer")
        if self.skipped:
            lines.append(f"skipped: {self.skipped:,} lines that are no client's")
        if len(self.not_linearizable) > 1:
            lines.append(f"not linearizable: {_some(self.not_linearizable)}")
        if self.undecided:
            lines.append(f"undecided: {_some(self.undecided)}; give more --seconds")
        return "\n".join([*lines, self.verdict])

    def as_data(self) -> dict[str, Any]:
        explanation = None if self.explanation is None else self.explanation.as_data()
        return {**vars(self), "explanation": explanation}


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _some(keys: Sequence[str]) -> str:
    return f"{_count(len(keys), 'key')}, {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"


@dataclass
class _Key:
    """One key's part of a history, and how far its search is."""

    name: str
    operations: list[Operation]
    search: Search | None = None
    answer: bool | None = None
    deepest: int = 0
    configurations: int = 0

    def run(self, steps: int, initial: Value) -> None:
        """Search on; an order that is found is replayed, and the search's memory is given back."""
        if self.search is None:
            self.search = Search(self.operations, initial)
        self.answer = self.search.run(steps)
        self.deepest, self.configurations = self.search.deepest, self.search.configurations
        if self.answer:
            replay(self.operations, self.search.order, initial)
        if self.answer is not None:
            self.search = None


def check(
    history: History,
    seconds: float = 60.0,
    progress: Progress = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Look for an order of every key's operations, and explain the shortest for which there is none.

    An order that is found is replayed. `seconds` is for the search; explaining takes a few more.
    """
    start = clock()
    keys = [_Key(name, ops) for name, ops in history.by_key().items()]
    keys.sort(key=lambda key: len(key.operations))
    _search(keys, history.initial, start + seconds, progress, clock)
    bad = [key for key in keys if key.answer is False]
    open_ = [key for key in keys if key.answer is None]
    explanation = None
    if bad:
        until = clock() + min(seconds, EXPLAINING)
        explanation = explain(bad[0].operations, bad[0].deepest, history.initial, lambda: clock() > until)
    return Result(
        "not linearizable" if bad else "undecided" if open_ else "linearizable",
        len(history.operations),
        len({op.client for op in history.operations}),
        sum(op.returned is None for op in history.operations),
        history.left_out,
        history.skipped,
        len(keys),
        [key.name for key in bad],
        [key.name for key in open_],
        sum(key.configurations for key in keys),
        clock() - start,
        explanation,
    )


def _search(
    keys: list[_Key], initial: Value, deadline: float, progress: Progress, clock: Callable[[], float]
) -> None:
    """Search in turns, so that one hard key doesn't keep the others from an answer."""
    total = sum(len(key.operations) for key in keys)
    waiting, slices = keys, 1
    passed = configurations = 0
    while waiting:
        for key in waiting:
            for _ in range(slices):
                if clock() > deadline or configurations > MAX_CONFIGURATIONS:
                    return
                passed -= key.deepest
                configurations -= key.configurations
                key.run(SLICE, initial)
                passed += key.deepest
                configurations += key.configurations
                progress(passed, total)
                if key.answer is not None:
                    break
        waiting, slices = [key for key in waiting if key.answer is None], 2 * slices


def replay(operations: Sequence[Operation], order: Sequence[Operation], initial: Value) -> None:
    """Take an order that the search found once more, without any of its shortcuts.

    Raises:
        AssertionError: it isn't one, which would be a bug.
    """
    state: Value | Impossible = initial
    latest = -1  # of the invokes so far: who comes later must not have returned before
    for op in order:
        assert op.returned is None or op.returned > latest, f"{op} had returned before"
        latest = max(latest, op.invoked)
        assert not isinstance(state, Impossible)
        state = after(op.effect, state)
        assert state is not IMPOSSIBLE, f"{op} is not possible here"
    known = {id(op) for op in operations if op.returned is not None}
    ordered = {id(op) for op in order}
    assert known <= ordered
    assert len(order) == len(ordered)

"""Is a history linearizable? Each key by itself, the short ones first, all within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from raftworthy.linearize.explain import Explanation, explain
from raftworthy.linearize.history import IMPOSSIBLE, History, Impossible, Operation, Value, after
from raftworthy.linearize.search import Search

Verdict = Literal["linearizable", "not linearizable", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"linearizable": 0, "not linearizable": 1, "undecided": 2}

FIRST_SLICE = 2_000  # steps that a key gets in its first turn, and twice as many in each further one
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
    orders: dict[str, list[Operation]] = field(default_factory=dict)  # the order found, by key

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
        data = {name: value for name, value in vars(self).items() if name not in ("orders", "explanation")}
        data["explanation"] = None if self.explanation is None else self.explanation.as_data()
        return data


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _some(keys: Sequence[str]) -> str:
    return f"{_count(len(keys), 'key')}, {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"


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
    keys = history.by_key()
    searches = _search_all(keys, history.initial, start + seconds, progress, clock)
    results = {key: result for key, (_, result) in searches.items()}
    orders = {key: search.order for key, (search, result) in searches.items() if result}
    for key, order in orders.items():
        replay(keys[key], order, history.initial)
    bad = [key for key, result in results.items() if result is False]
    open_ = [key for key, result in results.items() if result is None]
    explanation = None
    if bad:
        key = min(bad, key=lambda key: len(keys[key]))
        until = clock() + min(seconds, EXPLAINING)
        explanation = explain(keys[key], searches[key][0].deepest, history.initial, lambda: clock() > until)
    return Result(
        "not linearizable" if bad else "undecided" if open_ else "linearizable",
        len(history.operations),
        len({op.client for op in history.operations}),
        sum(op.returned is None for op in history.operations),
        history.left_out,
        history.skipped,
        len(keys),
        bad,
        open_,
        sum(search.configurations for search, _ in searches.values()),
        clock() - start,
        explanation,
        orders,
    )


def _search_all(
    keys: dict[str, list[Operation]],
    initial: Value,
    deadline: float,
    progress: Progress,
    clock: Callable[[], float],
) -> dict[str, tuple[Search, bool | None]]:
    """Search in turns, so that one hard key doesn't keep the others from an answer."""
    total = sum(op.returned is not None for ops in keys.values() for op in ops)
    found: dict[str, tuple[Search, bool | None]] = {}
    waiting = sorted(keys, key=lambda key: len(keys[key]))
    steps, passed, configurations = FIRST_SLICE, 0, 0
    while waiting:
        again = []
        for key in waiting:
            search = found[key][0] if key in found else Search(keys[key], initial)
            before, size = search.deepest, search.configurations
            result = None
            for _ in range(0, steps, FIRST_SLICE):
                if clock() > deadline or configurations > MAX_CONFIGURATIONS:
                    break
                result = search.run(FIRST_SLICE)
                if result is not None:
                    break
            found[key] = (search, result)
            if result is None:
                again.append(key)
            passed += search.deepest - before
            configurations += search.configurations - size
            progress(passed, total)
        if clock() > deadline or configurations > MAX_CONFIGURATIONS:
            break
        waiting, steps = again, 2 * steps
    return found


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

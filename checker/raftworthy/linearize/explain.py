"""Why a key's operations have no order: a few of them that have none, and how they lie in time.

What is left out of the few is not merely forgotten: that a read can't be explained without its write would
prove nothing. A read that is left out makes no demand; a write may take effect at any time, or never. If
there is no order even then, there is none.

The history is cut at the first return after which no order exists. Usually what returned there has found
a value that can't be there, which is quickly seen. If not, QuickXplain (Junker 2004) finds a set of
operations from which none can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raftworthy.linearize.drawing import draw
from raftworthy.linearize.history import Operation, Value
from raftworthy.linearize.reference import find_order
from raftworthy.linearize.search import Search, noticed
from raftworthy.linearize.telling import Reason, tell, usual_reason

STEPS = 5_000  # for one set of operations; a set that needs more counts as one that may have an order
FIRST_WINDOW = 8
MOST_PLAIN = 7  # operations of which a plain search can look at all orders
MOST_DRAWN = 12
MOST_WRITERS = 4


@dataclass(frozen=True)
class Explanation:
    """Operations of one key that can't be ordered."""

    key: str
    core: tuple[Operation, ...]  # by their invokes
    culprit: Operation  # at its return it was too late
    writers: tuple[Operation, ...]  # of the values that were read in the core; their time doesn't matter
    reason: str
    minimal: bool

    def as_data(self) -> dict[str, Any]:
        def operation(op: Operation) -> dict[str, Any]:
            return {"client": op.client, "operation": op.text, "file": op.file, "lines": [op.first, op.last]}

        return {
            "key": self.key,
            "file": self.culprit.file,
            "line": self.culprit.last,
            "reason": self.reason,
            "core": [operation(op) for op in self.core],
            "writers": [operation(op) for op in self.writers],
            "minimal": self.minimal,
        }

    def __str__(self) -> str:
        lines = [f"{self.culprit.end}: error: key {self.key} is not linearizable: {self.reason}"]
        earlier = self.core[:-MOST_DRAWN]
        lines += draw(self.core[len(earlier) :])
        if earlier:
            lines.append(f"note: and {len(earlier)} operations before these; --json has them all")
        if self.writers:
            some = ", ".join(map(str, self.writers[:MOST_WRITERS]))
            more = len(self.writers) - MOST_WRITERS
            lines.append(
                f"note: whenever these took effect, it makes no difference: {some}"
                f"{f', and {more} more' if more > 0 else ''}"
            )
        if not self.minimal:
            lines.append("note: fewer operations may do; there was no time to find out")
        return "\n".join(lines)


def explain(
    ops: Sequence[Operation],
    deepest: int,
    initial: Value,
    time_is_up: Callable[[], bool] = lambda: False,
) -> Explanation:
    """Explain why a key's operations have no order.

    Args:
        ops: the operations, by their invokes
        deepest: how many returns the search could pass
        initial: what the key holds before anybody has written
        time_is_up: whether to stop looking for fewer operations
    """
    cut = first_without_order(ops, initial, deepest)
    *before, culprit = cut
    usual = usual_reason(cut, initial)
    core, minimal = (usual.core, True) if usual else shrink(before, culprit, initial, time_is_up)
    core = sorted(core, key=lambda op: op.invoked)
    chosen = {id(op) for op in core}
    seen = {op.effect.seen for op in core if op.effect.kind in ("read", "swap")}
    writers = [op for op in before if id(op) not in chosen and _wrote_part_of(op, seen)]
    if len(core) + len(writers) <= MOST_PLAIN:
        found = find_order([*map(_relaxed, writers), *core], initial)
        assert found is None, f"there is an order after all: {found}"
    reason = (usual or Reason(core, tell(core))).text
    return Explanation(culprit.key, tuple(core), culprit, tuple(writers), reason, minimal)


def _wrote_part_of(op: Operation, seen: Iterable[Value]) -> bool:
    """Whether an operation had to do with values that were found."""
    kind, _, new = op.effect
    if op.effect.makes and new in seen:
        return True
    return isinstance(new, str) and any(
        isinstance(value, str) and (new in value if kind == "append" else value.startswith(new))
        for value in seen
    )


def _relaxed(op: Operation) -> Operation:
    """A write that may have happened at any time, or never."""
    return replace(op, invoked=-1, returned=None)


def first_without_order(ops: Sequence[Operation], initial: Value, deepest: int) -> list[Operation]:
    """The operations up to the first return after which there is no order; the one that returns is the last.

    An order of more is an order of fewer, so halving finds it. The search has passed `deepest` returns, and
    as it looks ahead it may have stopped early.
    """
    returns = sorted(op.returned for op in ops if op.returned is not None)

    def up_to(k: int) -> list[Operation]:
        at = returns[k]
        begun = [
            op if op.returned is not None and op.returned <= at else replace(op, returned=None, last=None)
            for op in ops
            if op.invoked < at
        ]
        return [op for op in begun if op.returned is not None or not op.effect.only_looks]

    def has_no_order(k: int) -> bool:
        return Search(up_to(k), initial).run(10 * STEPS) is False

    low, high = 0, len(returns) - 1
    if has_no_order(min(deepest, high)):
        high = min(deepest, high)
        if high > 0 and not has_no_order(high - 1):
            low = high
    else:
        low = min(deepest + 1, high)
    while low < high:
        middle = (low + high) // 2
        if has_no_order(middle):
            high = middle
        else:
            low = middle + 1
    return sorted(up_to(low), key=lambda op: (op.returned == returns[low], op.invoked))


def shrink(
    before: Sequence[Operation], culprit: Operation, initial: Value, time_is_up: Callable[[], bool]
) -> tuple[list[Operation], bool]:
    """Operations, the culprit among them, that have no order, whatever the others did.

    And whether none can be left out: that isn't known if the time was up or a search too long.
    """
    unsure = False

    def fails(kept: Sequence[Operation], among: Sequence[Operation]) -> bool:
        """Whether there is no order of some, if the rest of `among` may happen at any time."""
        nonlocal unsure
        if time_is_up():
            unsure = True
            return False
        strict = {id(op) for op in kept}
        free = [_relaxed(op) for op in among if id(op) not in strict and not op.effect.only_looks]
        ordered = sorted([*kept, culprit], key=lambda op: op.invoked)
        answer = Search([*free, *ordered], initial).run(STEPS)
        unsure = unsure or answer is None
        return answer is False

    window = list(before)
    size = FIRST_WINDOW
    while size < len(before):
        if fails(before[-size:], before):
            window = window[-size:]
            break
        size *= 4
    inside = {id(op) for op in window}
    outside = [op for op in before if id(op) not in inside]
    free = [_relaxed(op) for op in outside if not op.effect.only_looks]
    among = [*(op for op in noticed([*free, *window, culprit]) if op.invoked < 0), *window]

    def core(background: list[Operation], added: bool, candidates: list[Operation]) -> list[Operation]:
        if added and fails(background, among):
            return []
        if len(candidates) <= 1:
            return candidates
        half = len(candidates) // 2
        early, late = candidates[:half], candidates[half:]
        kept_early = core(background + late, True, early)
        kept_late = core(background + kept_early, bool(kept_early), late)
        return kept_early + kept_late

    unsure = False  # so far it was about the window only
    found = [culprit] if fails([], among) else [*core([], False, window), culprit]
    return found, not unsure

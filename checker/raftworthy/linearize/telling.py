"""In a sentence, why operations have no order: the usual reasons by name, everything else in general."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raftworthy.linearize.history import Operation, Value, shown


class Reason(NamedTuple):
    """Operations that have no order, and why."""

    core: list[Operation]
    text: str


def usual_reason(operations: Sequence[Operation], initial: Value) -> Reason | None:
    """What is wrong with the last, if it found what nobody had written, or what was gone before it began.

    `operations` are all up to its return. Where text is appended, values come about in too many ways.
    """
    look = operations[-1]
    if look.effect.kind not in ("read", "swap") or any(op.effect.kind == "append" for op in operations):
        return None
    value = look.effect.seen
    makers = [op for op in operations if op.effect.makes and op.effect.new == value and op is not look]
    found = f"{look} found {shown(value)}"
    if look.text.startswith("get"):
        found = f"get of {look.client} ({look.lines}) returned {shown(value)}"
    if value != initial and not makers:
        return Reason([look], f"{found}, which nobody had written")
    gone = -1 if value == initial else 0
    for op in makers:
        if op.returned is None:
            return None
        gone = max(gone, op.returned)
    between = [
        op
        for op in operations
        if op.invoked > gone
        and op.returned is not None
        and op.returned < look.invoked
        and _leaves_something_else(op, value)
    ]
    if not between:
        return None
    other = max(between, key=lambda op: (op.effect.makes, op.returned))
    if other.effect.makes:
        what = f"{other} had ended before it began"
    else:
        what = f"{other} had found that gone before it began"
    again = "removed it" if value is None else f"wrote {shown(value)}"
    since = f"nobody {again}" if value == initial and not makers else f"nobody {again} afterwards"
    return Reason([*makers, other, look], f"{found}, but {what}, and {since}")


def _leaves_something_else(op: Operation, value: Value) -> bool:
    """Whether the key didn't hold `value` when the operation took effect, or just after."""
    kind, seen, new = op.effect
    if kind == "read":
        return seen != value
    if kind == "differs":
        return seen == value
    return new != value


def tell(core: Sequence[Operation]) -> str:
    """Why operations have no order, which are sorted by their invokes."""
    last = core[-1]
    if len(core) == 1:
        return f"no order of the writes leads to {last}"
    if len(core) == 2:
        first = core[0]
        if first.returned is None or first.returned > last.invoked:
            return f"{first} and {last} can't both be right, in either order"
        new, seen = first.effect.new, last.effect.seen
        if (
            first.effect.kind == "append"
            and isinstance(new, str)
            and isinstance(seen, str)
            and new not in seen
        ):
            return f"{last} lacks {first}, which had ended before it began"
        return f"{first} had ended before {last} began, and no writes lead from the one to the other"
    return (
        f"{len(core)} operations have no order in which each finds what the one before has left, "
        "and what had ended before another began comes before it"
    )

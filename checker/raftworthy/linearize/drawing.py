"""Operations as intervals in time, in text. Only the order of their ends counts, so the scale is even."""

from __future__ import annotations

from collections.abc import Sequence

from raftworthy.linearize.history import Operation

WIDEST = 8  # columns between two ends
ROOM = 60  # for all intervals


def draw(operations: Sequence[Operation]) -> list[str]:
    """A line for each operation, time to the right:  |---| from invoke to return, |--? if nobody knows."""
    ends = sorted({p for op in operations for p in (op.invoked, op.returned) if p is not None})
    step = max(2, min(WIDEST, ROOM // len(ends)))
    column = {position: i * step for i, position in enumerate(ends)}
    right = len(ends) * step
    names = [f"{op.client}  {op.text}" for op in operations]
    width = max(map(len, names))
    lines = []
    for op, name in zip(operations, names, strict=True):
        left = column[op.invoked]
        end = right if op.returned is None else column[op.returned]
        bar = " " * left + "|" + "-" * (end - left - 1) + ("?" if op.returned is None else "|")
        lines.append(f"  {name:<{width}}  {bar:<{right + 1}}  {op.lines}")
    return lines

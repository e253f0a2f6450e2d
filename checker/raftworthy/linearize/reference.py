"""The same question asked plainly: who could be first, and then the rest. After Wing and Gong (1993).

Nothing is shortened, so that it can be seen to be right; it takes time that grows with the factorial of what
overlaps. The search is held to it in the tests, and what it found to have no order is asked here again.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftworthy.linearize.history import IMPOSSIBLE, Operation, Value, after


def find_order(operations: Sequence[Operation], initial: Value = None) -> list[Operation] | None:
    """An order that explains every answer, or None; operations of unknown outcome may be missing from it."""
    known = [op for op in operations if op.returned is not None]
    if not known:
        return []
    soonest = min(op.returned for op in known if op.returned is not None)
    for op in operations:
        if op.invoked < soonest:
            state = after(op.effect, initial)
            if state is not IMPOSSIBLE:
                rest = find_order([other for other in operations if other is not op], state)
                if rest is not None:
                    return [op, *rest]
    return None

"""Looking for one order of a key's operations: depth first, just in time, and nothing twice.

After Wing and Gong (1993) and Lowe (2017). Time goes from return to return. By its return an operation must
have taken effect; what else is under way may take effect before it. A configuration is the next return, what
the key holds, and who of those under way has taken effect: no more is needed to know how things can go on,
so none is looked at twice. A history is linearizable if some path of configurations passes the last return.

What is left out on the way never is the only way:

- Who only looks does so as soon as it can: that changes nothing, and it is done with.
- Of operations with equal effects the one that must return first goes first.
- A value that nobody looks at any more is as good as any other such value. All are `JUNK`. A write of junk
  takes effect just before the next write, where nobody notices; one of unknown outcome never does. An append
  that makes junk waits until it must return, or until something can be written over it.
- A value that somebody still has to see, and that nobody can bring back, isn't overwritten.

    k  the number of a return, from 0     state  what the key holds
    p  an operation under way             mask   the bits of those that have taken effect and not returned
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from raftworthy.linearize.history import IMPOSSIBLE, Effect, Impossible, Operation, Value, after

NEVER: Final = -1
ALWAYS: Final = 1 << 62


class _Junk(Enum):
    JUNK = "junk"


JUNK: Final = _Junk.JUNK
State = Value | _Junk


@dataclass(slots=True, eq=False)
class _Call:
    """An operation under way."""

    op: Operation
    effect: Effect
    bit: int
    until: int  # where it returned; ALWAYS if nobody knows its outcome

    def __lt__(self, other: _Call) -> bool:
        return self.until < other.until


class _Uses:
    """Who still has to see a value, and who can still make it; positions are those of events."""

    def __init__(self, operations: Sequence[Operation], return_of: dict[int, int]) -> None:
        self.seen_until: dict[Value, int] = {}  # the last return that depends on the value
        self.differs_until = NEVER
        self.must_see_invoked: dict[Value, int] = {}  # the last invoke of who must see it
        self.made_invoked: dict[Value, int] = {}  # the last invoke of who can make it
        self.appends = any(op.effect.kind == "append" for op in operations)
        for op in operations:
            effect, known = op.effect, op.returned is not None
            last = return_of[op.returned] if op.returned is not None else ALWAYS
            if effect.kind in ("read", "differs", "swap"):
                self.seen_until[effect.seen] = max(self.seen_until.get(effect.seen, NEVER), last)
            if effect.kind == "differs":
                self.differs_until = max(self.differs_until, last)
            if effect.kind in ("read", "swap") and known:
                self.must_see_invoked[effect.seen] = op.invoked
            if effect.makes:
                self.made_invoked[effect.new] = op.invoked
        self.any_must_see_invoked = max(self.must_see_invoked.values(), default=NEVER)
        self.any_made_invoked = max(self.made_invoked.values(), default=NEVER)
        self._texts = sorted(v for v in self.seen_until if isinstance(v, str))
        self._begins: dict[str, bool] = {}  # whether one of the texts begins so

    def alive(self, value: State, k: int) -> bool:
        """Whether what the key holds can make a difference to anybody who returns k-th or later."""
        if value is JUNK:
            return False
        if self.seen_until.get(value, NEVER) >= k:
            return True
        if not self.appends or isinstance(value, int):
            return False
        text = value or ""
        begins = self._begins.get(text)
        if begins is None:
            at = bisect_left(self._texts, text)
            begins = at < len(self._texts) and self._texts[at].startswith(text)
            self._begins[text] = begins
        return begins

    def is_void(self, op: Operation) -> bool:
        """Of unknown outcome, and nobody could notice."""
        if op.returned is not None:
            return False
        if op.effect.only_looks:
            return True
        if self.differs_until != NEVER or not op.effect.makes:
            return False
        return not self.alive(op.effect.new, 0)


class Search:
    """The search for an order of one key's operations, which can be interrupted."""

    def __init__(self, operations: Sequence[Operation], initial: Value = None) -> None:
        """`operations` are in the order of their invokes."""
        self.deepest = 0  # how many returns could be passed
        self.order: list[Operation] = []  # the order found, once `run` has said True
        self._returns = sorted(op.returned for op in operations if op.returned is not None)
        self._uses = _Uses(operations, {position: k for k, position in enumerate(self._returns)})
        counts = Counter(op.effect for op in operations)
        self._twins = {effect for effect, n in counts.items() if n > 1}
        self._under_way: list[tuple[_Call, ...]] = []  # at each return, sorted by return
        self._junk: list[int] = []  # at each return, known writes that nobody will look at
        self._void: list[int] = []  # the same of unknown outcome
        self._lay_out(operations)
        self._known: set[tuple[int, State, int]] = set()
        # Configurations to go on with: k, state, mask, which operation to try next, length of the path.
        self._stack: list[tuple[int, State, int, int, int]] = []
        self._path: list[_Call] = []
        self._done = self._enter(0, initial if self._uses.alive(initial, 0) else JUNK, 0)

    @property
    def configurations(self) -> int:
        return len(self._known)

    def run(self, steps: int) -> bool | None:
        """Search on for so many steps. Whether there is an order; None if that isn't known yet."""
        for _ in range(steps):
            if self._done:
                self.order = [call.op for call in self._path]
                return True
            if not self._stack:
                return False
            k, state, mask, i, length = self._stack.pop()
            del self._path[length:]
            calls = self._under_way[k]
            while i < len(calls):
                call = calls[i]
                new = self._apply(k, state, mask, i)
                i += 1
                if new is not IMPOSSIBLE:
                    self._stack.append((k, state, mask, i, length))
                    if call.effect.kind == "write":
                        mask = self._hide(k, mask, self._junk[k] & ~call.bit)
                    self._path.append(call)
                    self._done = self._enter(k, new, mask | call.bit)
                    break
        return None

    def _lay_out(self, operations: Sequence[Operation]) -> None:
        """Find out who is under way at each return, and give each a bit while it is."""
        calls: list[_Call] = []
        free: list[int] = []
        bits = 0
        waiting = iter(operations)
        op = next(waiting, None)
        for k, position in enumerate(self._returns):
            while op is not None and op.invoked < position:
                if not self._uses.is_void(op):
                    if not free:
                        free.append(1 << bits)
                        bits += 1
                    until = ALWAYS if op.returned is None else op.returned
                    insort(calls, _Call(op, op.effect, free.pop(), until))
                op = next(waiting, None)
            self._under_way.append(tuple(calls))
            junk = void = 0
            if k > self._uses.differs_until:
                for call in calls:
                    if call.effect.kind == "write" and not self._uses.alive(call.effect.new, k):
                        if call.until == ALWAYS:
                            void |= call.bit
                        else:
                            junk |= call.bit
            self._junk.append(junk)
            self._void.append(void)
            free.append(calls.pop(0).bit)

    def _enter(self, k: int, state: State, mask: int) -> bool:
        """Go on to a configuration, past returns that need nothing more. Whether that was the last."""
        while True:
            if k == len(self._returns):
                return True
            if not self._uses.alive(state, k):
                state = JUNK
            mask = self._look(k, state, mask)
            must = self._under_way[k][0]
            if not mask & must.bit:
                break
            mask &= ~must.bit
            k += 1
        self.deepest = max(self.deepest, k)
        here = (k, state, mask)
        if here not in self._known:
            self._known.add(here)
            self._stack.append((k, state, mask, 0, len(self._path)))
        return False

    def _look(self, k: int, state: State, mask: int) -> int:
        """Let all take effect that change nothing."""
        for call in self._under_way[k]:
            effect = call.effect
            if (
                effect.only_looks
                and not mask & call.bit
                and (state == effect.seen) == (effect.kind == "read")
            ):
                mask |= call.bit
                self._path.append(call)
        if state is JUNK:
            mask = self._hide(k, mask, self._junk[k])
        return mask | self._void[k]

    def _hide(self, k: int, mask: int, junk: int) -> int:
        """Let writes take effect where nobody notices."""
        junk &= ~mask
        if junk:
            self._path.extend(call for call in self._under_way[k] if call.bit & junk)
        return mask | junk

    def _apply(self, k: int, state: State, mask: int, i: int) -> State | Impossible:
        """What the key holds after the i-th of those under way, if that one is worth trying."""
        calls = self._under_way[k]
        call = calls[i]
        effect = call.effect
        if mask & call.bit or effect.only_looks:
            return IMPOSSIBLE
        if effect in self._twins and any(
            other.effect == effect and not mask & other.bit for other in calls[:i]
        ):
            return IMPOSSIBLE
        new: State | Impossible
        if state is JUNK:
            new = effect.new if effect.kind == "write" else JUNK if effect.kind == "append" else IMPOSSIBLE
        else:
            new = after(effect, state)
        if new is IMPOSSIBLE:
            return new
        if not self._uses.alive(new, k):
            if k > self._uses.differs_until and (
                call.until == ALWAYS or (i > 0 and self._can_wait(k, call, mask))
            ):
                return IMPOSSIBLE
            new = JUNK
        return IMPOSSIBLE if self._stranded(k, state, new, call, mask) else new

    def _can_wait(self, k: int, call: _Call, mask: int) -> bool:
        """Whether an append that makes junk may as well come later."""
        return call.effect.kind == "append" and not any(
            other.effect.kind == "write" and not mask & other.bit for other in self._under_way[k]
        )

    def _stranded(self, k: int, state: State, new: State, by: _Call, mask: int) -> bool:
        """Whether somebody not yet invoked must see `state`, and nobody could make it again.

        With appends a value can be made in many ways, but nothing comes of junk other than junk: somebody
        must see anything, and nobody writes.
        """
        if state is JUNK or new == state or (self._uses.appends and new is not JUNK):
            return False
        uses, position = self._uses, self._returns[k]
        if uses.appends:
            seen, made = uses.any_must_see_invoked, uses.any_made_invoked
        else:
            seen, made = uses.must_see_invoked.get(state, NEVER), uses.made_invoked.get(state, NEVER)
        if seen < position or made > position:
            return False
        return not any(
            call.effect.makes
            and (uses.appends or call.effect.new == state)
            and call is not by
            and not mask & call.bit
            for call in self._under_way[k]
        )


def noticed(operations: Sequence[Operation]) -> list[Operation]:
    """The operations without those of unknown outcome that nobody could notice."""
    uses = _Uses(operations, {op.returned: 0 for op in operations if op.returned is not None})
    return [op for op in operations if not uses.is_void(op)]

"""What keys held, from entry to entry of the log: the state machine, executed anew from what clients asked.

index  of the entry in the log; 0 is before the log
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from raftworthy.linearize.history import IMPOSSIBLE, Effect, Impossible, Value, after


class Key:
    """The values that one key held, in order, each with the index of the entry since which it did."""

    __slots__ = ("since", "values")

    def __init__(self, initial: Value) -> None:
        self.since = [0]
        self.values = [initial]

    def at(self, index: int) -> Value:
        """What it held after the entry at an index."""
        return self.values[bisect_right(self.since, index) - 1]

    def first(self, seen: Value, differs: bool, index: int) -> int | None:
        """The first place from an index on where it held what was seen, or, if `differs`, anything else."""
        at = bisect_right(self.since, index) - 1
        while at < len(self.values):
            if (self.values[at] == seen) is not differs:
                return max(index, self.since[at])
            at += 1
        return None

    def set(self, index: int, value: Value) -> None:
        self.since.append(index)
        self.values.append(value)


class Store:
    """A map of registers; each entry is executed once, in the order of the log."""

    def __init__(self, initial: Value = None) -> None:
        self.initial = initial
        self._keys: dict[str, Key] = {}

    def key(self, name: str) -> Key:
        found = self._keys.get(name)
        if found is None:
            found = self._keys[name] = Key(self.initial)
        return found

    def execute(self, index: int, asked: Any) -> Value | Impossible:
        """Let what an invoke asks for take effect at an index; what its key held before.

        In a bank, what the account holds now. `IMPOSSIBLE` if the state machine can't do it: text put behind
        a number.
        """
        key = self.key(asked.key)
        found = key.values[-1]
        match asked.operation:
            case "put":
                key.set(index, asked.value)
            case "append":
                made = after(Effect("append", None, asked.value), found)
                if made is IMPOSSIBLE:
                    return made
                key.set(index, made)
            case "cas":
                if found == asked.expected:
                    key.set(index, asked.value)
            case "delete":
                key.set(index, None)
            case "deposit" | "interest":
                if isinstance(found, str):
                    return IMPOSSIBLE
                found = found or 0
                found += asked.value if asked.operation == "deposit" else found * asked.value // 100
                key.set(index, found)
        return found

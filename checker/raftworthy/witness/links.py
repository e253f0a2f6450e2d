"""Which operation is which entry's: what ties clients' events to the servers' log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from raftworthy.linearize.reading import Line


class NoWitness(Exception):  # noqa: N818  (an answer, not a failure)
    """The log can't say where the operations took effect: the message says why."""


class Links:
    """The log's entries by what the trace calls them.

    An operation's invoke tells the digest of its entry. Equal commands have equal digests, so a digest tells
    which entry it is only if no two operations have the same. For those that only look that is no matter:
    they can do without an entry.
    """

    def __init__(self, entries: Sequence[Any], committed: int | None = None) -> None:
        """`entries` past the first `committed` may have been committed; no line says so."""
        self.entries = entries
        self.length = len(entries)
        self.committed = self.length if committed is None else committed
        self.repeated = 0  # committed entries that ask once more for an operation
        self._first: dict[str, int] = {}
        self._again: dict[str, list[int]] = {}
        for index, entry in enumerate(entries, 1):
            if self._first.setdefault(entry.value, index) != index:
                self._again.setdefault(entry.value, []).append(index)
        self._claimed = bytearray(self.length + 1)

    def find(self, invoke: Line, file: str, number: int) -> int:
        """The index of an operation's entry; 0 if it has none.

        Raises:
            NoWitness: it could be any, or another operation's.
        """
        if invoke.operation == "get":
            return 0
        digest = invoke.digest
        if digest is UNSET:
            raise NoWitness(
                f"the invoke at {file}:{number} has no digest, so nothing says which entry is its"
            )
        index = self._first.get(digest, 0)
        if self._claimed[index]:
            raise NoWitness(
                f"the invoke at {file}:{number} has the digest of an earlier one, {digest}, so nothing says "
                "which of them its entry is for"
            )
        if index:
            self._claimed[index] = 1
            self.repeated += sum(n <= self.committed for n in self._again.get(digest, ()))
        return index

    def named(self, invoke: Line) -> Any:
        """What an operation's entry is called in a trace."""
        return invoke.digest

    def repetitions(self, first: Mapping[int, Any]) -> Iterator[tuple[int, int]]:
        """The entries that ask once more for one of those, each with that one."""
        for index in first:
            for again in self._again.get(self.entries[index - 1].value, ()):
                yield again, index

"""Which operation is which entry's: what ties clients' events to the servers' log.

index  of an entry in the log, from 1     digest  what a trace calls an entry
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from raftworthy.linearize.reading import Line


class NoWitness(Exception):  # noqa: N818  (an answer, not a failure)
    """The log can't say where the operations took effect: the message says why."""


class Links:
    """The log's entries by what they ask for.

    An entry of a client's session tells its request: the session, and the number in it. Any other is known
    by its digest, which an operation's invoke may tell. Equal commands have equal digests, so a digest tells
    which entry it is only if no two operations have the same. For those that only look that is no matter:
    they can do without an entry.
    """

    def __init__(
        self,
        entries: Sequence[Any],
        committed: int | None = None,
        requests: Mapping[int, tuple[int, int]] | None = None,
        not_executed: frozenset[int] = frozenset(),
    ) -> None:
        """`entries` past the first `committed` may have been committed; no line says so.

        `requests` has the requests of sessions by the indexes of their entries; `not_executed` are those
        of them without effect: the session has ended, or they were executed before.
        """
        self.entries = entries
        self.length = len(entries)
        self.committed = self.length if committed is None else committed
        self.repeated = 0  # committed entries that ask once more for an operation, or were refused
        self._first: dict[Hashable, int] = {}
        self._again: dict[Hashable, list[int]] = {}
        requests = requests or {}
        for index, entry in enumerate(entries, 1):
            name = requests.get(index, entry.value)
            if index in not_executed or self._first.setdefault(name, index) != index:
                self._again.setdefault(name, []).append(index)
        self._claimed = bytearray(self.length + 1)

    def find(self, invoke: Line, file: str, number: int) -> int:
        """The index of the entry by which an operation takes effect; 0 if there is none.

        Raises:
            NoWitness: it could be any, or another operation's.
        """
        name = self.named(invoke)
        if name is None:
            if invoke.operation == "get":
                return 0
            what = "neither a session nor a digest, so nothing says which entry is its"
            raise NoWitness(f"the invoke at {file}:{number} has {what}")
        index = self._first.get(name, 0)
        if self._claimed[index]:
            raise NoWitness(
                f"the invoke at {file}:{number} is called as an earlier one, {name}, so nothing says "
                "which of them its entry is for"
            )
        if index:
            self._claimed[index] = 1
        self.repeated += sum(n <= self.committed for n in self._again.get(name, ())) if self._again else 0
        return index

    @staticmethod
    def named(invoke: Line) -> Hashable:
        """What an operation's entries are known by; None if by nothing."""
        if invoke.session is not UNSET:
            return invoke.session, invoke.seq if invoke.sequence is UNSET else invoke.sequence
        return None if invoke.operation == "get" or invoke.digest is UNSET else invoke.digest

    def without_effect(self, invoke: Line) -> Sequence[int]:
        """The entries that ask for an operation and aren't those by which it takes effect."""
        return self._again.get(self.named(invoke), ())

    def repetitions(self, calls: Mapping[int, Line]) -> Iterator[tuple[int, int]]:
        """The entries that ask once more for one of those at these indexes, each with that one."""
        for index, invoke in calls.items():
            for again in self.without_effect(invoke):
                yield again, index

"""A server's log, of which the beginning may have been compacted.

Figure 2, State; Ongaro's dissertation, section 5.

    n     a log index, from 1; 0 is before the log
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raftd.messages import Entry


class Log:
    """Entries numbered from 1, those up to `snapshot_index` gone: a snapshot stands for them.

    Of the last that is gone the term is kept, since the next entry has to join onto it.
    """

    __slots__ = ("_entries", "snapshot_index", "snapshot_term")

    def __init__(
        self, entries: Iterable[Entry] = (), snapshot_index: int = 0, snapshot_term: int = 0
    ) -> None:
        self.snapshot_index = snapshot_index
        self.snapshot_term = snapshot_term
        self._entries = list(entries)

    @property
    def last_index(self) -> int:
        """The number of the last entry, compacted or not; 0 if there never was one."""
        return self.snapshot_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 if there never was one."""
        return self._entries[-1].term if self._entries else self.snapshot_term

    def term_at(self, n: int) -> int:
        """The term of entry n; 0 before the log."""
        if n == self.snapshot_index:
            return self.snapshot_term
        return self._at(n).term

    def entry(self, n: int) -> Entry:
        """Entry n, which has not been compacted."""
        return self._at(n)

    def entries(self, first: int, count: int | None = None) -> tuple[Entry, ...]:
        """`count` entries from entry `first`, or all from there."""
        start = first - self.snapshot_index - 1
        assert start >= 0, f"entry {first} has been compacted, with all up to {self.snapshot_index}"
        return tuple(self._entries[start:] if count is None else self._entries[start : start + count])

    def append(self, entries: Iterable[Entry]) -> None:
        """Entries follow the last one."""
        self._entries.extend(entries)

    def truncate(self, last_index: int) -> None:
        """Entries after `last_index` are gone."""
        assert last_index >= self.snapshot_index, f"{last_index} is in the snapshot"
        del self._entries[last_index - self.snapshot_index :]

    def compact(self, n: int) -> None:
        """Entries up to n are gone, since a snapshot stands for them."""
        term = self.term_at(n)
        del self._entries[: n - self.snapshot_index]
        self.snapshot_index, self.snapshot_term = n, term

    def install(self, n: int, term: int) -> None:
        """A snapshot stands for entries up to n: they are gone, and all if there is no entry n."""
        if n <= self.last_index:
            self.compact(n)
        else:
            self._entries.clear()
            self.snapshot_index, self.snapshot_term = n, term

    def _at(self, n: int) -> Entry:
        assert self.snapshot_index < n, f"entry {n} has been compacted, with all up to {self.snapshot_index}"
        return self._entries[n - self.snapshot_index - 1]

    def __copy__(self) -> Log:
        return Log(self._entries, self.snapshot_index, self.snapshot_term)

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not been compacted."""
        return iter(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Log):
            return NotImplemented
        mine = (self.snapshot_index, self.snapshot_term, self._entries)
        return mine == (other.snapshot_index, other.snapshot_term, other._entries)

    __hash__ = None  # type: ignore[assignment]  # a log changes

    def __repr__(self) -> str:
        base = f", {self.snapshot_index}, {self.snapshot_term}" if self.snapshot_index else ""
        return f"Log({self._entries}{base})"

"""AppendEntries that a leader could have sent, of which only a pattern is known.

prev  the index of the entry before those sent     w  what their receiver's line speaks for
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from raftworthy.generated import World
from raftworthy.holes.values import Values
from raftworthy.replay.ledger import as_leader

NEWEST = 3  # after how many of a leader's last entries it is likely to send some
BEFORE_ENTRIES = ("source", "target", "term", "prev_log_index", "prev_log_term")  # of AppendEntries


class Leading(NamedTuple):
    """What a leader could send after one of its events."""

    event: int  # its number among those taken
    source: str
    term: int
    length: int
    commit: int
    compacted: int = 0  # how much of its log its snapshot stands for


class Wanted(NamedTuple):
    """What would make an AppendEntries come out as its receiver's line says, most likely first."""

    prev: Sequence[int] = ()
    end: Sequence[int] = ()
    commit: Sequence[int] = ()
    only_ends: bool = False
    likely: bool = False  # nothing but what is likely


def _numbers(given: int | None, likely: Sequence[int], top: int, only_likely: bool) -> Iterator[int]:
    """A number that is known, or all from 0 to `top`, the likely ones first."""
    if given is not None:
        yield given
        return
    seen = set()
    for n in likely:
        if 0 <= n <= top and n not in seen:
            seen.add(n)
            yield n
    for n in () if only_likely else reversed(range(top + 1)):
        if n not in seen:
            yield n


def _ends(prev: int, length: int, pattern: Mapping[str, Any], w: Wanted) -> Sequence[int]:
    """Where entries after `prev` may end, likely ones first."""
    if "entries" in pattern:
        ends: Sequence[int] = (prev + len(pattern["entries"]),)
    else:
        ends = [n for n in dict.fromkeys((*w.end, length, prev)) if prev <= n]
        if w.only_ends:
            ends = [n for n in ends if n > prev or n in w.end]
        if not (w.only_ends or w.likely):
            ends = [*ends, *(n for n in range(prev, length) if n not in ends)]
    return [n for n in ends if n <= length]


class Appends(Values):
    """Makes the AppendEntries that a leader could send."""

    def __init__(self, servers: tuple[str, ...], extensions: frozenset[str], limit: int | None) -> None:
        super().__init__(servers, extensions, limit)
        self.past_logs: dict[tuple[str, int], tuple[list[Any], int]] = {}  # of leaderships that ended

    def leaders_log(self, source: str, term: int) -> list[Any]:
        """The log of a term's leader, as of its last step in it."""
        me = self.world.variables[source]
        if me.role == "leader" and me.current_term == term:
            return me.log  # type: ignore[no-any-return]
        return self.past_logs.get((source, term), ([], 0))[0]

    def appends(
        self, leading: Leading, target: str, pattern: Mapping[str, Any], log: list[Any],
        wanted: Wanted | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """AppendEntries that a leader could send after one of its events, most likely first."""
        if pattern.get("term", leading.term) != leading.term:
            return
        v = as_leader(self.world.variables[leading.source], leading.term, log, leading.commit)
        if self.told:
            v.snapshot_index = leading.compacted
        world = World({**self.world.variables, leading.source: v}, self.world.past)
        w = wanted or Wanted()
        for prev in self._joins(pattern, log, leading.length, w):
            for end in _ends(prev, leading.length, pattern, w):
                commits = _numbers(
                    pattern.get("leader_commit"), (*w.commit, leading.commit), leading.commit, w.likely
                )
                commits = (n for n in commits if n <= leading.commit)
                args = leading.source, target, prev, end - prev
                differs = yield from self._of_these(world, args, pattern, commits)
                if differs in BEFORE_ENTRIES:
                    break

    def _joins(self, pattern: Mapping[str, Any], log: list[Any], length: int, w: Wanted) -> Iterator[int]:
        """After which entry of a leader's log those of AppendEntries may come, likely ones first."""
        entries = pattern.get("entries", ())
        if "prev_log_index" in pattern or not entries:
            likely = (*w.prev, *range(length, length - NEWEST, -1))
            yield from _numbers(pattern.get("prev_log_index"), likely, length, w.likely)
            return
        first = entries[:1]
        yield from (n for n in dict.fromkeys(w.prev) if 0 <= n < length and self.alike(log[n : n + 1], first))
        for n in reversed(range(length)):
            if n not in w.prev and self.alike(log[n : n + 1], first):
                yield n

    def _of_these(
        self, world: World, args: tuple[Any, ...], pattern: Mapping[str, Any], commits: Iterable[int]
    ) -> Generator[Any, None, str]:
        """AppendEntries of some entries that fit a pattern. Returns a field in which others don't, if any."""
        made: list[Any] = []
        for commit in commits:
            self.spend()
            if self.actions["append_entries"](world, *args, commit, made.append):
                continue
            m = made.pop()
            misfit = self.misfit(m, pattern)
            if misfit is None:
                yield m
            elif misfit != "leader_commit":
                return misfit  # whatever is committed
        return ""

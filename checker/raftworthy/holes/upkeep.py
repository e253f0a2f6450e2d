"""What a server without lines has to do before its term is over: have the entries that it shows later.

s  the server without lines     j  a leader     m  a message
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from raftspec.raft import Entry
from raftspec.snapshots import InstallSnapshot
from raftworthy.holes.appends import Wanted
from raftworthy.holes.lines import HANDLERS, Line, Lines, known
from raftworthy.holes.offers import Offer
from raftworthy.holes.supplying import NoWayError, Supplying

if TYPE_CHECKING:
    from raftworthy.holes.options import Options


LIKELIEST = 20  # of what a message may be that is known in part, how many are tried


def _by_term(lines: Lines) -> Iterator[tuple[int, Line]]:
    """Lines with a message that was received, and its term, or the newest that its receiver told of."""
    for own in lines.of.values():
        newest = 0
        for line in own:
            received = {} if line.e.message is UNSET else known(line.e.message)
            sent = (known(m).get("term", 0) for m in line.e.sends or ())
            newest = max(newest, line.told("current_term") or 0, received.get("term", 0), *sent)
            if line.receives and received:
                yield received.get("term", newest), line


def _openness(o: Offer) -> int:
    """How little is known of a message. What may be many is best left for what needs just that."""
    return 0 if o.m is not None else len(o.likely.__struct_fields__) - len(o.pattern)


class Upkeep(Supplying):
    """Takes steps for servers without lines, none too late for what they show afterwards."""

    def __init__(self, search: Options) -> None:
        super().__init__(search)
        self.asked: dict[str, list[tuple[int, Line]]] = {}  # by server: what of it others received, by term
        for s in search.lines.lost:
            asked = [
                (term, line)
                for term, line in _by_term(search.lines)
                if known(line.e.message).get("source") == s
            ]
            self.asked[s] = sorted(asked, key=lambda x: (x[0], x[1].number))
        self.greedy = False
        self.guess = 0  # which configuration an entry is taken to be that is one
        self.guessed = False  # whether there was such an entry
        self.changed = False  # also for this option of the search
        self.number = 0  # which of the messages that would do is asked for
        self.busy: set[Line] = set()
        # Where the first entries join that a leader sent in a term: by leader, receiver and term.
        self._joined: dict[tuple[str, str, int], tuple[int, int, bool]] = {}
        for line in search.lines.all():
            for x in line.e.sends or ():
                m = known(x)
                if {"target", "term", "prev_log_index", "prev_log_term"} <= m.keys() and m[
                    "prev_log_term"
                ] < m["term"]:
                    key = (line.e.server, m["target"], m["term"])
                    joins = (m["prev_log_index"], m["prev_log_term"], False)
                    self._joined[key] = min(joins, self._joined.get(key, joins))

    def _message(self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line) -> Any:
        """Bring s to send j such a message.

        Raises:
            NoWayError
        """
        raise NotImplementedError

    # --- entries of leaders ---

    def _feed(self, s: str, j: str, term: int, match: int | None, pattern: Mapping[str, Any]) -> Any:
        """Let s have leader j's entries in order, until it acknowledges as many as it is asked to."""
        t = self.search
        reply = None
        for _ in range(10_000):
            me = self._me(s)
            m, event = self._next_append(s, j, term, match), "handle_append_entries"
            if m is None:
                m, event = self._next_snapshot(s, j, term, match), "handle_install_snapshot"
            if m is None:
                return None
            before = len(t.taken)
            self._receive(s, m)
            self._act(s, event, m)
            reply = self._last_sent(j, pattern)
            if reply is not None:
                return reply
            if len(t.taken) == before or self._me(s).log == me.log:
                return None
        return reply

    def _next_append(self, s: str, j: str, term: int, match: int | None) -> Any:
        """AppendEntries that join onto s's log: those that end where they should, or else go on."""
        t = self.search
        log = self._me(s).log
        found: Any = None
        would_do: set[Any] = set()
        for o in sorted(self._appends_to(s, j, term), key=_openness):
            for m in self._made(o, s, self._wanted(s, match)):
                end = m.prev_log_index + len(m.entries)
                if not self._joins(m, log) or (match is not None and end > match):
                    continue
                if match is None or end == match:
                    would_do.add(m)
                    if len(would_do) > self.number:
                        self._settle(o, m)
                        return m
                if end > len(log) and (
                    found is None or end > found[1].prev_log_index + len(found[1].entries)
                ):
                    found = o, m
        if found is not None:
            self._settle(*found)
            return found[1]
        for leading in t.open.get((j, term), ())[-1:]:
            for end in self._bridges(s, j, term, match):
                for m in t.appends(leading, s, {}, t.leaders_log(j, term), self._wanted(s, end)):
                    if self._joins(m, log) and end in (None, m.prev_log_index + len(m.entries)):
                        self._opened(leading, m)
                        return m
        return None

    def _next_snapshot(self, s: str, j: str, term: int, match: int | None) -> Any:
        """Leader j's snapshot, where s lacks what it stands for."""
        kind = self.search.received.get(InstallSnapshot)
        for o, m in self._heard(kind, j, s) if kind is not None else ():
            if m.term != term or m.last_included_index <= self._me(s).commit_index:
                continue
            if match is None or m.last_included_index <= match:
                self._settle(o, m)
                return m
        return None

    def _bridges(self, s: str, j: str, term: int, match: int | None) -> Iterator[int | None]:
        """Where entries that nobody shows may end: where those begin that somebody shows, or as asked."""
        if match is not None:
            offers = self._appends_to(s, j, term)
            begin = {o.m.prev_log_index if o.m else o.pattern.get("prev_log_index", 0) for o in offers}
            yield from sorted(n for n in begin if len(self._me(s).log) < n < match)
        yield match

    def _wanted(self, s: str, end: int | None) -> Wanted:
        """AppendEntries of which s stores entries up to where they should end; the newest are likeliest."""
        length = len(self._me(s).log)
        prev = (length, *reversed(range(length if end is None else end + 1)))
        return Wanted(prev, () if end is None else (end,), (), only_ends=end is not None, likely=True)

    def _appends_to(self, s: str, j: str, term: int) -> list[Offer]:
        t = self.search
        offers = t.offered(t.append_entries, j, s)
        return [o for o in offers if (o.m.term if o.m is not None else o.leading.term) == term]

    def _made(self, o: Offer, target: str, wanted: Wanted) -> Iterator[Any]:
        """What an offer may be: itself, or what fits its pattern."""
        t = self.search
        if o.m is not None:
            if hash(o.m) in t.sent.recent:
                yield o.m
            return
        log = t.leaders_log(o.leading.source, o.leading.term)
        yield from islice(t.appends(o.leading, target, o.pattern, log, wanted), LIKELIEST)

    def _joins(self, m: Any, log: Any) -> bool:
        """Whether entries are found where they should follow. What comes of it, the specification says."""
        n = m.prev_log_index
        return bool(n <= len(log) and (n == 0 or log[n - 1].term == m.prev_log_term))

    def _fill(self, s: str, length: int, term: int) -> None:
        """Give leader s entries up to this length that nobody else shows, or shows elsewhere."""
        t = self.search
        while len(self._me(s).log) < length:
            n = len(self._me(s).log) + 1
            entry = t.generated.structs[Entry](term, t.later.value(term, n))
            self._append(s, entry)

    def _append(self, s: str, entry: Any) -> None:
        """Leader s appends an entry; if lines say that it is a configuration, one that it may be."""
        t = self.search
        if len(self._me(s).log) + 1 not in t.later.configured:
            self._act(s, "client_request", entries=(entry,))
            return
        self.guessed = self.changed = True
        made = self._changes(s, entry)
        if not made:  # the last one has to be committed first
            self._commit_all(s)
            made = self._changes(s, entry)
        if self.guess >= len(made):
            raise NoWayError
        event, voters = made[self.guess]
        self._act(s, event, entries=(entry,), said=voters)

    def _changes(self, s: str, entry: Any) -> list[tuple[str, dict[str, Any]]]:
        """What leader s could append as a configuration."""
        events = {"change_voters": "voters", "enter_joint": "joint"}
        t = self.search
        made = [(x, f, v) for x, f in events.items() for v in t.configurations(x, s, entry.value)]
        made.sort(key=lambda x: t.unlikeliness(s, entry.value, x[2]))
        return [(x, {f: voters}) for x, f, voters in made]

    def _commit_all(self, s: str) -> None:
        """Leader s commits what it can."""
        raise NotImplementedError

    # --- before a server goes to a newer term ---

    def _before(self, s: str, term: int) -> None:
        """Do first what s is asked for in lower terms, as afterwards it can't."""
        t = self.search
        if self._me(s).current_term >= term:
            return
        asked = self.asked[s]
        for _, line in asked[: self._lower(s, term)]:
            i, k = t.later.index[line]
            if t.at[i] > k or line in self.busy:
                continue
            self._do_first(s, i, line)
        self._keep_up(s, term)
        self._hear_of_commits(s)

    def _vote_first(self, s: str, term: int) -> None:
        """Give the votes that s is asked for in a term before its log grows: then it might refuse."""
        t = self.search
        for _, line in self.asked[s][self._lower(s, term) : self._lower(s, term + 1)]:
            i, k = t.later.index[line]
            if line.e.event != "handle_request_vote_reply" or t.at[i] > k or line in self.busy:
                continue
            self._do_first(s, i, line)

    def _do_first(self, s: str, i: str, line: Line) -> None:
        """Let s send what a line that isn't taken so far says that i received."""
        t = self.search
        self.busy.add(line)
        number, self.number = self.number, 0
        with self._attempt():
            kind = t.generated.structs[HANDLERS[line.e.event]]
            self._message(s, i, kind, known(line.e.message), line)
        self.busy.discard(line)
        self.number = number

    def _hear_of_commits(self, s: str) -> None:
        """Let s learn what its term's leader told it of commits: it may tell others, when it leads itself."""
        t, me = self.search, self._me(s)
        if me.role == "leader" or not any(e.event == "handle_append_entries" for _, e in self._later(s)):
            return
        best: tuple[int, Any, Any] = me.commit_index, None, None
        for j in t.servers:
            for o in self._appends_to(s, j, me.current_term) if j != s else ():
                for m in self._made(o, s, self._wanted(s, len(me.log))):
                    end = m.prev_log_index + len(m.entries)
                    if end <= len(me.log) and self._joins(m, me.log) and min(m.leader_commit, end) > best[0]:
                        best = min(m.leader_commit, end), o, m
        if best[1] is not None:
            self._settle(best[1], best[2])
            self._receive(s, best[2])
            self._act(s, "handle_append_entries", best[2])

    def _later(self, s: str) -> Iterator[tuple[int, Any]]:
        """What s is asked for in higher terms than its own."""
        for term, line in self.asked[s][self._lower(s, self._me(s).current_term + 1) :]:
            yield term, line.e

    def _lower(self, s: str, term: int) -> int:
        return bisect_left(self.asked[s], term, key=lambda x: x[0])

    def _keep_up(self, s: str, term: int) -> None:
        """Take the entries of this term that later messages show, as they can't be had later."""
        t = self.search
        now = self._me(s).current_term
        for asked_in, line in self.asked[s][self._lower(s, term) :]:
            i, k = t.later.index[line]
            if t.at[i] > k:
                continue
            shown = self._shows(s, asked_in, line)
            if shown is None:
                continue
            length, last, exactly = shown
            if last > now:
                return
            with self._attempt():
                self._log_to(s, length, last, now, exactly)
            if exactly:
                return
        if self.greedy:
            self._take_all(s, now)

    def _shows(self, s: str, term: int, line: Line) -> tuple[int, int, bool] | None:
        """What a message says of its sender's log before that term: its length and last term, at least."""
        m = known(line.e.message)
        if line.e.event == "handle_request_vote":
            if "last_log_index" in m and "last_log_term" in m:
                return m["last_log_index"], m["last_log_term"], True
        elif line.e.event == "handle_append_entries":
            old = [e for e in m.get("entries", ()) if e.term < term]
            if "prev_log_index" in m and (old or m.get("prev_log_term", term) < term):
                return m["prev_log_index"] + len(old), old[-1].term if old else m["prev_log_term"], False
        elif line.e.event == "handle_append_entries_reply" and m.get("success") is not False:
            return self._joined.get((line.e.server, s, term))
        return None

    def _take_all(self, s: str, term: int) -> None:
        """Take all entries that were sent to s in its term."""
        t = self.search
        for j in t.servers:
            if j != s and self._me(s).role != "leader" and self._appends_to(s, j, term):
                for _ in range(1000):
                    before = len(self._me(s).log)
                    with self._attempt():
                        self._feed(s, j, term, None, {})
                    if len(self._me(s).log) == before:
                        break

    def _log_to(self, s: str, length: int | None, last: int | None, upto: int, exactly: bool = True) -> None:
        """Give s a log of this length and last term, by entries that it was sent in terms up to `upto`."""
        t = self.search

        def right() -> bool:
            log = self._me(s).log
            if not exactly and length is not None and len(log) >= length:
                return length == 0 or log[length - 1].term == last
            return (length is None or len(log) == length) and (
                last is None or (log[-1].term if log else 0) == last
            )

        if right():
            return
        me = self._me(s)
        leads = me.role == "leader" and last == me.current_term
        if leads and last is not None and length is not None and len(me.log) < length:
            self._fill(s, length, last)
            return
        terms = sorted({o.m.term if o.m is not None else o.leading.term
                        for j in t.servers for o in t.offered(t.append_entries, j, s)}
                       | {u for (_, u) in t.open})  # fmt: skip
        for u in terms:
            if not max(self._me(s).current_term, 1) <= u <= upto or (last is not None and u < last):
                continue
            for j in t.servers:
                if j == s or not (self._appends_to(s, j, u) or (j, u) in t.open):
                    continue
                acknowledged = {"success": True, "match_index": length} if length is not None else {}
                with self._attempt():
                    self._before(s, u)
                    self._feed(s, j, u, length, acknowledged)
                    self._need(right() or None)
                    return
        raise NoWayError

"""Steps of servers that left no lines: as few as it takes to send what others received.

Which steps those are follows from what is asked for: a vote comes from a RequestVote, an acknowledgement from
AppendEntries, a leader's message from an election. Whether the steps are possible, and what comes of them,
the specification says. Terms never fall along a server, so what it is asked for in a lower term goes first.

    s  the server without lines     j  who received from it     m  the message that is asked for
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from raftworthy.holes.lines import HANDLERS, Line, known
from raftworthy.holes.trial import Offer, Wanted, event_of
from raftworthy.replay.ledger import Violation

if TYPE_CHECKING:
    from raftworthy.holes.search import Search

Way = Callable[[], Any]  # takes steps until a message is sent, and returns it; None if it can't be
NEWEST = 200  # how many acknowledgements a leader looks at
FURTHEST = 60  # how many terms a server is taken through by elections of its own


class NoWayError(Exception):
    """A server can't be brought to send what is asked for."""


class Supplier:
    """Takes steps for servers without lines."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.asked: dict[str, list[tuple[int, Line]]] = {}  # by server: what of it others received, by term
        for s in search.lines.lost:
            asked = []
            for line in search.lines.all():
                if line.receives and line.e.message is not UNSET:
                    m = known(line.e.message)
                    if m.get("source") == s and "term" in m:
                        asked.append((m["term"], line))
            self.asked[s] = sorted(asked, key=lambda x: (x[0], x[1].number))
        self.greedy = False
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

    def ways(self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line) -> Iterator[Way]:
        """Ways for s to send j a message of this kind: with as few entries as it takes, or with all it can have."""
        yield lambda: self._send(s, j, kind, pattern, line)
        yield lambda: self._send(s, j, kind, pattern, line, greedy=True)

    def _send(
        self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line, greedy: bool = False
    ) -> Any:
        saved = self.search.save()
        self.greedy = greedy
        try:
            return self._message(s, j, kind, pattern, line)
        except NoWayError:
            self.search.restore(saved)
            return None

    def _message(self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line) -> Any:
        """Bring s to send j such a message.

        Raises:
            NoWayError
        """
        t = self.search
        term = pattern.get("term")
        if kind is t.request_vote:
            return self._request(s, j, term if term is not None else self._me(s).current_term + 1, pattern)
        if kind is t.request_vote_reply:
            return self._vote(s, j, term, pattern)
        if kind is t.append_entries:
            return self._entries(s, j, term if term is not None else self._me(j).current_term, pattern, line)
        return self._acknowledgement(s, j, term, pattern)

    # --- what a server is asked for ---

    def _request(self, s: str, j: str, term: int, pattern: Mapping[str, Any]) -> Any:
        """Server s stands for election in a term, with the log that it tells of."""
        found = self._sent(self.search.request_vote, s, j, {**pattern, "term": term})
        if found is not None:
            return found
        self._before(s, term)
        if "last_log_index" in pattern or "last_log_term" in pattern:
            self._log_to(s, pattern.get("last_log_index"), pattern.get("last_log_term"), term - 1)
        self._stand(s, term)
        return self._need(self._sent(self.search.request_vote, s, j, {**pattern, "term": term}))

    def _stand(self, s: str, term: int) -> None:
        if term - self._me(s).current_term > FURTHEST:
            raise NoWayError
        while self._me(s).current_term < term:
            self._act(s, "timeout")

    def _vote(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any]) -> Any:
        """Server s answers a RequestVote of j."""
        t = self.search
        granted = pattern.get("granted", True)
        found = self._sent(t.request_vote_reply, s, j, pattern)
        if found is not None:
            return found
        offers = [o.m for o in t.offers.get((t.request_vote, j, s), ()) if o.m is not None]
        offers = [m for m in offers if hash(m) in t.sent.recent]
        for m in reversed(offers):
            if granted and term is not None and m.term != term:
                continue
            if term is not None and m.term > term:
                continue
            saved = t.save()
            try:
                self._before(s, term if term is not None else m.term)
                if not granted and term is not None and term > m.term:
                    self._reach(s, term)
                reply = self._answer(s, m, pattern, refuse=not granted)
                if reply is not None:
                    return reply
            except NoWayError:
                pass
            t.restore(saved)
        raise NoWayError

    def _answer(self, s: str, m: Any, pattern: Mapping[str, Any], refuse: bool) -> Any:
        """Server s handles a RequestVote, and refuses though it could grant if it is asked to."""
        t = self.search
        sends = None
        if refuse:
            sends = (t.request_vote_reply(s, m.source, max(m.term, self._me(s).current_term), False),)
        self._act(s, "handle_request_vote", m, sends=sends)
        return self._last_sent(m.source, pattern)

    def _acknowledgement(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any]) -> Any:
        """Server s answers AppendEntries of leader j."""
        t = self.search
        found = self._sent(t.append_entries_reply, s, j, pattern, fresh=True)
        if found is not None:
            return found
        success, match = pattern.get("success"), pattern.get("match_index")
        if success is None and match is not None and match > 0:
            success = True
        me = self._me(s)
        if success is False:
            self._before(s, term if term is not None else me.current_term)
            return self._refusal(s, j, term, pattern)
        leading = self._me(j).current_term if term is None else term
        self._before(s, leading)
        reply = self._feed(s, j, leading, match, pattern)
        if reply is None and success is None:
            reply = self._refusal(s, j, term, pattern)
        return self._need(reply)

    def _feed(self, s: str, j: str, term: int, match: int | None, pattern: Mapping[str, Any]) -> Any:
        """Let s have leader j's entries in order, until it acknowledges as many as it is asked to."""
        t = self.search
        reply = None
        for _ in range(10_000):
            me = self._me(s)
            m = self._next_append(s, j, term, match)
            if m is None:
                return None
            before = len(t.taken)
            self._receive(s, m)
            self._act(s, "handle_append_entries", m)
            reply = self._last_sent(j, pattern)
            if reply is not None:
                return reply
            if len(t.taken) == before or self._me(s).log == me.log:
                return None
        return reply

    def _next_append(self, s: str, j: str, term: int, match: int | None) -> Any:
        """AppendEntries of a leader that join onto s's log: those that end where they should, or else go on."""
        t = self.search
        log = self._me(s).log
        found: Any = None
        for o in reversed(self._appends_to(s, j, term)):  # the newest are likeliest
            for m in self._made(o, s, match):
                end = m.prev_log_index + len(m.entries)
                if not self._joins(m, log) or (match is not None and end > match):
                    continue
                if match is None or end == match:
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
            want = Wanted((len(log),), (match,) if match is not None else (), (), match is not None)
            for m in islice(t.appends(leading, s, {}, t.leaders_log(j, term), want), 20):
                if self._joins(m, log) and (match is None or m.prev_log_index + len(m.entries) == match):
                    self._opened(leading, m)
                    return m
        return None

    def _appends_to(self, s: str, j: str, term: int) -> list[Offer]:
        t = self.search
        offers = t.offers.get((t.append_entries, j, s), ())
        return [o for o in offers if (o.m.term if o.m is not None else o.leading.term) == term]  # type: ignore[union-attr]

    def _made(self, o: Offer, s: str, match: int | None) -> Iterator[Any]:
        """What an offer may be: itself, or what fits its pattern."""
        t = self.search
        if o.m is not None:
            if hash(o.m) in t.sent.recent:
                yield o.m
            return
        assert o.leading is not None
        length = len(self._me(s).log)
        want = Wanted((length,), (match,) if match is not None else (), (), match is not None)
        for k, m in enumerate(
            t.appends(o.leading, s, o.pattern, t.leaders_log(o.leading.source, o.leading.term), want)
        ):
            yield m
            if k > 20:
                return

    def _joins(self, m: Any, log: Any) -> bool:
        """Whether entries are found where they should follow. What comes of it, the specification says."""
        n = m.prev_log_index
        return n <= len(log) and (n == 0 or log[n - 1].term == m.prev_log_term)

    def _settle(self, o: Offer, m: Any) -> None:
        if o.m is None:
            self.search.settle_offer(o, m)

    def _opened(self, leading: Any, m: Any) -> None:
        self.search.offer_from(leading, m)

    def _refusal(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any]) -> Any:
        """Server s refuses AppendEntries of j."""
        t = self.search
        offers = [o for o in t.offers.get((t.append_entries, j, s), ())]
        for o in reversed(offers):
            leading = o.m.term if o.m is not None else o.leading.term  # type: ignore[union-attr]
            if term is not None and leading > term:
                continue
            for m in self._made(o, s, None):
                saved = t.save()
                try:
                    if term is not None and leading < term:
                        self._reach(s, term)
                    self._settle(o, m)
                    self._receive(s, m)
                    self._act(s, "handle_append_entries", m)
                    reply = self._last_sent(j, pattern)
                    if reply is not None:
                        return reply
                except NoWayError:
                    pass
                t.restore(saved)
        return None

    def _entries(self, s: str, j: str, term: int, pattern: Mapping[str, Any], line: Line) -> Any:
        """Server s, as leader of a term, sends entries to j."""
        t = self.search
        me = self._me(s)
        prev, prev_term = pattern.get("prev_log_index"), pattern.get("prev_log_term")
        entries, commit = pattern.get("entries", ()), pattern.get("leader_commit")
        ends = t.later.wanted(line, t.world.variables[j]).end
        if prev is None and ends:  # the receiver's line tells where they ended, or they follow what it has
            prev = max(0, ends[0] - len(entries)) if "entries" in pattern and len(ends) > 1 else ends[-1]
        end = ends[0] if "entries" not in pattern and len(ends) > 1 else 0
        if not (me.role == "leader" and me.current_term == term):
            if me.current_term >= term and not (me.role == "candidate" and me.current_term == term):
                return self._need(self._could_send(s, j, term, pattern, line))
            old = [e for e in entries if e.term < term]
            if prev is not None and old:
                self._log_to(s, prev + len(old), old[-1].term, term - 1)
            elif prev is not None and prev_term is not None and prev_term < term:
                self._log_to(s, prev, prev_term, term - 1, exactly=False)
            self._lead(s, term)
        me = self._me(s)
        if prev is not None:
            for k, entry in enumerate(entries, prev + 1):
                if k > len(me.log) and entry.term == term:
                    self._fill(s, k - 1, term)
                    self._act(s, "client_request", entries=(entry,))
                    me = self._me(s)
            if prev_term == term and prev > len(me.log):
                self._fill(s, prev, term)
        self._fill(s, end, term)
        if commit is not None and commit > self._me(s).commit_index:
            self._commit(s, commit)
        return self._need(self._could_send(s, j, term, pattern, line))

    def _fill(self, s: str, length: int, term: int) -> None:
        """Give leader s entries up to this length that nobody else shows, or shows elsewhere."""
        t = self.search
        while len(self._me(s).log) < length:
            n = len(self._me(s).log) + 1
            entry = t.generated.structs[_ENTRY](term, t.later.value(term, n))
            self._act(s, "client_request", entries=(entry,))

    def _could_send(self, s: str, j: str, term: int, pattern: Mapping[str, Any], line: Line) -> Any:
        t = self.search
        found = self._sent(t.append_entries, s, j, {**pattern, "term": term})
        if found is not None:
            return found
        for leading in t.open.get((s, term), ())[-1:]:
            want = t.later.wanted(line, t.world.variables[j])
            for m in t.appends(leading, j, pattern, t.leaders_log(s, term), want):
                self._opened(leading, m)
                return m
        return None

    def _lead(self, s: str, term: int) -> None:
        """Server s is elected for a term."""
        t = self.search
        self._before(s, term)
        self._stand(s, term)
        if not self._try_to_lead(s):
            for j in t.servers:
                if j in t.lines.lost and j != s:
                    saved = t.save()
                    try:
                        self._vote(j, s, term, {"granted": True, "term": term})
                    except NoWayError:
                        t.restore(saved)
            if not self._try_to_lead(s):
                raise NoWayError

    def _try_to_lead(self, s: str) -> bool:
        t, me = self.search, self._me(s)
        for j in t.servers:
            for o in t.offers.get((t.request_vote_reply, j, s), ()):
                if (
                    o.m is not None
                    and o.m.granted
                    and o.m.term == me.current_term
                    and j not in self._me(s).votes
                ):
                    self._receive(s, o.m)
                    self._act(s, "handle_request_vote_reply", o.m)
        try:
            self._act(s, "become_leader")
        except NoWayError:
            return False
        return True

    def _commit(self, s: str, n: int) -> None:
        """Leader s commits as far as n, or further if it has to."""
        t = self.search
        if self._me(s).role != "leader":
            raise NoWayError
        term = self._me(s).current_term
        for j in t.servers:
            best = None
            for o in t.offers.get((t.append_entries_reply, j, s), ()):
                if o.m is not None and o.m.term == term and o.m.success and hash(o.m) in t.sent.recent:
                    if best is None or o.m.match_index > best.match_index:
                        best = o.m
            if best is not None and best.match_index > self._me(s).match_index.get(j, 0):
                self._receive(s, best)
                self._act(s, "handle_append_entries_reply", best)
        me = self._me(s)
        for k in range(n, len(me.log) + 1):
            if not t.may_commit(t.world, s, k, None):
                self._act(s, "advance_commit_index", commit=k)
                return
        raise NoWayError

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
            self.busy.add(line)
            saved = t.save()
            try:
                kind = t.generated.structs[HANDLERS[line.e.event]]  # type: ignore[index]
                self._message(s, i, kind, known(line.e.message), line)
            except NoWayError:
                t.restore(saved)
            finally:
                self.busy.discard(line)
        self._keep_up(s, term)
        self._hear_of_commits(s)

    def _hear_of_commits(self, s: str) -> None:
        """Let s learn what its term's leader told it of commits: it may tell others, when it leads itself."""
        t, me = self.search, self._me(s)
        if me.role == "leader" or not any(e.event == "handle_append_entries" for _, e in self._later(s)):
            return
        best: tuple[int, Any, Any] = me.commit_index, None, None
        for j in t.servers:
            for o in self._appends_to(s, j, me.current_term) if j != s else ():
                for m in self._made(o, s, len(me.log)):
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
        from bisect import bisect_left

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
            saved = t.save()
            try:
                self._log_to(s, length, last, now, exactly)
            except NoWayError:
                t.restore(saved)
            if exactly:
                return
        if self.greedy:
            self._take_all(s, now)

    def _shows(self, s: str, term: int, line: Line) -> tuple[int, int, bool] | None:
        """What a message says of its sender's log before that term: its length and last term, or the least."""
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
                    saved = t.save()
                    try:
                        self._feed(s, j, term, None, {})
                    except NoWayError:
                        t.restore(saved)
                        break
                    if len(self._me(s).log) == before:
                        break

    def _log_to(self, s: str, length: int | None, last: int | None, upto: int, exactly: bool = True) -> None:
        """Give s a log of this length and last term, by entries that leaders sent it in terms up to `upto`."""
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
        if me.role == "leader" and me.current_term == last and length is not None and len(me.log) < length:
            self._fill(s, length, last)
            return
        terms = sorted({o.m.term if o.m is not None else o.leading.term  # type: ignore[union-attr]
                        for j in t.servers for o in t.offers.get((t.append_entries, j, s), ())}
                       | {u for (_, u) in t.open})  # fmt: skip
        for u in terms:
            if not max(self._me(s).current_term, 1) <= u <= upto or (last is not None and u < last):
                continue
            for j in t.servers:
                if j == s or not (self._appends_to(s, j, u) or (j, u) in t.open):
                    continue
                saved = t.save()
                try:
                    self._before(s, u)
                    self._feed(
                        s,
                        j,
                        u,
                        length,
                        {"success": True, "match_index": length} if length is not None else {},
                    )
                    if right():
                        return
                except NoWayError:
                    pass
                t.restore(saved)
        raise NoWayError

    def _reach(self, s: str, term: int) -> None:
        """Bring s to a term: by a message of it, or by elections of its own."""
        t = self.search
        if self._me(s).current_term >= term:
            return
        self._before(s, term)
        for j in t.servers:
            for o in t.offers.get((t.append_entries, j, s), ()):
                if o.m is not None and o.m.term == term and not o.m.entries and hash(o.m) in t.sent.recent:
                    self._receive(s, o.m)
                    self._act(s, "handle_append_entries", o.m)
                    return
        for j in t.servers:
            for o in t.offers.get((t.request_vote, j, s), ()):
                if o.m is not None and o.m.term == term and hash(o.m) in t.sent.recent:
                    self._receive(s, o.m)
                    refusal = (t.request_vote_reply(s, j, term, False),)
                    self._act(s, "handle_request_vote", o.m, sends=refusal)
                    return
        self._stand(s, term)

    # --- steps ---

    def _me(self, s: str) -> Any:
        return self.search.world.variables[s]

    def _act(self, s: str, event: str, m: Any = UNSET, entries: Any = UNSET, commit: int | None = None,
             sends: Any = None) -> None:  # fmt: skip
        """Take a step.

        Raises:
            NoWayError: it isn't possible.
        """
        t = self.search
        state = UNSET
        if commit is not None:
            state = t.state_type(commit_index=commit)
        e = event_of(s, event, m, state=state, sends=() if sends is None else tuple(sends), entries=entries)
        if isinstance(t.attempt(e, None, sends), Violation):
            raise NoWayError

    def _receive(self, s: str, m: Any) -> None:
        self.search.sent.receive(hash(m), s)

    def _sent(self, kind: type, s: str, j: str, pattern: Mapping[str, Any], fresh: bool = False) -> Any:
        """A message that s has sent already, one that nobody has received yet if need be."""
        t = self.search
        for o in reversed(t.offers.get((kind, s, j), ())):
            if o.m is not None and t.fits(o.m, pattern) and not (fresh and o.received):
                return o.m
        return None

    def _last_sent(self, j: str, pattern: Mapping[str, Any]) -> Any:
        """What the last step sent to j, if it is what is asked for."""
        t = self.search
        for m in t.taken[-1].sends:
            if m is not None and m.target == j and t.fits(m, pattern):
                return m
        return None

    def _need(self, m: Any) -> Any:
        if m is None:
            raise NoWayError
        return m


from raftspec.raft import Entry as _ENTRY  # noqa: E402

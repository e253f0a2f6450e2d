"""Steps of servers that left no lines: as few as it takes to send what others received.

Which steps those are follows from what is asked for: a vote comes from a RequestVote, an acknowledgement from
AppendEntries, a leader's message from an election. Whether the steps are possible, and what comes of them,
the specification says. Terms never fall along a server, so what it is asked for in a lower term goes first.

    s  the server without lines     j  who received from it     m  the message that is asked for
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from raftworthy.holes.appends import Leading, Wanted
from raftworthy.holes.lines import HANDLERS, Line
from raftworthy.holes.offers import Offer
from raftworthy.holes.supply_more import MoreUpkeep
from raftworthy.holes.supplying import NoWayError
from raftworthy.structs import snake_case

Way = Callable[[], Any]  # takes steps until a message is sent, and returns it; None if it can't be
FURTHEST = 60  # how many terms a server is taken through by elections of its own
CANDIDATES = 6  # how many AppendEntries are tried, in each way, that a leader could send or is answered
GUESSES = 8  # how many configurations are tried for an entry that is one
NEWEST = 200  # how many acknowledgements a leader looks at


class Supplier(MoreUpkeep):
    """Takes steps for servers without lines until they have sent what others received."""

    def ways(self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line) -> Iterator[Way]:
        """Ways for s to send j such a message: with as few entries as it takes, or all it can have."""
        several = (self.search.append_entries, self.search.append_entries_reply)
        self.guessed = False
        for guess in range(GUESSES):
            for number in range(CANDIDATES if kind in several else 1):
                for greedy in (False, True):
                    yield partial(self._send, s, j, kind, pattern, line, greedy, number, guess)
            if not self.guessed:
                break

    def _send(
        self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line, greedy: bool, number: int,
        guess: int,
    ) -> Any:  # fmt: skip
        self.greedy, self.number, self.guess = greedy, number, guess
        with self._attempt():
            return self._message(s, j, kind, pattern, line)
        return None

    def _message(self, s: str, j: str, kind: type, pattern: Mapping[str, Any], line: Line) -> Any:
        """Bring s to send j such a message.

        Raises:
            NoWayError
        """
        send = getattr(self, f"_{snake_case(kind.__name__)}")
        return self._need(send(s, j, pattern.get("term"), pattern, line))

    def _request_vote(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line) -> Any:
        """Server s stands for election in a term, with the log that it tells of."""
        term = term if term is not None else self._me(s).current_term + 1
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
            self._timeout(s)

    def _request_vote_reply(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line | None = None
    ) -> Any:
        """Server s answers a RequestVote of j."""
        t = self.search
        granted = pattern.get("granted", True)
        found = self._sent(t.request_vote_reply, s, j, pattern)
        if found is not None:
            return found
        for o, m in list(self._heard(t.request_vote, j, s)):
            if granted and term is not None and m.term != term:
                continue
            if term is not None and m.term > term:
                continue
            with self._attempt():
                self._settle(o, m)
                self._before(s, term if term is not None else m.term)
                if not granted and term is not None and term > m.term:
                    self._reach(s, term)
                return self._need(self._answer(s, m, pattern, refuse=not granted))
        raise NoWayError

    def _answer(self, s: str, m: Any, pattern: Mapping[str, Any], refuse: bool) -> Any:
        """Server s handles a RequestVote, and refuses though it could grant if it is asked to."""
        t = self.search
        sends = None
        if refuse:
            sends = (t.request_vote_reply(s, m.source, max(m.term, self._me(s).current_term), False),)
        self._act(s, "handle_request_vote", m, sends=sends)
        return self._last_sent(m.source, pattern)

    def _append_entries_reply(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line
    ) -> Any:
        """Server s answers AppendEntries of leader j."""
        t = self.search
        told = (line.told("match_index") or {}).get(s, 0)
        if told > t.world.variables[j].match_index.get(s, 0):  # this is what tells j of so much
            pattern = {"match_index": told, **pattern}
        found = self._sent(t.append_entries_reply, s, j, pattern, fresh=True)
        if found is not None:
            return found
        success, match = pattern.get("success"), pattern.get("match_index")
        if match is None:  # the line may show what came of it
            match = told or line.told("commit_index")
        if success is None and match is not None and match > 0:
            success = True
        me = self._me(s)
        if success is False:
            self._before(s, term if term is not None else me.current_term)
            return self._refusal(s, j, term, pattern)
        leading = self._me(j).current_term if term is None else term
        self._before(s, leading)
        self._vote_first(s, leading)
        reply = self._feed(s, j, leading, match, pattern)
        if reply is None and success is None:
            reply = self._refusal(s, j, term, pattern)
        return self._need(reply)

    def _refusal(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any]) -> Any:
        """Server s refuses AppendEntries of j."""
        t = self.search
        for o in list(t.offered(t.append_entries, j, s)):
            leading = o.m.term if o.m is not None else o.leading.term
            if term is not None and leading > term:
                continue
            furthest = Wanted(prev=range(o.leading.length, -1, -1), likely=True)  # where its log can't reach
            for m in self._made(o, s, furthest):
                with self._attempt():
                    if term is not None and leading < term:
                        self._reach(s, term)
                    self._settle(o, m)
                    self._receive(s, m)
                    self._act(s, "handle_append_entries", m)
                    return self._need(self._last_sent(j, pattern))
        return None

    def _append_entries(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line
    ) -> Any:
        """Server s, as leader of a term, sends entries to j."""
        t = self.search
        term = term if term is not None else self._me(j).current_term
        wanted = t.later.wanted(line, t.world.variables[j])
        prev, prev_term = pattern.get("prev_log_index", wanted.prev[0]), pattern.get("prev_log_term")
        entries = pattern.get("entries", ())
        me = self._me(s)
        if not (me.role == "leader" and me.current_term == term):
            if me.current_term >= term and not (me.role == "candidate" and me.current_term == term):
                return self._could_send(s, j, term, pattern, wanted)
            old = [e for e in entries if e.term < term]
            if old:
                self._log_to(s, prev + len(old), old[-1].term, term - 1)
            elif prev_term is not None and prev_term < term:
                self._log_to(s, prev, prev_term, term - 1, exactly=False)
            self._lead(s, term)
        for k, entry in enumerate(entries, prev + 1):
            if k > len(self._me(s).log) and entry.term == term:
                self._fill(s, k - 1, term)
                self._append(s, entry)
        if prev_term in (term, None):
            self._fill(s, prev, term)
        if "entries" not in pattern and wanted.end:
            self._fill(s, wanted.end[0], term)
        commit = pattern.get("leader_commit", max(wanted.commit, default=0))
        if commit > self._me(s).commit_index:
            self._commit(s, commit)
        return self._could_send(s, j, term, pattern, wanted)

    def _could_send(self, s: str, j: str, term: int, pattern: Mapping[str, Any], wanted: Wanted) -> Any:
        """What s could send j as leader of a term: the first that fits, or a later one if that was tried."""
        t = self.search
        made: dict[Any, Leading | None] = {}
        for leading in t.open.get((s, term), ())[-1:]:
            log = t.leaders_log(s, term)
            made |= dict.fromkeys(islice(t.appends(leading, j, pattern, log, wanted), CANDIDATES), leading)
        for o in t.offered(t.append_entries, s, j):
            if o.m is not None and o.m.term == term and t.fits(o.m, pattern):
                made[o.m] = None
        for m, by in islice(made.items(), self.number, None):
            if by is not None and hash(m) not in t.sent.recent:
                self._opened(by, m)
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
                    with self._attempt():
                        self._request_vote_reply(j, s, term, {"granted": True, "term": term})
            if not self._try_to_lead(s):
                raise NoWayError

    def _try_to_lead(self, s: str) -> bool:
        t, me = self.search, self._me(s)
        for j in t.servers:
            for o, m in list(self._heard(t.request_vote_reply, j, s)):
                if m.granted and m.term == me.current_term and j not in self._me(s).votes:
                    self._settle(o, m)
                    self._receive(s, m)
                    self._act(s, "handle_request_vote_reply", m)
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
        self._hear(s)
        me = self._me(s)
        for k in range(n, len(me.log) + 1):
            if not t.may_commit(t.world, s, k, None):
                self._act(s, "advance_commit_index", commit_index=k)
                return
        raise NoWayError

    def _commit_all(self, s: str) -> None:
        """Leader s commits what it can."""
        self._hear(s)
        me = self._me(s)
        for n in range(len(me.log), me.commit_index, -1):
            if not self.search.may_commit(self.search.world, s, n, None):
                self._act(s, "advance_commit_index", commit_index=n)
                return

    def _hear(self, s: str) -> None:
        """Leader s hears what others store, as far as they have said so."""
        t = self.search
        term = self._me(s).current_term
        for j in t.servers:
            best = None
            for o in islice(t.offered(t.append_entries_reply, j, s), NEWEST):
                if o.m is None or o.m.term != term or not o.m.success or hash(o.m) not in t.sent.recent:
                    continue
                if best is None or o.m.match_index > best.match_index:
                    best = o.m
            if best is not None and best.match_index > self._me(s).match_index.get(j, 0):
                self._receive(s, best)
                self._act(s, "handle_append_entries_reply", best)

    def _reach(self, s: str, term: int) -> None:
        """Bring s to a term: by a message of it that leaves its log as it is, or by elections of its own."""
        if self._me(s).current_term >= term:
            return
        self._before(s, term)
        log = list(self._me(s).log)
        for event, o, m in self._of_term(s, term):
            with self._attempt():
                self._settle(o, m)
                self._receive(s, m)
                refuses = event == "handle_request_vote"
                refusal = (self.search.request_vote_reply(s, m.source, term, False),)
                self._act(s, event, m, sends=refusal if refuses else None)
                self._need((self._me(s).current_term == term and self._me(s).log == log) or None)
                return
        self._stand(s, term)

    def _of_term(self, s: str, term: int) -> Iterator[tuple[str, Offer, Any]]:
        """Messages of a term that s could receive, with the events in which it does."""
        t = self.search
        kinds = [(event, t.received[x]) for event, x in HANDLERS.items() if x in t.received]
        for event, kind in kinds:
            for j in (j for j in t.servers if j != s):
                yield from ((event, o, m) for o, m in list(self._heard(kind, j, s)) if m.term == term)
                if kind is t.append_entries:
                    heartbeat = Wanted(range(len(self._me(s).log), -1, -1), only_ends=True, likely=True)
                    for o in self._appends_to(s, j, term):
                        yield from ((event, o, m) for m in self._made(o, s, heartbeat) if not m.entries)

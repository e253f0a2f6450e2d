"""What servers without lines send in Raft with pre-vote, leadership transfer, reads, and snapshots.

s  the server without lines     j  who received from it     m  the message that is asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftspec.leadership_transfer import TimeoutNow
from raftspec.pre_vote import PreVote, PreVoteReply
from raftspec.reads import ReadIndex, ReadIndexReply
from raftspec.snapshots import InstallSnapshot
from raftspec.types import Message
from raftworthy.holes.lines import Line
from raftworthy.holes.supplying import NoWayError
from raftworthy.holes.upkeep import Upkeep

ROUNDS = 100  # how many rounds of reads a leader is taken through


class MoreUpkeep(Upkeep):
    """Takes the steps that extensions add, and those that they ask for before an election."""

    def _kind(self, cls: type[Message]) -> Any:
        """A message of an extension, as the trace has it; None where the servers don't have it."""
        return self.search.received.get(cls)

    # --- elections ---

    def _timeout(self, s: str) -> None:
        """Server s stands for election, as soon as whatever an election needs has been done.

        Raises:
            NoWayError
        """
        if not (self._try(s, "timeout") or self._is_told(s)):
            self._ask(s)
            self._act(s, "timeout")

    def _try(self, s: str, event: str) -> bool:
        with self._attempt():
            self._act(s, event)
            return True
        return False

    def _is_told(self, s: str) -> bool:
        """Let s stand because its leader said so, if one did."""
        t, kind = self.search, self._kind(TimeoutNow)
        for j in t.servers if kind is not None else ():
            for o, m in self._heard(kind, j, s):
                if m.term == self._me(s).current_term:
                    self._settle(o, m)
                    self._receive(s, m)
                    self._act(s, "handle_timeout_now", m)
                    return self._try(s, "timeout")
        return False

    def _ask(self, s: str) -> None:
        """Server s asks who would vote for it, and counts what it is answered."""
        t, kind = self.search, self._kind(PreVoteReply)
        if kind is None:
            raise NoWayError
        term = self._me(s).current_term
        if s not in self._me(s).pre_votes:
            self._act(s, "start_pre_vote")
        for j in t.servers:
            if j == s:
                continue
            granted = {"granted": True, "asked_term": term}
            m = self._sent(kind, j, s, granted)
            if m is None and j in t.lines.lost:
                m = self._pre_vote_reply(j, s, None, granted)
            if m is not None and m.term <= term:
                self._receive(s, m)
                self._act(s, "handle_pre_vote_reply", m)

    def _pre_vote(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line) -> Any:
        """Server s asks j whether it would vote for it."""
        kind = self._kind(PreVote)
        found = self._sent(kind, s, j, pattern)
        if found is not None:
            return found
        term = term if term is not None else self._me(s).current_term
        self._before(s, term)
        if "last_log_index" in pattern or "last_log_term" in pattern:
            self._log_to(s, pattern.get("last_log_index"), pattern.get("last_log_term"), term)
        self._reach(s, term)
        self._act(s, "start_pre_vote")
        return self._last_sent(j, pattern)

    def _pre_vote_reply(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line | None = None
    ) -> Any:
        """Server s says whether it would vote for j."""
        kind = self._kind(PreVoteReply)
        found = self._sent(kind, s, j, pattern)
        if found is not None:
            return found
        for o, m in list(self._heard(self._kind(PreVote), j, s)):
            if m.term != pattern.get("asked_term", m.term):
                continue
            with self._attempt():
                self._settle(o, m)
                if term is not None:
                    self._before(s, term)
                    self._reach(s, term)
                self._act(s, "handle_pre_vote", m)
                return self._need(self._last_sent(j, pattern))
        return None

    # --- leaders ---

    def _lead(self, s: str, term: int) -> None:
        raise NotImplementedError

    def _hear(self, s: str) -> None:
        raise NotImplementedError

    def _reach(self, s: str, term: int) -> None:
        raise NotImplementedError

    def _commit(self, s: str, n: int) -> None:
        raise NotImplementedError

    def _leads(self, s: str, term: int | None) -> None:
        """Server s leads a term, or is elected for it."""
        me = self._me(s)
        if term is not None and not (me.role == "leader" and me.current_term == term):
            self._lead(s, term)
        if self._me(s).role != "leader":
            raise NoWayError

    def _timeout_now(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line) -> Any:
        """Leader s tells j, which has all of its log, to stand for election."""
        kind = self._kind(TimeoutNow)
        found = self._sent(kind, s, j, pattern)
        if found is not None:
            return found
        self._leads(s, term)
        self._hear(s)
        self._act(s, "transfer_leadership", sends=(kind(s, j, self._me(s).current_term),))
        return self._last_sent(j, pattern)

    def _install_snapshot(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line
    ) -> Any:
        """Leader s sends j its snapshot; first it has to take one, of what is committed."""
        kind = self._kind(InstallSnapshot)
        found = self._sent(kind, s, j, pattern)
        if found is not None:
            return found
        n = pattern.get("last_included_index") or line.told("snapshot_index")
        self._leads(s, term)
        if n is None:
            self._hear(s)
            n = self._me(s).commit_index
        if self._me(s).commit_index < n:
            self._commit(s, n)
        if self._me(s).last_applied < n:
            self._act(s, "apply_entries", last_applied=n)
        if self._me(s).snapshot_index < n:
            self._act(s, "take_snapshot", snapshot_index=n)
        me = self._me(s)
        last = me.log[n - 1].term if 0 < n <= len(me.log) else 0
        self._act(s, "install_snapshot", sends=(kind(s, j, me.current_term, n, last),))
        return self._last_sent(j, pattern)

    def _read_index(self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line) -> Any:
        """Leader s asks j whether it still leads; first it has to commit something of its term."""
        kind = self._kind(ReadIndex)
        found = self._sent(kind, s, j, pattern)
        if found is not None:
            return found
        self._leads(s, term)
        me = self._me(s)
        if not me.commit_index or me.log[me.commit_index - 1].term != me.current_term:
            first = next((n for n, e in enumerate(me.log, 1) if e.term == me.current_term), len(me.log) + 1)
            self._commit(s, first)
        for _ in range(ROUNDS):
            self._act(s, "begin_read")
            m = self._last_sent(j, pattern)
            if m is not None:
                return m
        return None

    def _read_index_reply(
        self, s: str, j: str, term: int | None, pattern: Mapping[str, Any], line: Line
    ) -> Any:
        """Server s says to j which term it is in."""
        found = self._sent(self._kind(ReadIndexReply), s, j, pattern)
        if found is not None:
            return found
        for o, m in list(self._heard(self._kind(ReadIndex), j, s)):
            answered = m.round if term in (None, m.term) else 0
            if answered != pattern.get("round", answered) or (term is not None and m.term > term):
                continue
            with self._attempt():
                self._before(s, m.term if term is None else term)
                self._reach(s, m.term if term is None else term)
                self._settle(o, m)
                self._receive(s, m)
                self._act(s, "handle_read_index", m)
                return self._need(self._last_sent(j, pattern))
        return None

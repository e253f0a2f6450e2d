"""Raft without I/O: a message, a tick or a proposal in; what to persist, send and apply out.

Follows Figure 2 of Ongaro and Ousterhout (2014). Everything that changes protocol state is
in this file, `elections`, `replication`, `snapshots` and `step`; beyond it, if `Config` says so, in
`pre_vote`, `check_quorum`, `leadership_transfer`, `reads` and `membership`; sessions are in
`sessions`.

Clock and randomness are passed in, so one seed gives one run. The driver writes a
batch's event to the trace, persists, then sends, then applies. Nothing of a batch may leave the server
before it is persisted (section 5.1, Figure 2, State), but for what a batch says may go early.

    m     a message      now    the server's own clock, in seconds
    n     a log index, from 1; 0 is before the log
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from raftd.leadership_transfer import Transferring
from raftd.log import Log
from raftd.membership import CannotChange, Membership
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    Snapshot,
    TimeoutNow,
)
from raftd.state import NO_OP, Batch, Config, NotLeader, Persist, Persistent, Role, Variables

__all__ = [
    "NO_OP",
    "Batch",
    "CannotChange",
    "Config",
    "Core",
    "NotLeader",
    "Persist",
    "Persistent",
    "Role",
    "Variables",
]


class Core(Membership):
    """One Raft server, as a deterministic function of its inputs.

    Each input is one step, and gives one event. Decisions are small predicate methods, so that a test can
    break one rule at a time.
    """

    def start(self, now: float) -> Batch:
        """The process starts with what its disk holds, as a follower. Section 5.1."""
        assert self.deadline == float("inf"), f"{self.server} has been started already"
        self._begin(now)
        self._recover()
        self._restart_election_timer()
        self._promise()  # it may have promised something before, and has forgotten it
        return self._finish("restart")

    def receive(self, now: float, m: Message) -> Batch:
        """A message arrives; a newer term in it is adopted first. Section 5.1."""
        assert m.target == self.server, f"{self.server} was given a message for {m.target}"
        known = m.source in self.match_index or self.config.membership
        assert known, f"{m.source} is not a peer of {self.server}"
        self._begin(now)
        if self._adopts(m):
            self._adopt_term(m.term)
        self._check_message(m)
        event, handle = self._HANDLERS[type(m)]
        handle(self, m)
        return self._finish(event, m)

    def tick(self, now: float) -> Batch | None:
        """Time passes: heartbeats of a leader, an election of anyone else, or nothing yet."""
        if now < self.deadline:
            return None
        if not self._stands():
            self._wait(now)
            return None
        if self.role is Role.LEADER:
            return self.lose_quorum(now) if self._has_lost_quorum(now) else self.send_heartbeats(now)
        return self.start_election(now) if self._may_stand() else self.start_pre_vote(now)

    def propose(self, now: float, commands: Sequence[bytes]) -> Batch:
        """A leader appends its clients' commands and replicates them. Section 5.3.

        They are the last `len(commands)` entries of `log` when this returns. Followers may write them while
        the leader does: it counts itself from its next step on, and by then its disk has them.
        """
        if self.role is not Role.LEADER or self._is_handing_over(now):
            raise NotLeader(self.server, None if self.role is Role.LEADER else self.leader)
        assert commands, "a proposal needs a command"
        assert NO_OP not in commands, "the empty command is a new leader's no-op"
        self._begin(now)
        self._append(Entry(self.current_term, command) for command in commands)
        for peer in self.peers:
            if peer not in self._probing:
                self._send_entries(peer)
        self._advance_commit_index()
        return self._finish("client_request")._replace(early=self.config.parallel_disks)

    def heard(self, peer: str, now: float) -> float:
        """For how many seconds a leader has had no answer from a follower."""
        return max(0.0, now - self._heard[peer])

    def restore(
        self,
        now: float,
        *,
        role: Role,
        current_term: int,
        voted_for: str | None,
        log: Iterable[Entry],
        commit_index: int,
        snapshot: Snapshot | None = None,
        last_applied: int | None = None,
        votes: Iterable[str] = (),
        next_index: Mapping[str, int] | None = None,
        match_index: Mapping[str, int] | None = None,
        extended: Mapping[str, Any] | None = None,
    ) -> None:
        """Put this server into a state, whatever it was in; for tests and lockstep.

        `log` is all of it, also what its snapshot stands for. `extended` has the variables of extensions.
        """
        self.role = Role(role)
        self.current_term = current_term
        self.voted_for = voted_for
        self.log = Log(log)
        self.snapshot = snapshot
        if snapshot is not None:
            self.log.install(snapshot.last_included_index, snapshot.last_included_term)
        self.commit_index = commit_index
        self.last_applied = commit_index if last_applied is None else last_applied
        self.votes = set(votes)
        self.next_index = dict.fromkeys(self.peers, self.log.last_index + 1) | dict(next_index or {})
        self.match_index = dict.fromkeys(self.peers, 0) | dict(match_index or {})
        assert set(self.next_index) == set(self.match_index) >= set(self.peers)
        self.leader = self.server if self.role is Role.LEADER else None
        self._probing = set()
        self._sending = {}
        self._heard = dict.fromkeys(self.peers, now)
        self._restore_extended(extended or {})
        if self.role is Role.LEADER:
            self.deadline = now + self.config.heartbeat_interval
        else:
            self._now = now
            self._restart_election_timer()
        self._note()

    def _recover(self) -> None:
        """A restarted server has what it persisted, all of it. Section 5.1."""

    _HANDLERS: ClassVar[dict[type, tuple[str, Callable[[Any, Any], None]]]] = {
        RequestVote: ("handle_request_vote", Transferring._on_request_vote),
        RequestVoteReply: ("handle_request_vote_reply", Transferring._on_request_vote_reply),
        AppendEntries: ("handle_append_entries", Transferring._on_append_entries),
        AppendEntriesReply: ("handle_append_entries_reply", Transferring._on_append_entries_reply),
        PreVote: ("handle_pre_vote", Transferring._on_pre_vote),
        PreVoteReply: ("handle_pre_vote_reply", Transferring._on_pre_vote_reply),
        TimeoutNow: ("handle_timeout_now", Transferring._on_timeout_now),
        ReadIndex: ("handle_read_index", Transferring._on_read_index),
        ReadIndexReply: ("handle_read_index_reply", Transferring._on_read_index_reply),
        InstallSnapshot: ("handle_install_snapshot", Transferring._on_install_snapshot),
    }

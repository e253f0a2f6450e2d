"""Raft without I/O: a message, a tick or a proposal in; what to persist, send and apply out.

Follows Figure 2 of Ongaro and Ousterhout (2014). Everything that changes protocol
state is in this file. Left out: snapshots, membership change, sessions, pre-vote.

Clock and randomness are passed in, so one seed gives one run. The driver writes a
batch's event to the trace, persists, then sends, then applies; nothing of a batch
may leave the server before it is persisted (section 5.1, Figure 2, State).

    m     a message      now    the server's own clock, in seconds
    n     a log index, from 1; 0 is before the log
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.trace import traced_entries, traced_message

NO_OP = b""
RESTART_ENTRIES = 16  # how much of the log's end a restart event shows


class Role(StrEnum):
    """What a server is in its current term. Section 5.1."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True)
class Config:
    """Times in seconds and sizes in entries. Section 5.6 says how the times relate."""

    election_timeout: float = 0.15  # T: each timeout is drawn from [T, 2T]
    heartbeat_interval: float = 0.03
    max_entries: int = 512  # in one AppendEntries
    max_in_flight: int = 4096  # sent to a follower and not yet acknowledged

    def __post_init__(self) -> None:
        assert 0 < self.heartbeat_interval < self.election_timeout
        assert 0 < self.max_entries <= self.max_in_flight


@dataclass
class Persistent:
    """What a server's disk holds. Figure 2, State, persistent on all servers."""

    current_term: int = 0
    voted_for: str | None = None
    log: list[Entry] = field(default_factory=list)


class Persist(NamedTuple):
    """A change to the disk, to be made whole or not at all, before anything is sent."""

    current_term: int
    voted_for: str | None
    keep: int  # how many entries of the log on disk stay
    entries: tuple[Entry, ...]  # follow these


class Batch(NamedTuple):
    """What one step asks of its driver, in this order."""

    event: dict[str, Any]  # a line of the trace, without `seq`
    persist: Persist | None
    send: tuple[Message, ...]
    apply: tuple[tuple[int, Entry], ...]  # newly committed, no-ops included


class NotLeader(Exception):  # noqa: N818  (an answer to the client, not a failure)
    """Only a leader takes commands; `leader` is whom to ask, if known. Section 8."""

    def __init__(self, server: str, leader: str | None) -> None:
        super().__init__(f"{server} is not the leader: ask {leader or 'another server'}")
        self.leader = leader


class Variables(NamedTuple):
    """The variables of Figure 2 that a trace shows, as they are at one moment."""

    role: str
    current_term: int
    voted_for: str | None
    commit_index: int
    last_applied: int
    votes: list[str]
    match_index: dict[str, int]
    log_length: int
    last_log_term: int


class Core:
    """One Raft server, as a deterministic function of its inputs.

    Decisions are small predicate methods, so that a test can break one rule at a time.
    """

    def __init__(
        self,
        server: str,
        servers: tuple[str, ...],
        rng: random.Random,
        config: Config | None = None,
        persistent: Persistent | None = None,
        traced: bool = True,
    ) -> None:
        """Without `traced`, a batch's event has no more than its name: nobody will read it."""
        assert server in servers, f"{server} is not one of {servers}"
        assert len(set(servers)) == len(servers), f"{servers} names a server twice"
        self.server = server
        self.servers = servers
        self.peers = tuple(peer for peer in servers if peer != server)
        self.config = config or Config()
        self._rng = rng
        self._traced = traced

        persistent = persistent or Persistent()
        self.current_term = persistent.current_term
        self.voted_for = persistent.voted_for
        self.log = list(persistent.log)

        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.commit_index = 0
        self.last_applied = 0
        self.votes: set[str] = set()
        self.next_index = dict.fromkeys(self.peers, 1)
        self.match_index = dict.fromkeys(self.peers, 0)
        self.deadline = float("inf")  # nothing is due before `start`

        # A leader's view of its followers, beyond Figure 2. A probed follower is sent one
        # message at a time, until an answer shows where its log joins the leader's.
        self._probing: set[str] = set()
        self._heard: dict[str, float] = dict.fromkeys(self.peers, 0.0)

        # What the step being taken has done so far.
        self._now = 0.0
        self._before = self._variables()
        self._kept = 0
        self._appended: list[Entry] = []
        self._sends: list[Message] = []

    # Inputs: each is one step, and gives one event.

    def start(self, now: float) -> Batch:
        """The process starts with what its disk holds, as a follower. Section 5.1."""
        assert self.deadline == float("inf"), f"{self.server} has been started already"
        self._begin(now)
        self._recover()
        self._restart_election_timer()
        return self._finish("restart")

    def receive(self, now: float, m: Message) -> Batch:
        """A message arrives; a newer term in it is adopted first. Section 5.1."""
        assert m.target == self.server, f"{self.server} was given a message for {m.target}"
        assert m.source in self.match_index, f"{m.source} is not a peer of {self.server}"
        self._begin(now)
        if m.term > self.current_term:
            self._adopt_term(m.term)
        self._check_message(m)
        event, handle = self._HANDLERS[type(m)]
        handle(self, m)
        return self._finish(event, m)

    def tick(self, now: float) -> Batch | None:
        """Time passes: heartbeats of a leader, an election of anyone else, or nothing yet."""
        if now < self.deadline:
            return None
        return self.send_heartbeats(now) if self.role is Role.LEADER else self.start_election(now)

    def propose(self, now: float, commands: Sequence[bytes]) -> Batch:
        """A leader appends its clients' commands and replicates them. Section 5.3.

        They are the last `len(commands)` entries of `log` when this returns.
        """
        if self.role is not Role.LEADER:
            raise NotLeader(self.server, self.leader)
        assert commands, "a proposal needs a command"
        assert NO_OP not in commands, "the empty command is a new leader's no-op"
        self._begin(now)
        self._append(Entry(self.current_term, command) for command in commands)
        for peer in self.peers:
            if peer not in self._probing:
                self._send_entries(peer)
        self._advance_commit_index()
        return self._finish("client_request")

    def hand_over(self) -> TimeoutNow | None:
        """A leader that wants to go asks a follower with all of its log to stand. Dissertation, section 3.10.

        None as long as no follower has caught up. This is no step: no variable changes.
        """
        assert self.role is Role.LEADER, f"{self.server} does not lead term {self.current_term}"
        ready = [peer for peer in self.peers if self.match_index[peer] == len(self.log)]
        if not ready:
            return None
        return TimeoutNow(self.server, max(ready, key=self._heard.__getitem__), self.current_term)

    def timeout_now(self, now: float, m: TimeoutNow) -> Batch | None:
        """A follower's timeout comes early because its leader asks; None if that was in another term."""
        current = m.term == self.current_term and self.leader == m.source
        return self.start_election(now) if current and self.role is Role.FOLLOWER else None

    def heard(self, peer: str, now: float) -> float:
        """For how many seconds a leader has had no answer from a follower."""
        return max(0.0, now - self._heard[peer])

    def start_election(self, now: float) -> Batch:
        """A server without a leader increments its term and asks for votes. Section 5.2."""
        assert self.role is not Role.LEADER, f"{self.server} already leads term {self.current_term}"
        self._begin(now)
        self.role = Role.CANDIDATE
        self.current_term += 1
        self.leader = None
        self._vote_for_itself()
        self._restart_election_timer()
        for peer in self.peers:
            self._send(
                RequestVote(
                    source=self.server,
                    target=peer,
                    term=self.current_term,
                    last_log_index=len(self.log),
                    last_log_term=self._term_at(len(self.log)),
                )
            )
        if self._has_majority():
            self._become_leader()
        return self._finish("timeout")

    def send_heartbeats(self, now: float) -> Batch:
        """A leader keeps its followers from starting elections, and finds lost ones. Section 5.2.

        A follower that has been silent for a heartbeat interval may have got nothing of
        what was sent to it: it is asked again from the last entry known to match, with
        an empty AppendEntries, since it may be down.
        """
        assert self.role is Role.LEADER, f"{self.server} does not lead term {self.current_term}"
        self._begin(now)
        self.deadline = now + self.config.heartbeat_interval
        for peer in self.peers:
            silent = now - self._heard[peer] >= self.config.heartbeat_interval
            if silent and peer not in self._probing:
                self._probing.add(peer)
                self.next_index[peer] = self.match_index[peer] + 1
            self._send_append_entries(peer, 0 if silent else self._sendable(peer))
        return self._finish("append_entries")

    def restore(
        self,
        now: float,
        *,
        role: Role,
        current_term: int,
        voted_for: str | None,
        log: Iterable[Entry],
        commit_index: int,
        last_applied: int | None = None,
        votes: Iterable[str] = (),
        next_index: Mapping[str, int] | None = None,
        match_index: Mapping[str, int] | None = None,
    ) -> None:
        """Put this server into a state of Figure 2, whatever it was in; for tests and lockstep."""
        self.role = Role(role)
        self.current_term = current_term
        self.voted_for = voted_for
        self.log = list(log)
        self.commit_index = commit_index
        self.last_applied = commit_index if last_applied is None else last_applied
        self.votes = set(votes)
        self.next_index = dict.fromkeys(self.peers, len(self.log) + 1) | dict(next_index or {})
        self.match_index = dict.fromkeys(self.peers, 0) | dict(match_index or {})
        assert set(self.next_index) == set(self.match_index) == set(self.peers)
        self.leader = self.server if self.role is Role.LEADER else None
        self._probing = set()
        self._heard = dict.fromkeys(self.peers, now)
        if self.role is Role.LEADER:
            self.deadline = now + self.config.heartbeat_interval
        else:
            self._now = now
            self._restart_election_timer()

    # Handlers: `receive` has adopted any newer term.

    def _on_request_vote(self, m: RequestVote) -> None:
        """A voter answers a candidate. Figure 2, RequestVote RPC, receiver steps 1 and 2."""
        granted = self._is_current_candidate(m) and self._may_vote(m) and self._is_up_to_date(m)
        if granted:
            self.voted_for = m.source
            self._restart_election_timer()
        self._send(RequestVoteReply(self.server, m.source, self.current_term, granted))

    def _on_request_vote_reply(self, m: RequestVoteReply) -> None:
        """A candidate counts a vote, and leads once it has a majority. Section 5.2."""
        if not (m.granted and self._counts_vote(m)):
            return
        assert self.role is Role.CANDIDATE
        self.votes.add(m.source)
        if self._has_majority():
            self._become_leader()

    def _on_append_entries(self, m: AppendEntries) -> None:
        """A follower stores the leader's entries where they join onto its log.

        Figure 2, AppendEntries RPC, receiver steps 1 to 5. A refusal carries our term,
        so that a leader of an older one steps down.
        """
        if not self._is_current_leader(m):
            self._reply(m, success=False)
            return
        self._follow(m)

        if not self._joins(m):
            self._reply(m, success=False, hint=self._hint(m))
            return
        self._store(m.prev_log_index, m.entries)
        match_index = self._matched(m)
        self.commit_index = self._follower_commit_index(m, match_index)
        self._reply(m, success=True, match_index=match_index)

    def _on_append_entries_reply(self, m: AppendEntriesReply) -> None:
        """A leader learns what a follower stores, or that it must try further back.

        Figure 2, Rules for Servers, Leaders. A refusal that says nothing new is a late
        copy: answering it would only send the same entries once more.
        """
        if not self._counts_acknowledgement(m):
            return
        assert self.role is Role.LEADER
        self._heard[m.source] = self._now
        if m.success:
            self._note_match(m)
            self._probing.discard(m.source)
            self._advance_commit_index()
            self._send_entries(m.source)
            return
        next_index = self._next_to_try(m)
        if next_index < self.next_index[m.source] or m.source not in self._probing:
            self._probing.add(m.source)
            self.next_index[m.source] = next_index
            self._send_append_entries(m.source, self._sendable(m.source))

    _HANDLERS: ClassVar[dict[type, tuple[str, Callable[[Any, Any], None]]]] = {
        RequestVote: ("handle_request_vote", _on_request_vote),
        RequestVoteReply: ("handle_request_vote_reply", _on_request_vote_reply),
        AppendEntries: ("handle_append_entries", _on_append_entries),
        AppendEntriesReply: ("handle_append_entries_reply", _on_append_entries_reply),
    }

    # Rules: what a server may do, each in a method of its own.

    def _recover(self) -> None:
        """A restarted server has what it persisted, all of it. Section 5.1."""

    def _adopt_term(self, term: int) -> None:
        """A newer term makes anyone a follower who hasn't voted. Section 5.1."""
        assert term > self.current_term
        self.current_term = term
        self.voted_for = None
        self.leader = None
        self._step_down()

    def _step_down(self) -> None:
        """A leader or candidate becomes a follower. Section 5.1."""
        if self.role is Role.LEADER:
            self._restart_election_timer()  # `deadline` was the next heartbeat
        self.role = Role.FOLLOWER

    def _vote_for_itself(self) -> None:
        """A candidate's own vote is its vote of the term. Section 5.2."""
        self.voted_for = self.server
        self.votes = {self.server}

    def _has_majority(self) -> bool:
        """A candidate wins with the votes of a majority of the full cluster. Section 5.2."""
        return len(self.votes) > len(self.servers) // 2

    def _is_current_candidate(self, m: RequestVote) -> bool:
        """A candidate of an older term gets no vote. Figure 2, RequestVote RPC, step 1."""
        return m.term == self.current_term

    def _may_vote(self, m: RequestVote) -> bool:
        """A server votes for one candidate in a term. Figure 2, RequestVote RPC, step 2."""
        return self.voted_for in (None, m.source)

    def _is_up_to_date(self, m: RequestVote) -> bool:
        """A voter denies its vote if its own log is more complete. Section 5.4.1."""
        last_log_index = len(self.log)
        return (m.last_log_term, m.last_log_index) >= (self._term_at(last_log_index), last_log_index)

    def _counts_vote(self, m: RequestVoteReply) -> bool:
        """A vote counts in the term it was given in. Section 5.1."""
        return m.term == self.current_term and self.role is Role.CANDIDATE

    def _is_current_leader(self, m: AppendEntries) -> bool:
        """A leader of an older term is refused. Figure 2, AppendEntries RPC, step 1."""
        return m.term == self.current_term

    def _follow(self, m: AppendEntries) -> None:
        """Anyone follows the leader of its term, and waits with its own election. Section 5.2."""
        self._step_down()
        self.leader = m.source
        self._restart_election_timer()

    def _joins(self, m: AppendEntries) -> bool:
        """Entries join where the preceding one is the leader's. Figure 2, AppendEntries RPC, step 2."""
        return m.prev_log_index <= len(self.log) and self._term_at(m.prev_log_index) == m.prev_log_term

    def _hint(self, m: AppendEntries) -> int:
        """Where a leader may try next: before our log's end, or before a whole conflicting term.

        Section 5.3, end. One refusal a term instead of one an entry.
        """
        if m.prev_log_index > len(self.log):
            return len(self.log)
        hint, term = m.prev_log_index - 1, self._term_at(m.prev_log_index)
        while hint > self.commit_index and self._term_at(hint) == term:
            hint -= 1
        return hint

    def _store(self, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        """A follower's log takes on the leader's entries. Figure 2, AppendEntries RPC, steps 3 and 4.

        It is cut only at a conflict: a late copy of an old request must not undo
        entries that a newer one has stored since.
        """
        for stored, entry in enumerate(entries):
            n = prev_log_index + 1 + stored
            if n > len(self.log) or self._term_at(n) != entry.term:
                self._truncate(n - 1)
                self.log.extend(entries[stored:])
                return

    def _matched(self, m: AppendEntries) -> int:
        """A follower's log may be longer, but only this much is known to be the leader's."""
        return m.prev_log_index + len(m.entries)

    def _follower_commit_index(self, m: AppendEntries, match_index: int) -> int:
        """A follower's commit index follows its leader's. Figure 2, AppendEntries RPC, step 5."""
        return max(self.commit_index, min(m.leader_commit, match_index))

    def _counts_acknowledgement(self, m: AppendEntriesReply) -> bool:
        """An acknowledgement counts in the term it was given in. Section 5.1."""
        return m.term == self.current_term and self.role is Role.LEADER

    def _note_match(self, m: AppendEntriesReply) -> None:
        """What a follower stored once, it keeps: a late reply takes nothing back. Figure 2, Leaders."""
        self.match_index[m.source] = max(self.match_index[m.source], m.match_index)
        self.next_index[m.source] = max(self.next_index[m.source], self.match_index[m.source] + 1)

    def _next_to_try(self, m: AppendEntriesReply) -> int:
        """A refusal says where entries don't join, and nothing of where they do. Section 5.3."""
        return max(self.match_index[m.source] + 1, min(m.hint + 1, self.next_index[m.source]))

    def _quorum_index(self) -> int:
        """The last entry that a majority stores, the leader included. Figure 2, Leaders."""
        stored = sorted([*self.match_index.values(), len(self.log)], reverse=True)
        return stored[len(self.servers) // 2]

    def _may_commit(self, n: int) -> bool:
        """A leader counts replicas only for entries of its own term. Section 5.4.2, Figure 8."""
        return n > self.commit_index and self._term_at(n) == self.current_term

    # A leader's work.

    def _become_leader(self) -> None:
        """A candidate that has won leads, and says so. Section 5.2.

        Its no-op is an entry of its own term, with which older ones are committed
        even if no client ever asks for anything (section 8).
        """
        assert self.role is Role.CANDIDATE
        self.role = Role.LEADER
        self.leader = self.server
        self.next_index = dict.fromkeys(self.peers, len(self.log) + 1)
        self.match_index = dict.fromkeys(self.peers, 0)
        self._probing = set(self.peers)
        self._heard = dict.fromkeys(self.peers, self._now)
        self._append([Entry(self.current_term, NO_OP)])
        self.deadline = self._now + self.config.heartbeat_interval
        for peer in self.peers:
            self._send_append_entries(peer, self._sendable(peer))
        self._advance_commit_index()

    def _append(self, entries: Iterable[Entry]) -> None:
        """A leader adds entries at the end of its log, and never anywhere else. Section 5.3."""
        assert self.role is Role.LEADER
        appended = list(entries)
        self._appended += appended
        self.log += appended

    def _advance_commit_index(self) -> None:
        """A leader commits what a majority stores. Figure 2, Rules for Servers, Leaders."""
        n = self._quorum_index()
        if self._may_commit(n):
            self.commit_index = n

    def _send_entries(self, peer: str) -> None:
        """A follower is sent all it lacks, a bounded number of entries ahead of its answers."""
        while count := self._sendable(peer):
            self._send_append_entries(peer, count)
            if peer in self._probing:
                return

    def _sendable(self, peer: str) -> int:
        """How many entries the next AppendEntries to a follower may carry."""
        in_flight = self.next_index[peer] - 1 - self.match_index[peer]
        room = self.config.max_in_flight if peer in self._probing else self.config.max_in_flight - in_flight
        return max(0, min(len(self.log) + 1 - self.next_index[peer], self.config.max_entries, room))

    def _send_append_entries(self, peer: str, count: int) -> None:
        """A leader sends `count` entries from `next_index`, none for a heartbeat. Section 5.3.

        `next_index` moves on at once, not at the reply, so that requests overlap; for a
        follower that is being probed it stays where the answer will be about.
        """
        assert self.role is Role.LEADER
        prev_log_index = self.next_index[peer] - 1
        self._send(
            AppendEntries(
                source=self.server,
                target=peer,
                term=self.current_term,
                prev_log_index=prev_log_index,
                prev_log_term=self._term_at(prev_log_index),
                entries=tuple(self.log[prev_log_index : prev_log_index + count]),
                leader_commit=self.commit_index,
            )
        )
        if peer not in self._probing:
            self.next_index[peer] += count

    # The small parts.

    def _term_at(self, n: int) -> int:
        """The term of entry n; 0 before the log."""
        return self.log[n - 1].term if n else 0

    def _truncate(self, length: int) -> None:
        """Entries after `length` are gone. Only a follower ever does this. Section 5.3."""
        del self.log[length:]
        self._kept = min(self._kept, length)

    def _restart_election_timer(self) -> None:
        """Timeouts are random, so that split votes are rare and soon resolved. Section 5.2."""
        timeout = self.config.election_timeout
        self.deadline = self._now + self._rng.uniform(timeout, 2 * timeout)

    def _reply(self, m: AppendEntries, success: bool, match_index: int = 0, hint: int = 0) -> None:
        self._send(AppendEntriesReply(self.server, m.source, self.current_term, success, match_index, hint))

    def _send(self, m: Message) -> None:
        self._sends.append(m)

    # One step: what it began with, what it changed.

    def _variables(self) -> Variables:
        return Variables(
            self.role.value,
            self.current_term,
            self.voted_for,
            self.commit_index,
            self.last_applied,
            sorted(self.votes),
            self.match_index.copy(),
            len(self.log),
            self._term_at(len(self.log)),
        )

    def _begin(self, now: float) -> None:
        self._now = now
        self._before = self._variables()
        self._kept = len(self.log)
        self._appended = []
        self._sends = []

    def _finish(self, name: str, message: Message | None = None) -> Batch:
        """Committed entries are applied, and the step becomes a batch with its one trace event."""
        applied = self.last_applied
        self.last_applied = max(applied, self.commit_index)
        after = self._variables()
        self._check_step(self._before, after)
        return Batch(
            self._event(name, message, self._before, after),
            self._persist(self._before, after) if name != "restart" else None,
            tuple(self._sends),
            tuple(enumerate(self.log[applied : self.last_applied], applied + 1)),
        )

    def _persist(self, before: Variables, after: Variables) -> Persist | None:
        """What Figure 2 calls persistent goes to disk if it changed."""
        same_vote = (before.current_term, before.voted_for) == (after.current_term, after.voted_for)
        if same_vote and not self._log_changed(before, after):
            return None
        return Persist(self.current_term, self.voted_for, self._kept, tuple(self.log[self._kept :]))

    def _log_changed(self, before: Variables, after: Variables) -> bool:
        return self._kept < before.log_length or after.log_length > self._kept

    def _event(
        self, name: str, message: Message | None, before: Variables, after: Variables
    ) -> dict[str, Any]:
        """The step as a line of the trace: the variables it changed, and what it sent."""
        event: dict[str, Any] = {"server": self.server, "event": name, "time": round(self._now, 6)}
        if not self._traced:
            return event
        if message is not None:
            event["message"] = traced_message(message)
        if name == "restart":
            event["state"] = after._asdict()
            del event["state"]["votes"], event["state"]["match_index"]
            since = max(0, len(self.log) - RESTART_ENTRIES)
            event["entries"] = traced_entries(self.log[since:])
            event["after"] = since
        else:
            event["state"] = self._changes(before, after)
            if isinstance(message, AppendEntries) and message.entries:
                # That the log took them, or had them, is news even if it is as long as before.
                event["state"] |= {"log_length": after.log_length, "last_log_term": after.last_log_term}
            if self._appended:
                event["entries"] = traced_entries(self._appended)
        event["sends"] = [traced_message(m) for m in self._sends]
        return event

    def _changes(self, before: Variables, after: Variables) -> dict[str, Any]:
        """The variables whose values differ; of `match_index` only the servers that do.

        A trace says nothing of a variable by leaving it out. In a newer term role and vote
        are therefore said even if they are the same: that they are is news.
        """
        changes: dict[str, Any] = {
            name: new for name, old, new in zip(Variables._fields, before, after, strict=True) if new != old
        }
        if "match_index" in changes:
            changes["match_index"] = {
                peer: n for peer, n in after.match_index.items() if n != before.match_index[peer]
            }
        if "current_term" in changes:
            changes["role"] = after.role
            changes["voted_for"] = after.voted_for
        if self._log_changed(before, after):
            changes["log_length"] = after.log_length
            changes["last_log_term"] = after.last_log_term
        return changes

    # Checks: a server that finds itself or a peer to be wrong stops.

    def _check_message(self, m: Message) -> None:
        """What nobody sends to a server of its own term."""
        if m.term < self.current_term or self.role is not Role.LEADER:
            return
        match m:
            case AppendEntries():
                raise AssertionError(f"{self.server} and {m.source} both lead term {m.term}")
            case AppendEntriesReply():
                assert m.match_index <= len(self.log), (
                    f"{m.source} acknowledges entry {m.match_index}, {self.server} has {len(self.log)}"
                )

    def _check_step(self, before: Variables, after: Variables) -> None:
        """What no step may do, whatever its input."""
        assert after.current_term >= before.current_term, "a term never goes back (section 5.1)"
        if after.current_term == before.current_term:
            assert before.voted_for in (None, after.voted_for), "a vote is never changed (section 5.2)"
            if before.role == Role.LEADER:
                assert after.role == Role.LEADER, "a leader leads until a newer term (section 5.1)"
                assert self._kept == before.log_length, "a leader only appends (section 5.3)"
        if after.role != Role.FOLLOWER:
            assert after.voted_for == self.server, "a candidate votes for itself (section 5.2)"
        assert self._kept >= before.commit_index, "a committed entry is never removed (section 5.4)"
        assert after.commit_index >= before.commit_index, "the commit index never goes back (Figure 2)"
        assert after.commit_index <= after.log_length, "only stored entries are committed (section 5.3)"
        assert after.last_applied == after.commit_index, "committed entries are applied at once (Figure 2)"

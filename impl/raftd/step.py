"""One step of a server: what it began with, what it changed, sent and applied, and its line of the trace.

Everything that a step does, `Step` can tell at its end: from a few variables kept at its start.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    InstallSnapshot,
    Message,
    ReadIndex,
    Snapshot,
)
from raftd.sessions import Result, Sessions
from raftd.state import Batch, Config, Persist, Persistent, Role, Variables
from raftd.trace import traced_entries, traced_message

ENTRY_SIZE = 16  # bytes of an entry beside its command, about
ANSWERS = 1000  # of how many entries at the end a step's event says what clients were answered
RESTART_ENTRIES = 16  # how much of the log's end a restart event shows

SETS = (set, frozenset)

# The variables beside Figure 2's that a trace shows, each with the extension that it belongs to.
EXTENDED = (
    ("reads", "read_index"),
    ("reads", "read_round"),
    ("reads", "read_acks"),
    ("pre_vote", "pre_votes"),
    ("leadership_transfer", "told_to_stand"),
    ("membership", "configured"),
)


class Step:
    """The variables of Figure 2, and what the step being taken has done to them."""

    _SESSIONS: ClassVar[type[Sessions]] = Sessions

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
        self.config = config or Config()
        joins = self.config.membership and server not in servers
        assert server in servers or joins, f"{server} is not one of {servers}"
        assert len(set(servers)) == len(servers), f"{servers} names a server twice"
        self.server = server
        self.servers = servers
        self.peers = tuple(peer for peer in servers if peer != server)
        self._rng = rng
        self._traced = traced
        self._shown = [name for option, name in EXTENDED if getattr(self.config, option)]

        persistent = persistent or Persistent()
        self.current_term = persistent.current_term
        self.voted_for = persistent.voted_for
        self.log = copy(persistent.log)

        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.snapshot = persistent.snapshot
        self.commit_index = self.log.snapshot_index  # a snapshot holds what is committed
        self.last_applied = self.commit_index
        self.votes: set[str] = set()
        self.pre_votes: set[str] = set()  # who would vote for this server, which has asked
        self.told_to_stand = False  # by its leader
        self.next_index = dict.fromkeys(self.peers, 1)
        self.match_index = dict.fromkeys(self.peers, 0)
        self.deadline = float("inf")  # nothing is due before `start`

        # A leader's view of its followers, beyond Figure 2. A probed follower is sent one
        # message at a time, until an answer shows where its log joins the leader's.
        self._probing: set[str] = set()
        self._heard: dict[str, float] = dict.fromkeys(self.peers, 0.0)
        self._sending: dict[str, Snapshot] = {}  # the snapshot that a follower is getting
        self.session_table: Sessions | None = None
        self._applied_size = 0  # bytes of what has been applied since the last snapshot

        # What the step being taken has done so far.
        self._now = 0.0
        self._before = self._after = self._variables()
        self._before_extended: dict[str, Any] = {}
        self._after_extended: dict[str, Any] = {}
        self._kept = 0
        self._appended: list[Entry] = []
        self._sends: list[Message] = []
        self._taken: Snapshot | None = None  # new in this step, as is
        self._installed: Snapshot | None = None

    # The parts of a step.

    def _restart_election_timer(self) -> None:
        """Timeouts are random, so that split votes are rare and soon resolved. Section 5.2."""
        timeout = self.config.election_timeout
        self.deadline = self._now + self._rng.uniform(timeout, 2 * timeout)

    def _may_resign(self) -> bool:
        """A leader has a reason to stop in its own term; in Figure 2 there is none."""
        return False

    def _truncate(self, length: int) -> None:
        """Entries after `length` are gone. Only a follower ever does this. Section 5.3."""
        self.log.truncate(length)
        self._kept = min(self._kept, length)

    def _send(self, m: Message) -> None:
        self._sends.append(m)

    def _begin(self, now: float) -> None:
        self._now = now
        self._before, self._before_extended = self._after, self._after_extended
        self._kept = self.log.last_index
        self._appended = []
        self._sends = []
        self._taken = self._installed = None

    def _finish(self, name: str, message: Message | None = None) -> Batch:
        """Committed entries are applied, and the step becomes a batch with its one trace event."""
        applied = self._newly_committed()
        results = self._execute(applied)
        self._note()
        before, after = self._before, self._after
        self._check_step(before, after)
        event = {"server": self.server, "event": name}
        if self._traced:
            event |= self._event(name, message, results)
        persist = self._persist(before, after) if name != "restart" else None
        return Batch(event, persist, tuple(self._sends), applied, results, self._installed)

    def _newly_committed(self) -> tuple[tuple[int, Entry], ...]:
        """What is committed and not applied yet is applied in this step. Figure 2, Rules for Servers."""
        first = self.last_applied + 1
        if self.commit_index < first:
            return ()
        self.last_applied = self.commit_index
        entries = self.log.entries(first, self.commit_index + 1 - first)
        for entry in entries:
            self._applied_size += len(entry.command) + ENTRY_SIZE
        return tuple(enumerate(entries, first))

    def keep_sessions(self, machine: Any, local_clock: Callable[[], float]) -> None:
        """From now on committed entries are executed here, as the table of sessions says; before `start`."""
        self.session_table = self._SESSIONS(machine, local_clock, self.config.session_timeout)
        if self.snapshot is not None:
            self.session_table.load(self.snapshot.state)

    def _execute(self, entries: Sequence[tuple[int, Entry]]) -> tuple[Result, ...]:
        """What comes of entries, if this server keeps sessions. Nobody hears of it before all is on disk."""
        table = self.session_table
        if table is None:
            return ()
        if self._installed is not None:
            table.load(self._installed.state)
        return tuple(table.apply(n, entry.command) for n, entry in entries)

    def _variables(self) -> Variables:
        log = self.log
        return Variables(
            self.role,
            self.current_term,
            self.voted_for,
            self.commit_index,
            self.last_applied,
            sorted(self.votes),
            self.match_index.copy(),
            log.last_index,
            log.last_term,
            log.snapshot_index,
        )

    def _extended(self) -> dict[str, Any]:
        """The variables of extensions that a trace shows, of those that are switched on."""
        values = {}
        for name in self._shown:
            value = getattr(self, name)
            values[name] = sorted(value) if isinstance(value, SETS) else value
        return values

    def _note(self) -> None:
        """What the variables are now they are until the next step: nothing else changes them."""
        self._after = self._variables()
        if self._traced:
            self._after_extended = self._extended()

    def _restore_extended(self, variables: Mapping[str, Any]) -> None:
        """Take up the variables of extensions, for tests and lockstep."""

    def _persist(self, before: Variables, after: Variables) -> Persist | None:
        """What Figure 2 calls persistent goes to disk if it changed."""
        same_vote = (before.current_term, before.voted_for) == (after.current_term, after.voted_for)
        if same_vote and not self._log_changed(before, after) and self._taken is None:
            return None
        new = self.log.entries(max(self._kept, self.log.snapshot_index) + 1)
        return Persist(self.current_term, self.voted_for, self._kept, new, self._taken)

    def _takes_snapshots(self) -> bool:
        """Whether anybody needs to hear of snapshots."""
        return self.config.snapshot_after > 0 or self.log.snapshot_index > 0

    def _log_changed(self, before: Variables, after: Variables) -> bool:
        return self._kept < before.log_length or after.log_length > self._kept

    # Its line of the trace.

    def _event(self, name: str, message: Message | None, results: tuple[Result, ...]) -> dict[str, Any]:
        """What the step's line of the trace says: the variables it changed, and what it sent."""
        before, after = self._before, self._after
        event: dict[str, Any] = {"time": round(self._now, 6)}
        if message is not None:
            event["message"] = traced_message(message)
        if name == "restart":
            event["state"] = after._asdict()
            del event["state"]["votes"], event["state"]["match_index"]
            event["state"] |= self._after_extended
            if not self._takes_snapshots():
                del event["state"]["snapshot_index"]
            since = max(self.log.snapshot_index, self.log.last_index - RESTART_ENTRIES)
            event["entries"] = traced_entries(self.log.entries(since + 1), self.config.sessions)
            event["after"] = since
        else:
            event["state"] = self._changes(before, after)
            stored = isinstance(message, AppendEntries) and message.entries
            if stored or (isinstance(message, InstallSnapshot) and self._taken):
                # That the log took them, or had them, is news even if it is as long as before.
                event["state"] |= {"log_length": after.log_length, "last_log_term": after.last_log_term}
            if self._appended:
                event["entries"] = traced_entries(self._appended, self.config.sessions)
        event["sends"] = [traced_message(m) for m in self._sends]
        if results:
            told = results[-ANSWERS:]
            answers = enumerate(told, self.last_applied + 1 - len(told))
            if asked := {n: r.origin for n, r in answers if r.asked}:
                event["answers"] = asked
        return event

    def _changes(self, before: Variables, after: Variables) -> dict[str, Any]:
        """The variables whose values differ; of `match_index` only the servers that do.

        A trace says nothing of a variable by leaving it out. In a newer term role and vote
        are therefore said even if they are the same: that they are is news.
        """
        changes: dict[str, Any] = {}
        if after != before:
            both = zip(Variables._fields, before, after, strict=True)
            changes = {name: new for name, old, new in both if new != old}
        if "match_index" in changes:
            changes["match_index"] = {
                peer: n for peer, n in after.match_index.items() if n != before.match_index.get(peer, 0)
            }
        if "current_term" in changes:
            changes["role"] = after.role
            changes["voted_for"] = after.voted_for
        if self._log_changed(before, after):
            changes["log_length"] = after.log_length
            changes["last_log_term"] = after.last_log_term
        # That who steps down drops what it had for its term is news, too.
        whole = "role" in changes
        if whole or self._after_extended != self._before_extended:
            extended = self._after_extended.items()
            changes |= {n: new for n, new in extended if whole or new != self._before_extended.get(n)}
        return changes

    # Checks: a server that finds itself or a peer to be wrong stops.

    def _check_message(self, m: Message) -> None:
        """What nobody sends to a server of its own term."""
        if m.term < self.current_term or self.role is not Role.LEADER:
            return
        match m:
            case AppendEntries() | InstallSnapshot() | ReadIndex():
                raise AssertionError(f"{self.server} and {m.source} both lead term {m.term}")
            case AppendEntriesReply():
                assert m.match_index <= self.log.last_index, (
                    f"{m.source} acknowledges entry {m.match_index}, {self.server} has {self.log.last_index}"
                )

    def _check_step(self, before: Variables, after: Variables) -> None:
        """What no step may do, whatever its input."""
        assert after.current_term >= before.current_term, "a term never goes back (section 5.1)"
        if after.current_term == before.current_term:
            assert before.voted_for in (None, after.voted_for), "a vote is never changed (section 5.2)"
            if before.role is Role.LEADER:
                assert after.role is Role.LEADER or self._may_resign(), (
                    "a leader leads until a newer term (section 5.1)"
                )
                assert self._kept == before.log_length, "a leader only appends (section 5.3)"
        if after.role is not Role.FOLLOWER:
            assert after.voted_for == self.server, "a candidate votes for itself (section 5.2)"
        kept = max(self._kept, after.snapshot_index)
        assert kept >= before.commit_index, "a committed entry is never removed (section 5.4)"
        assert after.commit_index >= before.commit_index, "the commit index never goes back (Figure 2)"
        assert after.commit_index <= after.log_length, "only stored entries are committed (section 5.3)"
        assert before.snapshot_index <= after.snapshot_index, "a snapshot never goes back (section 7)"
        assert after.snapshot_index <= after.last_applied, "a snapshot holds what is applied (section 7)"
        assert after.last_applied == after.commit_index, "committed entries are applied at once (Figure 2)"

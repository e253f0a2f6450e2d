"""Replication: a leader's entries reach its followers, and are committed. Sections 5.3 and 5.4."""

from __future__ import annotations

from collections.abc import Iterable

from raftd.messages import AppendEntries, AppendEntriesReply, Entry, InstallSnapshot
from raftd.snapshots import Snapshots
from raftd.state import Batch, Role


class Replication(Snapshots):
    """What a server does as a leader and as a follower."""

    # A follower's work.

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

    def _on_install_snapshot(self, m: InstallSnapshot) -> None:
        """A follower takes over its leader's snapshot. Dissertation, Figure 5.3.

        It stores that much in any case: what it has committed itself is the leader's too.
        """
        if not self._is_current_snapshot(m):
            self._reply(m, success=False)
            return
        self._follow(m)
        if self._is_ahead(m.snapshot):
            self._install(m)
        self._reply(m, success=True, match_index=m.snapshot.last_included_index)

    def _reply(
        self, m: AppendEntries | InstallSnapshot, success: bool, match_index: int = 0, hint: int = 0
    ) -> None:
        self._send(AppendEntriesReply(self.server, m.source, self.current_term, success, match_index, hint))

    # A follower's rules.

    def _is_current_leader(self, m: AppendEntries) -> bool:
        """A leader of an older term is refused. Figure 2, AppendEntries RPC, step 1."""
        return m.term == self.current_term

    def _follow(self, m: AppendEntries | InstallSnapshot) -> None:
        """Anyone follows the leader of its term, and waits with its own election. Section 5.2."""
        self._step_down()
        self.leader = m.source
        self._restart_election_timer()

    def _step_down(self) -> None:
        """A leader or candidate becomes a follower. Section 5.1."""
        if self.role is Role.LEADER:
            self._restart_election_timer()  # `deadline` was the next heartbeat
        if self.role is not Role.FOLLOWER:
            self._unprepare()
        self.role = Role.FOLLOWER

    def _unprepare(self) -> None:
        """What let this server stand is over: it stands, or leads, or is in a newer term."""
        self.pre_votes.clear()
        self.told_to_stand = False

    def _joins(self, m: AppendEntries) -> bool:
        """Entries join where the preceding one is the leader's. Figure 2, AppendEntries RPC, step 2.

        What is compacted is committed, so that a leader has it too.
        """
        n = m.prev_log_index
        if n < self.log.snapshot_index:
            return True
        return n <= self.log.last_index and self.log.term_at(n) == m.prev_log_term

    def _hint(self, m: AppendEntries) -> int:
        """Where a leader may try next: before our log's end, or before a whole conflicting term.

        Section 5.3, end. One refusal a term instead of one an entry.
        """
        if m.prev_log_index > self.log.last_index:
            return self.log.last_index
        hint, term = m.prev_log_index - 1, self.log.term_at(m.prev_log_index)
        while hint > self.commit_index and self.log.term_at(hint) == term:
            hint -= 1
        return hint

    def _store(self, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        """A follower's log takes on the leader's entries. Figure 2, AppendEntries RPC, steps 3 and 4.

        It is cut only at a conflict: a late copy of an old request must not undo
        entries that a newer one has stored since.
        """
        for stored, entry in enumerate(entries):
            n = prev_log_index + 1 + stored
            if n <= self.log.snapshot_index:
                continue  # compacted, and so the leader's
            if n > self.log.last_index or self.log.term_at(n) != entry.term:
                self._truncate(n - 1)
                self.log.append(entries[stored:])
                return

    def _matched(self, m: AppendEntries) -> int:
        """A follower's log may be longer, but only this much is known to be the leader's."""
        return m.prev_log_index + len(m.entries)

    def _follower_commit_index(self, m: AppendEntries, match_index: int) -> int:
        """A follower's commit index follows its leader's. Figure 2, AppendEntries RPC, step 5."""
        return max(self.commit_index, min(m.leader_commit, match_index))

    # A leader's work.

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
            self._note_installed(m)
            self._probing.discard(m.source)
            self._advance_commit_index()
            if self.role is Role.LEADER:  # and was not removed by what is committed now
                self._send_entries(m.source)
            return
        next_index = self._next_to_try(m)
        if next_index < self.next_index[m.source] or m.source not in self._probing:
            self._probing.add(m.source)
            self.next_index[m.source] = next_index
            if self._lacks_compacted(m.source):
                self._send_snapshot(m.source)
            else:
                self._send_append_entries(m.source, self._sendable(m.source))

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
            if self._lacks_compacted(peer) and now - self._heard[peer] < self.config.election_timeout:
                self._send_snapshot(peer)  # to one that is up: it is large
            self._send_append_entries(peer, 0 if silent else self._sendable(peer))
        self._ask_again()
        return self._finish("append_entries")

    def _ask_again(self) -> None:
        """What else a leader says again with its heartbeats, as it may have got lost."""

    def _append(self, entries: Iterable[Entry]) -> None:
        """A leader adds entries at the end of its log, and never anywhere else. Section 5.3."""
        assert self.role is Role.LEADER
        appended = list(entries)
        self._appended += appended
        self.log.append(appended)

    def _advance_commit_index(self) -> None:
        """A leader commits what a majority stores. Figure 2, Rules for Servers, Leaders."""
        n = self._quorum_index()
        if self._may_commit(n):
            self.commit_index = n

    def _send_entries(self, peer: str) -> None:
        """A follower is sent all it lacks, a bounded number of entries ahead of its answers."""
        if self._lacks_compacted(peer):
            self._send_snapshot(peer)
        while count := self._sendable(peer):
            self._send_append_entries(peer, count)
            if peer in self._probing:
                return

    def _sendable(self, peer: str) -> int:
        """How many entries the next AppendEntries to a follower may carry."""
        lacking = self.log.last_index + 1 - self.next_index[peer]
        if lacking <= 0 or self._lacks_compacted(peer):
            return 0
        in_flight = self.next_index[peer] - 1 - self.match_index[peer]
        if in_flight and not (self.config.pipelining or peer in self._probing):
            return 0
        room = self.config.max_in_flight if peer in self._probing else self.config.max_in_flight - in_flight
        return max(0, min(lacking, self.config.max_entries, room))

    def _send_append_entries(self, peer: str, count: int) -> None:
        """A leader sends `count` entries from `next_index`, none for a heartbeat. Section 5.3.

        `next_index` moves on at once, not at the reply, so that requests overlap; for a
        follower that is being probed it stays where the answer will be about. What precedes the
        entries is not compacted, or its term would not be known.
        """
        assert self.role is Role.LEADER
        prev_log_index = max(self.next_index[peer] - 1, self.log.snapshot_index)
        self._send(
            AppendEntries(
                source=self.server,
                target=peer,
                term=self.current_term,
                prev_log_index=prev_log_index,
                prev_log_term=self.log.term_at(prev_log_index),
                entries=self.log.entries(prev_log_index + 1, count),
                leader_commit=self.commit_index,
            )
        )
        if peer not in self._probing:
            self.next_index[peer] += count

    # A leader's rules.

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
        stored = sorted([*self.match_index.values(), self.log.last_index], reverse=True)
        return stored[len(self.servers) // 2]

    def _may_commit(self, n: int) -> bool:
        """A leader counts replicas only for entries of its own term. Section 5.4.2, Figure 8."""
        return n > self.commit_index and self.log.term_at(n) == self.current_term

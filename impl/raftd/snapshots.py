"""Snapshots: the log's beginning gives way to what it has come to. Dissertation, chapter 5.

A server takes a snapshot of its own state machine, on its own; a leader sends its snapshot to a follower
that lacks entries which are compacted.
"""

from __future__ import annotations

from raftd.messages import AppendEntriesReply, InstallSnapshot, Snapshot
from raftd.state import Batch
from raftd.step import Step


class Snapshots(Step):
    """What a server does to keep its log short, and with followers for whom it is too short."""

    @property
    def snapshot_due(self) -> bool:
        """Whether so much has been applied since the last snapshot that another is worth its while.

        At least as much as the snapshot itself holds, or writing snapshots would be most of what is
        written. Dissertation, section 5.1.2.
        """
        least = self.config.snapshot_after
        held = len(self.snapshot.state) if self.snapshot else 0
        return least > 0 and max(least, held) <= self._applied_size

    def take_snapshot(self, now: float, state: bytes) -> Batch:
        """What has been applied is in the state machine's state, and the entries go. Section 5.1."""
        self._begin(now)
        n = self._snapshot_end()
        assert n > self.log.snapshot_index, f"entries up to {n} are in a snapshot already"
        self._take(Snapshot(n, self.log.term_at(n), state, *self._configuration_at(n)))
        self.log.compact(n)
        return self._finish("take_snapshot")

    def _configuration_at(self, n: int) -> tuple[int, bytes]:
        """Index and command of the newest configuration entry up to n; none where membership is fixed."""
        return 0, b""

    def _take(self, snapshot: Snapshot) -> None:
        """What a snapshot holds is committed and applied, if it wasn't before."""
        self.snapshot = self._taken = snapshot
        self._applied_size = 0
        self.commit_index = max(self.commit_index, snapshot.last_included_index)
        self.last_applied = max(self.last_applied, snapshot.last_included_index)

    def _install(self, m: InstallSnapshot) -> None:
        """A leader's snapshot takes the place of log and state machine, up to its end. Figure 5.3.

        A stale snapshot must not undo what follows it: entries that the log has after it stay, unless the
        log went another way before.
        """
        snapshot = m.snapshot
        n, term = snapshot.last_included_index, snapshot.last_included_term
        if not self._keeps_newer(snapshot):
            self._truncate(self.log.snapshot_index)
        self.log.install(n, term)
        self._take(snapshot)
        self._installed = self._state_to_install(snapshot)
        self.last_applied = n

    def _send_snapshot(self, peer: str) -> None:
        """A follower gets one snapshot to its end, or a slow one would never have all of any. Section 5.3."""
        assert self.snapshot is not None
        self._probing.add(peer)
        snapshot = self._sending.setdefault(peer, self.snapshot)
        self._send(InstallSnapshot(self.server, peer, self.current_term, snapshot))

    def _note_installed(self, m: AppendEntriesReply) -> None:
        """What a follower acknowledges it need not be sent."""
        snapshot = self._sending.get(m.source)
        if snapshot and snapshot.last_included_index <= m.match_index:
            del self._sending[m.source]

    # Rules.

    def _snapshot_end(self) -> int:
        """A snapshot holds what is applied, and so committed: anything else could vanish. Section 5.1."""
        return self.last_applied

    def _is_current_snapshot(self, m: InstallSnapshot) -> bool:
        """A leader of an older term is refused. Figure 5.3, step 1."""
        return m.term == self.current_term

    def _is_ahead(self, snapshot: Snapshot) -> bool:
        """A snapshot of what is known to be committed is old: a state machine never goes back."""
        return snapshot.last_included_index > self.commit_index

    def _keeps_newer(self, snapshot: Snapshot) -> bool:
        """Entries after a snapshot stay if its last is in the log, which then is the leader's. Figure 5.3."""
        n = snapshot.last_included_index
        return n <= self.log.last_index and self.log.term_at(n) == snapshot.last_included_term

    def _state_to_install(self, snapshot: Snapshot) -> Snapshot | None:
        """The state machine's state is replaced, not added to. Figure 5.3, step 8."""
        return snapshot

    def _lacks_compacted(self, peer: str) -> bool:
        """A follower's next entry is compacted, so it can't be sent. Section 5.3."""
        return self.next_index[peer] <= self.log.snapshot_index

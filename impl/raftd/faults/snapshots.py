"""Servers that break a rule of snapshots. Dissertation, chapter 5."""

from __future__ import annotations

from raftd.faults.breaking import Broken, breaks
from raftd.messages import InstallSnapshot, Snapshot


@breaks("membership.in_snapshot")
class ForgetsMembers(Broken):
    """A server's snapshot doesn't say who is in the cluster, and the entry that did is compacted."""

    def _configuration_at(self, n: int) -> tuple[int, bytes]:
        return 0, b""


@breaks("snapshot.applied_only")
class CompactsUncommitted(Broken):
    """A server puts all of its log into a snapshot, whether it is committed or not."""

    def _snapshot_end(self) -> int:
        return self.log.last_index


@breaks("snapshot.current_term")
class InstallsOldLeaders(Broken):
    """A server takes over the snapshot of a leader of an older term."""

    def _is_current_snapshot(self, m: InstallSnapshot) -> bool:
        return True


@breaks("snapshot.keep_newer")
class DiscardsAlways(Broken):
    """A follower's log is what the snapshot holds, even if it had gone on from there."""

    def _keeps_newer(self, snapshot: Snapshot) -> bool:
        return False


@breaks("snapshot.discard_conflict")
class KeepsConflictingLog(Broken):
    """A follower keeps what its log has after the snapshot, though it went another way before."""

    def _keeps_newer(self, snapshot: Snapshot) -> bool:
        return True


@breaks("snapshot.keep_term")
class BackInTermOfSnapshot(Broken):
    """A server that starts from a snapshot is in the term of its last entry."""

    def _recover(self) -> None:
        if self.snapshot is not None:
            self.current_term = self.snapshot.last_included_term


@breaks("snapshot.replace_state")
class KeepsItsState(Broken):
    """A follower takes over a snapshot's place in the log, and not the state of the state machine."""

    def _state_to_install(self, snapshot: Snapshot) -> Snapshot | None:
        return None

"""Snapshots: a log's beginning is compacted, and gives way to what it came to. Dissertation, chapter 5.

Here the log stays whole, and `snapshot_index` says how far it is compacted: the server has a snapshot in
place of those entries, and can't look at them any more, but for the term of the last. The state of the state
machine, which a snapshot holds, are here the entries that it stands for.

    n  the last entry that a snapshot stands for
"""

from __future__ import annotations

from raftspec.configurations import newest_stored
from raftspec.raft import (
    FOLLOWER,
    LEADER,
    AppendEntriesReply,
    Entry,
    History,
    ServerVariables,
    adopt,
    step_down,
    with_leader,
)
from raftspec.rules import read
from raftspec.session_table import emptied
from raftspec.spec import Extension, State, Step, when
from raftspec.types import Count, Index, Message, Server
from raftspec.values import Seq, every, ite, no


class SnapshotVariables(ServerVariables):
    snapshot_index: Index = 0  # persistent


class SnapshotHistory(History):
    snapshots: Count = 0  # that servers took of themselves


snapshots = Extension(
    SnapshotVariables,
    SnapshotHistory,
    read("""
snapshot.applied_only     | safety   | D 5.1   | A snapshot can't be taken back, and what isn't committed may have to be.
snapshot.last_term        | safety   | D 5.1   | The term of the last compacted entry is needed to vote, and for the next entry to join onto.
snapshot.send_kept        | safety   | D 5.3   | What is compacted can't be sent; entries from after it would land in the wrong places.
snapshot.compacted_joins  | liveness | D 5.1   | What is compacted is committed, so the leader has it too, and what it sends joins without a look.
snapshot.leader_only      | implied  | D 5.3   | A follower's snapshot holds only what is committed, too; but followers listen to leaders.
snapshot.send_taken       | safety   | D 5.3   | A leader sends the snapshot that it has, which is of committed entries.
snapshot.send_latest      | policy   | D 5.3   | The latest snapshot saves the most entries.
snapshot.send_needed      | policy   | D 5.3   | A follower that can be sent entries needs no snapshot.
snapshot.current_term     | implied  | D 5.3   | A deposed leader's snapshot is of committed entries, too; but a leader is followed in its term only.
snapshot.never_back       | safety   | D 5.3   | A state machine never goes back to what a late snapshot holds.
snapshot.keep_newer       | safety   | D 5.3   | Entries after a stale snapshot may be acknowledged already; a snapshot of a log's own beginning removes none.
snapshot.discard_conflict | safety   | D 5.3   | Entries that follow a conflicting one are not the leader's.
restart.keep_snapshot     | safety   | D 5.1   | Without its snapshot a server has lost all entries that it stands for.
"""),  # noqa: E501  (one rule, one row)
    name="snapshots",
)
S = State[SnapshotVariables, SnapshotHistory]


class InstallSnapshot(Message):
    prefix: Seq[Entry]  # what the snapshot stands for


@snapshots.action
def take_snapshot(s: S, i: Server, n: Index) -> Step:
    """Server i puts a snapshot of its state machine in place of its entries up to n. Section 5.1."""
    me = s[i]
    return Step(
        i,
        when("n is past snapshot_index", n > me.snapshot_index),
        when("n is in the log", n <= me.log.length),
        when("n is applied", s.rule("snapshot.applied_only", n <= me.last_applied)),
        then=me.but(snapshot_index=n),
        history=s.past.but(snapshots=s.past.snapshots + 1),
    )


@snapshots.action
def install_snapshot(s: S, i: Server, j: Server, n: Index) -> Step:
    """Leader i sends j, which lacks what is compacted, the snapshot of entries up to n. Section 5.3."""
    me = s[i]
    return Step(
        i,
        when("i is leader", s.rule("snapshot.leader_only", me.role == LEADER)),
        when("j is another server", i != j),
        when("there is a snapshot", n > 0),
        when("n is in the log", n <= me.log.length),
        when("n is in a snapshot", s.rule("snapshot.send_taken", n <= me.snapshot_index)),
        when("n is the latest snapshot's last", s.rule("snapshot.send_latest", n == me.snapshot_index)),
        when("j's next entry is compacted", s.rule("snapshot.send_needed", me.next_index[j] <= n)),
        send=InstallSnapshot(i, j, me.current_term, me.log.prefix(n)),
    )


@snapshots.action
def handle_install_snapshot(s: S, m: InstallSnapshot) -> Step:
    """Server m.target takes over its leader's snapshot. Dissertation, Figure 5.3.

    The answer is that to AppendEntries: so much is stored, now or before.
    """
    i, me = m.target, adopt(s, s[m.target], m.term)  # type: ignore[arg-type]
    n = m.prefix.length
    current = s.rule("snapshot.current_term", m.term == me.current_term)
    if s.rule("append.candidate_steps_down", current & (me.role != FOLLOWER), without=False):
        me = step_down(s, me)  # type: ignore[arg-type]
    me = with_leader(s, me, m, current)  # type: ignore[arg-type]
    if not current:
        refusal = AppendEntriesReply(i, m.source, me.current_term, False, 0)
        return Step(i, then=me, send=refusal if s.follows("append.refuse") else ())

    acknowledgement = AppendEntriesReply(i, m.source, me.current_term, True, n)
    if not s.rule("snapshot.never_back", n > me.commit_index):
        return Step(i, then=me, send=acknowledgement)
    holds = (n <= me.log.length) & (me.log.at(n).term == m.prefix.last.term)
    keeps = s.rule("snapshot.keep_newer", holds, without=False)
    discards = s.rule("snapshot.discard_conflict", no(keeps), without=False)
    kept = me.log.slice(n, ite(discards, n, me.log.length))
    if s.has("membership"):
        included = newest_stored(s, me, 0, 0, m.prefix)
        configured = me.configured
        me = me.but(configured=ite(discards | (configured <= n), included, configured))
    me = emptied(me) if s.has("sessions") else me.but(last_applied=n)
    return Step(
        i,
        then=me.but(
            log=me.log.prefix(0).concat(m.prefix).concat(kept),
            snapshot_index=n,
            commit_index=n,
        ),
        send=acknowledgement,
    )


# --- properties --------------------------------------------------------------


@snapshots.invariant
def compacted_is_committed(s: S) -> bool:
    """A snapshot stands for committed entries only: for the same ones on every server. Section 5.1."""
    return every(s[i].log.agrees(s.past.committed, s[i].snapshot_index) for i in s.servers)


@snapshots.invariant
def compacted_is_applied(s: S) -> bool:
    """A state machine has what its server's snapshot stands for. Section 5.1.

    With sessions the state after a snapshot is made again, entry by entry.
    """
    return s.has("sessions") or every(s[i].snapshot_index <= s[i].last_applied for i in s.servers)


@snapshots.step_property
def snapshot_never_falls(s: S, t: S) -> bool:
    """What is compacted stays so, also over a restart: it is nowhere else. Section 5.1."""
    return every(t[i].snapshot_index >= s[i].snapshot_index for i in s.servers)

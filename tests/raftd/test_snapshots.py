"""A snapshot stands for the log's beginning: nothing is lost with that, and nobody stays behind.

Log entries are written as their terms, as in test_core.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.raftd.test_core import THREE, log_of, make, make_leader, refused, stored, terms, vote_request

from raftd.core import Config, Core, Persist, Persistent, Role
from raftd.kv import KeyValue, Put, encode_command
from raftd.log import Log
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    InstallSnapshot,
    Snapshot,
    SnapshotChunk,
    SnapshotChunkReply,
)
from raftd.simulator import SIMULATED, server_names, simulate
from raftd.state import chosen_extensions
from raftd.storage import DATABASE, STORE, Storage, StorageError
from raftd.transfer import Transfers

OFTEN = replace(SIMULATED, snapshot_after=300)


def compacted(n: int, log_terms: Sequence[int], **variables: Any) -> dict[str, Any]:
    """A server's variables with a snapshot of its first n entries."""
    snapshot = Snapshot(n, log_terms[n - 1], b"state %d" % n)
    return {"log_terms": log_terms, "snapshot": snapshot, "commit_index": n} | variables


def install(n: int, term: int, source: str = "n2", target: str = "n1", leads: int = 3) -> InstallSnapshot:
    return InstallSnapshot(source, target, leads, Snapshot(n, term, b"state %d" % n))


# Taking one. Dissertation, section 5.1.


def test_snapshot_takes_the_place_of_what_is_applied_and_of_no_more() -> None:
    core = make(current_term=2, log_terms=[1, 1, 2, 2], commit_index=3)
    batch = core.take_snapshot(1.0, b"state 3")
    assert core.log == Log(log_of([1, 1, 2, 2])[3:], 3, 2)
    assert batch.persist == Persist(2, None, 4, (), Snapshot(3, 2, b"state 3"))
    assert (batch.event["event"], batch.event["state"]) == ("take_snapshot", {"snapshot_index": 3})
    assert (batch.send, batch.apply, batch.install) == ((), (), None)


def test_snapshot_is_due_when_more_has_been_applied_than_it_would_hold() -> None:
    """Section 5.1.2: or most of what is written would be snapshots."""
    core = make_leader(current_term=1, servers=("n1",), config=Config(snapshot_after=60))
    core.propose(0.0, [b"x" * 10])
    assert not core.snapshot_due
    core.propose(0.0, [b"x" * 30])
    assert core.snapshot_due
    core.take_snapshot(0.0, b"s" * 100)
    core.propose(0.0, [b"x" * 50])
    assert not core.snapshot_due
    core.propose(0.0, [b"x" * 50])
    assert core.snapshot_due


def test_server_that_is_not_told_to_takes_no_snapshots() -> None:
    core = make_leader(current_term=1, servers=("n1",))
    core.propose(0.0, [b"x" * 1000] * 100)
    assert not core.snapshot_due


# Restarting from one.


def test_restart_goes_on_from_the_snapshot() -> None:
    """Figure 2, State: a snapshot is of committed entries, and so are those that it stands for."""
    snapshot = Snapshot(2, 1, b"state 2")
    disk = Persistent(4, "n2", Log(log_of([1, 1, 3])[2:], 2, 1), snapshot)
    core = Core("n1", THREE, random.Random(1), Config(), disk)
    event = core.start(0.0).event
    assert (core.commit_index, core.last_applied, core.snapshot) == (2, 2, snapshot)
    assert (event["after"], [term for term, _ in event["entries"]]) == (2, [3])
    state = event["state"]
    assert (state["log_length"], state["commit_index"], state["snapshot_index"]) == (3, 2, 2)


# Installing one. Dissertation, Figure 5.3.


def test_follower_far_behind_becomes_what_the_snapshot_holds() -> None:
    core = make(current_term=3, log_terms=[1])
    batch = core.receive(0.0, install(4, 2))
    assert core.log == Log((), 4, 2)
    assert (core.commit_index, core.last_applied, core.leader) == (4, 4, "n2")
    assert batch.install == Snapshot(4, 2, b"state 4")
    assert batch.persist == Persist(3, None, 0, (), Snapshot(4, 2, b"state 4"))
    assert batch.send == (AppendEntriesReply("n1", "n2", 3, True, 4),)
    assert batch.event["state"] == {
        "log_length": 4,
        "last_log_term": 2,
        "snapshot_index": 4,
        "commit_index": 4,
        "last_applied": 4,
    }


def test_stale_snapshot_removes_no_newer_entries() -> None:
    """Figure 5.3, step 6: they may have been acknowledged already."""
    core = make(current_term=3, log_terms=[1, 2, 2, 3], commit_index=1)
    core.receive(0.0, install(2, 2))
    assert core.log == Log(log_of([1, 2, 2, 3])[2:], 2, 2)
    assert core.log.last_index == 4


def test_log_that_went_another_way_is_discarded_whole() -> None:
    """Figure 5.3, step 7: entries after a conflicting one are not the leader's."""
    core = make(current_term=3, log_terms=[1, 1, 1, 1], commit_index=1)
    batch = core.receive(0.0, install(2, 2))
    assert core.log == Log((), 2, 2)
    disk = Persistent(3, None, Log(log_of([1, 1, 1, 1])))
    assert batch.persist is not None
    disk.write(batch.persist)
    assert disk.log == core.log


def test_snapshot_of_what_is_committed_changes_nothing_and_is_acknowledged() -> None:
    """The state machine never goes back; a leader that asks learns that there is nothing to send."""
    core = make(current_term=3, log_terms=[1, 2, 2], commit_index=3)
    batch = core.receive(0.0, install(2, 2))
    assert (core.log, core.last_applied, batch.install) == (Log(log_of([1, 2, 2])), 3, None)
    assert batch.send == (AppendEntriesReply("n1", "n2", 3, True, 2),)


def test_snapshot_of_a_deposed_leader_is_refused_with_the_newer_term() -> None:
    """Figure 5.3, step 1."""
    core = make(current_term=4, log_terms=[1])
    batch = core.receive(0.0, install(3, 2, leads=3))
    assert core.log.last_index == 1
    assert batch.send == (AppendEntriesReply("n1", "n2", 4, False, 0),)


def test_candidate_follows_who_sends_it_a_snapshot() -> None:
    core = make(role=Role.CANDIDATE, current_term=3)
    core.receive(0.0, install(3, 2))
    assert (core.role, core.leader) == (Role.FOLLOWER, "n2")


# What is compacted is not looked at again.


def test_entries_that_are_compacted_are_skipped_and_the_rest_is_stored() -> None:
    """They are committed, so any leader has the same."""
    core = make(current_term=3, **compacted(3, [1, 2, 2, 2]))
    new = tuple(Entry(term, b"y%d" % n) for n, term in enumerate([2, 2, 2, 3, 3], 2))
    batch = core.receive(0.0, AppendEntries("n2", "n1", 3, 1, 1, new, 5))
    assert [core.log.term_at(n) for n in range(3, 7)] == [2, 2, 3, 3]
    assert batch.send == (AppendEntriesReply("n1", "n2", 3, True, 6),)


def test_server_with_nothing_but_a_snapshot_still_knows_its_last_term() -> None:
    """Section 5.4.1: or it would vote for candidates that lack what it has."""
    core = make(current_term=3, **compacted(3, [1, 2, 2]))
    assert core.log.last_term == 2
    for last, grants in (((1, 9), False), ((2, 2), False), ((2, 3), True)):
        voter = make(current_term=3, **compacted(3, [1, 2, 2]))
        (reply,) = voter.receive(0.0, vote_request("n2", "n1", 4, last)).send
        assert reply.granted is grants  # type: ignore[union-attr]


# Sending one. Dissertation, section 5.3.


def test_leader_sends_its_snapshot_where_the_log_is_compacted_and_entries_after_it() -> None:
    leader = make_leader(current_term=3, **compacted(3, [1, 2, 2, 3]))
    batch = leader.receive(0.0, refused("n2", 1, 3))
    assert batch.send == (InstallSnapshot("n1", "n2", 3, Snapshot(3, 2, b"state 3")),)
    batch = leader.receive(0.0, stored("n2", 3, 3))
    (m,) = batch.send
    assert isinstance(m, AppendEntries)
    assert (m.prev_log_index, m.prev_log_term, len(m.entries)) == (3, 2, 1)


def test_leader_goes_on_when_a_follower_has_more_than_the_snapshot() -> None:
    """etcd-io/raft#124: to wait for exactly the snapshot's index is to wait for ever."""
    leader = make_leader(current_term=3, **compacted(2, [1, 2, 3, 3]))
    leader.receive(0.0, refused("n2", 0, 3))
    (m,) = leader.receive(0.0, stored("n2", 3, 3)).send
    assert isinstance(m, AppendEntries)
    assert (m.prev_log_index, len(m.entries)) == (3, 1)


def test_heartbeats_reach_a_follower_that_is_getting_a_snapshot() -> None:
    """Section 5.2: or it would start an election in the middle."""
    leader = make_leader(current_term=3, **compacted(3, [1, 2, 2, 3]))
    leader.receive(0.0, refused("n2", 1, 3))
    sent = [m for m in leader.send_heartbeats(0.03).send if m.target == "n2"]
    assert [type(m) for m in sent] == [InstallSnapshot, AppendEntries]
    assert isinstance(sent[1], AppendEntries)
    assert (sent[1].prev_log_index, sent[1].entries) == (3, ())


def test_follower_gets_one_snapshot_to_its_end_though_there_is_a_newer_one() -> None:
    """Or a slow one would never have all of any."""
    leader = make_leader(current_term=3, **compacted(1, [1, 3, 3]))
    (first,) = leader.receive(0.0, refused("n2", 0, 3)).send
    leader.receive(0.0, stored("n3", 3, 3))
    leader.take_snapshot(0.0, b"state 3")
    assert first in leader.send_heartbeats(0.03).send
    (second,) = leader.receive(0.1, stored("n2", 1, 3)).send
    assert isinstance(second, InstallSnapshot)
    assert second.snapshot.last_included_index == 3


# On the disk.


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_store_holds_a_snapshot_and_the_log_after_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    expected = Persistent()
    for _ in range(data.draw(st.integers(1, 5))):
        base, last = expected.log.snapshot_index, expected.log.last_index
        keep = data.draw(st.integers(base, last))
        new = tuple(Entry(1, b"%d" % n) for n in range(data.draw(st.integers(0, 3))))
        snapshot = None
        n = data.draw(st.integers(base, keep + len(new) + 2))
        if n > base:
            after = Persistent(log=Log(expected.log, base, expected.log.snapshot_term))
            after.write(Persist(1, None, keep, new))
            term = after.log.term_at(n) if n <= after.log.last_index else 9
            snapshot = Snapshot(n, term, b"state" * n, n, b"the members")
        change = Persist(1, "n1", keep, new, snapshot)
        with Storage(folder, "n1", THREE) as storage:
            assert storage.persistent == expected
            storage.write(change)
        expected.write(change)
    with Storage(folder, "n1", THREE) as storage:
        assert storage.persistent == expected


def test_store_stays_small_while_snapshots_are_taken(tmp_path: Path) -> None:
    """Dissertation, section 5: without them the log grows without bound."""
    with Storage(tmp_path, "n1", THREE) as storage:
        for n in range(1, 400):
            storage.write(Persist(1, None, n - 1, (Entry(1, b"x" * 1000),)))
            if n % 20 == 0:
                storage.write(Persist(1, None, n, (), Snapshot(n, 1, b"state")))
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) < 200_000


def test_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    """A wrong state would be served as if it were the right one."""
    with Storage(tmp_path, "n1", THREE) as storage:
        storage.write(Persist(1, None, 0, (Entry(1, b"x"),), Snapshot(1, 1, b"the state")))
    for damage, word in (("UPDATE snapshot SET state = x'00'", "wrong"), ("DELETE FROM snapshot", "missing")):
        with Storage(tmp_path, "n1", THREE) as storage:
            assert storage._connection is not None
            storage._connection.execute(damage)
        with pytest.raises(StorageError, match=word):
            Storage(tmp_path, "n1", THREE)
        if word == "wrong":
            connection = sqlite3.connect(tmp_path / STORE / DATABASE)
            connection.execute("UPDATE snapshot SET state = ?", (b"the state",))
            connection.commit()
            connection.close()


# In chunks.


def test_snapshot_arrives_in_chunks_whatever_the_network_does() -> None:
    """Each chunk may be lost, late or doubled; the receiver may start again in the middle."""
    rng = random.Random(7)
    state = rng.randbytes(1000)
    m = InstallSnapshot("n1", "n2", 3, Snapshot(9, 2, state, 4, b"the members"))
    for _ in range(50):
        leader, follower = Transfers("n1", 1.0, 64), Transfers("n2", 1.0, 64)
        now, got = 0.0, None
        flying: list[SnapshotChunk | SnapshotChunkReply] = []
        while got is None:
            now += 0.3
            assert now < 1000, "it never arrives"
            if chunk := leader.send(now, m):
                flying.append(chunk)
            if rng.random() < 0.01:
                follower = Transfers("n2", 1.0, 64)
            for x in [flying.pop(rng.randrange(len(flying)))] if flying else []:
                if rng.random() < 0.1:
                    continue
                if rng.random() < 0.1:
                    flying.append(x)
                if isinstance(x, SnapshotChunk):
                    answer = follower.receive(x, 3, 0)
                    if isinstance(answer, InstallSnapshot):
                        got = answer
                    elif answer:
                        flying.append(answer)
                elif following := leader.acknowledged(now, x):
                    flying.append(following)
        assert got == m


def test_transfer_goes_on_where_it_stopped_under_another_leader_too() -> None:
    """If its snapshot is the same one."""
    follower = Transfers("n3", 1.0, 4)
    first = Transfers("n1", 1.0, 4).send(0.0, InstallSnapshot("n1", "n3", 3, Snapshot(9, 2, b"abcdefgh")))
    assert first is not None
    assert follower.receive(first, 3, 0) == SnapshotChunkReply("n3", "n1", 3, 9, 4)
    again = Transfers("n2", 1.0, 4)
    m = InstallSnapshot("n2", "n3", 4, Snapshot(9, 2, b"abcdefgh"))
    chunk = again.send(5.0, m)
    assert chunk is not None
    reply = follower.receive(chunk, 4, 0)
    assert reply == SnapshotChunkReply("n3", "n2", 4, 9, 4)
    rest = again.acknowledged(5.0, reply)
    assert rest is not None
    assert (rest.offset, rest.data) == (4, b"efgh")
    assert follower.receive(rest, 4, 0) == m


def test_snapshot_that_arrives_damaged_is_not_handed_over() -> None:
    chunk = Transfers("n1", 1.0).send(0.0, InstallSnapshot("n1", "n2", 3, Snapshot(9, 2, b"abc")))
    assert chunk is not None
    assert Transfers("n2", 1.0).receive(msgspec.structs.replace(chunk, data=b"abd"), 3, 0) is None


# The state machine.


def test_key_value_store_loads_what_it_saved_and_nothing_else() -> None:
    """jgroups-raft#301: a snapshot replaces the state; keys that it hasn't are gone."""
    a, b = KeyValue(), KeyValue()
    for key in ("x", "y"):
        a.apply(encode_command(Put(key, b"1")))
    b.apply(encode_command(Put("old", b"2")))
    b.load(a.save())
    assert b.values == {"x": b"1", "y": b"1"}
    for key in ("y", "x"):
        b.apply(encode_command(Put(key, b"1")))
    assert a.save() == b.save()


# A whole cluster.


def test_simulated_clusters_that_compact_their_logs_keep_safety_and_bring_up_who_is_behind() -> None:
    """The simulation compares logs, applied entries and states."""
    taken = installed = 0
    for seed in range(12):
        summary = simulate(seed, server_names(3 + 2 * (seed % 2)), steps=2500, config=OFTEN)
        taken += summary.snapshots
        installed += summary.installed
    assert taken > 400
    assert installed > 80


def test_who_names_snapshots_is_told_how_they_are_switched_on() -> None:
    with pytest.raises(ValueError, match="--snapshot-after BYTES"):
        chosen_extensions(["snapshots"], figure_2=False)


def test_right_terms_are_kept_after_a_snapshot() -> None:
    core = make(current_term=3, **compacted(2, [1, 2, 3]))
    assert terms(core) == [3]

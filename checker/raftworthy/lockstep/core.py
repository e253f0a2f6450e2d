"""The core's side: a core put into a server's place, given an input, and what it has come to.

s  the specification's state     i  the server     me  i's variables in s
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

import raftd.messages
from raftd.core import Batch, Config, Core, NotLeader, Persistent
from raftd.core import Role as CoreRole
from raftd.faults import make_core
from raftd.log import Log
from raftd.transfer import Transfers
from raftspec.configurations import has_left, in_force
from raftspec.extensions import WHOLE
from raftspec.properties import raft
from raftspec.raft import AppendEntries, AppendEntriesReply, Entry
from raftspec.snapshots import InstallSnapshot
from raftspec.types import Message
from raftworthy.generated import to_spec
from raftworthy.lockstep.clients import core_table, keep_sessions, meant_by
from raftworthy.lockstep.inputs import READS, Input, S
from raftworthy.lockstep.meanings import (
    applied_in,
    command_of,
    configuration_of,
    core_entry,
    snapshot_of,
    text_of,
)

MESSAGES = {m.__name__: m for m in WHOLE.messages}
FIGURE_2 = frozenset(raft.server.types())


def core_step(s: S, i: str, given: Input, broken: str | None) -> tuple[Core, Batch]:
    """Put a core into server i's place and give it the input."""
    me, config = s[i], config_of(s)
    if given.event == "restart":
        core = make_core(i, s.servers, random.Random(0), config, disk_of(s, i), broken)
        if s.has("sessions"):
            keep_sessions(core, 0)
        return core, core.start(0.0)
    core = make_core(i, s.servers, random.Random(0), config, broken=broken)
    match_index = {j: me.match_index[j] for j in core.peers}
    core.restore(
        0.0,
        role=CoreRole(me.role),
        current_term=me.current_term,
        voted_for=me.voted_for,
        log=[core_entry(s, e) for e in me.log],
        snapshot=snapshot_of(s, me.log.prefix(me.snapshot_index)) if s.has("snapshots") else None,
        commit_index=me.commit_index,
        last_applied=me.last_applied,
        votes=me.votes,
        match_index=match_index,
        next_index={j: n + 1 for j, n in match_index.items()} if given.behind else None,
        extended={name: getattr(me, name) for name in type(me).types() if name not in FIGURE_2},
    )
    if s.has("sessions"):
        keep_sessions(core, me.last_applied)
    if given.message is not None:
        return core, core.receive(0.0, core_message(s, given.message, given.hint))
    if given.means:
        command = meant_by(*given.means, command=given.commands[0].encode())
        return core, core.propose(0.0, [command])
    if given.commands:
        return core, core.propose(0.0, [c.encode() for c in given.commands])
    if given.voters:
        outgoing = core.configuration.voters if given.event == "enter_joint" else ()
        return core, core.change(0.0, configuration_of(s.servers, given.voters, outgoing))
    if given.event == "append_entries":
        return core, core.send_heartbeats(config.heartbeat_interval if given.silent else 0.0)
    if given.event == "take_snapshot":
        table = core.session_table
        return core, core.take_snapshot(
            0.0, table.save() if table else msgspec.msgpack.encode(applied_before(s, i))
        )
    if given.event == "transfer_leadership":
        return core, _taken(core.hand_over(0.0, given.successor))
    if given.event in READS:
        return core, _taken(getattr(core, given.event)(0.0))
    # Time passes: longer than an election timeout, in which nobody is heard.
    later = 2 * config.election_timeout
    batch = core.tick(later)
    if batch is None and s.has("membership") and has_left(s, me, in_force(s, me), i):
        # A server without a vote only waits; what it would do otherwise is compared all the same.
        batch = core.start_pre_vote(later) if given.event == "start_pre_vote" else core.start_election(later)
    return core, _taken(batch)


def _taken(batch: Batch | None) -> Batch:
    """The step, if there is one; a leader that can't do it says nothing."""
    if batch is None:
        raise NotLeader("", None)
    return batch


def config_of(s: S) -> Config:
    """What the core has, as the specification does. It takes snapshots when it is told to."""
    config = Config().having(s.extensions - {"snapshots"})
    return replace(config, snapshot_after=1) if s.has("snapshots") else config


def disk_of(s: S, i: str) -> Persistent:
    """What server i's disk holds; a snapshot, in place of the log's beginning."""
    me = s[i]
    disk = Persistent(me.current_term, me.voted_for, Log(core_entry(s, e) for e in me.log))
    if s.has("snapshots") and (snapshot := snapshot_of(s, me.log.prefix(me.snapshot_index))):
        disk.snapshot = snapshot
        disk.log.install(snapshot.last_included_index, snapshot.last_included_term)
    return disk


def applied_before(s: S, i: str) -> list[raftd.messages.Entry]:
    """What server i's state machine has applied."""
    return [core_entry(s, e) for e in s[i].log.prefix(s[i].last_applied)]


def core_variables(core: Core) -> dict[str, Any]:
    """A core's variables, as they are compared. What nobody acknowledged is no match."""
    values: dict[str, Any] = {
        "role": core.role.value,
        "current_term": core.current_term,
        "voted_for": core.voted_for,
        "log": [(e.term, text_of(e.command)) for e in (*_compacted(core), *core.log)],
        "commit_index": core.commit_index,
        "last_applied": core.last_applied,
    }
    if core.role is CoreRole.CANDIDATE:
        values["votes"] = sorted(core.votes)
    if core.role is CoreRole.LEADER:
        values["match_index"] = {j: n for j, n in core.match_index.items() if n}
    if core.config.pre_vote:
        values["pre_votes"] = sorted(core.pre_votes)
        values["hears"] = core.leader if core.leader != core.server else None
    if core.config.membership:
        values["configured"] = core.configured
    if core.config.leadership_transfer:
        values["told_to_stand"] = core.told_to_stand
    if core.config.reads:
        values["read_index"], values["read_round"] = core.read_index, core.read_round
        values["read_acks"] = sorted(core.read_acks)
    if core.session_table is not None:
        values |= core_table(core.session_table)
    if core.config.snapshot_after:
        values["snapshot_index"], values["snapshot_term"] = core.log.snapshot_index, core.log.snapshot_term
    return values


def _compacted(core: Core) -> list[raftd.messages.Entry]:
    """The entries that a core's snapshot stands for."""
    return applied_in(core.snapshot.state, core.config.sessions) if core.snapshot else []


# --- one's values as the other's ----------------------------------------------------


def core_message(s: S, m: Message, hint: int = 0) -> raftd.messages.Message:
    """The specification's message as raftd's, which has one field more, or a snapshot in place of entries."""
    if isinstance(m, InstallSnapshot):
        return _received(s, m)
    fields = {name: getattr(m, name) for name in type(m).types()}
    if isinstance(m, AppendEntries):
        fields["entries"] = tuple(core_entry(s, e) for e in m.entries)
    if isinstance(m, AppendEntriesReply):
        fields["hint"] = hint
    made: raftd.messages.Message = getattr(raftd.messages, type(m).__name__)(**fields)
    return made


def _received(s: S, m: InstallSnapshot) -> raftd.messages.InstallSnapshot:
    """A snapshot as it gets to its target, in chunks: here in one."""
    snapshot = snapshot_of(s, m.prefix)
    assert snapshot is not None, "nobody sends a snapshot of nothing"
    whole = raftd.messages.InstallSnapshot(m.source, m.target, m.term, snapshot)
    chunk, me = Transfers(m.source, patience=1.0).send(0.0, whole), s[m.target]
    assert chunk is not None
    received = Transfers(m.target, patience=1.0).receive(chunk, me.current_term, me.commit_index)
    assert isinstance(received, raftd.messages.InstallSnapshot), f"one chunk is not all: {received}"
    return received


def spec_message(t: S, m: raftd.messages.Message) -> Message:
    """raftd's message as the specification's; a hint is advice, of which the specification says nothing.

    A configuration's value is that of the entry in its place in the sender's log, if that means the same.
    """
    cls = MESSAGES[type(m).__name__]
    if isinstance(m, raftd.messages.InstallSnapshot):
        return InstallSnapshot(m.source, m.target, m.term, _prefix(t, m))
    fields = {name: getattr(m, name) for name in cls.types()}
    if "entries" in fields:
        fields["entries"] = _entries(t, m.source, fields["prev_log_index"], fields["entries"])
    return cls(**fields)


def _prefix(t: S, m: raftd.messages.InstallSnapshot) -> Any:
    """The entries that a snapshot stands for, so many as it says, the last of the term that it says."""
    n, entries = m.snapshot.last_included_index, applied_in(m.snapshot.state, t.has("sessions"))
    assert len(entries) == n, f"a snapshot up to entry {n} has applied {len(entries)}"
    last = raftd.messages.Entry(m.snapshot.last_included_term, entries[-1].command)
    return _entries(t, m.source, 0, (*entries[:-1], last))


def _entries(t: S, source: str, prev: int, entries: Iterable[raftd.messages.Entry]) -> Any:
    own = t[source].log
    made = tuple(
        Entry(e.term, _value(t, own.at(n).value, e.command)) for n, e in enumerate(entries, prev + 1)
    )
    return to_spec(made, AppendEntries.types()["entries"])


def _value(t: S, value: Any, command: bytes) -> Any:
    return value if value and command_of(t, value) == command else text_of(command)

"""The core's side: a core put into a server's place, given an input, and what it has come to.

s  the specification's state     i  the server     me  i's variables in s
"""

from __future__ import annotations

import random
from typing import Any

import raftd.messages
from raftd.core import Batch, Config, Core, NotLeader, Persistent
from raftd.core import Role as CoreRole
from raftd.faults import make_core
from raftd.log import Log
from raftspec.extensions import WHOLE
from raftspec.properties import raft
from raftspec.raft import AppendEntries, AppendEntriesReply, Entry
from raftspec.types import Message
from raftworthy.generated import to_spec
from raftworthy.lockstep.inputs import READS, Input, S
from raftworthy.lockstep.meanings import command_of, configuration_of, core_entry, text_of

MESSAGES = {m.__name__: m for m in WHOLE.messages}
FIGURE_2 = frozenset(raft.server.types())


def core_step(s: S, i: str, given: Input, broken: str | None) -> tuple[Core, Batch]:
    """Put a core into server i's place and give it the input."""
    me, config = s[i], Config().having(s.extensions)
    log = Log(core_entry(s, e) for e in me.log)
    if given.event == "restart":
        disk = Persistent(me.current_term, me.voted_for, log)
        core = make_core(i, s.servers, random.Random(0), config, disk, broken)
        return core, core.start(0.0)
    core = make_core(i, s.servers, random.Random(0), config, broken=broken)
    match_index = {j: me.match_index[j] for j in core.peers}
    core.restore(
        0.0,
        role=CoreRole(me.role),
        current_term=me.current_term,
        voted_for=me.voted_for,
        log=log,
        commit_index=me.commit_index,
        last_applied=me.last_applied,
        votes=me.votes,
        match_index=match_index,
        next_index={j: n + 1 for j, n in match_index.items()} if given.behind else None,
        extended={name: getattr(me, name) for name in type(me).types() if name not in FIGURE_2},
    )
    if given.message is not None:
        return core, core.receive(0.0, core_message(s, given.message, given.hint))
    if given.commands:
        return core, core.propose(0.0, [c.encode() for c in given.commands])
    if given.voters:
        outgoing = core.configuration.voters if given.event == "enter_joint" else ()
        return core, core.change(0.0, configuration_of(s.servers, given.voters, outgoing))
    if given.event == "timeout" and s.has("membership"):  # a server without a vote only waits
        return core, core.start_election(0.0)
    if given.event == "append_entries":
        return core, core.send_heartbeats(config.heartbeat_interval if given.silent else 0.0)
    if given.event == "transfer_leadership":
        return core, _taken(core.hand_over(0.0, given.successor))
    if given.event in READS:
        return core, _taken(getattr(core, given.event)(0.0))
    # Time passes: longer than an election timeout, in which nobody is heard.
    return core, _taken(core.tick(2 * config.election_timeout))


def _taken(batch: Batch | None) -> Batch:
    """The step, if there is one; a leader that can't do it says nothing."""
    if batch is None:
        raise NotLeader("", None)
    return batch


def core_variables(core: Core) -> dict[str, Any]:
    """A core's variables, as they are compared. What nobody acknowledged is no match."""
    values: dict[str, Any] = {
        "role": core.role.value,
        "current_term": core.current_term,
        "voted_for": core.voted_for,
        "log": [(e.term, text_of(e.command)) for e in core.log],
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
    return values


# --- one's values as the other's ----------------------------------------------------


def core_message(s: S, m: Message, hint: int = 0) -> raftd.messages.Message:
    """The specification's message as raftd's, which has one field more."""
    fields = {name: getattr(m, name) for name in type(m).types()}
    if isinstance(m, AppendEntries):
        fields["entries"] = tuple(core_entry(s, e) for e in m.entries)
    if isinstance(m, AppendEntriesReply):
        fields["hint"] = hint
    made: raftd.messages.Message = getattr(raftd.messages, type(m).__name__)(**fields)
    return made


def spec_message(t: S, m: raftd.messages.Message) -> Message:
    """raftd's message as the specification's; a hint is advice, of which the specification says nothing.

    A configuration's value is that of the entry in its place in the sender's log, if that means the same.
    """
    cls = MESSAGES[type(m).__name__]
    fields = {name: getattr(m, name) for name in cls.types()}
    if "entries" in fields:
        own = t[m.source].log
        places = enumerate(fields["entries"], fields["prev_log_index"] + 1)
        entries = tuple(Entry(e.term, _value(t, own.at(n).value, e.command)) for n, e in places)
        fields["entries"] = to_spec(entries, cls.types()["entries"])
    return cls(**fields)


def _value(t: S, value: Any, command: bytes) -> Any:
    return value if value and command_of(t, value) == command else text_of(command)

"""One step of both, compared: variables, disk, messages, and the event that the trace gets.

i  the server     s, t  the specification's state before and after     me  i's variables in s
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from raftd.core import Batch, CannotChange, Core, NotLeader
from raftd.messages import Snapshot
from raftd.trace import digest, traced_message
from raftspec.extensions import having
from raftspec.raft import AppendEntries, Entry
from raftspec.reads import ReadIndex
from raftspec.snapshots import InstallSnapshot
from raftspec.spec import State, run
from raftspec.types import Message
from raftspec.values import Map, ServerSet
from raftworthy.lockstep.clients import MEANINGS, answers
from raftworthy.lockstep.core import (
    FIGURE_2,
    applied_before,
    core_step,
    core_variables,
    disk_of,
    spec_message,
)
from raftworthy.lockstep.inputs import Input, S
from raftworthy.lockstep.meanings import applied_in, command_of, snapshot_of, snapshot_parts
from raftworthy.lockstep.specification import spec_step, variables_of
from raftworthy.lockstep.wording import describe_message, show
from raftworthy.replay.format import trace_format
from raftworthy.replay.meanings import NUMBERS
from raftworthy.replay.replay import Log as ReplayLog
from raftworthy.replay.replay import Replay, Violation, replay_actions

# What a leader may send is wider still: not only what `next_index` says, not only the latest commit index.
MAY_SEND = {
    "replicate.next_index": True, "replicate.latest_commit": True,
    "snapshot.send_latest": True, "snapshot.send_needed": True,
}  # fmt: skip
WHEN_WANTED = (AppendEntries, InstallSnapshot)


UNTRACED = (
    "log", "hears", "snapshot_term",
    "active", "lowest", "responses", "sessions_expired", "executed",
)  # fmt: skip


class Difference(NamedTuple):
    """Something in which the core and the specification differ."""

    name: str
    expected: str
    got: str


def compare(
    s: S, t: S | None, i: str, given: Input, broken: str | None, traced: bool = True
) -> tuple[Difference, ...]:
    """Where the core's step differs from the specification's, which leads to t, or is not allowed.

    The event of a step that doesn't differ is looked at, too, if it is `traced`.
    """
    try:
        core, batch = core_step(s, i, given, broken)
    except (NotLeader, CannotChange) as refusal:
        return () if t is None else (Difference("answer", "the step is taken", str(refusal)),)
    except Exception as error:  # the core stopped itself: that is what it does, and differs
        return (Difference("assertion", "the step is taken", f"{type(error).__name__}: {error}"),)
    if t is None:
        return (Difference("answer", "the step is refused", "the step is taken"),)
    if batch.event["event"] != given.event:
        return (Difference("event", given.event, batch.event["event"]),)
    expected, got = variables_of(t, i), core_variables(core)
    differences = [
        Difference(name, show(expected.get(name)), show(got.get(name)))
        for name in dict.fromkeys([*expected, *got])
        if expected.get(name) != got.get(name)
    ]
    if given.event != "restart":
        differences += _disk_differences(s, i, core, batch)
    if s.has("snapshots"):
        differences += _state_differences(s, t, i, given, core, batch)
    if s.has("sessions"):
        expected_answers, told = answers(t, batch)
        if told != expected_answers:
            differences.append(Difference("answers", show(expected_answers), show(told)))
    differences += _message_differences(t, i, batch)
    if traced and not differences:
        differences += _trace_differences(s, i, core, batch)
    return tuple(differences)


def _disk_differences(s: S, i: str, core: Core, batch: Batch) -> Iterator[Difference]:
    """Before anything is sent, the disk holds what is persistent. Figure 2, State."""
    disk = disk_of(s, i)
    if batch.persist is not None:
        disk.write(batch.persist)
    for name in ("current_term", "voted_for", "log", "snapshot"):
        stored, value = getattr(disk, name), getattr(core, name)
        if stored != value:
            yield Difference(f"{name} on disk", show(value), show(stored))


def _state_differences(s: S, t: S, i: str, given: Input, core: Core, batch: Batch) -> Iterator[Difference]:
    """The state machine has applied what the specification says, each entry once. Figure 5.3."""
    if core.session_table is not None:  # it has applied them itself
        machine: Any = core.session_table.machine
        applied = machine.applied
    else:
        applied = applied_before(s, i)
        if given.event == "restart":
            applied = applied_in(core.snapshot.state, False) if core.snapshot else []
        if batch.install is not None:
            applied = applied_in(batch.install.state, False)
        applied = [*applied, *(entry for _, entry in batch.apply)]
    if applied != applied_before(t, i):
        yield Difference("state machine", show(applied_before(t, i)), show(applied))
    yield from _held_differences("snapshot", t, t[i].log.prefix(t[i].snapshot_index), core.snapshot)


def _held_differences(name: str, t: S, prefix: Any, snapshot: Snapshot | None) -> Iterator[Difference]:
    """A snapshot that stands for these entries holds members and clients as they came to be by them."""
    right = snapshot_of(t, prefix)
    if right is None or snapshot is None or right == snapshot:
        return
    expected, got = (snapshot_parts(x, t.has("sessions")) for x in (right, snapshot))
    for part, value in expected.items():
        if got[part] != value:
            yield Difference(f"{name}: {part}", show(value), show(got[part]))


def _message_differences(t: S, i: str, batch: Batch) -> Iterator[Difference]:
    """Replies and requests for votes are the specification's; what leaders send when they want, it allows."""
    sent = [spec_message(t, m) for m in batch.send]
    held = {m: x.snapshot for m, x in zip(sent, batch.send, strict=True) if hasattr(x, "snapshot")}
    expected = Counter(t.messages)
    got = Counter(m for m in sent if not (isinstance(m, WHEN_WANTED) or _asks_again(t[i], i, batch, m)))
    for m in sorted(expected - got, key=describe_message):
        yield Difference("sends", describe_message(m), "nothing")
    for m in sorted(got - expected, key=describe_message):
        yield Difference("sends", "nothing", describe_message(m))
    allowing = State(t.variables, t.past, rules=MAY_SEND, extensions=t.extensions)
    for m in sent:
        if not isinstance(m, WHEN_WANTED):
            continue
        if m.source != i:
            yield Difference("sends", f"a message of {i}", describe_message(m))
            continue
        if isinstance(m, AppendEntries):
            action = "append_entries"
            params: tuple[Any, ...] = (i, m.target, m.prev_log_index, m.entries.length, m.leader_commit)
        else:
            action, params = "install_snapshot", (i, m.target, m.prefix.length)
            yield from _held_differences("sends", t, m.prefix, held[m])
        failed, after = run(having(*t.extensions).actions[action], allowing, *params)
        if failed:
            yield Difference("sends", f"nothing, unless {failed}", describe_message(m))
        elif after.messages != {m}:
            yield Difference("sends", *(describe_message(x) for x in (*after.messages, m)))


def _asks_again(me: Any, i: str, batch: Batch, m: Message) -> bool:
    """Whether a leader, with its heartbeats, says once more what began the round of readers under way."""
    again = (
        batch.event["event"] == "append_entries" and isinstance(m, ReadIndex) and bool(me.read_acks.has(i))
    )
    return again and m == ReadIndex(i, m.target, me.current_term, me.read_round)


def _trace_differences(s: S, i: str, core: Core, batch: Batch) -> Iterator[Difference]:
    """The step's event says all that changed and was sent, and is one that replay accepts."""
    before, after = _traced(variables_of(s, i)), _traced(core_variables(core))
    state = _with(after, batch.event["state"])  # what the event says itself stands
    told = _with(before, batch.event["state"])
    for name in after:
        if told.get(name) != after[name]:
            yield Difference(f"trace: {name}", show(after[name]), show(told.get(name)))
    if batch.event["sends"] != [traced_message(m) for m in batch.send]:
        yield Difference("trace: sends", f"{len(batch.send)} messages", f"{len(batch.event['sends'])} others")
    event: Any = msgspec.convert({**batch.event, "state": state}, trace_format(s.servers, s.extensions).event)
    replay = replay_from(s, i)
    if event.message is not msgspec.UNSET:
        replay.sent.recent[hash(event.message)] = ""
    for made, sent in zip(event.sends, (spec_message(s, m) for m in batch.send), strict=False):
        if _asks_again(s[i], i, batch, sent):
            replay.sent.recent[hash(made)] = ""
    try:
        replay.feed([event], "lockstep", [1])
        if replay.parked:
            replay.finish()
    except Violation as v:
        if not v.mismatches:
            yield Difference("trace", "an event that replay accepts", str(v))
        for m in v.mismatches:
            yield Difference(f"trace: {m.name}", show(m.expected), show(m.seen))


def _traced(values: Mapping[str, Any]) -> dict[str, Any]:
    """Variables as a trace has them: a log is told by its length and its last entry's term."""
    log = values["log"]
    whole = {name: value for name, value in values.items() if name not in UNTRACED}
    return whole | {"log_length": len(log), "last_log_term": log[-1][0] if log else 0}


def _with(values: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Variables, changed by what an event says; of `match_index` it says only what changed."""
    matches = values.get("match_index", {}) | said.get("match_index", {})
    return {**values, **said, "match_index": {j: n for j, n in matches.items() if n}}


def rule_broken(s: S, i: str, given: Input, broken: str | None, differences: int) -> str | None:
    """The rule that explains best what the core did, if it had answered otherwise; None if none does.

    Of those that explain it equally well, one is preferred that would answer so if it were taken away, then
    one of the step's own: any message can bring a newer term, and much follows from any step.
    """
    s = State(s.variables, s.past, extensions=s.extensions)
    asked: set[tuple[str, bool]] = set()
    right = spec_step(s, i, given, asked)
    own = {a.rule for a in s.asked}
    without = replay_actions(s.servers, s.extensions).tracer.rules
    order = list(having(*s.extensions).rules)

    def preference(rule: str, holds: bool) -> tuple[Any, ...]:
        return (holds == without.get(rule), rule.startswith("term."), rule not in own, order.index(rule))

    best: str | None = None
    for rule, holds in sorted(asked, key=lambda a: preference(*a)):
        otherwise = State(s.variables, s.past, rules={rule: not holds}, extensions=s.extensions)
        t = spec_step(otherwise, i, given)
        if t and right and (t[i], t.messages, t.past) == (right[i], right.messages, right.past):
            continue  # the rule makes no difference here
        left = differences if t is None else len(compare(s, t, i, given, broken, traced=False))
        if left < differences:
            best, differences = rule, left
    return best


def replay_from(s: S, i: str) -> Replay:
    """A replay in which server i has come to this state; its log holds digests, as in a trace."""
    replay = Replay(s.servers, extensions=s.extensions)
    me, v = s[i], replay.world.variables[i]
    entry = trace_format(s.servers, s.extensions).structs[Entry]
    v.role = str(me.role)
    v.log = ReplayLog(entry(e.term, digest(command_of(s, e.value))) for e in me.log)
    v.votes = frozenset(me.votes)
    v.match_index = dict(me.match_index.items)
    for name in ("current_term", "voted_for", "commit_index", "last_applied"):
        setattr(v, name, getattr(me, name))
    for name in type(me).types().keys() - FIGURE_2:
        value = getattr(me, name)
        if isinstance(value, Map):
            value = dict(value.items)
        setattr(v, name, frozenset(value) if isinstance(value, ServerSet) else value)
    if s.has("sessions"):
        _note_sessions(s, v, replay.world.past)
    if s.has("snapshots"):  # a message tells of its snapshot no more than where that ends
        committed = [entry(e.term, digest(command_of(s, e.value))) for e in s.past.committed]
        replay.world.past.committed.extend(committed)
    if s.has("membership"):
        for value, voters in s.past.voters.items.items():
            key, past = digest(command_of(s, value)), replay.world.past
            past.voters[key], past.outgoing[key] = voters, s.past.outgoing[value]
    return replay


def _note_sessions(s: S, v: Any, past: Any) -> None:
    """What replay knows of clients: commands by their digests, and numbers with the client in them."""
    own = s.past
    for name in MEANINGS:
        for value, said in getattr(own, name).items.items():
            more = own.client[value] * NUMBERS if name in ("sequence", "lowest") else 0
            getattr(past, name)[digest(command_of(s, value))] = said + more
    past.applied = own.applied
    past.answers.update(own.answers.items)
    past.executions.update(own.executions.items)
    v.lowest = {k: q + k * NUMBERS for k, q in v.lowest.items()}
    v.responses = {q + own.client[own.committed.at(n).value] * NUMBERS: n for q, n in v.responses.items()}

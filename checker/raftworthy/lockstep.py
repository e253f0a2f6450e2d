"""Lockstep: raftd's core and the specification take the same steps, from every state within bounds.

The explorer finds the states. In each, the core is put into each server's place and given every input
that could come next, and so is the specification. Variables, disk and messages must be equal after it:
a server that does less than Figure 2 says is found as well as one that does more. The step's
trace event must be one that `replay` accepts.

A server's step depends on its own variables and the input alone, so equal ones are compared once. The core
takes what Figure 2 lets it do by itself (lead, commit, apply) in the step that makes it possible; the
specification is made to do so, too. `next_index` is policy: the core is tried with the log's end and
with what follows `match_index`, and may send any AppendEntries that a leader is allowed to send.

    i  the server     s, t  the specification's state before and after     me  i's variables in s
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import msgspec

import raftd.messages
from raftd.core import NO_OP, Batch, Config, Core, NotLeader, Persistent
from raftd.core import Role as CoreRole
from raftd.faults import BREAKS, make_core
from raftd.trace import digest, traced_message
from raftspec.properties import raft
from raftspec.raft import CANDIDATE, LEADER, AppendEntries, AppendEntriesReply, Entry
from raftspec.rules import POLICY
from raftspec.spec import State, run
from raftspec.types import Message, Type
from raftworthy.explore.reference import Bounds, Path, Progress, UnusableError, describe, explore
from raftworthy.explore.reference import Result as Explored
from raftworthy.generated import World, to_spec
from raftworthy.replay.reading import trace_format
from raftworthy.replay.replay import Log, Replay, Violation, replay_actions
from raftworthy.structs import snake_case

AGREES, DIFFERS, UNUSABLE = 0, 1, 2

# Reaches leaders with logs in both terms, conflicts, commits of both, and late copies of every message.
DEFAULT_BOUNDS = Bounds(servers=3, max_term=2, max_log=1, commands=2, crashes=1, max_messages=8)

# Figure 2's choices that raftd doesn't make, or that only set `next_index`. Off, they open more states.
NOT_FOLLOWED = POLICY - {"vote.refuse", "append.refuse", "election.not_leader", "replicate.latest_commit"}
# What a leader may send is wider still: not only what `next_index` says, not only the latest commit index.
MAY_SEND = {"replicate.next_index": True, "replicate.latest_commit": True}

HANDLERS = {a.message: a.name for a in raft.actions.values() if a.message}
MESSAGES = {m.__name__: m for m in raft.messages}
CONFIG = Config()

S = State[Any, Any]


class Difference(NamedTuple):
    """Something in which the core and the specification differ."""

    name: str
    expected: str
    got: str


@dataclass(frozen=True)
class Input:
    """What a server is given, and what the specification leaves open about the core that takes it."""

    event: str
    message: Message | None = None
    commands: tuple[str, ...] = ()
    behind: bool = False  # leader: next_index follows match_index, instead of the log's end
    silent: bool = False  # leader: nobody has answered for a heartbeat's time
    hint: int = 0  # in a refusal: where to try next

    def __str__(self) -> str:
        told = describe_message(self.message) if self.message else ", ".join(self.commands)
        chosen = [
            f"hint={self.hint}" if self.hint else "",
            "next_index = match_index + 1" if self.behind else "",
            "followers silent" if self.silent else "",
        ]
        return f"{self.event}({told})" + "".join(f", {c}" for c in chosen if c)


@dataclass(frozen=True)
class Disagreement:
    """A step that the core takes otherwise than the specification."""

    server: str
    input: str
    before: Mapping[str, str]
    differences: tuple[Difference, ...]
    rule: str | None
    path: tuple[str, ...] = ()  # how the state is reached: the explorer's shortest way

    def as_data(self) -> dict[str, Any]:
        return asdict(self) | {"differences": [d._asdict() for d in self.differences]}


@dataclass(frozen=True)
class Result:
    """What was compared. `agreed` counts inputs by the event they lead to; equal ones count once."""

    explored: Explored
    broken: str | None
    agreed: Mapping[str, int]
    servers_states: int
    exercised: tuple[str, ...]
    disagreement: Disagreement | None

    @property
    def agrees(self) -> bool:
        """Whether everything within the bounds was compared, and equal."""
        return self.disagreement is None and self.explored.exhausted and bool(self.agreed)

    @property
    def inputs(self) -> int:
        return sum(self.agreed.values())

    @property
    def exit_code(self) -> int:
        return DIFFERS if self.disagreement else AGREES if self.agrees else UNUSABLE

    def as_data(self) -> dict[str, Any]:
        """The result for machines."""
        return {
            "verdict": ("agrees", "differs", "unusable")[self.exit_code],
            "bounds": asdict(self.explored.bounds),
            "broken": self.broken,
            "states": self.explored.distinct,
            "transitions": self.explored.states,
            "servers_states": self.servers_states,
            "inputs": self.inputs,
            "agreed": dict(self.agreed),
            "rules_exercised": list(self.exercised),
            "seconds": round(self.explored.seconds, 3),
            "disagreement": self.disagreement.as_data() if self.disagreement else None,
        }


def lockstep(
    bounds: Bounds = DEFAULT_BOUNDS,
    *,
    broken: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Compare the core with the specification on every step within bounds, up to the first difference.

    `broken` names a fault of `raftd.faults.BREAKS` to run the core with.

    Raises:
        UnusableError: no such fault.
    """
    if broken is not None and broken not in BREAKS:
        raise UnusableError(f"no fault is called {broken!r}; there are {', '.join(sorted(BREAKS))}")
    comparison = Comparison(bounds.names, broken)
    explored = explore(
        raft, bounds, without=NOT_FOLLOWED, properties=(), find=comparison.differs_in, progress=progress
    )
    found = comparison.found
    if found is not None and explored.witness is not None:
        found = Disagreement(
            found.server, found.input, found.before, found.differences, found.rule, _steps(explored.witness)
        )
    return Result(
        explored,
        broken,
        {e: comparison.agreed[e] for e in raft.actions if e in comparison.agreed},
        comparison.rested,
        tuple(r for r in raft.rules if {(r, True), (r, False)} <= comparison.asked),
        found,
    )


def _steps(path: Path) -> tuple[str, ...]:
    return tuple(map(str, path.moves))


# --- the comparison ------------------------------------------------------------


@dataclass
class Comparison:
    """Compares step by step, and remembers what it has compared."""

    servers: tuple[str, ...]
    broken: str | None = None
    agreed: Counter[str] = field(default_factory=Counter)
    asked: set[tuple[str, bool]] = field(default_factory=set)
    rested: int = 0  # different servers' variables in which a core can be
    found: Disagreement | None = None
    # Of each server's variables, the messages that it has been given; None if no core rests there.
    _given: dict[Any, set[Any] | None] = field(default_factory=dict)

    def differs_in(self, world: World) -> bool:
        """Whether any server's step from this state differs; `found` says how."""
        for i, variables in world.variables.items():
            key = (i, variables.key())
            is_new = key not in self._given
            if is_new:
                s = spec_state(world)
                self._given[key] = set() if settle(s, i).variables[i] == s[i] else None
                self.rested += self._given[key] is not None
            given = self._given[key]
            if given is None:
                continue
            news = {m for m in world.messages - given if m.target == i}
            if is_new or news:
                given |= news
                s = spec_state(world)
                messages = [
                    to_spec(m, Type("record", cls=MESSAGES[type(m).__name__]))
                    for m in sorted(news, key=describe)
                ]
                for given_now in inputs(s, i, messages, alone=is_new):
                    if self._differs(s, i, given_now):
                        return True
        return False

    def _differs(self, s: S, i: str, given: Input) -> bool:
        t = spec_step(s, i, given, self.asked)
        differences = compare(s, t, i, given, self.broken)
        if not differences:
            self.agreed[given.event] += 1
            return False
        rule = _rule(s, i, given, self.broken, sum(not d.name.startswith("trace") for d in differences))
        self.found = Disagreement(i, str(given), show_variables(variables_of(s[i])), differences, rule)
        return True


def inputs(s: S, i: str, messages: Iterable[Message], alone: bool = True) -> Iterator[Input]:
    """What can happen to server i next: these messages and, unless not `alone`, what needs none."""
    me = s[i]
    leads = me.role == LEADER
    # Where `next_index` is makes a difference only if the log goes on after `match_index`.
    places = (
        (False, True) if leads and any(me.match_index[j] < me.log.length for j in s.servers) else (False,)
    )
    for behind in places:
        for m in messages:
            # A hint is the follower's advice; whatever it says, the step must be right.
            refused = isinstance(m, AppendEntriesReply) and not m.success
            for hint in range(me.log.length + 1 if refused else 1):
                yield Input(HANDLERS[type(m)], m, behind=behind, hint=hint)
        if not alone:
            continue
        yield Input("client_request", commands=("x",), behind=behind)
        yield Input("client_request", commands=("x", "y"), behind=behind)
        if leads:
            yield Input("append_entries", behind=behind)
            yield Input("append_entries", behind=behind, silent=True)
    if alone:
        if not leads:
            yield Input("timeout")
        yield Input("restart")


def compare(
    s: S, t: S | None, i: str, given: Input, broken: str | None, traced: bool = True
) -> tuple[Difference, ...]:
    """Where the core's step differs from the specification's, which leads to t, or is not allowed.

    The event of a step that doesn't differ is looked at, too, if it is `traced`.
    """
    try:
        core, batch = core_step(s, i, given, broken)
    except NotLeader as refusal:
        return () if t is None else (Difference("answer", "the step is taken", str(refusal)),)
    except Exception as error:  # the core stopped itself: that is what it does, and differs
        return (Difference("assertion", "the step is taken", f"{type(error).__name__}: {error}"),)
    if t is None:
        return (Difference("answer", "the step is refused", "the step is taken"),)
    expected, got = variables_of(t[i]), core_variables(core)
    differences = [
        Difference(name, show(expected.get(name)), show(got.get(name)))
        for name in dict.fromkeys([*expected, *got])
        if expected.get(name) != got.get(name)
    ]
    if given.event != "restart":
        differences += _disk_differences(s, i, core, batch)
    differences += _message_differences(t, i, batch)
    if traced and not differences:
        differences += _trace_differences(s, i, core, batch)
    return tuple(differences)


def _disk_differences(s: S, i: str, core: Core, batch: Batch) -> Iterator[Difference]:
    """Before anything is sent, the disk holds what is persistent. Figure 2, State."""
    me = s[i]
    log = [core_entry(e) for e in me.log]
    disk = (me.current_term, me.voted_for, log)
    if batch.persist is not None:
        p = batch.persist
        disk = (p.current_term, p.voted_for, [*log[: p.keep], *p.entries])
    for name, stored in zip(("current_term", "voted_for", "log"), disk, strict=True):
        value = getattr(core, name)
        if stored != value:
            yield Difference(f"{name} on disk", show(value), show(stored))


def _message_differences(t: S, i: str, batch: Batch) -> Iterator[Difference]:
    """Replies and requests for votes are the specification's; AppendEntries are such as it allows."""
    sent = [spec_message(m) for m in batch.send]
    expected = Counter(t.messages)
    got = Counter(m for m in sent if not isinstance(m, AppendEntries))
    for m in sorted(expected - got, key=describe_message):
        yield Difference("sends", describe_message(m), "nothing")
    for m in sorted(got - expected, key=describe_message):
        yield Difference("sends", "nothing", describe_message(m))
    allowing = State(t.variables, t.past, rules=MAY_SEND)
    for m in sent:
        if not isinstance(m, AppendEntries):
            continue
        if m.source != i:
            yield Difference("sends", f"a message of {i}", describe_message(m))
            continue
        params = (i, m.target, m.prev_log_index, m.entries.length, m.leader_commit)
        failed, after = run(raft.actions["append_entries"], allowing, *params)
        if failed:
            yield Difference("sends", f"nothing, unless {failed}", describe_message(m))
        elif after.messages != {m}:
            yield Difference("sends", *(describe_message(x) for x in (*after.messages, m)))


def _trace_differences(s: S, i: str, core: Core, batch: Batch) -> Iterator[Difference]:
    """The step's event says all that changed and was sent, and is one that replay accepts."""
    before, after = _traced(variables_of(s[i])), _traced(core_variables(core))
    state = _with(after, batch.event["state"])  # what the event says itself stands
    told = _with(before, batch.event["state"])
    for name in after:
        if told.get(name) != after[name]:
            yield Difference(f"trace: {name}", show(after[name]), show(told.get(name)))
    if batch.event["sends"] != [traced_message(m) for m in batch.send]:
        yield Difference("trace: sends", f"{len(batch.send)} messages", f"{len(batch.event['sends'])} others")
    event: Any = msgspec.convert({**batch.event, "state": state}, trace_format().event)
    replay = replay_from(s, i)
    if event.message is not msgspec.UNSET:
        replay.sent.recent[hash(event.message)] = ""
    try:
        replay.feed([event], "lockstep", 1)
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
    whole = {name: value for name, value in values.items() if name != "log"}
    return whole | {"log_length": len(log), "last_log_term": log[-1][0] if log else 0}


def _with(values: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Variables, changed by what an event says; of `match_index` it says only what changed."""
    matches = values.get("match_index", {}) | said.get("match_index", {})
    return {**values, **said, "match_index": {j: n for j, n in matches.items() if n}}


def _rule(s: S, i: str, given: Input, broken: str | None, differences: int) -> str | None:
    """The rule that explains best what the core did, if it had answered otherwise; None if none does.

    Of those that explain it equally well, one is preferred that would answer so if it were taken away, then
    one of the step's own: any message can bring a newer term, and much follows from any step.
    """
    s = State(s.variables, s.past)
    asked: set[tuple[str, bool]] = set()
    spec_step(s, i, given, asked)
    own = {a.rule for a in s.asked}
    without, order = replay_actions(s.servers).tracer.rules, list(raft.rules)

    def preference(rule: str, holds: bool) -> tuple[Any, ...]:
        return (holds == without.get(rule), rule.startswith("term."), rule not in own, order.index(rule))

    best: str | None = None
    for rule, holds in sorted(asked, key=lambda a: preference(*a)):
        t = spec_step(State(s.variables, s.past, rules={rule: not holds}), i, given)
        left = differences if t is None else len(compare(s, t, i, given, broken, traced=False))
        if left < differences:
            best, differences = rule, left
    return best


# --- the specification's step ----------------------------------------------------


def spec_state(world: World) -> S:
    """An explored state as the specification's own functions read it, with everything committed applied.

    Its messages are left out, so that those after a step are those that it sent.
    """
    record = Type("record", cls=raft.server)
    variables = {i: to_spec(v, record) for i, v in world.variables.items()}
    applied = {i: me.but(last_applied=me.commit_index) for i, me in variables.items()}
    return State(applied, to_spec(world.past, Type("record", cls=raft.history)))


def spec_step(s: S, i: str, given: Input, asked: set[tuple[str, bool]] | None = None) -> S | None:
    """Where the specification gets to by an input and by what follows from it; None if it is refused.

    `asked` notes the rules that it came by, and what they said.
    """
    heard: list[S] = [s]
    failed: str | None = None
    t = s
    for action, *params in _actions(i, given):
        failed, t = run(raft.actions[action], t, *params)
        heard.append(t)
        if failed:
            break
    else:
        t = settle(t, i, heard)
    if asked is not None:
        asked |= {(a.rule, a.holds) for x in heard for a in x.asked}
    return None if failed else t


def _actions(i: str, given: Input) -> Iterator[tuple[Any, ...]]:
    """The actions that an input stands for."""
    if given.message is not None:
        yield given.event, given.message
    elif given.commands:
        for command in given.commands:
            yield "client_request", i, command
    elif given.event != "append_entries":  # which changes nothing; what it may send, is asked later
        yield given.event, i


def settle(s: S, i: str, heard: list[S] | None = None) -> S:
    """Server i does at once what Figure 2 lets it do by itself: lead, with a no-op; commit; apply."""
    passed: list[S] = []

    def take(action: str, *params: Any) -> bool:
        failed, t = run(raft.actions[action], passed[-1], *params)
        if not failed:
            passed.append(t)
        return not failed

    passed.append(s)
    if take("become_leader", i):
        take("client_request", i, NO_OP.decode())
    me = passed[-1][i]
    for n in range(me.log.length, me.commit_index, -1):
        if take("advance_commit_index", i, n):
            break
    take("apply_entries", i, passed[-1][i].commit_index)
    if heard is not None:
        heard += passed
    return passed[-1]


def variables_of(me: Any) -> dict[str, Any]:
    """A server's variables, as they are compared: votes of candidates, matches of leaders."""
    values = {
        "role": str(me.role),
        "current_term": me.current_term,
        "voted_for": me.voted_for,
        "log": [(e.term, e.value) for e in me.log],
        "commit_index": me.commit_index,
        "last_applied": me.last_applied,
    }
    if me.role == CANDIDATE:
        values["votes"] = sorted(me.votes)
    if me.role == LEADER:
        values["match_index"] = dict(me.match_index.items)
    return values


# --- the core's step ---------------------------------------------------------------


def core_step(s: S, i: str, given: Input, broken: str | None) -> tuple[Core, Batch]:
    """Put a core into server i's place and give it the input."""
    me = s[i]
    log = [core_entry(e) for e in me.log]
    if given.event == "restart":
        disk = Persistent(me.current_term, me.voted_for, log)
        core = make_core(i, s.servers, random.Random(0), CONFIG, disk, broken)
        return core, core.start(0.0)
    core = make_core(i, s.servers, random.Random(0), CONFIG, broken=broken)
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
    )
    if given.message is not None:
        return core, core.receive(0.0, core_message(given.message, given.hint))
    if given.commands:
        return core, core.propose(0.0, [c.encode() for c in given.commands])
    if given.event == "timeout":
        return core, core.start_election(0.0)
    return core, core.send_heartbeats(CONFIG.heartbeat_interval if given.silent else 0.0)


def core_variables(core: Core) -> dict[str, Any]:
    """A core's variables, as they are compared. What nobody acknowledged is no match."""
    values: dict[str, Any] = {
        "role": core.role.value,
        "current_term": core.current_term,
        "voted_for": core.voted_for,
        "log": [(e.term, e.command.decode()) for e in core.log],
        "commit_index": core.commit_index,
        "last_applied": core.last_applied,
    }
    if core.role is CoreRole.CANDIDATE:
        values["votes"] = sorted(core.votes)
    if core.role is CoreRole.LEADER:
        values["match_index"] = {j: n for j, n in core.match_index.items() if n}
    return values


# --- one's values as the other's ----------------------------------------------------


def core_entry(entry: Any) -> raftd.messages.Entry:
    """A command is a short text in the specification, and its bytes in the core."""
    return raftd.messages.Entry(entry.term, entry.value.encode())


def core_message(m: Message, hint: int = 0) -> raftd.messages.Message:
    """The specification's message as raftd's, which has one field more."""
    fields = {name: getattr(m, name) for name in type(m).types()}
    if isinstance(m, AppendEntries):
        fields["entries"] = tuple(map(core_entry, m.entries))
    if isinstance(m, AppendEntriesReply):
        fields["hint"] = hint
    made: raftd.messages.Message = getattr(raftd.messages, type(m).__name__)(**fields)
    return made


def spec_message(m: raftd.messages.Message) -> Message:
    """raftd's message as the specification's; a hint is advice, of which the specification says nothing."""
    cls = MESSAGES[type(m).__name__]
    fields = {name: getattr(m, name) for name in cls.types()}
    if "entries" in fields:
        entries = tuple(Entry(e.term, e.command.decode()) for e in fields["entries"])
        fields["entries"] = to_spec(entries, cls.types()["entries"])
    return cls(**fields)


def replay_from(s: S, i: str) -> Replay:
    """A replay in which server i has come to this state; its log holds digests, as in a trace."""
    replay = Replay(s.servers)
    me, v = s[i], replay.world.variables[i]
    entry = trace_format().structs[Entry]
    v.role = str(me.role)
    v.log = Log(entry(e.term, digest(e.value.encode())) for e in me.log)
    v.votes = frozenset(me.votes)
    v.match_index = dict(me.match_index.items)
    for name in ("current_term", "voted_for", "commit_index", "last_applied"):
        setattr(v, name, getattr(me, name))
    return replay


# --- in words --------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as messages print it; an entry is term:command."""
    match value:
        case None:
            return "nobody"
        case raftd.messages.Entry(term=term, command=command):
            return f"{term}:{command.decode() or 'no-op'}"
        case (int(term), str(command)):
            return f"{term}:{command or 'no-op'}"
        case list() | tuple():
            return f"[{' '.join(map(show, value))}]"
        case dict():
            return "{" + ", ".join(f"{k}: {v}" for k, v in sorted(value.items())) + "}"
    return str(value)


def show_variables(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: show(value) for name, value in values.items()}


def describe_message(m: Message) -> str:
    """A message in one line."""
    said = {name: getattr(m, name) for name in type(m).types() if name not in ("source", "target")}
    if isinstance(m, AppendEntries):
        said["entries"] = [(e.term, e.value) for e in m.entries]
    told = ", ".join(f"{name}={show(value)}" for name, value in said.items())
    return f"{snake_case(type(m).__name__)} {m.source}→{m.target} {told}"


def render(r: Result) -> str:
    """The result as text."""
    e = r.explored
    name = f"raftd's core, with {r.broken} broken," if r.broken else "raftd's core"
    lines = []
    if d := r.disagreement:
        lines.append(f"error: {name} takes a step otherwise than the specification")
        lines += [f"  {k:3} {step}" for k, step in enumerate(d.path, 1)]
        lines.append(f"  {d.server} is {', '.join(f'{k} = {v}' for k, v in d.before.items())}")
        lines.append(f"  given {d.input}")
        lines += [f"  {x.name}: expected {x.expected}, got {x.got}" for x in d.differences]
        if d.rule:
            rule = raft.rules[d.rule]
            where = f"section {rule.section}" if rule.section[0].isdigit() else rule.section
            lines.append(f"because: rule {d.rule} ({where}): {rule.why}")
        lines.append(f"differs, after {r.inputs:,} inputs on which both agree ({e.seconds:.1f} s)")
    elif r.agrees:
        lines.append(
            f"agrees: {name} and the specification, on {r.inputs:,} different inputs ({e.seconds:.1f} s)"
        )
    else:
        lines.append(f"undecided: {e.stopped}, after {r.inputs:,} inputs on which both agree")
    lines.append("  " + ", ".join(f"{n:,} {event}" for event, n in r.agreed.items()))
    lines.append(
        f"  from {r.servers_states:,} different variables of a server, in {e.distinct:,} states "
        f"reached by {e.states:,} transitions"
    )
    lines.append(f"  rules that came out both ways: {len(r.exercised)}")
    lines.append(f"note: bounded by {e.bounds}; states that differ in servers' names only are taken once")
    if r.disagreement:
        lines.append(f"help: {_again(r)}")
    return "\n".join(lines)


def _again(r: Result) -> str:
    b = r.explored.bounds
    broken = f" --break {r.broken}" if r.broken else ""
    limit = "" if b.max_messages is None else f" --messages {b.max_messages}"
    return (
        f"raftworthy lockstep --servers {b.servers} --terms {b.max_term} --log {b.max_log} "
        f"--commands {b.max_commands} --crashes {b.crashes} --entries {b.entries}{limit}{broken}"
    )


# --- for the command line ----------------------------------------------------------------


def run_lockstep(
    *,
    servers: int = DEFAULT_BOUNDS.servers,
    terms: int = DEFAULT_BOUNDS.max_term,
    log: int = DEFAULT_BOUNDS.max_log,
    commands: int | None = DEFAULT_BOUNDS.commands,
    crashes: int = DEFAULT_BOUNDS.crashes,
    entries: int = DEFAULT_BOUNDS.entries,
    messages: int | None = DEFAULT_BOUNDS.max_messages,
    broken: str | None = None,
    json: bool = False,
) -> int:
    """Compare raftd with the specification and print what came out; the exit code."""
    try:
        bounds = Bounds(servers, terms, log, messages, crashes, commands, entries)
        with _progress() as progress:
            result = lockstep(bounds, broken=broken, progress=progress)
    except UnusableError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    if json:
        print(msgspec.json.format(msgspec.json.encode(result.as_data()), indent=2).decode())
    else:
        print(render(result))
    return result.exit_code


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """How far the exploration is, on a terminal; its end is not known beforehand."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("lockstep") as status:
        yield lambda p: status.update(
            f"lockstep: {p.distinct:,} states, depth {p.depth}, {p.distinct / p.seconds:,.0f} a second"
        )

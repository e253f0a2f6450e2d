"""Why an event is not a behaviour of the specification: the rule, the values, and what it conflicts with.

An explanation is data first (`Explanation`), text second (`render`). It is found by a second
pass up to the violation, which also notes where every value came from, and by asking which
single rule, had it been broken, would make the event right.

    n  an expression of the specification     i  the server that took the step
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from msgspec import UNSET

from raftspec.graph import Node, postorder
from raftspec.properties import raft
from raftspec.raft import AppendEntries
from raftspec.spec import State, run
from raftspec.types import Type
from raftworthy.generated import World, to_spec
from raftworthy.replay.provenance import Cause, Known, Provenance
from raftworthy.replay.reading import Place, TraceFile, Unusable
from raftworthy.replay.replay import NOT_ASKED, Mismatch, Replay, Violation, differences, replay_files
from raftworthy.structs import snake_case
from raftworthy.wording import Reader, a_message, show

PERSISTENT = ("current_term", "voted_for", "log_length", "last_log_term", "entries")
STEPS = ("guard", "state", "sends")  # the kinds of violations by a step that the specification has, too
# The rules by which a server refuses a request, or doesn't count an answer.
CHECKS = frozenset({
    "vote.current_term", "vote.up_to_date", "vote.once_per_term",
    "vote.count_granted", "vote.count_current_term",
    "append.current_term", "append.previous_entry", "append.no_gap",
    "replicate.ack_current_term", "replicate.ack_success",
})  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One guard or rule that the step came by."""

    name: str
    holds: bool
    values: str
    broken: bool = False  # the one that explains what was seen: it holds and isn't followed, or doesn't hold


@dataclass(frozen=True)
class Difference:
    """A value of the event, and what the specification gives instead."""

    name: str
    expected: str
    seen: str


@dataclass(frozen=True)
class Explanation:
    """Everything there is to say about a violation."""

    file: str
    line: int
    server: str
    event: str
    step: str
    claim: str
    rule: str | None
    section: str | None
    why: str | None
    conditions: tuple[Condition, ...] = ()
    differences: tuple[Difference, ...] = ()
    allowed: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    help: str = ""

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def explain(v: Violation, paths: Sequence[Path]) -> Explanation:
    """Find out why an event is wrong, by replaying up to it once more."""
    provenance = Provenance()
    replay = (
        Replay(tuple(v.servers))
        if v.number == 0
        else replay_files(paths, observer=provenance, stop_at=v.number)
    )
    world = replay.world
    before = World({**world.variables, v.event.server: world.variables[v.event.server].copy()}, world.past)
    begin = v.event.event
    if v.kind == "guard" and v.event.sends is UNSET:
        # Unlogged replies are taken for received before the step that needs them.
        try:
            replay.take(v.event, last=True)
        except Violation:
            before, begin = world, v.action
    return _Explainer(v, replay, before, begin, provenance, paths).explanation()


class _Step(NamedTuple):
    """One step of the specification within an event."""

    action: str
    params: tuple[Any, ...]
    before: State[Any, Any]
    asked: tuple[tuple[str, bool], ...]
    failed: str | None


class _Rerun(NamedTuple):
    """An event as the specification would have it, and how much of the event that leaves unexplained."""

    steps: list[_Step]
    after: State[Any, Any]
    wrong: int


class _Explainer:
    def __init__(
        self,
        v: Violation,
        replay: Replay,
        world: World,
        begin: str,
        provenance: Provenance,
        paths: Sequence[Path],
    ) -> None:
        self.v = v
        self.e = v.event
        self.i: str = v.event.server
        self.replay = replay
        self.begin = begin
        self.provenance = provenance
        self.paths = paths
        self.variables = _Lazily(world)
        self.past = to_spec(world.past, Type("record", cls=raft.history))
        self.without: Mapping[str, bool] = replay.generated.tracer.rules

    def explanation(self) -> Explanation:
        v = self.v
        assert v.place is not None
        self.base = self._rerun({}) if v.kind in STEPS else self._not_run()
        rule, self.step = self._culprit()
        self.reader = self._reader(self.step)
        info = raft.rules.get(rule) if rule else None
        return Explanation(
            file=v.place.file,
            line=v.place.line,
            server=self.i,
            event=self.e.event,
            step=self._describe_step(),
            claim=self._claim(),
            rule=rule,
            section=info.section if info else None,
            why=info.why if info else None,
            conditions=tuple(self._conditions(rule)) if v.kind in STEPS else (),
            differences=tuple(self._differences()),
            allowed=tuple(self._allowed(rule)),
            causes=tuple(self._causes(rule)),
            help=self._help(),
        )

    def _reader(self, step: _Step) -> Reader:
        action = raft.actions[step.action]
        message = step.params[0] if action.message else None
        params = {} if action.message else dict(zip(action.params, step.params, strict=False))
        return Reader(step.before, self.i, params, message)

    def _describe_step(self) -> str:
        if (m := self.reader.message) is not None:
            return f"{self.step.action}({snake_case(type(m).__name__)} from {m.source}, term {m.term})"
        shown = ", ".join(f"{name}={show(x)}" for name, x in self.reader.params.items() if name != "i")
        return f"{self.step.action}({shown})" if shown else self.step.action

    def _claim(self) -> str:
        v, m = self.v, self.e.message
        match v.kind:
            case "unsent" if m.source not in v.servers:
                return f"{self.i} received {a_message(m)} from {m.source}, which is not one of the servers"
            case "unsent" if not self.replay.state[m.source].logs_sends:
                return f"{self.i} received {a_message(m)} that {m.source} can't have sent"
            case "unsent":
                return f"{self.i} received {a_message(m)} that {m.source} never sent"
            case "restart":
                return v.what or f"{self.i} restarts with something else on its disk than it was left with"
            case "message":
                return f"{self.i} handles a message that is not addressed to it"
            case "guard" if self.step.failed:
                return f"{self.i} may not {self._describe_step()} here"
            case "sends" if not self.step.failed:
                return f"{self.i} sends in {self._describe_step()} what the specification does not send"
            case _:
                step = self._describe_step()
                return f"{self.i} comes out of {step} with other values than the specification gives"

    def _conditions(self, rule: str | None) -> Iterator[Condition]:
        """The guards of the step and the rules it came by, with their values; not those with no say in it."""
        if not self.step.params:
            return  # a heartbeat's event whose messages aren't the sender's to send
        transition = self.replay.generated.transitions[self.step.action]
        told: set[str] = set()
        for guard in transition.guards:
            rules = {n.attr for n in postorder(guard.condition) if n.op == "rule"}
            told |= rules
            values = self.reader.values(guard.condition)
            if guard.condition.op != "const" and values:
                broken = rule in rules
                yield Condition(guard.text, bool(self.reader.value(guard.condition)), values, broken)
        nodes = {n.attr: n for n in postorder(*transition.roots()) if n.op == "rule"}
        for name, holds in self.step.asked:
            if name in told or name in NOT_ASKED or not (holds or name in CHECKS or name == rule):
                continue
            if name in nodes:
                yield Condition(name, holds, self.reader.values(nodes[name]), name == rule)
            elif name == rule:
                yield Condition(name, holds, "always", True)
            if name == rule:
                return  # what comes later in the step has no say in this
        if rule == "leader.reset_match_index" and rule not in dict(self.step.asked):
            yield Condition(rule, True, "when leadership begins, match_index is 0 for all", True)

    def _differences(self) -> Iterator[Difference]:
        """What the event says and the specification doesn't give."""
        found: Iterable[Mismatch] = self.v.mismatches
        if self.v.kind == "restart":
            found = self._unlike_disk()
        elif self.v.kind == "guard" and not self.step.failed:
            found = self._unlike(self.base.after)
        for m in found:
            if m.name != "sends":
                yield Difference(m.name, show(m.expected), show(m.seen))
            elif m.expected is None or m.expected.source != m.seen.source:
                yield Difference("sends", "nothing of this kind", show(m.seen))
            else:
                for f in m.seen.__struct_fields__:
                    if getattr(m.seen, f) != getattr(m.expected, f):
                        name = f"sends {snake_case(type(m.seen).__name__)} to {m.seen.target}: {f}"
                        yield Difference(name, show(getattr(m.expected, f)), show(getattr(m.seen, f)))

    # Which rule, had it been broken, would give what was seen?

    def _culprit(self) -> tuple[str | None, _Step]:
        """The rule that explains most if it is taken away, and the step that comes by it."""
        v, steps = self.v, self.base.steps
        last = next((step for step in steps if step.failed), steps[0])
        if v.kind == "restart":
            return self._lost_from_disk(), steps[0]
        if v.kind in ("unsent", "message"):
            return None, steps[0]
        best: tuple[int, str, _Step] | None = None
        for step in steps:
            for rule, holds in reversed(step.asked):
                if rule in NOT_ASKED or holds == self.without[rule]:
                    continue
                left = self._rerun({rule: self.without[rule]}).wrong
                if left < (best[0] if best else self.base.wrong):
                    best = (left, rule, step)
        if best and (best[0] == 0 or v.kind == "guard"):
            return best[1], best[2]
        combined = self._combined() if v.kind != "guard" else None
        return combined or (best and best[1:]) or self._suspect(last)

    def _combined(self) -> tuple[str, _Step] | None:
        """Two checks that both refused: the second one is the more specific."""
        for step in self.base.steps:
            refused = self._refusals(step)
            for n, rule in enumerate(refused):
                for other in refused[:n]:
                    if not self._rerun({rule: True, other: True}).wrong:
                        return rule, step
        return None

    def _suspect(self, step: _Step) -> tuple[str | None, _Step]:
        """No rule taken away gives what was seen: what the step did although a rule refused it, or None."""
        changed = {m.name.partition("[")[0] for m in self.v.mismatches}
        if self.e.state is not UNSET and self.e.state.role == "leader" and changed == {"match_index"}:
            return "leader.reset_match_index", step
        if self.v.kind == "guard":
            transition = self.replay.generated.transitions[step.action]
            failed = next((g for g in transition.guards if g.text == step.failed), None)
            rules = [n.attr for n in postorder(failed.condition) if n.op == "rule"] if failed else []
            return next(iter(rules), None), step
        refused = [rule for rule in self._refusals(step) if rule in CHECKS]
        return (refused[-1] if refused and not self._refuses() else None), step

    def _refuses(self) -> bool:
        """Whether the server refuses what the specification accepts, or sends something else altogether."""
        for m in self.v.mismatches:
            if m.name == "sends":
                return m.expected is None or not (
                    getattr(m.seen, "granted", 0) or getattr(m.seen, "success", 0)
                )
        return False

    def _refusals(self, step: _Step) -> list[str]:
        """The rules that did not let something happen in a step."""
        return [
            rule for rule, holds in step.asked if not holds and self.without[rule] and rule not in NOT_ASKED
        ]

    def _lost_from_disk(self) -> str:
        seen = {m.name: m.seen for m in self._unlike_disk()}
        if "current_term" in seen:
            return "restart.keep_term"
        return "restart.keep_vote" if "voted_for" in seen else "restart.keep_log"

    def _unlike_disk(self) -> list[Mismatch]:
        """What a restart says of the disk and the last step doesn't."""
        found = self.v.mismatches or differences(self.e.state, _plain(self.variables[self.i]))
        return [m for m in found if m.name in PERSISTENT]

    def _rerun(self, rules: Mapping[str, bool]) -> _Rerun:
        """The event as steps of the specification, with some rules answering as they are told."""
        e, i, state = self.e, self.i, self.e.state
        without = {name: self.without[name] for name in NOT_ASKED}
        s: State[Any, Any] = State(self.variables, self.past, rules={**without, **rules})
        steps: list[_Step] = []
        wrong = 0

        def take(name: str, *params: Any) -> None:
            nonlocal s, wrong
            s.asked.clear()
            failed, after = run(raft.actions[name], s, *params)
            steps.append(_Step(name, params, s, tuple(dict(s.asked).items()), failed))
            wrong += 10 * bool(failed)
            s = after

        def said(name: str) -> Any:
            value = UNSET if state is UNSET else getattr(state, name)
            return None if value is UNSET else value

        first = raft.actions[self.begin]
        if first.message:
            take(self.begin, self._of_spec(e.message))
        elif self.begin in ("timeout", "become_leader", "restart"):
            take(self.begin, i)
        if said("role") == "leader" and s[i].role == "candidate":
            wrong += bool(said("votes")) and set(said("votes")) != set(s[i].votes)
            take("become_leader", i)
        entries = e.entries if e.entries is not UNSET and self.begin != "restart" else ()
        for entry in entries:
            take("client_request", i, entry.value)
        tail = list(s[i].log)[len(s[i].log) - len(entries) :]
        wrong += [x.term for x in tail] != [x.term for x in entries]
        if (n := said("commit_index")) and (
            self.begin == "advance_commit_index" or (n > s[i].commit_index and s[i].role == "leader")
        ):
            take("advance_commit_index", i, n)
        if (n := said("last_applied")) and (self.begin == "apply_entries" or n > s[i].last_applied):
            take("apply_entries", i, n)
        for m in e.sends or ():
            sent = self._of_spec(m)
            if sent in s.messages:
                continue
            if not isinstance(sent, AppendEntries) or m.source != i or m.target not in s.servers:
                wrong += 1
                continue
            before = s
            take("append_entries", i, m.target, m.prev_log_index, len(m.entries), m.leader_commit)
            if steps[-1].failed is None and sent in s.messages - before.messages:
                steps.pop()
            else:
                wrong += 1
        return _Rerun(steps or [_Step(self.begin, (), s, (), None)], s, wrong + len(list(self._unlike(s))))

    def _not_run(self) -> _Rerun:
        """An event that the specification has no steps for."""
        s: State[Any, Any] = State(self.variables, self.past)
        params = () if self.e.message is UNSET else (self._of_spec(self.e.message),)
        return _Rerun([_Step(self.begin, params, s, (), None)], s, 0)

    def _unlike(self, s: State[Any, Any]) -> Iterator[Mismatch]:
        me = s[self.i]
        yield from differences(self.e.state, _plain(me))
        if self.e.state is not UNSET and self.e.state.match_index is not UNSET and me.role != "leader":
            yield Mismatch("match_index", {}, self.e.state.match_index)

    def _of_spec(self, m: Any) -> Any:
        cls = next(cls for cls in raft.messages if cls.__name__ == type(m).__name__)
        return to_spec(m, Type("record", cls=cls))

    # What was allowed, what it conflicts with, how to see it.

    def _allowed(self, rule: str | None) -> Iterator[str]:
        v = self.v
        if v.kind == "unsent":
            yield from self._about_unsent()
        elif (
            self.e.event == "handle_append_entries"
            and self._refuses()
            and v.mismatches[0].expected is not None
        ):
            yield f"by its earlier events {self.i} has what this joins on to; is a log_length left out there?"
        elif self.step.failed:
            if "n" in self.reader.params:
                top = len(self.step.before[self.i].log)
                fine = [n for n in range(max(1, top - 500), top + 1) if self._passes(self.step.action, n)]
                if fine:
                    yield f"{self.step.action} is allowed for {_range(fine)}"
            if self.step.before[self.i].role == "leader":
                may = ["client_request", "append_entries"]
            else:
                may = [name for name in ("timeout", "become_leader") if self._passes(name)]
            yield f"{self.i} may here: {', '.join([*may, 'restart'])}, or handle a message sent to it"

    def _about_unsent(self) -> Iterator[str]:
        m = self.e.message
        if m.source not in self.v.servers:
            yield f"the servers of the header are {', '.join(self.v.servers)}"
            return
        near = self.provenance.nearest(m)
        unlike = _unlike_fields(near[0], m) if near else []
        if near and len(unlike) <= 2:
            for f in unlike:
                sent, seen = show(getattr(near[0], f)), show(getattr(m, f))
                yield f"the message most like it was sent with {f} = {sent}, not {seen}"
            return
        them = self.variables[m.source]
        known = f"voted_for = {show(them.voted_for)}, log_length = {len(list(them.log))}"
        yield f"{m.source} was {them.role} in term {them.current_term}, {known}"
        if place := self._sent_later(m):
            yield f"{m.source} sends it at {place}, which can't come before this"

    def _sent_later(self, m: Any) -> Place | None:
        """Where the trace has the sending after all, in an event that waits for this one."""
        with suppress(Unusable):  # what comes after the violation has not been read so far
            for path in self.paths:
                for line, events in TraceFile.open(path).events(lenient=True):
                    for at, e in enumerate(events, line):
                        if e.server == m.source and e.sends and m in e.sends:
                            return Place(str(path), at)
        return None

    def _passes(self, action: str, *params: Any) -> bool:
        failed, _ = run(raft.actions[action], self.step.before, self.i, *params)
        return failed is None

    def _causes(self, rule: str | None) -> Iterator[Cause]:
        """The two or three earlier events that the wrong one conflicts with."""
        found: dict[str, Cause] = {}

        def add(cause: Cause | None) -> None:
            if cause is not None:
                found.setdefault(cause.place, cause)

        known = self.provenance.servers.get(self.i, Known())
        m = self.e.message
        if self.v.kind == "unsent":
            near = self.provenance.nearest(m)
            if near and len(_unlike_fields(near[0], m)) <= 2:
                add(Cause(near[1].place, f"{m.source} sent {show(near[0])}"))
        names = {d.name for d in self._differences()}
        for name in sorted(names):
            add(known.since.get(name))
        transition = self.replay.generated.transitions[self.step.action]
        for n in postorder(*transition.roots()):
            if n.op == "rule" and n.attr == rule:
                for t in self.reader.terms(n):
                    self._trace_back(t, known, add)
        if names & {"log_length", "last_log_term", "entries"}:
            add(known.log[-1] if known.log else None)
        if m is not UNSET and self.v.kind != "unsent":
            sent = self.provenance.sent.get(hash(m))
            add(sent and Cause(sent.place, f"{m.source} sent the message"))
        yield from list(found.values())[:3]

    def _trace_back(self, t: Node, known: Known, add: Any) -> None:
        for n in postorder(t):
            if n.op == "get":
                add(known.since.get(n.attr[0]))
            elif n.op == "at" and n.args[0].op == "get":
                index = self.reader.value(n.args[1])
                if 0 < index <= len(known.log):
                    add(known.log[index - 1])
        add(known.since.get(self.reader.name(t)))

    def _help(self) -> str:
        v = self.v
        assert v.place is not None
        files = " ".join(str(p) for p in self.paths)
        return f"raftworthy show {files} --until {v.place.line if len(self.paths) == 1 else v.place}"


def _plain(me: Any) -> SimpleNamespace:
    """A server's variables of the specification as those of a replay."""
    plain = SimpleNamespace(**{f: getattr(me, f) for f in type(me).types()})
    plain.log, plain.match_index = list(me.log), dict(me.match_index.items)
    return plain


def _unlike_fields(m: Any, other: Any) -> list[str]:
    return [f for f in m.__struct_fields__ if getattr(m, f) != getattr(other, f)]


def _range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"n = {first}" if first == last else f"n from {first} to {last}"


class _Lazily(Mapping[str, Any]):
    """The servers' variables as the specification's records, made when asked for."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __getitem__(self, i: str) -> Any:
        return to_spec(self.world.variables[i], Type("record", cls=raft.server))

    def __iter__(self) -> Iterator[str]:
        return iter(self.world.variables)

    def __len__(self) -> int:
        return len(self.world.variables)


def render(x: Explanation) -> str:
    """The explanation as text: the place first, the command to see it last."""
    lines = [f"{x.file}:{x.line}: error: {x.claim}"]
    if x.rule:
        where = f"section {x.section}" if x.section and x.section[0].isdigit() else x.section
        lines.append(f"  rule {x.rule} ({where}): {x.why}")
    else:
        doc = raft.actions[x.event].doc.splitlines()[0]
        doc = re.sub(r"\bi\b|\bm\.target\b", x.server, doc).replace("m.source", "the sender")
        lines.append(f"  event {x.event}: {doc}")
    width = max((len(c.name) for c in x.conditions), default=0)
    for c in x.conditions:
        mark = ("BROKEN" if c.holds else "FAILED") if c.broken else "ok    " if c.holds else "no    "
        lines.append(f"  {mark}  {c.name:{width}}  {c.values}")
    lines += [f"  {d.name}: expected {d.expected}, seen {d.seen}" for d in x.differences]
    lines += [f"because: {c.place}  {c.what}" for c in x.causes]
    lines += [f"note: {a}" for a in x.allowed]
    lines.append(f"help: {x.help}")
    return "\n".join(lines)


__all__ = ["Explanation", "Mismatch", "explain", "render"]

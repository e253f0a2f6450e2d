"""Why an event is not a behaviour of the specification: the rule, the values, and what it conflicts with.

An explanation is data first (`Explanation`), text second (`render`). It is found by a second
pass up to the violation, which also notes where every value came from, and by asking which
single rule, had it been broken, would make the event right.

    n  an expression of the specification     i  the server that took the step
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from raftspec.extensions import WHOLE
from raftspec.graph import Node, postorder
from raftspec.spec import run
from raftworthy.files import Place, Unusable
from raftworthy.generated import World
from raftworthy.replay.blame import messages_like
from raftworthy.replay.culprit import STEPS, Inquiry, Step, checks
from raftworthy.replay.provenance import Cause, Known, Provenance, distance, unlike
from raftworthy.replay.reading import TraceFile
from raftworthy.replay.replay import NOT_ASKED, Mismatch, Replay, Violation, replay_files
from raftworthy.structs import snake_case
from raftworthy.wording import Reader, a_message, show


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
    no_rule: str | None = None  # why no rule is concerned
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
        Replay(tuple(v.servers), extensions=v.extensions, voters=v.voters)
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
        self.provenance = provenance
        self.paths = paths
        self.inquiry = Inquiry(v, replay, world, begin)
        self.variables = self.inquiry.variables

    def explanation(self) -> Explanation:
        v = self.v
        assert v.place is not None
        rule, self.step = self.inquiry.culprit()
        self.reader = self._reader(self.step)
        info = self.replay.spec.rules.get(rule) if rule else None
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
            no_rule=None if rule else self._no_rule(),
            conditions=tuple(self._conditions(rule)) if v.kind in STEPS else (),
            differences=tuple(self._differences()),
            allowed=tuple(self._allowed(rule)),
            causes=tuple(self._causes(rule)),
            help=self._help(),
        )

    def _reader(self, step: Step) -> Reader:
        action = self.replay.spec.actions[step.action]
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

    def _no_rule(self) -> str:
        """Why it is wrong, although it breaks none of the rules."""
        v = self.v
        differs = ", ".join(d.name for d in self._differences())
        match v.kind:
            case "unsent":
                return "messages may get lost, be late or come twice, but what is received was sent before"
            case "message":
                return "a message is handled by the server that it is addressed to"
            case "restart":
                return "a disk holds what the last step left on it, or the one before, or one not logged"
            case _ if self.step.failed:
                return f"{self.step.action} is a step only where {self.step.failed}"
            case "sends" if self.step.action == snake_case(type(v.mismatches[0].seen).__name__):
                return "AppendEntries tells its sender's own term and log, and these are others"
            case "sends" if v.mismatches[0].expected is None:
                return f"with none of them taken away does {self.step.action} send this"
            case _:
                return f"with none of them taken away does {differs} come out so"

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
                broken = rule in rules or guard.text == self.step.failed
                yield Condition(guard.text, bool(self.reader.value(guard.condition)), values, broken)
        nodes = {n.attr: n for n in postorder(*transition.roots()) if n.op == "rule"}
        refusing = checks(transition)
        for name, holds in self.step.asked:
            if name in told or name in NOT_ASKED or not (holds or name in refusing or name == rule):
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
            found = self.inquiry.unlike_disk()
        elif self.v.kind == "guard" and not self.step.failed:
            found = self.inquiry.unlike()
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

    # What was allowed, what it conflicts with, how to see it.

    def _allowed(self, rule: str | None) -> Iterator[str]:
        v = self.v
        if v.kind == "unsent":
            yield from self._about_unsent()
        elif (
            self.e.event == "handle_append_entries"
            and self.inquiry.refuses()
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
            if silent := [j for j in self._not_counted() if j not in self.provenance.last]:
                yield f"nothing is logged of {', '.join(silent)} before this"
            yield f"{self.i} may here: {', '.join([*may, 'restart'])}, or handle a message sent to it"

    def _about_unsent(self) -> Iterator[str]:
        m = self.e.message
        if m.source not in self.v.servers:
            yield f"the servers of the header are {', '.join(self.v.servers)}"
            return
        if near := self._nearest():
            could = "was sent" if near[1] else "could have been sent"
            for f in unlike(near[0], m):
                sent, seen = show(getattr(near[0], f)), show(getattr(m, f))
                yield f"the message most like it {could} with {f} = {sent}, not {seen}"
            return
        them = self.variables[m.source]
        known = f"voted_for = {show(them.voted_for)}, log_length = {len(list(them.log))}"
        yield f"{m.source} was {them.role} in term {them.current_term}, {known}"
        if place := self._sent_later(m):
            yield f"{m.source} sends it at {place}, which can't come before this"

    def _nearest(self) -> tuple[Any, Cause | None] | None:
        """A message almost like one that nobody sent: one that was, or else could have been."""
        m = self.e.message
        sent = self.provenance.nearest(m)
        possible = ((other, None) for other in messages_like(self.replay, m))
        near = min([*([sent] if sent else []), *possible], key=lambda x: distance(x[0], m), default=None)
        return near if near and 0 < len(unlike(near[0], m)) <= 2 else None

    def _sent_later(self, m: Any) -> Place | None:
        """Where the trace has the sending after all, in an event that waits for this one."""
        with suppress(Unusable):  # what comes after the violation has not been read so far
            for path in self.paths:
                for lines, events in TraceFile.open(path).events(lenient=True):
                    for at, e in zip(lines, events, strict=True):
                        if e.server == m.source and e.sends and m in e.sends:
                            return Place(str(path), at)
        return None

    def _passes(self, action: str, *params: Any) -> bool:
        failed, _ = run(self.replay.spec.actions[action], self.step.before, self.i, *params)
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
            near = self._nearest()
            if near and near[1]:
                add(Cause(near[1].place, f"{m.source} sent {show(near[0])}"))
        for j in self._not_counted():
            last = self.provenance.answered.get((j, self.i)) or self.provenance.last.get(j)
            add(last and Cause(last.place, f"{j} is not counted; the last of it: {last.what}"))
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

    def _not_counted(self) -> Iterator[str]:
        """The servers that a quorum lacks."""
        guards = self.replay.generated.transitions[self.step.action].guards
        for n in (n for g in guards if g.text == self.step.failed for n in postorder(g.condition)):
            if n.op == "set_size":
                yield from sorted({*self.v.servers} - self.reader.value(n.args[0]) - {self.i})
            elif n.op == "count":
                lacking = [a for a in n.args if not self.reader.value(a)]
                yield from (j for a in lacking for j in self._servers_of(a) if j != self.i)

    def _servers_of(self, condition: Node) -> set[str]:
        """The servers that a condition is about."""
        return {n.attr for n in postorder(condition) if n.op == "const" and n.type.kind == "server"}

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


def _range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"n = {first}" if first == last else f"n from {first} to {last}"


def render(x: Explanation) -> str:
    """The explanation as text: the place first, the command to see it last."""
    lines = [f"{x.file}:{x.line}: error: {x.claim}"]
    if x.rule:
        where = f"section {x.section}" if x.section and x.section[0].isdigit() else x.section
        lines.append(f"  rule {x.rule} ({where}): {x.why}")
    else:
        doc = WHOLE.actions[x.event].doc.splitlines()[0]
        doc = re.sub(r"\bi\b|\bm\.target\b", x.server, doc).replace("m.source", "the sender")
        lines += [f"  event {x.event}: {doc}", f"  no rule: {x.no_rule}"]
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

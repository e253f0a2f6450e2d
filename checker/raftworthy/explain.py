"""Why an event is not a behaviour of the specification: the rule, the values, and what it conflicts with.

An explanation is data first (`Explanation`), text second (`render`). It is found by a second
pass up to the violation, which also notes where every value came from, and by asking which
single rule, had it been broken, would make the event right.

    n  an expression of the specification     i  the server that took the step
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec import UNSET, structs

from raftspec.graph import LEAVES, OPERATIONS, Node, postorder
from raftspec.properties import raft
from raftspec.spec import State, run
from raftspec.types import Type
from raftworthy.generated import World, to_spec
from raftworthy.reading import Place
from raftworthy.replay import NOT_ASKED, Mismatch, Replay, Violation, differences, replay_files
from raftworthy.structs import snake_case

REMEMBERED = 200_000  # messages whose sending is remembered while looking for causes


@dataclass(frozen=True)
class Condition:
    """One guard or rule that the step came by."""

    name: str
    holds: bool
    values: str
    broken: bool = False  # the one that explains what was seen


@dataclass(frozen=True)
class Cause:
    """An earlier event that the wrong one conflicts with."""

    place: str
    what: str


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


# --- where values came from ------------------------------------------------------


@dataclass
class _Known:
    """What a server was last seen with, and the events that made it so."""

    values: dict[str, Any] = field(default_factory=dict)
    since: dict[str, Cause] = field(default_factory=dict)
    log: list[Cause] = field(default_factory=list)  # for each entry, the event that stored it


class Provenance:
    """Watches a replay, to tell later which event set a variable, stored an entry or sent a message."""

    def __init__(self) -> None:
        self.servers: dict[str, _Known] = {}
        self.sent: dict[int, Cause] = {}
        self.order: deque[int] = deque()
        self.messages: dict[tuple[str, str, str], deque[tuple[Any, Cause]]] = {}

    def __call__(self, e: Any, place: Place, world: World) -> None:
        i = e.server
        me = world.variables[i]
        known = self.servers.setdefault(i, _Known())
        cause = Cause(str(place), _describe_event(e))
        for name in ("role", "current_term", "voted_for", "commit_index", "last_applied"):
            value = getattr(me, name)
            if known.values.get(name) != value:
                known.values[name], known.since[name] = value, cause
        for j, n in me.match_index.items():
            if known.values.get(f"match_index[{j}]") != n:
                known.values[f"match_index[{j}]"], known.since[f"match_index[{j}]"] = n, cause
        if me.log.cut is not None:
            del known.log[max(0, len(known.log) - len(me.log.cut)) :]
        del known.log[len(me.log) :]
        known.log += [cause] * (len(me.log) - len(known.log))
        for m in e.sends or ():
            self._note(m, Cause(str(place), f"{i} sent it ({e.event})"))

    def _note(self, m: Any, cause: Cause) -> None:
        key = hash(m)
        if key not in self.sent:
            self.order.append(key)
            self.sent[key] = cause
            if len(self.order) > REMEMBERED:
                self.sent.pop(self.order.popleft(), None)
        like = (type(m).__name__, m.source, m.target)
        self.messages.setdefault(like, deque(maxlen=200)).append((m, cause))

    def nearest(self, m: Any) -> tuple[Any, Cause] | None:
        """The sent message most like one that nobody sent."""
        sent = self.messages.get((type(m).__name__, m.source, m.target), ())

        def unlike(other: tuple[Any, Cause]) -> int:
            return sum(a != b for a, b in zip(structs.astuple(m), structs.astuple(other[0]), strict=True))

        return min(reversed(sent), key=unlike, default=None)

    def of(self, n: Node, i: str, world: World, value: Any) -> Cause | None:
        """The event that a leaf's value comes from."""
        if n.op == "get":
            name, _ = n.attr
            server = i if n.args[0].op != "const" else n.args[0].attr
            return self.servers.get(server, _Known()).since.get(name)
        return None


def _describe_event(e: Any) -> str:
    """An event in a few words."""
    text = f"{e.server} {e.event}"
    if e.message is not UNSET:
        text += f" from {e.message.source}, term {e.message.term}"
    said = []
    if e.state is not UNSET:
        for name in ("role", "current_term", "voted_for", "log_length", "commit_index"):
            value = getattr(e.state, name)
            if value is not UNSET:
                said.append(f"{name} = {show(value)}")
    return text + (": " + ", ".join(said) if said else "")


# --- expressions in words ----------------------------------------------------------


def show(value: Any) -> str:
    """A value as the messages print it."""
    if value is None:
        return "nobody"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset | set):
        return "{" + ", ".join(sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return f"{len(value)} entries" if len(value) > 4 else "[" + ", ".join(map(show, value)) + "]"
    if hasattr(value, "__struct_fields__"):
        fields = {f: getattr(value, f) for f in value.__struct_fields__}
        if set(fields) == {"term", "value"}:
            return f"{value.term}:{value.value}"
        return f"{snake_case(type(value).__name__)}({', '.join(f'{f}={show(x)}' for f, x in fields.items())})"
    return str(value)


class Reader:
    """Evaluates and describes expressions of one step, in the state before it."""

    def __init__(self, world: World, i: str, params: Mapping[str, Any], message: Any) -> None:
        self.world = world
        self.i = i
        self.params = params
        self.message = message

    def leaf(self, n: Node) -> Any:
        match n.op:
            case "const":
                return n.attr
            case "param":
                return self.params[n.attr]
            case "message":
                return to_spec(getattr(self.message, n.attr[1]), n.type)
            case "past":
                return to_spec(getattr(self.world.past, n.attr[0]), n.type)
            case _:
                server = self.value(n.args[0])
                return to_spec(getattr(self.world.variables[server], n.attr[0]), n.type)

    def value(self, n: Node, bound: Mapping[str, Any] | None = None) -> Any:
        """What an expression comes to."""
        bound = bound or {}
        if n.op == "bound":
            return bound[n.attr]
        if n.op in LEAVES:
            return self.leaf(n)
        if n.op == "ite":
            return self.value(n.args[1] if self.value(n.args[0], bound) else n.args[2], bound)
        if n.op in ("forall", "exists"):
            top, claim = n.args
            return OPERATIONS[n.op].meaning(self.value(top, bound), lambda k: self.value(claim, {**bound, n.attr: k}))
        args = [self.value(a, bound) for a in n.args]
        meaning = OPERATIONS[n.op].meaning
        return meaning(*args) if n.attr is None else meaning(*args, attr=n.attr)

    def name(self, n: Node) -> str:
        """An expression in the words of the trace format."""
        match n.op:
            case "const":
                return show(n.attr)
            case "param" | "bound":
                return str(n.attr)
            case "message":
                return f"message.{n.attr[1]}"
            case "past":
                return f"history.{n.attr[0]}"
            case "get":
                server = self.value(n.args[0])
                return str(n.attr[0]) if server == self.i else f"{server}.{n.attr[0]}"
            case "ite":
                return self.name(n.args[1] if self.value(n.args[0]) else n.args[2])
            case "len":
                q = self.name(n.args[0])
                return "log_length" if q == "log" else f"length of {q}"
            case "set_size":
                return self.name(n.args[0])
            case "at":
                return f"{self.name(n.args[0])}[{self.value(n.args[1])}]"
            case "field":
                return f"{self.name(n.args[0])}.{n.attr}"
            case "map_get":
                return f"{self.name(n.args[0])}[{show(self.value(n.args[1]))}]"
            case "add" | "sub":
                a, b = n.args
                return f"{self.name(a)} {'+' if n.op == 'add' else '-'} {self.name(b)}"
        return n.op

    def terms(self, n: Node) -> list[Node]:
        """The parts of a condition whose values tell why it holds or not."""
        found: dict[Node, None] = {}

        def collect(n: Node) -> None:
            if n.op == "const":
                return
            if n.op == "ite" and n.type.kind != "bool":
                collect(n.args[1] if self.value(n.args[0]) else n.args[2])
            elif n.type.kind == "bool" and n.op not in LEAVES and n.op not in ("field", "map_get"):
                for a in n.args if n.op not in ("forall", "exists") else n.args[:1]:
                    collect(a)
            elif n.op in ("count", "add", "sub"):
                for a in n.args:
                    collect(a)
            elif n.op != "param" or n.type.kind != "server":
                found[n] = None

        collect(n)
        return list(found)

    def values(self, n: Node) -> str:
        """The values that a condition is about: `log[4].term = 2, current_term = 3`."""
        texts = []
        for t in self.terms(n):
            shown = self.value(t.args[0]) if t.op == "set_size" else self.value(t)
            if not (t.type.kind == "seq" and len(shown) > 4):
                texts.append(f"{self.name(t)} = {show(shown)}")
        return ", ".join(dict.fromkeys(texts))


# --- explaining ----------------------------------------------------------------------


def explain(v: Violation, paths: Sequence[Path]) -> Explanation:
    """Find out why an event is wrong, by replaying up to it once more."""
    provenance = Provenance()
    replay = Replay(()) if v.place is None else _replay_before(v, paths, provenance)
    before = _snapshot(replay.world, v.event.server)
    if v.kind == "guard":  # the state in which the guard fails may be in the middle of the event
        try:
            replay._take(v.event, last=True)
        except Violation as again:
            v = _same_place(again, v)
        before = replay.world
    return _Explainer(v, replay, before, provenance, paths).explanation()


def _replay_before(v: Violation, paths: Sequence[Path], provenance: Provenance) -> Replay:
    if v.number == 0:
        return Replay(tuple(v.servers))
    return replay_files(paths, observer=provenance, stop_at=v.number)


def _same_place(new: Violation, old: Violation) -> Violation:
    new.place, new.number, new.servers = old.place, old.number, old.servers
    return new


def _snapshot(world: World, i: str) -> World:
    return World({**world.variables, i: world.variables[i].copy()}, world.past, world.messages)


class _Explainer:
    def __init__(self, v: Violation, replay: Replay, world: World, provenance: Provenance, paths: Sequence[Path]) -> None:
        self.v = v
        self.replay = replay
        self.world = world
        self.provenance = provenance
        self.paths = paths
        self.i = v.event.server
        action = raft.actions[v.action]
        self.action = action
        self.message = v.params[0] if action.message and v.params else None
        self.params = {} if action.message else dict(zip(action.params, v.params, strict=False))
        self.reader = Reader(world, self.i, self.params, self.message)
        self.transition = replay.generated.transitions[v.action]

    def explanation(self) -> Explanation:
        v = self.v
        assert v.place is not None
        conditions, rule = getattr(self, f"_{v.kind}")()
        info = raft.rules.get(rule) if rule else None
        return Explanation(
            file=v.place.file,
            line=v.place.line,
            server=self.i,
            event=v.event.event,
            step=self._step(),
            claim=self._claim(),
            rule=rule,
            section=info.section if info else None,
            why=info.why if info else None,
            conditions=tuple(conditions),
            differences=tuple(Difference(m.name, show(m.expected), show(m.seen)) for m in v.mismatches),
            allowed=tuple(self._allowed()),
            causes=tuple(self._causes(rule)),
            help=self._help(),
        )

    def _step(self) -> str:
        if self.message is not None:
            m = self.message
            return f"{self.v.action}({snake_case(type(m).__name__)} from {m.source}, term {m.term})"
        shown = ", ".join(f"{name}={show(x)}" for name, x in self.params.items() if name != "i")
        return f"{self.v.action}({shown})" if shown else self.v.action

    def _claim(self) -> str:
        match self.v.kind:
            case "guard":
                return f"{self.i} may not {self._step()} here"
            case "unsent":
                source = self.message.source
                return f"{self.i} received a {snake_case(type(self.message).__name__)} that {source} never sent"
            case "restart":
                return self.v.what or f"{self.i} restarts with other contents on its disk than it was left with"
            case "message":
                return f"{self.i} handles a message that is not addressed to it"
            case "sends":
                return f"{self.i} sends what the specification does not send here"
            case _:
                return f"{self.i} comes out of {self._step()} with other values than the specification gives"

    # Each kind of violation: the conditions to print, and the rule that is broken.

    def _guard(self) -> tuple[list[Condition], str | None]:
        conditions, broken = [], None
        for number, guard in enumerate(self.transition.guards, 1):
            if guard.condition.op == "const":
                continue
            holds = self.reader.value(guard.condition)
            rules = [n.attr for n in postorder(guard.condition) if n.op == "rule"]
            if number == self.v.guard and rules:
                broken = rules[0]
            conditions.append(Condition(guard.text, holds, self.reader.values(guard.condition), number == self.v.guard))
        return conditions, broken

    def _state(self) -> tuple[list[Condition], str | None]:
        if self.message is None and len(self.params) < len(self.action.params):
            return [], None  # an event of several steps, none of them wrong by itself
        broken = self._culprit()
        conditions = []
        for rule, holds in self._asked({}):
            n = next((n for n in postorder(*self.transition.roots()) if n.op == "rule" and n.attr == rule), None)
            if n is None and rule != broken:
                continue
            values = self.reader.values(n) if n is not None else "always followed"
            conditions.append(Condition(rule, holds, values, rule == broken))
        return conditions, broken

    _sends = _state

    def _unsent(self) -> tuple[list[Condition], str | None]:
        return [], None

    def _message(self) -> tuple[list[Condition], str | None]:
        return [], None

    def _restart(self) -> tuple[list[Condition], str | None]:
        rules = {"current_term": "restart.keep_term", "voted_for": "restart.keep_vote"}
        changed = {m.name for m in self.v.mismatches}
        rule = next((rules[name] for name in rules if name in changed), "restart.keep_log" if changed else None)
        return [], rule

    # Which rule, had it been broken, would give what was seen?

    def _concrete(self, rules: Mapping[str, bool]) -> State[Any, Any]:
        variables = _Lazily(self.world)
        past = to_spec(self.world.past, Type("record", cls=raft.history))
        without = {name: self.replay.generated.tracer.rules[name] for name in NOT_ASKED}
        return State(variables, past, rules={**without, **rules})

    def _run(self, rules: Mapping[str, bool]) -> tuple[State[Any, Any], State[Any, Any] | None]:
        s = self._concrete(rules)
        t = Type("record", cls=self.action.message) if self.action.message else None
        params = [to_spec(self.message, t)] if t else list(self.params.values())
        failed, after = run(self.action, s, *params)
        return s, None if failed else after

    def _asked(self, rules: Mapping[str, bool]) -> list[tuple[str, bool]]:
        s, _ = self._run(rules)
        return list(dict((a.rule, a.holds) for a in s.asked if a.rule not in NOT_ASKED).items())

    def _mismatches(self, rules: Mapping[str, bool]) -> int:
        """How many values of the event a run with these answers doesn't explain."""
        _, after = self._run(rules)
        if after is None:
            return 1000
        e, me = self.v.event, after[self.i]
        plain = SimpleNamespace(**{f: getattr(me, f) for f in type(me).types()})
        plain.log, plain.match_index = list(me.log), dict(me.match_index.items)
        wrong = len(list(differences(e.state, plain)))
        if e.sends is not UNSET:
            made = {(type(m).__name__, *m.values()) for m in after.messages}
            replies = [m for m in e.sends if type(m).__name__.endswith("Reply")]
            wrong += sum((type(m).__name__, *structs.astuple(m)) not in made for m in replies)
        return wrong

    def _culprit(self) -> str | None:
        if self.v.action != self.v.event.event:
            return None
        wrong = self._mismatches({})
        best: tuple[int, str] | None = None
        for rule, holds in self._asked({}):
            left = self._mismatches({rule: not holds})
            if left < wrong and (best is None or left <= best[0]):  # the last is the most specific
                best = (left, rule)
        return best[1] if best else None

    # What was allowed, what it conflicts with, how to see it.

    def _allowed(self) -> Iterator[str]:
        v = self.v
        if v.kind == "guard":
            me = self.world.variables[self.i]
            if "n" in self.params:
                top = len(me.log)
                fine = [n for n in range(max(1, top - 500), top + 1) if self._passes({**self.params, "n": n})]
                numbers = f"n from {fine[0]} to {fine[-1]}" if fine else "no n"
                yield f"{v.action} is allowed with {numbers}"
            may = [name for name in ("timeout", "become_leader", "restart") if name != v.action and self._passes({"i": self.i}, name)]
            if me.role == "leader" and v.action != "client_request":
                may += ["client_request", "append_entries"]
            yield f"{self.i} may here: {', '.join(may)}, or handle a message sent to it"
        elif v.kind == "unsent" and (near := self.provenance.nearest(self.message)):
            m, _ = near
            fields = [f for f in m.__struct_fields__ if getattr(m, f) != getattr(self.message, f)]
            for f in fields:
                yield f"the message most like it was sent with {f} = {show(getattr(m, f))}, not {show(getattr(self.message, f))}"

    def _passes(self, params: Mapping[str, Any], action: str | None = None) -> bool:
        transition = self.replay.generated.transitions[action or self.v.action]
        reader = Reader(self.world, self.i, params, None)
        return all(reader.value(g.condition) for g in transition.guards)

    def _causes(self, rule: str | None) -> Iterator[Cause]:
        """The two or three earlier events that the wrong one conflicts with."""
        found: dict[str, Cause] = {}

        def add(cause: Cause | None) -> None:
            if cause is not None:
                found.setdefault(cause.place, cause)

        known = self.provenance.servers.get(self.i, _Known())
        if self.v.kind == "unsent" and (near := self.provenance.nearest(self.message)):
            m, cause = near
            add(Cause(cause.place, f"{m.source} sent {show(m)}"))
        for name in (m.name for m in self.v.mismatches):
            add(known.since.get(name.removeprefix("state.")))
        for n in postorder(*self.transition.roots()):
            if n.op == "rule" and n.attr == rule:
                for t in self.reader.terms(n):
                    self._trace_back(t, known, add)
        if self.v.kind == "restart" or any(m.name in ("log_length", "last_log_term") for m in self.v.mismatches):
            add(known.log[-1] if known.log else None)
        if self.message is not None and self.v.kind in ("state", "sends"):
            sent = self.provenance.sent.get(hash(self.message))
            add(sent and Cause(sent.place, f"{self.message.source} sent the message"))
        yield from list(found.values())[:3]

    def _trace_back(self, t: Node, known: _Known, add: Any) -> None:
        name = self.reader.name(t)
        for n in postorder(t):
            if n.op == "get":
                add(known.since.get(n.attr[0]))
            elif n.op == "at" and n.args[0].op == "get":
                index = self.reader.value(n.args[1])
                if 0 < index <= len(known.log):
                    cause = known.log[index - 1]
                    add(Cause(cause.place, f"entry {index} was stored: {cause.what}"))
        add(known.since.get(name))

    def _help(self) -> str:
        v = self.v
        assert v.place is not None
        files = " ".join(str(p) for p in self.paths)
        return f"raftworthy show {files} --until {v.place}"


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
        doc = raft.actions[x.event].doc.splitlines()[0] if x.event in raft.actions else ""
        lines.append(f"  event {x.event}: {doc}")
    width = max((len(c.name) for c in x.conditions), default=0)
    for c in x.conditions:
        mark = "FAILED" if c.broken else "ok    " if c.holds else "no    "
        lines.append(f"  {mark}  {c.name:{width}}  {c.values}")
    for d in x.differences:
        lines.append(f"  {d.name}: expected {d.expected}, seen {d.seen}")
    lines += [f"because: {c.place}  {c.what}" for c in x.causes]
    lines += [f"note: {a}" for a in x.allowed]
    lines.append(f"help: {x.help}")
    return "\n".join(lines)


__all__ = ["Explanation", "Mismatch", "explain", "render"]

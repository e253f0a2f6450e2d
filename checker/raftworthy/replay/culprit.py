"""Which rule of Raft a wrong event breaks: the one that, taken away, makes the event right.

The event is run again as plain Python, once for each rule that was asked on the way, with that rule
taken away or answering otherwise. What then comes out as the event says, or nearest to it, tells the rule.

    e  the event     i  the server that took the step     s  a state
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from msgspec import UNSET

from raftspec.graph import postorder
from raftspec.properties import raft
from raftspec.raft import Entry, ServerVariables
from raftspec.snapshots import InstallSnapshot
from raftspec.spec import State, run
from raftspec.tracing import Transition
from raftspec.types import Record, Type
from raftspec.values import Map, Seq, ServerSet
from raftworthy.generated import World, to_spec
from raftworthy.replay.ledger import NOT_ASKED, Mismatch, Violation, differences, sent_by
from raftworthy.replay.order import Replay

STEPS = ("guard", "state", "sends")  # the kinds of violations by a step that the specification has, too
PERSISTENT = ("current_term", "voted_for", "log_length", "last_log_term", "entries")
# What events say of a log.
OF_LOG = ("log_length", "last_log_term", "entries")


class Step(NamedTuple):
    """One step of the specification within an event."""

    action: str
    params: tuple[Any, ...]
    before: State[Any, Any]
    asked: tuple[tuple[str, bool], ...]
    failed: str | None


class Rerun(NamedTuple):
    """An event as the specification would have it, and how much of the event that leaves unexplained."""

    steps: list[Step]
    after: State[Any, Any]
    wrong: int


class Culprit(NamedTuple):
    """The rule that was broken, if one was, and the step that came by it."""

    rule: str | None
    step: Step


class Inquiry:
    """Runs a wrong event again, with rules answering as they are told."""

    def __init__(self, v: Violation, replay: Replay, world: World, begin: str) -> None:
        self.v = v
        self.e = v.event
        self.i: str = v.event.server
        self.generated = replay.generated
        self.spec = replay.spec
        self.entered = replay.entered
        self.begin = begin
        self.could_commit = replay.state[self.i].could_commit
        self.variables = _Lazily(world, self.spec.server)
        self.past = to_spec(world.past, Type("record", cls=self.spec.history))
        self.without: Mapping[str, bool] = replay.generated.tracer.rules
        self.base = self.rerun({}) if v.kind in STEPS else self._not_run()

    def culprit(self) -> Culprit:
        """The rule that explains most if it is taken away, and the step that comes by it."""
        v, steps = self.v, self.base.steps
        last = next((step for step in steps if step.failed), steps[0])
        if v.kind == "restart":
            return Culprit(self._lost_from_disk(), steps[0])
        if v.kind not in STEPS:
            return Culprit(None, steps[0])
        if v.kind == "guard":
            return self._best() or Culprit(next(iter(self._rules_of_guard(last)), None), last)
        return (
            self._alone()
            or self._two()
            or self._partly()
            or self._refused()
            or self._decided()
            or Culprit(None, self._step_of_violation())
        )

    def _tried(self) -> Iterator[tuple[str, bool, Step]]:
        """Rules that the event came by, the last first, whose being taken away makes a difference."""
        for step in self.base.steps:
            for rule, holds in reversed(step.asked):
                if rule not in NOT_ASKED:
                    yield rule, holds, step

    def _best(self) -> Culprit | None:
        """The rule without which least is left unexplained."""
        best, least = None, self.base.wrong
        for rule, holds, step in self._tried():
            if holds != self.without[rule]:
                wrong = self.rerun({rule: self.without[rule]}).wrong
                if wrong < least:
                    best, least = Culprit(rule, step), wrong
        return best

    def _alone(self) -> Culprit | None:
        """The rule without which the event is right."""
        best = self._best()
        whole = best and best.rule and not self.rerun({best.rule: self.without[best.rule]}).wrong
        return best if whole else None

    def _two(self) -> Culprit | None:
        """A rule without which another refuses, and without both the event is right.

        Of two that both refuse as it is, the second is named: it is the more specific.
        """
        for step in self.base.steps:
            refused = self.refusals(step)
            for n, rule in enumerate(refused):
                for other in refused[:n]:
                    if not self.rerun({rule: True, other: True}).wrong:
                        return Culprit(rule, step)
        for rule, holds, step in self._tried():
            if holds != self.without[rule]:
                away = {rule: self.without[rule]}
                then = [s for s in self.rerun(away).steps if s.action == step.action]
                known = {rule, *self.refusals(step)}
                for other in (r for s in then for r in self.refusals(s) if r not in known):
                    if not self.rerun({**away, other: True}).wrong:
                        return Culprit(rule, step)
        return None

    def _refused(self) -> Culprit | None:
        """The rule that refused what the server did nevertheless."""
        step = self._step_of_violation()
        refused = [rule for rule in self.refusals(step) if rule in checks(self._transition(step))]
        return Culprit(refused[-1], step) if refused and not self.refuses() else None

    def _partly(self) -> Culprit | None:
        """The rule without which some of what was seen comes out, and the least of anything else."""
        seen = {m.name for m in self._unlike(self.base.after)}
        best: tuple[int, int] | None = None
        found: Culprit | None = None
        for rule, holds, step in self._tried():
            if holds != self.without[rule]:
                left = {m.name for m in self._unlike(self.rerun({rule: self.without[rule]}).after)}
                score = len(left & seen), len(left - seen)
                if score[0] < len(seen) and (best is None or score < best):
                    best, found = score, Culprit(rule, step)
        return found

    def _decided(self) -> Culprit | None:
        """The rule that decides what differs and nothing else, or the only one that the step follows."""
        if self._sends_otherwise():
            return None
        mismatches = {_variable(m.name): m for m in (*self.v.mismatches, *self.unlike())}
        for rule, holds, step in self._tried():
            if rule in self._guarding(step):
                continue
            was, after = self.base.after[self.i], self.rerun({rule: not holds}).after[self.i]
            changed = [f for f in type(was).types() if getattr(was, f) != getattr(after, f)]
            if changed and all(
                f in mismatches and _nearer(getattr(after, f), mismatches[f]) for f in changed
            ):
                return Culprit(rule, step)
        step = self._step_of_violation()
        if "match_index" in mismatches and self.e.state is not UNSET and self.e.state.role == "leader":
            return Culprit("leader.reset_match_index", step)  # followed when the last leadership ended
        rules = [r for r, _ in step.asked if r not in NOT_ASKED and r not in self._guarding(step)]
        return (
            Culprit(rules[0], step)
            if len(rules) == 1 and not self.spec.actions[step.action].message
            else None
        )

    def _step_of_violation(self) -> Step:
        steps = self.base.steps
        return next((step for step in steps if step.action == self.v.action), steps[0])

    def _sends_otherwise(self) -> bool:
        """Whether the server sends what no answer of a rule makes of this step."""
        return any(m.name == "sends" and m.expected is None for m in self.v.mismatches)

    def refuses(self) -> bool:
        """Whether the server refuses what the specification accepts, or sends something else altogether."""
        for m in self.v.mismatches:
            if m.name == "sends":
                return m.expected is None or not (
                    getattr(m.seen, "granted", 0) or getattr(m.seen, "success", 0)
                )
        return False

    def refusals(self, step: Step) -> list[str]:
        """The rules that did not let something happen in a step."""
        return [
            rule for rule, holds in step.asked if not holds and self.without[rule] and rule not in NOT_ASKED
        ]

    def _transition(self, step: Step) -> Transition:
        return self.generated.transitions[step.action]

    def _guarding(self, step: Step) -> set[str]:
        """The rules by which a step can be taken at all."""
        return {rule for g in self._transition(step).guards for rule in _rules_in(g.condition)}

    def _rules_of_guard(self, step: Step) -> list[str]:
        """The rules that a step's failing guard asks."""
        guards = self._transition(step).guards
        return [rule for g in guards if g.text == step.failed for rule in _rules_in(g.condition)]

    def _lost_from_disk(self) -> str | None:
        """The rule that keeps what isn't on the disk."""
        lost = {_variable(m.name) for m in self.unlike_disk()}
        return next((rule for variable, rule in _keepers().items() if variable in lost), None)

    def unlike_disk(self) -> list[Mismatch]:
        """What a restart says of the disk and the last step doesn't."""
        found = self.v.mismatches or differences(
            self.e.state, _plain(self.variables[self.i], self.spec.extensions)
        )
        return [m for m in found if m.name in PERSISTENT]

    # --- the event, run again -----------------------------------------------------------

    def rerun(self, rules: Mapping[str, bool]) -> Rerun:
        """The event as steps of the specification, with some rules answering as they are told."""
        e, i, state = self.e, self.i, self.e.state
        without = {name: self.without[name] for name in NOT_ASKED & self.without.keys()}
        s: State[Any, Any] = State(
            self.variables, self.past, rules={**without, **rules}, extensions=self.spec.extensions
        )
        steps: list[Step] = []
        wrong = 0

        def take(name: str, *params: Any) -> None:
            nonlocal s, wrong
            s.asked.clear()
            failed, after = run(self.spec.actions[name], s, *params)
            steps.append(Step(name, params, s, tuple(dict(s.asked).items()), failed))
            wrong += 10 * bool(failed)
            s = after

        def said(name: str) -> Any:
            value = UNSET if state is UNSET else getattr(state, name)
            return None if value is UNSET else value

        before = s[i].commit_index
        first = self.spec.actions[self.begin]
        if first.message:
            take(self.begin, self.of_spec(e.message))
        elif [t.kind for t in first.params.values()] == ["server"]:
            take(self.begin, i)
        n = said("commit_index")
        could = max(s[i].commit_index, self.could_commit)
        later = (
            n is not None and before <= n <= could and self.begin not in ("restart", "advance_commit_index")
        )
        if later:  # than it could, which is safe
            own = {**s.variables, i: s[i].but(commit_index=n)}
            s = State(own, s.past, s.messages, s.rules, s.extensions)
        if said("role") == "leader" and s[i].role == "candidate":
            wrong += bool(said("votes")) and set(said("votes")) != set(s[i].votes)
            take("become_leader", i)
        entries = e.entries if e.entries is not UNSET and self.begin != "restart" else ()
        if entered := self.entered.get(self.begin):
            take(self.begin, i, *(_param(e, name, t) for name, t in entered.items()))
        else:
            for entry in entries:
                take("client_request", i, entry.value)
        tail = list(s[i].log)[len(s[i].log) - len(entries) :]
        wrong += [x.term for x in tail] != [x.term for x in entries]
        if n is not None and (
            self.begin == "advance_commit_index" or (n > s[i].commit_index and s[i].role == "leader")
        ):
            take("advance_commit_index", i, n)
        n = said("last_applied")
        if n is not None and (self.begin == "apply_entries" or n > s[i].last_applied):
            for k in range(s[i].last_applied + 1, n + 1) if "sessions" in self.spec.extensions else (n,):
                take("apply_entries", i, k)
                wrong += self._answers_otherwise(s, k)
        for m in e.sends or ():
            sent = self.of_spec(m)
            if sent in s.messages:
                continue
            unasked = sent_by(m)
            if unasked is None or m.source != i or m.target not in s.servers:
                wrong += 1
                continue
            earlier = s
            take(unasked[0], *unasked[1])
            if steps[-1].failed is None and sent in s.messages - earlier.messages:
                steps.pop()
            else:
                wrong += 1
        return Rerun(steps or [Step(self.begin, (), s, (), None)], s, wrong + len(list(self._unlike(s))))

    def _answers_otherwise(self, s: State[Any, Any], n: int) -> bool:
        """Whether the event says of entry n, just applied, that a client gets another answer."""
        answers = getattr(self.e, "answers", UNSET)
        if answers is UNSET or n > s[self.i].log.length or not s.past.client[s[self.i].log.at(n).value]:
            return False
        return bool(answers.get(n, s[self.i].answer) != s[self.i].answer)

    def _not_run(self) -> Rerun:
        """An event that the specification has no steps for."""
        s: State[Any, Any] = State(self.variables, self.past, extensions=self.spec.extensions)
        params = () if self.e.message is UNSET else (self.of_spec(self.e.message),)
        return Rerun([Step(self.begin, params, s, (), None)], s, 0)

    def unlike(self) -> Iterable[Mismatch]:
        """Where the event's state and what the specification gives differ."""
        return self._unlike(self.base.after)

    def _unlike(self, s: State[Any, Any]) -> Iterator[Mismatch]:
        me = s[self.i]
        yield from differences(self.e.state, _plain(me, self.spec.extensions))
        if self.e.state is not UNSET and self.e.state.match_index is not UNSET and me.role != "leader":
            yield Mismatch("match_index", {}, self.e.state.match_index)

    def of_spec(self, m: Any) -> Any:
        """A message of a trace as the specification's."""
        cls = next(cls for cls in self.spec.messages if cls.__name__ == type(m).__name__)
        if hasattr(m, "last_included_index"):
            n = m.last_included_index
            return InstallSnapshot(
                m.source, m.target, m.term, self.past.committed.but(self.past.committed[:n])
            )
        return to_spec(m, Type("record", cls=cls))


def checks(t: Transition) -> set[str]:
    """The rules by which a handler refuses a request, or doesn't count an answer: all have to hold."""
    joined = {a for n in postorder(*t.roots()) if n.op == "and" for a in n.args}
    return {n.attr for n in joined if n.op == "rule"}


def _nearer(value: Any, m: Mismatch) -> bool:
    """Whether a number is nearer to what was seen; of other values one that differs is."""
    if isinstance(m.seen, int) and isinstance(value, int):
        return bool((value - m.expected) * (m.seen - m.expected) > 0)
    return True


def _rules_in(condition: Any) -> list[str]:
    return [n.attr for n in postorder(condition) if n.op == "rule"]


def _variable(name: str) -> str:
    """The variable that a mismatch's name is about."""
    name = name.partition("[")[0]
    return "log" if name in OF_LOG else name


@cache
def _keepers() -> Mapping[str, str]:
    """For each variable that survives a restart, the rule by which it does: without it, it is lost."""
    me = ServerVariables(current_term=1, voted_for="i", log=Seq([Entry(1, "")]))

    def kept(rules: Mapping[str, bool]) -> State[Any, Any]:
        s: State[Any, Any] = State({"i": me}, raft.history(), rules=rules)
        return run(raft.actions["restart"], s, "i")[1]

    whole, followed = kept({})["i"], [rule for rule in raft.rules if rule.startswith("restart.")]
    found: dict[str, str] = {}
    for rule in followed:
        less = kept({rule: False})["i"]
        found |= {f: rule for f in type(me).types() if getattr(less, f) != getattr(whole, f)}
    return found


def _plain(me: Any, extensions: frozenset[str]) -> SimpleNamespace:
    """A server's variables of the specification as those of a replay."""
    names = tuple(type(me).types())
    plain = SimpleNamespace(**{f: getattr(me, f) for f in names}, __slots__=names, extensions=extensions)
    for f in names:
        value = getattr(me, f)
        if isinstance(value, Map | Seq):
            setattr(plain, f, dict(value.items) if isinstance(value, Map) else list(value))
    return plain


class _Lazily(Mapping[str, Any]):
    """The servers' variables as the specification's records, made when asked for."""

    def __init__(self, world: World, record: type[Record]) -> None:
        self.world = world
        self.record = record
        self.made: dict[str, Any] = {}

    def __getitem__(self, i: str) -> Any:
        if i not in self.made:
            self.made[i] = to_spec(self.world.variables[i], Type("record", cls=self.record))
        return self.made[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self.world.variables)

    def __len__(self) -> int:
        return len(self.world.variables)


def _param(e: Any, name: str, t: Type) -> Any:
    """A parameter of an action that appends an entry, as the specification has it."""
    if t.name == "value":
        return e.entries[0].value if e.entries else ""
    value = getattr(e, name)
    return ServerSet(() if value is UNSET else value) if t.kind == "set" else value

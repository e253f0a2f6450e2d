"""Whether the steps of every behaviour can be sorted by a clock; then a search takes them in that order only.

A clock is a number of each server that never falls, that each message carries as it is after its sender's
step, and that is no less in the receiver after the message was handled. So along a server and along a message
clocks only grow, and the steps of a behaviour, sorted by their server's clock afterwards, are a behaviour:
steps of different servers don't read each other's variables. Where a step stands among others matters to
history only.

Sorting exchanges two neighbours at a time: b and then a, where a's clock is lower, becomes a and then b. Z3
is asked whether the end is the same; or whether a property fails on the way, in which case the shorter
behaviour is sorted instead.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from raftspec.graph import Node
from raftspec.types import Type
from raftworthy.prove.logic import Number, Truth
from raftworthy.prove.terms import Variables
from raftworthy.reduce.lemmas import Claim, kept, recorded
from raftworthy.reduce.looking import reads_others
from raftworthy.reduce.meanings import looks_into_values
from raftworthy.reduce.questions import Questions, Taking


def clocks(q: Questions) -> list[tuple[str, str]]:
    """What could be a clock: a server's number, and the field of the same type that every message has."""
    fields = [cls.types() for cls in q.kinds]
    return [
        (f, name)
        for f, t in q.model.spec.server.types().items()
        for name, of in (fields[0].items() if fields else ())
        if t.kind == "num" and of == t and all(x.get(name) == t for x in fields)
    ]


class Clock:
    """A server's variable `f` and the field `name` of messages, and what is proved of them."""

    def __init__(self, q: Questions, f: str, name: str) -> None:
        self.q, self.f, self.name = q, f, name
        self.type: Type = q.model.spec.server.types()[f]

    def of(self, s: Variables, i: Number) -> Number:
        """Server i's clock."""
        return self.q.own(s, i, self.f)

    def after(self, a: Taking) -> Number:
        """The clock of a step: its server's, when it has been taken."""
        return self.of(a.taken.after, a.i)

    def carried(self, a: Taking) -> Number:
        """The clock that the handled message carries."""
        return a.p[self.q.transitions[a.action].action.message, self.name]

    def is_late(self, s: Variables, i: Number, top: Number) -> Truth:
        """Whether server i's clock is below the highest."""
        return self.q.logic.less(self.of(s, i), top)

    # --- the conditions ---

    def refused(self) -> str:
        """Why it is no clock; empty if it is one."""
        q, logic = self.q, self.q.logic
        for name, a in q.steps.items():
            now = self.after(a)
            cases = {f"{name} can let {self.f} fall": logic.less(now, self.of(q.s, a.i))}
            for x in a.taken.sends:
                sent = dict(zip(x.kind.types(), x.fields, strict=True))[self.name]
                other = logic.both(x.condition, logic.no(logic.same(sent, now)))
                what = f"{name} can send another {self.name} than its server's"
                cases[what] = logic.either(cases.get(what, False), other)
            if q.transitions[name].action.message:
                moves = logic.no(logic.both(q.changes_nothing(a, q.s), q.sends_nothing(a)))
                behind = logic.both(moves, logic.less(now, self.carried(a)))
                cases[f"{name} can act on a message of a {self.name} that the server doesn't take over"] = (
                    behind
                )
            if why := q.refuted([a.possible], cases):
                return why
        return ""

    def handlers_overshoot(self) -> str:
        """A handler after which the clock may be above both what it was and what the message carries."""
        q, logic = self.q, self.q.logic
        for name, a in q.steps.items():
            now = self.after(a)
            higher = logic.both(logic.less(self.of(q.s, a.i), now))
            if q.transitions[name].action.message and not q.never(
                a.possible, higher, logic.less(self.carried(a), now)
            ):
                return name
        return ""

    # --- sorting ---

    def unsortable(self) -> str:
        """Why steps can't be sorted by this clock; empty if they can."""
        q = self.q
        if name := reads_others(q.transitions):
            return f"{name} reads more than its own server's variables and its message"
        claims = [q.machine.claims[p] for p in (*q.state_properties, *q.step_properties)]
        if what := looks_into_values(q.transitions, claims):
            return f"{what} looks into a command's value"
        if moving := [p for p, still in self._still.items() if not still]:
            return f"{moving[0]} may fail where nothing changes"
        recorded = {name: frozenset(t.history) for name, t in q.transitions.items()}
        # Those whose outcome depends on where they stand among others.
        placed = [
            name
            for name, t in q.transitions.items()
            if t.history or self._asks_history(*(g.condition for g in t.guards))
        ]
        for a in q.steps:
            if p := self._depends_on_others(a, bool(recorded[a])):
                return f"whether {a} breaks {p} may depend on steps of a higher {self.f}"
        for b in placed:
            for a in placed:
                if not recorded[a] and not recorded[b]:
                    continue
                with q.apart():
                    if reason := self._exchange(b, a):
                        return reason
        return ""

    def _asks_history(self, *roots: Node) -> bool:
        """Whether expressions read what of history changes."""
        return any(op == "past" and h in self.q.changing for op, h in self.q.reads(*roots))

    def _depends_on_others(self, action: str, writes: bool) -> str:
        """A property of steps that tells the same step of a server in two states apart; or none.

        History is the same in both if the step writes to it; if not, it may differ, too.
        """
        q, logic = self.q, self.q.logic
        changed = q.machine.changes(action)[0]
        told = [p for p in q.step_properties if q.claimed(p) & changed]
        if not told:
            return ""
        first = q.steps[action]
        with q.apart():
            mine = {f: q.own(q.s, first.i, f) for f in q.s.servers[0]}
            other = q.with_own(q.state(), first.i, mine)
            same = {h: x for h, x in q.s.past.items() if writes or h not in q.changing}
            other = Variables(other.servers, {**other.past, **same})
            second = q.take(action, other, first.p)
            cases = {
                p: logic.both(
                    logic.no(q.holds(p, q.s, first.taken.after)), q.holds(p, other, second.taken.after)
                )
                for p in told
            }
            return q.refuted([first.possible, second.possible], cases)

    @cached_property
    def _still(self) -> dict[str, bool]:
        """Of each property of steps, whether it holds where nothing changes."""
        q = self.q
        return {p: q.never(q.logic.no(q.holds(p, q.s, q.s))) for p in q.step_properties}

    def _exchange(self, action_b: str, action_a: str) -> str:
        """Why a step b of a server can't be exchanged with a step a of another that has a lower clock."""
        q, logic = self.q, self.q.logic
        b = q.steps[action_b]
        pa = q.parameters(action_a)
        a = q.take(action_a, q.s, pa)  # first, as it will be
        b_then = b.taken.after
        a_last = q.take(action_a, b_then, pa)  # second, as it was
        b_last = q.take(action_b, a.taken.after, b.p)
        was, will = a_last.taken.after, b_last.taken.after
        apart = [
            *(lemma(q.s) for lemma in self._lemmas),
            logic.no(logic.same(a.i, b.i)),
            logic.less(self.after(a_last), self.after(b)),
            b.possible,
            a_last.possible,
        ]
        possible = logic.both(a.possible, b_last.possible)
        cases = {f"{action_a} may be possible only after {action_b} of a higher {self.f}": logic.no(possible)}
        differs = [logic.no(logic.same(was.past[h], will.past[h])) for h in was.past if h in self.told]
        steps = [(q.s, a.taken.after), (a.taken.after, will)]
        fine = logic.both(possible, *self._fine(q.s, a.taken.after, will), *self._fine_steps(*steps))
        what = f"{action_b} and {action_a} of different servers don't come to the same in either order"
        cases[what] = logic.both(fine, logic.either(*differs))
        for p in q.step_properties:
            if any(op == "past" for op, _ in q.claimed(p)):
                missed = logic.both(logic.no(q.holds(p, b_then, was)), q.holds(p, q.s, a.taken.after))
                cases[f"whether {action_a} breaks {p} may depend on {action_b} of a higher {self.f}"] = (
                    logic.both(fine, missed)
                )
        return q.refuted(apart, cases)

    @cached_property
    def told(self) -> frozenset[str]:
        """What of history anything reads: a step, a checked property, or what is recorded for them."""
        q = self.q
        roots: list[Node] = [n for t in q.transitions.values() for n in replace(t, history={}).roots()]
        roots += [q.machine.claims[p] for p in (*q.state_properties, *q.step_properties)]
        told: set[str] = set()
        while new := {h for op, h in q.reads(*roots) if op == "past"} - told:
            told |= new
            roots = [t.history[h] for t in q.transitions.values() for h in new if h in t.history]
        return frozenset(told)

    def _fine(self, *states: Variables) -> list[Truth]:
        """That the properties about what differs hold in these states."""
        q = self.q
        about = [p for p in q.state_properties if any(op == "past" for op, _ in q.claimed(p))]
        return [q.holds(p, s) for s in states for p in about]

    def _fine_steps(self, *steps: tuple[Variables, Variables]) -> list[Truth]:
        """That the properties of steps about what differs hold of these."""
        q = self.q
        about = [p for p in q.step_properties if any(op == "past" for op, _ in q.claimed(p))]
        return [q.holds(p, *states) for states in steps for p in about]

    @cached_property
    def _lemmas(self) -> list[Claim]:
        return kept(self.q, recorded(self.q))

"""What needn't be remembered of a server that lags: one whose clock is below the highest.

Steps are taken in the order of the clock, so its next step takes it to the highest, or beyond. Two things can
then be done with its variables. One that no such step reads is *forgotten*: it becomes 0. And if there is an
action by which a server alone makes its clock one higher, as a timeout does, it *catches up*: it is taken to
have done so until its clock is one below the highest, if that takes nothing away from what it can do next.

Each is asked of every action, of every property of steps that fails there, and of every property of states:
the change neither makes one fail nor, after a step of another server before which it held, hides that it
fails.

    s, t  a state, and the one after a step of server k     i  a server that lags     top  the highest clock
    change  what is done with server i's variables
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftworthy.prove.logic import Number, Table, Truth
from raftworthy.prove.terms import Variables
from raftworthy.reduce.order import Clock
from raftworthy.reduce.questions import Questions


class Change(NamedTuple):
    """Server i's variables as they were and as they are then, if it is allowed below some highest clock."""

    i: Number
    before: Variables
    after: Variables
    allowed: Truth
    changed: frozenset[tuple[str, str]]


class Lag:
    """Questions about servers that lag behind a clock."""

    def __init__(self, q: Questions, clock: Clock) -> None:
        self.q, self.clock = q, clock
        self.top = q.number(clock.type)

    def catch_up(self) -> tuple[str, str]:
        """The action by which servers catch up; or why there is none."""
        why = f"no action makes {self.clock.f} one higher"
        for name, t in self.q.transitions.items():
            alone = [p.kind for p in t.action.params.values()] == ["server"] and not t.history
            if alone and self._counts(name):
                why = self._refused(lambda s, name=name: self._caught_up(name, s), both=False)  # type: ignore[misc]
                if not why:
                    return name, ""
                why = f"after {name}, {why}"
        return "", why

    def forgotten(self) -> Iterator[str]:
        """The variables that may be forgotten."""
        for f in self.q.model.spec.server.types():
            if f != self.clock.f and not self._refused(lambda s, f=f: self._without(f, s), both=True):  # type: ignore[misc]
                yield f

    def _counts(self, action: str) -> bool:
        """Whether an action always makes the clock one higher."""
        q, a = self.q, self.q.steps[action]
        one_more = q.logic.same(self.clock.after(a), q.logic.plus(self.clock.of(q.s, a.i), 1))
        return q.never(a.possible, q.logic.no(one_more))

    # --- changes ---

    def _caught_up(self, action: str, s: Variables) -> Change:
        a = self.q.take(action, s, self.q.parameters(action))
        allowed = self.q.logic.both(a.possible, self.q.logic.less(self.clock.after(a), self.top))
        return Change(a.i, s, a.taken.after, allowed, self.q.machine.changes(action)[0])

    def _without(self, f: str, s: Variables) -> Change:
        q = self.q
        i = q.server()
        after = q.with_own(s, i, {f: q.nothing(s.servers[0][f])})
        late = q.logic.less(self.clock.of(s, i), self.top)
        return Change(i, s, after, late, frozenset({("get", f)}))

    # --- the conditions ---

    def _refused(self, change: Callable[[Variables], Change], both: bool) -> str:
        """Why a change isn't permitted; empty if it is. With `both`, it may add nothing either."""
        q = self.q
        with q.apart():
            c = change(q.s)
            for name in q.transitions:
                with q.apart():
                    if why := self._step_differs(c, name, both):
                        return why
            for p in q.state_properties:
                if q.claimed(p) & c.changed and not self._tells_no_state(change, p):
                    return f"{p} depends on it"
        return ""

    def _step_differs(self, c: Change, action: str, both: bool) -> str:
        """Why a step to the highest clock, or beyond, comes out otherwise after the change."""
        q, logic = self.q, self.q.logic
        p = q.parameters(action)
        was, now = q.take(action, c.before, p), q.take(action, c.after, p)
        here = [c.allowed, logic.same(was.i, c.i)]
        ends = [logic.no(logic.less(self.clock.after(x), self.top)) for x in (was, now)]
        same = logic.both(now.possible, q.same_effect(was, now))
        cases = {f"{action} comes out otherwise": logic.both(was.possible, ends[0], logic.no(same))}
        if both:
            cases[f"{action} is possible only then"] = logic.both(
                now.possible, ends[1], logic.no(was.possible)
            )
        for name in q.step_properties:
            if q.claimed(name) & c.changed:
                holds = q.holds(name, c.before, was.taken.after), q.holds(name, c.after, now.taken.after)
                hidden = logic.both(logic.no(holds[0]), holds[1])
                made = logic.both(both, holds[0], logic.no(holds[1]))
                taken = logic.both(was.possible, ends[0], now.possible)
                cases[f"{name} depends on it"] = logic.both(taken, logic.either(hidden, made))
        return q.refuted(here, cases)

    def _tells_no_state(self, change: Callable[[Variables], Change], p: str) -> bool:
        """Whether a property of states is as true of the changed state t as of t itself.

        Where it isn't true of t, it was of s, from which a step of another server k led to t: any step that
        leaves history as it is, or one of an action that doesn't.
        """
        q, logic = self.q, self.q.logic
        recorded = {h for op, h in q.claimed(p) if op == "past"}
        with q.apart():
            t, k = q.s, q.server()
            c = change(t)
            if not q.never(c.allowed, q.holds(p, t), logic.no(q.holds(p, c.after))):
                return False
            other = q.state()
            s = q.with_own(t, k, {f: q.own(other, k, f) for f in t.servers[0]})
            if not self._keeps(p, s, t, c, k):
                return False
        for name, step in q.steps.items():
            if recorded & set(q.transitions[name].history):
                with q.apart():
                    t = step.taken.after
                    if not self._keeps(p, q.s, t, change(t), step.i, step.possible):
                        return False
        return True

    def _keeps(
        self, p: str, s: Variables, t: Variables, c: Change, k: Number, possible: Truth = True
    ) -> bool:
        """Whether a property that held in s and fails in t also fails after a change of t."""
        q, logic = self.q, self.q.logic
        here = [possible, c.allowed, logic.no(logic.same(k, c.i)), logic.same(self.clock.of(t, k), self.top)]
        here += [logic.at_most(v[self.clock.f], self.top) for v in (*t.servers, *s.servers)]
        return q.never(*here, q.holds(p, s), logic.no(q.holds(p, t)), q.holds(p, c.after))


class Records:
    """Questions about what history records by a clock's number, as who led each term."""

    def __init__(self, q: Questions, clock: Clock) -> None:
        self.q, self.clock = q, clock

    def forgotten(self) -> Iterator[str]:
        """The maps of history of which nothing below the highest clock has to be remembered."""
        q = self.q
        for h, t in q.model.spec.history.types().items():
            if t.kind == "map" and t.key == self.clock.type and not self._read_by_states(h):
                with q.apart():
                    if all(self._forgets(h, name) for name in q.transitions):
                        yield h

    def _read_by_states(self, h: str) -> bool:
        return any(("past", h) in self.q.claimed(p) for p in self.q.state_properties)

    def _forgets(self, h: str, action: str) -> bool:
        """Whether a step to the highest clock or beyond comes out the same if a lower number is forgotten."""
        q, logic = self.q, self.q.logic
        s, n, top = q.s, q.number(self.clock.type), q.number(self.clock.type)
        table: Table = s.past[h]
        first = q.machine.shapes.first_key(q.model.spec.history.types()[h])
        gone = [logic.same(n, k) for k in range(first, first + len(table.items))]
        items = tuple(logic.where(c, q.nothing(x), x) for c, x in zip(gone, table.items, strict=True))
        less = Variables(s.servers, {**s.past, h: Table(items, table.fits)})
        p = q.parameters(action)
        was, now = q.take(action, s, p), q.take(action, less, p)
        here = [logic.less(n, top), logic.no(logic.less(self.clock.after(was), top))]
        past = [
            logic.same(x, now.taken.after.past[name]) for name, x in was.taken.after.past.items() if name != h
        ]
        cells = zip(gone, was.taken.after.past[h].items, now.taken.after.past[h].items, strict=True)
        past += [logic.either(c, logic.same(x, y)) for c, x, y in cells]
        same = logic.both(now.possible, q.same_effect(was, now, history=False), *past)
        cases = [logic.both(was.possible, logic.no(same)), logic.both(now.possible, logic.no(was.possible))]
        for name in q.step_properties:
            if ("past", h) in q.claimed(name):
                holds = q.holds(name, s, was.taken.after), q.holds(name, less, now.taken.after)
                cases.append(logic.both(was.possible, now.possible, logic.no(logic.same(*holds))))
        return q.never(*here, logic.either(*cases))

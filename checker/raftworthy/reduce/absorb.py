"""Messages that are handled at once, since to have handled them takes nothing away.

A server that could handle a message is taken to have done so if, for every other step that it could take
instead, that step is possible afterwards, too, with the same messages and history, and ends as if it had come
first, or as if the message had been handled after it. Then whatever happens without, happens with it. Nor may
any property of states hold afterwards that doesn't hold before, and to handle the message may break none of
steps. The state afterwards is checked as any other is.
"""

from __future__ import annotations

from raftspec.types import Message
from raftworthy.reduce.order import Clock
from raftworthy.reduce.questions import Questions


def absorbed(q: Questions, clock: Clock, kind: type[Message]) -> str:
    """Why messages of a kind, of their receiver's own clock, aren't handled at once; empty if they may be."""
    logic = q.logic
    a = q.steps[q.handler[kind]]
    t = a.taken.after
    here = [a.possible, logic.same(clock.carried(a), clock.of(q.s, a.i)), logic.no(q.changes_nothing(a, q.s))]
    if q.never(*here):
        return "they change nothing"
    if not q.never(*here, logic.no(q.sends_nothing(a))) or q.transitions[a.action].history:
        return "to handle them is more than to remember something"
    if not q.never(*here, logic.no(logic.same(clock.after(a), clock.of(q.s, a.i)))):
        return f"to handle them can change {clock.f}"
    for name in q.transitions:
        with q.apart():
            p = q.parameters(name)
            instead, after = q.take(name, q.s, p), q.take(name, t, p)
            last = q.take(a.action, instead.taken.after, a.p)
            own = list(q.s.servers[0])
            same = [
                logic.both(*(logic.same(q.own(after.taken.after, a.i, f), q.own(x, a.i, f)) for f in own))
                for x in (instead.taken.after, last.taken.after)
            ]
            # Handled later: if it can be, and before it is old.
            in_time = logic.same(clock.after(instead), clock.carried(a))
            same[1] = logic.both(same[1], last.possible, in_time)
            good = logic.both(after.possible, q.same_sends(instead, after), q.same_past(instead, after))
            step = [*here, instead.possible, logic.same(instead.i, a.i)]
            cases = {f"{name} comes out otherwise": logic.no(logic.both(good, logic.either(*same)))}
            for prop in q.step_properties:
                if q.claimed(prop) & q.machine.changes(a.action)[0]:
                    fails = logic.no(q.holds(prop, q.s, instead.taken.after))
                    cases[f"{prop} depends on it"] = logic.both(fails, q.holds(prop, t, after.taken.after))
            if why := q.refuted(step, cases):
                return why
    cases = {f"{prop} depends on it": logic.no(q.holds(prop, q.s, t)) for prop in q.step_properties}
    for prop in q.state_properties:
        if q.claimed(prop) & q.machine.changes(a.action)[0]:
            cases[f"{prop} depends on it"] = logic.both(logic.no(q.holds(prop, q.s)), q.holds(prop, t))
    return q.refuted(here, cases)

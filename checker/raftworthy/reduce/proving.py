"""Each reduction, and the conditions under which it is permitted."""

from __future__ import annotations

from dataclasses import replace

from raftworthy.explore.model import Model
from raftworthy.reduce.absorb import absorbed
from raftworthy.reduce.idle import Idle
from raftworthy.reduce.lag import Lag, Records
from raftworthy.reduce.lemmas import role_of
from raftworthy.reduce.looking import lazy
from raftworthy.reduce.order import Clock, clocks
from raftworthy.reduce.permits import FEW_LEFT, REDUCTIONS, UNWANTED, Permits
from raftworthy.reduce.questions import Questions


def derive(model: Model, properties: list[str], unwanted: frozenset[str]) -> Permits:
    """What a search of this model may leave out, and why not the rest."""
    off = {"choices": FEW_LEFT, **dict.fromkeys(unwanted, UNWANTED)}
    q = Questions(model, properties)
    if why := lazy(model, q.transitions, properties):
        off.setdefault("eager", why)
    if "eager" in off:
        return Permits(off={name: off.get(name, "it takes eager sending") for name in REDUCTIONS})
    clock, why = _clock(q)
    if why:
        off.setdefault("order", why)
    if "order" in off:
        off = {name: off.get(name, "steps are not sorted") for name in REDUCTIONS if name != "eager"}
        return Permits(eager=True, off=off, questions=q.asked)
    assert clock is not None
    found = Permits(True, (clock.f, clock.name))
    for name, add in STEPS.items():
        if name not in off:
            found, why = add(q, clock, found)
            if why:
                off[name] = why
    return replace(found, off=off, questions=q.asked)


def _clock(q: Questions) -> tuple[Clock | None, str]:
    """The first clock that steps can be sorted by; or why the last one that was tried isn't."""
    why = "no number of a server is also in every message"
    for f, name in clocks(q):
        clock = Clock(q, f, name)
        why = clock.refused() or clock.unsortable()
        if not why:
            return clock, ""
    return None, why


def _older(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """Messages that are dropped when they are old, and those of which then only the sender matters."""
    if name := clock.handlers_overshoot():
        return found, f"{name} can take a server further than its message says"
    logic = q.logic
    silent: list[str] = []
    faded: list[str] = []
    lively: list[str] = []
    for cls in q.kinds:
        a = q.steps[q.handler[cls]]
        old = logic.less(clock.carried(a), clock.of(q.s, a.i))
        if q.never(a.possible, old, logic.no(logic.both(q.changes_nothing(a, q.s), q.sends_nothing(a)))):
            silent.append(cls.__name__)
            continue
        blank = {
            (cls, f): a.p[cls, f] if f in ("source", "target") else q.nothing(a.p[cls, f])
            for f in cls.types()
        }
        b = q.take(a.action, q.s, blank)
        same = logic.both(logic.same(a.possible, b.possible), q.same_effect(a, b))
        fades = q.never(a.sized, old, logic.no(same))
        (faded if fades else lively).append(cls.__name__)
    found = replace(found, silent=tuple(silent), faded=tuple(faded))
    return found, f"an old {' or '.join(lively)} can still do something" if lively else ""


def _assumed(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """Whether old messages of which only the sender matters are remembered at all."""
    if not found.faded:
        return found, "there are no such messages"
    logic = q.logic
    for cls in (cls for cls in q.kinds if cls.__name__ in found.faded):
        a = q.steps[q.handler[cls]]
        old = logic.less(clock.carried(a), clock.of(q.s, a.i))
        if not q.never(a.possible, old, logic.no(q.changes_nothing(a, q.s))):
            return found, f"an old {cls.__name__} can do more than be answered"
        if name := q.to_itself(cls):
            return found, f"in {name} a server can send a {cls.__name__} to itself"
    return replace(found, assumed=True), ""


def _absorb(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """Messages that are handled at once."""
    refused = {cls.__name__: absorbed(q, clock, cls) for cls in q.kinds}
    found = replace(found, absorbed=tuple(kind for kind, why in refused.items() if not why))
    return found, "" if found.absorbed else "; ".join(f"{kind}: {why}" for kind, why in refused.items())


def _idle(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """Messages that are dropped when they do nothing, of kinds that do nothing when they are old."""
    role = role_of(q)
    if role is None or not found.silent:
        return found, "every kind of message may do something later"
    # What a handler records may come to something else after any other server's step.
    kinds = [
        cls for cls in q.kinds if cls.__name__ in found.silent and not q.transitions[q.handler[cls]].history
    ]
    idle = {cls.__name__: Idle(q, clock, cls, role).roles() for cls in kinds}
    return replace(found, role=role, idle={kind: roles for kind, roles in idle.items() if roles}), ""


def _lag(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """What needn't be remembered of a server that lags."""
    lag = Lag(q, clock)
    action, why = lag.catch_up()
    found = replace(found, catch_up=action, forgotten=tuple(lag.forgotten()))
    return found, f"only {', '.join(found.forgotten) or 'nothing'} is forgotten: {why}" if why else ""


def _records(q: Questions, clock: Clock, found: Permits) -> tuple[Permits, str]:
    """What of history needn't be remembered."""
    untold = tuple(h for h in q.model.spec.history.types() if h not in clock.told)
    records = tuple(h for h in Records(q, clock).forgotten() if h not in untold)
    why = "" if records or untold else "properties may tell all that happened"
    return replace(found, records=records, untold=untold), why


# In the order in which they are asked about: some follow from others.
STEPS = {
    "older": _older, "assumed": _assumed, "absorb": _absorb, "idle": _idle, "lag": _lag, "records": _records,
}  # fmt: skip

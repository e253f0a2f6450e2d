"""Properties that every step keeps, so that no search has to look for them.

That takes more than the property: such as that nobody but a leader knows what others store (`lemmas`).
"""

from __future__ import annotations

from raftworthy.explore.model import Model
from raftworthy.reduce.lemmas import given, only_in_one_role
from raftworthy.reduce.lemmas import kept as what_stays
from raftworthy.reduce.questions import Questions


def broken(model: Model, kept: list[str], others: list[str]) -> str:
    """Which step breaks one of these properties where the others hold; empty if Z3 proves that none does."""
    q = Questions(model, [*kept, *others])
    start = model.generated.initial()
    for p in kept:
        if model.spec.properties[p].states == 1 and not model.claim(p)(start):
            return f"{p} fails at the beginning"

    read = {f for p in kept for op, f in q.claimed(p) if op == "get"}
    here = given(q, q.s, what_stays(q, only_in_one_role(q, read)))
    others_send = {cls for cls in q.kinds if not q.to_itself(cls)}
    for name, a in q.steps.items():
        cls = q.transitions[name].action.message
        sent = cls not in others_send or q.logic.no(q.logic.same(a.p[cls, "source"], a.p[cls, "target"]))
        after = {1: (a.taken.after,), 2: (q.s, a.taken.after)}
        cases = {
            f"{name} can break {p}": q.logic.no(q.holds(p, *after[model.spec.properties[p].states]))
            for p in kept
        }
        if why := q.refuted([a.possible, sent, *here], cases):
            return why
    return ""

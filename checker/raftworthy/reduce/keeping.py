"""Properties that every step keeps, so that no search has to look for them.

That takes more than the property: such as that nobody but a leader knows what others store. Such lemmas are
guessed, and those that a step breaks are given up until the rest is kept together (Houdini).

    s  a state     f  a variable     r  a value of the server's variable that is one of a few
"""

from __future__ import annotations

from collections.abc import Callable

from raftworthy.explore.model import Model
from raftworthy.prove.logic import Truth
from raftworthy.prove.terms import Variables
from raftworthy.reduce.idle import role_of
from raftworthy.reduce.questions import Questions

Claim = Callable[[Variables], Truth]


def broken(model: Model, kept: list[str], others: list[str]) -> str:
    """Which step breaks one of these properties where the others hold; empty if Z3 proves that none does."""
    q = Questions(model, [*kept, *others])
    start = model.generated.initial()
    for p in kept:
        if model.spec.properties[p].states != 1:
            return f"{p} is about what is left open, and about two states"
        if not model.claim(p)(start):
            return f"{p} fails at the beginning"

    def given(s: Variables, lemmas: list[Claim]) -> list[Truth]:
        return [*(q.holds(p, s) for p in q.state_properties), *(lemma(s) for lemma in lemmas)]

    lemmas = [lemma for lemma in _lemmas(q, kept) if lemma(q.machine.known(start)) is True]
    weaker = True
    while weaker:
        here = given(q.s, lemmas)
        stay = [
            lemma
            for lemma in lemmas
            if all(q.never(a.possible, *here, q.logic.no(lemma(a.taken.after))) for a in q.steps.values())
        ]
        weaker, lemmas = len(stay) < len(lemmas), stay
    here = given(q.s, lemmas)
    for name, a in q.steps.items():
        cases = {f"{name} can break {p}": q.logic.no(q.holds(p, a.taken.after)) for p in kept}
        if why := q.refuted([a.possible, *here], cases):
            return why
    return ""


def _lemmas(q: Questions, kept: list[str]) -> list[Claim]:
    """That variables say nothing but in one role."""
    role = role_of(q)
    if role is None:
        return []
    read = {f for p in kept for op, f in q.claimed(p) if op == "get" and f != role}
    values = range(q.machine.shapes.largest(q.model.spec.server.types()[role]) + 1)

    def lemma(f: str, r: int) -> Claim:
        logic = q.logic
        return lambda s: logic.both(
            *(logic.either(logic.same(v[role], r), logic.same(v[f], q.nothing(v[f]))) for v in s.servers)
        )

    return [lemma(f, r) for f in sorted(read) for r in values]

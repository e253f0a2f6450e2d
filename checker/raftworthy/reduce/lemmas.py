"""What every step keeps, beside the properties: guessed, and given up where a step breaks it (Houdini).

s  a state     f  a server's variable     h  a number of history     r  a role
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftworthy.prove.logic import Truth
from raftworthy.prove.terms import Variables
from raftworthy.reduce.questions import Questions

Claim = Callable[[Variables], Truth]


def role_of(q: Questions) -> str | None:
    """The server's variable that is one of a few; the first, if there are several."""
    return next((f for f, t in q.model.spec.server.types().items() if t.kind == "enum"), None)


def given(q: Questions, s: Variables, lemmas: Iterable[Claim]) -> list[Truth]:
    """That the properties of states and the lemmas hold."""
    return [*(q.holds(p, s) for p in q.state_properties), *(lemma(s) for lemma in lemmas)]


def kept(q: Questions, guessed: Iterable[Claim]) -> list[Claim]:
    """Those that hold at the beginning and, together, after every step from where the properties hold."""
    start = q.machine.known(q.model.generated.initial())
    lemmas = [lemma for lemma in guessed if lemma(start) is True]
    weaker = True
    while weaker and lemmas:
        here = given(q, q.s, lemmas)
        stay = [
            lemma
            for lemma in lemmas
            if all(q.never(a.possible, *here, q.logic.no(lemma(a.taken.after))) for a in q.steps.values())
        ]
        weaker, lemmas = len(stay) < len(lemmas), stay
    return lemmas


def only_in_one_role(q: Questions, variables: Iterable[str]) -> list[Claim]:
    """That variables say nothing but in one role."""
    role = role_of(q)
    if role is None:
        return []
    values = range(q.machine.shapes.largest(q.model.spec.server.types()[role]) + 1)

    def lemma(f: str, r: int) -> Claim:
        logic = q.logic
        return lambda s: logic.both(
            *(logic.either(logic.same(v[role], r), logic.same(v[f], q.nothing(v[f]))) for v in s.servers)
        )

    return [lemma(f, r) for f in sorted(variables) if f != role for r in values]


def recorded(q: Questions) -> list[Claim]:
    """That what history counts is no less than what any server counts."""

    def lemma(f: str, h: str) -> Claim:
        return lambda s: q.logic.both(*(q.logic.at_most(v[f], s.past[h]) for v in s.servers))

    history = {h: t for h, t in q.model.spec.history.types().items() if t.kind == "num" and h in q.changing}
    return [
        lemma(f, h) for f, t in q.model.spec.server.types().items() for h, of in history.items() if t == of
    ]

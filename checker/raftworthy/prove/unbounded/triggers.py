"""When Z3 is to use a clause: the terms which, once they are there, make it one about them.

A trigger is a set of applications of the state's functions that together mention every variable. What a
clause itself invents (a witness for what exists) is none, as it is there only after the clause was used.

    x  a variable     t  a term
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import z3

INVENTED = "?"  # in the names of witnesses
MOST = 4  # terms of one trigger
# Every server that is spoken of has one, so as triggers these would lead from each to ever more.
COMMON = frozenset({"current_term"})


def triggers(variables: Sequence[z3.ExprRef], literals: Sequence[z3.BoolRef]) -> list[list[z3.ExprRef]]:
    """The smallest sets of terms that mention all variables, of what the clause asks for if they do."""
    wanted = frozenset(x.get_id() for x in variables)
    asked = [c for c in literals if not _claims(c)]
    for some in (asked, literals):
        found = {t.get_id(): (t, used) for c in some for t, used in _candidates(c, wanted)}
        rare = [x for x in found.values() if x[0].decl().name() not in COMMON]
        sets = list(_covers(rare, wanted, some is literals)) or list(
            _covers(list(found.values()), wanted, True)
        )
        if sets:
            return sets
    return []


def _claims(c: z3.BoolRef) -> bool:
    """Whether a literal is something that follows from the others, as is an equality or a fact."""
    return bool(z3.is_eq(c) or z3.is_and(c) or c.decl().kind() == z3.Z3_OP_UNINTERPRETED)


def _covers(
    usable: Sequence[tuple[z3.ExprRef, frozenset[int]]], wanted: frozenset[int], strongest: bool
) -> Iterator[list[z3.ExprRef]]:
    """Sets that cover what is wanted, none of them with a term that could be left out."""
    yield from ([t] for t, u in usable if u == wanted)
    parts = [(t, u) for t, u in usable if u != wanted]
    useful = [(t, u) for t, u in parts if not (strongest and any(u < w for _, w in parts))]
    for size in range(2, MOST + 1):
        for chosen in itertools.combinations(useful, size):
            if frozenset().union(*(u for _, u in chosen)) != wanted:
                continue
            rest = (chosen[:k] + chosen[k + 1 :] for k in range(size))
            if not any(frozenset().union(*(u for _, u in part)) == wanted for part in rest):
                yield [t for t, _ in chosen]


def _candidates(body: z3.ExprRef, wanted: frozenset[int]) -> Iterator[tuple[z3.ExprRef, frozenset[int]]]:
    """The terms that can be triggers, with the variables that they mention."""
    # For each term: its variables, those inside of what is invented, whether they stand below functions only,
    # and nowhere in it is a choice, which Z3 refuses.
    done: dict[int, tuple[frozenset[int], frozenset[int], bool]] = {}
    nothing = frozenset[int]()

    def visit(t: z3.ExprRef) -> Iterator[tuple[z3.ExprRef, frozenset[int]]]:
        key = t.get_id()
        if key in done:
            return
        if key in wanted:
            done[key] = frozenset({key}), nothing, True
            return
        for a in t.children():
            yield from visit(a)
        parts = [done[a.get_id()] for a in t.children()]
        used = nothing.union(*(u for u, _, _ in parts))
        name = t.decl().name()
        inside = used if INVENTED in name else nothing.union(*(i for _, i, _ in parts))
        own = t.decl().kind() == z3.Z3_OP_UNINTERPRETED
        fixed = not used and t.decl().kind() != z3.Z3_OP_ITE
        pure = (own or fixed) and all(fine for _, _, fine in parts)
        done[key] = used, inside, pure
        if pure and used and inside != used:
            yield t, used

    yield from visit(body)

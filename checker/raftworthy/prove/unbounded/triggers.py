"""When Z3 is to use a clause: the terms which, once they are there, make it one about them.

A trigger is a set of applications of the state's functions that together mention every variable. What a
clause itself invents (a witness for what exists) is none, as it is there only after the clause was used.

    x  a variable     t  a term
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import z3

from raftworthy.prove.unbounded.looking import Look, look

INVENTED = "?"  # in the names of witnesses
MOST = 4  # terms of one trigger
# Every server that is spoken of has one, so as triggers these would lead from each to ever more.
COMMON = frozenset({"current_term"})


def triggers(variables: Sequence[z3.ExprRef], literals: Sequence[z3.BoolRef]) -> list[list[z3.ExprRef]]:
    """The smallest sets of terms that mention all variables, of what the clause asks for if they do."""
    wanted = frozenset(x.get_id() for x in variables)
    parts = list(map(look, literals))
    asked = [c for c in parts if not _claims(c)]
    for some in (asked, parts):
        found = {t: used for c in some for t, used in _candidates(c, wanted)}
        rare = [(t, used) for t, used in found.items() if t.name not in COMMON]
        sets = list(_covers(rare, wanted, some is parts)) or list(_covers(list(found.items()), wanted, True))
        if sets:
            return [[t.term for t in chosen] for chosen in sets]
    return []


def _claims(c: Look) -> bool:
    """Whether a literal is something that follows from the others, as is an equality or a fact."""
    return c.is_function or c.kind in (z3.Z3_OP_EQ, z3.Z3_OP_AND)


def _covers(
    usable: Sequence[tuple[Look, frozenset[int]]], wanted: frozenset[int], strongest: bool
) -> Iterator[list[Look]]:
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


def _candidates(body: Look, wanted: frozenset[int]) -> Iterator[tuple[Look, frozenset[int]]]:
    """The terms that can be triggers, with the variables that they mention."""
    # For each term: its variables, those inside of what is invented, whether they stand below functions only,
    # and nowhere in it is a choice, which Z3 refuses.
    done: dict[Look, tuple[frozenset[int], frozenset[int], bool]] = {}
    nothing = frozenset[int]()

    def visit(t: Look) -> Iterator[tuple[Look, frozenset[int]]]:
        if t in done:
            return
        if t.number in wanted:
            done[t] = t.constants, nothing, True
            return
        for a in t.parts:
            yield from visit(a)
        used = t.constants & wanted
        parts = [done[a] for a in t.parts]
        inside = used if INVENTED in t.name else nothing.union(*(i for _, i, _ in parts))
        fixed = not used and t.kind != z3.Z3_OP_ITE
        pure = (t.is_function or fixed) and all(fine for _, _, fine in parts)
        done[t] = used, inside, pure
        if pure and used and inside != used:
            yield t, used

    yield from visit(body)

"""What Z3's terms are made of. Each is asked of Z3 once, as its Python interface is slow to say it.

t  a term
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import z3


class Look:
    """A term and its parts. Equal terms have the same one."""

    def __init__(self, t: z3.ExprRef, number: int) -> None:
        declared = t.decl()
        self.term = t  # kept, so that no other term gets its number
        self.number = number
        self.kind: int = declared.kind()
        self.name: str = declared.name()
        self.parts = tuple(map(look, t.children()))
        self.is_function = self.kind == z3.Z3_OP_UNINTERPRETED

    @cached_property
    def constants(self) -> frozenset[int]:
        """The numbers of the constants in it, bound variables among them."""
        if self.is_function and not self.parts:
            return frozenset({self.number})
        return frozenset[int]().union(*(p.constants for p in self.parts))

    @cached_property
    def within(self) -> tuple[Look, ...]:
        """The term and all terms in it, each once."""
        seen: dict[int, Look] = {}
        stack = [self]
        while stack:
            t = stack.pop()
            if t.number not in seen:
                seen[t.number] = t
                stack += t.parts
        return tuple(seen.values())

    def literals(self, positive: bool = True) -> Iterator[z3.BoolRef]:
        """The parts of a disjunction."""
        if self.kind == z3.Z3_OP_NOT:
            yield from self.parts[0].literals(not positive)
        elif self.kind == (z3.Z3_OP_OR if positive else z3.Z3_OP_AND):
            for p in self.parts:
                yield from p.literals(positive)
        else:
            yield self.term if positive else z3.Not(self.term)


_KNOWN: dict[int, Look] = {}


def look(t: z3.ExprRef) -> Look:
    """What a term without quantifiers is made of."""
    number = t.get_id()
    found = _KNOWN.get(number)
    if found is None:
        found = _KNOWN[number] = Look(t, number)
    return found

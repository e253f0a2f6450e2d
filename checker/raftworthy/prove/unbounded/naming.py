"""Names for what stands inside of a term, where Z3 wants no quantifiers, and what they mean.

c  a condition     k  a number     x  a bound variable
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import z3

from raftworthy.prove.unbounded.formulas import (
    Clause,
    Clauses,
    Formula,
    both,
    either,
    every,
    is_plain,
    no,
)
from raftworthy.prove.unbounded.values import NUMBER_SORT


@dataclass(frozen=True)
class Latest:
    """What `latest` was asked: the variables that it depends on, how far, and the claim of a number x."""

    free: tuple[Any, ...]
    top: Any
    x: Any
    claim: Formula


class Named:
    """Names for conditions that stand inside a term, as Z3 wants them without quantifiers there."""

    def __init__(self, clauses: Clauses) -> None:
        self.clauses = clauses
        self.definitions: list[Clause] = []
        self.latest: dict[str, Latest] = {}
        self._known: dict[int, tuple[Formula, Any]] = {}

    def plain(self, c: Formula) -> Any:
        """A condition without quantifiers that is equal to c."""
        if isinstance(c, bool):
            return z3.BoolVal(c)
        if is_plain(c):
            return c
        if id(c) in self._known:
            return self._known[id(c)][1]
        free = self.clauses.mentioned(c)
        name = self.clauses.name("if")
        args = [x.sort() for x in free]
        named = z3.Function(name, *args, z3.BoolSort())(*free) if free else z3.Bool(name)
        made = self.clauses.of(either(no(named), c), tuple(free)) + self.clauses.of(
            either(named, no(c)), tuple(free)
        )
        self.definitions += [Clause((*free, *x.variables), x.body) for x in made]
        self._known[id(c)] = c, named
        return named

    def last(self, top: Any, claim: Callable[[Any], Formula]) -> Any:
        """The last number from 1 to `top` of which a claim is true, 0 if there is none."""
        x = self.clauses.variable("k", NUMBER_SORT)
        of = claim(x)
        free = [y for y in self.clauses.mentioned(either(top < 0, of)) if not y.eq(x)]
        name = self.clauses.name("latest")
        k = z3.Function(name, *(y.sort() for y in free), NUMBER_SORT)(*free)
        none_later = every(NUMBER_SORT, lambda n: either(n <= k, n > top, no(claim(n))), "n")
        meaning = both(k >= 0, either(k == 0, both(k <= top, claim(k))), none_later)
        self.definitions += [
            Clause((*free, *c.variables), c.body, c.triggers) for c in self.clauses.of(meaning, tuple(free))
        ]
        self.latest[name] = Latest(tuple(free), top, x, of)
        return k

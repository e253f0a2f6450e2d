"""Conditions with quantifiers, and the clauses that they are for Z3.

A condition is known (`bool`), a Z3 formula without quantifiers, a quantifier, or a junction with quantifiers
inside. Negation goes inside at once. `Clauses` makes of a condition what Z3 is good at: universal clauses,
with functions for what exists, and terms that trigger them.

    c  a condition     x  a bound variable     a, b  terms
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import z3

from raftworthy.prove.unbounded.looking import Look, look
from raftworthy.prove.unbounded.triggers import triggers

z3.z3.Z3_DEBUG = False  # Z3 checks what it is given; its Python interface would do so before, slowly

Plain: TypeAlias = "bool | z3.BoolRef"
Formula: TypeAlias = "Plain | Quantified | Junction"


@dataclass(frozen=True, eq=False)
class Quantified:
    """For all (`every`) or some x of a sort, `body(x)`."""

    every: bool
    sort: z3.SortRef
    body: Callable[[Any], Formula]
    name: str = "x"
    key: tuple[Any, ...] = ()  # a name and arguments: quantifiers with the same ones say the same
    named: bool = False  # whether that name stands for its negation's opposite, too


@dataclass(frozen=True, eq=False)
class Junction:
    """All (`every`) or some of the parts hold; at least one of them has a quantifier."""

    every: bool
    parts: tuple[Formula, ...]


def is_plain(c: Formula) -> bool:
    return not isinstance(c, Quantified | Junction)


def every(sort: z3.SortRef, body: Callable[[Any], Formula], name: str = "x") -> Formula:
    return Quantified(True, sort, body, name)


def some(sort: z3.SortRef, body: Callable[[Any], Formula], name: str = "x") -> Formula:
    return Quantified(False, sort, body, name)


def no(c: Formula) -> Formula:
    """Not c."""
    if isinstance(c, bool):
        return not c
    if isinstance(c, Quantified):
        body = c.body
        return Quantified(not c.every, c.sort, lambda x: no(body(x)), c.name, c.key, c.named)
    if isinstance(c, Junction):
        return Junction(not c.every, tuple(map(no, c.parts)))
    return z3.Not(c)


def both(*conditions: Formula) -> Formula:
    """All of them hold."""
    return _joined(True, conditions)


def either(*conditions: Formula) -> Formula:
    """At least one of them holds."""
    return _joined(False, conditions)


def implies(a: Formula, b: Formula) -> Formula:
    return either(no(a), b)


def _joined(unit: bool, conditions: Iterable[Formula]) -> Formula:
    plain: list[z3.BoolRef] = []
    parts: list[Formula] = []
    for c in conditions:
        if isinstance(c, bool):
            if c is not unit:
                return not unit
        elif isinstance(c, Junction) and c.every is unit:
            parts += c.parts
        elif isinstance(c, Quantified | Junction):
            parts.append(c)
        else:
            plain.append(c)
    if plain:
        parts.append(plain[0] if len(plain) == 1 else z3.And(*plain) if unit else z3.Or(*plain))
    if len(parts) < 2:
        return parts[0] if parts else unit
    return Junction(unit, tuple(parts))


@dataclass(frozen=True, eq=False)
class Clause:
    """`body` holds for all values of the variables."""

    variables: tuple[z3.ExprRef, ...]
    body: z3.BoolRef
    triggers: tuple[z3.ExprRef, ...] = ()  # each one a trigger; if there are none, they are found

    def term(self, name: str = "") -> z3.BoolRef:
        """What Z3 is told."""
        if not self.variables:
            return self.body
        sets = [z3.MultiPattern(*t) if len(t) > 1 else t[0] for t in self._triggers()]
        return z3.ForAll(list(self.variables), self.body, patterns=sets, qid=name)

    def _triggers(self) -> list[Any]:
        return [[t] for t in self.triggers] or triggers(self.variables, list(look(self.body).literals()))


class Clauses:
    """Makes clauses; what it invents has names that depend on nothing but the order of questions."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._numbers = itertools.count()
        self._bound: dict[int, z3.ExprRef] = {}  # by number; kept, so that no other term gets one of these
        self.defined: dict[str, list[Clause]] = {}

    def name(self, of: str) -> str:
        """A new name for something invented."""
        return f"{self.prefix}{of}?{next(self._numbers)}"

    def variable(self, name: str, sort: z3.SortRef) -> Any:
        """A new bound variable."""
        x = z3.Const(f"{self.prefix}{name}!{next(self._numbers)}", sort)
        self._bound[x.get_id()] = x
        return x

    def of(self, c: Formula, scope: tuple[z3.ExprRef, ...] = ()) -> list[Clause]:
        """The clauses that together say c."""
        made = [simplified(v, b) for v, b in self._of(c, scope) if not z3.is_true(b)]
        return [x for clause in made for x in (clause, *shifted(clause))]

    def _of(
        self, c: Formula, scope: tuple[z3.ExprRef, ...]
    ) -> list[tuple[tuple[z3.ExprRef, ...], z3.BoolRef]]:
        if isinstance(c, bool):
            return [] if c else [((), z3.BoolVal(False))]
        if isinstance(c, Quantified):
            if c.named and (c.key[0] in self.defined or among(c.key[1:], scope)):
                named = self._defined(no(c) if c.every else c)  # type: ignore[arg-type]
                return [((), z3.Not(named) if c.every else named)]
            if c.every:
                x = self.variable(c.name, c.sort)
                return [((x, *v), b) for v, b in self._of(c.body(x), (*scope, x))]
            if c.key and not c.named and among(c.key[1:], scope):
                return [((), self._defined(c))]
            return self._of(c.body(self._witness(c, scope)), scope)
        if isinstance(c, Junction):
            parts = [self._of(p, scope) for p in c.parts]
            if c.every:
                return [x for part in parts for x in part]
            out = []
            for chosen in itertools.product(*parts):
                variables = tuple(x for v, _ in chosen for x in v)
                out.append((variables, _or([b for _, b in chosen])))
            return out
        return [((), c)]

    def _defined(self, c: Quantified) -> z3.BoolRef:
        """A predicate that is there for a condition, so that what follows from it is said once."""
        name, *args = c.key
        sorts = [x.sort() for x in args]
        named = z3.Function(f"{self.prefix}{name}?", *sorts, z3.BoolSort())(*args)
        if name not in self.defined:
            witness = z3.Function(f"{self.prefix}{name}?{c.name}", *sorts, c.sort)(*args)
            self.defined[name] = []
            for v, b in self._of(c.body(witness), tuple(args)):
                self.defined[name].append(Clause((*args, *v), _or([z3.Not(named), b]), () if v else (named,)))
            if c.named:
                self.defined[name] += self._converse(c, named)
        return named

    def _converse(self, c: Quantified, named: z3.BoolRef) -> Iterator[Clause]:
        """That a condition has its name: asked only of what was named, and of what could be there."""
        args = c.key[1:]
        x = self.variable(c.name, c.sort)
        for v, b in self._of(no(c.body(x)), (*args, x)):
            sets = triggers((x, *v), list(look(b).literals()))
            yield Clause((*args, x, *v), _or([named, b]), tuple(z3.MultiPattern(named, *t) for t in sets))

    def _witness(self, c: Quantified, scope: tuple[z3.ExprRef, ...]) -> Any:
        """Something for which `c.body` holds, depending on what of the scope it mentions."""
        if not scope:
            return z3.Const(self.name(c.name), c.sort)
        probe = self.variable(c.name, c.sort)
        used = self._mentioned(c.body(probe))
        args = [x for x in scope if x.get_id() in used]
        name = self.name(c.name)
        if not args:
            return z3.Const(name, c.sort)
        return z3.Function(name, *(x.sort() for x in args), c.sort)(*args)

    def _mentioned(self, c: Formula) -> frozenset[int]:
        """The numbers of the constants in a condition."""
        if isinstance(c, bool):
            return frozenset()
        if isinstance(c, Quantified):
            probe = self.variable(c.name, c.sort)
            return self._mentioned(c.body(probe)) - {probe.get_id()}
        if isinstance(c, Junction):
            return frozenset[int]().union(*map(self._mentioned, c.parts))
        return look(c).constants

    def mentioned(self, c: Formula) -> list[z3.ExprRef]:
        """The bound variables that a condition mentions, each once."""
        return [self._bound[n] for n in sorted(self._mentioned(c) & self._bound.keys())]


def among(some: Iterable[z3.ExprRef], all_: Sequence[z3.ExprRef]) -> bool:
    """Whether some terms are among others."""
    return all(any(x.eq(y) for y in all_) for x in some)


def simplified(bound: tuple[z3.ExprRef, ...], body: z3.BoolRef) -> Clause:
    """A clause without the variables that it says to equal something."""
    if not bound:
        return Clause(bound, body)
    numbers = {x.get_id(): x for x in bound}
    parts = list(look(body).literals())
    for literal in map(look, parts):
        if literal.kind != z3.Z3_OP_NOT or literal.parts[0].kind != z3.Z3_OP_EQ:
            continue
        a, b = literal.parts[0].parts
        for x, t in ((a, b), (b, a)):
            if x.number in numbers and x.number not in t.constants:
                rest = [c for c in parts if c.get_id() != literal.number]
                smaller = z3.substitute(_or(rest) if rest else z3.BoolVal(False), (x.term, t.term))
                return simplified(tuple(y for n, y in numbers.items() if n != x.number), smaller)
    return Clause(bound, body)


def shifted(clause: Clause) -> Iterator[Clause]:
    """The clause once more for each `f(k + a)` in it, said of n = k + a, so that f(n) can trigger it."""
    if len(clause.variables) != 1:
        return
    (x,) = clause.variables
    body = look(clause.body)
    for place in dict.fromkeys(_sums(body, x.get_id())):
        old = place.term
        moved = z3.substitute(clause.body, (old, x), (x, z3.simplify(2 * x - old)))
        around = (t.term for t in body.within if t.is_function and place in t.parts)
        applied = tuple(z3.substitute(t, (old, x)) for t in around)
        yield Clause(clause.variables, moved, applied)


def _sums(c: Look, x: int) -> Iterator[Look]:
    """The sums of x and something else that functions are applied to."""
    for t in c.within:
        for a in t.parts if t.is_function else ():
            with_x = [b for b in a.parts if x in b.constants] if a.kind == z3.Z3_OP_ADD else []
            if len(with_x) == 1 and with_x[0].number == x:
                yield a


def _or(parts: Sequence[z3.BoolRef]) -> z3.BoolRef:
    return parts[0] if len(parts) == 1 else z3.Or(*parts)

"""Numbers and conditions that may be known: what is known is computed, the rest becomes a Z3 term.

A number is an `int` or a bit-vector, a condition a `bool` or a Z3 formula. Terms are made by Z3's C
functions, since its Python operators take ten times as long. A bit-vector is as wide as the caller says,
with a sign; `raftworthy.prove.shapes` sees to it that nothing overflows.

    c  a condition     a, b  numbers, or values of the same shape
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import z3

Truth: TypeAlias = "bool | z3.BoolRef"
Number: TypeAlias = "int | z3.BitVecRef"
Value: TypeAlias = (
    Any  # Truth, Number, Entries, Table, or a tuple of values: a set's members, a record's fields
)

CONTEXT = z3.main_ctx()
_C = CONTEXT.ref()


class Entries(NamedTuple):
    """A sequence: its length, and its entries with zeros behind them, up to what it can hold."""

    length: Number
    items: tuple[Value, ...]


class Table(NamedTuple):
    """A map: the value of each key, and whether all that was put in had a place."""

    items: tuple[Value, ...]
    fits: Truth = True


class Logic:
    """Operations on numbers of one width and on conditions."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._sort = z3.BitVecSort(width)
        self._numerals: dict[int, z3.BitVecRef] = {}
        self._truths = {c: z3.BoolVal(c) for c in (True, False)}

    # --- terms for what is known ---

    def number(self, a: Number) -> z3.BitVecRef:
        """A term for a number."""
        if not isinstance(a, int):
            return a
        found = self._numerals.get(a)
        if found is None:
            assert -(1 << self.width - 1) <= a < 1 << self.width - 1, f"{a} has no place in {self.width} bits"
            found = self._numerals[a] = z3.BitVecVal(a, self.width)
        return found

    def truth(self, c: Truth) -> z3.BoolRef:
        """A term for a condition."""
        return self._truths[c] if isinstance(c, bool) else c

    # --- conditions ---

    def no(self, c: Truth) -> Truth:
        """Not c."""
        return not c if isinstance(c, bool) else z3.BoolRef(z3.Z3_mk_not(_C, c.as_ast()), CONTEXT)

    def both(self, *conditions: Truth) -> Truth:
        """All of them hold."""
        return _joined(z3.Z3_mk_and, conditions, unit=True)

    def either(self, *conditions: Truth) -> Truth:
        """At least one of them holds."""
        return _joined(z3.Z3_mk_or, conditions, unit=False)

    def same(self, a: Value, b: Value) -> Truth:
        """Two values of the same shape are equal."""
        if isinstance(a, tuple):
            return self.both(*map(self.same, a, b))
        if isinstance(a, bool | z3.BoolRef):
            if isinstance(a, bool) or isinstance(b, bool):
                known, other = (a, b) if isinstance(a, bool) else (b, a)
                return other if known else self.no(other)
            return a is b or z3.BoolRef(z3.Z3_mk_eq(_C, a.as_ast(), b.as_ast()), CONTEXT)
        return self._compared(z3.Z3_mk_eq, a, b, lambda x, y: x == y)

    # --- numbers ---

    def less(self, a: Number, b: Number) -> Truth:
        """a < b."""
        return self._compared(z3.Z3_mk_bvslt, a, b, lambda x, y: x < y)

    def at_most(self, a: Number, b: Number) -> Truth:
        """a <= b."""
        return self._compared(z3.Z3_mk_bvsle, a, b, lambda x, y: x <= y)

    def plus(self, a: Number, b: Number) -> Number:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return self._term(z3.Z3_mk_bvadd, a, b)

    def minus(self, a: Number, b: Number) -> Number:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return self._term(z3.Z3_mk_bvsub, a, b)

    def count(self, conditions: Sequence[Truth]) -> Number:
        """How many of them hold."""
        total: Number = 0
        for c in conditions:
            total = self.plus(total, self.where(c, 1, 0))
        return total

    def least(self, a: Number, b: Number) -> Number:
        """The smaller of two numbers."""
        return self.where(self.less(a, b), a, b)

    def natural(self, a: Number) -> Number:
        """A number, 0 if it is negative."""
        return self.where(self.less(a, 0), 0, a)

    # --- any values ---

    def where(self, c: Truth, a: Value, b: Value) -> Value:
        """`a` if c, else `b`; of two sequences, the shorter one is filled up with zeros."""
        if isinstance(c, bool):
            return a if c else b
        if a is b:
            return a
        if isinstance(a, Entries):
            room = max(len(a.items), len(b.items))
            pairs = zip(self.filled(a, b, room), self.filled(b, a, room), strict=True)
            return Entries(self.where(c, a.length, b.length), tuple(self.where(c, x, y) for x, y in pairs))
        if isinstance(a, Table):
            pairs = zip(a.items, b.items, strict=True)
            return Table(tuple(self.where(c, x, y) for x, y in pairs), self.where(c, a.fits, b.fits))
        if isinstance(a, tuple):
            return tuple(self.where(c, x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, bool | z3.BoolRef):
            return self._where_condition(c, a, b)
        if isinstance(a, int) and isinstance(b, int) and a == b:
            return a
        x, y = self.number(a), self.number(b)
        return z3.BitVecRef(z3.Z3_mk_ite(_C, c.as_ast(), x.as_ast(), y.as_ast()), CONTEXT)

    def _where_condition(self, c: Truth, a: Truth, b: Truth) -> Truth:
        if isinstance(a, bool):
            return self.either(c, b) if a else self.both(self.no(c), b)
        if isinstance(b, bool):
            return self.either(self.no(c), a) if b else self.both(c, a)
        assert not isinstance(c, bool)
        return z3.BoolRef(z3.Z3_mk_ite(_C, c.as_ast(), a.as_ast(), b.as_ast()), CONTEXT)

    def filled(self, q: Entries, like: Entries, room: int) -> tuple[Value, ...]:
        """A sequence's places, with zeros at its end."""
        nothing = nothing_like((q.items or like.items)[0]) if room else ()
        return (*q.items, *[nothing] * (room - len(q.items)))

    def pick(self, items: Sequence[Value], k: Number, otherwise: Value, first: int = 0) -> Value:
        """The item with number k, counted from `first`; `otherwise` if there is none."""
        if isinstance(k, int):
            return items[k - first] if 0 <= k - first < len(items) else otherwise
        out = otherwise
        for number, item in reversed(list(enumerate(items, first))):
            out = self.where(self.same(k, number), item, out)
        return out

    def _compared(
        self, make: Callable[..., Any], a: Number, b: Number, known: Callable[[int, int], bool]
    ) -> Truth:
        if isinstance(a, int) and isinstance(b, int):
            return known(a, b)
        if a is b:
            return known(0, 0)
        return z3.BoolRef(make(_C, self.number(a).as_ast(), self.number(b).as_ast()), CONTEXT)

    def _term(self, make: Callable[..., Any], a: Number, b: Number) -> z3.BitVecRef:
        return z3.BitVecRef(make(_C, self.number(a).as_ast(), self.number(b).as_ast()), CONTEXT)


def nothing_like(value: Value) -> Value:
    """The zero of a value's shape: of every kind it is 0, false, or made of these."""
    if isinstance(value, Table):
        return Table(nothing_like(value.items))
    if isinstance(value, tuple):
        parts = map(nothing_like, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return False if isinstance(value, bool | z3.BoolRef) else 0


def _joined(make: Callable[..., Any], conditions: Sequence[Truth], unit: bool) -> Truth:
    rest = []
    for c in conditions:
        if isinstance(c, bool):
            if c is not unit:
                return not unit
        else:
            rest.append(c)
    if len(rest) < 2:
        return rest[0] if rest else unit
    asts = (z3.Ast * len(rest))(*(c.as_ast() for c in rest))
    return z3.BoolRef(make(_C, len(rest), asts), CONTEXT)

"""Words under construction: LLVM values with Python's operators, and loops and branches as `with` blocks.

Operations are total, as those of the specification are: a shift by 64 or more gives 0. Numbers are
signed. A condition is one bit, everything else is 64.

    b  a builder     c  a condition
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I1, I8, I32, I64, I128 = (ir.IntType(width) for width in (1, 8, 32, 64, 128))
POINTER = ir.PointerType()
MASK = (1 << 64) - 1


def _known(v: Any) -> int | None:
    """The number that a value is, if it is a constant."""
    if not isinstance(v, ir.Constant) or not isinstance(v.constant, int):
        return None
    known: int = v.constant & (1 << v.type.width) - 1
    return known


class Word:
    """A number or a condition that the code being built computes."""

    __slots__ = ("b", "v")

    def __init__(self, b: ir.IRBuilder, v: Any) -> None:
        self.b = b
        self.v = v

    def _of(self, other: Word | int) -> Any:
        return (
            other.v
            if isinstance(other, Word)
            else ir.Constant(self.v.type, other & (1 << self.v.type.width) - 1)
        )

    def _with(
        self, other: Word | int, build: Any, meaning: Callable[[int, int], int], neutral: int, either: bool
    ) -> Word:
        """What `build` makes of both, unless that is known: much is about places and bits that are 0.

        `neutral`, on the right or on either side, changes nothing.
        """
        ones = (1 << self.v.type.width) - 1
        a, b = _known(self.v), other & ones if isinstance(other, int) else _known(other.v)
        if a is not None and b is not None:
            return Word(self.b, ir.Constant(self.v.type, meaning(a, b) & ones))
        if b == neutral & ones:
            return self
        if either and a == neutral & ones and isinstance(other, Word):
            return other
        return Word(self.b, build(self.v, self._of(other)))

    def __add__(self, other: Word | int) -> Word:
        return self._with(other, self.b.add, operator.add, 0, either=True)

    def __sub__(self, other: Word | int) -> Word:
        return self._with(other, self.b.sub, operator.sub, 0, either=False)

    def __mul__(self, other: Word | int) -> Word:
        return self._with(other, self.b.mul, operator.mul, 1, either=True)

    def __and__(self, other: Word | int) -> Word:
        return self._with(other, self.b.and_, operator.and_, -1, either=True)

    def __or__(self, other: Word | int) -> Word:
        return self._with(other, self.b.or_, operator.or_, 0, either=True)

    def __xor__(self, other: Word | int) -> Word:
        return self._with(other, self.b.xor, operator.xor, 0, either=True)

    def __invert__(self) -> Word:
        return Word(self.b, self.b.not_(self.v))

    def _shifted(self, shift: Any, meaning: Callable[[int, int], int], amount: Word | int) -> Word:
        if isinstance(amount, int):
            return self._with(amount, shift, meaning, 0, either=False) if amount < 64 else self & 0
        small = Word(self.b, self.b.icmp_unsigned("<", amount.v, amount._of(64)))
        return small.where(Word(self.b, shift(self.v, amount.v)), 0)

    def __lshift__(self, amount: Word | int) -> Word:
        return self._shifted(self.b.shl, operator.lshift, amount)

    def __rshift__(self, amount: Word | int) -> Word:
        return self._shifted(self.b.lshr, operator.rshift, amount)

    def equals(self, other: Word | int) -> Word:
        return Word(self.b, self.b.icmp_unsigned("==", self.v, self._of(other)))

    def differs(self, other: Word | int) -> Word:
        return Word(self.b, self.b.icmp_unsigned("!=", self.v, self._of(other)))

    def less(self, other: Word | int) -> Word:
        return Word(self.b, self.b.icmp_signed("<", self.v, self._of(other)))

    def at_most(self, other: Word | int) -> Word:
        return Word(self.b, self.b.icmp_signed("<=", self.v, self._of(other)))

    def below(self, other: Word | int) -> Word:
        """From 0 to `other`, that one excluded: less as numbers without a sign."""
        return Word(self.b, self.b.icmp_unsigned("<", self.v, self._of(other)))

    def where(self, yes: Word | int, no: Word | int) -> Word:
        """`yes` if this condition holds, else `no`."""
        known = yes if isinstance(yes, Word) else no
        like = known.v.type if isinstance(known, Word) else I64
        sides = [x.v if isinstance(x, Word) else ir.Constant(like, x & MASK) for x in (yes, no)]
        return Word(self.b, self.b.select(self.v, *sides))

    def smaller(self, other: Word) -> Word:
        return self.less(other).where(self, other)

    def natural(self) -> Word:
        """The number, or 0 if it is negative."""
        return self.less(0).where(0, self)

    def number(self) -> Word:
        """A condition as 0 or 1."""
        return self if self.v.type.width == 64 else Word(self.b, self.b.zext(self.v, I64))

    def truth(self) -> Word:
        """0 or 1 as a condition."""
        return Word(self.b, self.b.trunc(self.v, I1))

    def cut(self, shift: int, width: int) -> Word:
        """`width` bits from bit `shift`."""
        return (self >> shift) & ((1 << width) - 1)

    def lowest(self, bits: Word) -> Word:
        """As many bits as `bits` says, from the lowest."""
        return self & ((Word(self.b, ir.Constant(I64, 1)) << bits) - 1)

    def times(self, other: Word) -> tuple[Word, Word]:
        """The high and the low word of a product without signs."""
        b = self.b
        product = b.mul(b.zext(self.v, I128), b.zext(other.v, I128))
        return Word(b, b.trunc(b.lshr(product, ir.Constant(I128, 64)), I64)), Word(b, b.trunc(product, I64))

    def mixed(self) -> Word:
        """A number that depends on every bit: the end of splitmix64."""
        x = (self ^ (self >> 30)) * 0xBF58476D1CE4E5B9
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB
        return x ^ (x >> 31)


def mix(x: int) -> int:
    """As `Word.mixed`, of a number that is known."""
    x &= MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


class Code:
    """Builds one function: memory, loops and branches."""

    def __init__(
        self, module: ir.Module, name: str, arguments: int, pointers: int, inside: bool = True
    ) -> None:
        """`arguments` words, the first `pointers` of which point to memory of their own."""
        types = [POINTER] * pointers + [I64] * (arguments - pointers)
        self.function = ir.Function(module, ir.FunctionType(I64, types), name)
        for a in self.function.args[:pointers]:
            a.add_attribute("noalias")
        if inside:
            self.function.linkage = "internal"
            self.function.attributes.add("noinline")
        self.b = ir.IRBuilder(self.function.append_basic_block())
        self.args = [Word(self.b, a) for a in self.function.args]

    def const(self, value: int) -> Word:
        return Word(self.b, ir.Constant(I64, value & MASK))

    def truth(self, value: bool) -> Word:
        return Word(self.b, ir.Constant(I1, int(value)))

    def block(self) -> Any:
        return self.function.append_basic_block()

    # --- memory, in words unless a type says otherwise ---

    def address(self, pointer: Word, index: Word | int, t: Any = I64) -> Word:
        if isinstance(index, int):
            index = self.const(index)
        if _known(index.v) == 0:
            return pointer
        return Word(self.b, self.b.gep(pointer.v, [index.v], source_etype=t))

    def load(self, pointer: Word, index: Word | int, t: Any = I64) -> Word:
        v = self.b.load(self.address(pointer, index, t).v, typ=t)
        return Word(self.b, v if t.width == 64 else self.b.zext(v, I64))

    def store(self, pointer: Word, index: Word | int, value: Word | int, t: Any = I64) -> None:
        w = value if isinstance(value, Word) else self.const(value)
        self.b.store(w.v if t.width == 64 else self.b.trunc(w.v, t), self.address(pointer, index, t).v)

    def read(self, pointer: Word, at: Word | int) -> Word:
        """The word that begins at a byte, wherever that is."""
        return Word(self.b, self.b.load(self.address(pointer, at, I8).v, align=1, typ=I64))

    def write(self, pointer: Word, at: Word | int, value: Word) -> None:
        """Store a word from a byte on, wherever that is."""
        self.b.store(value.v, self.address(pointer, at, I8).v, align=1)

    def take_if_free(self, pointer: Word, index: Word, value: Word) -> tuple[Word, Word]:
        """Store a value if 0 is there, in one step for all threads; whether it was, and what was there."""
        place = self.address(pointer, index)
        pair = self.b.cmpxchg(place.v, ir.Constant(I64, 0), value.v, "monotonic", "monotonic")
        was, done = (Word(self.b, self.b.extract_value(pair, k)) for k in (0, 1))
        return done, was

    def pointer(self, w: Word) -> Word:
        return Word(self.b, self.b.inttoptr(w.v, POINTER))

    def prefetch(self, place: Word) -> None:
        """Ask for a place in memory that is looked at soon, and that other threads may look at, too."""
        t = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
        f = self.function.module.declare_intrinsic("llvm.prefetch", [POINTER], t)
        write, keep, data = (ir.Constant(I32, x) for x in (0, 3, 1))
        self.b.call(f, [place.v, write, keep, data])

    def local(self, start: Word | int) -> Word:
        """Memory for one word, until the function ends."""
        with self.b.goto_entry_block():
            place = Word(self.b, self.b.alloca(I64))
        self.store(place, 0, start)
        return place

    def add_to(self, pointer: Word, index: Word | int, by: Word | int) -> None:
        self.store(pointer, index, self.load(pointer, index) + by)

    # --- control ---

    @contextmanager
    def when(self, c: Word) -> Iterator[None]:
        """Only if the condition holds."""
        with self.b.if_then(c.v):
            yield

    @contextmanager
    def loop(self, start: Word | int, stop: Word | int) -> Iterator[tuple[Word, Any]]:
        """For each number from `start` to `stop`, that one excluded; and the block that goes on."""
        first = start if isinstance(start, Word) else self.const(start)
        head, body, go_on, after = (self.block() for _ in range(4))
        before = self.b.block
        self.b.branch(head)
        self.b.position_at_end(head)
        k = self.b.phi(I64)
        k.add_incoming(first.v, before)
        number = Word(self.b, k)
        self.b.cbranch(number.less(stop).v, body, after)
        self.b.position_at_end(body)
        yield number, go_on
        self.b.branch(go_on)
        self.b.position_at_end(go_on)
        k.add_incoming((number + 1).v, go_on)
        self.b.branch(head)
        self.b.position_at_end(after)

    def unless(self, c: Word, other: Any) -> None:
        """Go on only if the condition does not hold; else to the block `other`."""
        on = self.block()
        self.b.cbranch(c.v, other, on)
        self.b.position_at_end(on)

    def leave_if(self, c: Word, value: Word | int) -> None:
        """Return a value if the condition holds."""
        with self.b.if_then(c.v, likely=False):
            self.leave(value)

    def leave(self, value: Word | int) -> None:
        self.b.ret((value if isinstance(value, Word) else self.const(value)).v)

    def call(self, other: Code, *args: Word | int) -> Word:
        given = [(a if isinstance(a, Word) else self.const(a)).v for a in args]
        return Word(self.b, self.b.call(other.function, given))

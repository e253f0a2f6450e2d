"""Tables of fingerprints: in the order of fingerprints, so that growing moves few far.

The range of all fingerprints is cut into equal parts, a table for each, and each shard owns as many of them
as any other, one after the other. The threads of a process share their tables: a free place is taken by
whoever comes first, in one step, and nothing is locked. In exact mode, which has one thread, a fingerprint
stands before the address of its state, and may stand there for several states.

    g  a table's number, of all shards' tables
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from raftworthy.native.context import SLICES, At, Table
from raftworthy.native.words import I1, I64, Code, Word


class Tables:
    """Builds what looks fingerprints up, or whole states."""

    def __init__(self, exact: bool) -> None:
        self.width = 2 if exact else 1  # words of a place

    def locate(self, code: Code, context: Word, key: Word) -> tuple[Word, Word]:
        """The table that a fingerprint belongs to, and where in it to look first."""
        g, rest = key.times(code.load(context, At.SHARDS) * SLICES)
        return g, rest.times(code.load(self.described(code, context, g), Table.SIZE))[0]

    @staticmethod
    def described(code: Code, context: Word, g: Word) -> Word:
        """Where a table is described."""
        return code.address(code.pointer(code.load(context, At.TABLES)), g * int(Table.WORDS))

    @staticmethod
    def owner(g: Word) -> Word:
        """Whose table it is."""
        return g >> (SLICES - 1).bit_length()

    def ask_for(self, code: Code, context: Word, g: Word, place: Word) -> None:
        """Have a place fetched into the cache: a table is too large for it."""
        places = code.pointer(code.load(self.described(code, context, g), Table.ADDRESS))
        code.prefetch(code.address(places, place * self.width))

    def find(
        self, code: Code, table: Word, key: Word, first: Word, same: Callable[[Word], Word] | None = None
    ) -> tuple[Word, Word]:
        """Whether a fingerprint is in a table, and where it is or belongs.

        In exact mode, whether it is there for the state that is the `same` as the one at an address.
        """
        places, size = code.pointer(code.load(table, Table.ADDRESS)), code.load(table, Table.SIZE)
        head, occupied, step, after = (code.block() for _ in range(4))
        before = code.b.block
        code.b.branch(head)
        code.b.position_at_end(head)
        phi = code.b.phi(I64)
        phi.add_incoming(first.v, before)
        place = Word(code.b, phi)
        found = code.load(places, place * self.width)
        code.b.cbranch(found.equals(0).v, after, occupied)
        code.b.position_at_end(occupied)
        known = found.equals(key)
        if self.width == 2:
            compare = code.block()
            code.b.cbranch(known.v, compare, step)
            code.b.position_at_end(compare)
            known = same(code.load(places, place * 2 + 1)) if same else code.truth(False)
        decided = code.b.block
        code.b.cbranch(known.v, after, step)
        code.b.position_at_end(step)
        phi.add_incoming((place + 1).equals(size).where(0, place + 1).v, step)
        code.b.branch(head)
        code.b.position_at_end(after)
        seen = code.b.phi(I1)
        seen.add_incoming(ir.Constant(I1, 0), head)
        seen.add_incoming(ir.Constant(I1, 1), decided)
        return Word(code.b, seen), place

    def put(
        self, code: Code, context: Word, table: Word, place: Word, key: Word, state: Word | None = None
    ) -> Word:
        """Take the first place that is still free, from one that was; whether nobody else has put this in.

        Says so when few places are left.
        """
        places = code.pointer(code.load(table, Table.ADDRESS))
        if state is not None:
            code.store(places, place * 2, key)
            code.store(places, place * 2 + 1, state)
            self._count(code, context, table)
            return code.truth(True)
        size, before = code.load(table, Table.SIZE), code.b.block
        head, taken, step, mine, after = (code.block() for _ in range(5))
        code.b.branch(head)
        code.b.position_at_end(head)
        phi = code.b.phi(I64)
        phi.add_incoming(place.v, before)
        here = Word(code.b, phi)
        done, was = code.take_if_free(places, here, key)
        code.b.cbranch(done.v, mine, taken)
        code.b.position_at_end(taken)
        code.b.cbranch(was.equals(key).v, after, step)
        code.b.position_at_end(step)
        phi.add_incoming((here + 1).equals(size).where(0, here + 1).v, step)
        code.b.branch(head)
        code.b.position_at_end(mine)
        self._count(code, context, table)
        counted = code.b.block
        code.b.branch(after)
        code.b.position_at_end(after)
        first = code.b.phi(I1)
        first.add_incoming(ir.Constant(I1, 0), taken)
        first.add_incoming(ir.Constant(I1, 1), counted)
        return Word(code.b, first)

    @staticmethod
    def _count(code: Code, context: Word, table: Word) -> None:
        used = code.load(table, Table.USED) + 1
        code.store(table, Table.USED, used)
        with code.when(~used.less(code.load(table, Table.LIMIT))):
            code.store(context, At.FULL, 1)

    def insert_all(self, module: ir.Module) -> Code:
        """`insert(context, places, step, size)`: put fingerprints, so many words apart, into the tables."""
        code = Code(module, "insert", 4, 2, inside=False)
        context, places, step, size = code.args
        with code.loop(0, size) as (k, go_on):
            key = code.load(places, k * step)
            code.unless(key.equals(0), go_on)
            g, first = self.locate(code, context, key)
            table = self.described(code, context, g)
            seen, place = self.find(code, table, key, first)
            code.unless(seen, go_on)
            state = code.load(places, k * step + 1) if self.width == 2 else None
            self.put(code, context, table, place, key, state)
        code.leave(0)
        return code

"""Exact mode: states are compared whole, and a fingerprint only says where to look.

Each state is kept as a row in one form: its servers renamed to the order that its fingerprint was made with,
if symmetry is asked for, and its messages sorted. Two states are the same if these rows are. Should an order
be badly chosen, because two parts of a state were mixed to the same number, a state is counted twice; none is
ever overlooked.
"""

from __future__ import annotations

from llvmlite import ir

from raftspec.types import Type
from raftworthy.native import NoPlaceError
from raftworthy.native.context import At, In
from raftworthy.native.fingerprints import Step
from raftworthy.native.successors import Successors
from raftworthy.native.symmetry import NAME_BITS, Symmetric, names_servers
from raftworthy.native.words import I8, Code, Word


class Exact:
    """Builds what writes a state in its form, and what compares it with one that is known."""

    def __init__(self, steps: Successors) -> None:
        self.steps = steps
        self.at_words = steps.context_words  # a state's words, and its messages
        self.at_messages = self.at_words + steps.layout.words
        self.words = steps.layout.words + steps.rows.most_messages

    def build(self, module: ir.Module) -> None:
        self.write = self._writer(module)
        self.equal = self._comparer(module)

    def longest(self, messages: Word) -> Word:
        """How many bytes such a row takes at most, up to a word's end."""
        return (self.steps.rows.length(messages) + 7) & ~7

    def new_row(self, code: Code, context: Word) -> Word:
        """Where the state is written that is looked up; it stays there if it is new."""
        used = code.load(context, At.STATES_USED)
        return code.address(code.pointer(code.load(context, At.STATES)), used, I8)

    def store(self, code: Code, context: Word, messages: Word) -> Word:
        """Keep the state that was written; its address."""
        row = self.new_row(code, context)
        code.add_to(context, At.STATES_USED, self.longest(messages))
        return Word(code.b, code.b.ptrtoint(row.v, ir.IntType(64)))

    def same(self, code: Code, context: Word, messages: Word, address: Word) -> Word:
        """Whether the state that was written is the one at an address."""
        row, size = self.new_row(code, context), self.longest(messages)
        return code.call(self.equal, row, code.pointer(address), size >> 3).differs(0)

    @staticmethod
    def _comparer(module: ir.Module) -> Code:
        """`f(row, row, words)`: whether they are equal."""
        code = Code(module, "equal", 3, 2)
        a, b, size = code.args
        with code.loop(0, size) as (k, _):
            code.leave_if(code.load(a, k).differs(code.load(b, k)), 0)
        code.leave(1)
        return code

    def _writer(self, module: ir.Module) -> Code:
        """`f(context, successor)`: write T, with the successor's messages, in its form."""
        steps, lay, rows = self.steps, self.steps.layout, self.steps.rows
        code = Code(module, "write_exact", 2, 1)
        context, offset = code.args
        successor = code.address(context, offset)
        after, sends = steps.after(code, context), code.address(successor, steps.in_sends)
        fresh, n = code.load(successor, In.FRESH), code.load(context, At.MESSAGES)
        words, sorted_ = code.address(context, self.at_words), code.address(context, self.at_messages)
        prints, yes = steps.prints, code.truth(True)
        to: list[Word] | None = None
        if isinstance(prints, Symmetric):
            step = Step(after, code.load(successor, In.SERVER), yes, yes, sends, fresh)
            order = prints.key_and_order(code, steps.known(code, context), step)[1]
            to = [order.cut(NAME_BITS * k, NAME_BITS) for k in range(len(lay.servers))]
        groups = [
            (lay.server, lay.server_words, k * lay.server_words, to[k] * lay.server_words if to else None)
            for k in range(len(lay.servers))
        ]
        for slots, size, start, target in (*groups, (lay.history, lay.history_words, steps.past, None)):
            for w in range(size):
                word = code.load(after, start + w)
                for s in slots.values():
                    if to is not None and s.word == w and names_servers(s.type):
                        renamed = self._renamed(code, word.cut(s.shift, s.width), s.type, to)
                        word = (word & ~(((1 << s.width) - 1) << s.shift)) | (renamed << s.shift)
                code.store(words, start + w if target is None else target + w, word)

        def insert(m: Word, k: Word) -> None:
            if to is not None:
                assert isinstance(prints, Symmetric)
                for s in (prints.source, prints.target):
                    renamed = self._renamed(code, m.cut(s.shift, s.width), s.type, to)
                    m = (m & ~(((1 << s.width) - 1) << s.shift)) | (renamed << s.shift)
            hole = code.local(k)
            done = code.block()
            with code.loop(0, k) as (j, _):  # from behind, larger ones move up
                other = code.load(sorted_, k - 1 - j)
                code.unless(other.below(m), done)
                code.store(sorted_, k - j, other)
                code.store(hole, 0, k - 1 - j)
            code.b.branch(done)
            code.b.position_at_end(done)
            code.store(sorted_, code.load(hole, 0), m)

        messages = steps.messages(code, context)
        with code.loop(0, n) as (k, _):
            insert(code.load(messages, k), k)
        with code.loop(0, fresh) as (k, _):
            insert(code.load(sends, k), n + k)
        row = self.new_row(code, context)
        count = n + fresh
        code.write(row, self.longest(count) - 8, code.const(0))
        rows.write_words(code, row, words, count)
        with code.loop(0, count) as (k, _):
            code.write(row, k * rows.message + rows.fixed, code.load(sorted_, k))
        code.leave(0)
        return code

    def _renamed(self, code: Code, bits: Word, t: Type, to: list[Word]) -> Word:
        """A value with server k renamed to to[k]."""
        if not names_servers(t):
            return bits
        match t.kind:
            case "server" | "maybe":
                out = bits
                for k, x in enumerate(to):
                    out = bits.equals(k).where(x, out)
                return out
            case "set":
                out = bits & 0
                for k, x in enumerate(to):
                    out = out | (bits.cut(k, 1) << x)
                return out
            case "map":
                assert t.of is not None
                assert t.key is not None
                lay, out = self.steps.layout, bits & 0
                width = lay.width(t.of)
                for k in range(lay.keys(t)):
                    place = to[k] if t.key.kind == "server" else code.const(k)
                    out = out | (self._renamed(code, bits.cut(k * width, width), t.of, to) << (place * width))
                return out
        raise NoPlaceError(f"the native engine can't rename the servers in a {t}")

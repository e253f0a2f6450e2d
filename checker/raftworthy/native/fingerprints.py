"""By what a state is known: one number, from sums over its parts that a step changes little of.

Each word of a state, with a number for its place added, is mixed and summed up. With symmetry there is
one such sum for each renaming of the servers; renamed states have the same sums in another
order, so what is made of all of them alike is the same for all.

    r  a renaming, p its servers: server k becomes p[k]     i  a server
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from llvmlite import ir

from raftspec.types import Type
from raftworthy.native import NoPlaceError
from raftworthy.native.layout import Layout, Slot
from raftworthy.native.words import I64, Code, Word, mix

GOLDEN = 0x9E3779B97F4A7C15


class Fingerprints:
    """The functions that add a part of a state to its sums."""

    def __init__(self, layout: Layout, symmetry: bool) -> None:
        self.layout = layout
        servers = range(len(layout.servers))
        self.renamings = list(itertools.permutations(servers)) if symmetry else [tuple(servers)]

    def build(self, module: ir.Module) -> None:
        """Build the functions in a module."""
        self.module, layout = module, self.layout
        self.hash_server = self._hasher("hash_server", layout.server, layout.server_words, True)
        self.hash_history = self._hasher("hash_history", layout.history, layout.history_words)
        self.hash_message = self._message_hasher()

    @property
    def sums(self) -> int:
        """How many sums a state has."""
        return len(self.renamings)

    def _hasher(self, name: str, slots: Mapping[str, Slot], words: int, indexed: bool = False) -> Code:
        """`f(words, sums, i)`: add some variables' part of each sum; if `indexed`, those of server i."""
        code = Code(self.module, name, 3, 2)
        group, sums, i = code.args
        n = len(self.layout.servers)
        for r, p in enumerate(self.renamings):
            total = code.load(sums, r)
            for w in range(words):
                here = [s for s in slots.values() if s.word == w]
                word = self._renamed(code.load(group, w), here, p)
                salt = code.const(_salt(p[0] if indexed else n, w))
                for k in range(1, n if indexed else 0):
                    salt = i.equals(k).where(_salt(p[k], w), salt)
                total = total + (word + salt).mixed()
            code.store(sums, r, total)
        code.leave(0)
        return code

    def _message_hasher(self) -> Code:
        """`f(sums, m)`: add a message's part of each sum."""
        code = Code(self.module, "hash_message", 2, 1)
        sums, m = code.args
        first = self.layout.message[self.layout.kinds[0]]
        common = [s for name, s in first.items() if name in ("source", "target")]
        for cls, slots in self.layout.message.items():
            others = [s.type for name, s in slots.items() if name not in ("source", "target")]
            if any(map(_names_servers, others)):
                raise NoPlaceError(f"the native engine can't rename the servers in a {cls.__name__}")
        for r, p in enumerate(self.renamings):
            word = self._renamed(m, common, p) + _salt(len(p) + 1, 0)
            code.store(sums, r, code.load(sums, r) + word.mixed())
        code.leave(0)
        return code

    def _renamed(self, word: Word, slots: Iterable[Slot], p: tuple[int, ...]) -> Word:
        """A word with server i renamed to p[i]."""
        if p == tuple(range(len(p))):
            return word
        kept, moved = (1 << 64) - 1, []
        for s in slots:
            if _names_servers(s.type):
                kept &= ~(((1 << s.width) - 1) << s.shift)
                moved.append(self._rename(word.cut(s.shift, s.width), s.type, p) << s.shift)
        out = word & kept
        for x in moved:
            out = out | x
        return out

    def _rename(self, bits: Word, t: Type, p: tuple[int, ...]) -> Word:
        if not _names_servers(t):
            return bits
        match t.kind:
            case "server" | "maybe":
                width = self.layout.width(t)
                table = sum(x << k * width for k, x in enumerate((*p, len(p))))
                return (Word(bits.b, ir.Constant(I64, table)) >> (bits * width)) & ((1 << width) - 1)
            case "set":
                out = bits & 0
                for k, x in enumerate(p):
                    out = out | (bits.cut(k, 1) << x)
                return out
            case "map":
                assert t.of is not None
                assert t.key is not None
                width, out = self.layout.width(t.of), bits & 0
                for k in range(self.layout.keys(t)):
                    to = p[k] if t.key.kind == "server" else k
                    out = out | (self._rename(bits.cut(k * width, width), t.of, p) << (to * width))
                return out
        raise NoPlaceError(f"the native engine can't rename the servers in a {t}")

    def of(self, code: Code, sums: Word) -> Word:
        """One number for all renamings of a state; never 0."""
        if self.sums == 1:
            out = code.load(sums, 0)
        else:
            out = code.const(0)
            for r in range(self.sums):
                out = out + code.load(sums, r).mixed()
        return out.equals(0).where(1, out)


def first_place(code: Code, key: Word, size: Word) -> Word:
    """Where in a table of any size to look first: keys in order, so that growing moves few far."""
    wide = ir.IntType(128)
    product = code.b.mul(code.b.zext(key.v, wide), code.b.zext(size.v, wide))
    high = code.b.lshr(product, ir.Constant(wide, 64))
    return Word(code.b, code.b.trunc(high, I64))


def _salt(place: int, word: int) -> int:
    """What is added to a word before it is mixed, so that equal words at two places don't count as one."""
    return mix((place * 64 + word + 1) * GOLDEN)


def _names_servers(t: Type) -> bool:
    """Whether a value of this type changes when servers are renamed."""
    if t.kind in ("server", "maybe", "set"):
        return True
    if t.kind == "record" and t.cls is not None:
        return any(map(_names_servers, t.cls.types().values()))
    return any(_names_servers(x) for x in (t.key, t.of) if x is not None)

"""Expressions as instructions: one rule for each operation of the graph.

A number, a condition, a server, a set and a map is one word; a sequence two, its length and its
entries; a record as many as it has fields. Every operation means what it means in the
specification, on any words: only what is stored in a state has to fit its bits.

    w  a lowering under way     n  a node     q, r  sequences     k  an index
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from raftspec.graph import LEAVES, OPERATIONS, QUANTIFIERS, Node, free_variables, postorder
from raftspec.types import Type, zero
from raftworthy.native import NoPlaceError
from raftworthy.native.layout import WIDEST, Layout, Slot
from raftworthy.native.words import Code, Word

# What a length or a map becomes when something was put in that doesn't fit: too large to be stored.
LENGTH_UNFIT = 1 << 32
MAP_UNFIT = 1 << WIDEST


# What takes something out of a sequence or a map.
READS = frozenset({"at", "len", "agrees", "prefix", "slice", "map_get"})


class Entries(NamedTuple):
    """A sequence: its length, and its entries' bits with zeros behind them."""

    length: Word
    body: Word


Fields: TypeAlias = tuple[Word, ...]
Value: TypeAlias = Any  # Word, Entries or Fields, by the node's type
Rule: TypeAlias = Callable[..., Value]


class Lowering:
    """Computes expressions in one function, each once. `leaf` computes those that have no arguments."""

    def __init__(self, code: Code, layout: Layout, leaf: Callable[[Lowering, Node], Value]) -> None:
        self.code = code
        self.layout = layout
        self.leaf = leaf
        self.done: dict[Node, Value] = {}

    def value(self, n: Node) -> Value:
        """The value of an expression."""
        if n not in self.done:
            if n.op == "const":
                self.done[n] = self.constant(n.type, n.attr)
            elif n.op in LEAVES:
                self.done[n] = self.leaf(self, n)
            else:
                self._refuse_what_is_cut_off(n)
                # A quantifier's claim is computed where its variable is known.
                args = n.args[:1] if n.op in QUANTIFIERS else n.args
                self.done[n] = RULES[n.op](self, n, *map(self.value, args))
        return self.done[n]

    def _refuse_what_is_cut_off(self, n: Node) -> None:
        """Whatever doesn't fit is noticed when it is stored, so nothing may read it before.

        Raises:
            NoPlaceError: this expression could.
        """
        if n.type.kind == "seq" and self._longest(n) > self.layout.capacity(n.type):
            raise NoPlaceError(f"{n!r} within these bounds can be longer than a word has place for")
        if n.op in READS and any(m.op in ("append", "map_set") for a in n.args for m in postorder(a)):
            raise NoPlaceError(f"the native engine can't read what the same step has put in: {n!r}")

    def _longest(self, n: Node) -> int:
        """How many entries a sequence can have."""
        match n.op:
            case "const":
                return len(n.attr)
            case "append":
                return self._longest(n.args[0]) + 1
            case "concat" | "ite":
                longest = [self._longest(a) for a in n.args if a.type.kind == "seq"]
                return sum(longest) if n.op == "concat" else max(longest)
            case "prefix" | "slice":
                return self._longest(n.args[0])
        return self.layout.bounds.max_log

    def constant(self, t: Type, value: Any) -> Value:
        """A value that is known."""
        lay, const = self.layout, self.code.const
        match t.kind:
            case "bool":
                return self.code.truth(value)
            case "num":
                return const(int(value[1:]) if isinstance(value, str) else value)
            case "seq":
                return Entries(const(len(value)), const(lay.body(t, value)))
            case "record":
                assert t.cls is not None
                types = t.cls.types()
                return tuple(self.constant(f, getattr(value, name)) for name, f in types.items())
        return const(lay.encode(t, value))

    def unpacked(self, slot: Slot, word: Word) -> Value:
        """A variable's value, from the word that it lies in."""
        bits = word.cut(slot.shift, slot.width)
        if slot.type.kind == "bool":
            return bits.truth()
        if slot.type.kind == "seq":
            return Entries(bits.cut(0, slot.room.bit_length()), bits >> slot.room.bit_length())
        return bits

    def packed(self, slot: Slot, value: Value) -> tuple[Word, Word]:
        """A value's bits at their place in the word, and whether they fit there."""
        if isinstance(value, Entries):
            fits = value.length.below(slot.room + 1)
            bits = value.length | (value.body << slot.room.bit_length())
        else:
            bits = value.number()
            fits = (bits >> slot.width).equals(0)
        return bits << slot.shift, fits

    def entry_width(self, sequence: Type) -> int:
        assert sequence.of is not None
        return self.layout.width(sequence.of)

    def joined(self, t: Type, value: Value) -> tuple[Word, Word]:
        """An entry's bits, and whether each of its fields fits."""
        parts = value if isinstance(value, tuple) else (value,)
        bits, fits, at = self.code.const(0), self.code.truth(True), 0
        for part, f in zip(parts, _parts(t), strict=True):
            width, x = self.layout.width(f), part.number()
            bits, fits, at = bits | (x << at), fits & (x >> width).equals(0), at + width
        return bits, fits

    def split(self, t: Type, bits: Word) -> Value:
        """The entry with these bits."""
        out, at = [], 0
        for f in _parts(t):
            part = bits.cut(at, self.layout.width(f))
            out.append(part.truth() if f.kind == "bool" else part)
            at += self.layout.width(f)
        return tuple(out) if t.kind == "record" else out[0]


def _parts(t: Type) -> list[Type]:
    """The types of a record's fields, or of a value that is one word."""
    if t.kind != "record":
        return [t]
    assert t.cls is not None
    return list(t.cls.types().values())


def _choose(c: Word, a: Value, b: Value) -> Value:
    """`a` if c, else `b`; word by word."""
    if isinstance(a, Entries):
        return Entries(c.where(a.length, b.length), c.where(a.body, b.body))
    if isinstance(a, tuple):
        return tuple(_choose(c, x, y) for x, y in zip(a, b, strict=True))
    return c.where(a, b)


def _count(w: Lowering, n: Node, *conditions: Word) -> Word:
    return sum((c.number() for c in conditions), w.code.const(0))


def _set_size(w: Lowering, n: Node, s: Word) -> Word:
    return Word(s.b, s.b.ctpop(s.v))


def _map_get(w: Lowering, n: Node, m: Word, k: Word) -> Value:
    t = n.args[0].type
    width, default = w.layout.width(n.type), w.layout.encode(n.type, zero(n.type))
    found = (m >> (k * width)) & ((1 << width) - 1)
    found = k.below(w.layout.keys(t)).where(found, default)
    return found.truth() if n.type.kind == "bool" else found


def _map_set(w: Lowering, n: Node, m: Word, k: Word, x: Word) -> Word:
    assert n.type.of is not None
    width, bits = w.layout.width(n.type.of), x.number()
    fits = k.below(w.layout.keys(n.type)) & (bits >> width).equals(0)
    hole = ~(w.code.const((1 << width) - 1) << (k * width))
    stays = bits.equals(w.layout.encode(n.type.of, zero(n.type.of)))  # beyond the keys all is the default
    unfit = stays.where(m, m | MAP_UNFIT)
    return fits.where((m & hole) | (bits << (k * width)), unfit)


def _at(w: Lowering, n: Node, q: Entries, k: Word) -> Value:
    width = w.entry_width(n.args[0].type)
    inside = (k - 1).below(q.length)
    found = (q.body >> ((k - 1) * width)) & ((1 << width) - 1)
    return w.split(n.type, inside.where(found, w.layout.encode(n.type, zero(n.type))))


def _prefix(w: Lowering, n: Node, q: Entries, k: Word) -> Entries:
    length = k.natural().smaller(q.length)
    return Entries(length, q.body.lowest(length * w.entry_width(n.type)))


def _slice(w: Lowering, n: Node, q: Entries, after: Word, upto: Word) -> Entries:
    width, start = w.entry_width(n.type), after.natural()
    length = (upto.smaller(q.length) - start).natural()
    return Entries(length, (q.body >> (start * width)).lowest(length * width))


def _append(w: Lowering, n: Node, q: Entries, x: Value) -> Entries:
    assert n.type.of is not None
    bits, fits = w.joined(n.type.of, x)
    length = fits.where(q.length + 1, LENGTH_UNFIT)
    return Entries(length, q.body | (bits << (q.length * w.entry_width(n.type))))


def _concat(w: Lowering, n: Node, q: Entries, r: Entries) -> Entries:
    return Entries(q.length + r.length, q.body | (r.body << (q.length * w.entry_width(n.type))))


def _agrees(w: Lowering, n: Node, q: Entries, r: Entries, k: Word) -> Word:
    same = (q.body ^ r.body).lowest(k.natural() * w.entry_width(n.args[0].type)).equals(0)
    return k.at_most(q.length) & k.at_most(r.length) & same


def _field(w: Lowering, n: Node, record: Fields) -> Word:
    cls = n.args[0].type.cls
    assert cls is not None
    return record[list(cls.types()).index(n.attr)]


def _search(found: bool) -> Rule:
    """Whether the claim is `found` for a number from 1 to `top`, or for none."""

    def rule(w: Lowering, n: Node, top: Word) -> Word:
        yes, no = w.code.truth(found), w.code.truth(not found)
        return _looked_up(w, n, top, found, lambda k: k, lambda _: yes, no)

    return rule


def _latest(w: Lowering, n: Node, top: Word) -> Word:
    """The last number from 1 to `top` for which the claim holds, or 0."""
    return _looked_up(w, n, top, True, lambda k: top - k + 1, lambda k: k, w.code.const(0))


def _looked_up(
    w: Lowering,
    n: Node,
    top: Word,
    found: bool,
    number: Callable[[Word], Word],
    result: Callable[[Word], Word],
    otherwise: Word,
) -> Word:
    """A loop over `number` of 1 to `top` that stops at the first for which the claim is `found`."""
    claim, code = n.args[1], w.code
    for m in postorder(claim):
        if not free_variables(m):  # the same for every number; nothing can go wrong in computing it
            w.value(m)
    known = dict(w.done)
    after = code.block()
    with code.loop(1, top + 1) as (turn, _):
        k = number(turn)
        w.done.update({m: k for m in postorder(claim) if (m.op, m.attr) == ("bound", n.attr)})
        holds = w.value(claim)
        stopped, there = code.b.block, result(k)
        code.unless(holds if found else ~holds, after)
    ended = code.b.block
    code.b.branch(after)
    code.b.position_at_end(after)
    w.done = known
    out = code.b.phi(otherwise.v.type)
    out.add_incoming(there.v, stopped)
    out.add_incoming(otherwise.v, ended)
    return Word(code.b, out)


RULES: Mapping[str, Rule] = {
    "not": lambda w, n, a: ~a,
    "and": lambda w, n, a, b: a & b,
    "or": lambda w, n, a, b: a | b,
    "eq": lambda w, n, a, b: a.equals(b),
    "lt": lambda w, n, a, b: a.less(b),
    "le": lambda w, n, a, b: a.at_most(b),
    "add": lambda w, n, a, b: a + b,
    "sub": lambda w, n, a, b: a - b,
    "ite": lambda w, n, c, a, b: _choose(c, a, b),
    "count": _count,
    "rule": lambda w, n, c: c,
    "set_add": lambda w, n, s, i: s | (w.code.const(1) << i),
    "set_has": lambda w, n, s, i: (s >> i).truth(),
    "set_size": _set_size,
    "map_get": _map_get,
    "map_set": _map_set,
    "len": lambda w, n, q: q.length,
    "at": _at,
    "prefix": _prefix,
    "slice": _slice,
    "append": _append,
    "concat": _concat,
    "agrees": _agrees,
    "forall": _search(found=False),
    "exists": _search(found=True),
    "latest": _latest,
    "record": lambda w, n, *fields: fields,
    "field": _field,
}
assert RULES.keys() == OPERATIONS.keys()

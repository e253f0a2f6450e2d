"""One fingerprint for all states that differ in the servers' names only, by signature.

A state is, as far as names matter, a matrix: in the cell (i, j) is what server i's variables say of server j
and what i has sent to j, in (i, i) what concerns i alone, each as a sum of mixed words. Renaming the servers
permutes rows and columns and changes no cell. A server's signature is made of its row and column without
regard to their order. Servers are put in the order of their signatures, and the cells, each mixed with a
number for its new place, are summed up. Of servers with equal signatures every order is tried, and the least
sum taken, unless they are twins: exchanging them changes nothing, so one order is as good as another.

    i, j, k  servers     S, T  the variables' words before and after a step     p  a renaming, as one word
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from llvmlite import ir

from raftspec.types import Type
from raftworthy.native import NoPlaceError
from raftworthy.native.fingerprints import GOLDEN, Step
from raftworthy.native.layout import Layout, Slot
from raftworthy.native.words import I64, Code, Word, mix

# Each order of more servers than this takes too long.
MOST_SERVERS = 7
NAME_BITS = 4  # of a server's new number in a renaming that is one word


class Symmetric:
    """As `fingerprints.Plain`. Known are the cells of variables, of messages and of history."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.servers = n = len(layout.servers)
        if n > MOST_SERVERS:
            raise NoPlaceError(f"the native engine tries no renamings of {n} servers; try: --no-symmetry")
        self.at_sent, self.at_past = n * n, 2 * n * n
        self.at_cells = self.at_past + n + 1
        self.at_signatures = self.at_cells + n * n
        self.known_words = self.at_signatures + n + 1
        for cls, slots in layout.message.items():
            others = [s.type for name, s in slots.items() if name not in ("source", "target")]
            if any(map(names_servers, others)):
                raise NoPlaceError(f"the native engine can't rename the servers in a {cls.__name__}")
        # What is read of source and target has to lie at the same place in every message.
        first = layout.message[layout.kinds[0]]
        self.source, self.target = first["source"], first["target"]
        assert all((s["source"], s["target"]) == (self.source, self.target) for s in layout.message.values())

    def build(self, module: ir.Module) -> None:
        n, lay = self.servers, self.layout
        orders = list(itertools.permutations(range(n)))
        packed = [sum(x << NAME_BITS * k for k, x in enumerate(p)) for p in orders]
        self.orders = ir.GlobalVariable(module, ir.ArrayType(I64, len(orders)), "orders")
        self.orders.initializer = ir.Constant(self.orders.value_type, packed)
        self.orders.global_constant = True
        numbers = [mix(k * GOLDEN) for k in range(1, n * n + 1)]
        self.places = ir.GlobalVariable(module, ir.ArrayType(I64, n * n), "places")
        self.places.initializer = ir.Constant(self.places.value_type, numbers)
        self.places.global_constant = True
        self.number_of_orders = len(orders)
        self.of_server = self._hasher(module, "cells_of_server", lay.server, lay.server_words)
        self.of_past = self._hasher(module, "cells_of_history", lay.history, lay.history_words)
        self.ties = self._ties(module)
        self.canonical = self._canonical(module)

    # --- cells ---

    def _hasher(self, module: ir.Module, name: str, slots: Mapping[str, Slot], words: int) -> Code:
        """`f(words, cells)`: what is said of each server, and then of none."""
        code = Code(module, name, 2, 2)
        group, cells = code.args
        n, loaded = self.servers, [code.load(group, w) for w in range(words)]
        said: list[list[tuple[Word, int]]] = [[] for _ in range(n)]
        rest = list(loaded)
        for s in slots.values():
            if names_servers(s.type):
                bits = loaded[s.word].cut(s.shift, s.width)
                rest[s.word] = rest[s.word] & ~(((1 << s.width) - 1) << s.shift)
                for j in range(n):
                    said[j] += self._said_of(j, bits, s.type)
        for j, parts in enumerate(said):
            code.store(cells, j, self._mixed(code, list(self._joined(code, parts)), 1))
        code.store(cells, n, self._mixed(code, rest, 64))
        code.leave(0)
        return code

    @staticmethod
    def _mixed(code: Code, words: list[Word], salt: int) -> Word:
        out = code.const(0)
        for k, w in enumerate(words):
            out = out + (w + mix((salt + k) * GOLDEN)).mixed()
        return out

    @staticmethod
    def _joined(code: Code, parts: list[tuple[Word, int]]) -> Iterator[Word]:
        """Bits side by side, in as many words as they need."""
        word, at = code.const(0), 0
        for bits, width in parts:
            if at + width > 64:
                yield word
                word, at = code.const(0), 0
            word, at = word | (bits << at), at + width
        yield word

    def _said_of(self, j: int, bits: Word, t: Type) -> Iterator[tuple[Word, int]]:
        """What a value says of server j: bits, and how many."""
        lay = self.layout
        match t.kind:
            case "server" | "maybe":
                yield bits.equals(j).number(), 1
                return
            case "set":
                yield bits.cut(j, 1), 1
                return
            case "map":
                assert t.of is not None
                assert t.key is not None
                width = lay.width(t.of)
                if t.key.kind != "server":
                    for k in range(lay.keys(t)):
                        yield from self._said_of(j, bits.cut(k * width, width), t.of)
                    return
                if not names_servers(t.of):
                    yield bits.cut(j * width, width), width
                    return
        raise NoPlaceError(f"the native engine can't rename the servers in a {t}")

    def _message(self, m: Word) -> tuple[Word, Word]:
        """The cell of a message, and what it adds there."""
        s, t = self.source, self.target
        names = ((1 << s.width) - 1) << s.shift | ((1 << t.width) - 1) << t.shift
        cell = m.cut(s.shift, s.width) * self.servers + m.cut(t.shift, t.width)
        return cell, ((m & ~names) + mix(128 * GOLDEN)).mixed()

    # --- the fingerprint ---

    def begin(self, code: Code, known: Word, state: Word, messages: Word, n: Word) -> None:
        lay, servers = self.layout, self.servers
        own, sent = code.address(known, 0), code.address(known, self.at_sent)
        scratch = code.address(known, self.at_cells)
        for i in range(servers):
            code.call(self.of_server, code.address(state, i * lay.server_words), scratch)
            self._row(code, scratch, code.address(own, i * servers), code.const(i))
        for place in range(servers * servers):
            code.store(sent, place, 0)
        with code.loop(0, n) as (k, _):
            cell, part = self._message(code.load(messages, k))
            code.add_to(sent, cell, part)
        past = code.address(state, lay.words - lay.history_words)
        code.call(self.of_past, past, code.address(known, self.at_past))

    def _row(self, code: Code, cells: Word, row: Word, i: Word) -> None:
        """Add what concerns server i alone to what it says of itself."""
        for j in range(self.servers):
            code.store(row, j, code.load(cells, j))
        code.add_to(row, i, code.load(cells, self.servers))

    def key(self, code: Code, known: Word, step: Step) -> Word:
        return self.key_and_order(code, known, step)[0]

    def key_and_order(self, code: Code, known: Word, step: Step) -> tuple[Word, Word]:
        """The fingerprint, and the renaming that it was made with, as a word."""
        n, lay = self.servers, self.layout
        cells = code.address(known, self.at_cells)
        for c in range(n * n):
            code.store(cells, c, code.load(known, c) + code.load(known, self.at_sent + c))
        scratch = code.address(known, self.at_signatures)  # n words, and the one behind them
        with code.when(step.server):
            code.call(self.of_server, code.address(step.after, step.i * lay.server_words), scratch)
            for j in range(n):
                place = step.i * n + j
                new = code.load(scratch, j) + step.i.equals(j).where(code.load(scratch, n), 0)
                code.store(cells, place, code.load(cells, place) + new - code.load(known, place))
        for j in range(n + 1):
            code.store(scratch, j, code.load(known, self.at_past + j))
        with code.when(step.past):
            code.call(self.of_past, code.address(step.after, lay.words - lay.history_words), scratch)
        with code.loop(0, step.fresh) as (k, _):
            cell, part = self._message(code.load(step.sends, k))
            code.add_to(cells, cell, part)
        for j in range(n):
            # History's part is mixed once more, or it could be mistaken for a server's own.
            code.add_to(cells, j * (n + 1), code.load(scratch, j) * GOLDEN)
        everybody = code.load(scratch, n)
        order = code.call(self.canonical, cells, scratch)
        key = (self._sum(code, cells, order) + everybody).mixed()
        return key.equals(0).where(1, key), order

    def _sum(self, code: Code, cells: Word, order: Word) -> Word:
        """The cells, each mixed with the number of its place under a renaming."""
        n, total = self.servers, code.const(0)
        to = [order.cut(NAME_BITS * i, NAME_BITS) for i in range(n)]
        places = Word(code.b, self.places)
        for i in range(n):
            for j in range(n):
                cell = code.load(cells, i * n + j) + code.load(places, to[i] * n + to[j])
                high, low = cell.times(code.const(GOLDEN))
                total = total + (high ^ low)
        return total

    def _canonical(self, module: ir.Module) -> Code:
        """`f(cells, signatures)`: write the signatures, and find the renaming that makes the least sum."""
        code = Code(module, "canonical", 2, 2)
        cells, out = code.args
        n = self.servers
        cell = [[code.load(cells, i * n + j) for j in range(n)] for i in range(n)]
        signatures = []
        for i in range(n):
            total = cell[i][i] * GOLDEN
            for j in range(n):
                if i != j:
                    both = cell[i][j] + cell[j][i] * mix(1) + cell[j][j] * mix(2)
                    total = total + both.mixed()
            signatures.append(total)
        order, tied = code.const(0), code.truth(False)
        for i in range(n):
            place = code.const(0)
            for j in range(n):
                if i != j:
                    before = signatures[j].below(signatures[i])
                    if j < i:
                        equal = signatures[j].equals(signatures[i])
                        before, tied = before | equal, tied | equal
                    place = place + before.number()
            order = order | (place << NAME_BITS * i)
        with code.when(tied):
            for i in range(n):
                code.store(out, i, signatures[i])
            code.leave(code.call(self.ties, cells, out, order))
        code.leave(order)
        return code

    def _ties(self, module: ir.Module) -> Code:
        """`f(cells, signatures, order)`: the best order, where some signatures are equal."""
        code = Code(module, "ties", 3, 2)
        cells, signatures, order = code.args
        n = self.servers
        others = code.truth(False)  # whether some with the same signature are no twins
        for i, j in itertools.combinations(range(n), 2):
            differ = self._load(code, cells, i, i) ^ self._load(code, cells, j, j)
            differ = differ | (self._load(code, cells, i, j) ^ self._load(code, cells, j, i))
            for k in set(range(n)) - {i, j}:
                differ = differ | (self._load(code, cells, i, k) ^ self._load(code, cells, j, k))
                differ = differ | (self._load(code, cells, k, i) ^ self._load(code, cells, k, j))
            equal = code.load(signatures, i).equals(code.load(signatures, j))
            others = others | (equal & differ.differs(0))
        code.leave_if(~others, order)
        best, least = code.local(order), code.local(self._sum(code, cells, order))
        mine = [code.load(signatures, i) for i in range(n)]
        with code.loop(0, self.number_of_orders) as (r, go_on):
            p = code.load(Word(code.b, self.orders), r)
            to = [p.cut(NAME_BITS * i, NAME_BITS) for i in range(n)]
            wrong = code.truth(False)
            for i, j in itertools.permutations(range(n), 2):
                wrong = wrong | (mine[i].below(mine[j]) & to[j].below(to[i]))
            code.unless(wrong, go_on)
            total = self._sum(code, cells, p)
            code.unless(~total.below(code.load(least, 0)), go_on)
            code.store(least, 0, total)
            code.store(best, 0, p)
        code.leave(code.load(best, 0))
        return code

    def _load(self, code: Code, cells: Word, i: int, j: int) -> Word:
        return code.load(cells, i * self.servers + j)


def names_servers(t: Type) -> bool:
    """Whether a value of this type changes when servers are renamed."""
    if t.kind in ("server", "maybe", "set"):
        return True
    if t.kind == "record" and t.cls is not None:
        return any(map(names_servers, t.cls.types().values()))
    return any(names_servers(x) for x in (t.key, t.of) if x is not None)

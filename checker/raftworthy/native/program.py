"""The functions that search: each thread calls them, for its part of a level.

`expand` goes through states of a level. Of their successors it keeps those that are new, at the end of its
part of the next level. Those in a range of fingerprints that another process owns go there, which takes them
up by `receive`.

    row  a state as bytes     S, T  the variables' words before and after a step
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from llvmlite import ir

from raftworthy.explore.model import Model
from raftworthy.native.compiling import is_kept, key_of, machine_code
from raftworthy.native.context import (
    BATCH,
    NO_PARENT,
    PARENT_SHIFT,
    RECORD,
    SLACK,
    At,
    In,
    Out,
    Stop,
)
from raftworthy.native.exact import Exact
from raftworthy.native.fingerprints import fingerprint
from raftworthy.native.functions import Functions
from raftworthy.native.reduced import Reduction
from raftworthy.native.successors import Successors
from raftworthy.native.words import I8, Code, Word
from raftworthy.reduce.permits import Permits

AHEAD = 512  # bytes after a row that are asked for when it is expanded: it was written long ago


class Program(Successors):
    """A model's compiled search. `properties` are checked in their order.

    `exact` compares whole states, `permits` says what may be left out; `key_bits` says how many of a
    fingerprint's bits count, for tests. Code of level 0 is compiled quickly, of 2 well; if that is on disk,
    it is taken.
    """

    def __init__(
        self,
        model: Model,
        properties: Iterable[str],
        symmetry: bool = True,
        level: int = 2,
        exact: bool = False,
        key_bits: int = 64,
        permits: Permits | None = None,
    ) -> None:
        super().__init__(model, properties, symmetry, exact, key_bits)
        self.symmetry = symmetry
        self.exact = Exact(self) if exact else None
        if self.exact:
            self.context_words += self.exact.words
        self.reduction = Reduction(self, permits) if permits else None
        if self.reduction:
            assert not exact, "whole states are compared without reductions"
            assert model.bounds.max_messages is None, "a reduced search doesn't count messages"
            self.context_words += self.reduction.words
        self.key = key_of(self.parts())
        better = level == 0 and is_kept(self.key, 2)
        self.level = 2 if better else level
        code = machine_code(self.key, self._build, self.level)
        self.cached = code.cached
        self.functions = Functions(code, self.context_words, exact)

    def compile(self, level: int) -> None:
        """Go on with other code, the better the longer it takes to compile."""
        self.level = level
        self.functions.use(machine_code(self.key, self._build, level))

    # --- building ---

    def parts(self) -> Iterator[str]:
        yield f"{self.symmetry} {self.exact is not None} {self.key_bits}"
        if self.reduction:
            yield self.reduction.permits.built()
        yield from super().parts()

    def _build(self) -> ir.Module:
        self.module = ir.Module("raftworthy")
        self.prints.build(self.module)
        if self.exact:
            self.exact.build(self.module)
        if self.reduction:
            self.reduction.build(self.module)
        self.build_steps()
        self._expand()
        self._receive()
        if self.reduction:
            self.reduction.start(self.module)
        else:
            self._start()
        self.tables.insert_all(self.module)
        return self.module

    # --- new states ---

    def keep(self, code: Code, context: Word, k: Word) -> None:
        """Keep a successor if it is new, or send it to its owner elsewhere; and check it."""
        successor = self.successor(code, context, k)
        key, g = code.load(successor, In.KEY), code.load(successor, In.TABLE)
        table, first = self.tables.described(code, context, g), code.load(successor, In.PLACE)
        n = code.load(context, At.MESSAGES) + code.load(successor, In.FRESH)
        known, same = code.block(), None
        if exact := self.exact:
            # One thread, whose T is made the state that is compared.
            self.patch(code, context, successor)
            code.call(exact.write, context, k * self.successor_words + self.at_successors)
            self.unpatch(code, context, code.load(successor, In.SERVER))
            same = lambda address: exact.same(code, context, n, address)  # noqa: E731
        seen, place = self.tables.find(code, table, key, first, same)
        code.unless(seen, known)
        self.patch(code, context, successor)
        move = code.load(successor, In.MOVE)
        if self.invariants:
            with code.when(code.load(successor, In.CHANGED).differs(0)):
                broken = code.call(self.check_state, self.after(code, context))
                self.leave_if_broken(code, context, broken, 0, move)
        state = exact.store(code, context, n) if exact else None
        self.admit(
            code, context, key, g, table, place, move, state,
            lambda row: self._write(code, context, successor, row),
        )  # fmt: skip
        self.unpatch(code, context, code.load(successor, In.SERVER))
        code.b.branch(known)
        code.b.position_at_end(known)

    def admit(
        self,
        code: Code,
        context: Word,
        key: Word,
        g: Word,
        table: Word,
        place: Word,
        move: Word,
        state: Word | None,
        write: Callable[[Word], Word],
    ) -> None:
        """Take up a new state, or write it down for its owner. `write` writes a row; how long it is."""
        parent = code.load(context, At.PARENT) * code.load(context, At.SHARDS) + code.load(context, At.FROM)
        step, owner = move | (parent << PARENT_SHIFT), self.tables.owner(g)
        with code.b.if_else(self.is_here(code, context, owner).v) as (here, elsewhere):
            with here, code.when(self.tables.put(code, context, table, place, key, state)):
                self.note(code, context, key, step)
                size = write(self.next_row(code, context))
                code.add_to(context, At.NEXT_USED, size)
            with elsewhere:
                out = code.address(code.pointer(code.load(context, At.OUT)), owner * int(Out.WORDS))
                used = code.load(out, Out.USED)
                record = code.address(code.pointer(code.load(out, Out.ADDRESS)), used, I8)
                code.write(record, 0, key)
                code.write(record, 8, step)
                size = write(code.address(record, RECORD, I8))
                code.store(out, Out.USED, used + size + RECORD)
                code.add_to(context, At.SENT, 1)
                self.tables.put(code, context, table, place, key)

    @staticmethod
    def is_here(code: Code, context: Word, shard: Word) -> Word:
        """Whether a shard is of this process."""
        return (shard - code.load(context, At.FIRST_HERE)).below(code.load(context, At.HERE))

    def finisher(self) -> Code:
        return self.reduction.finisher(self.module) if self.reduction else super().finisher()

    @staticmethod
    def next_row(code: Code, context: Word) -> Word:
        return code.address(code.pointer(code.load(context, At.NEXT)), code.load(context, At.NEXT_USED), I8)

    @staticmethod
    def _row(code: Code, context: Word) -> Word:
        return code.address(code.pointer(code.load(context, At.ROWS)), code.load(context, At.ROWS_AT), I8)

    def _write(self, code: Code, context: Word, successor: Word, row: Word) -> Word:
        """Write T with the successor's messages as a row; its length."""
        n, fresh = code.load(context, At.MESSAGES), code.load(successor, In.FRESH)
        sends, old = code.address(successor, self.in_sends), self._row(code, context)
        self.rows.write(code, row, self.after(code, context), old, n, sends, fresh)
        return self.rows.length(n + fresh)

    @staticmethod
    def note(code: Code, context: Word, key: Word, step: Word) -> None:
        """Write down how a new state was reached."""
        trail, used = code.pointer(code.load(context, At.TRAIL)), code.load(context, At.TRAIL_USED)
        code.store(trail, used * 2, key)
        code.store(trail, used * 2 + 1, step)
        code.store(context, At.TRAIL_USED, used + 1)
        code.add_to(context, At.DISTINCT, 1)

    # --- a level ---

    def _expand(self) -> Code:
        """`expand(context)`: the successors of the level's rows, until something stops it."""
        code = Code(self.module, "expand", 1, 1, inside=False)
        (context,) = code.args
        head, done, alive, following = (code.block() for _ in range(4))
        code.b.branch(head)
        code.b.position_at_end(head)
        code.unless(~code.load(context, At.ROWS_AT).less(code.load(context, At.ROWS_END)), done)
        code.leave_if(code.load(context, At.BUDGET).equals(0), Stop.PAUSE)
        count = code.load(context, At.DISTINCT) + code.load(context, At.SENT)
        code.leave_if(~count.below(code.load(context, At.STATES_LIMIT)), Stop.PAUSE)
        code.leave_if(code.load(context, At.FULL).differs(0), Stop.FULL)
        row = self._row(code, context)
        code.prefetch(code.address(row, AHEAD, I8))
        n = self.rows.count(code, row)
        code.leave_if(~n.at_most(self.rows.most_messages), Stop.CROWDED)
        self._leave_for_room(code, context, n)
        dead = code.load(context, At.DEAD)
        with code.when(dead.differs(0)):
            gone = code.load(code.pointer(dead), code.load(context, At.ROW), I8)
            code.b.cbranch(gone.differs(0).v, following, alive)
            code.b.position_at_end(code.block())
        code.b.branch(alive)
        code.b.position_at_end(alive)
        self._expand_row(code, context, row)
        code.b.branch(following)
        code.b.position_at_end(following)
        code.add_to(context, At.ROWS_AT, self.rows.length(n))
        code.add_to(context, At.PARENT, 1)
        code.add_to(context, At.ROW, 1)
        code.add_to(context, At.BUDGET, -1)
        code.b.branch(head)
        code.b.position_at_end(done)
        code.leave(Stop.DONE)
        return code

    def _leave_for_room(self, code: Code, context: Word, n: Word) -> None:
        """Stop unless there is place for all successors of a row, were they all new."""
        most = n + sum(map(self.ways, self.transitions))
        longest = code.const(self.rows.most_messages) if self.reduction else n + self.most_sends
        size = self.rows.length(longest) + (RECORD + 8)
        need = most * size + SLACK
        code.store(context, At.NEED, need)

        def free(room: Word, used: Word, needed: Word) -> Word:
            return needed.at_most(room - used)

        places = [(At.NEXT_ROOM, At.NEXT_USED, need), (At.TRAIL_ROOM, At.TRAIL_USED, most)]
        if self.exact:
            places.append((At.STATES_ROOM, At.STATES_USED, need))
        for room, used, needed in places:
            enough = free(code.load(context, room), code.load(context, used), needed)
            code.leave_if(~enough, Stop.ROOM)
        with code.loop(0, code.load(context, At.SHARDS)) as (k, _):
            out = code.address(code.pointer(code.load(context, At.OUT)), k * int(Out.WORDS))
            enough = free(code.load(out, Out.ROOM), code.load(out, Out.USED), need)
            code.leave_if(~enough & ~self.is_here(code, context, k), Stop.ROOM)

    def _expand_row(self, code: Code, context: Word, row: Word) -> None:
        """Try every action, then every message."""
        before, after = self.before(code, context), self.after(code, context)
        messages = self.messages(code, context)
        n = self.rows.unpack(code, row, before, messages)
        for w in range(self.layout.words):
            code.store(after, w, code.load(before, w))
        code.store(context, At.MESSAGES, n)
        code.store(context, At.STAYED, 0)
        if not self.reduction:
            self.prints.begin(code, self.known(code, context), before, messages, n)
        for t, f in zip(self.transitions, self.expanders, strict=True):
            if not t.action.message:
                stop = code.call(f, context, before, 0, 0)
                code.leave_if(stop.differs(0), stop)
        with code.loop(0, n) as (k, go_on):
            m = code.load(messages, k)

            def handle(number: int) -> None:
                stop = code.call(self.expanders[number], context, before, m, k)
                code.leave_if(stop.differs(0), stop)

            self.dispatch(code, m, handle, go_on)
        stop = code.call(self.settle, context)
        code.leave_if(stop.differs(0), stop)

    def _receive(self) -> Code:
        """`receive(context, records, end)`: take up what another process found, from ROWS_AT on.

        The places of several states are asked for before the first is looked at.
        """
        code = Code(self.module, "receive", 3, 2, inside=False)
        context, records, end = code.args
        head, done = code.block(), code.block()
        code.b.branch(head)
        code.b.position_at_end(head)
        code.unless(~code.load(context, At.ROWS_AT).less(end), done)
        waiting, ahead = code.local(0), code.local(code.load(context, At.ROWS_AT))
        asked = code.block()
        with code.loop(0, BATCH) as (k, _):
            at = code.load(ahead, 0)
            code.unless(~at.less(end), asked)
            record = code.address(records, at, I8)
            g, place = self.tables.locate(code, context, code.read(record, 0))
            self.tables.ask_for(code, context, g, place)
            n = self.rows.count(code, code.address(record, RECORD, I8))
            code.store(ahead, 0, at + self.rows.length(n) + RECORD)
            code.store(waiting, 0, k + 1)
        code.b.branch(asked)
        code.b.position_at_end(asked)
        with code.loop(0, code.load(waiting, 0)) as (_, go_on):
            at = code.load(context, At.ROWS_AT)
            record = code.address(records, at, I8)
            row = code.address(record, RECORD, I8)
            size = self.rows.length(self.rows.count(code, row))
            code.leave_if(code.load(context, At.FULL).differs(0), Stop.FULL)
            code.store(context, At.NEED, size + SLACK)
            room = (size + SLACK).at_most(code.load(context, At.NEXT_ROOM) - code.load(context, At.NEXT_USED))
            room = room & code.load(context, At.TRAIL_USED).less(code.load(context, At.TRAIL_ROOM))
            code.leave_if(~room, Stop.ROOM)
            code.store(context, At.ROWS_AT, at + size + RECORD)
            key = code.read(record, 0)
            g, first = self.tables.locate(code, context, key)
            table = self.tables.described(code, context, g)
            seen, place = self.tables.find(code, table, key, first)
            code.unless(seen, go_on)
            self.tables.put(code, context, table, place, key)
            self.note(code, context, key, code.read(record, 8))
            self.rows.copy(code, row, self.next_row(code, context), size)
            code.add_to(context, At.NEXT_USED, size)
        code.b.branch(head)
        code.b.position_at_end(done)
        code.leave(Stop.DONE)
        return code

    def _start(self) -> Code:
        """`start(context, row)`: write down the first state's fingerprint and row, if it is this shard's."""
        code = Code(self.module, "start", 2, 2, inside=False)
        context, row = code.args
        before, messages = self.before(code, context), self.messages(code, context)
        n = self.rows.unpack(code, row, before, messages)
        for k in range(self.layout.words):
            code.store(self.after(code, context), k, code.load(before, k))
        code.store(context, At.MESSAGES, n)
        known = self.known(code, context)
        self.prints.begin(code, known, before, messages, n)
        key = self.narrowed(fingerprint(code, self.prints, known, before))
        g, first = self.tables.locate(code, context, key)
        code.leave_if(self.tables.owner(g).differs(code.load(context, At.SHARD)), 0)
        table = self.tables.described(code, context, g)
        _, place = self.tables.find(code, table, key, first)
        state = None
        if self.exact:
            successor = self.successor(code, context, code.const(0))
            code.store(successor, In.FRESH, 0)
            code.store(successor, In.SERVER, 0)
            code.call(self.exact.write, context, self.at_successors)
            state = self.exact.store(code, context, n)
        self.tables.put(code, context, table, place, key, state)
        self.note(code, context, key, code.const(NO_PARENT))
        size = self.rows.length(n)
        self.rows.copy(code, row, self.next_row(code, context), size)
        code.add_to(context, At.NEXT_USED, size)
        code.leave(1)
        return code

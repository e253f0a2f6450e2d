"""The functions that make successors, built from a specification's expressions.

`expand` goes through the states of a level. For each it tries every action, guards first, as soon as
the parameters that they need are chosen. A step's new variables are written to a place that is
used again and again; only a state that was never seen is copied, to the end of the next level.

    row  a state: how many messages, its sums, its variables' words, its messages
    S, T  the variables' words before and after a step     r  a renaming of the servers
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from enum import IntEnum, auto

from llvmlite import ir

from raftspec.tracing import Transition
from raftworthy.explore.reference import Model
from raftworthy.native import NoPlaceError
from raftworthy.native.actions import Actions
from raftworthy.native.compiling import machine_code
from raftworthy.native.fingerprints import Fingerprints, first_place
from raftworthy.native.lowering import Lowering
from raftworthy.native.words import I1, I64, Code, Word

# How many successors wait for their places in the table to be fetched.
BATCH = 16

# How a step is written down: the parameters' or the message's number, the action's, the state before.
ORDINAL_BITS, ACTION_BITS = 16, 8
PARENT_SHIFT = ORDINAL_BITS + ACTION_BITS


class Stop(IntEnum):
    """Why `expand` came back."""

    DONE = 0  # every row was expanded
    ROOM = auto()  # memory is needed before it can go on
    PAUSE = auto()  # enough rows for once
    VIOLATED = auto()
    MISFIT = auto()  # a step made a value that has no place


class At(IntEnum):
    """Where in the context what stands. The context is all that Python and a search's thread share."""

    ROWS = 0  # the level that is expanded: address, words, and how far it has come
    ROWS_END = auto()
    ROWS_AT = auto()
    NEXT = auto()  # the next level: address, how many words there are, how many are used
    NEXT_ROOM = auto()
    NEXT_USED = auto()
    TRAIL = auto()  # for each new state how it was reached: address, room, used
    TRAIL_ROOM = auto()
    TRAIL_USED = auto()
    TABLE = auto()  # fingerprints: address, places, how many may be taken, how many are
    TABLE_SIZE = auto()
    TABLE_LIMIT = auto()
    TABLE_USED = auto()
    PARENT = auto()  # the number of the state that is expanded
    STEPS = auto()  # successors made
    STAYED = auto()  # whether a step that changes nothing was checked in this state
    BATCH = auto()  # how many successors wait to be looked up
    BUDGET = auto()  # how many rows may still be expanded
    STATES_LIMIT = auto()  # stop for a pause when there are this many distinct states
    NEED_WORDS = auto()  # what the next row may need
    NEED_STATES = auto()
    MOVE = auto()  # the violating or misfit step
    PROPERTY = auto()  # the number of the property that it violates, from 1
    SCRATCH = auto()


class In(IntEnum):
    """Where in a successor what stands, before its sums, its variables' words and the messages it sends."""

    KEY = 0  # its fingerprint; 0: it is the state before, and only to be checked
    PLACE = auto()  # where in the table to look first
    MOVE = auto()
    CHECK = auto()  # whether the step properties are to be checked
    CHANGED = auto()  # whether variables changed
    FRESH = auto()  # how many messages are new
    SUMS = auto()


class Program(Actions):
    """A model's compiled search. `properties` are checked in their order."""

    def __init__(
        self, model: Model, properties: Iterable[str], symmetry: bool = True, level: int = 2
    ) -> None:
        super().__init__(model, properties)
        self.symmetry = symmetry
        n = len(model.servers)
        self.prints = Fingerprints(self.layout, symmetry)
        self.sums = self.prints.sums
        self.message_type = ir.IntType(32) if self.layout.message_bits <= 32 else I64
        self.messages_a_word: int = 64 // self.message_type.width
        self.message_view = f"u{8 // self.messages_a_word}"  # as numpy calls it
        if max(map(self.ways, self.transitions)) > 1 << ORDINAL_BITS:
            raise NoPlaceError(f"an action has more than {1 << ORDINAL_BITS} choices within these bounds")
        # The context's places of varying size.
        self.at_known = int(At.SCRATCH)  # each server's part of the sums, in the row expanded
        self.at_successors = self.at_known + (n + 1) * self.sums
        self.in_sums = int(In.SUMS)
        self.in_after = self.in_sums + self.sums
        self.in_sends = self.in_after + self.layout.words
        self.successor_words = self.in_sends + self.most_sends
        self.context_words = self.at_successors + BATCH * self.successor_words
        self.row_head = 1 + self.sums
        self.row_fixed = self.row_head + self.layout.words
        code = machine_code(self.parts(), self._build, level)
        self.cached = code.cached
        self.code = code  # what is called below lives in it
        address = ctypes.c_void_p
        self.run_expand = code.function("expand", address)
        self.run_start = code.function("start", address, address)
        self.run_rehash = code.function("rehash", address, address, ctypes.c_int64)

    # --- building ---

    def parts(self) -> Iterator[str]:
        yield str(self.symmetry)
        yield from super().parts()

    def _build(self) -> ir.Module:
        self.module = ir.Module("raftworthy")
        self.prints.build(self.module)
        self.check_state = self.checker("check_state", self.invariants, 1)
        self.check_step = self.checker("check_step", self.step_properties, 2)
        self.settle = self._settler()
        self.finish = self._finisher()
        self.expanders = [self._expander(k, t) for k, t in enumerate(self.transitions)]
        self.expand = self._expand()
        self.start = self._start()
        self.rehash = self._rehash()
        return self.module

    def row_words(self, messages: Word) -> Word:
        """How long a row with so many messages is."""
        more = self.messages_a_word - 1
        return ((messages + more) >> more) + self.row_fixed

    def _expander(self, number: int, t: Transition) -> Code:
        """`f(context, row, m, k)`: every step of an action; a handler's, with message m, the row's kth."""

        def before(code: Code) -> Word:
            return code.address(code.args[1], self.row_head)

        def taken(code: Code, w: Lowering, ordinal: Word) -> None:
            self._step(code, w, t, ordinal | (number << ORDINAL_BITS))

        return self.expander(f"expand_{t.name}", t, before, taken)

    def _step(self, code: Code, w: Lowering, t: Transition, move: Word) -> None:
        """Write the state after a step to the context, and have it finished."""
        context, row = code.args[:2]
        before, successor = code.address(row, self.row_head), self._successor(code, context)
        after, sends = code.address(successor, self.in_after), code.address(successor, self.in_sends)
        words, sent, fits = self.outcome(code, w, t, before)
        with code.when(~fits):
            code.store(context, At.MOVE, move)
            code.leave(Stop.MISFIT)
        for k in range(self.layout.words):
            code.store(after, k, code.load(before, k))
        for place, word in words:
            code.store(after, place, word)
        count = code.const(0)
        for condition, message in sent:
            code.store(sends, count, message)
            count = count + condition.number()
        stop = code.call(self.finish, context, row, count, move)
        code.leave_if(stop.differs(0), stop)

    def _successor(self, code: Code, context: Word) -> Word:
        """Where the next successor is written."""
        waiting = code.load(context, At.BATCH)
        return code.address(context, waiting * self.successor_words + self.at_successors)

    def _finisher(self) -> Code:
        """`f(context, row, sent, move)`: count a step, and compute the fingerprint of the state after it.

        The table is too large for a cache, so the place is only asked for here; it is looked at when
        more such places have been asked for.
        """
        code = Code(self.module, "finish", 4, 2)
        context, row, sent, move = code.args
        most = self.layout.bounds.max_messages
        before, successor = code.address(row, self.row_head), self._successor(code, context)
        after = code.address(successor, self.in_after)
        fresh = self._keep_fresh(code, row, code.address(successor, self.in_sends), sent)
        if most is not None:
            code.leave_if(fresh.differs(0) & ~(code.load(row, 0) + fresh).at_most(most), 0)
        code.add_to(context, At.STEPS, 1)

        stays = ~self._differ(code, before, after, range(self.layout.words))
        # One step that changes no variables says what any other says of the properties.
        checked = stays & code.load(context, At.STAYED).differs(0)
        code.leave_if(checked & fresh.equals(0), 0)
        with code.when(stays):
            code.store(context, At.STAYED, 1)
        for place, x in ((In.MOVE, move), (In.FRESH, fresh), (In.CHANGED, ~stays), (In.CHECK, ~checked)):
            code.store(successor, place, x.number())
        code.store(successor, In.KEY, 0)
        with code.when(~(stays & fresh.equals(0))):
            self._add_up(code, context, row, successor, stays)
            key = self.prints.of(code, code.address(successor, self.in_sums))
            first = first_place(code, key, code.load(context, At.TABLE_SIZE))
            code.prefetch(code.address(code.pointer(code.load(context, At.TABLE)), first))
            code.store(successor, In.KEY, key)
            code.store(successor, In.PLACE, first)
        code.add_to(context, At.BATCH, 1)
        with code.when(code.load(context, At.BATCH).equals(BATCH)):
            code.leave(code.call(self.settle, context, row))
        code.leave(0)
        return code

    def _settler(self) -> Code:
        """`f(context, row)`: check the successors that wait, and keep those that are new."""
        code = Code(self.module, "settle", 2, 2)
        context, row = code.args
        before = code.address(row, self.row_head)
        with code.loop(0, code.load(context, At.BATCH)) as (k, go_on):
            successor = code.address(context, k * self.successor_words + self.at_successors)
            after = code.address(successor, self.in_after)
            if self.step_properties:
                with code.when(code.load(successor, In.CHECK).differs(0)):
                    broken = code.call(self.check_step, before, after)
                    self._leave_if_broken(code, context, broken, len(self.invariants), successor)
            key = code.load(successor, In.KEY)
            code.unless(key.equals(0), go_on)
            code.unless(self._insert(code, context, key, code.load(successor, In.PLACE)), go_on)
            self._keep(code, context, row, successor)
            if self.invariants:
                with code.when(code.load(successor, In.CHANGED).differs(0)):
                    broken = code.call(self.check_state, after)
                    self._leave_if_broken(code, context, broken, 0, successor)
        code.store(context, At.BATCH, 0)
        code.leave(0)
        return code

    def _keep_fresh(self, code: Code, row: Word, sends: Word, sent: Word) -> Word:
        """Move the messages that were never sent before to the front, and count them."""
        messages = code.address(row, self.row_fixed)
        fresh = code.local(0)
        with code.loop(0, sent) as (k, known):
            m = code.load(sends, k)
            with code.loop(0, code.load(row, 0)) as (j, _):
                code.unless(code.load(messages, j, self.message_type).equals(m), known)
            with code.loop(0, code.load(fresh, 0)) as (j, _):
                code.unless(code.load(sends, j).equals(m), known)
            code.store(sends, code.load(fresh, 0), m)
            code.add_to(fresh, 0, 1)
        return code.load(fresh, 0)

    @staticmethod
    def _differ(code: Code, a: Word, b: Word, places: Iterable[int | Word]) -> Word:
        """Whether two states have different words at any of these places."""
        out = code.const(0)
        for k in places:
            out = out | (code.load(a, k) ^ code.load(b, k))
        return out.differs(0)

    @staticmethod
    def _leave_if_broken(code: Code, context: Word, broken: Word, earlier: int, successor: Word) -> None:
        """Stop at a property that doesn't hold; `earlier` properties are numbered before these."""
        with code.when(broken.differs(0)):
            code.store(context, At.MOVE, code.load(successor, In.MOVE))
            code.store(context, At.PROPERTY, broken + earlier)
            code.leave(Stop.VIOLATED)

    def _add_up(self, code: Code, context: Word, row: Word, successor: Word, stays: Word) -> None:
        """The sums after a step: those before it, changed by what the step changed."""
        lay, n = self.layout, len(self.layout.servers)
        before, after = code.address(row, self.row_head), code.address(successor, self.in_after)
        sums = code.address(successor, self.in_sums)
        for r in range(self.sums):
            code.store(sums, r, code.load(row, 1 + r))
        with code.when(~stays):
            with code.loop(0, n) as (i, _):
                mine = [i * lay.server_words + k for k in range(lay.server_words)]
                with code.when(self._differ(code, before, after, mine)):
                    self._take_off(code, context, sums, i)
                    code.call(self.prints.hash_server, code.address(after, mine[0]), sums, i)
            past = lay.words - lay.history_words
            with code.when(self._differ(code, before, after, range(past, lay.words))):
                self._take_off(code, context, sums, code.const(n))
                code.call(self.prints.hash_history, code.address(after, past), sums, 0)
        with code.loop(0, code.load(successor, In.FRESH)) as (k, _):
            code.call(self.prints.hash_message, sums, code.load(successor, k + self.in_sends))

    def _keep(self, code: Code, context: Word, row: Word, successor: Word) -> None:
        """Copy a new state to the end of the next level, and write down how it was reached."""
        n, fresh, mt = code.load(row, 0), code.load(successor, In.FRESH), self.message_type
        new = code.address(code.pointer(code.load(context, At.NEXT)), code.load(context, At.NEXT_USED))
        code.store(new, 0, n + fresh)
        for r in range(self.sums):
            code.store(new, 1 + r, code.load(successor, self.in_sums + r))
        for w in range(self.layout.words):
            code.store(new, self.row_head + w, code.load(successor, self.in_after + w))
        old, messages = code.address(row, self.row_fixed), code.address(new, self.row_fixed)
        with code.loop(0, n) as (k, _):
            code.store(messages, k, code.load(old, k, mt), mt)
        with code.loop(0, fresh) as (k, _):
            code.store(messages, n + k, code.load(successor, k + self.in_sends), mt)
        code.add_to(context, At.NEXT_USED, self.row_words(n + fresh))
        trail = code.pointer(code.load(context, At.TRAIL))
        step = code.load(successor, In.MOVE) | (code.load(context, At.PARENT) << PARENT_SHIFT)
        code.store(trail, code.load(context, At.TRAIL_USED), step)
        code.add_to(context, At.TRAIL_USED, 1)

    def _take_off(self, code: Code, context: Word, sums: Word, group: Word) -> None:
        """Take a group's part before the step off the sums."""
        for r in range(self.sums):
            known = code.load(context, group * self.sums + (self.at_known + r))
            code.store(sums, r, code.load(sums, r) - known)

    def _insert(self, code: Code, context: Word, key: Word, first: Word | None = None) -> Word:
        """Put a fingerprint into the table, looking from place `first` on. Whether it was there."""
        table, size = code.pointer(code.load(context, At.TABLE)), code.load(context, At.TABLE_SIZE)
        head, occupied, step, free, after = (code.block() for _ in range(5))
        first, before = first or first_place(code, key, size), code.b.block
        code.b.branch(head)
        code.b.position_at_end(head)
        phi = code.b.phi(I64)
        phi.add_incoming(first.v, before)
        place = Word(code.b, phi)
        found = code.load(table, place)
        code.b.cbranch(found.equals(0).v, free, occupied)
        code.b.position_at_end(occupied)
        code.b.cbranch(found.equals(key).v, after, step)
        code.b.position_at_end(step)
        following = (place + 1).equals(size).where(0, place + 1)
        phi.add_incoming(following.v, step)
        code.b.branch(head)
        code.b.position_at_end(free)
        code.store(table, place, key)
        code.add_to(context, At.TABLE_USED, 1)
        code.b.branch(after)
        code.b.position_at_end(after)
        seen = code.b.phi(I1)
        seen.add_incoming(ir.Constant(I1, 1), occupied)
        seen.add_incoming(ir.Constant(I1, 0), free)
        return Word(code.b, seen)

    def _expand(self) -> Code:
        """`expand(context)`: the successors of the level's rows, until something stops it."""
        code = Code(self.module, "expand", 1, 1, inside=False)
        (context,) = code.args
        head, done = code.block(), code.block()
        code.b.branch(head)
        code.b.position_at_end(head)
        at = code.load(context, At.ROWS_AT)
        code.unless(~at.less(code.load(context, At.ROWS_END)), done)
        code.leave_if(code.load(context, At.BUDGET).equals(0), Stop.PAUSE)
        limit = code.load(context, At.STATES_LIMIT)
        code.leave_if(~code.load(context, At.TABLE_USED).below(limit), Stop.PAUSE)
        row = code.address(code.pointer(code.load(context, At.ROWS)), at)
        self._leave_for_room(code, context, row)
        self._expand_row(code, context, row)
        code.add_to(context, At.ROWS_AT, self.row_words(code.load(row, 0)))
        code.add_to(context, At.PARENT, 1)
        code.add_to(context, At.BUDGET, -1)
        code.b.branch(head)
        code.b.position_at_end(done)
        code.leave(Stop.DONE)
        return code

    def _leave_for_room(self, code: Code, context: Word, row: Word) -> None:
        """Stop unless there is place for all successors of a row, were they all new."""
        n = code.load(row, 0)
        most = n + sum(map(self.ways, self.transitions))
        words = most * self.row_words(n + self.most_sends)
        code.store(context, At.NEED_WORDS, words)
        code.store(context, At.NEED_STATES, most)
        enough = words.at_most(code.load(context, At.NEXT_ROOM) - code.load(context, At.NEXT_USED))
        for room, used in ((At.TRAIL_ROOM, At.TRAIL_USED), (At.TABLE_LIMIT, At.TABLE_USED)):
            enough = enough & most.at_most(code.load(context, room) - code.load(context, used))
        code.leave_if(~enough, Stop.ROOM)

    def _expand_row(self, code: Code, context: Word, row: Word) -> None:
        """Try every action, then every message."""
        lay, n = self.layout, len(self.layout.servers)
        before, known = code.address(row, self.row_head), code.address(context, self.at_known)
        code.store(context, At.STAYED, 0)
        for place in range((n + 1) * self.sums):
            code.store(known, place, 0)
        with code.loop(0, n) as (i, _):
            mine = code.address(known, i * self.sums)
            code.call(self.prints.hash_server, code.address(before, i * lay.server_words), mine, i)
        past = code.address(before, lay.words - lay.history_words)
        code.call(self.prints.hash_history, past, code.address(known, n * self.sums), 0)
        for t, f in zip(self.transitions, self.expanders, strict=True):
            if not t.action.message:
                stop = code.call(f, context, row, 0, 0)
                code.leave_if(stop.differs(0), stop)
        messages = code.address(row, self.row_fixed)
        with code.loop(0, code.load(row, 0)) as (k, go_on):
            m = code.load(messages, k, self.message_type)

            def handle(number: int, m: Word = m, k: Word = k) -> None:
                stop = code.call(self.expanders[number], context, row, m, k)
                code.leave_if(stop.differs(0), stop)

            self.dispatch(code, m, handle, go_on)
        stop = code.call(self.settle, context, row)
        code.leave_if(stop.differs(0), stop)

    def _start(self) -> Code:
        """`start(context, row)`: compute a row's sums, and put its fingerprint into the table."""
        code = Code(self.module, "start", 2, 2, inside=False)
        context, row = code.args
        lay = self.layout
        before, sums = code.address(row, self.row_head), code.address(row, 1)
        for r in range(self.sums):
            code.store(sums, r, 0)
        with code.loop(0, len(lay.servers)) as (i, _):
            code.call(self.prints.hash_server, code.address(before, i * lay.server_words), sums, i)
        code.call(self.prints.hash_history, code.address(before, lay.words - lay.history_words), sums, 0)
        with code.loop(0, code.load(row, 0)) as (k, _):
            messages = code.address(row, self.row_fixed)
            code.call(self.prints.hash_message, sums, code.load(messages, k, self.message_type))
        code.leave(self._insert(code, context, self.prints.of(code, sums)).number())
        return code

    def _rehash(self) -> Code:
        """`rehash(context, old, size)`: put all fingerprints of another table into the context's."""
        code = Code(self.module, "rehash", 3, 2, inside=False)
        context, old, size = code.args
        with code.loop(0, size) as (k, go_on):
            key = code.load(old, k)
            code.unless(key.equals(0), go_on)
            self._insert(code, context, key)
        code.leave(0)
        return code

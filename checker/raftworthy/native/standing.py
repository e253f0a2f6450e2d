"""What is kept in a reduced search: a state that stands for the one after a step, made in a place of its own.

Servers that lag forget what is of no concern, messages that only have to be sent are sent, those that are
handled at once are handled, and those that can do nothing any more are dropped.

    U  what is kept of a state     top  the highest clock     i  a server     m  a message
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from raftspec.graph import Node
from raftspec.tracing import Transition
from raftspec.types import zero
from raftworthy.native.actions import Taken
from raftworthy.native.fingerprints import fingerprint
from raftworthy.native.layout import Slot
from raftworthy.native.lowering import Lowering, Value
from raftworthy.native.words import Code, Word
from raftworthy.reduce.permits import Permits

if TYPE_CHECKING:
    from raftworthy.native.program import Program


class Standing:
    """Builds what makes U of a state."""

    def __init__(self, program: Program, permits: Permits) -> None:
        self.program, self.permits = program, permits
        lay = self.lay = program.layout
        self.most = program.rows.most_messages
        self.at_state = program.context_words  # U, its messages, how many there are, and the highest clock
        self.at_messages = self.at_state + lay.words
        self.at_count = self.at_messages + self.most
        self.at_top = self.at_count + 1
        self.at_crowded = self.at_top + 1
        self.at_old = self.at_crowded + 1  # how many of the messages were there before the step
        self.at_moved = self.at_old + 1  # a bit for each server that is not as it was
        self.at_absorbed = self.at_moved + 1  # whether a message was handled
        self.words = self.at_absorbed + 1 - self.at_state

    # --- places ---

    def state(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_state)

    def messages(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_messages)

    def count(self, code: Code, context: Word) -> Word:
        return code.load(context, self.at_count)

    def clock_slot(self) -> Slot:
        assert self.permits.clock is not None
        return self.lay.server[self.permits.clock[0]]

    def clock(self, code: Code, words: Word, i: Word | int) -> Word:
        """Server i's clock."""
        slot = self.clock_slot()
        at = i * self.lay.server_words + slot.word
        return code.load(words, at).cut(slot.shift, slot.width)

    def top(self, code: Code, words: Word) -> Word:
        """The highest clock."""
        out = self.clock(code, words, 0)
        for i in range(1, len(self.lay.servers)):
            other = self.clock(code, words, i)
            out = out.less(other).where(other, out)
        return out

    # --- functions ---

    def build(self, module: ir.Module) -> None:
        """Build what the program's own functions don't do; its checkers are there."""
        program, lay = self.program, self.lay
        self.eager = [
            program.expander(f"send_{t.name}", t, lambda code: self.state(code, code.args[0]), self._sends(t))
            if t.sends
            else None
            for t in program.transitions
        ]
        self.send_all = self._send_all(module) if self.permits.eager else None
        catching_up = next((t for t in program.transitions if t.name == self.permits.catch_up), None)
        self.catch_up = self._catch_up(module, catching_up) if catching_up else None
        self.idle = {
            kind: self._idle(module, next(t for t in program.transitions if t.action.message is cls))
            for kind, cls in enumerate(lay.kinds)
            if cls.__name__ in self.permits.idle
        }
        self.absorb = {
            kind: self._absorb(module, next(t for t in program.transitions if t.action.message is cls))
            for kind, cls in enumerate(lay.kinds)
            if cls.__name__ in self.permits.absorbed
        }
        self.drop = self._drop(module)
        self.normalise = self._normalise(module)
        self.key = self._key(module)

    # --- what stands for a state ---

    def _normalise(self, module: ir.Module) -> Code:
        """`f(context)`: change U into what stands for it."""
        code = Code(module, "normalise", 1, 1)
        (context,) = code.args
        if self.permits.clock:
            code.store(context, self.at_top, self.top(code, self.state(code, context)))
            self._simplify(code, context)
        if self.absorb:
            self._absorb_all(code, context)
        elif self.send_all:
            code.call(self.send_all, context)
        code.call(self.drop, context)
        code.leave(0)
        return code

    def _simplify(self, code: Code, context: Word) -> None:
        """Have servers that lag catch up, and forget what is of no concern of them and of history."""
        permits, lay = self.permits, self.lay
        state, top = self.state(code, context), code.load(context, self.at_top)
        for i in range(len(lay.servers)):
            with code.when(self.clock(code, state, i).less(top)):
                if self.catch_up:
                    head, done = code.block(), code.block()
                    code.b.branch(head)
                    code.b.position_at_end(head)
                    code.unless(~(self.clock(code, state, i) + 1).less(top), done)
                    code.b.cbranch(code.call(self.catch_up, context, i).differs(0).v, head, done)
                    code.b.position_at_end(done)
                for name in permits.forgotten:
                    self._clear(code, state, i * lay.server_words, lay.server[name])
        past = self.program.past
        for name in permits.untold:
            self._clear(code, state, past, lay.history[name])
        for name in permits.records:
            slot = lay.history[name]
            assert slot.type.of is not None
            older = code.const(-1).lowest(top * lay.width(slot.type.of)) << slot.shift
            nothing = lay.encode(slot.type, {}) << slot.shift
            word = code.load(state, past + slot.word)
            code.store(state, past + slot.word, (word & ~older) | (older & nothing))

    def _clear(self, code: Code, state: Word, start: int, slot: Slot) -> None:
        """Make a variable say nothing."""
        nothing = self.lay.encode(slot.type, zero(slot.type), slot.room)
        word = code.load(state, start + slot.word) & ~(((1 << slot.width) - 1) << slot.shift)
        code.store(state, start + slot.word, word | (nothing << slot.shift))

    def _catch_up(self, module: ir.Module, t: Transition) -> Code:
        """`f(context, i)`: have server i of U take the step by which it catches up; whether it could."""
        code = Code(module, "catch_up", 2, 1)
        context, i = code.args
        state = self.state(code, context)
        variable = self.program.variable([state])
        w = Lowering(code, self.lay, lambda w, n: i if n.op == "param" else variable(w, n))
        for g in t.guards:
            code.leave_if(~w.value(g.condition), 0)
        words, _, fits = self.program.outcome(code, w, t, state)
        code.leave_if(~fits, 0)
        for place, word in words:
            code.store(state, place, word)
        code.leave(1)
        return code

    def _handling(self, module: ir.Module, name: str, t: Transition) -> tuple[Code, Lowering, Word, Word]:
        """A function `f(context, m)` about handling m in U; its expressions, who handles it, and if in time.

        In time is a message that carries its receiver's clock, if that is the highest.
        """
        lay, cls = self.lay, t.action.message
        assert cls is not None
        assert self.permits.clock is not None
        code = Code(module, f"{name}_{t.name}", 2, 1)
        context, m = code.args
        state, slots = self.state(code, context), lay.message[cls]
        variable = self.program.variable([state])

        def leaf(w: Lowering, n: Node) -> Value:
            return w.unpacked(slots[n.attr[1]], m) if n.op == "message" else variable(w, n)

        w = Lowering(code, lay, leaf)
        i, carried = w.value(t.server), slots[self.permits.clock[1]]
        top = code.load(context, self.at_top)
        in_time = self.clock(code, state, i).equals(top) & m.cut(carried.shift, carried.width).equals(top)
        for g in t.guards:
            in_time = in_time & w.value(g.condition)
        return code, w, i, in_time

    def _idle(self, module: ir.Module, t: Transition) -> Code:
        """`f(context, m)`: whether handling m changes nothing in U, sends nothing, and never will."""
        code, w, i, in_time = self._handling(module, "idle", t)
        state = self.state(code, code.args[0])
        code.leave_if(~in_time, 0)
        slot = self.lay.server[self.permits.role]
        role = code.load(state, i * self.lay.server_words + slot.word).cut(slot.shift, slot.width)
        assert t.action.message is not None
        stays = code.truth(False)
        for value in self.permits.idle[t.action.message.__name__]:
            stays = stays | role.equals(value)
        words, sent, fits = self.program.outcome(code, w, t, state)
        stays = stays & fits
        for place, word in words:
            stays = stays & code.load(state, place).equals(word)
        for condition, _ in sent:
            stays = stays & ~condition
        code.leave(stays.number())
        return code

    def _absorb(self, module: ir.Module, t: Transition) -> Code:
        """`f(context, m)`: handle m in U; whether that changes anything."""
        code, w, _, in_time = self._handling(module, "absorb", t)
        state = self.state(code, code.args[0])
        code.leave_if(~in_time, 0)
        words, _, fits = self.program.outcome(code, w, t, state)
        code.leave_if(~fits, 0)
        changes = code.truth(False)
        for place, word in words:
            changes = changes | code.load(state, place).differs(word)
        for place, word in words:
            code.store(state, place, word)
        code.leave(changes.number())
        return code

    def _target(self, m: Word) -> Word:
        slot = self.lay.message[self.lay.kinds[0]]["target"]  # it lies there in every kind
        return m.cut(slot.shift, slot.width)

    def _concerned(self, code: Code, context: Word, m: Word, k: Word) -> Word:
        """Whether the k-th message is new, or its receiver not as it was; of others nothing new comes."""
        moved = (code.load(context, self.at_moved) >> self._target(m)).truth()
        return moved | ~k.less(code.load(context, self.at_old))

    def _absorb_all(self, code: Code, context: Word) -> None:
        """Handle in U what is handled at once, and send, until nothing is new."""
        messages, changed = self.messages(code, context), code.local(0)
        again, done = code.block(), code.block()
        code.b.branch(again)
        code.b.position_at_end(again)
        if self.send_all:
            code.call(self.send_all, context)
        code.store(changed, 0, 0)
        with code.loop(0, self.count(code, context)) as (k, _):
            m = code.load(messages, k)
            for kind, f in self.absorb.items():
                mine = m.cut(0, self.lay.kind_bits).equals(kind) & self._concerned(code, context, m, k)
                with code.when(mine), code.when(code.call(f, context, m).differs(0)):
                    code.store(changed, 0, 1)
                    code.store(context, self.at_absorbed, 1)
                    moved = code.const(1) << self._target(m)
                    code.store(context, self.at_moved, code.load(context, self.at_moved) | moved)
        code.b.cbranch(code.load(changed, 0).differs(0).v, again, done)
        code.b.position_at_end(done)

    def _sends(self, t: Transition) -> Taken:
        def taken(code: Code, w: Lowering, ordinal: Word) -> None:
            """Send what a step sends that does nothing else, and isn't out of order."""
            context = code.args[0]
            state = self.state(code, context)
            over, i = code.block(), w.value(t.server)
            turn = code.truth(True)
            if not t.action.message:
                turn = (code.load(context, self.at_moved) >> i).truth()
            if self.permits.clock:
                turn = turn & self.clock(code, state, i).equals(code.load(context, self.at_top))
            code.unless(~turn, over)
            words, sent, stays = self.program.outcome(code, w, t, state)
            for place, word in words:
                stays = stays & code.load(state, place).equals(word)
            code.unless(~stays, over)
            messages = self.messages(code, context)
            for condition, m in sent:
                with code.when(condition):
                    known, n = code.block(), self.count(code, context)
                    with code.loop(0, n) as (k, _):
                        code.unless(code.load(messages, k).equals(m), known)
                    full = ~n.less(self.most)
                    with code.b.if_else(full.v) as (yes, no):
                        with yes:
                            code.store(context, self.at_crowded, 1)
                        with no:
                            code.store(messages, n, m)
                            code.store(context, self.at_count, n + 1)
                    code.b.branch(known)
                    code.b.position_at_end(known)
            code.b.branch(over)
            code.b.position_at_end(over)

        return taken

    def _send_all(self, module: ir.Module) -> Code:
        """`f(context)`: send in U what can be sent by steps that do nothing else, until nothing is new."""
        code = Code(module, "send_all", 1, 1)
        (context,) = code.args
        program, state = self.program, self.state(code, context)
        for t, f in zip(program.transitions, self.eager, strict=True):
            if f is not None and not t.action.message:
                code.call(f, context, state, 0, 0)
        if self.permits.assumed:
            self._answer_old(code, context)
        # The messages that are sent on the way are at the end, so they are handled, too.
        messages, k = self.messages(code, context), code.local(0)
        head, done = code.block(), code.block()
        code.b.branch(head)
        code.b.position_at_end(head)
        number = code.load(k, 0)
        code.unless(~number.less(self.count(code, context)), done)
        code.store(k, 0, number + 1)
        m = code.load(messages, number)
        code.unless(~self._concerned(code, context, m, number), head)

        def handle(action: int) -> None:
            f = self.eager[action]
            if f is not None:
                code.call(f, context, state, m, number)

        program.dispatch(code, m, handle, head)
        code.b.branch(head)  # of the block that is never reached
        code.b.position_at_end(done)
        code.leave(0)
        return code

    def _answer_old(self, code: Code, context: Word) -> None:
        """Send what anybody would answer to an old message of which only the sender matters."""
        lay, names = self.lay, range(len(self.lay.servers))
        with code.when(code.load(context, self.at_top).differs(0)):  # nothing is older than 0
            for number, t in enumerate(self.program.transitions):
                cls, f = t.action.message, self.eager[number]
                if cls is None or f is None or cls.__name__ not in self.permits.faded:
                    continue
                slots, kind = lay.message[cls], lay.kinds.index(cls)
                for j in names:  # who is as it was has answered before
                    with code.when((code.load(context, self.at_moved) >> j).truth()):
                        for i in set(names) - {j}:
                            m = kind | i << slots["source"].shift | j << slots["target"].shift
                            code.call(f, context, self.state(code, context), m, 0)

    def _drop(self, module: ir.Module) -> Code:
        """`f(context)`: drop the messages of U that can do nothing any more."""
        code = Code(module, "drop", 1, 1)
        (context,) = code.args
        messages, kept = self.messages(code, context), code.local(0)
        with code.loop(0, self.count(code, context)) as (k, go_on):
            m = code.load(messages, k)
            m = self._left(code, context, m, k, go_on)
            if self.permits.faded and not self.permits.assumed:
                with code.loop(0, code.load(kept, 0)) as (j, _):
                    code.unless(code.load(messages, j).equals(m), go_on)
            code.store(messages, code.load(kept, 0), m)
            code.add_to(kept, 0, 1)
        code.store(context, self.at_count, code.load(kept, 0))
        code.leave(0)
        return code

    def _left(self, code: Code, context: Word, m: Word, k: Word, dropped: ir.Block) -> Word:
        """What is left of the k-th message; goes on at `dropped` if nothing is."""
        permits, lay = self.permits, self.lay
        if permits.clock is None:
            return m
        for kind, cls in enumerate(lay.kinds):
            if cls.__name__ not in (*permits.silent, *permits.faded):
                continue
            slots = lay.message[cls]
            carried = slots[permits.clock[1]]
            older = m.cut(carried.shift, carried.width).less(code.load(context, self.at_top))
            older = older & m.cut(0, lay.kind_bits).equals(kind)
            if permits.assumed or cls.__name__ in permits.silent:
                code.unless(older, dropped)
            else:
                mask = (1 << lay.kind_bits) - 1
                for name in ("source", "target"):
                    mask |= ((1 << slots[name].width) - 1) << slots[name].shift
                m = older.where(m & mask, m)
        for kind, f in self.idle.items():
            with code.when(m.cut(0, lay.kind_bits).equals(kind) & self._concerned(code, context, m, k)):
                code.unless(code.call(f, context, m).differs(0), dropped)
        return m

    def _key(self, module: ir.Module) -> Code:
        """`f(context)`: U's fingerprint."""
        program = self.program
        code = Code(module, "key", 1, 1)
        (context,) = code.args
        known, state = program.known(code, context), self.state(code, context)
        program.prints.begin(code, known, state, self.messages(code, context), self.count(code, context))
        code.leave(program.narrowed(fingerprint(code, program.prints, known, state)))
        return code

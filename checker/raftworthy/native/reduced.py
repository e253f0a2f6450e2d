"""Successors of a reduced search: which steps are taken, and what of the states after them is kept.

What may be left out is said by `raftworthy.reduce.permits`. A step is checked as it is. What is then kept is
a state that stands for the one after it (`standing`). Its fingerprint is made from all of it, for little is
as it was.

    S, T  the variables' words before and after a step     U  what is kept of T     i  a server
"""

from __future__ import annotations

from llvmlite import ir

from raftworthy.native.context import NO_PARENT, At, Stop
from raftworthy.native.standing import Standing
from raftworthy.native.words import Code, Word


class Reduction(Standing):
    """Builds what a reduced search does with a step."""

    def finisher(self, module: ir.Module) -> Code:
        """`f(context, i, sent, move)`: take a step of server i if it is its turn, and keep what is new."""
        program = self.program
        code = Code(module, "finish", 4, 1)
        context, i, sent, move = code.args
        lay = self.lay
        before, after = program.before(code, context), program.after(code, context)
        if self.permits.clock:
            late = self.clock(code, after, i).less(self.top(code, before))
            code.leave_if(late, 0)
        successor = program.successor(code, context, code.const(0))
        sends = code.address(successor, program.in_sends)
        fresh = program.keep_fresh(code, context, sends, sent)
        code.add_to(context, At.STEPS, 1)
        stays = ~program.differ(code, before, after, range(lay.words))
        code.leave_if(stays & code.load(context, At.STAYED).differs(0), 0)
        with code.when(stays):
            code.store(context, At.STAYED, 1)
        if program.step_properties:
            past = program.differ(code, before, after, range(program.past, lay.words))
            broken = code.call(program.check_step, before, after, i, past.number())
            program.leave_if_broken(code, context, broken, len(program.invariants), move)
        # What only sends was sent when this state was made.
        if self.permits.eager:
            code.leave_if(stays, 0)
        else:
            code.leave_if(stays & fresh.equals(0), 0)
        moved = code.const(1) << i
        self._take_over(code, context, after, code.load(context, At.MESSAGES), sends, fresh, moved)
        code.call(self.normalise, context)
        code.leave_if(code.load(context, self.at_crowded).differs(0), Stop.CROWDED)
        self._keep(code, context, move)
        code.leave(0)
        return code

    def _check(self, code: Code, context: Word, move: Word) -> None:
        """Check T, of which a new state is made; and that one, if messages were handled on the way."""
        program = self.program
        if program.invariants:
            broken = code.call(program.check_state, program.after(code, context))
            program.leave_if_broken(code, context, broken, 0, move)
            with code.when(code.load(context, self.at_absorbed).differs(0)):
                broken = code.call(program.check_state, self.state(code, context))
                program.leave_if_broken(code, context, broken, 0, move)

    def _take_over(
        self, code: Code, context: Word, words: Word, n: Word, sends: Word, fresh: Word, moved: Word
    ) -> None:
        """Make U of words, the state's n messages, and new ones. `moved`: a bit for who isn't as before."""
        state, messages = self.state(code, context), self.messages(code, context)
        old = self.program.messages(code, context)
        for w in range(self.lay.words):
            code.store(state, w, code.load(words, w))
        with code.loop(0, n) as (k, _):
            code.store(messages, k, code.load(old, k))
        with code.loop(0, fresh) as (k, _):
            code.store(messages, n + k, code.load(sends, k))
        code.store(context, self.at_count, n + fresh)
        for place, x in (
            (self.at_crowded, 0),
            (self.at_absorbed, 0),
            (self.at_old, n),
            (self.at_moved, moved),
        ):
            code.store(context, place, x)

    def _keep(self, code: Code, context: Word, move: Word) -> None:
        """Keep U if it is new, or send it to its owner."""
        program = self.program
        key = code.call(self.key, context)
        g, first = program.tables.locate(code, context, key)
        table = program.tables.described(code, context, g)
        seen, place = program.tables.find(code, table, key, first)
        with code.when(~seen):
            self._check(code, context, move)
            program.admit(
                code, context, key, g, table, place, move, None, lambda row: self._write(code, context, row)
            )

    def _write(self, code: Code, context: Word, row: Word) -> Word:
        """Write U as a row; its length."""
        rows, n = self.program.rows, self.count(code, context)
        messages = self.messages(code, context)
        rows.write_words(code, row, self.state(code, context), n)
        with code.loop(0, n) as (k, _):
            code.write(row, k * rows.message + rows.fixed, code.load(messages, k))
        return rows.length(n)

    def start(self, module: ir.Module) -> Code:
        """`start(context, row)`: write down the first state's fingerprint and row, if it is this thread's."""
        program = self.program
        code = Code(module, "start", 2, 2, inside=False)
        context, row = code.args
        before, messages = program.before(code, context), program.messages(code, context)
        n = program.rows.unpack(code, row, before, messages)
        everybody = code.const((1 << len(self.lay.servers)) - 1)
        self._take_over(code, context, before, n, messages, code.const(0), everybody)
        code.call(self.normalise, context)
        key = code.call(self.key, context)
        g, first = program.tables.locate(code, context, key)
        code.leave_if(program.tables.owner(g).differs(code.load(context, At.SHARD)), 0)
        table = program.tables.described(code, context, g)
        _, place = program.tables.find(code, table, key, first)
        program.tables.put(code, context, table, place, key)
        program.note(code, context, key, code.const(NO_PARENT))
        size = self._write(code, context, program.next_row(code, context))
        code.add_to(context, At.NEXT_USED, size)
        code.leave(1)
        return code

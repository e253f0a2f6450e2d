"""What becomes of a step: it is counted, checked, and known by a fingerprint; a state never seen is kept.

A step's new variables are written over a copy of the state, and only what changed is noted, in a list of
successors that wait until their places in the table were fetched.

    S, T  the variables' words before and after a step     i  the server that takes it
"""

from __future__ import annotations

from collections.abc import Iterable

from raftspec.graph import Node, rewritten
from raftspec.tracing import Transition
from raftworthy.explore.model import Model
from raftworthy.native import NoPlaceError
from raftworthy.native.actions import Actions
from raftworthy.native.context import ACTION_BITS, BATCH, ORDINAL_BITS, At, In, Stop
from raftworthy.native.fingerprints import Plain, Prints, Step
from raftworthy.native.lowering import Lowering
from raftworthy.native.rows import Rows
from raftworthy.native.symmetry import Symmetric
from raftworthy.native.table import Tables
from raftworthy.native.words import Code, Word


class Successors(Actions):
    """A model's steps as a search takes them, and where in the context a state under work lies."""

    finish: Code
    settle: Code
    check_state: Code
    check_step: Code

    def __init__(
        self, model: Model, properties: Iterable[str], symmetry: bool, exact: bool, key_bits: int
    ) -> None:
        super().__init__(model, properties)
        self.key_bits = key_bits
        self.prints: Prints = Symmetric(self.layout) if symmetry else Plain(self.layout)
        self.tables = Tables(exact)
        self.rows = Rows(self.layout)
        if max(map(self.ways, self.transitions)) > 1 << ORDINAL_BITS:
            raise NoPlaceError(f"an action has more than {1 << ORDINAL_BITS} choices within these bounds")
        assert len(self.transitions) <= 1 << ACTION_BITS
        # The context's places of varying size.
        self.at_before = int(At.SCRATCH)  # S, T, and the messages
        self.at_after = self.at_before + self.layout.words
        self.at_messages = self.at_after + self.layout.words
        self.at_known = self.at_messages + self.rows.most_messages
        self.at_successors = self.at_known + self.prints.known_words
        self.in_past = int(In.WORDS) + self.layout.server_words
        self.in_sends = self.in_past + self.layout.history_words
        self.successor_words = self.in_sends + self.most_sends
        self.context_words = self.at_successors + BATCH * self.successor_words

    # --- places in the context ---

    def before(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_before)

    def after(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_after)

    def messages(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_messages)

    def known(self, code: Code, context: Word) -> Word:
        return code.address(context, self.at_known)

    def successor(self, code: Code, context: Word, k: Word) -> Word:
        """Where the k-th successor that waits is noted."""
        return code.address(context, k * self.successor_words + self.at_successors)

    @property
    def past(self) -> int:
        """Where among a state's words history's begin."""
        return self.layout.words - self.layout.history_words

    def narrowed(self, key: Word) -> Word:
        """A fingerprint with as many bits as count."""
        return key | ((1 << (64 - self.key_bits)) - 1) if self.key_bits < 64 else key

    # --- a step ---

    def build_steps(self) -> None:
        """Build the functions in the module."""
        self.check_state = self.checker("check_state", self.invariants, 1)
        self.check_step = self._step_checker()
        self.settle = self._settler()
        self.finish = self.finisher()
        self.expanders = [self._expander(k, t) for k, t in enumerate(self.transitions)]

    def keep(self, code: Code, context: Word, k: Word) -> None:
        """Build what becomes of the k-th successor that waited."""
        raise NotImplementedError

    def _expander(self, number: int, t: Transition) -> Code:
        """`f(context, S, m, k)`: every step of an action; a handler's, with message m, the row's kth."""

        def taken(code: Code, w: Lowering, ordinal: Word) -> None:
            self._step(code, w, t, ordinal | (number << ORDINAL_BITS))

        return self.expander(f"expand_{t.name}", t, lambda code: code.args[1], taken)

    def _step_checker(self) -> Code:
        """`f(S, T, i, past)`: checks a step of server i, which changed history if `past` says so.

        Where it didn't, as most steps, a property has little left to say.
        """
        code = Code(self.module, "check_step", 4, 2)
        before, after, i, past = code.args
        anything = code.block()
        code.unless(past.differs(0), anything)
        # A property that speaks of a server by anything but its name keeps what it says.
        switch = code.b.switch(i.v, anything)
        for k, server in enumerate(self.layout.servers):
            case = code.block()
            switch.add_case(code.const(k).v, case)
            code.b.position_at_end(case)
            self.check_all(code, [before, after], [self.left_of(p, server) for p in self.step_properties])
        code.b.position_at_end(anything)
        self.check_all(code, [before, after], map(self.claim, self.step_properties))
        return code

    def left_of(self, name: str, server: str) -> Node:
        """What is left of a property for a step that changes nothing but this server's variables."""
        graph = self.model.generated.tracer.graph

        def before(n: Node) -> Node | None:
            if n.op == "past":
                stays = True
            elif n.op == "get":
                stays = n.args[0].op == "const" and n.args[0].attr != server
            else:
                return None
            return graph.leaf(n.op, (n.attr[0], 0), n.type, *n.args) if stays else None

        return rewritten(graph, self.claim(name), before)

    def _step(self, code: Code, w: Lowering, t: Transition, move: Word) -> None:
        """Write the state after a step to the context, and have it finished."""
        context, before = code.args[:2]
        after = self.after(code, context)
        successor = self.successor(code, context, code.load(context, At.BATCH))
        sends = code.address(successor, self.in_sends)
        words, sent, fits = self.outcome(code, w, t, before)
        with code.when(~fits):
            code.store(context, At.MOVE, move)
            code.leave(Stop.MISFIT)
        for place, word in words:
            code.store(after, place, word)
        count = code.const(0)
        for condition, message in sent:
            code.store(sends, count, message)
            count = count + condition.number()
        stop = code.call(self.finish, context, w.value(t.server), count, move)
        code.leave_if(stop.differs(0), stop)
        for place, _ in words:
            code.store(after, place, code.load(before, place))

    def leave_if_broken(self, code: Code, context: Word, broken: Word, earlier: int, move: Word) -> None:
        """Stop at a property that doesn't hold; `earlier` properties are numbered before these."""
        with code.when(broken.differs(0)):
            code.store(context, At.MOVE, move)
            code.store(context, At.PROPERTY, broken + earlier)
            code.leave(Stop.VIOLATED)

    def finisher(self) -> Code:
        """`f(context, i, sent, move)`: count a step of server i, check it, and compute its fingerprint.

        The table is too large for a cache, so the place is only asked for here; it is looked at when
        more such places have been asked for.
        """
        code = Code(self.module, "finish", 4, 1)
        context, i, sent, move = code.args
        lay, most = self.layout, self.layout.bounds.max_messages
        before, after = self.before(code, context), self.after(code, context)
        waiting = code.load(context, At.BATCH)
        successor = self.successor(code, context, waiting)
        sends = code.address(successor, self.in_sends)
        fresh = self.keep_fresh(code, context, sends, sent)
        if most is not None:
            n = code.load(context, At.MESSAGES)
            code.leave_if(fresh.differs(0) & ~(n + fresh).at_most(most), 0)
        code.add_to(context, At.STEPS, 1)

        mine = [i * lay.server_words + k for k in range(lay.server_words)]
        server = self.differ(code, before, after, mine)
        past = self.differ(code, before, after, range(self.past, lay.words))
        stays = ~(server | past)
        # One step that changes no variables says what any other says of the properties.
        checked = stays & code.load(context, At.STAYED).differs(0)
        code.leave_if(checked & fresh.equals(0), 0)
        with code.when(stays):
            code.store(context, At.STAYED, 1)
        if self.step_properties:
            with code.when(~checked):
                broken = code.call(self.check_step, before, after, i, past.number())
                with code.when(broken.differs(0)):
                    # What waits came before.
                    self.unpatch(code, context, i)
                    earlier = code.call(self.settle, context)
                    code.leave_if(earlier.differs(0), earlier)
                    self.leave_if_broken(code, context, broken, len(self.invariants), move)
        code.leave_if(stays & fresh.equals(0), 0)
        step = Step(after, i, server, past, sends, fresh)
        key = self.narrowed(self.prints.key(code, self.known(code, context), step))
        g, place = self.tables.locate(code, context, key)
        self.tables.ask_for(code, context, g, place)
        for where, x in (
            (In.KEY, key), (In.TABLE, g), (In.PLACE, place), (In.MOVE, move), (In.SERVER, i),
            (In.CHANGED, ~stays), (In.FRESH, fresh),
        ):  # fmt: skip
            code.store(successor, where, x.number())
        for k in range(lay.server_words):
            code.store(successor, In.WORDS + k, code.load(after, i * lay.server_words + k))
        for k in range(lay.history_words):
            code.store(successor, self.in_past + k, code.load(after, self.past + k))
        code.store(context, At.BATCH, waiting + 1)
        with code.when((waiting + 1).equals(BATCH)):
            self.unpatch(code, context, i)
            code.leave(code.call(self.settle, context))
        code.leave(0)
        return code

    def keep_fresh(self, code: Code, context: Word, sends: Word, sent: Word) -> Word:
        """Move the messages that were never sent before to the front, and count them."""
        messages, n = self.messages(code, context), code.load(context, At.MESSAGES)
        fresh = code.local(0)
        with code.loop(0, sent) as (k, known):
            m = code.load(sends, k)
            with code.loop(0, n) as (j, _):
                code.unless(code.load(messages, j).equals(m), known)
            with code.loop(0, code.load(fresh, 0)) as (j, _):
                code.unless(code.load(sends, j).equals(m), known)
            code.store(sends, code.load(fresh, 0), m)
            code.add_to(fresh, 0, 1)
        return code.load(fresh, 0)

    @staticmethod
    def differ(code: Code, a: Word, b: Word, places: Iterable[int | Word]) -> Word:
        """Whether two states have different words at any of these places."""
        out = code.const(0)
        for k in places:
            out = out | (code.load(a, k) ^ code.load(b, k))
        return out.differs(0)

    def _settler(self) -> Code:
        """`f(context)`: keep the successors that wait and are new. T is S when it begins."""
        code = Code(self.module, "settle", 1, 1)
        (context,) = code.args
        with code.loop(0, code.load(context, At.BATCH)) as (k, _):
            self.keep(code, context, k)
        code.store(context, At.BATCH, 0)
        code.leave(0)
        return code

    def patch(self, code: Code, context: Word, successor: Word) -> None:
        """Make T the state after a step that waits."""
        lay, after, i = self.layout, self.after(code, context), code.load(successor, In.SERVER)
        for k in range(lay.server_words):
            code.store(after, i * lay.server_words + k, code.load(successor, In.WORDS + k))
        for k in range(lay.history_words):
            code.store(after, self.past + k, code.load(successor, self.in_past + k))

    def unpatch(self, code: Code, context: Word, i: Word) -> None:
        """Make T the state before again."""
        lay, before, after = self.layout, self.before(code, context), self.after(code, context)
        for k in range(lay.server_words):
            code.store(after, i * lay.server_words + k, code.load(before, i * lay.server_words + k))
        for k in range(self.past, lay.words):
            code.store(after, k, code.load(before, k))

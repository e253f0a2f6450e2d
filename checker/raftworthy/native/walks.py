"""Random walks as native code: from the first state, one random step after the other.

All steps of a state are made, and each that changes something may be the one that is taken: with a
probability by its action's weight. Each walk draws its own weights, so that one goes through elections and
another through replication, and few are alike. Nothing is allocated on the way.

    S  the variables' words     T  those after a step     C  those after the step that is chosen so far
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable
from enum import IntEnum, auto

from llvmlite import ir

from raftspec.tracing import Transition
from raftworthy.explore.model import Model
from raftworthy.explore.walking import Bias, Walked, estimate
from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.actions import Actions
from raftworthy.native.compiling import key_of, machine_code
from raftworthy.native.lowering import Lowering
from raftworthy.native.storage import address_of, zero_words
from raftworthy.native.words import Code, Word, mix

ACTION_BITS = 8  # of a step's number, the lowest; above them its parameters' or its message's
PAUSE_STEPS = 100_000  # between two looks at the clock
GOLDEN = 0x9E3779B97F4A7C15
SKETCH_BITS = 12  # of a fingerprint, by which it is counted; 2 to the power of it are the counters


class Stop(IntEnum):
    """Why `walk` came back."""

    PAUSE = 0
    ENOUGH = auto()  # that many walks were asked for
    VIOLATED = auto()
    MISFIT = auto()  # a step made a value that has no place


class At(IntEnum):
    """Where in the context what stands."""

    RANDOM = 0  # the generator's state
    BUDGET = auto()  # steps until the next pause
    LONGEST = auto()  # steps of a walk
    WALKS = auto()  # how many have ended, and how many may
    MOST_WALKS = auto()
    STEPS = auto()  # taken
    DEPTH = auto()  # of this walk
    DEEPEST = auto()
    COUNT = auto()  # messages sent on this walk, and before it began
    STARTED = auto()
    MESSAGES = auto()  # their address
    TRAIL = auto()  # the address of this walk's steps
    SKETCH = auto()  # the address of the counters
    TOTAL = auto()  # the weights of all steps that are possible here
    MOVE = auto()  # what is chosen, how many messages it sends
    FRESH = auto()
    PROPERTY = auto()  # the number of the property that doesn't hold, from 1
    SCRATCH = auto()


class Walks(Actions):
    """A model's compiled walks. `properties` are checked at each step."""

    def __init__(self, model: Model, properties: Iterable[str], level: int = 2) -> None:
        super().__init__(model, properties)
        if len(self.transitions) > 1 << ACTION_BITS:
            raise NoPlaceError(f"more than {1 << ACTION_BITS} actions")
        words = self.layout.words
        self.at_weights = int(At.SCRATCH)
        self.at_first = self.at_weights + len(self.transitions)
        self.at_after = self.at_first + words
        self.at_sends = self.at_after + words
        self.at_chosen = self.at_sends + self.most_sends
        self.at_chosen_sends = self.at_chosen + words
        self.context_words = self.at_chosen_sends + self.most_sends
        self.code = machine_code(key_of(["walks", *self.parts()]), self._build, level)
        address = ctypes.c_void_p
        self.run_walk = self.code.function("walk", address, address)

    # --- building ---

    def _build(self) -> ir.Module:
        self.module = ir.Module("raftworthy")
        self.check_state = self.checker("check_state", self.invariants, 1)
        self.check_step = self.checker("check_step", self.step_properties, 2)
        self.draw = self._drawer()
        self.consider = self._considerer()
        self.expanders = [self._expander(k, t) for k, t in enumerate(self.transitions)]
        self.begin = self._beginner()
        self.count = self._counter()
        self._walk()
        return self.module

    def _drawer(self) -> Code:
        """`f(context)`: 64 random bits. Splitmix64."""
        code = Code(self.module, "draw", 1, 1)
        (context,) = code.args
        code.add_to(context, At.RANDOM, GOLDEN)
        code.leave(code.load(context, At.RANDOM).mixed())
        return code

    def _expander(self, number: int, t: Transition) -> Code:
        def before(code: Code) -> Word:
            return code.args[1]

        def taken(code: Code, w: Lowering, ordinal: Word) -> None:
            """Write the state after a step to T, its messages beside it, and have it considered."""
            context, state = code.args[:2]
            after, sends = code.address(context, self.at_after), code.address(context, self.at_sends)
            words, sent, fits = self.outcome(code, w, t, state)
            move = (ordinal << ACTION_BITS) | number
            with code.when(~fits):
                code.store(context, At.MOVE, move)
                code.leave(Stop.MISFIT)
            self._copy(code, state, after, self.layout.words)
            for place, word in words:
                code.store(after, place, word)
            count = code.const(0)
            for condition, message in sent:
                code.store(sends, count, message)
                count = count + condition.number()
            code.call(self.consider, context, state, count, move)

        return self.expander(f"try_{t.name}", t, before, taken)

    @staticmethod
    def _copy(code: Code, source: Word, target: Word, words: int | Word) -> None:
        with code.loop(0, words) as (k, _):
            code.store(target, k, code.load(source, k))

    def _considerer(self) -> Code:
        """`f(context, S, sent, move)`: choose the step that was just made, or not."""
        code = Code(self.module, "consider", 4, 2)
        context, state, sent, move = code.args
        after, sends = code.address(context, self.at_after), code.address(context, self.at_sends)
        messages, known = code.pointer(code.load(context, At.MESSAGES)), code.load(context, At.COUNT)
        fresh = code.local(0)
        with code.loop(0, sent) as (k, go_on):
            m = code.load(sends, k)
            with code.loop(0, known) as (j, _):
                code.unless(code.load(messages, j).equals(m), go_on)
            with code.loop(0, code.load(fresh, 0)) as (j, _):
                code.unless(code.load(sends, j).equals(m), go_on)
            code.store(sends, code.load(fresh, 0), m)
            code.add_to(fresh, 0, 1)
        more, most = code.load(fresh, 0), self.layout.bounds.max_messages
        if most is not None:
            code.leave_if(more.differs(0) & ~(known + more).at_most(most), 0)
        differs = code.const(0)
        for place in range(self.layout.words):
            differs = differs | (code.load(state, place) ^ code.load(after, place))
        code.leave_if(differs.equals(0) & more.equals(0), 0)
        number = move & ((1 << ACTION_BITS) - 1)
        weight = code.load(context, number + self.at_weights)
        code.add_to(context, At.TOTAL, weight)
        drawn = code.call(self.draw, context) >> 32
        code.leave_if(~((drawn * code.load(context, At.TOTAL)) >> 32).below(weight), 0)
        code.store(context, At.MOVE, move)
        code.store(context, At.FRESH, more)
        self._copy(code, after, code.address(context, self.at_chosen), self.layout.words)
        self._copy(code, sends, code.address(context, self.at_chosen_sends), more)
        code.leave(0)
        return code

    def _beginner(self) -> Code:
        """`f(context, S)`: begin a walk, with weights of its own."""
        code = Code(self.module, "begin", 2, 2)
        context, state = code.args
        self._copy(code, code.address(context, self.at_first), state, self.layout.words)
        code.store(context, At.COUNT, code.load(context, At.STARTED))
        code.store(context, At.DEPTH, 0)
        for k in range(len(self.transitions)):
            power = (code.call(self.draw, context) >> 32) * Bias.POWERS >> 32
            code.store(context, self.at_weights + k, code.const(1) << power)
        code.leave(0)
        return code

    def _counter(self) -> Code:
        """`f(context, S)`: count a state among those seen, by its fingerprint."""
        code = Code(self.module, "count", 2, 2)
        context, state = code.args
        total = code.local(0)
        for place in range(self.layout.words):
            code.add_to(total, 0, (code.load(state, place) + mix(place + 1)).mixed())
        messages = code.pointer(code.load(context, At.MESSAGES))
        with code.loop(0, code.load(context, At.COUNT)) as (k, _):
            code.add_to(total, 0, (code.load(messages, k) + mix(0)).mixed())
        print_ = code.load(total, 0).mixed()
        sketch, counter = code.pointer(code.load(context, At.SKETCH)), print_ >> (64 - SKETCH_BITS)
        rest = (print_ << SKETCH_BITS) | (1 << (SKETCH_BITS - 1))
        zeros = Word(code.b, code.b.ctlz(rest.v, ir.Constant(ir.IntType(1), 0))) + 1
        with code.when(code.load(sketch, counter).less(zeros)):
            code.store(sketch, counter, zeros)
        code.leave(0)
        return code

    def _walk(self) -> None:
        """`walk(context, S)`: step after step, until something stops it."""
        code = Code(self.module, "walk", 2, 2, inside=False)
        context, state = code.args
        head, over, step = (code.block() for _ in range(3))
        code.b.branch(head)

        code.b.position_at_end(head)
        code.leave_if(code.load(context, At.BUDGET).equals(0), Stop.PAUSE)
        code.add_to(context, At.BUDGET, -1)
        code.store(context, At.TOTAL, 0)
        code.unless(~code.load(context, At.DEPTH).less(code.load(context, At.LONGEST)), over)

        def attempt(number: int, m: Word | int = 0, k: Word | int = 0) -> None:
            stop = code.call(self.expanders[number], context, state, m, k)
            code.leave_if(stop.differs(0), stop)

        for number, t in enumerate(self.transitions):
            if not t.action.message:
                attempt(number)
        messages = code.pointer(code.load(context, At.MESSAGES))
        with code.loop(0, code.load(context, At.COUNT)) as (k, go_on):
            m = code.load(messages, k)

            def handle(number: int, m: Word = m, k: Word = k) -> None:
                attempt(number, m, k)

            self.dispatch(code, m, handle, go_on)
        code.b.cbranch(code.load(context, At.TOTAL).equals(0).v, over, step)

        code.b.position_at_end(step)
        self._take(code, context, state)
        code.b.branch(head)

        code.b.position_at_end(over)
        code.add_to(context, At.WALKS, 1)
        code.leave_if(~code.load(context, At.WALKS).less(code.load(context, At.MOST_WALKS)), Stop.ENOUGH)
        code.call(self.begin, context, state)
        code.b.branch(head)

    def _take(self, code: Code, context: Word, state: Word) -> None:
        """Take the step that was chosen, and check what it leads to."""
        chosen, depth = code.address(context, self.at_chosen), code.load(context, At.DEPTH)
        code.store(code.pointer(code.load(context, At.TRAIL)), depth, code.load(context, At.MOVE))
        code.add_to(context, At.DEPTH, 1)
        code.add_to(context, At.STEPS, 1)
        with code.when(code.load(context, At.DEEPEST).less(depth + 1)):
            code.store(context, At.DEEPEST, depth + 1)
        broken = code.call(self.check_step, state, chosen)
        with code.when(broken.differs(0)):
            code.store(context, At.PROPERTY, broken + len(self.invariants))
            code.leave(Stop.VIOLATED)
        self._copy(code, chosen, state, self.layout.words)
        messages = code.pointer(code.load(context, At.MESSAGES))
        sends, fresh = code.address(context, self.at_chosen_sends), code.load(context, At.FRESH)
        self._copy(code, sends, code.address(messages, code.load(context, At.COUNT)), fresh)
        code.add_to(context, At.COUNT, fresh)
        broken = code.call(self.check_state, state)
        with code.when(broken.differs(0)):
            code.store(context, At.PROPERTY, broken)
            code.leave(Stop.VIOLATED)
        code.call(self.count, context, state)


def walk_native(
    model: Model,
    start: World,
    properties: Iterable[str],
    *,
    seed: int,
    depth: int,
    walks: int | None = None,
    seconds: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Walked:
    """As `walking.walk_python`, by native code. The same seed gives the same walks.

    Raises:
        NoPlaceError: a value of the model has no place in this engine's words.
    """
    program = Walks(model, properties)
    lay = program.layout
    sent = sorted(start.messages, key=repr)
    context, state = zero_words(program.context_words), zero_words(lay.words)
    messages = zero_words(len(sent) + depth * program.most_sends + 1)
    trail, sketch = zero_words(depth + 1), zero_words(1 << SKETCH_BITS)
    for k, word in enumerate(lay.pack(start)):
        state[k] = context[program.at_first + k] = word
    for k, m in enumerate(sent):
        messages[k] = lay.pack_message(m)
    for place, value in {
        At.RANDOM: mix(seed), At.LONGEST: depth, At.MOST_WALKS: min(walks or 1 << 62, 1 << 62),
        At.STARTED: len(sent), At.COUNT: len(sent), At.MESSAGES: address_of(messages),
        At.TRAIL: address_of(trail), At.SKETCH: address_of(sketch),
        At.DEPTH: depth,  # so that the first walk begins with weights of its own
        At.WALKS: (1 << 64) - 1,
    }.items():  # fmt: skip
        context[place] = value
    began = time.perf_counter()
    path, broken = None, None
    while True:
        context[At.BUDGET] = PAUSE_STEPS
        stop = Stop(program.run_walk(address_of(context), address_of(state)))
        spent = time.perf_counter() - began
        if stop is Stop.MISFIT:
            action = program.transitions[context[At.MOVE] & (1 << ACTION_BITS) - 1].name
            raise NoPlaceError(
                f"{action} makes a value beyond the bounds ({model.bounds}); try: --engine python"
            )
        if stop is Stop.VIOLATED:
            steps = trail[: context[At.DEPTH]]
            choices = [(x & (1 << ACTION_BITS) - 1, x >> ACTION_BITS) for x in steps]
            path = program.retrace(start, sent, choices)
            broken = [*program.invariants, *program.step_properties][context[At.PROPERTY] - 1]
        if stop is not Stop.PAUSE or (seconds is not None and spent > seconds):
            break
        if progress:
            progress(context[At.STEPS], spent)
    return Walked(
        seed, depth, context[At.WALKS] + bool(broken), context[At.STEPS],
        context[At.DEEPEST], spent, estimate(sketch.tolist()), broken, path,
    )  # fmt: skip

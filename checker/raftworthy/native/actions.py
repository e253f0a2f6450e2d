"""The functions that take steps, built from a specification's expressions.

For a state, every action is tried, guards first, each as soon as the parameters that it needs are chosen.
What is then done with the step's new variables and messages is for a search or a walk to say.

    S, T  the variables' words before and after a step
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from llvmlite import ir

from raftspec.graph import Node, postorder
from raftspec.tracing import Guard, Transition
from raftspec.types import Type
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path
from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.identity import text_of, text_of_type
from raftworthy.native.layout import Layout
from raftworthy.native.lowering import Lowering, Value
from raftworthy.native.words import I64, Code, Word

# Builds what is done with a step: its code, its expressions, the parameters' or the message's number.
Taken: TypeAlias = Callable[[Code, Lowering, Word], None]


class Actions:
    """A model's steps. `properties` are checked in their order."""

    module: ir.Module
    expanders: list[Code]  # one for each transition

    def __init__(self, model: Model, properties: Iterable[str]) -> None:
        self.model = model
        self.layout = Layout(model)
        graph = model.generated.tracer.graph
        self.transitions = [t.but(graph.without_rules) for t in model.generated.transitions.values()]
        names = list(properties)
        declared = model.spec.properties
        if any(declared[p].params for p in names):
            raise NoPlaceError("the native engine checks no properties with parameters")
        self.invariants = [p for p in names if declared[p].states == 1]
        self.step_properties = [p for p in names if declared[p].states == 2]
        self.most_sends = max(len(t.sends) for t in self.transitions)

    def parts(self) -> Iterator[str]:
        """Everything that the functions are made from, other than the modules of this package."""
        yield from self.layout.parts()
        for t in self.transitions:
            yield f"{t.name} {list(t.updates)} {list(t.history)} {[s.message.__name__ for s in t.sends]}"
            yield from (f"{name}: {text_of_type(p)}" for name, p in t.action.params.items())
            yield from text_of(t.roots())
        for names in (self.invariants, self.step_properties):
            yield from names
            yield from text_of(map(self.claim, names))

    def claim(self, name: str) -> Node:
        """A property's expression."""
        generated = self.model.generated
        return generated.tracer.graph.without_rules(generated.claims[name])

    def variable(self, states: list[Word]) -> Callable[[Lowering, Node], Value]:
        """How to load a variable of one of these states."""

        def leaf(w: Lowering, n: Node) -> Value:
            name, prime = n.attr
            lay, code = self.layout, w.code
            if n.op == "get":
                slot = lay.server[name]
                place = w.value(n.args[0]) * lay.server_words + slot.word
            else:
                assert n.op == "past", n
                slot = lay.history[name]
                place = code.const(lay.words - lay.history_words + slot.word)
            return w.unpacked(slot, code.load(states[prime], place))

        return leaf

    def checker(self, name: str, properties: list[str], states: int) -> Code:
        """`f(S)` or `f(S, T)`: the number of the first property that doesn't hold, from 1; 0 if all do."""
        code = Code(self.module, name, states, states)
        self.check_all(code, code.args, map(self.claim, properties))
        return code

    def check_all(self, code: Code, states: list[Word], claims: Iterable[Node]) -> None:
        """Return the number of the first claim that doesn't hold, from 1; 0 if all do."""
        w = Lowering(code, self.layout, self.variable(states))
        for number, n in enumerate(claims, 1):
            code.leave_if(~w.value(n), number)
        code.leave(0)

    def expander(self, name: str, t: Transition, before: Callable[[Code], Word], taken: Taken) -> Code:
        """`f(context, row, m, k)`: every step of an action; a handler's, with message m, the row's kth.

        `before` says where the state's words are, `taken` builds what is done with a step.
        """
        code = Code(self.module, name, 4, 2)
        _, _, m, ordinal = code.args
        words = before(code)
        variable = self.variable([words])
        chosen: dict[str, Word] = {}

        def leaf(w: Lowering, n: Node) -> Value:
            if n.op == "message":
                cls, name = n.attr
                return w.unpacked(self.layout.message[cls][name], m)
            return chosen[n.attr] if n.op == "param" else variable(w, n)

        w = Lowering(code, self.layout, leaf)
        params = {} if t.action.message else dict(t.action.params)
        nowhere = code.block()

        def choose(names: list[str], ordinal: Word, otherwise: Any) -> None:
            for g in t.guards:
                if self._ready(g, params, chosen):
                    code.unless(~w.value(g.condition), otherwise)
            if not names:
                taken(code, w, ordinal)
                return
            name, *rest = names
            if params[name].name == "value":
                commands = self.layout.history["commands"]
                place = self.layout.words - self.layout.history_words + commands.word
                chosen[name] = w.unpacked(commands, code.load(words, place)) + 1
                choose(rest, ordinal, otherwise)
                return
            size = self.values(params[name])
            with code.loop(0, size) as (k, go_on):
                chosen[name] = k
                choose(rest, ordinal * size + k, go_on)

        choose(list(params), ordinal, nowhere)
        code.b.branch(nowhere)
        code.b.position_at_end(nowhere)
        code.leave(0)
        return code

    def values(self, t: Type) -> int:
        """How many values a parameter has, commands not among them."""
        match t.kind, t.name:
            case "server", _:
                return len(self.layout.servers)
            case "set", _:
                return 1 << len(self.layout.servers)
            case "num", "term":
                return self.layout.bounds.max_term + 1
            case "num", _:
                return self.layout.bounds.max_log + 1
        raise NoPlaceError(f"a parameter that is a {t} can't be enumerated")

    def params(self, t: Transition, ordinal: int, command: str) -> tuple[Any, ...]:
        """The parameters of an action that is no handler, by their number."""
        out: list[Any] = []
        for p in reversed(list(t.action.params.values())):
            if p.name == "value":
                out.append(command)
                continue
            ordinal, k = divmod(ordinal, self.values(p))
            out.append(self.layout.decode(p, k) if p.kind in ("server", "set") else k)
        return tuple(reversed(out))

    def retrace(self, start: World, messages: list[Any], steps: Iterable[tuple[int, int]]) -> Path:
        """The path that these actions and choices make, taken by the Python back end."""
        path, sent = Path(start), list(messages)
        for number, ordinal in steps:
            t = self.transitions[number]
            if t.action.message:
                params = (sent[ordinal],)
            else:
                params = self.params(t, ordinal, f"c{path.world.past.commands + 1}")
            move = self.model.take(path.world, t.name, params)
            if move is None:
                raise AssertionError(f"the two back ends disagree: {t.name}{params} is not possible")
            path = path.then(move)
            sent += [m for m in dict.fromkeys(move.sent) if m not in sent]
        return path

    @staticmethod
    def _ready(g: Guard, params: Mapping[str, Type], chosen: Mapping[str, Word]) -> bool:
        """Whether all parameters that a guard mentions are chosen, and one of them only now."""
        needed = {n.attr for n in postorder(g.condition) if n.op == "param"}
        last = list(chosen)[-1] if chosen else None
        return needed <= chosen.keys() and (last in needed if needed else not chosen)

    def outcome(
        self, code: Code, w: Lowering, t: Transition, before: Word
    ) -> tuple[list[tuple[Word, Word]], list[tuple[Word, Word]], Word]:
        """What a step writes: words at their places, messages with their conditions; and whether it fits."""
        lay = self.layout
        server = w.value(t.server) * lay.server_words
        history = code.const(lay.words - lay.history_words)
        fits = code.truth(True)
        words: list[tuple[Word, Word]] = []
        for slots, updates, start in ((lay.server, t.updates, server), (lay.history, t.history, history)):
            for k in sorted({slots[name].word for name in updates}):
                word = code.load(before, start + k)
                for name, n in updates.items():
                    slot = slots[name]
                    if slot.word == k:
                        bits, fit = w.packed(slot, w.value(n))
                        word = (word & ~(((1 << slot.width) - 1) << slot.shift)) | bits
                        fits = fits & fit
                words.append((start + k, word))
        sent: list[tuple[Word, Word]] = []
        for send in t.sends:
            condition = w.value(send.condition)
            message = code.const(lay.kinds.index(send.message))
            for slot, n in zip(lay.message[send.message].values(), send.fields, strict=True):
                bits, fit = w.packed(slot, w.value(n))
                message, fits = message | bits, fits & (fit | ~condition)
            sent.append((condition, message))
        return words, sent, fits

    def ways(self, t: Transition) -> int:
        """How many choices of parameters an action has; a handler's are the messages."""
        if t.action.message:
            return 0
        out = 1
        for p in t.action.params.values():
            out *= 1 if p.name == "value" else self.values(p)
        return out

    def dispatch(self, code: Code, m: Word, handle: Callable[[int], None], otherwise: Any) -> None:
        """Have a message handled by its action, given its number. Goes on at `otherwise`."""
        switch = code.b.switch(m.cut(0, self.layout.kind_bits).v, otherwise)
        for number, t in enumerate(self.transitions):
            if t.action.message:
                case = code.block()
                switch.add_case(ir.Constant(I64, self.layout.kinds.index(t.action.message)), case)
                code.b.position_at_end(case)
                handle(number)
                code.b.branch(otherwise)
        code.b.position_at_end(code.block())  # never reached

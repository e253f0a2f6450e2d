"""The Z3 back end: every operation means what it means, and every successor is what Python says."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import z3
from tests.raftworthy.test_native import BOUNDS, EXPRESSIONS, random_value

from raftspec.graph import OPERATIONS
from raftspec.invariant import with_witnesses
from raftspec.mutants import MUTANTS
from raftspec.raft import raft
from raftspec.rules import POLICY
from raftspec.types import Type
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.model import Model
from raftworthy.generated import World
from raftworthy.prove import terms
from raftworthy.prove.logic import Entries, Logic, Table, Value
from raftworthy.prove.machine import Machine, Taken
from raftworthy.prove.shapes import Ranges, Shapes, leaves
from raftworthy.prove.terms import Terms, Variables

WIDE = 16  # bits for numbers that lie beyond the bounds
ZERO, ONE = z3.BitVecVal(0, 1), z3.BitVecVal(1, 1)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(raft, BOUNDS)


@cache
def number_of(term: z3.BitVecRef) -> z3.BitVecRef:
    """The unknown of fewer bits that a number is, with zeros above."""
    return term if z3.is_const(term) else term.arg(0)


numeral = cache(z3.BitVecVal)


class Evaluator:
    """Computes what follows from values for what is unknown, by a Z3 model."""

    def __init__(self) -> None:
        self.packed: dict[int, tuple[Value, z3.BitVecRef | None]] = {}

    def value(self, pairs: list[tuple[Value, Value]], result: Value) -> list[int | bool]:
        """The leaves of a result, where each unknown is what stands beside it."""
        known = z3.Model()
        for unknown, x in pairs:
            for term, number in zip(leaves(unknown), leaves(x), strict=True):
                if isinstance(term, z3.BoolRef):
                    known.update_value(term, z3.BoolVal(number))
                    continue
                few = number_of(term)
                known.update_value(few, numeral(number, few.size()))
        return self._unpacked(known, result)

    def _unpacked(self, known: z3.ModelRef, result: Value) -> list[int | bool]:
        """All leaves by one evaluation, which is what takes time."""
        parts = list(leaves(result))
        if id(result) not in self.packed:
            bits = [z3.If(x, ONE, ZERO) if z3.is_bool(x) else x for x in parts if isinstance(x, z3.ExprRef)]
            self.packed[id(result)] = result, z3.Concat(ZERO, ZERO, *bits) if bits else None
        whole = self.packed[id(result)][1]
        rest = known.eval(whole, model_completion=True).as_long() if whole is not None else 0
        out: list[int | bool] = []
        for x in reversed(parts):
            if isinstance(x, z3.BoolRef):
                out.append(bool(rest & 1))
                rest >>= 1
            elif isinstance(x, z3.BitVecRef):
                number, rest = rest & ((1 << x.size()) - 1), rest >> x.size()
                out.append(number - (number >> x.size() - 1 << x.size()))
            else:
                out.append(x)
        return out[::-1]


def first_difference(model: Model, op: str, tries: int = 60) -> str | None:
    """Where Z3 and the meaning of an operation differ, if they do."""
    rng = random.Random(op)
    for types, f in EXPRESSIONS[op]:
        tracer = model.generated.tracer
        params = [tracer.graph.leaf("param", k, t) for k, t in enumerate(types)]
        node = tracer.lift(f(*map(tracer.wrap, params)), None)
        shapes = Shapes(model.bounds, model.generated.structs, WIDE)
        evaluator, ranges = Evaluator(), Ranges(shapes)
        ranges.furthest = 80
        ranges.of = lambda n: (-80, 80)  # type: ignore[method-assign]
        # Numbers of any size.
        unknown = [
            z3.BitVec(f"p{k}", WIDE) if t.kind == "num" else shapes.fresh(t, f"p{k}")[0]
            for k, t in enumerate(types)
        ]
        unfolded: Any = None
        for known in (False, True):
            for _ in range(tries if not known else tries // 3):
                args = [random_value(rng, t) for t in types]
                encoded = [shapes.encode(t, x) for t, x in zip(types, args, strict=True)]
                # Some arguments are known beforehand, and folded.
                given = [
                    e if known and rng.random() < 0.6 else u for u, e in zip(unknown, encoded, strict=True)
                ]
                if known or unfolded is None:
                    unfolded = Terms(shapes, ranges=ranges).value(node, dict(enumerate(given)))
                result = unfolded
                expected = f(*args)
                fits = result.fits if isinstance(result, Table) else True
                pairs = [(u, e) for u, e, g in zip(unknown, encoded, given, strict=True) if g is u]
                (fitted,) = evaluator.value(pairs, fits)
                if not fitted:
                    keys = set(shapes.keys(node.type))
                    if set(expected.items) <= keys:
                        return f"{op}{tuple(args)} is {expected!r}, and said to have no place"
                    continue
                wanted = shapes.encode(node.type, expected, 0)
                if isinstance(result, Entries):
                    wanted = Entries(len(expected), shapes.logic.filled(wanted, result, len(result.items)))
                    if len(wanted.items) > len(result.items):
                        return f"{op}{tuple(args)} is too long"
                if isinstance(result, Table) and not set(expected.items) <= set(shapes.keys(node.type)):
                    return f"{op}{tuple(args)} has no place, and that is not said"
                found = evaluator.value(pairs, result.items if isinstance(result, Table) else result)
                if found != list(leaves(wanted.items if isinstance(wanted, Table) else wanted)):
                    return f"{op}{tuple(args)} is {expected!r}, in Z3 {found}"
    return None


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_means_in_z3_what_it_means(op: str, model: Model) -> None:
    """Also for numbers below 0 and beyond the bounds, and where some of it is known beforehand."""
    assert first_difference(model, op) is None


good = dict(terms.RULES)
# Slips that are easily made, each in one rule.
SLIPS: list[tuple[str, Callable[..., Any]]] = [
    ("not", lambda w, n, a: a),
    ("and", lambda w, n, a, b: w.logic.either(a, b)),
    ("or", lambda w, n, a, b: w.logic.both(a, b)),
    ("eq", lambda w, n, a, b: w.logic.no(w.logic.same(a, b))),
    ("lt", lambda w, n, a, b: w.logic.at_most(a, b)),
    ("lt", lambda w, n, a, b: z3.ULT(w.logic.number(a), w.logic.number(b))),
    ("le", lambda w, n, a, b: w.logic.less(a, b)),
    ("add", lambda w, n, a, b: w.logic.minus(a, b)),
    ("sub", lambda w, n, a, b: w.logic.minus(b, a)),
    ("ite", lambda w, n, c, a, b: w.logic.where(c, b, a)),
    ("count", lambda w, n, *cs: w.logic.count(cs[1:])),
    ("rule", lambda w, n, c: True),
    ("set_add", lambda w, n, s, i: s),
    ("set_has", lambda w, n, s, i: w.logic.pick(s, i, False, first=0)),
    ("set_size", lambda w, n, s: w.logic.count(s[1:])),
    ("map_get", lambda w, n, m, k: w.logic.pick(m.items, k, m.items[-1], w.shapes.first_key(n.args[0].type))),
    ("map_set", lambda w, n, m, k, x: m),
    ("map_set", lambda w, n, m, k, x: good["map_set"](w, n, m, k, x)._replace(fits=True)),
    ("len", lambda w, n, q: len(q.items)),
    ("at", lambda w, n, q, k: w.logic.pick(q.items, k, q.items[-1], first=1)),
    ("prefix", lambda w, n, q, k: q._replace(length=good["prefix"](w, n, q, k).length)),
    ("slice", lambda w, n, q, a, b: good["prefix"](w, n, q, b)),
    ("append", lambda w, n, q, x: good["append"](w, n, q, (x[1], x[0]))),
    ("concat", lambda w, n, q, r: good["concat"](w, n, r, q)),
    ("concat", lambda w, n, q, r: q._replace(length=w.logic.plus(q.length, r.length))),
    (
        "agrees",
        lambda w, n, q, r, k: w.logic.both(w.logic.at_most(k, q.length), w.logic.at_most(k, r.length)),
    ),
    ("agrees", lambda w, n, q, r, k: good["agrees"](w, n, q, r, w.logic.minus(k, 1))),
    ("forall", lambda w, n, top: good["forall"](w, n, w.logic.minus(top, 1))),
    ("exists", lambda w, n, top: good["exists"](w, n, w.logic.plus(top, 1))),
    ("latest", lambda w, n, top: good["latest"](w, n, w.logic.minus(top, 1))),
    ("record", lambda w, n, *fields: fields[::-1]),
    ("field", lambda w, n, record: record[-1]),
]
assert {op for op, _ in SLIPS} == OPERATIONS.keys()


@pytest.mark.parametrize(("op", "slip"), SLIPS, ids=[f"{op}-{k}" for k, (op, _) in enumerate(SLIPS)])
def test_a_wrong_rule_is_noticed(
    op: str, slip: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would have found it."""
    monkeypatch.setattr(terms, "RULES", {**good, op: slip})
    assert first_difference(model, op) is not None


# --- successors --------------------------------------------------------------


class Compared:
    """One action over unknown states and parameters, to be compared with Python's on known ones."""

    def __init__(self, machine: Machine, action: str) -> None:
        self.machine, self.action = machine, action
        self.types = machine.transitions[action].action.params
        self.s, _ = machine.state("s")
        self.p, _ = machine.parameters(self.types, "p")
        self.taken: Taken = machine.take(action, self.s, self.p)
        self.evaluator = Evaluator()
        taken = self.taken
        self.after = tuple(parts(taken.after))
        sends = tuple((send.condition, send.fields) for send in taken.sends)
        self.everything = (taken.possible, taken.fits, self.after, sends)

    def difference(self, world: World, params: tuple[Any, ...]) -> str | None:
        """Where Z3's successor is not Python's."""
        machine, model = self.machine, self.machine.model
        pairs = [*zip(parts(self.s), parts(machine.known(world)), strict=True)]
        given = machine.given(self.types, params)
        pairs += [(self.p[name], given[name]) for name in self.p]
        taken = self.taken
        values = iter(self.evaluator.value(pairs, self.everything))
        possible, fits = next(values), next(values)
        move = model.take(world, self.action, params)
        if not possible or move is None:
            return (
                None if not possible and move is None else f"{self.action}{params}: {possible}, Python {move}"
            )
        if not fits:
            try:
                again = machine.known(move.world)
                inside = all(within(machine, again, m) for m in (move.sent or (None,)))
            except (AssertionError, IndexError):
                inside = False
            return f"{self.action}{params} is said to have no place" if inside else None
        found = [next(values) for _ in leaves(self.after)]
        if found != list(leaves(tuple(parts(machine.known(move.world))))):
            return f"{self.action}{params} leads elsewhere"
        sent = []
        for send in taken.sends:
            condition = next(values)
            fields = [next(values) for x in send.fields for _ in leaves(x)]
            if condition:
                sent.append((send.kind.__name__, fields))
        expected = []
        for m in move.sent:
            kind = next(cls for cls in machine.spec.messages if model.generated.structs[cls] is type(m))
            encoded = (
                machine.shapes.encode(t, getattr(m, f), machine.carried) for f, t in kind.types().items()
            )
            expected.append((kind.__name__, list(leaves(tuple(encoded)))))
        return None if sorted(sent) == sorted(expected) else f"{self.action}{params} sends something else"


def parts(s: Variables) -> list[Value]:
    """A state's variables, in order."""
    return [x for v in (*s.servers, s.past) for x in v.values()]


def within(machine: Machine, s: Variables, message: Any) -> bool:
    """Whether a known state, and a message, have a place."""
    shapes = machine.shapes
    types = [
        *(machine.spec.server.types().values() for _ in s.servers),
        machine.spec.history.types().values(),
    ]
    checked = zip((t for of in types for t in of), parts(s), strict=True)
    inside = all(shapes.within(t, x) for t, x in checked)
    if message is not None:
        kind = next(
            cls for cls in machine.spec.messages if machine.model.generated.structs[cls] is type(message)
        )
        inside &= all(
            bool(shapes.within(t, shapes.encode(t, getattr(message, f), machine.carried), machine.carried))
            for f, t in kind.types().items()
        )
    return inside


def random_known(rng: random.Random, machine: Machine, t: Type, room: int) -> Value:
    """Any value of a type within bounds, as known numbers: what a state may hold, reachable or not."""
    shapes = machine.shapes
    match t.kind:
        case "bool":
            return rng.random() < 0.5
        case "set":
            return tuple(rng.random() < 0.5 for _ in shapes.servers)
        case "map":
            assert t.of is not None
            return Table(tuple(random_known(rng, machine, t.of, room) for _ in shapes.keys(t)))
        case "record":
            assert t.cls is not None
            return tuple(random_known(rng, machine, f, room) for f in t.cls.types().values())
        case "seq":
            assert t.of is not None
            length = rng.randint(0, room)
            items = [random_known(rng, machine, t.of, room) for _ in range(length)]
            return Entries(length, (*items, *[(0, 0)] * (room - length)))
    return rng.randint(t.kind == "server", shapes.largest(t))


def random_world(rng: random.Random, machine: Machine) -> World:
    """Any state of the types within bounds, without messages."""
    server, past = machine.spec.server.types(), machine.spec.history.types()
    room = machine.model.bounds.max_log

    def drawn(types: dict[str, Type]) -> dict[str, Value]:
        return {f: random_known(rng, machine, t, room) for f, t in types.items()}

    s = Variables(tuple(drawn(server) for _ in machine.shapes.servers), drawn(past))
    return machine.world(z3.Model(), s)


def random_params(rng: random.Random, machine: Machine, action: str) -> tuple[Any, ...]:
    """Any parameters of an action; a message of any content."""
    types = machine.transitions[action].action.params
    drawn: dict[Any, Value] = {}
    for p, t in types.items():
        if t.cls is not None:
            for f, ft in t.cls.types().items():
                drawn[t.cls, f] = random_known(rng, machine, ft, machine.carried)
        else:
            drawn[p] = random_known(rng, machine, t, 0)
    return tuple(machine.chosen(z3.Model(), types, drawn))


VARIANTS: list[tuple[Bounds, tuple[str, ...], str | None]] = [
    (Bounds(servers=3, max_term=3, max_log=2, commands=3, entries=2, crashes=2, applies=True), (), None),
    (Bounds(servers=2, max_term=2, max_log=3, crashes=1, entries=3), tuple(POLICY), None),
    (Bounds(servers=5, max_term=2, max_log=1, commands=2), (), None),
    (
        Bounds(servers=3, max_term=2, max_log=2, crashes=1),
        ("vote.once_per_term", "append.previous_entry"),
        None,
    ),
    (Bounds(servers=3, max_term=2, max_log=2), ("commit.majority", "append.truncate_conflict"), None),
    *((Bounds(servers=3, max_log=2, crashes=1), (), name) for name in ("E10", "R08", "R11", "R16")),
]


def compare(machine: Machine, rng: random.Random, reachable: int, arbitrary: int) -> str | None:
    """The first difference on states of random walks, then on any states."""
    model = machine.model
    actions = {name: Compared(machine, name) for name in machine.transitions}
    done = 0
    while done < reachable:
        s = model.generated.initial()
        for _ in range(40):
            moves = list(model.moves(s))
            for move in rng.sample(moves, min(3, len(moves))):
                if (found := actions[move.action].difference(s, move.params)) is not None:
                    return found
                done += 1
            for name in rng.sample(list(actions), 2):
                if (found := actions[name].difference(s, random_params(rng, machine, name))) is not None:
                    return found
                done += 1
            if not moves:
                break
            s = rng.choices(moves, [0.05 if m.action in ("restart", "timeout") else 1 for m in moves])[
                0
            ].world
    for name in itertools.islice(itertools.cycle(actions), arbitrary):
        s = random_world(rng, machine)
        if (found := actions[name].difference(s, random_params(rng, machine, name))) is not None:
            return found
    return None


@pytest.mark.parametrize(("bounds", "without", "mutant"), VARIANTS, ids=range(len(VARIANTS)))
def test_the_successors_are_those_of_python(
    bounds: Bounds, without: tuple[str, ...], mutant: str | None
) -> None:
    """From reachable states and from any, with parameters that are possible and such that aren't."""
    changed = MUTANTS[mutant] if mutant else None
    machine = Machine(Model(raft, bounds, without, changed))
    assert compare(machine, random.Random(str(bounds)), 150, 60) is None


def test_the_successors_with_witnesses_are_those_of_python() -> None:
    machine = Machine(Model(with_witnesses(), Bounds(max_term=3, max_log=2, entries=2, crashes=1)))
    assert compare(machine, random.Random(1), 60, 30) is None


def test_a_wrong_rule_is_noticed_by_the_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is right on logs that are short of the bounds."""
    monkeypatch.setattr(terms, "RULES", {**good, "concat": lambda w, n, q, r: q})
    machine = Machine(Model(raft, VARIANTS[0][0]))
    assert compare(machine, random.Random(0), 300, 300) is not None


# --- limits ------------------------------------------------------------------


def test_numbers_have_enough_bits() -> None:
    """No expression of the specification goes beyond them, at any sizes."""
    for bounds in (Bounds(), Bounds(servers=7, max_term=8, max_log=12, entries=12)):
        machine = Machine(Model(with_witnesses(), bounds))
        limit = 1 << machine.logic.width - 1
        roots = [n for t in machine.transitions.values() for n in t.roots()] + list(machine.claims.values())
        assert Ranges(machine.shapes).width(roots) <= machine.logic.width
        assert 2 * bounds.max_log < limit


def test_a_number_without_a_place_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no place in 4 bits"):
        Logic(4).number(8)


def test_a_type_without_a_place_is_refused(model: Model) -> None:
    shapes = Shapes(model.bounds, model.generated.structs, WIDE)
    with pytest.raises(UnusableError, match="no place"):
        shapes.largest(Type("set"))

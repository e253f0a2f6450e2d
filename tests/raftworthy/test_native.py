"""The native back end: every operation, every successor, every count is what Python says."""

from __future__ import annotations

import ctypes
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")

from llvmlite import binding, ir

from raftspec.graph import OPERATIONS, Node
from raftspec.mutants import MUTANTS
from raftspec.raft import Entry, Role, raft
from raftspec.rules import POLICY
from raftspec.spec import Spec
from raftspec.types import BOOL, INDEX, MAYBE_SERVER, SERVER, SERVER_SET, TERM, VALUE, Type, zero
from raftspec.values import Map, Seq, ServerSet, count, exists, forall, ite, latest, no
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.cases import BEGINNINGS, MUTANT_CASES, RULE_CASES, Case, Walk
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Result
from raftworthy.explore.reference import explore_model
from raftworthy.explore.running import run_explore
from raftworthy.generated import World, property_source, scope_of
from raftworthy.native import NoPlaceError, lowering
from raftworthy.native.engine import explore_native, successors
from raftworthy.native.layout import Layout, Slot
from raftworthy.native.lowering import Entries, Lowering, Value
from raftworthy.native.measure import measure_explore
from raftworthy.native.program import Program
from raftworthy.native.words import Code, Word

# --- operations --------------------------------------------------------------

ENTRY = Type("record", "Entry", cls=Entry)
ROLE = Type("enum", "Role", cls=Role)
LOG = Type("seq", of=ENTRY)
NEXT = Type("map", key=SERVER, of=INDEX)
LEADERS = Type("map", key=TERM, of=MAYBE_SERVER)
BOUNDS = Bounds(servers=3, max_term=2, max_log=3, commands=3)

# Per operation: the types of the values that a function is given, and the function. It runs twice, on
# concrete values and on symbolic ones.
EXPRESSIONS: dict[str, list[tuple[tuple[Type, ...], Callable[..., Any]]]] = {
    "not": [((BOOL,), lambda a: no(a))],
    "and": [((BOOL, BOOL), lambda a, b: a & b)],
    "or": [((BOOL, BOOL), lambda a, b: a | b)],
    "eq": [((t, t), lambda a, b: a == b) for t in (TERM, SERVER, MAYBE_SERVER, SERVER_SET, ROLE, BOOL)]
    + [((SERVER, MAYBE_SERVER), lambda a, b: a == b)],
    "lt": [((TERM, TERM), lambda a, b: a < b)],
    "le": [((TERM, TERM), lambda a, b: a <= b)],
    "add": [((INDEX, INDEX), lambda a, b: a + b)],
    "sub": [((INDEX, INDEX), lambda a, b: a - b)],
    "ite": [((BOOL, t, t), ite) for t in (INDEX, LOG, NEXT, MAYBE_SERVER)],
    "count": [((BOOL, BOOL, BOOL), lambda *c: count(c))],
    "rule": [((TERM, TERM), lambda a, b: rule(a < b))],
    "set_add": [((SERVER_SET, SERVER), lambda s, i: s.add(i))],
    "set_has": [((SERVER_SET, SERVER), lambda s, i: s.has(i))],
    "set_size": [((SERVER_SET,), lambda s: s.size)],
    "map_get": [((NEXT, SERVER), lambda m, k: m[k]), ((LEADERS, TERM), lambda m, k: m[k])],
    "map_set": [
        ((NEXT, SERVER, INDEX), lambda m, k, x: m.set(k, x)),
        ((LEADERS, TERM, MAYBE_SERVER), lambda m, k, x: m.set(k, x)),
    ],
    "len": [((LOG,), lambda q: q.length)],
    "at": [((LOG, INDEX), lambda q, n: q.at(n)), ((LOG,), lambda q: q.last)],
    "prefix": [((LOG, INDEX), lambda q, n: q.prefix(n))],
    "slice": [((LOG, INDEX, INDEX), lambda q, a, b: q.slice(a, b))],
    "append": [((LOG, TERM, VALUE), lambda q, t, v: q.append(Entry(t, v)))],
    "concat": [((LOG, LOG), lambda q, r: q.concat(r))],
    "agrees": [((LOG, LOG, INDEX), lambda q, r, n: q.agrees(r, n))],
    "forall": [
        ((INDEX, INDEX), lambda n, a: forall(n, lambda k: k < a)),
        ((INDEX, INDEX), lambda n, a: forall(n, lambda k: exists(k, lambda j: j + k == a))),
    ],
    "exists": [
        ((INDEX, INDEX), lambda n, a: exists(n, lambda k: k == a)),
        ((INDEX, INDEX), lambda n, a: exists(n, lambda k: forall(k, lambda j: j + a <= k))),
    ],
    "latest": [
        ((INDEX, INDEX), lambda n, a: latest(n, lambda k: k <= a)),
        ((INDEX, INDEX), lambda n, a: latest(n, lambda k: exists(k, lambda j: j + k == a))),
    ],
    "record": [((TERM, VALUE, BOOL), lambda t, v, c: ite(c, Entry(t, v), Entry(t, 1)))],
    "field": [((LOG, INDEX), lambda q, n: q.at(n).term), ((LOG,), lambda q: q.last.value)],
}
assert EXPRESSIONS.keys() == OPERATIONS.keys()


def rule(c: Any) -> Any:
    """A named rule's condition."""
    return c.tracer.wrap(c.tracer.graph.node("rule", c.node, attr="vote.up_to_date")) if node_of(c) else c


def node_of(value: Any) -> Node | None:
    found: Node | None = getattr(value, "node", None)
    return found


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(raft, BOUNDS)


class Evaluator:
    """One expression as native code, with a word or two for each value that goes in."""

    def __init__(self, model: Model, types: tuple[Type, ...], f: Callable[..., Any]) -> None:
        self.layout, self.types = Layout(model), types
        tracer = model.generated.tracer
        leaves = [tracer.graph.leaf("param", k, t) for k, t in enumerate(types)]
        result = f(*(tracer.wrap(n) for n in leaves))
        node = tracer.lift(result, None)
        self.type = node.type
        module = ir.Module()
        code = Code(module, "evaluate", 2, 2, inside=False)
        given, out = code.args

        def leaf(w: Lowering, n: Node) -> Value:
            first = code.load(given, 2 * n.attr)
            if n.type.kind == "seq":
                return Entries(first, code.load(given, 2 * n.attr + 1))
            return first.truth() if n.type.kind == "bool" else first

        w = Lowering(code, self.layout, leaf)
        value = w.value(node)
        fits = code.truth(True)
        if isinstance(value, Entries) or self.type.kind == "map":
            width = self.layout.width(self.type, BOUNDS.max_log)
            value, fits = w.packed(Slot(self.type, BOUNDS.max_log, 0, 0, width), value)
        elif isinstance(value, tuple):
            value, fits = w.joined(self.type, value)
        code.store(out, 0, value.number())
        code.store(out, 1, fits.number())
        code.leave(0)
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(opt=0)
        self.engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address("evaluate")
        self.function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(address)

    def __call__(self, *args: Any) -> tuple[int, bool]:
        """The result's bits, and whether they fit where they are stored."""
        words: list[int] = []
        for t, x in zip(self.types, args, strict=True):
            if t.kind == "seq":
                words += [len(x), self.layout.body(t, x)]
            else:
                words += [x if t.kind == "num" else self.layout.encode(t, x), 0]
        given = (ctypes.c_int64 * len(words))(*words)
        out = (ctypes.c_int64 * 2)()
        self.function(given, out)
        return out[0], bool(out[1])

    def bits(self, value: Any) -> int | None:
        """The bits that a value should have; None if it has no place."""
        if self.type.kind == "num":
            return int(value)
        try:
            return self.layout.encode(self.type, value, BOUNDS.max_log)
        except NoPlaceError:
            return None


def random_value(rng: random.Random, t: Type, inside: bool = False) -> Any:
    """A value of a type. Numbers also lie beyond the bounds, unless they are stored."""
    servers = BOUNDS.names
    match t.kind:
        case "bool":
            return rng.random() < 0.5
        case "num":
            return rng.randint(0, 2) if inside else rng.choice([-70, -2, -1, 0, 1, 2, 3, 4, 5, 8, 70])
        case "enum":
            return rng.choice(list(Role))
        case "server":
            return rng.choice(servers)
        case "maybe":
            return rng.choice([None, *servers])
        case "set":
            return ServerSet(i for i in servers if rng.random() < 0.5)
        case "map":
            assert t.key is not None
            assert t.of is not None
            keys: Iterable[Any] = servers if t.key.kind == "server" else range(BOUNDS.max_term + 1)
            return Map([(k, random_value(rng, t.of, True)) for k in keys], zero(t.of))
        case "seq":
            entries = (random_value(rng, ENTRY, True) for _ in range(rng.randint(0, BOUNDS.max_log)))
            return Seq(entries, zero(ENTRY))
    return Entry(*(random_value(rng, f, True) for f in Entry.types().values()))


def first_difference(model: Model, op: str, tries: int = 400) -> str | None:
    """Where native code and the meaning of an operation differ, if they do."""
    rng = random.Random(op)
    for types, f in EXPRESSIONS[op]:
        evaluate = Evaluator(model, types, f)
        for _ in range(tries):
            args = [random_value(rng, t) for t in types]
            value = f(*args)
            expected, (found, fits) = evaluate.bits(value), evaluate(*args)
            if (expected is not None) != fits or (fits and expected != found):
                return f"{op}{tuple(args)} is {value!r} ({expected}), native {found}, fits: {fits}"
    return None


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_means_natively_what_it_means(op: str, model: Model) -> None:
    """Also for numbers below 0 and beyond the bounds, and for what has no place."""
    assert first_difference(model, op) is None


def _swapped(w: Lowering, n: Node, a: Word, b: Word) -> Value:
    return b - a


good = dict(lowering.RULES)
# Slips that are easily made, each in one rule.
SLIPS: list[tuple[str, Callable[..., Any]]] = [
    ("not", lambda w, n, a: a),
    ("and", lambda w, n, a, b: a | b),
    ("or", lambda w, n, a, b: a & b),
    ("or", lambda w, n, a, b: a ^ b),
    ("eq", lambda w, n, a, b: a.differs(b)),
    ("lt", lambda w, n, a, b: a.at_most(b)),
    ("lt", lambda w, n, a, b: a.below(b)),
    ("le", lambda w, n, a, b: a.less(b)),
    ("add", lambda w, n, a, b: a | b),
    ("sub", _swapped),
    ("ite", lambda w, n, c, a, b: good["ite"](w, n, ~c, a, b)),
    ("count", lambda w, n, *cs: good["count"](w, n, *cs[1:])),
    ("rule", lambda w, n, c: w.code.truth(True)),
    ("set_add", lambda w, n, s, i: s | i),
    ("set_has", lambda w, n, s, i: s.truth()),
    ("set_size", lambda w, n, s: s),
    ("map_get", lambda w, n, m, k: good["map_get"](w, n, m, k + 1)),
    ("map_get", lambda w, n, m, k: (m >> (k * 2)) & 3),
    ("map_set", lambda w, n, m, k, x: m),
    ("map_set", lambda w, n, m, k, x: m | (x << (k * w.layout.width(n.type.of)))),
    ("len", lambda w, n, q: q.length - 1),
    ("at", lambda w, n, q, k: good["at"](w, n, q, k + 1)),
    ("prefix", lambda w, n, q, k: q),
    ("prefix", lambda w, n, q, k: q._replace(length=k.natural().smaller(q.length))),
    ("slice", lambda w, n, q, a, b: good["prefix"](w, n, q, b)),
    ("slice", lambda w, n, q, a, b: good["slice"](w, n, q, a, b + 1)),
    ("append", lambda w, n, q, x: good["append"](w, n, q, (x[1], x[0]))),
    ("append", lambda w, n, q, x: q._replace(length=q.length + 1)),
    ("concat", lambda w, n, q, r: good["concat"](w, n, r, q)),
    ("agrees", lambda w, n, q, r, k: good["agrees"](w, n, q, r, k - 1)),
    ("agrees", lambda w, n, q, r, k: k.at_most(q.length) & k.at_most(r.length)),
    ("forall", lambda w, n, top: good["forall"](w, n, top - 1)),
    ("exists", lambda w, n, top: good["exists"](w, n, top + 1)),
    ("latest", lambda w, n, top: good["latest"](w, n, top - 1)),
    ("latest", lambda w, n, top: good["exists"](w, n, top).number()),
    ("record", lambda w, n, *fields: fields[::-1]),
    ("field", lambda w, n, record: record[-1]),
]
assert {op for op, _ in SLIPS} == OPERATIONS.keys()


@pytest.mark.parametrize(("op", "slip"), SLIPS, ids=[f"{op}-{k}" for k, (op, _) in enumerate(SLIPS)])
def test_a_wrong_rule_is_noticed(
    op: str, slip: Callable[..., Any], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would have found it."""
    monkeypatch.setattr(lowering, "RULES", {**good, op: slip})
    assert first_difference(model, op) is not None


# --- successors --------------------------------------------------------------

WALKS = [
    # bounds, rules off, mutant
    (Bounds(servers=3, max_term=3, max_log=2, commands=3, entries=2), (), None),
    (Bounds(servers=2, max_term=2, max_log=3, crashes=1, applies=True), (), None),
    (Bounds(servers=5, max_term=2, max_log=1), (), None),
    (Bounds(servers=3, max_term=2, max_log=1, max_messages=7, crashes=1), POLICY, None),
    (Bounds(servers=3, max_term=3, max_log=2), ("vote.once_per_term", "append.previous_entry"), None),
    (Bounds(servers=3, max_term=2, max_log=2), ("commit.majority", "append.truncate_conflict"), None),
    *((Bounds(servers=3, max_log=2, crashes=1), (), name) for name in ("R08", "R11", "R16")),
]


@pytest.mark.parametrize(("bounds", "without", "mutant"), WALKS, ids=range(len(WALKS)))
def test_the_successors_are_those_of_python(
    bounds: Bounds, without: tuple[str, ...], mutant: str | None
) -> None:
    """On the way of random walks, which prefer what isn't another election."""
    model = Model(raft, bounds, without, MUTANTS[mutant] if mutant else None)
    program = Program(model, properties=(), symmetry=False, level=0)
    rng = random.Random(str(bounds))
    compared = 0
    while compared < 1500:
        s = model.generated.initial()
        for _ in range(50):
            moves = list(model.moves(s))
            found = successors(program, s)
            assert found == {m.world for m in moves} - {s}, s.key()
            compared += len(found)
            if not moves:
                break
            s = rng.choices(moves, [0.05 if m.action in ("restart", "timeout") else 1 for m in moves])[
                0
            ].world


def test_what_is_left_of_a_property_says_the_same_of_a_step() -> None:
    """Of a step that changes one server and no history; asked of a server that didn't act, it misses some."""
    forgetful = ["vote.once_per_term", "append.truncate_only_conflict"]
    model = Model(raft, Bounds(servers=3, max_log=2), forgetful)
    program = Program(model, model.properties(), symmetry=False, level=0)
    names, rng, answers = program.step_properties, random.Random(1), Counter[tuple[bool, bool]]()
    left = {}
    for p in names:
        for i in model.servers:
            scope = scope_of(model.generated.structs)
            exec(property_source(model.spec.properties[p], program.left_of(p, i)), scope)
            left[p, i] = scope[p]
    for _ in range(30):
        s = model.generated.initial()
        for _ in range(25):
            moves = list(model.moves(s))
            if not moves:
                break
            move = rng.choices(moves, [0.05 if m.action == "timeout" else 1 for m in moves])[0]
            if move.world.past.same(s.past):
                for p in names:
                    claimed = model.claim(p)(s, move.world)
                    assert left[p, move.server](s, move.world) == claimed, (p, str(move))
                    others = (left[p, i](s, move.world) for i in model.servers if i != move.server)
                    answers[claimed, all(others)] += 1
            s = move.world
    assert answers[True, True] > 1000
    assert answers[False, True]


def test_a_packed_state_is_the_state() -> None:
    """Every state on random walks comes back as it was."""
    rng = random.Random(1)
    for bounds in (Bounds(servers=5, max_term=4, max_log=5), Bounds(servers=1, max_log=2, crashes=1)):
        model = Model(raft, bounds)
        layout = Layout(model)
        s = model.generated.initial()
        for _ in range(100):
            assert layout.unpack(layout.pack(s), map(layout.pack_message, s.messages)) == s
            moves = list(model.moves(s))
            if not moves:
                break
            s = rng.choice(moves).world


# --- explorations ------------------------------------------------------------

SMALL = [
    Bounds(servers=1, max_log=2, crashes=1),
    Bounds(servers=2),
    Bounds(servers=2, max_term=1, crashes=2),
    Bounds(servers=2, max_term=1, max_log=2, commands=1, entries=2),
    Bounds(servers=2, max_term=1, applies=True),
    Bounds(servers=3, max_term=1, max_log=0),
    Bounds(servers=3, max_term=1, max_messages=6),
    Bounds(servers=4, max_term=1, max_log=0, max_messages=6),
]


def outline(result: Result) -> tuple[Any, ...]:
    """What two explorers have to agree on."""
    return (result.stopped, result.states, result.distinct, result.depth, result.violation)


@pytest.mark.parametrize(
    ("bounds", "symmetry"), [(b, True) for b in SMALL] + [(b, False) for b in SMALL[2:]], ids=str
)
def test_counts_and_depths_are_those_of_the_reference(bounds: Bounds, symmetry: bool) -> None:
    model = Model(raft, bounds)
    assert outline(explore_native(model, symmetry=symmetry)) == outline(
        explore_model(model, symmetry=symmetry)
    )


def test_counts_are_those_of_the_reference_whatever_the_policy() -> None:
    model = Model(raft, Bounds(servers=2, max_messages=7), any_policy=True)
    assert outline(explore_native(model)) == outline(explore_model(model))


def question(case: Case, name: str) -> tuple[Model, dict[str, Any]]:
    """The model of a case, and where to begin."""
    mutant = MUTANTS.get(name)
    without = () if mutant else (name,)
    figure_2 = Model(raft, case.bounds, without, mutant)
    model = Model(raft, case.bounds, without, mutant, case.any_policy) if case.any_policy else figure_2
    return model, {"start": BEGINNINGS[case.start](Walk(figure_2)).path, "properties": case.properties}


@pytest.mark.parametrize("name", ["vote.recorded", "commit.never_back", "commit.current_term", "E16", "R08"])
def test_a_shortest_counterexample_is_found_and_happens(name: str) -> None:
    """The path is one of the reference's length, and each of its steps was taken by Python."""
    model, where = question({**RULE_CASES, **MUTANT_CASES}[name], name)
    expected, found = explore_model(model, **where).violation, explore_native(model, **where).violation
    assert expected is not None
    assert found is not None
    assert (found.property, len(found.path)) == (expected.property, len(expected.path))
    s: World = found.path.start
    for move in found.path.moves[len(where["start"]) :]:
        assert move.world.key() != s.key()
        s = move.world


def test_a_claim_that_the_first_state_breaks_is_found_at_once() -> None:
    spec = Spec(raft.server, raft.history, raft.rules, dict(raft.actions), dict(raft.properties))

    @spec.invariant
    def somebody_leads(s: Any) -> bool:
        """Somebody leads."""
        return s["n1"].role == Role.LEADER  # type: ignore[no-any-return]

    found = explore_native(Model(spec, Bounds(servers=1))).violation
    assert found is not None
    assert (found.property, len(found.path)) == ("somebody_leads", 0)


# --- limits ------------------------------------------------------------------


def test_it_stops_at_a_number_of_states() -> None:
    result = explore_native(Model(raft, Bounds()), limit_states=5000)
    assert result.stopped == "stopped at the limit of 5000 states"
    assert 5000 <= result.distinct < 5100


def test_an_exact_search_stops_at_a_limit_of_memory() -> None:
    """It has nothing on disk."""
    result = explore_native(Model(raft, Bounds()), limit_memory=20_000_000, exact=True)
    assert "memory" in result.stopped
    assert result.memory <= 20_000_000
    assert result.distinct > 10_000
    assert not result.exhausted


def test_a_measurement_says_what_was_measured() -> None:
    text = str(measure_explore(Bounds(servers=2)))
    assert text.startswith(f"{Bounds(servers=2)}, states that differ in servers' names taken for one")
    assert "3,236 distinct states of 33,836 successors, depth 24" in text


def test_it_tells_how_far_it_has_come() -> None:
    seen: list[int] = []
    explore_native(Model(raft, Bounds()), limit_states=600_000, progress=lambda p: seen.append(p.distinct))
    assert seen
    assert seen == sorted(seen)


def test_what_has_no_place_is_refused() -> None:
    """A log that is longer than a word, before anything is explored."""
    with pytest.raises(NoPlaceError, match="log"):
        explore_native(Model(raft, Bounds(max_log=9, max_term=7, commands=30)))


def test_a_value_beyond_the_bounds_is_noticed() -> None:
    """A bound that is not kept ends the exploration; nothing is cut off."""

    class Loose(Bounds):
        def guards(self) -> dict[str, Callable[..., bool]]:
            return {name: g for name, g in super().guards().items() if name != "timeout"}

    with pytest.raises(NoPlaceError, match="timeout makes a value beyond the bounds"):
        explore_native(Model(raft, Loose(servers=1, max_log=0)))


# --- from the command line's side --------------------------------------------


def ask(**question: Any) -> tuple[int, dict[str, Any]]:
    console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    code = run_explore(**question, as_json=True, console=console)
    return code, json.loads(console.export_text())


def test_the_engine_is_chosen_by_the_question() -> None:
    """Small questions and those that only Python can answer go to Python."""
    large = Bounds(servers=2)
    assert ask(bounds=Bounds(servers=1))[1]["engine"] == "python"
    code, data = ask(bounds=large)
    assert (code, data["engine"], data["distinct"]) == (0, "native", 3236)
    assert 0 < data["collision"] < 1e-9
    assert ask(bounds=large, engine="python", limit_states=5)[1]["engine"] == "python"
    assert ask(bounds=large, engine="native", find="len(leaders()) == 1")[1]["engine"] == "native"
    code, data = ask(bounds=large, find="len(s.messages) == 0 and len(leaders()) > 0")
    assert (code, data["engine"], data["verdict"]) == (2, "python", "not found")
    assert "the messages" in data["note"]
    assert ask(bounds=Bounds(max_log=9, max_term=7, commands=30), limit_states=1100)[1]["engine"] == "python"


def test_an_engine_that_cannot_answer_says_so() -> None:
    code, data = ask(bounds=Bounds(servers=1), engine="native", find="len(s.messages) == 1")
    assert (code, data["verdict"]) == (2, "unusable")
    assert "--engine python" in data["error"]
    code, data = ask(bounds=Bounds(servers=1), engine="fast")
    assert (code, data["error"]) == (2, "no engine is called fast; there are auto, native, python, ray")


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(UnusableError, match="no property is called nothing"):
        explore_native(Model(raft, Bounds(servers=1)), properties=["nothing"])

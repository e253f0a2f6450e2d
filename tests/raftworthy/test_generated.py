"""Generated Python says what the specification says, as new states and in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.expressions import (
    ITEM,
    LOG,
    SERVERS,
    Form,
    Past,
    Tree,
    applications,
    build,
    evaluate,
    forms,
    names,
    some_states,
    spec_of,
    trees,
    uses,
)
from tests.expressions import Note as NoteMessage
from tests.expressions import Variables as SpecVariables

import raftspec.properties  # noqa: F401  (it adds them to the specification)
from raftspec.graph import OPERATIONS, Graph, Operation
from raftspec.raft import raft
from raftspec.spec import Property, State, Step, only_if, run, when
from raftspec.tracing import SymbolicState, Tracer
from raftspec.types import BOOL, INDEX, SERVER, Record, Server, Type, zero
from raftspec.values import MEANINGS, Map, Seq
from raftworthy import generated
from raftworthy.generated import (
    IN_PLACE,
    RULES,
    Generated,
    Variables,
    World,
    Writer,
    generate,
    property_source,
    scope_of,
    to_spec,
)
from raftworthy.structs import structs_of

QUICK = settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


# --- from the specification's values to generated ones -----------------------


def stored(value: Any, structs: Mapping[type[Record], Any]) -> Any:
    """A concrete value as generated code holds it in a variable."""
    match value:
        case Map():
            return dict(value.items)
        case Seq():
            return [sent(x, structs) for x in value]
    return sent(value, structs)


def sent(value: Any, structs: Mapping[type[Record], Any]) -> Any:
    """A concrete value as generated code holds it in a message."""
    match value:
        case Record():
            return structs[type(value)](*(sent(x, structs) for x in value.values()))
        case Seq():
            return tuple(sent(x, structs) for x in value)
    return value


def world_of(s: State[Any, Any], made: Generated) -> World:
    world = made.initial()
    for i in SERVERS:
        fill(world.variables[i], s[i], made)
    fill(world.past, s.past, made)
    return world


def fill(target: Variables, record: Record, made: Generated) -> None:
    for name, value in zip(record.types(), record.values(), strict=True):
        setattr(target, name, stored(value, made.structs))


def read(source: Any, kind: type[Record]) -> Record:
    return kind(*(to_spec(getattr(source, name), t) for name, t in kind.types().items()))


def state_of(world: World) -> tuple[Any, ...]:
    """A generated state in the specification's values."""
    return (*(read(world.variables[i], SpecVariables) for i in SERVERS), read(world.past, Past))


# --- one action made of random expressions -----------------------------------

# What the action changes, each variable by an expression of its own.
CHANGED = {
    "flag": BOOL,
    "index": INDEX,
    "log": LOG,
    "spare": LOG,
    **{
        name: SpecVariables.types()[name] for name in ("term", "owner", "votes", "table", "leaders", "colors")
    },
}


def random_step(draw: st.DrawFn, fixed: dict[str, Tree]) -> dict[str, Tree]:
    """Expressions for a guard, a message, and some of the variables."""
    wanted = {"guard": BOOL, "sends": BOOL, "items": LOG, "committed": LOG} | {
        name: t for name, t in CHANGED.items() if draw(st.booleans())
    }
    return {name: draw(trees(t, 1)) for name, t in wanted.items() if name not in fixed} | fixed


def action_of(plan: Mapping[str, Tree]) -> Callable[..., Step]:
    def act(s: State[Any, Any], i: Server, j: Server) -> Step:
        me = s[i]
        values = {name: build(tree, s, names(s, i, j)) for name, tree in plan.items()}
        changes = {name: x for name, x in values.items() if name in CHANGED}
        note = NoteMessage(i, j, me.term, me.index, me.flag, values["items"])
        return Step(
            i,
            when("the guard", values["guard"]),
            then=me.but(**changes),
            send=only_if(values["sends"], note),
            history=s.past.but(committed=values["committed"], steps=s.past.steps + 1),
        )

    return act


def agree_action(plan: Mapping[str, Tree], states: list[State[Any, Any]], i: str, j: str) -> None:
    """An action has the same outcome run, generated as new states, and generated in place."""
    spec = spec_of(action_of(plan))
    structs = structs_of(spec)
    pure = generate(spec, SERVERS, structs, pure=True)
    in_place = [generate(spec, SERVERS, structs, watch=watch) for watch in (False, True)]
    for s in states:
        failed, expected = run(spec.actions["act"], s, i, j)
        wanted = (*(expected[k] for k in SERVERS), expected.past)
        messages = {sent(m, structs) for m in expected.messages}

        before = world_of(s, pure)
        outcome = pure.actions["act"](before, i, j)
        assert state_of(before) == (*(s[k] for k in SERVERS), s.past), f"changed its argument:\n{pure.source}"
        assert (outcome is None) == (failed is not None)
        if outcome is not None:
            assert state_of(outcome[0]) == wanted, pure.source
            assert set(outcome[1]) == messages, pure.source

        for made in in_place:
            world, out = world_of(s, made), list[Any]()
            assert made.actions["act"](world, i, j, out.append) == (1 if failed else 0)
            assert state_of(world) == wanted, made.source
            assert set(out) == messages, made.source


# --- the claims --------------------------------------------------------------


def check_expression(op: str) -> None:
    @QUICK
    @given(applications(op), some_states(), st.sampled_from(SERVERS))
    def claim(use: tuple[Form, Tree], states: list[State[Any, Any]], j: str) -> None:
        form, tree = use
        spec = spec_of()
        tracer = Tracer(spec, SERVERS)
        symbolic = SymbolicState(tracer, 0)
        servers = [tracer.wrap(tracer.graph.const(k, SERVER)) for k in ("n1", j)]
        node = tracer.lift(build(tree, symbolic, names(symbolic, *servers)), form.result)
        made = generate(spec, SERVERS, structs_of(spec))
        scope = scope_of(made.structs)
        source = property_source(Property("computed", lambda s: True, 1), node)
        exec(source, scope)
        for s in states:
            computed = to_spec(scope["computed"](world_of(s, made)), form.result)
            assert computed == evaluate(node, s, {}) == build(tree, s, names(s, "n1", j)), source

    claim()


def check_action(op: str) -> None:
    """The operation stands at the root of a variable's update, beside other updates."""

    @st.composite
    def plans(draw: st.DrawFn) -> dict[str, Tree]:
        form = draw(st.sampled_from([f for f in forms(op) if f.result in CHANGED.values()]))
        name = draw(st.sampled_from([name for name, t in CHANGED.items() if t == form.result]))
        return random_step(draw, {name: draw(uses(form))})

    @QUICK
    @given(plans(), some_states(), st.sampled_from(SERVERS))
    def claim(plan: dict[str, Tree], states: list[State[Any, Any]], j: str) -> None:
        agree_action(plan, states, "n1", j)

    claim()


@pytest.mark.parametrize("op", OPERATIONS)
def test_generated_expression_is_the_operation(op: str) -> None:
    check_expression(op)


@pytest.mark.parametrize("op", sorted({"ite", "slice", *IN_PLACE}))
def test_action_in_place_is_the_action(op: str) -> None:
    check_action(op)


# --- the specification of Raft -----------------------------------------------


class LongLog(list[Any]):
    """A log that is neither walked through nor copied."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("walked through the log")

    def __getitem__(self, n: Any) -> Any:
        assert not isinstance(n, slice) or len(range(*n.indices(len(self)))) < 10, f"copied {n} of the log"
        return super().__getitem__(n)


def test_a_step_in_place_touches_only_the_entries_it_speaks_of() -> None:
    structs = structs_of(raft)
    kinds = {cls.__name__: struct for cls, struct in structs.items()}
    made = generate(raft, SERVERS, structs, properties=False)
    world, out = made.initial(), list[Any]()
    entry = kinds["Entry"]
    for v in world.variables.values():
        v.log, v.current_term, v.commit_index = LongLog([entry(1, "x")] * 1000), 1, 990
    world.past.committed = LongLog([entry(1, "x")] * 995)
    leader, follower = world.variables["n1"], world.variables["n2"]
    leader.role, leader.next_index["n2"] = "leader", 1001
    act = made.actions
    assert act["client_request"](world, "n1", "y", out.append) == 0
    assert act["append_entries"](world, "n1", "n2", 1000, 1, 990, out.append) == 0
    assert act["handle_append_entries"](world, out.pop(), out.append) == 0
    assert act["handle_append_entries_reply"](world, out.pop(), out.append) == 0
    assert act["advance_commit_index"](world, "n1", 1001, out.append) == 0
    assert len(follower.log) == leader.commit_index == leader.match_index["n2"] == 1001
    conflict = kinds["AppendEntries"]("n1", "n2", 2, 999, 1, (entry(2, "z"),), 990)
    assert act["handle_append_entries"](world, conflict, out.append) == 0
    assert len(follower.log) == 1000
    assert follower.log[-1] == entry(2, "z")


def test_servers_of_any_name_are_told_apart() -> None:
    servers = ("10.0.0.1:5", "10.0.0.1-5", "10_0_0_1_5")
    made = generate(raft, servers, structs_of(raft))
    for pair in permutations(servers, 2):
        world = made.initial()
        for i in pair:
            world.variables[i].role, world.variables[i].voted_for = "leader", i
        assert not made.properties["election_safety"](world)
        assert made.properties["leader_voted_for_itself"](world)


# --- would they notice? ------------------------------------------------------

# A slip for each rule of the back end, as somebody could make it.
WRONG_RULES = {
    "not": "{}",
    "and": "({} or {})",
    "or": "({} and {})",
    "eq": "({} != {})",
    "lt": "({} <= {})",
    "le": "({} < {})",
    "add": "({} - {})",
    "sub": "({} + {})",
    "ite": "({2} if {0} else {1})",
    "set_add": "({} - {{{}}})",
    "set_has": "({1} not in {0})",
    "set_size": "(len({}) + 1)",
    "map_set": "{{{1}: {2}, **{0}}}",
    "prefix": "{}[{}:]",
    "slice": "{}[{}:{} + 1]",
    "append": "({1}, *{0})",
    "concat": "(*{1}, *{0})",
    "agrees": "agrees({}, {}, {} - 1)",
    "rule": "(not {})",
}
# The operations whose text is a method's, and what a slip there gives.
WRONG_METHODS: dict[str, Callable[[Writer, Any], str]] = {
    "count": lambda w, n: f"max({', '.join(map(w.expr, n.args))}, 0)",
    "map_get": lambda w, n: f"{w.expr(n.args[0])}.get({w.expr(n.args[1])})",
    "len": lambda w, n: f"(len({w.expr(n.args[0])}) - 1)",
    "at": lambda w, n: f"({w.atom(n.args[0])} or ({generated.literal(zero(n.type))},))[-1]",
    "record": lambda w, n: f"Item({', '.join(w.immutable(a) for a in (n.args[0], n.args[0], *n.args[2:]))})",
    "field": lambda w, n: f"{w.expr(n.args[0])}.{n.attr if n.attr != 'value' else 'term'}",
    "forall": lambda w, n: w._loop(n, found=True),
    "exists": lambda w, n: w._loop(n, found=False),
    "latest": lambda w, n: w._loop(n, found=False),
}
WRONG_IN_PLACE = {
    "map_set": "{0}.setdefault({1}, {2})",
    "append": "{0}.insert(0, {1})",
    "prefix": "del {0}[{1} + 1:]",
    "concat": "{0}[:0] = {1}",
}
WRONG_MEANINGS: dict[str, Callable[..., Any]] = {
    "not": lambda a: a,
    "and": lambda a, b: a or b,
    "or": lambda a, b: a and b,
    "eq": lambda a, b: a != b,
    "lt": lambda a, b: a <= b,
    "le": lambda a, b: a < b,
    "add": lambda a, b: a - b,
    "sub": lambda a, b: a + b,
    "ite": lambda c, a, b: b if c else a,
    "count": lambda *cs: any(cs) + 0,
    "rule": lambda c, attr: not c,
    "set_add": lambda s, i: s,
    "set_has": lambda s, i: i not in s,
    "set_size": lambda s: len(s) + 1,
    "map_get": lambda m, k: m.items.get(k),
    "map_set": lambda m, k, x: m,
    "len": lambda q: len(q) + 1,
    "at": lambda q, n: q.get(n + 1),
    "prefix": lambda q, n: q.but(q[:n]),
    "slice": lambda q, a, b: q.but(q[a:b]),
    "append": lambda q, x: q.but((x, *q)),
    "concat": lambda q, r: r.but((*r, *q)),
    "agrees": lambda q, r, n: q[: max(n, 0)] == r[: max(n, 0)],
    "record": lambda *fields, attr: attr.cls(fields[0], fields[0], *fields[2:]),
    "field": lambda r, attr: getattr(r, "term" if attr == "value" else attr),
    "forall": lambda n, claim: all(map(claim, range(1, n))),
    "exists": lambda n, claim: any(map(claim, range(n + 1))),
    "latest": lambda n, claim: next(filter(claim, range(1, n + 1)), 0),
}


def test_there_is_a_slip_for_each_rule_and_meaning() -> None:
    assert WRONG_RULES.keys() | WRONG_METHODS.keys() == RULES.keys()
    assert WRONG_IN_PLACE.keys() == IN_PLACE.keys()
    assert WRONG_MEANINGS.keys() == OPERATIONS.keys()


def expect_noticed(check: Callable[[str], None], op: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011
        check(op)


@pytest.mark.parametrize("op", RULES)
def test_a_wrong_rule_is_noticed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if op in WRONG_METHODS:
        monkeypatch.setattr(Writer, f"op_{op}", WRONG_METHODS[op])
    else:
        monkeypatch.setitem(RULES, op, WRONG_RULES[op])
    expect_noticed(check_expression, op)


@pytest.mark.parametrize("op", IN_PLACE)
def test_a_wrong_change_in_place_is_noticed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IN_PLACE, op, WRONG_IN_PLACE[op])
    expect_noticed(check_action, op)


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_wrong_meaning_is_noticed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, op, Operation(OPERATIONS[op].signature, WRONG_MEANINGS[op]))
    monkeypatch.setitem(MEANINGS, op, WRONG_MEANINGS[op])
    expect_noticed(check_expression, op)


def test_a_length_is_taken_before_the_list_that_it_measures_changes() -> None:
    """`spare` is cut to the length that `log` had, though `log` is cut first."""

    def act(s: State[Any, Any], i: Server) -> Step:
        me = s[i]
        return Step(i, then=me.but(log=me.log.prefix(0), spare=me.spare.prefix(me.log.length)))

    spec = spec_of(act)
    made = generate(spec, SERVERS, structs_of(spec))
    item = zero(ITEM)
    me = SpecVariables(log=Seq([item]), spare=Seq([item, item]))
    world = world_of(State(dict.fromkeys(SERVERS, me), Past()), made)
    sent: list[Any] = []
    made.actions["act"](world, "n1", sent.append)
    assert len(world.variables["n1"].spare) == 1


def test_an_index_is_bounded_where_its_loop_does_not_bound_it() -> None:
    """Two loops with one variable: only in the first can it never leave the sequence."""
    graph = Graph()
    flags, number = Type("seq", of=BOOL), graph.leaf("param", "number", INDEX)
    q, k = graph.leaf("param", "q", flags), graph.leaf("bound", "k1", INDEX)
    claims = [
        graph.node("exists", top, graph.node("at", q, k), attr="k1") for top in (graph.node("len", q), number)
    ]
    w = Writer(claims)
    inside, outside = map(w.expr, claims)
    scope: dict[str, Any] = {"q": [False], "number": 3}
    exec("\n".join(["if True:", *w.lines]), scope)
    assert not scope[inside]
    assert not scope[outside]
    assert sum("if 0 < k1" in line for line in w.lines) == 1

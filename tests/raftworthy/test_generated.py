"""Generated Python says what the specification says, as new states and in place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from raftspec import graph
from raftspec.graph import OPERATIONS
from raftspec.spec import Spec, State, Step, only_if, run, when
from raftspec.types import BOOL, INDEX, SERVER, Record, Server, Type
from raftspec.values import Map, Seq
from raftworthy import generated
from raftspec.tracing import SymbolicState, Tracer
from raftworthy.generated import (
    IN_PLACE,
    RULES,
    Generated,
    Variables,
    World,
    Writer,
    scope_of,
    generate,
    property_source,
    to_spec,
)
from raftworthy.structs import structs_of
from tests.expressions import (
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
    spec_of,
    states,
    trees,
    uses,
)
from tests.expressions import Note as NoteMessage
from tests.expressions import Variables as SpecVariables

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


def agree_action(plan: Mapping[str, Tree], s: State[Any, Any], i: str, j: str) -> None:
    """An action has the same outcome run, generated as new states, and generated in place."""
    spec = spec_of(action_of(plan))
    structs = structs_of(spec)
    failed, expected = run(spec.actions["act"], s, i, j)
    messages = {sent(m, structs) for m in expected.messages}
    wanted = (*(expected[k] for k in SERVERS), expected.past)
    pure = generate(spec, SERVERS, structs, pure=True)
    before = world_of(s, pure)
    outcome = pure.actions["act"](before, i, j)
    assert state_of(before) == (*(s[k] for k in SERVERS), s.past), "a pure function changed its argument"
    assert (outcome is None) == (failed is not None)
    if outcome is not None:
        assert state_of(outcome[0]) == wanted, pure.source
        assert set(outcome[1]) == messages, pure.source

    made = generate(spec, SERVERS, structs)
    world, out = world_of(s, made), []
    number = made.actions["act"](world, i, j, out.append)
    assert number == (1 if failed else 0)
    assert state_of(world) == wanted, made.source
    assert set(out) == messages, made.source


# --- the claims --------------------------------------------------------------


def check_expression(op: str) -> None:
    @QUICK
    @given(applications(op), states(), st.sampled_from(SERVERS))
    def claim(use: tuple[Form, Tree], s: State[Any, Any], j: str) -> None:
        form, tree = use
        spec = spec_of()
        tracer = Tracer(spec, SERVERS)
        symbolic = SymbolicState(tracer, 0)
        servers = [tracer.wrap(tracer.graph.const(k, SERVER)) for k in ("n1", j)]
        node = tracer.lift(build(tree, symbolic, names(symbolic, *servers)), form.result)
        made = generate(spec, SERVERS, structs_of(spec))
        scope = scope_of(made.structs)
        source = property_source("computed", node, 1)
        exec(source, scope)
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
    @given(plans(), states(), st.sampled_from(SERVERS))
    def claim(plan: dict[str, Tree], s: State[Any, Any], j: str) -> None:
        agree_action(plan, s, "n1", j)

    claim()


@pytest.mark.parametrize("op", OPERATIONS)
def test_generated_expression_is_the_operation(op: str) -> None:
    check_expression(op)


@pytest.mark.parametrize("op", sorted({"ite", "slice", *IN_PLACE}))
def test_action_in_place_is_the_action(op: str) -> None:
    check_action(op)

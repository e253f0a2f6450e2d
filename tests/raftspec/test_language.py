"""The language means the same whether it computes or is traced."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.expressions import (
    LOG,
    SERVERS,
    WRITTEN,
    Form,
    Tree,
    applications,
    build,
    evaluate,
    forms,
    names,
    some_states,
    spec_of,
)

from raftspec.graph import OPERATIONS, Node, check
from raftspec.spec import State
from raftspec.tracing import SymbolicState, Tracer
from raftspec.types import BOOL, INDEX, SERVER, Type
from raftspec.values import forall, ite, no


def trace(tree: Tree, t: Type) -> Node:
    """A tree as a node of a fresh graph."""
    tracer = Tracer(spec_of(), SERVERS)
    s = SymbolicState(tracer, 0)
    i, j = (tracer.wrap(tracer.graph.leaf("param", name, SERVER)) for name in "ij")
    n = tracer.lift(build(tree, s, names(s, i, j)), t)
    check([n])
    return n


def agree(tree: Tree, t: Type, states: list[State[Any, Any]], j: str) -> None:
    n = trace(tree, t)
    for s in states:
        computed = build(tree, s, names(s, "n1", j))
        assert evaluate(n, s, {"i": "n1", "j": j}) == computed, f"{tree} is traced as {n!r}"


def test_every_operation_can_be_written_and_drawn() -> None:
    assert WRITTEN.keys() == OPERATIONS.keys()
    assert all(forms(op) for op in OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_tracing_an_operation_preserves_its_meaning(op: str) -> None:
    @settings(max_examples=25, phases=[Phase.generate], deadline=None)
    @given(applications(op), some_states(), st.sampled_from(SERVERS))
    def check_operation(use: tuple[Form, Tree], states: list[State[Any, Any]], j: str) -> None:
        form, tree = use
        agree(tree, form.result, states, j)

    check_operation()


# --- simplification ----------------------------------------------------------


FEW = {BOOL: ("flag", "other_flag"), INDEX: ("index", "other_index"), LOG: ("log", "spare")}
CROWDED = {
    BOOL: (
        ("and", BOOL, BOOL),
        ("or", BOOL, BOOL),
        ("not", BOOL),
        ("eq", INDEX, INDEX),
        ("le", INDEX, INDEX),
        ("lt", INDEX, INDEX),
        ("agrees", LOG, LOG, INDEX),
    ),
    INDEX: (("len", LOG), ("sub", INDEX, INDEX)),
    LOG: (("prefix", LOG, INDEX), ("concat", LOG, LOG)),
}


def crowded(t: Type, depth: int, rng: Random) -> Tree:
    """A tree of few variables and few operations, so that what simplification looks for is often there."""
    if depth == 0:
        return Tree("variable", (), rng.choice(FEW[t]))
    op, *args = rng.choice([("ite", BOOL, t, t)] * 3 + list(CROWDED[t]))
    inside = [crowded(x, depth - 1, rng) for x in args]
    if op in ("and", "or", "ite") and t == BOOL and rng.random() < 0.2:
        inside[-1] = Tree("literal", (), rng.random() < 0.5)
    return Tree(op, tuple(inside))


@pytest.mark.parametrize("t", [BOOL, INDEX, LOG], ids=str)
def test_simplification_preserves_meaning(t: Type) -> None:
    @settings(max_examples=150, phases=[Phase.generate], deadline=None)
    @given(st.integers(0, 2**32), some_states())
    def claim(seed: int, states: list[State[Any, Any]]) -> None:
        agree(crowded(t, 4, Random(seed)), t, states, "n1")

    claim()


def test_simplification_reaches_its_rules() -> None:
    """Each rewriting of the graph, on the smallest expression that shows it."""
    tracer = Tracer(spec_of(), SERVERS)
    me = SymbolicState(tracer, 0)["n1"]
    a, b, c = me.flag, me.other_flag, me.index == 0
    true, false = (tracer.wrap(tracer.graph.const(x, BOOL)) for x in (True, False))
    equal = [
        (no(no(a)), a),
        (a | no(a), true),
        (no(a) & a, false),
        ((me.index < me.log.length) | (me.log.length <= me.index), true),
        (me.index < me.index, false),
        (me.log.agrees(me.log, me.index), me.index <= me.log.length),
        (me.log.agrees(me.log, me.log.length), true),
        (forall(me.index, lambda k: k <= k), true),
        (a & True, a),
        (a & False, false),
        (a | False, a),
        (a | a, a),
        (ite(no(a), me.index, 0), ite(a, 0, me.index)),
        (ite(a, ite(a, me.index, 1), 2), ite(a, me.index, 2)),
        (ite(a, ite(b, me.index, 2), 2), ite(a & b, me.index, 2)),
        (ite(a, me.index, ite(b, me.index, 2)), ite(a | b, me.index, 2)),
        (ite(a, True, b), a | b),
        (ite(a, b, False), a & b),
        (me.log.append(me.log.last).length, me.log.length + 1),
        (ite(c, me.log, me.spare).length, ite(c, me.log.length, me.spare.length)),
        (me.table.set("n1", me.index)["n1"], me.index),
        (me.table.set("n1", me.table["n1"]), me.table),
        (ite(a, me.log.last, me.spare.last).term, ite(a, me.log.last.term, me.spare.last.term)),
    ]
    for k, (x, y) in enumerate(equal):
        assert x.node is y.node, f"{k}: {x!r} is not {y!r}"
    assert tracer.lift(me.log.last, None).op == "at"
    assert me.table.set("n1", me.table["n2"]).node.op == "map_set"
    assert me.table.set("n1", me.index)["n2"].node.op == "map_get"

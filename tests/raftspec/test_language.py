"""The language means the same whether it computes or is traced."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from raftspec.graph import OPERATIONS, Node, check
from raftspec.spec import State
from raftspec.tracing import SymbolicState, Tracer
from raftspec.types import BOOL, INDEX, SERVER, Type
from tests.expressions import (
    LOG,
    SERVERS,
    WRITTEN,
    Tree,
    applications,
    build,
    evaluate,
    forms,
    names,
    spec_of,
    states,
    trees,
)


def trace(tree: Tree, t: Type) -> Node:
    """A tree as a node of a fresh graph."""
    tracer = Tracer(spec_of(), SERVERS)
    s = SymbolicState(tracer, 0)
    i, j = (tracer.wrap(tracer.graph.leaf("param", name, SERVER)) for name in "ij")
    n = tracer.lift(build(tree, s, names(s, i, j)), t)
    check([n])
    return n


def agree(tree: Tree, t: Type, s: State[Any, Any], i: str, j: str) -> None:
    computed = build(tree, s, names(s, i, j))
    n = trace(tree, t)
    assert evaluate(n, s, {"i": i, "j": j}) == computed, f"{tree} is traced as {n!r}"


def test_every_operation_can_be_written_and_drawn() -> None:
    assert WRITTEN.keys() == OPERATIONS.keys()
    assert all(forms(op) for op in OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_tracing_an_operation_preserves_its_meaning(op: str) -> None:
    @settings(max_examples=40, phases=[Phase.generate], deadline=None)
    @given(applications(op), states(), st.sampled_from(SERVERS), st.sampled_from(SERVERS))
    def check_operation(use: Any, s: State[Any, Any], i: str, j: str) -> None:
        form, tree = use
        agree(tree, form.result, s, i, j)

    check_operation()

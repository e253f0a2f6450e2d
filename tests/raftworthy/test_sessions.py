"""Clients' sessions: requests are executed once, and all that reads the specification agrees on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftspec.extensions import EXTENSIONS, having
from raftworthy.explore.cases import EXTENSION_CASES, SESSIONS
from raftworthy.explore.needless import EXTENSION_WAITS
from raftworthy.explore.reference import Model, explore_model
from raftworthy.explore.why import why
from raftworthy.native import available

RULES = EXTENSIONS["sessions"].rules

# Without the rule, the first property to break and the length of the shortest path to it, beginning included.
EXPECTED = {
    "session.once": ("exactly_once", 9),
    "session.kept_response": ("responses_are_of_executions", 9),
    "session.not_forgotten": ("exactly_once", 11),
    "session.registered": ("exactly_once", 7),
    "session.expiry_from_log": ("replicas_answer_alike", 22),
}


def test_every_rule_is_accounted_for() -> None:
    assert RULES.keys() == EXPECTED.keys() | (RULES.keys() & EXTENSION_WAITS.keys())
    assert {r for r in RULES if RULES[r].kind == "safety"} == EXPECTED.keys()


@pytest.mark.parametrize("rule", EXPECTED)
def test_without_the_rule_something_breaks(rule: str) -> None:
    disaster = why(rule).disaster
    assert disaster is not None
    assert (disaster.property, len(disaster.path)) == EXPECTED[rule]
    assert EXTENSION_CASES[rule].explore(limit_states=500).violation is None


def test_a_response_can_be_forgotten_once_the_client_has_it() -> None:
    assert why("session.lowest_unanswered").waits is not None


@pytest.mark.skipif(not available(), reason="needs llvmlite")
def test_both_engines_count_the_same_states_with_sessions() -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    for bounds in (SESSIONS, replace(SESSIONS, servers=2, max_log=1)):
        model = Model(having("sessions"), bounds)
        by_python, native = explore_model(model), explore_native(model, permits=nothing("counted"))
        assert by_python.violation is None
        assert native.violation is None
        assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)

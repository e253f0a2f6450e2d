"""Snapshots in the specification: each rule is needed, or said why not, and both engines agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftspec.extensions import having
from raftspec.snapshots import snapshots
from raftworthy.explore.cases import COMPACTED, EXTENSION_CASES, WITH_SNAPSHOTS, Case
from raftworthy.explore.needless import EXTENSION_NEEDLESS, EXTENSION_WAITS
from raftworthy.explore.reference import Bounds, Model, explore_model
from raftworthy.explore.why import why
from raftworthy.native import available

# What is violated first without each rule, and after how many steps, beginning included.
EXPECTED = {
    "snapshot.applied_only": ("compacted_is_committed", 4),
    "snapshot.last_term": ("leader_completeness", 22),
    "snapshot.send_kept": ("log_matching", 14),
    "snapshot.send_taken": ("state_machine_safety", 14),
    "snapshot.never_back": ("commit_never_falls", 21),
    "snapshot.keep_newer": ("match_index_is_true", 17),
    "snapshot.discard_conflict": ("log_matching", 30),
    "restart.keep_snapshot": ("committed_never_changes", 7),
}
SMALL = Bounds(max_messages=6, **WITH_SNAPSHOTS)


def test_every_rule_is_accounted_for() -> None:
    rest = snapshots.rules.keys() - EXPECTED.keys()
    assert rest == snapshots.rules.keys() & (EXTENSION_NEEDLESS.keys() | EXTENSION_WAITS.keys())
    assert {r for r, rule in snapshots.rules.items() if rule.kind == "safety"} == EXPECTED.keys()


@pytest.mark.parametrize("rule", EXPECTED)
def test_something_goes_wrong_without_a_rule_of_safety(rule: str) -> None:
    violation = EXTENSION_CASES[rule].explore(without={rule}).violation
    assert violation is not None
    assert (violation.property, len(violation.path)) == EXPECTED[rule]


@pytest.mark.parametrize("case", dict.fromkeys(EXTENSION_CASES[r] for r in EXPECTED), ids=str)
def test_nothing_goes_wrong_with_all_rules(case: Case) -> None:
    limited = case.explore(limit_states=300)
    assert limited.violation is None


@pytest.mark.parametrize("rule", sorted(snapshots.rules.keys() - EXPECTED.keys()))
def test_without_any_other_rule_only_progress_is_lost(rule: str) -> None:
    answer = why(rule)
    assert answer.disaster is None
    assert (answer.waits is not None) == (rule in EXTENSION_WAITS)


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize(
    "bounds", [SMALL, replace(SMALL, crashes=1, max_messages=4), replace(COMPACTED, max_messages=5)], ids=str
)
def test_both_engines_count_the_same_states(bounds: Bounds) -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    model = Model(having("snapshots"), bounds)
    by_python = explore_model(model)
    native = explore_native(model, permits=nothing("counted"))
    assert by_python.violation is None
    assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)

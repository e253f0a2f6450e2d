"""Pre-vote, check quorum and leadership transfer in the specification: what each rule is for.

Most of their rules keep the cluster going, so nothing wrong is agreed on without them. That they are of
use is shown in the simulated clusters of tests/raftd/test_standing.py.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path

import pytest

from raftd.faults import BREAKS
from raftd.simulated_faults import Faults
from raftd.simulator import EXTENDED, server_names, simulate
from raftspec.extensions import EXTENSIONS, having
from raftspec.mutants import MUTANTS
from raftspec.spec import Rule
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import EXTENSION_CASES, Case
from raftworthy.explore.export import deviation, write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.needless import EXTENSION_NEEDLESS
from raftworthy.explore.reference import explore_model
from raftworthy.explore.why import why
from raftworthy.native import available
from raftworthy.replay.verdict import check

OURS = ("pre_vote", "check_quorum", "leadership_transfer")
RULES: dict[str, Rule] = {name: rule for x in OURS for name, rule in EXTENSIONS[x].rules.items()}

# The property that fails first without a rule, and the length of the shortest path there, beginning included.
EXPECTED = {
    "pre_vote.majority": ("candidate_has_support", 1),
    "pre_vote.keep_vote": ("vote_is_kept", 5),
    "pre_vote.no_vote": ("one_leader_per_term", 16),
    "check_quorum.keep_vote": ("vote_is_kept", 5),
    "transfer.leader_only": ("told_by_leader", 2),
    "transfer.caught_up": ("told_to_stand_is_complete", 15),
    "transfer.current_term": ("told_by_leader", 7),
}
HARMLESS = sorted(RULES.keys() - EXPECTED.keys())
# After which beginning a trace shows that a rule is missing; None: a right server may do the same.
SHOWN: dict[str, str | None] = {
    "pre_vote.up_to_date": "stored",
    "pre_vote.count_granted": "led",
    "pre_vote.leader_found": "led",
    "pre_vote.refuse": None,
    "transfer.to_voter": None,
    "pre_vote.leader_heard": None,
}


def test_every_rule_is_accounted_for() -> None:
    mutants = {name for name, m in MUTANTS.items() if set(m.extensions) & set(OURS)}
    assert (
        EXPECTED.keys() | HARMLESS | mutants
        <= EXTENSION_CASES.keys() | EXTENSION_NEEDLESS.keys() | MUTANTS.keys()
    )
    for name in RULES:
        assert (name in EXPECTED) == (name in EXTENSION_CASES) != (name in EXTENSION_NEEDLESS), name
    assert {name for name, rule in RULES.items() if rule.kind == "safety"} <= EXPECTED.keys()


@pytest.mark.parametrize("rule", EXPECTED)
def test_without_the_rule_a_property_fails(rule: str) -> None:
    answer = why(rule)
    assert answer.disaster is not None
    assert (answer.disaster.property, len(answer.disaster.path)) == EXPECTED[rule]


@pytest.mark.parametrize("rule", HARMLESS)
def test_without_the_rule_nothing_wrong_is_agreed_on_but_it_decides_something(rule: str) -> None:
    answer = why(rule)
    assert answer.needless is not None
    assert answer.explored
    if answer.needless.same:  # a state that the rule keeps from one is reached otherwise
        cases = [Case(x.bounds) for x in answer.explored]
        assert any(c.explore(without={rule}).states > c.explore().states for c in cases)
    else:
        assert [x.distinct for x in answer.explored] != [distinct(x.bounds) for x in answer.explored]


@cache
def distinct(bounds: Bounds) -> int:
    return Case(bounds).explore().distinct


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize("names", [("pre_vote",), ("leadership_transfer",), OURS])
def test_both_engines_count_the_same_states(names: tuple[str, ...]) -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    for bounds in (
        Bounds(servers=2, crashes=1, max_messages=6, extensions=names),
        Bounds(max_log=0, max_messages=7, extensions=names),
    ):
        model = Model(having(*names), bounds)
        reference, native = explore_model(model), explore_native(model, permits=nothing("counted"))
        assert reference.violation is None
        assert (reference.distinct, reference.depth) == (native.distinct, native.depth)
        assert reference.distinct > 50


# --- traces -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_replay_names_the_rule_that_is_broken(rule: str, tmp_path: Path) -> None:
    """The shortest trace of a server without it; but silence and choice are no wrong, time isn't asked."""
    if SHOWN.get(rule, "initial") is None:
        pytest.skip("as if a message had been lost, a leader been silent, or chosen otherwise")
    extension = next(x for x in OURS if rule in EXTENSIONS[x].rules)
    bounds = Bounds(
        max_log=int(rule in ("pre_vote.up_to_date", "transfer.caught_up")), extensions=(extension,)
    )
    path = deviation(Case(bounds, SHOWN.get(rule) or "initial"), rule, limit_states=20_000)
    assert path is not None
    write_trace(path, tmp_path / "wrong.ndjson")
    found = check([tmp_path / "wrong.ndjson"])
    assert found.explanation is not None
    assert found.explanation.rule == rule


# Each fault whose trace shows it within a simulation; of the others no trace can.
BROKEN = (
    "pre_vote.majority", "pre_vote.keep_term", "pre_vote.keep_vote", "pre_vote.not_adopted",
    "pre_vote.current_term", "pre_vote.count_asked", "pre_vote.no_vote", "transfer.caught_up",
)  # fmt: skip
STORMY = Faults(loss=0.1, duplication=0.2, delay=0.1, partition=0.01, crash=0.01, clock=0.3, transfer=0.05)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_server_is_told_which_rule_it_breaks(rule: str, tmp_path: Path) -> None:
    assert rule in BREAKS
    file = tmp_path / "broken.ndjson"
    with file.open("wb") as out:
        simulate(1, server_names(3), 1000, STORMY, out, broken=rule, config=EXTENDED)
    found = check([file])
    assert found.explanation is not None
    assert found.explanation.rule == rule


@pytest.mark.parametrize("seed", range(4))
def test_right_servers_conform_whatever_goes_wrong(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "right.ndjson"
    with file.open("wb") as out:
        simulate(seed, server_names(5 if seed % 2 else 3), 1500, STORMY, out, config=EXTENDED)
    found = check([file])
    assert found.verdict == "conforms", found
    assert found.report is not None
    for kind in ("start_pre_vote", "handle_pre_vote", "handle_pre_vote_reply"):
        assert found.report.kinds[kind]


def test_traces_of_figure_2_know_nothing_of_extensions() -> None:
    """A server without them writes what it always wrote."""
    out = BytesIO()
    simulate(1, server_names(3), 500, Faults(crash=0.01), out)
    text = out.getvalue().decode()
    assert not any(name in text for name in ("extensions", "pre_vote", "told_to_stand"))

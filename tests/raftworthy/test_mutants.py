"""Real bugs of real Raft servers, as mutants: each is caught, or only keeps Raft waiting."""

from __future__ import annotations

import pytest

from raftspec.extensions import having
from raftspec.mutants import MUTANTS
from raftspec.raft import raft
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import EXTENSION_CASES, MUTANT_CASES, Case
from raftworthy.explore.needless import EXTENSION_NEEDLESS, EXTENSION_WAITS, WAITS
from raftworthy.explore.why import why

# The length of the shortest path to what a mutant breaks, beginning included.
EXPECTED = {
    "E01": 9,
    "E02": 2,
    "E03": 8,
    "E04": 2,
    "E06": 5,
    "E07": 16,
    "E10": 2,
    "E11": 2,
    "E16": 12,
    "R01": 28,
    "R02": 12,
    "R03": 8,
    "R04": 11,
    "R05": 10,
    "R08": 19,
    "R11": 15,
    "R15": 9,
    "R16": 8,
    "M01": 24,
    "M02": 15,
    "M03": 11,
    "R17": 10,
    "L01": 27,
    "L02": 27,
    "L07": 27,
    "L08": 14,
    "L09": 22,
    "L10": 11,
    "L11": 9,
    "S01": 14,
    "S02": 8,
    "S04": 30,
    "S07": 7,
}

# Mutants that break nothing; `explore/needless.py` has what never happens with them, or is late.
HARMLESS = MUTANTS.keys() & (WAITS.keys() | EXTENSION_WAITS.keys() | EXTENSION_NEEDLESS.keys())
CASES = {**MUTANT_CASES, **{name: case for name, case in EXTENSION_CASES.items() if name in MUTANTS}}


def test_every_mutant_is_accounted_for() -> None:
    """The bugs of what is specified; each with a counterexample or a reason."""
    assert MUTANTS.keys() == EXPECTED.keys() | HARMLESS
    assert EXPECTED.keys() == CASES.keys()
    for name, mutant in MUTANTS.items():
        assert mutant.name == name
        assert mutant.story.endswith(".")
        assert bool(mutant.breaks) == (name in EXPECTED), name
        assert bool(mutant.harmless) == (name in HARMLESS), name
        assert mutant.without <= having(*mutant.extensions).rules.keys()
        assert mutant.without or mutant.actions


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mutant_breaks_what_it_says(name: str) -> None:
    result = CASES[name].explore(mutant=MUTANTS[name])
    assert result.violation is not None
    assert result.mutant == name
    assert (result.violation.property, len(result.violation.path)) == (MUTANTS[name].breaks, EXPECTED[name])


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_a_harmless_mutant_only_waits(name: str) -> None:
    """What Raft can reach within bounds, the mutant can't; and it breaks nothing on the way."""
    answer = why(name)
    assert answer.waits is not None or answer.explored
    assert answer.disaster is None


def test_the_election_safety_of_a_missing_file() -> None:
    """E11 as its source tells it: what breaks in the end is that a term has two leaders."""
    case = Case(Bounds(max_term=1, max_log=0, crashes=1), properties=("one_leader_per_term",))
    result = case.explore(raft, mutant=MUTANTS["E11"])
    assert result.violation is not None
    assert [m.action for m in result.violation.path.moves].count("restart") == 1


def test_a_mutant_leaves_the_specification_alone() -> None:
    before = dict(raft.actions)
    changed = MUTANTS["R16"].apply(raft)
    assert raft.actions == before
    assert changed.actions["append_entries"].function is not raft.actions["append_entries"].function
    assert changed.actions["append_entries"].params == raft.actions["append_entries"].params

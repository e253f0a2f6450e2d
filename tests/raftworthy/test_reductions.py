"""Reductions keep the answer: what a reduced search sees and says is what an unreduced one does.

What two searches see is compared as projections of their states: of each server its log and what it knows to
be committed, of those with the highest term also role and vote, names left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftworthy.explore.reference import Bounds, Model, Path
from raftworthy.generated import World
from raftworthy.native import engine
from raftworthy.native.engine import explore_native
from raftworthy.native.expanding import SpuriousError, genuine
from raftworthy.native.program import Program
from raftworthy.native.search import Search, rows_of
from raftworthy.native.storage import Disk
from raftworthy.native.team import Team
from raftworthy.reduce.deriving import permits_for
from raftworthy.reduce.permits import REDUCTIONS, Permits

Projection = tuple[object, ...]

# Small enough to be exhausted without any reduction, messages not counted.
TWO = Bounds(servers=2)
LONGER = Bounds(servers=2, max_term=1, max_log=2, entries=2)
RESTARTS = Bounds(servers=2, max_term=1, crashes=1)
VOTES = Bounds(servers=2, max_term=3, max_log=0)
THREE = Bounds(max_term=1, max_log=0)
MOST = 30_000  # states of the larger search


def states(model: Model, permits: Permits | None) -> Iterator[World]:
    """Every state that a search keeps; no property stops it."""
    program = Program(model, [], level=0, permits=permits)
    team = Team(program.functions, range(1), 1, 1 << 30, Disk())
    search = Search(program, team)
    try:
        search.begin(model.generated.initial())
        while search.frontier:
            yield from (program.layout.unpack(words, messages) for words, messages in rows_of(program, team))
            while not search.level_done:
                assert search.round(1 << 62) is None
            search.descend()
            assert search.distinct < MOST, "too many states for this test"
    finally:
        team.close()


def projection(s: World) -> Projection:
    """What a state looks like, whoever is who."""
    top = max(v.current_term for v in s.variables.values())
    servers = []
    for i, v in s.variables.items():
        at_top = v.current_term == top
        vote = "" if not v.voted_for else "own" if v.voted_for == i else "another"
        office = (v.role, vote) if at_top else ()
        servers.append((at_top, str(v.log), v.commit_index, *office))
    return (top, tuple(sorted(map(repr, servers))))


def seen(model: Model, permits: Permits | None) -> set[Projection]:
    return set(map(projection, states(model, permits)))


def changed(name: str, bounds: Bounds) -> Model:
    """The specification with a bug, or without a rule; Raft, if there is no name."""
    return Model(raft, bounds, [name] if "." in name else [], MUTANTS.get(name))


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("", TWO), ("", LONGER), ("", THREE), ("E03", THREE), ("term.fresh_vote", VOTES),
        ("append.current_term", TWO), ("restart.keep_vote", RESTARTS), ("leader.reset_match_index", TWO),
    ],
)  # fmt: skip
def test_a_reduced_search_sees_what_an_unreduced_one_sees(name: str, bounds: Bounds) -> None:
    """And not less where more is taken to be sent than could be."""
    model = changed(name, bounds)
    permits = permits_for(model, [])
    assert permits.clock, permits.off
    whole = seen(model, None)
    assert seen(model, replace(permits, assumed=False)) == whole
    assert seen(model, permits) >= whole


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("", TWO), ("E01", VOTES), ("R04", TWO), ("vote.recorded", THREE),
        ("append.previous_entry", TWO), ("restart.keep_term", RESTARTS), ("commit.majority", TWO),
    ],
)  # fmt: skip
def test_a_reduced_search_says_what_an_unreduced_one_says(name: str, bounds: Bounds) -> None:
    """What it finds are genuine steps, taken here again, none of which can be left out."""
    model = changed(name, bounds)
    reduced = explore_native(model, permits=permits_for(model, model.properties()))
    whole = explore_native(model)
    assert reduced.distinct <= whole.distinct
    assert (reduced.violation is None) == (whole.violation is None)
    if reduced.violation is None or whole.violation is None:
        return
    path = reduced.violation.path
    assert len(path) >= len(whole.violation.path)
    again = model.repeat(path.start, ((m.action, m.params) for m in path.moves))
    states = raft.properties[reduced.violation.property].states
    assert not model.claim(reduced.violation.property)(*again.worlds()[-states:])


def test_figure_8_is_found_from_the_initial_state() -> None:
    """Section 5.4.2. Breadth first it lies beyond millions of states."""
    model = changed("commit.current_term", Bounds(max_term=4, commands=2))
    result = explore_native(model, permits=permits_for(model, model.properties()))
    assert result.violation is not None
    assert result.violation.property == "leader_completeness"
    assert result.distinct < 50_000
    assert result.violation.path.start == model.generated.initial()


# --- wrong permissions are noticed -------------------------------------------


def test_a_term_that_can_fall_permits_no_order_and_order_would_lose_states() -> None:
    model = changed("restart.keep_term", Bounds(servers=2, max_log=0, crashes=1))
    permits = permits_for(model, [])
    assert permits.off["order"] == "restart can let current_term fall"
    whole = seen(model, None)
    assert seen(model, permits) == whole
    assert seen(model, Permits(eager=True, clock=("current_term", "term"))) < whole


def test_old_messages_are_kept_where_they_can_do_something_and_dropping_them_would_lose_states() -> None:
    model = changed("append.current_term", TWO)
    permits = replace(permits_for(model, []), assumed=False)
    assert "AppendEntries" not in (*permits.silent, *permits.faded)
    assert permits.off["older"] == "an old AppendEntries can still do something"
    assert seen(model, replace(permits, silent=(*permits.silent, "AppendEntries"))) < seen(model, None)


def test_forgetting_what_the_next_step_reads_would_show() -> None:
    model = changed("", TWO)
    permits = replace(permits_for(model, []), assumed=False)
    assert "role" not in permits.forgotten
    assert seen(model, replace(permits, forgotten=(*permits.forgotten, "role"))) != seen(model, None)


def test_handling_at_once_what_answers_would_show() -> None:
    model = changed("", TWO)
    permits = replace(permits_for(model, []), assumed=False)
    assert permits.absorbed == ("RequestVoteReply",)
    assert seen(model, replace(permits, absorbed=("AppendEntries",))) != seen(model, None)


def test_an_acknowledgement_is_idle_for_a_leader_only_if_it_takes_nothing_back() -> None:
    follower, leader = 0, 2  # a candidate may yet lead
    assert permits_for(changed("", TWO), []).idle["AppendEntriesReply"] == (follower, leader)
    assert permits_for(changed("commit.match_monotone", TWO), []).idle["AppendEntriesReply"] == (follower,)


def test_forgetting_records_that_a_property_reads_would_hide_that_it_fails() -> None:
    model = changed("vote.up_to_date", Bounds())
    checked = ["leader_completeness", "state_machine_safety"]
    permits = permits_for(model, checked)
    assert permits.records == ()
    assert permits.untold == ("leaders",)
    right = explore_native(model, properties=checked, permits=permits)
    wrong = explore_native(model, properties=checked, permits=replace(permits, records=("commits",)))
    assert right.violation is not None
    assert wrong.violation is None


def test_a_server_without_a_fresh_vote_does_not_catch_up() -> None:
    permits = permits_for(changed("term.fresh_vote", VOTES), [])
    assert permits.catch_up == ""
    assert permits.off["lag"].endswith("after timeout, handle_request_vote comes out otherwise")


def test_nothing_is_left_out_where_messages_are_counted() -> None:
    model = Model(raft, Bounds(servers=2, max_messages=6))
    assert not permits_for(model, []).any


def test_what_is_not_wanted_stays_off() -> None:
    model = changed("", VOTES)
    for name in ("eager", "order", "lag"):
        assert name in REDUCTIONS
        permits = permits_for(model, [], [name])
        assert permits.off[name] == "it isn't wanted"
        assert name not in permits.names()


def test_proofs_are_kept_and_those_of_another_specification_are_others(tmp_path: FilePath) -> None:
    model = changed("", RESTARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAFTWORTHY_CACHE", str(tmp_path))
        first = permits_for(model, [])
        assert len(list(tmp_path.glob("*.proof"))) == 1
        patch.setattr("raftworthy.reduce.proving.derive", None)  # it isn't asked again
        assert permits_for(model, []) == first
        with pytest.raises(TypeError):
            permits_for(changed("restart.keep_term", RESTARTS), [])


def test_what_only_seems_to_fail_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more was taken to be sent than could be, and no genuine steps lead to what was found."""

    def strict(model: Model, program: Program, *rest: Any) -> Path:
        assert program.reduction is not None
        if program.reduction.permits.assumed:
            raise SpuriousError
        return genuine(model, program, *rest)

    model = changed("commit.majority", TWO)
    permits = permits_for(model, model.properties())
    assert permits.assumed
    expected = explore_native(model, permits=permits)
    monkeypatch.setattr(engine, "genuine", strict)
    again = explore_native(model, permits=permits)
    assert again.permits is not None
    assert again.permits.off["assumed"] == "something false was found so"
    assert again.violation is not None
    assert expected.violation is not None
    assert again.violation.property == expected.violation.property

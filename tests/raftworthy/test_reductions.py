"""Reductions keep the answer: what a reduced search sees and says is what an unreduced one does.

What two searches see is compared as projections of their states: of each server its log and what it knows to
be committed, of those with the highest term also role and vote, names left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from raftspec.mutants import MUTANTS, Mutant
from raftspec.properties import raft
from raftspec.raft import FOLLOWER, LEADER, NOBODY, AppendEntries, RequestVote, RequestVoteReply, S
from raftspec.rules import RULES
from raftspec.spec import Step, only_if, when
from raftspec.types import Index, Server, Value
from raftspec.values import ite
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path
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
MOST = 60_000  # states of the larger search


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
        ("", LONGER), ("E03", THREE), ("term.fresh_vote", VOTES),
        ("append.current_term", TWO), ("restart.keep_vote", RESTARTS),
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
        ("E01", VOTES), ("R04", TWO), ("restart.keep_term", RESTARTS), ("commit.majority", TWO),
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


@pytest.mark.skipif("RAFTWORTHY_ALL_PAIRS" not in os.environ, reason="takes minutes: RAFTWORTHY_ALL_PAIRS=1")
@pytest.mark.parametrize("bounds", [TWO, RESTARTS], ids=["two", "restarts"])
@pytest.mark.parametrize("name", ["", *RULES, *(m.name for m in MUTANTS.values() if not m.extensions)])
def test_for_every_change_the_answer_is_the_same(name: str, bounds: Bounds) -> None:
    """The same verdict; and, if nothing is violated, the same is seen."""
    model = changed(name, bounds)
    permits = permits_for(model, model.properties())
    whole, reduced = explore_native(model), explore_native(model, permits=permits)
    assert (reduced.stopped, reduced.violation is None) == (whole.stopped, whole.violation is None)
    if whole.violation is None:
        projections = seen(model, None)
        assert seen(model, replace(permits, assumed=False)) == projections
        assert seen(model, permits) >= projections


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


# --- each condition is needed: specifications for which the answer would change ---


def made_up(bounds: Bounds, *without: str, **actions: object) -> Model:
    """Raft within bounds, without some rules, and with these actions."""
    mutant = Mutant("made up", "", "", without=frozenset(without), actions=actions)  # type: ignore[arg-type]
    return Model(raft, bounds, mutant=mutant)


def _deposed_by_the_old(s: S, m: AppendEntries) -> Step:
    """A leader gives up when it hears from one of an older term."""
    step = raft.actions["handle_append_entries"].function(s, m)
    me, now = s[m.target], step.then
    old = m.term < me.current_term
    return Step(step.server, then=now.but(role=ite(old, FOLLOWER, now.role)), send=step.sends)  # type: ignore[union-attr]


def test_old_messages_that_change_their_receiver_are_not_only_assumed() -> None:
    model = made_up(TWO, handle_append_entries=_deposed_by_the_old)
    permits = permits_for(model, [])
    assert "AppendEntries" in permits.faded
    assert permits.off["assumed"] == "an old AppendEntries can do more than be answered"
    whole = seen(model, None)
    assert seen(model, permits) == whole
    assert not seen(model, replace(permits, assumed=True)) >= whole


def _to_leaders(s: S, i: Server, j: Server, prev: Index, size: Index, commit: Index) -> Step:
    """A leader sends only to other leaders, of whom it can't know."""
    step = raft.actions["append_entries"].function(s, i, j, prev, size, commit)
    return Step(i, *step.guards, when("j leads", s[j].role == LEADER), send=step.sends)


def test_what_is_sent_may_not_depend_on_other_servers_if_it_is_sent_at_once() -> None:
    model = made_up(Bounds(servers=2, max_term=1, max_log=0), "election.majority", append_entries=_to_leaders)
    permits = permits_for(model, [])
    assert permits.off["eager"].startswith("whether append_entries sends depends on more than its own")
    assert not permits.any
    assert seen(model, Permits(eager=True)) < seen(model, None)


def _after_the_next_election(s: S, i: Server, v: Value) -> Step:
    """The leader of term 1 takes commands only when term 2 has a leader, and nobody counts them."""
    step = raft.actions["client_request"].function(s, i, v)
    late = (s[i].current_term != 1) | (s.past.leaders[2] != NOBODY)
    return Step(i, *step.guards, when("term 2 has a leader", late), then=step.then)


def test_a_step_that_waits_for_one_of_a_later_term_permits_no_order() -> None:
    model = made_up(
        TWO, "election.majority", "vote.refuse", "append.refuse", client_request=_after_the_next_election
    )
    permits = permits_for(model, [])
    assert permits.off["order"].startswith("client_request may be possible only after become_leader")
    whole = seen(model, None)
    assert seen(model, permits) == whole
    assert seen(model, Permits(eager=True, clock=("current_term", "term"))) < whole


def _keeps_votes(s: S, i: Server) -> Step:
    """A candidate takes the votes of its last election along."""
    step = raft.actions["timeout"].function(s, i)
    return Step(i, *step.guards, then=step.then.but(votes=s[i].votes.add(i)), send=step.sends)  # type: ignore[union-attr]


def test_a_message_is_not_handled_at_once_if_it_is_old_when_that_comes_to_the_same() -> None:
    model = made_up(TWO, "vote.count_current_term", timeout=_keeps_votes)
    permits = permits_for(model, [])
    assert permits.clock
    assert "RequestVoteReply" not in permits.absorbed
    assert seen(model, replace(permits, assumed=False)) == seen(model, None)


def _only_the_third_election(s: S, m: RequestVote) -> Step:
    """Nobody takes notice of an election before that of term 3."""
    step = raft.actions["handle_request_vote"].function(s, m)
    me, now = s[m.target], step.then
    third = m.term == 3
    (sent,) = step.sends
    reply = getattr(sent, "message", sent)
    assert isinstance(reply, RequestVoteReply)
    return Step(
        m.target,
        then=now.but(  # type: ignore[union-attr]
            role=ite(third, now.role, me.role),  # type: ignore[union-attr]
            current_term=ite(third, now.current_term, me.current_term),  # type: ignore[union-attr]
            voted_for=ite(third, now.voted_for, me.voted_for),  # type: ignore[union-attr]
            votes=ite(third, now.votes, me.votes),  # type: ignore[union-attr]
            next_index=ite(third, now.next_index, me.next_index),  # type: ignore[union-attr]
            match_index=ite(third, now.match_index, me.match_index),  # type: ignore[union-attr]
        ),
        send=only_if(third, reply),
    )


def test_catching_up_would_lose_the_vote_of_a_server_that_keeps_it() -> None:
    model = made_up(VOTES, "term.fresh_vote", handle_request_vote=_only_the_third_election)
    permits = replace(permits_for(model, []), assumed=False)
    assert permits.clock
    assert not permits.catch_up
    whole = seen(model, None)
    assert seen(model, permits) == whole
    assert seen(model, replace(permits, catch_up="timeout")) < whole


def test_two_threads_find_what_one_finds() -> None:
    """As many states and steps where all are visited, and otherwise the same verdict."""
    for name, bounds in [("", Bounds()), ("vote.up_to_date", Bounds())]:
        model = changed(name, bounds)
        permits = permits_for(model, model.properties())
        one, two = (explore_native(model, permits=permits, threads=n) for n in (1, 2))
        assert (one.stopped, one.violation is None) == (two.stopped, two.violation is None)
        if one.violation is None:
            assert (one.distinct, one.states, one.depth) == (two.distinct, two.states, two.depth)

"""How a question is answered with as little as will do, and what is explored with choices left open."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from tests.raftworthy.test_reduced_extensions import seen

from raftspec.extensions import having
from raftspec.mutants import MUTANTS, Mutant
from raftspec.pre_vote import PreVote, PreVoteReply
from raftspec.properties import raft
from raftspec.raft import S
from raftspec.spec import Step, when
from raftspec.types import Index, Server
from raftworthy.explore import choosing, natively
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import Case
from raftworthy.explore.means import Means
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Progress
from raftworthy.native import engine
from raftworthy.native.checkpoint import read
from raftworthy.native.engine import explore_native
from raftworthy.native.narrowing import narrowed
from raftworthy.reduce.choices import NO_CHOICE, Opened, opened, widened
from raftworthy.reduce.deriving import kept_by_steps, permits_for
from raftworthy.reduce.permits import Permits

TWO = Bounds(servers=2)
ONE = Means(threads=1)
NEXT = "replicate.next_index"


def explored(
    bounds: Bounds,
    *without: str,
    mutant: Mutant | None = None,
    many: int | None = None,
    means: Means = ONE,
    unwanted: Iterable[str] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Any:
    """What a command explores, if a search of more than `many` states is a large one."""
    with pytest.MonkeyPatch.context() as patch:
        if many is not None:
            patch.setattr(natively, "FEW_KEPT", 1)
            patch.setattr(natively, "MANY_KEPT", many)
        return choosing.explore_with(
            Case(bounds), "native", text=None, find=None, limit_states=None, counts=None,
            means=means, unwanted=unwanted, usual=8, without=without, mutant=mutant, symmetry=True,
            progress=progress,
        )[0]  # fmt: skip


def interrupted_at_once(means: Means, *without: str) -> Any:
    """A search that gets a signal while it is only tried how far it goes."""
    sent: list[Progress] = []

    def tell(p: Progress) -> None:
        if not sent:
            sent.append(p)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "PROGRESS_EVERY", 0.0)
        return explored(TWO, *without, many=1000, means=means, progress=tell)


def test_where_few_states_are_left_by_looking_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natively, "permits_for", None)
    found = explored(TWO)
    assert found.exhausted
    assert list(found.permits.names()) == ["eager"]
    assert explored(TWO, "commit.majority").violation is not None
    with pytest.raises(TypeError):  # what seems to be large is asked about
        explored(TWO, many=10)


def test_what_a_leader_sends_next_is_left_open_in_a_large_search() -> None:
    """It is what Figure 2 chooses, and the property about it is kept by every step."""
    found = explored(TWO, many=10)
    assert found.exhausted
    assert found.permits.opened == NEXT
    assert "choices" in found.permits.names()
    assert found.without == frozenset()
    model = Model(raft, TWO)
    choices = opened(model, model.properties())
    assert isinstance(choices, Opened)
    assert choices.wide.without == {NEXT}
    assert "next_index" not in choices.needs.variables
    assert choices.kept == ("next_index_after_match",)


def test_a_violation_found_so_is_one_of_the_specification() -> None:
    bug = Mutant("made up", "", "", without=frozenset({"commit.majority"}))
    found = explored(TWO, mutant=bug, many=1)
    assert "choices" in found.permits.names()
    assert (found.mutant, found.without) == ("made up", bug.without)
    path = found.violation.path
    model = Model(raft, TWO, ["commit.majority"])
    again = model.repeat(path.start, ((m.action, m.params) for m in path.moves))
    states = raft.properties[found.violation.property].states
    assert not model.claim(found.violation.property)(*again.worlds()[-states:])


def test_what_is_possible_with_open_choices_only_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natively, "narrowed", lambda *_: None)
    found = explored(TWO, "commit.majority", many=1)
    assert found.violation is not None
    assert found.permits.off["choices"] == "something false was found so"


def test_a_signal_while_a_search_is_only_tried_leaves_a_checkpoint_too(tmp_path: FilePath) -> None:
    """What goes on from it sees what an uninterrupted search sees."""
    means = replace(ONE, disk=tmp_path, asked={"unwanted": []})
    first = interrupted_at_once(means)
    assert first.stopped == f"interrupted; go on with: raftworthy explore --resume {tmp_path}"
    assert first.distinct < 10
    rest = explored(TWO, means=replace(means, resume=True))
    whole = explored(TWO, many=1)
    assert rest.permits.opened == NEXT
    assert (rest.stopped, rest.distinct, rest.states) == (whole.stopped, whole.distinct, whole.states)
    assert list(tmp_path.iterdir()) == []


def test_what_led_to_something_false_is_done_without_when_a_search_goes_on(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search with open choices is interrupted; then the one that is made without them."""
    means = replace(ONE, disk=tmp_path, asked={"unwanted": []})
    interrupted_at_once(means, "commit.majority")

    with monkeypatch.context() as patch:
        patch.setattr(natively, "narrowed", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        again = explored(TWO, "commit.majority", means=replace(means, resume=True))
    assert again.stopped.startswith("interrupted")
    unwanted = read(tmp_path)["asked"]["unwanted"]
    assert unwanted == ["choices"]
    last = explored(TWO, "commit.majority", means=replace(means, resume=True), unwanted=unwanted)
    assert last.violation is not None
    assert list(last.permits.off) == ["choices"]


def test_a_choice_that_decides_more_than_what_is_sent_stays() -> None:
    """If leaders committed by next_index, to leave it open would find what this specification can't do."""
    mutant = Mutant("made up", "", "", actions={"advance_commit_index": _by_next_index})
    model = Model(raft, Bounds(servers=2, max_term=1, max_messages=5), mutant=mutant)
    names = model.properties()
    assert opened(model, names) == NO_CHOICE
    assert explore_native(model).exhausted
    wrong = Model(raft, model.bounds, mutant=mutant, any_policy=True)
    searched = [p for p in names if p != "next_index_after_match"]
    assert explore_native(wrong, properties=searched).violation


def _by_next_index(s: S, i: Server, n: Index) -> Step:
    """A leader takes for stored what it wouldn't send any more."""
    step = raft.actions["advance_commit_index"].function(s, i, n)
    sent = [when(f"{j} was sent n", (i == j) | (s[i].next_index[j] != n)) for j in s.servers]
    kept = [g for g in step.guards if g.text != "a quorum stores n"]
    return Step(i, *kept, *sent, then=step.then, history=step.history)


def test_a_property_about_a_choice_that_a_step_breaks_is_searched_for() -> None:
    model = Model(raft, Bounds(servers=2, max_term=1), ["leader.reset_match_index"])
    assert opened(model, model.properties()) == "become_leader can break next_index_after_match"


# --- pre-votes ---------------------------------------------------------------


ASKING = Bounds(servers=2, max_term=1, extensions=("pre_vote",))


def asking(*without: str, bounds: Bounds = ASKING, **actions: Any) -> Model:
    """Raft with pre-votes, without some rules, and with these actions."""
    mutant = Mutant("made up", "", "", without=frozenset(without), actions=actions)
    return Model(having("pre_vote"), bounds, mutant=mutant)


def test_whether_a_quorum_would_vote_for_a_server_is_left_open_and_nobody_has_to_ask() -> None:
    """Dissertation, section 9.6: pre-votes are there for liveness. An answer still carries a term."""
    model = asking()
    choices = opened(model, model.properties(), policy=False)
    assert isinstance(choices, Opened)
    assert (choices.rules, choices.kept) == (("pre_vote.majority",), ("candidate_has_support",))
    assert {"pre_votes", "hears"}.isdisjoint(choices.needs.variables)
    assert model.spec.actions.keys() - choices.needs.actions == {"start_pre_vote", "silence"}
    assert choices.needs.fields[PreVote] == {"source", "target"}
    assert choices.needs.fields[PreVoteReply] == {"source", "target", "term"}


def test_with_pre_votes_left_open_nothing_is_missed() -> None:
    model = asking()
    choices = opened(model, model.properties(), policy=False)
    assert isinstance(choices, Opened)
    permits = permits_for(choices.wide, choices.searched)
    assert permits.clock == ("current_term", "term")
    assert seen(choices.wide, permits) >= seen(model, None)
    fewer = replace(choices.needs, actions=choices.needs.actions - {"handle_pre_vote"})
    wrong = Model(widened(model.spec, fewer, choices.searched), model.bounds, choices.wide.without)
    assert not seen(wrong, None) >= seen(model, None)


def test_a_pre_vote_that_is_counted_as_a_vote_is_needed() -> None:
    model = asking("pre_vote.no_vote")
    assert opened(model, model.properties(), policy=False) == NO_CHOICE


def test_an_answer_that_depends_on_the_question_needs_it() -> None:
    """Who says nothing rather than no has to have read what it was asked."""
    model = asking("pre_vote.refuse")
    choices = opened(model, model.properties(), policy=False)
    assert isinstance(choices, Opened)
    assert "last_log_term" in choices.needs.fields[PreVote]
    assert permits_for(choices.wide, choices.searched).clock is None


def test_who_could_not_stand_any_more_was_told_before_that_it_could() -> None:
    """It was told so when its log was as good as others'. Section 5.4.1, without the check of votes."""
    model = asking("vote.up_to_date", bounds=Bounds(extensions=("pre_vote",)))
    choices = opened(model, ["leader_completeness"])
    assert isinstance(choices, Opened)
    found = explore_native(choices.wide, properties=choices.searched, permits=Permits(eager=True)).violation
    assert found is not None
    start = model.generated.initial()
    path = narrowed(model, choices.needs, start, found.path, found.property)
    assert path is not None
    again = model.repeat(start, ((m.action, m.params) for m in path.moves))
    assert not model.claim("leader_completeness")(again.world)
    steps = [m.action for m in path.moves]
    asked = len(steps) - 1 - steps[::-1].index("start_pre_vote")
    assert "handle_append_entries" in steps[asked:]


def test_what_no_pre_vote_allows_is_not_shown() -> None:
    """Nobody would vote for a server that lacks an entry, if all that was left out were asked."""
    model = asking("vote.up_to_date", bounds=Bounds(extensions=("pre_vote",)), start_pre_vote=_late)
    choices = opened(model, ["leader_completeness"])
    assert isinstance(choices, Opened)
    found = explore_native(choices.wide, properties=choices.searched, permits=Permits(eager=True)).violation
    assert found is not None
    assert narrowed(model, choices.needs, model.generated.initial(), found.path, found.property) is None


def _late(s: Any, i: Server) -> Step:
    """Nobody without an entry asks in a term that has begun."""
    step = having("pre_vote").actions["start_pre_vote"].function(s, i)
    late = when("i is in no term, or has an entry", (s[i].current_term == 0) | (s[i].log.length > 0))
    return Step(i, *step.guards, late, then=step.then, send=step.sends)


def test_a_property_of_steps_that_one_of_them_breaks_is_searched_for() -> None:
    others = ["one_leader_per_term"]
    why = kept_by_steps(asking("pre_vote.majority"), ["candidate_has_support"], others)
    assert why == "timeout can break candidate_has_support"
    # Who hears its own RequestVote votes for itself, in a newer term, whoever supports it.
    why = kept_by_steps(asking(timeout=_to_all), ["candidate_has_support"], others)
    assert why == "handle_request_vote can break candidate_has_support"


def _to_all(s: Any, i: Server) -> Step:
    """A candidate asks itself, too."""
    step = having("pre_vote").actions["timeout"].function(s, i)
    return Step(i, *step.guards, then=step.then, send=[x.message for x in step.sends])


BUGS = [m.name for m in MUTANTS.values() if m.extensions == ("pre_vote",)]


@pytest.mark.skipif("RAFTWORTHY_ALL_PAIRS" not in os.environ, reason="takes minutes: RAFTWORTHY_ALL_PAIRS=1")
@pytest.mark.parametrize("name", ["", *having("pre_vote").rules, *BUGS])
def test_for_every_change_the_answer_is_the_same_with_pre_votes_left_open(name: str) -> None:
    spec, without = having("pre_vote"), [name] if "." in name else []
    model = Model(spec, ASKING, without, MUTANTS.get(name))
    whole, reduced = explore_native(model), explored(ASKING, *without, mutant=MUTANTS.get(name), many=1)
    assert (whole.stopped, whole.violation is None) == (reduced.stopped, reduced.violation is None)
    for policy in (False, True):
        choices = opened(model, model.properties(), policy)
        if whole.violation is None and isinstance(choices, Opened):
            assert seen(choices.wide, permits_for(choices.wide, choices.searched)) >= seen(model, None)

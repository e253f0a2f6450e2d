"""Liveness: the livelock of duelling candidates, and what makes a command be decided in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path as FilePath
from random import Random
from typing import Any

import pytest

from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftworthy.cli import app
from raftworthy.explore import liveness
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.fairness import SOME, System, Timing, key
from raftworthy.explore.fates import AHEAD, ALIKE, BEHIND, IDLE, NOT_AHEAD, prove_fates
from raftworthy.explore.lasso import Lasso, Unroller, assert_fair, patient, possible, undone
from raftworthy.explore.live import Question, ask
from raftworthy.explore.liveness import Graph, components, explore_graph
from raftworthy.explore.needless import LIVELOCKS
from raftworthy.explore.paths import Path
from raftworthy.explore.renaming import Renaming, counted
from raftworthy.generated import World

TWO = Question()
ALONE = Timing(SOME, patient=True)
asked = cache(ask)
fates = cache(prove_fates)


def system(question: Question = TWO) -> System:
    """The question's specification and client."""
    known = fates(question.servers)
    return System(question.bounds(), question.goal, question.timing, known, question.without)


def shape(path: Path) -> list[tuple[str, str]]:
    return [(m.action, m.server) for m in path.moves]


# --- what is found -----------------------------------------------------------


def test_candidates_stand_in_each_others_way_for_ever() -> None:
    """Fischer, Lynch and Paterson: with timeouts at any time no term need have a leader."""
    answer = asked(TWO)
    assert answer.verdict == "livelock"
    assert answer.lasso is not None
    one, two = answer.lasso.rounds
    assert shape(one) == shape(two)
    assert sorted(shape(one)) == [(a, i) for a in ("handle_request_vote", "timeout") for i in ("n1", "n2")]
    assert answer.lasso.terms_later("current_term") == 1
    assert not any(v.role == "leader" for s in answer.lasso.path.worlds() for v in s.variables.values())


def test_one_crash_is_enough_of_three_servers() -> None:
    answer = asked(Question(servers=3, timing=Timing(stopped=frozenset({"n3"}))))
    assert answer.lasso is not None
    assert {i for _, i in shape(answer.lasso.path)} == {"n1", "n2"}


def test_a_command_is_decided_if_the_right_servers_timeouts_are_alone() -> None:
    answer = asked(replace(TWO, timing=ALONE))
    assert answer.verdict == "holds within bounds"
    assert answer.complete
    assert answer.late > 1000


def test_a_server_that_lacks_an_entry_is_not_the_right_one() -> None:
    """Section 5.4.1: nobody votes for it, however often it times out alone."""
    answer = asked(replace(TWO, timing=Timing("n1", patient=True)))
    assert answer.lasso is not None
    logs = {i: len(v.log) for i, v in answer.lasso.path.world.variables.items()}
    assert logs == {"n1": 0, "n2": 1}


def test_a_server_that_cannot_wait_is_in_its_own_way() -> None:
    """Section 5.6: a round of messages has to take less time than a timeout."""
    answer = asked(replace(TWO, max_term=1, timing=Timing("n1")))
    assert answer.lasso is not None
    assert {i for a, i in shape(answer.lasso.rounds[0]) if a == "timeout"} == {"n1"}


@pytest.mark.parametrize("rule", sorted(LIVELOCKS - MUTANTS.keys()))
def test_termination_depends_on_a_rule(rule: str) -> None:
    answer = asked(replace(TWO, timing=ALONE, without=frozenset({rule})))
    assert answer.lasso is not None
    assert raft.rules[rule].kind in ("liveness", "policy")


@pytest.mark.parametrize("rule", ["append.candidate_steps_down"])
def test_termination_does_not_depend_on_a_rule(rule: str) -> None:
    assert asked(replace(TWO, timing=ALONE, without=frozenset({rule}))).verdict == "holds within bounds"


@pytest.mark.parametrize("name", sorted(LIVELOCKS & MUTANTS.keys()))
def test_a_bug_that_breaks_liveness_is_shown(name: str) -> None:
    answer = asked(replace(TWO, timing=ALONE, mutant=name))
    assert answer.lasso is not None
    assert MUTANTS[name].harmless, "no safety property would have found it"


# --- that what is shown is a livelock ----------------------------------------


@pytest.mark.parametrize(
    "question",
    [TWO, replace(TWO, timing=ALONE, without=frozenset({"term.fresh_vote"}))],
    ids=["any time", "alone"],
)
def test_a_lasso_is_fair_walked_by_python(question: Question) -> None:
    """By definition, without the search: the same steps in a model of its own, all messages as they are."""
    answer = asked(question)
    assert answer.lasso is not None
    one = "n1" if question.timing.alone else None
    fresh = system(replace(question, timing=replace(question.timing, alone=one)))
    steps = [(m.action, m.params) for m in answer.lasso.path.moves]
    path = fresh.model.repeat(fresh.initial(), steps)
    assert not any(map(fresh.goal, path.worlds()))
    at = len(answer.lasso.stem)
    for around in answer.lasso.rounds:
        again = Path(path.worlds()[at], path.moves[at : at + len(around)])
        at += len(around)
        for instance, _ in possible(fresh, again.start):
            taken = any(fresh.instance(m.action, m.params) == instance for m in again.moves)
            impossible = any(instance not in dict(possible(fresh, s)) for s in again.worlds())
            assert taken or impossible, instance
        assert not fresh.timing.patient or patient(fresh, again)
    assert at == len(path)


def test_a_circle_that_leaves_something_undone_is_refused() -> None:
    """The shortest circles, fair or not: those that leave something undone do so walked by Python, too."""
    of = system()
    graph = Graph(of)
    explore_graph(graph, [of.renaming.normal(of.initial())], limit_states=150, look=False)
    component = max(components(graph), key=len)
    unfair = 0
    for u in component:
        way = liveness.way_round(graph, component, (u, frozenset()), lambda v, rest, u=u: v == u, least=1)  # type: ignore[misc]
        assert way is not None
        at, left = u, graph.enabled[u]
        for edge in way:
            left, at = graph.after(at, edge, left), edge.target
        if left:
            unfair += 1
            goals = [graph.states[e.target] for e in way]
            around = Unroller(of).walk(Path(graph.states[u]), way, goals)
            assert undone(of, around)
            with pytest.raises(AssertionError, match="left undone"):
                assert_fair(of, Lasso(Path(graph.states[u]), (around,)))
    assert unfair


# --- that renaming is right --------------------------------------------------


def agrees(renaming: Renaming, of: System, s: World) -> bool:
    """Whether a state and its normal form lead to the same normal states, or stay where they are."""
    n = renaming.normal(s)
    ends = [{key(n)} | {key(renaming.normal(m.world)) for m in of.moves(at)} for at in (s, n)]
    return ends[0] == ends[1]


def walks(of: System, seeds: range, steps: int = 40) -> Iterator[World]:
    """States on random walks, with old messages, entries of several terms and several leaders."""
    for seed in seeds:
        random, s = Random(seed), of.initial()
        for _ in range(steps):
            s = random.choice(list(of.moves(s))).world
            yield s


def broken(of: System, renaming: Renaming, seeds: range) -> bool:
    return any(not agrees(renaming, of, s) for s in walks(of, seeds))


@pytest.mark.parametrize("rule", ["", "term.adopt_newer", "vote.refuse"])
def test_a_state_and_its_normal_form_lead_to_the_same(rule: str) -> None:
    without = frozenset({rule} - {""})
    question = Question(servers=3, max_log=3, without=without)
    of = System(question.bounds(), question.goal, Timing(), prove_fates(3, without), without)
    for s in walks(of, range(2)):
        assert agrees(of.renaming, of, s)
        assert key(of.renaming.normal(of.renaming.normal(s))) == key(of.renaming.normal(s))


WRONG = {
    "votes never matter": ((("request_vote_reply", (True,)), NOT_AHEAD), IDLE),
    "old requests never matter": ((("request_vote", ()), BEHIND), IDLE),
    "requests never matter": ((("append_entries", ()), NOT_AHEAD), IDLE),
}


@pytest.mark.parametrize("fate", WRONG.values(), ids=WRONG)
def test_a_fate_that_is_not_true_is_noticed(fate: tuple[Any, str]) -> None:
    of = system(Question(servers=3, max_log=3))
    place, claimed = fate
    assert of.renaming.fates.get(*place) != claimed
    wrong = replace(of.renaming.fates, known={**of.renaming.fates.known, place: claimed})
    assert broken(of, Renaming(of.model, wrong, of.renaming.kept, of.model.servers), range(30))


def test_distances_between_terms_matter_as_long_as_somebody_counts_on() -> None:
    """n2 is two terms ahead of n1, which has to time out twice to be where n2 is."""
    of = system()
    s = of.model.repeat(of.initial(), [("timeout", (i,)) for i in ("n1", "n2", "n2", "n2")]).world
    s = World(s.variables, s.past)
    assert agrees(of.renaming, of, s)
    assert not agrees(Renaming(of.model, of.renaming.fates, of.renaming.kept, counting=()), of, s)
    # Nobody counts on from below the term of n2 if only n2 times out.
    late = Renaming(of.model, of.renaming.fates, of.renaming.kept, counting=("n2",))
    assert late.terms(s) == {0: 0, 1: 1, 3: 2}


def test_what_is_proved_of_messages() -> None:
    """Sections 5.1 and 5.2: what an older term's messages come to."""
    known = fates(3)
    assert known.rises
    assert known.get(("request_vote", ()), BEHIND) == ALIKE  # each is refused, by a message of the new term
    assert known.get(("request_vote_reply", (True,)), BEHIND) == IDLE
    assert known.get(("request_vote_reply", (False,)), NOT_AHEAD) == IDLE
    assert known.get(("request_vote_reply", (True,)), NOT_AHEAD) is None
    assert known.get(("append_entries", ()), AHEAD) is None


def test_nothing_is_proved_where_a_restart_forgets_the_term() -> None:
    """What was behind may be ahead again."""
    forgetful = prove_fates(2, {"restart.keep_term"}, crashes=1)
    assert not forgetful.rises
    assert not forgetful.known
    assert prove_fates(2, {"restart.keep_term"}).rises


def test_old_votes_matter_where_they_are_counted() -> None:
    known = prove_fates(2, {"vote.count_current_term"})
    assert known.get(("request_vote_reply", (True,)), BEHIND) == ALIKE


def test_terms_are_not_renamed_where_they_are_counted_back() -> None:
    """Mutant E10 goes back by one term; then distances below matter, too."""
    with pytest.raises(UnusableError, match="terms can't be renamed: restart computes sub"):
        ask(replace(TWO, mutant="E10"))


def test_only_a_timeout_counts_terms_on_and_only_what_is_committed_matters_of_history() -> None:
    of = system()
    assert of.renaming.kept == {"committed", "restarts"}
    generated = of.model.generated
    assert counted(generated.transitions, of.renaming.kept) == {"timeout"}
    with pytest.raises(UnusableError, match="terms can't be renamed"):  # who led which term: keys of a map
        counted(generated.transitions, of.renaming.kept | {"leaders"})


# --- bounds, and the command line --------------------------------------------


def test_no_bound_makes_a_livelock() -> None:
    """A leader that only the bound keeps from taking a command isn't stuck."""
    answer = asked(Question(servers=1, max_log=0))
    assert answer.lasso is None


def test_what_was_not_seen_is_undecided() -> None:
    answer = ask(replace(TWO, timing=ALONE, limit_states=50))
    assert answer.verdict == "undecided"
    assert "limit of 50 states" in answer.stopped


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["live"], 1, "and so on, 1 term later: steps 5 to 8 again, for ever"),
        (["live", "--servers", "1"], 0, "termination holds within bounds"),
        (["live", "--alone", "some", "--without", "leader.initial_next_index"], 1, "nothing more can happen"),
        (["live", "--alone", "n7"], 2, "no server is called n7"),
        (["live", "--stopped", "n1", "--stopped", "n2"], 2, "nobody is left"),
        (["live", "--impatient"], 2, "add --alone n1"),
        (["live", "--without", "vote.twice"], 2, "no rule is called vote.twice"),
    ],
)
def test_the_command_says_what_it_found(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(arguments, result_action="return_value") == code
    out = capsys.readouterr()
    assert said in out.out + out.err


def test_a_livelock_is_a_trace_that_conforms(tmp_path: FilePath, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster that never elects anybody is no wrong Raft."""
    file = tmp_path / "livelock.ndjson"
    assert app(["live", "--save", str(file), "--json"], result_action="return_value") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "livelock"
    assert len(data["path"]) == data["stem"] + 2 * data["round"]
    assert app(["replay", str(file)], result_action="return_value") == 0

"""The proof for any number of servers: what it says, and that it can say otherwise."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import z3

from raftspec import claims
from raftspec.extensions import EXTENSIONS
from raftspec.mutants import MUTANTS
from raftspec.raft import AppendEntries
from raftspec.rules import RULES
from raftspec.spec import Property
from raftspec.types import Index
from raftspec.values import implies
from raftspec.values import some as some_of
from raftspec.witnesses import W, leads
from raftworthy.cli import app
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.broken_steps import NO_STEP, Counterexample, Question, sizes, title
from raftworthy.explore.unkept import extensions_of, first_unkept
from raftworthy.prove.counterexample import find
from raftworthy.prove.inductive import Induction
from raftworthy.prove.unbounded.cores import ALIKE, needed, recorded
from raftworthy.prove.unbounded.formulas import Clauses, Quantified, both, either, every, no, some
from raftworthy.prove.unbounded.induction import AT_FIRST, Unbounded
from raftworthy.prove.unbounded.narrowing import SIZES, Narrowing
from raftworthy.prove.unbounded.running import agrees, changed_actions, run_unbounded
from raftworthy.prove.unbounded.solving import Prover

PROVING = Path(__file__).parents[2] / "docs" / "proving.md"


def test_everything_is_proved_for_any_number_of_servers() -> None:
    data, text, code = run_unbounded()
    assert code == 0, text
    assert {p["verdict"] for p in data["proofs"]} == {"proved"}
    assert data["impossible_actions"] == []
    assert data["promises"]["election_safety"] == ["A1", "A2", "A4", "A6", "A9", "B1", "B4"]
    assert "for any number of servers" in text


BREAKS = {
    "vote.up_to_date": ("handle_request_vote", "c3"),
    "commit.current_term": ("advance_commit_index", "d1"),
    "restart.keep_vote": ("restart", "a2"),
    "election.majority": ("become_leader", "b1"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_without_a_rule_the_first_conjunct_that_fails_is_named(rule: str) -> None:
    action, conjunct = BREAKS[rule]
    data, text, code = run_unbounded(without=[rule])
    assert code == 1, text
    assert data["changed_actions"] == [action]
    first = data["failed"][0]
    assert (first["action"], first["claim"].split("_")[0]) == (action, conjunct)
    assert data["counterexample"]["claim"] == first["claim"]
    assert Question(**first) == recorded_step(rule).question


# As docs/proving.md says.
PROVED = ("check_quorum", "leadership_transfer", "membership", "pre_vote", "reads", "sessions", "snapshots")


# `replicate.latest_commit`, a policy, asks for more. Who does not lead counts nothing, and is no majority.
NOT_BROKEN = {"replicate.commit_index": "proved", "commit.leader_only": "undecided"}
FAILS_FIRST = dict(re.findall(r"^\| `(\w+\.\w+)` \| (\w+ / .+?) \|$", PROVING.read_text(), re.MULTILINE))
OF_EXTENSIONS = sorted(FAILS_FIRST.keys() - RULES.keys())


@pytest.mark.skipif("EVERY_RULE" not in os.environ, reason="takes minutes; the table is in docs/proving.md")
@pytest.mark.parametrize("rule", [*(n for n, r in RULES.items() if r.kind == "safety"), *OF_EXTENSIONS])
def test_every_rule_of_safety_fails_first_where_the_table_says(rule: str) -> None:
    """`EVERY_RULE=1 pytest -k every_rule` asks about all of them."""
    data, text, code = run_unbounded(without=[rule], extensions=extensions_of(rule))
    if rule in NOT_BROKEN:
        assert data["verdict"] == NOT_BROKEN[rule], text
        return
    assert code == 1, text
    # What is undecided only is named beside it.
    broken = data["counterexample"]["claim"]
    failed = next(q for q in (Question(**x) for x in data["failed"]) if q.claim == broken)
    assert f"{failed.action} / {title(failed.claim)}" == FAILS_FIRST[rule]
    assert recorded_step(rule).question == failed


def recorded_step(rule: str) -> Counterexample:
    """What `why` shows: taken by Python just now."""
    found = first_unkept(rule)
    assert found is not None
    return found


def somebody_leads(s: W) -> bool:
    """In every state there is a leader; which isn't so."""
    return some_of(leads(s, i) for i in s.servers)


def test_what_fails_with_the_rule_as_well_is_not_held_against_the_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = {"somebody_leads": Property.of(somebody_leads, states=1)}
    monkeypatch.setitem(claims.OF_EXTENSIONS, "check_quorum", claim)
    data, text, code = run_unbounded(without=["check_quorum.leader_only"], extensions=["check_quorum"])
    assert (data["verdict"], code) == ("undecided", 2)
    assert data["broken_anyway"] == [{"action": "lose_quorum", "claim": "somebody_leads"}]
    assert "counterexample" not in data
    assert "what is broken with it, too" in text


def m5_sent_entries_are_not_newer(s: W, m: AppendEntries, n: Index) -> bool:
    """No entry that is sent is of a later term than the request."""
    return m.entries.at(n).term <= m.term


def m6_sent_entries_are_older(s: W, m: AppendEntries, n: Index) -> bool:
    """Every entry that is sent is of an earlier term than the request; which isn't so."""
    return implies(n > 0, m.entries.at(n).term < m.term)


def test_a_claim_about_a_message_can_be_about_its_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is assumed of the message received, and of those sent before, for every entry."""
    for claim in (m5_sent_entries_are_not_newer, m6_sent_entries_are_older):
        monkeypatch.setitem(claims.CONJUNCTS, claim.__name__, Property.of(claim, states=1))
    induction, small = Unbounded(), Induction(sizes(*SIZES[0]))
    prover = Prover(induction, recorded())
    kept, broken = (q for q in induction.questions() if q.claim.startswith(("m5", "m6")))
    assert kept.action == broken.action == "append_entries"
    assert (prover.prove(kept).verdict, small.answer(kept).verdict) == ("proved", "kept")
    assert (prover.prove(broken).verdict, small.answer(broken).verdict) == ("unknown", "broken")
    assert find(broken, small).values["n"] == 1
    (of,) = (q for q in induction.questions() if q.action == "handle_append_entries" and q.claim[:3] == "g4_")
    few = {of.claim, m5_sent_entries_are_not_newer.__name__}
    assert Prover(induction, {of: few}).prove(of, effort=100_000).used == few


def test_without_a_rule_of_an_extension_a_small_step_is_shown() -> None:
    data, text, code = run_unbounded(without=["check_quorum.keep_vote"], extensions=["check_quorum"])
    assert code == 1
    assert "not inductive: lose_quorum / A2 current vote is remembered" in text
    assert recorded_step("check_quorum.keep_vote").question == Question(**data["failed"][0])


@pytest.mark.parametrize("rule", OF_EXTENSIONS)
def test_what_an_extension_promises_rests_on_its_rules(rule: str) -> None:
    """As recorded; Python takes the step again."""
    action, claim = recorded_step(rule).question
    assert f"{action} / {title(claim)}" == FAILS_FIRST[rule]


BUGS = dict(re.findall(r"^\| (L\d+), .+? \| (\w+ / .+?) \|$", PROVING.read_text(), re.MULTILINE))


@pytest.mark.parametrize("bug", [name for name, m in MUTANTS.items() if "sessions" in m.extensions])
def test_known_bugs_of_sessions_break_what_the_table_says(bug: str) -> None:
    action, claim = recorded_step(bug).question
    assert f"{action} / {title(claim)}" == BUGS[bug]


def test_no_two_lemmas_have_the_same_label() -> None:
    """What one is proved from is written down by its label."""
    names = {name for of in claims.LEMMAS.values() for name in of}
    assert len({name.split("_")[0] for name in names}) == len(names)


def test_of_the_rules_of_reads_only_one_is_not_needed() -> None:
    assert {n for n in EXTENSIONS["reads"].rules if n not in FAILS_FIRST} == {"reads.one_round"}


def test_the_table_of_what_fails_first_has_every_rule_of_safety() -> None:
    safety = {name for name, r in RULES.items() if r.kind == "safety"}
    assert FAILS_FIRST.keys() - OF_EXTENSIONS == safety - NOT_BROKEN.keys()


def test_a_lemma_is_not_proved_from_itself() -> None:
    """Nor from a record that says so: what isn't allowed is not assumed."""
    induction = Unbounded()
    question = Question(NO_STEP, "l3_leaders_have_what_earlier_ones_committed")
    induction.hypotheses["c2_later_leaders_have_choosable_entries"] = []
    prover = Prover(induction, {question: frozenset({question.claim})}, seeds=1)
    assert prover.prove(question, effort=100_000).verdict == "unknown"
    assert Prover(Unbounded(), recorded()).prove(question).verdict == "proved"


def test_hypotheses_are_those_that_fixed_sizes_take() -> None:
    induction = Unbounded()
    question = next(q for q in induction.questions() if q.action == "timeout" and q.claim.startswith("c3"))
    small = Narrowing(induction, SIZES[-1])
    used = small.used(question, frozenset(induction.conjuncts), fewest=True)
    assert used is not None
    assert {n.split("_")[0] for n in used} == {"a5", "c1", "c3", "g3", "g6"}
    assert small.used(question, used - {question.claim}) is None
    broken = Narrowing(Unbounded(["restart.keep_vote"]), SIZES[0])
    assert (
        broken.used(Question("restart", "a2_current_vote_is_remembered"), frozenset(induction.conjuncts))
        is None
    )


def test_what_is_never_needed_is_proved_without_it() -> None:
    """The proof rests on no policy of the leader's: which entries it sends, how far it goes back."""
    data, _, code = run_unbounded(without=["replicate.next_index", "replicate.back_off"])
    assert (data["verdict"], code) == ("proved", 0)


def test_without_what_is_assumed_of_majorities_nothing_is_elected_safely() -> None:
    induction = Unbounded()
    shared = [c for c in induction.always if "shared?" in str(c.body)]
    induction.always = [c for c in induction.always if c not in shared]
    assert shared
    (question,) = (
        q for q in induction.questions() if q.action == "become_leader" and q.claim.startswith("b4")
    )
    assert Prover(induction, recorded()).prove(question, effort=200_000).verdict == "unknown"


def test_a_wrong_record_costs_time_only() -> None:
    induction = Unbounded()
    question = next(q for q in induction.questions() if q.claim.startswith("a2") and q.action == "timeout")
    found = Prover(induction, {question: frozenset()}).prove(question)
    assert found.verdict == "proved"


def test_what_appends_as_client_request_does_is_tried_as_that_is() -> None:
    known = {q.claim: names for q, names in recorded().items() if q.action == "client_request"}
    assert len(known) > 10
    for action in ALIKE["client_request"]:
        assert {
            q.claim: names for q, names in recorded().items() if q.action == action
        }.items() >= known.items()


def test_a_promise_rests_on_what_its_proof_and_their_proofs_use() -> None:
    induction = Unbounded()
    names = needed("applied_is_committed", recorded(), induction)
    assert [n.split("_")[0] for n in names] == ["d7"]


@pytest.mark.parametrize("name", PROVED)
def test_with_an_extension_it_is_proved_as_well(name: str) -> None:
    """All questions about what the extension changes; the rest are asked without it."""
    induction = Unbounded(extensions=(name,))
    actions = changed_actions(induction, Unbounded())
    prover = Prover(induction, recorded(induction.extensions))
    wanted = [q for q in induction.questions() if q.action in (*actions, AT_FIRST, NO_STEP)]
    assert {q.action for q in wanted} >= set(actions) != set()
    assert [q for q in wanted if prover.prove(q).verdict != "proved"] == []
    assert agrees(induction) is None


@pytest.fixture(scope="module")
def membership() -> Unbounded:
    return Unbounded(extensions=("membership",))


# What a lemma is no more proved without: why single changes are as they are.
RESTS_ON = {
    "j15_y_is_after_what_secured_x": "p3_single_changes_are_secured",
    "j5_children_meet": "p7_other_changes_are_of_one_server",
    "j7_siblings_meet": "p2_joint_ones_hold_the_one_before",
    "j12_what_is_before_y_is_not_after_x": "p1_parents_are_next",
}


@pytest.mark.parametrize("lemma", RESTS_ON)
def test_of_membership_each_rule_is_needed(lemma: str, membership: Unbounded) -> None:
    fewer = Unbounded(extensions=("membership",))
    fewer.hypotheses[RESTS_ON[lemma]] = []
    assert Prover(fewer, seeds=1).prove(Question(NO_STEP, lemma), effort=200_000).verdict == "unknown"
    assert Prover(membership).prove(Question(NO_STEP, lemma)).verdict == "proved"


def test_next_index_is_in_no_hypothesis() -> None:
    """Where a leader goes back to is no matter of safety."""
    assert not any("next_index" in str(c.body) for cs in Unbounded().hypotheses.values() for c in cs)


def test_it_is_said_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        app(["prove", "--without", "restart.keep_vote", "--json"])
    assert done.value.code == 1
    assert json.loads(capsys.readouterr().out)["failed"][0]["action"] == "restart"
    with pytest.raises(UnusableError, match="no rule"):
        run_unbounded(without=["nothing"])


# --- formulas ------------------------------------------------------------------


def holds(c: Any) -> str:
    """Whether a closed condition can be true, by its clauses."""
    solver = z3.Solver()
    solver.set(rlimit=300_000)
    solver.add(*(x.term() for x in Clauses().of(c)))
    return str(solver.check())


def test_clauses_say_what_the_condition_says() -> None:
    number = z3.IntSort()
    assert holds(every(number, lambda x: some(number, lambda y: y > x))) != "unsat"
    assert holds(some(number, lambda y: every(number, lambda x: y >= x))) == "unsat"
    least = some(number, lambda y: every(number, lambda x: either(x < 0, both(x >= y, y >= 0))))
    assert holds(both(least, True)) != "unsat"
    assert holds(both(least, no(least))) != "sat"


def test_what_has_a_name_is_what_it_stands_for() -> None:
    """Whether it is said or denied, and of other things than where it got its name."""
    number = z3.IntSort()
    after = z3.Function("after", number, number, z3.BoolSort())

    def has_next(x: Any) -> Quantified:
        return Quantified(False, number, lambda y: after(x, y), "y", ("has next", x), named=True)

    def together(*conditions: Any) -> str:
        clauses, solver = Clauses(), z3.SimpleSolver()
        solver.set(mbqi=False)
        for c in conditions:
            solver.add(*(x.term() for x in clauses.of(c)))
        assert clauses.defined.keys() == {"has next"}
        solver.add(*(x.term() for cs in clauses.defined.values() for x in cs))
        return str(solver.check())

    some_have = every(number, lambda x: either(x < 5, has_next(x)))
    none_have = every(number, lambda x: either(x < 5, no(has_next(x))))
    seven = z3.IntVal(7)
    nothing_after = every(number, lambda y: no(after(seven, y)))
    assert together(some_have, no(has_next(seven))) == "unsat"
    assert together(some_have, has_next(seven), nothing_after) == "unsat"
    assert together(none_have, after(seven, z3.IntVal(8)), no(has_next(seven))) == "unsat"
    assert together(none_have, after(z3.IntVal(3), seven), has_next(z3.IntVal(3))) != "unsat"
    assert together(some_have, after(seven, z3.IntVal(8)), has_next(seven)) != "unsat"

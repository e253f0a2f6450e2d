"""Why a rule: what breaks without it, the step that it prevents, and the evidence where nothing breaks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import msgspec
import pytest

from raftspec.extensions import EXTENSIONS, WHOLE
from raftspec.invariant import with_witnesses
from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftspec.rules import POLICY, RULES
from raftworthy.explore import broken_steps, livelocks, unkept
from raftworthy.explore import why as module
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.broken_steps import DisagreementError, title
from raftworthy.explore.cases import BEGINNINGS, RULE_CASES, Case, Walk
from raftworthy.explore.model import Model
from raftworthy.explore.needless import NEEDLESS, WAITS, Needless, Wait
from raftworthy.explore.paths import Move
from raftworthy.explore.telling import answer_data, as_text, page, sentences, table
from raftworthy.explore.unkept import first_unkept
from raftworthy.explore.why import Answer, prevention, why

ROOT = FilePath(__file__).parent.parent.parent
asked = cache(why)


# --- each rule ---------------------------------------------------------------


def test_the_page_of_the_documentation_is_what_the_command_generates() -> None:
    """To bring it up to date: raftworthy why --all --markdown > docs/why.md"""
    assert page([asked(rule) for rule in RULES]) == (ROOT / "docs/why.md").read_text()


def test_the_page_of_extensions_has_each_of_their_rules() -> None:
    """To bring it up to date: raftworthy why --all --with all --markdown > docs/why_extensions.md"""
    text = (ROOT / "docs/why_extensions.md").read_text()
    for name, rule in WHOLE.rules.items():
        row = f"| [{name}](#{name.replace('.', '')}) | {rule.section} | {rule.kind} |"
        assert (row in text) is (name not in RULES), name


@pytest.mark.parametrize("rule", RULE_CASES)
def test_the_step_that_a_rule_prevents_is_the_first_that_is_none_of_raft(rule: str) -> None:
    """With the rule, all steps before are possible and the same; that one is not."""
    disaster = asked(rule).disaster
    assert disaster is not None
    case, prevented = disaster.case, disaster.prevented
    figure_2, any_policy = Model(case.spec, case.bounds), Model(case.spec, case.bounds, any_policy=True)
    worlds = disaster.path.worlds()
    for k, move in enumerate(disaster.path.moves[: prevented.step]):
        model = any_policy if case.any_policy and k >= disaster.beginning else figure_2
        found = model.take(worlds[k], move.action, move.params)
        if k + 1 < prevented.step:
            assert found is not None
            assert (found.world, found.sent) == (move.world, move.sent)
        else:
            assert found is None or (found.world, found.sent) != (move.world, move.sent)
            assert (found is None) == bool(prevented.refused) != bool(prevented.instead)


def test_every_safety_rule_has_a_disaster_and_the_others_have_evidence() -> None:
    for name, rule in RULES.items():
        answer = asked(name)
        assert answer.decided, name
        if rule.kind == "safety":
            assert answer.disaster, name
        elif name != "replicate.next_after_match":  # one property speaks of this very policy
            assert answer.waits or answer.explored, name


def test_an_implied_rule_changes_nothing() -> None:
    for rule in (r for r, needless in NEEDLESS.items() if needless.same):
        assert all(e.distinct == e.with_rule for e in asked(rule).explored), rule


def test_figure_8_is_prevented_where_the_old_entry_is_committed() -> None:
    """Section 5.4.2."""
    disaster = asked("commit.current_term").disaster
    assert disaster is not None
    prevented = disaster.prevented
    assert disaster.path.moves[prevented.step - 1].action == "advance_commit_index"
    assert prevented.refused == "n is from current_term: log[1].term = 1, current_term = 3"
    assert disaster.beginning == 22


def test_a_rule_is_no_use_before_it_matters() -> None:
    """What an older term's followers stored is to be forgotten on stepping down, long before it is used."""
    disaster = asked("leader.reset_match_index").disaster
    assert disaster is not None
    assert disaster.prevented.step < len(disaster.path)
    assert any("match_index is {}" in text for text in disaster.prevented.instead)


@pytest.mark.parametrize("name", ["E16", "R05", "R16"])
def test_a_mutant_is_answered_too(name: str) -> None:
    answer = why(name)
    assert answer.disaster is not None
    assert answer.disaster.property == MUTANTS[name].breaks
    text = as_text(answer, 100).plain
    assert MUTANTS[name].source in text
    assert f"Without the bug, step {answer.disaster.prevented.step} comes out otherwise: " in text


# --- what the invariant lacks --------------------------------------------------


PROVING = (ROOT / "docs/proving.md").read_text()
TABLES = dict(re.findall(r"^\| `(\w+\.\w+)` \| (\w+ / .+?) \|$", PROVING, re.MULTILINE))
FAILS_FIRST = {rule: first for rule, first in TABLES.items() if rule in RULES}


def test_what_fails_first_is_recorded_of_each_rule_that_the_proof_needs() -> None:
    """Python takes each step again. To bring the record up to date: raftworthy prove --record-failures"""
    found = {rule: c for rule in RULES if (c := asked(rule).unkept)}
    told = {rule: f"{c.question.action} / {title(c.question.claim)}" for rule, c in found.items()}
    assert {rule: text for rule, text in told.items() if RULES[rule].kind == "safety"} == FAILS_FIRST
    assert told.keys() - FAILS_FIRST.keys() == {"vote.current_term", "append.candidate_steps_down"}


@pytest.mark.parametrize("name", ["pre_vote.keep_vote", "snapshot.never_back", "R08", "S02"])
def test_so_it_is_of_rules_of_extensions_and_of_known_bugs(name: str) -> None:
    assert first_unkept(name) is not None


def test_it_is_shown_after_what_can_be_reached() -> None:
    answer = asked("vote.up_to_date")
    text = as_text(answer, 100).plain
    reached, _, rest = text.partition("Without it the proof for any number of servers fails first at ")
    assert "violated: leader_completeness" in reached
    assert rest.startswith("handle_request_vote / C3 voters")
    assert answer.unkept is not None
    assert broken_steps.table(answer.unkept, 100) in rest
    assert rest.endswith("To ask Z3 again: raftworthy prove --without vote.up_to_date\n")
    data = answer_data(answer)["induction"]
    assert (data["action"], data["claim"]) == answer.unkept.question
    assert json.loads(json.dumps(data))["before"]["servers"].keys() == {"n1", "n2", "n3"}


def test_what_isnt_needed_has_none() -> None:
    assert asked("vote.refuse").unkept is None
    assert "the proof" not in as_text(asked("vote.refuse"), 100).plain
    assert "induction" not in answer_data(asked("vote.refuse"))


def _with_bug(bounds: Bounds, without: tuple[str, ...], mutant: None) -> Model:
    return broken_steps.witnessed(bounds, without, MUTANTS["R08"])


def _with_one_claim_less(bounds: Bounds, without: tuple[str, ...], mutant: None) -> Model:
    spec = with_witnesses()
    del spec.properties["d6_committed_is_by_some_leader"]
    return Model(spec, bounds, without)


@pytest.mark.parametrize("other", [_with_bug, _with_one_claim_less])
def test_a_record_of_another_specification_is_not_shown(
    other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unkept, "witnessed", other)
    assert first_unkept("restart.keep_vote") is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"before": {}, "past": {}}, "holds after restart"),
        ({"before": {"n3": {"voted": {"1": ["n1"]}}}}, "doesn't hold before restart"),
        ({"step": ["n4"]}, "n4"),
        ({"claim": "a1_votes_are_in_terms_reached", "about": {"i": "n1", "t": 1, "c": "n2"}}, "holds after"),
    ],
)
def test_a_record_that_python_denies_is_not_shown(
    change: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = msgspec.structs.replace(unkept._recorded()["restart.keep_vote"], **change)
    monkeypatch.setattr(unkept, "_recorded", lambda: {row.name: row})
    with pytest.raises((DisagreementError, KeyError), match=why):
        first_unkept("restart.keep_vote")


# --- what it must not say ----------------------------------------------------


def test_nothing_found_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds too small for the disaster say nothing about the rule."""
    small = Case(Bounds(servers=1, max_log=0))
    monkeypatch.setattr(module, "RULE_CASES", {"vote.once_per_term": small})
    answer = why("vote.once_per_term")
    assert not answer.decided
    assert "undecided" in as_text(answer, 100).plain
    assert "undecided" in table([answer])


def test_a_rule_that_is_needed_is_never_called_needless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RULE_CASES", {})
    needless = Needless("So it is said.", (Bounds(servers=2, max_term=1, crashes=1),))
    monkeypatch.setattr(module, "NEEDLESS", {"restart.keep_vote": needless})
    answer = why("restart.keep_vote")
    assert answer.disaster is not None
    assert not answer.explored


def test_a_rule_that_changes_states_is_not_called_implied(monkeypatch: pytest.MonkeyPatch) -> None:
    needless = Needless("So it is said.", (Bounds(servers=2, max_term=1),), same=True)
    monkeypatch.setattr(module, "NEEDLESS", {"vote.refuse": needless})
    assert not why("vote.refuse").decided


def test_what_happens_without_the_rule_too_is_no_reason_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Wait("a server is elected", "len(leaders()) == 1", Case(Bounds(servers=2, max_term=1, max_log=0)))
    monkeypatch.setattr(module, "WAITS", {"vote.refuse": wait})
    assert not why("vote.refuse").decided


def test_a_behaviour_of_raft_is_not_prevented() -> None:
    case = Case(Bounds(), "committed")
    path = BEGINNINGS["committed"](Walk(Model(raft, case.bounds))).path
    with pytest.raises(ValueError, match="every step is one of Raft"):
        prevention(path, len(path), case, frozenset({"vote.up_to_date"}), None)


def test_an_unknown_name_is_answered_with_those_like_it() -> None:
    with pytest.raises(UnusableError, match=r"no rule or mutant is called vote\.twice; did you mean vote\."):
        why("vote.twice")


# --- how it is told ----------------------------------------------------------


def test_each_step_is_a_sentence_of_the_specification() -> None:
    """With the names filled in, and with the role of who really acts."""
    disaster = asked("commit.leader_only").disaster
    assert disaster is not None
    assert sentences(disaster.path) == [
        "Follower n1 starts an election: role candidate, current_term 1, voted_for n1, votes {n1}.",
        "Candidate n1 wins the election: role leader, next_index {n1: 1}.",
        "Leader n1 appends a client's command c1 to its log: log [1].",
        "Leader n1 crashes and starts again with what is persistent: role follower.",
        "Follower n1 learns that entry 1 is committed: commit_index 1.",
    ]


def test_every_action_has_a_sentence() -> None:
    told = {move.action: text for rule in RULE_CASES for move, text in _told(asked(rule))}
    assert told.keys() >= raft.actions.keys()
    for name in {x for case in RULE_CASES.values() for x in case.bounds.extensions}:
        assert told.keys() >= EXTENSIONS[name].actions.keys(), name
    assert told["append_entries"].startswith("Leader n")
    assert not any("m." in text or "`" in text for text in told.values())


def _told(answer: Answer) -> list[tuple[Move, str]]:
    assert answer.disaster is not None
    return list(zip(answer.disaster.path.moves, sentences(answer.disaster.path), strict=True))


@pytest.mark.parametrize("rule", ["vote.once_per_term", "commit.current_term"])
def test_the_answer_has_all_of_it(rule: str) -> None:
    answer = asked(rule)
    assert answer.disaster is not None
    text = as_text(answer, 100).plain
    assert RULES[rule].why.split()[0] in text
    assert f"(section {RULES[rule].section})" in text
    assert f"violated: {answer.disaster.property}" in text
    assert text.count(f"▶{answer.disaster.prevented.step}  ") == 2  # in the diagram and in the sentences
    assert f"With the rule, step {answer.disaster.prevented.step} " in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_data_says_the_same() -> None:
    data = json.loads(json.dumps(answer_data(asked("vote.recorded"))))
    assert (data["kind"], data["section"], data["property"]) == ("safety", "5.2", "one_leader_per_term")
    assert data["prevented"]["step"] == 3
    assert data["path"][2]["says"].startswith("Follower n3 decides whether to vote for n1")
    assert answer_data(asked("term.adopt_newer"))["never"] == WAITS["term.adopt_newer"].what
    assert answer_data(asked("commit.in_log"))["explored"][0]["distinct"] == 1354


START = "from raftworthy.cli import main; main()"
WITHOUT_Z3 = f"import sys; sys.modules['z3'] = None; {START}"


def run(*arguments: str, start: str = START) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", start, "why", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": "spec:impl:checker", "COLUMNS": "100"},
    )  # fmt: skip


def test_the_command_answers_saves_and_refuses(tmp_path: FilePath) -> None:
    trace = tmp_path / "vote.ndjson"
    done = run("restart.keep_vote", "--save", str(trace), start=WITHOUT_Z3)
    assert done.returncode == 0
    assert "violated: vote_is_kept" in done.stdout
    assert "fails first at restart / A2 current vote is remembered" in " ".join(done.stdout.split())
    assert len(trace.read_text().splitlines()) == 5  # a header, two first starts, two steps
    for arguments in ((), ("vote.refuse", "--all"), ("vote.refuse", "--markdown"), ("vote.nonsense",)):
        refused = run(*arguments)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert len(refused.stderr.splitlines()) == 1


def test_a_livelock_is_shown_that_is_not_there_with_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that Raft has, too, says nothing of the rule."""
    pytest.importorskip("networkx")
    shown = livelocks.livelock_of("term.fresh_vote", is_mutant=False)
    assert shown is not None
    assert shown.found.lasso is not None
    assert shown.found.question.without == {"term.fresh_vote"}
    assert shown.right.verdict == "holds within bounds"
    assert shown.right.question == replace(shown.found.question, without=frozenset())
    text = livelocks.as_text(shown, 100).plain
    assert "for ever" in text
    assert f"with the rule a command is always decided: {shown.right.states} states" in text
    assert livelocks.livelock_of("append.candidate_steps_down", is_mutant=False) is None
    monkeypatch.setattr(livelocks, "ask", lambda *_: shown.found)
    assert livelocks.livelock_of("term.fresh_vote", is_mutant=False) is None


def test_the_command_shows_the_livelock() -> None:
    pytest.importorskip("networkx")
    done = run("term.adopt_newer", "--json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["lasso"]["verdict"] == "livelock"
    assert data["lasso"]["round"] == 1
    assert data["without_lasso"]["verdict"] == "holds within bounds"


def test_policy_is_said_to_be_a_choice() -> None:
    for rule in POLICY & NEEDLESS.keys():
        assert "Figure 2 chooses so" in as_text(asked(rule), 300).plain

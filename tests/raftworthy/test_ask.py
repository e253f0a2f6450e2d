"""Questions about logs: the answers are those of exhaustive exploration, and wrong files are refused."""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftspec.properties import raft
from raftspec.rounds import HISTORIES, ROUNDS, with_rounds
from raftspec.rules import POLICY
from raftspec.spec import Spec
from raftworthy.ask import change
from raftworthy.ask import reachable as reachable_module
from raftworthy.ask.change import Change, changed
from raftworthy.ask.electable import Candidate, Election
from raftworthy.ask.logs import Log, Logs, parse, read_logs
from raftworthy.ask.reachable import Reachable, certain, reachable
from raftworthy.cli import app
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.broken_steps import Question, sizes
from raftworthy.explore.export import write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore, explore_model
from raftworthy.generated import World
from raftworthy.prove.counterexample import find
from raftworthy.prove.inductive import Induction

ROOT = Path(__file__).parent.parent.parent
FIGURE_7 = ROOT / "docs" / "logs" / "figure_7.logs"


# --- files -------------------------------------------------------------------


def test_lines_and_json_say_the_same() -> None:
    text = "# three\ns1: 1, 1 2 term=3 vote=s2\ns2 : 1 commit=1\n\ns3:   # nothing yet\n"
    logs = parse(text)
    assert logs.servers == (
        Log("s1", (1, 1, 2), 3, True, "s2", None, 2),
        Log("s2", (1,), commit=1, line=3),
        Log("s3", (), line=5),
    )
    assert [str(log) for log in parse(json.dumps(logs.as_data())).servers] == list(map(str, logs.servers))
    assert str(parse("a: 1 term=2 vote=nobody").servers[0]) == "a: 1 term=2 vote=nobody"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no logs"),
        ("s1 1 2", ":1: no server and its log"),
        ("s1: 1\ns2: 1 x", ":2: an entry's term can't be 'x'"),
        ("s1: 0", ":1: an entry's term can't be '0'"),
        ("s1: 1 comit=1", ":1: 'comit' is not known"),
        ("s1: 1 commit=2", ":1: s1 has commit=2, and 1 entries only"),
        ("s1: 1 term=2 term=2", ":1: term is said twice"),
        ("s1: 1\n\ns1: 1", ":3: s1 is there twice"),
        ("s1: 1 vote=s1", ":1: the vote of s1 is one in its term"),
        ("s1: 1 term=1 vote=s2", ":1: s1 votes for s2; there are s1"),
        ("s1: 1 term=61", "over 60"),
        ('{"s1": [1], "s1": [2]}', "s1 is said twice"),
        ('{"s1": [1, true]}', "an entry's term of s1 can't be True"),
        ('{"s1": {"term": 1}}', "s1 has no log"),
        ('{"s1": [1,\n}', ":2: not JSON"),
        ('{"s1": {"log": [], "leader": 1}}', "'leader' is not known of s1"),
    ],
)
def test_what_is_no_file_of_logs_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(UnusableError, match=r"^logs:") as refused:
        parse(text)
    assert why in str(refused.value)


# --- who can be elected ----------------------------------------------------------


def candidates(logs: Logs, term: int, *without: str) -> dict[str, Candidate]:
    election = Election(logs, term, Change(frozenset(without)))
    return {c: election.candidate(c) for c in logs.names}


def test_in_figure_7_four_of_seven_can_be_elected_for_term_8() -> None:
    found = candidates(read_logs(FIGURE_7), 8)
    assert [c for c, x in found.items() if x.electable] == ["l", "a", "c", "d"]
    assert {*found["l"].voters, *found["l"].others} == {"a", "b", "e", "f"}
    assert len(found["l"].voters) == 3
    assert found["e"].others == ("b", "f")
    assert found["e"].missing == ("a quorum voted for i", "votes = {b, e, f}")
    (refusal,) = (r for r in found["e"].refusals if r.voter == "d")
    (rule, values) = refusal.rules[0]
    assert rule == "vote.up_to_date"
    assert "log[12].term = 7" in values
    assert "message.last_log_term = 4" in values
    assert all(x.electable for x in candidates(read_logs(FIGURE_7), 8, "vote.up_to_date").values())


def elected_by_exploring(election: Election, c: str) -> bool:
    """Every way in which others answer, and every term and vote that isn't said, by the Python back end."""
    model, logs = election.model, election.logs

    def starts() -> list[World]:
        options = []
        for log in logs.servers:
            earlier = range(max(log.terms, default=0), election.term)
            stood = log.server == c and log.term == election.term  # so it was in an earlier term before
            terms = earlier if log.term is None or stood else [log.term]
            votes = [log.vote] if log.votes and not stood else [None, *logs.names]
            options.append([(t, v) for t in terms for v in votes if t or v is None])
        worlds = []
        for chosen in itertools.product(*options):
            world = World({i: v.copy() for i, v in election.world.variables.items()}, election.world.past)
            for (term, vote), me in zip(chosen, world.variables.values(), strict=True):
                me.current_term, me.voted_for = term, vote
            worlds.append(world)
        return worlds

    level, known = starts(), set[World]()
    while level:
        further = []
        for s in level:
            for move in model.moves(s):
                if move.action in ("append_entries", "client_request", "apply_entries"):
                    continue
                if move.action == "timeout" and move.server != c:
                    continue
                me = move.world.variables[c]
                if me.role == "leader" and me.current_term == election.term:
                    return True
                if move.world not in known and move.action != "become_leader":
                    known.add(move.world)
                    further.append(move.world)
        level = further
    return False


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("s1: 1\ns2: 1 1\ns3: 2", 3),
        ("s1: 1 term=2 vote=s1\ns2: term=2 vote=s3\ns3: 1 1", 2),
        ("s1: 1 term=2 vote=nobody\ns2: term=3\ns3: 1 1 term=1", 2),
        ("s1: 1 term=1 vote=s2\ns2: 1 term=2 vote=s3\ns3: 1 term=2 vote=s3", 2),
        ("s1: term=0\ns2: term=1 vote=s1\ns3: term=1 vote=s2", 1),
    ],
)
def test_who_can_be_elected_is_who_is_elected_when_all_is_explored(text: str, term: int) -> None:
    """With each rule of votes taken away, too."""
    logs = parse(text)
    for without in ((), ("vote.up_to_date",), ("vote.once_per_term",), ("vote.count_granted",)):
        found = candidates(logs, term, *without)
        election = Election(logs, term, Change(frozenset(without)))
        for c in logs.names:
            if not found[c].why_not:
                assert found[c].electable == elected_by_exploring(election, c), (c, without)


def test_a_voter_refuses_by_the_rule_that_its_state_breaks() -> None:
    logs = parse("s1: 1\ns2: 1 term=2 vote=s3\ns3: term=3")
    found = candidates(logs, 2)["s1"]
    assert not found.electable
    rules = {r.voter: [rule for rule, _ in r.rules] for r in found.refusals}
    assert rules == {"s2": ["vote.once_per_term"], "s3": ["vote.current_term"]}


def test_a_term_that_has_had_its_leader_is_not_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnusableError, match="so that term has had its leader"):
        Election(parse("s1: 3"), 3)
    with pytest.raises(UnusableError, match="--term is 0"):
        Election(parse("s1: 3"), 0)


def test_the_command_says_who_and_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        app(["ask", "electable", "--logs", str(FIGURE_7), "--term", "8"], result_action="return_value") == 0
    )
    text = capsys.readouterr().out
    assert "electable: l, a, c, d" in text
    assert "e refuses by vote.up_to_date: log[7].term = 4" in text
    file = tmp_path / "late.logs"
    file.write_text("s1: term=9\n")
    arguments = ["ask", "electable", "--logs", str(file), "--term", "8", "--json"]
    assert app(arguments, result_action="return_value") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "not electable"
    assert data["candidates"][0]["cannot_stand"] == "it is in term 9 already, and terms_never_fall"


# --- how logs come about, term by term ---------------------------------------------


def test_every_step_keeps_the_claims_about_rounds() -> None:
    induction = Induction(sizes(3, 2, 2), rounds=True)
    assert not induction.not_at_first()
    answers = induction.check(claims=ROUNDS)
    assert {a.question.claim for a in answers} == set(ROUNDS)
    assert [a.question for a in answers if a.verdict != "kept"] == []


@pytest.mark.parametrize(
    ("rule", "action", "claim"),
    [
        ("vote.up_to_date", "handle_request_vote", "h5_first_votes_are_for_logs_that_reach"),
        ("append.previous_entry", "handle_append_entries", "h2_logs_change_to_the_leaders"),
        ("append.own_term", "client_request", "h3_leaders_only_append"),
        ("election.majority", "become_leader", "h6_leaders_had_such_votes"),
    ],
)
def test_without_a_rule_a_claim_about_rounds_is_broken(rule: str, action: str, claim: str) -> None:
    """And Python confirms the state and the step that break it."""
    induction = Induction(sizes(3, 2, 2), {rule}, rounds=True)
    question = Question(action, claim)
    assert induction.answer(question).verdict == "broken"
    if action != "handle_append_entries":  # that takes long
        assert find(question, induction).move is not None


def test_reachable_states_satisfy_the_claims_about_rounds() -> None:
    spec = with_rounds(2)
    spec = Spec(spec.server, spec.history, spec.rules, spec.actions, dict(HISTORIES))
    result = explore(
        spec, Bounds(servers=2, max_term=2, max_log=2, crashes=1, max_messages=6), limit_states=2000
    )
    assert result.violation is None
    assert result.distinct > 1000


# --- whether logs can exist side by side ---------------------------------------------


def answer(*logs: tuple[int, ...]) -> Reachable:
    return reachable(Logs(tuple(Log(f"s{k}", terms) for k, terms in enumerate(logs, 1))))


def test_figure_7_is_reachable_and_its_history_conforms(tmp_path: Path) -> None:
    logs = read_logs(FIGURE_7)
    found = reachable(logs)
    assert found.path is not None
    assert len(found.plan) == 7
    ends = {i: tuple(e.term for e in v.log) for i, v in found.path.world.variables.items()}
    assert ends == {log.server: log.terms for log in logs.servers}
    file = tmp_path / "history.ndjson"
    write_trace(found.path, file)
    assert app(["replay", str(file)], result_action="return_value") == 0


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ("b: 1 1 2 4", "g3_logs_come_from_leaders"),  # entry 4 of term 4 is elsewhere after one of term 1
    ],
)
def test_variants_of_figure_7_that_cannot_be_are_told_by_few_facts(changed: str, claim: str) -> None:
    lines = FIGURE_7.read_text().splitlines()
    found = reachable(parse("\n".join(changed if line.startswith("b:") else line for line in lines)))
    assert found.because is not None
    assert claim in found.because.claims
    assert "b" in {f.server for f in found.because.facts}
    assert len(found.because.facts) <= 4


def test_a_leader_that_nobody_could_elect_makes_logs_impossible() -> None:
    """Three servers, each with an entry of another term: the last leader had no entry, and no second vote."""
    found = answer((1,), (2,), (3,))
    assert found.verdict == "impossible"
    assert found.because is not None
    assert len(found.because.facts) == 3
    assert "h6_leaders_had_such_votes" in found.because.claims
    # With two more that have nothing it can be, and with all at work, only leaders of later terms pass it on.
    assert answer((1,), (2,), (3,), (), ()).verdict == "reachable"
    passed_on = answer((1,), (1,), (2,), (2,), (3,))
    assert passed_on.verdict == "reachable"
    assert len(passed_on.plan) > 3


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("s1: 1 2 commit=2\ns2: 1 2 commit=0\ns3:", "reachable"),
        ("s1: 1 commit=1\ns2:\ns3:", "impossible"),  # on no quorum
        ("s1: 2 2 commit=1\ns2: 2 commit=0\ns3: 1", "reachable"),
        ("s1: 1 commit=1\ns2: 1 commit=1\ns3: 2 2", "impossible"),  # entry 1 was committed, and s3 led later
        ("s1: 1 1 term=2\ns2: 1 term=1 vote=s1\ns3: term=4 vote=s3", "reachable"),
        # s1 got a vote, so it voted for itself: neither it nor s3 can have been elected with what they have.
        ("s1: 1 term=2\ns2: 1 term=1 vote=s1\ns3: 1 1 term=4 vote=s3", "impossible"),
        ("s1: 3 term=2\ns2:\ns3:", "impossible"),  # an entry of a term not reached
        ("s1: 1 term=1 vote=s1\ns2: 1 term=1 vote=nobody\ns3: term=1 vote=nobody", "impossible"),
    ],
)
def test_terms_votes_and_commits_are_facts_too(text: str, verdict: str) -> None:
    logs = parse(text)
    found = reachable(logs)
    assert found.verdict == verdict, found.tried
    if found.path:
        for log in logs.servers:
            me = found.path.world.variables[log.server]
            assert log.commit in (None, me.commit_index)
            assert log.term in (None, me.current_term)
            assert not log.votes or log.vote == me.voted_for


def test_logs_that_exploring_meets_are_reachable_and_none_are_undecided() -> None:
    """Two servers, terms up to 2, logs up to 2: all logs whose terms are any numbers up to 2."""
    met = set()
    bounds = Bounds(servers=2, max_term=2, max_log=2, entries=2, commands=4, max_messages=7)

    def visit(s: World) -> None:
        met.add(tuple(sorted(tuple(e.term for e in v.log) for v in s.variables.values())))

    explore_model(Model(raft, bounds, POLICY), properties=[], visit=visit, limit_states=12_000)
    possible = [log for n in range(3) for log in itertools.product((1, 2), repeat=n)]
    answers = {
        pair: answer(*pair).verdict for pair in itertools.combinations_with_replacement(sorted(possible), 2)
    }
    assert set(answers.values()) == {"reachable", "impossible"}
    assert len(met) > 5
    assert met <= {pair for pair, verdict in answers.items() if verdict == "reachable"}


@settings(max_examples=8, deadline=None, print_blob=True)
@given(st.lists(st.lists(st.integers(1, 3), max_size=3).map(sorted).map(tuple), min_size=3, max_size=3))
def test_no_logs_of_three_servers_are_undecided(logs: list[tuple[int, ...]]) -> None:
    assert answer(*logs).verdict in ("reachable", "impossible")


# --- of a changed Raft -----------------------------------------------------------


UNELECTABLE = "s1: 1\ns2: 2\ns3: 3\n"


@cache
def kept_without_up_to_date() -> frozenset[str]:
    """Z3 is asked once, at sizes that do for this rule, which claims are kept without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "SIZES", (3, 2, 1))
        return change.kept_claims(changed(["vote.up_to_date"], None))


@pytest.fixture
def without_up_to_date(monkeypatch: pytest.MonkeyPatch) -> Change:
    monkeypatch.setattr(reachable_module, "kept_claims", lambda c, progress: kept_without_up_to_date())
    return changed(["vote.up_to_date"], None)


def test_what_depends_on_a_rule_is_not_kept_without_it(without_up_to_date: Change) -> None:
    gone = reachable(parse("s1: 1 2\ns2: 2 2\ns3:"), change=without_up_to_date).gone
    assert {n.partition("_")[0] for n in gone} == {"h5", "h6", "d3", "d5", "state", "committed"}


def test_without_the_rule_logs_can_be_that_no_majority_would_have_voted_for(
    without_up_to_date: Change, tmp_path: Path
) -> None:
    """And replay names the rule, in the history that leads there."""
    logs = parse(UNELECTABLE)
    assert reachable(logs).verdict == "impossible"
    found = reachable(logs, change=without_up_to_date)
    assert found.path is not None
    assert {i: len(v.log) for i, v in found.path.world.variables.items()} == {"s1": 1, "s2": 1, "s3": 1}
    file = tmp_path / "history.ndjson"
    write_trace(found.path, file)
    assert app(["replay", str(file)], result_action="return_value") == 1


def test_what_other_rules_make_impossible_stays_so(without_up_to_date: Change) -> None:
    """Logs still match, and a log without its beginning still comes from nowhere."""
    found = reachable(parse("s1: 1 2\ns2: 2 2\ns3:"), change=without_up_to_date)
    assert found.because is not None
    assert found.because.claims.keys().isdisjoint(found.gone)


def test_commits_are_held_against_nobody_if_they_may_be_lost() -> None:
    logs, out, found = parse("s1: 1 commit=1\ns2:\ns3:"), Reachable(1), changed(["vote.up_to_date"], None)
    assert certain(out, logs, found, frozenset(HISTORIES)) == logs
    assert out.tried == []
    left = certain(out, logs, found, kept_without_up_to_date())
    assert left is not None
    assert [log.commit for log in left.servers] == [None, None, None]
    assert "commits" in out.tried[0]


def test_a_bug_can_lose_what_was_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late heartbeat erases. The claims are only where the search begins: Python takes its steps."""
    numbers = ("h2", "h3", "h5", "h6", "h7", "h8", "d3", "d5", "state", "committed")
    kept = frozenset(name for name in HISTORIES if name.partition("_")[0] not in numbers)
    monkeypatch.setattr(reachable_module, "kept_claims", lambda c, progress: kept)
    lost = ROOT / "docs" / "logs" / "lost.logs"
    found = reachable(read_logs(lost), change=changed([], "R05"))
    assert found.path is not None
    assert [len(v.log) for v in found.path.world.variables.values()] == [1, 0, 0]
    assert found.path.world.variables["s1"].commit_index == 1
    assert reachable(read_logs(lost)).verdict == "impossible"


def test_what_z3_doesnt_say_is_kept_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "SIZES", (2, 1, 1))
    found = changed(["append.refuse"], None)  # which is policy
    assert change.kept_claims(found) == HISTORIES.keys()
    monkeypatch.setattr(change, "LIMIT", 1)
    assert change.kept_claims(found).isdisjoint(ROUNDS)


def test_if_timeouts_lead_nowhere_nothing_follows_from_terms_that_are_not_known() -> None:
    stuck = changed(["election.new_term"], None)
    assert not stuck.passes_terms()
    assert changed(["vote.up_to_date"], "R05").passes_terms()
    who = Election(parse("s1: 1\ns2:\ns3:"), 2, stuck).candidate("s1")
    assert who.why_not == "timeouts don't lead it to term 2"


def test_a_change_is_of_figure_2() -> None:
    with pytest.raises(UnusableError, match="M01 is a bug of Raft with membership"):
        changed([], "M01")
    with pytest.raises(UnusableError, match=r"Figure 2 has no rule pre_vote\.majority"):
        changed(["pre_vote.majority"], None)


def test_the_answer_names_the_change(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "some.logs"
    file.write_text("s1: 1\ns2: 1\ns3:\n")
    arguments = ["ask", "reachable", "--logs", str(file), "--mutant", "R05"]
    assert app(arguments, result_action="return_value") == 0
    assert "mutant R05: A follower cuts its log" in capsys.readouterr().out
    arguments = ["ask", "electable", "--logs", str(file), "--term", "2", "--mutant", "E03", "--json"]
    assert app(arguments, result_action="return_value") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["mutant"], data["without"]) == ("E03", ["vote.recorded"])


# --- what is said, and what isn't ----------------------------------------------


def test_what_contradicts_each_other_is_minimal() -> None:
    """Without any one of the facts the rest can be."""
    found = answer((1, 2, 2), (2, 2), (3,))
    assert found.because is not None
    assert {f.server for f in found.because.facts} == {"s1", "s2"}


def test_what_is_neither_found_nor_excluded_is_undecided(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Term 1 was led by s1, whose log was longer then; the open end may cut it off."""
    file = tmp_path / "some.logs"
    file.write_text("s1: 1\ns2: 1 term=1 vote=s1\ns3: 1 1\n")
    assert app(["ask", "reachable", "--logs", str(file)], result_action="return_value") == 2
    assert "tried: histories with terms up to 3: none" in capsys.readouterr().out


def test_the_command_tells_a_history_or_why_there_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, saved = tmp_path / "some.logs", tmp_path / "history.ndjson"
    file.write_text("s1: 1\ns2: 1 2\ns3:\n")
    arguments = ["ask", "reachable", "--logs", str(file)]
    assert app([*arguments, "--save", str(saved), "--steps"], result_action="return_value") == 0
    text = capsys.readouterr().out
    assert "term 2: s2 leads with the votes of" in text
    assert "reachable: " in text
    assert app(["replay", str(saved)], result_action="return_value") == 0
    file.write_text("s1: 1 2\ns2: 2 2\ns3:\n")
    capsys.readouterr()
    assert app([*arguments, "--json"], result_action="return_value") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "impossible"
    assert {"server": "s2", "fact": "entry 1 is of term 2"} in data["facts"]
    assert any(c["claim"].startswith("g") for c in data["claims"])

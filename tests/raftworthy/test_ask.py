"""Questions about logs: the answers are those of exhaustive exploration, and wrong files are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from raftworthy.ask.electable import Candidate, Election
from raftworthy.ask.logs import Log, Logs, parse, read_logs
from raftworthy.cli import app
from raftworthy.explore.reference import UnusableError
from raftworthy.generated import World

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
    election = Election(logs, term, without)
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
        election = Election(logs, term, without)
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

"""What is looked for is the same, whether an expression is traced or evaluated state by state."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from rich.console import Console

from raftspec.raft import raft
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.find import predicate
from raftworthy.explore.model import Model
from raftworthy.explore.running import run_explore
from raftworthy.explore.symbolic import FOUND, UntraceableError, looking_for
from raftworthy.generated import World
from raftworthy.native import available

BOUNDS = Bounds(servers=3, max_term=3, max_log=2, commands=2, crashes=1, applies=True)

TRACEABLE = [
    "len(leaders()) > 0",
    "len(leaders()) == 2",
    "not leaders() and len(candidates()) > 1",
    "s.n1.role == 'leader'",
    "s.n1.role != 'leader'",
    "s.n1.role == 'nothing'",
    "s.n1.role in ('leader', 'candidate')",
    "'n2' in s.n1.votes",
    "len(s.n1.votes) >= 2",
    "not not s.n1.votes and not s.n2.votes",
    "s.n1.voted_for is None",
    "s.n1.voted_for is not None and s[s.n1.voted_for].role == 'leader'",
    "s.n1.voted_for == s.n2.voted_for",
    "s.n1.voted_for == 'n2' or s.n1.voted_for == 'n9'",
    "s.n1.current_term == 2",
    "1 < s.n1.current_term < 3",
    "not not s.n1.current_term",
    "not s.n1.current_term",
    "s.n1.current_term == s.n2.current_term + 1",
    "2 - s.n1.current_term == 1",
    "max(s[i].current_term for i in servers) == 2",
    "sum(s[i].current_term for i in servers) > 3",
    "sum(s[i].role == 'candidate' for i in servers) == 2",
    "all(s[i].current_term >= 1 for i in servers)",
    "any(s[i].role == 'leader' and s[i].commit_index for i in servers)",
    "len(s.n1.log) == 1",
    "not s.n1.log",
    "len(s.n1.log) > 0 and s.n1.log[0].term == 1",
    "len(s.n1.log) > 0 and s.n1.log[-1].value == 'c1'",
    "s.n1.log == s.n2.log and not not s.n1.log",
    "s.n1.log == []",
    "terms('n1') == [1]",
    "2 in terms('n1')",
    "any(e.term == 1 for e in s.n1.log)",
    "not not s.past.committed",
    "len(s.past.committed) > 0 and s.past.committed[0].term == 2",
    "s.past.leaders[1] == 'n2'",
    "s.past.leaders[s.n1.current_term] is None",
    "s.past.restarts == 1",
    "s.n1.next_index['n2'] == 1",
    "s.n1.match_index['n2'] > s.n1.match_index['n3']",
    "len([i for i in servers if s[i].log]) > 1",
    "s.n1.role == 'leader' if s.n1.current_term == 2 else s.n2.role == 'leader'",
    "True",
]

UNTRACEABLE = [
    "any(m.term == 2 for m in s.messages)",
    "len({s[i].current_term for i in servers}) == 3",
    "len(s.n1.next_index) == 2",
    "s.n1.votes == s.n2.votes",
    "s.n1.commit_index == s.n1.current_term",
    "not s.n1.log[:1]",
]


def states(model: Model, number: int = 400) -> list[World]:
    """States on random walks."""
    rng = random.Random(1)
    found: list[World] = []
    while len(found) < number:
        s = model.generated.initial()
        for _ in range(40):
            found.append(s)
            moves = list(model.moves(s))
            s = rng.choices(moves, [0.1 if m.action in ("restart", "timeout") else 1 for m in moves])[0].world
    return found


SEEN = states(Model(raft, BOUNDS, properties=False))


@pytest.mark.parametrize("text", TRACEABLE)
def test_a_traced_expression_says_what_python_says(text: str) -> None:
    """In every state on some random walks."""
    wanted, _ = predicate(text, BOUNDS.names)
    model = Model(looking_for(text, BOUNDS), BOUNDS)
    traced = model.generated.properties[FOUND]
    assert [not traced(s) for s in SEEN] == [wanted(s) for s in SEEN]


def test_the_expressions_tell_states_apart() -> None:
    """Or the test above would be none: nearly all hold somewhere, and nearly none everywhere."""
    answers = [{predicate(text, BOUNDS.names)[0](s) for s in SEEN} for text in TRACEABLE]
    assert sum(len(a) == 2 for a in answers) >= len(TRACEABLE) - 8


@pytest.mark.parametrize("text", ["s.n1.log[0].term == 1", "s[s.n1.voted_for].role == 'leader'", "leaders()"])
def test_where_an_expression_cannot_be_evaluated_python_is_asked(text: str) -> None:
    """The traced property fails there, and Python says what is wrong."""
    wanted, _ = predicate(text, BOUNDS.names)
    traced = Model(looking_for(text, BOUNDS), BOUNDS).generated.properties[FOUND]
    with pytest.raises(UnusableError):
        wanted(SEEN[0])
    assert not traced(SEEN[0])


@pytest.mark.parametrize("text", UNTRACEABLE)
def test_what_cannot_be_traced_is_said_to_be_so(text: str) -> None:
    """And Python can tell: the expression is one."""
    with pytest.raises(UntraceableError):
        looking_for(text, BOUNDS)
    predicate(text, BOUNDS.names)[0](SEEN[-1])


# --- by both engines ---------------------------------------------------------


def ask(**question: Any) -> tuple[int, dict[str, Any]]:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    code = run_explore(**question, as_json=True, console=console)
    return code, json.loads(console.export_text())


@pytest.mark.skipif(not available(), reason="llvmlite and numpy are not installed")
@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("len(leaders()) == 2", {}),
        ("2 in terms('n1')", {}),
        ("len(s.past.committed) == 2", {}),
        ("len(s.past.committed) > 0", {"properties": ["election_safety"]}),
        ("len(s.past.committed) > 0", {"start": "stored"}),
        ("True", {}),
        ("len(leaders()) > 0 and len(candidates()) > 0", {"without": ["vote.recorded"]}),
    ],
)
def test_both_engines_find_it_after_as_many_steps(text: str, more: dict[str, Any]) -> None:
    """Or neither does, or a violation comes first."""
    answers = []
    for engine in ("python", "native"):
        code, data = ask(bounds=Bounds(max_messages=7), engine=engine, find=text, limit_states=3000, **more)
        assert data["engine"] == engine
        answers.append((code, data["verdict"], len(data.get("path", ())), data.get("property")))
    assert answers[0] == answers[1]


@pytest.mark.skipif(not available(), reason="llvmlite and numpy are not installed")
def test_what_is_looked_for_is_a_state_of_the_extensions_that_are_asked_for() -> None:
    """A leader that is removed stops leading, which no leader of Figure 2 does."""
    bounds = Bounds(servers=2, max_term=1, max_log=2, commands=2, extensions=("membership",))
    text = "any(s[i].role == 'follower' and s.past.leaders[1] == i for i in servers)"
    answers = [ask(bounds=bounds, engine=engine, find=text) for engine in ("python", "native")]
    assert [(code, len(data["path"])) for code, data in answers] == [(0, 14)] * 2


@pytest.mark.skipif(not available(), reason="llvmlite and numpy are not installed")
def test_an_expression_that_fails_is_refused_by_both() -> None:
    for engine in ("python", "native"):
        code, data = ask(bounds=Bounds(), engine=engine, find="s.n1.log[0].term == 1")
        assert (code, data["verdict"]) == (2, "unusable")
        assert "can't be evaluated" in data["error"]

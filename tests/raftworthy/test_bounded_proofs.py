"""Proofs at fixed sizes and bounded model checking: what they say, and that they can say otherwise."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from raftspec.claims import CONJUNCTS
from raftspec.extensions import having
from raftspec.invariant import conjuncts, lemmas, with_witnesses
from raftspec.mutants import MUTANTS
from raftspec.raft import LEADER, raft
from raftspec.rules import RULES
from raftspec.spec import Property, Spec
from raftworthy.cli import app
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.broken_steps import DisagreementError, Question, sizes, table, title
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore
from raftworthy.generated import World
from raftworthy.prove import inductive
from raftworthy.prove.counterexample import find
from raftworthy.prove.inductive import Answer, Induction
from raftworthy.prove.reach import reach
from raftworthy.prove.running import run_inductive

# --- the invariant --------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(servers=2, crashes=1, max_messages=7),
        Bounds(max_messages=7),
        Bounds(servers=2, max_log=2, max_messages=7),
    ],
    ids=str,
)
def test_every_reachable_state_satisfies_the_invariant(bounds: Bounds) -> None:
    result = explore(with_witnesses(), bounds, limit_states=3000)
    assert result.violation is None
    assert result.distinct > 300


def test_the_states_of_long_walks_satisfy_the_invariant() -> None:
    """Far beyond what can be exhausted; without a rule, a conjunct fails on the way."""

    def first_broken(without: tuple[str, ...], walks: int) -> str | None:
        model = Model(with_witnesses(), Bounds(max_term=4, max_log=3, entries=2, crashes=2), without)
        rng = random.Random(7)
        for _ in range(walks):
            s = model.generated.initial()
            for step in range(90):
                moves = list(model.moves(s))
                if not moves:
                    break
                s = rng.choices(moves, [0.04 if m.action in ("restart", "timeout") else 1 for m in moves])[
                    0
                ].world
                if step % 6 == 0:
                    for name in CONJUNCTS:
                        if not model.claim(name)(s):
                            return name
        return None

    assert first_broken((), 4) is None
    assert first_broken(("append.truncate_only_conflict",), 30) is not None


def ends(bounds: Bounds, seed: int, walks: int, steps: int, rare: tuple[str, ...] = ()) -> Iterator[World]:
    """Where random walks end; on the way every claim holds."""
    spec, rng = having(*bounds.extensions), random.Random(seed)
    model, rare = Model(with_witnesses(spec), bounds), ("restart", "timeout", *rare)
    for _ in range(walks):
        s = model.generated.initial()
        for step in range(steps):
            moves = list(model.moves(s))
            if not moves:
                break
            s = rng.choices(moves, [0.1 if m.action in rare else 1 for m in moves])[0].world
            if step % 9 == 0:
                for name in (*conjuncts(spec), *lemmas(spec)):
                    assert model.claim(name)(s), f"{name}, seed {seed}"
        yield s


def test_with_membership_so_do_the_states_of_a_walk() -> None:
    bounds = Bounds(max_term=4, max_log=4, commands=5, entries=2, extensions=("membership",), changes=4)
    assert sum(s.past.changes for s in ends(bounds, 7, walks=3, steps=70)) > 2


def test_with_sessions_and_snapshots_so_do_those_of_walks_where_requests_are_tried_again() -> None:
    extensions = ("sessions", "snapshots")
    bounds = Bounds(
        servers=2, max_term=2, max_log=3, entries=3, crashes=2, snapshots=2, requests=2, extensions=extensions
    )
    past = [s.past for s in ends(bounds, 0, 2, 60, ("client_request", "expire_sessions"))]
    assert any(n != k > 0 for p in past for n, k in p.answers.items())
    assert any(p.snapshots for p in past)


def test_a_property_with_parameters_is_explored_for_all_their_values() -> None:
    spec = Spec(raft.server, raft.history, raft.rules, dict(raft.actions), {})

    def nobody_leads(s: Any, i: str) -> bool:
        """Nobody leads."""
        return s[i].role != LEADER  # type: ignore[no-any-return]

    nobody_leads.__annotations__["i"] = "Server"
    spec.properties["nobody_leads"] = Property(
        "nobody_leads", nobody_leads, 1, dict(raft.actions["become_leader"].params)
    )
    found = explore(spec, Bounds(max_log=0)).violation
    assert found is not None
    assert found.path.moves[-1].action == "become_leader"


# --- induction -------------------------------------------------------------------


def test_the_invariant_is_inductive() -> None:
    data, text, code = run_inductive(3, 2, 2)
    assert code == 0, text
    assert data["verdict"] == "inductive"
    assert not data["impossible_actions"]
    assert {a["verdict"] for a in data["answers"]} == {"kept"}
    assert "of any number and age" in text


# All of it takes 18 seconds.
@pytest.mark.parametrize("action", ["change_voters", "enter_joint", "become_leader"])
def test_with_membership_it_is_inductive_for_two_servers(action: str) -> None:
    induction = Induction(sizes(2, 2, 2, ("membership",)))
    claims = [n for n in induction.conjuncts if n[0] in "vp"]
    answers = induction.check(actions=[action], claims=claims)
    assert {a.verdict for a in answers} == {"kept"}
    assert len(answers) > 5


def test_a_map_by_commands_is_the_same_in_z3_and_back() -> None:
    shapes = Induction(sizes(2, 1, 2, ("membership",))).machine.shapes
    voters = having("membership").history.types()["voters"]
    value = {"c2": frozenset(shapes.servers[:1])}
    assert shapes.decode(voters, shapes.encode(voters, value)) == value


# What fails first without a rule: as in the unbounded proof.
BREAKS = {
    "vote.up_to_date": ("handle_request_vote", "c3"),
    "commit.current_term": ("advance_commit_index", "d1"),
    "restart.keep_vote": ("restart", "a2"),
    "election.majority": ("become_leader", "b1"),
    "append.previous_entry": ("handle_append_entries", "g3"),
    "append.truncate_only_conflict": ("handle_append_entries", "k2"),
    "R08": ("handle_append_entries", "k7"),
    "R11": ("handle_request_vote", "c1"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_missing_is_shown_by_a_small_state_that_python_confirms(name: str) -> None:
    action, conjunct = BREAKS[name]
    mutant = MUTANTS.get(name)
    induction = Induction(sizes(3, 2, 2), () if mutant else (name,), mutant)
    (claim,) = (c for c in CONJUNCTS if c.startswith(conjunct + "_"))
    answers = induction.check(first=True, actions=[action])
    broken = [a.question for a in answers if a.verdict == "broken"]
    assert broken == [Question(action, claim)]
    found = find(broken[0], induction)  # raises if Python doesn't confirm it
    assert sum(len(v.log) for v in found.before.variables.values()) <= 3
    text = table(found)
    assert f"broken: {conjunct.upper()} " in text
    assert f"step:   {action}" in text


def test_without_a_conjunct_the_others_are_not_inductive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states that are asked about are arbitrary: what keeps leaders' logs complete is needed."""
    fewer = {n: p for n, p in CONJUNCTS.items() if not n.startswith("c3_")}
    monkeypatch.setattr(inductive, "conjuncts", lambda spec: fewer)
    answers = Induction(sizes(3, 3, 1)).check(first=True, actions=["become_leader"])
    assert answers[-1].verdict == "broken"
    assert answers[-1].question.claim.startswith("c2_")


def test_policy_is_not_needed() -> None:
    policy = [
        name for name, rule in RULES.items() if rule.kind == "policy" and name != "replicate.commit_index"
    ]
    answers = Induction(sizes(2, 2, 1), policy).check()
    assert {a.verdict for a in answers} == {"kept"}


def test_what_python_denies_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counterexample is only as good as the back end that found it."""
    induction = Induction(sizes(3, 2, 1), ["restart.keep_vote"])
    monkeypatch.setattr(Model, "take", lambda *a: None)
    (claim,) = (c for c in CONJUNCTS if c.startswith("a2_"))
    with pytest.raises(DisagreementError, match="Python doesn't take restart"):
        find(Question("restart", claim), induction)


def test_undecided_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(self: Induction, question: Question, seconds: float | None = None) -> Answer:
        return Answer(question, "undecided", 0.0)

    monkeypatch.setattr(Induction, "answer", undecided)
    data, text, code = run_inductive(3, 1, 1)
    assert (data["verdict"], code) == ("undecided", 2)
    assert "inductive: every" not in text


def test_it_is_said_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        app(
            [
                "prove",
                "inductive",
                "--max-term",
                "2",
                "--max-log",
                "1",
                "--without",
                "election.majority",
                "--json",
            ]
        )
    assert done.value.code == 1
    data = json.loads(capsys.readouterr().out)
    assert data["counterexample"]["claim"] == "b1_leaders_have_a_quorum"
    assert data["counterexample"]["step"]["action"] == "become_leader"


# --- bounded model checking ----------------------------------------------------------


def test_a_forgotten_vote_elects_two_leaders() -> None:
    found = reach(
        Bounds(max_log=0, crashes=1), 9, without=["restart.keep_vote"], properties=["election_safety"]
    )
    assert found.completed == 8
    assert found.violation is not None
    assert len(found.violation.path) == 9


@pytest.mark.parametrize("rule", ["vote.once_per_term", "vote.count_granted", "election.majority"])
def test_a_shortest_violation_is_as_short_as_the_explorers(rule: str) -> None:
    bounds = Bounds(max_log=0)
    expected = explore(raft, bounds, without=[rule]).violation
    found = reach(bounds, 12, without=[rule]).violation
    assert expected is not None
    assert found is not None
    assert len(found.path) == len(expected.path)


def test_no_violation_is_said_to_a_depth_only() -> None:
    found = reach(Bounds(max_term=1), 4)
    assert (found.violation, found.completed) == (None, 4)
    hurried = reach(Bounds(), 30, seconds=0.2)
    assert hurried.completed < 30
    assert "time is up" in hurried.stopped


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UnusableError, match="no property"):
        reach(Bounds(), 1, properties=["nothing"])
    with pytest.raises(UnusableError, match="messages"):
        reach(Bounds(max_messages=3), 1)
    with pytest.raises(UnusableError, match="no mutant"):
        run_inductive(3, 1, 1, mutant="X1")
    assert title("election_safety") == "election_safety"

"""Clients' sessions: requests are executed once, and all that reads the specification agrees on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

from raftd.addresses import format_addresses
from raftd.cluster import Cluster
from raftd.faults import BREAKS
from raftd.simulated_faults import Faults
from raftd.simulator import SIMULATED, Summary, server_names, simulate
from raftspec.extensions import EXTENSIONS, having
from raftworthy.cli import app
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.cases import EXTENSION_CASES, SESSIONS, Walk
from raftworthy.explore.export import write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.needless import EXTENSION_WAITS
from raftworthy.explore.paths import Path
from raftworthy.explore.reference import explore_model
from raftworthy.explore.why import why
from raftworthy.native import available
from raftworthy.replay.verdict import check

RULES = EXTENSIONS["sessions"].rules

# Without the rule, the first property to break and the length of the shortest path to it, beginning included.
EXPECTED = {
    "session.once": ("exactly_once", 9),
    "session.kept_response": ("responses_are_of_executions", 9),
    "session.not_forgotten": ("exactly_once", 11),
    "session.registered": ("exactly_once", 7),
    "session.expiry_from_log": ("replicas_answer_alike", 22),
}


def test_every_rule_is_accounted_for() -> None:
    assert RULES.keys() == EXPECTED.keys() | (RULES.keys() & EXTENSION_WAITS.keys())
    assert {r for r in RULES if RULES[r].kind == "safety"} == EXPECTED.keys()


@pytest.mark.parametrize("rule", EXPECTED)
def test_without_the_rule_something_breaks(rule: str) -> None:
    disaster = why(rule).disaster
    assert disaster is not None
    assert (disaster.property, len(disaster.path)) == EXPECTED[rule]
    assert EXTENSION_CASES[rule].explore(limit_states=500).violation is None


def test_a_response_can_be_forgotten_once_the_client_has_it() -> None:
    assert why("session.lowest_unanswered").waits is not None


@pytest.mark.skipif(not available(), reason="needs llvmlite")
def test_both_engines_count_the_same_states_with_sessions() -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    for bounds in (SESSIONS, replace(SESSIONS, servers=2, max_log=1)):
        model = Model(having("sessions"), bounds)
        by_python, native = explore_model(model), explore_native(model, permits=nothing("counted"))
        assert by_python.violation is None
        assert native.violation is None
        assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)


def test_a_follower_that_gets_a_snapshot_answers_as_its_leader_did() -> None:
    """What it had applied before is gone: the state is made again, also that of requests forgotten since."""
    both = replace(SESSIONS, servers=3, max_log=4, requests=2, extensions=("sessions", "snapshots"))
    model = Model(having(*both.extensions), both)
    w = Walk(model).elect("n1", "n2").appends("register_client", "n1", 1)
    w.appends("session_request", "n1", 1, 1, 1, 1).appends("session_request", "n1", 1, 2, 2, 1).ask("n1")
    for _ in range(4):
        w.send("n1", "n3")
    w.do("advance_commit_index", "n1", 4)
    for i, applied in (("n1", 4), ("n2", 3)):
        for n in range(1, applied + 1):
            if i == "n2":
                w.send("n1", "n2")
            w.do("apply_entries", i, n)
    w.do("take_snapshot", "n1", 4).do("install_snapshot", "n1", "n2", 4).receive(
        "install_snapshot", "n1", "n2"
    )
    alike = model.claim("replicas_answer_alike")
    for n in range(1, 5):
        before = w.path.world
        w.do("apply_entries", "n2", n)
        assert alike(before, w.path.world), n


def executed(s: Any) -> list[int]:
    """The entries that were executed."""
    return [n for n in range(1, s.past.applied + 1) if s.past.executions.get(n)]


def test_two_clients_are_explored_each_with_numbers_of_its_own() -> None:
    """Dissertation, section 6.3: both register, both ask, and each is answered for itself."""
    two = replace(SESSIONS, max_log=4, clients=2, commands=4)
    model = Model(having("sessions"), two)
    registered = Walk(model).elect("n1").appends("register_client", "n1", 1)
    both = explore_model(
        model,
        start=registered.appends("register_client", "n1", 1).path,
        find=lambda s: [s.past.client.get(s.past.committed[n - 1].value) for n in executed(s)] == [1, 2],
    )
    assert both.witness is not None
    asked = [m.params[2:4] for m in both.witness.moves if m.action == "session_request"]
    assert asked == [(1, 1), (2, 2)]
    assert explore_model(Model(having("sessions"), replace(two, max_log=2, commands=2))).violation is None
    with pytest.raises(UnusableError, match="clients is 0"):
        replace(two, clients=0)


# --- traces --------------------------------------------------------------------


@pytest.mark.parametrize("rule", EXPECTED)
def test_replay_sees_the_rule_broken_and_names_it(rule: str, tmp_path: FilePath) -> None:
    """The shortest trace with a step that the rule forbids violates the specification at its last line."""
    disaster = why(rule).disaster
    assert disaster is not None
    file = tmp_path / "broken.ndjson"
    write_trace(Path(disaster.path.start, disaster.path.moves[: disaster.prevented.step]), file)
    verdict = check([file])
    assert verdict.verdict == "violates"
    assert verdict.explanation is not None
    assert verdict.explanation.line == len(file.read_bytes().splitlines())
    assert rule == verdict.explanation.rule


def test_a_request_tried_again_conforms_if_it_gets_the_old_response(tmp_path: FilePath) -> None:
    model, begun = EXTENSION_CASES["session.not_forgotten"].begun(having("sessions"))
    walk = Walk(model)
    walk.path = begun
    for _ in range(2):
        walk.appends("session_request", "n1", 1, 1, 1, 1)
    walk.appends("session_request", "n1", 1, 2, 2, 1).do("advance_commit_index", "n1", 4)
    for n in range(1, 5):
        walk.do("apply_entries", "n1", n)
    file = tmp_path / "again.ndjson"
    write_trace(walk.path, file)
    assert check([file]).verdict == "conforms", check([file])
    text = file.read_text()
    assert '"client":1' in text
    for told, otherwise in (('"answer":2', '"answer":3'), ('"answer":4', '"answer":0')):
        file.write_text(text.replace(told, otherwise))
        assert check([file]).verdict == "violates"
    file.write_text(text.replace('"sequence":2', '"sequence":1'))
    assert check([file]).verdict == "unusable"  # as lowest is 2
    file.write_text(text.replace('"client":1,', ""))
    assert "no command means" in str(check([file]).error)


# --- the command line ------------------------------------------------------------


def test_a_put_is_executed_once_from_the_command_line(
    tmp_path: FilePath, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dissertation, section 6.3: also where another process tries it again."""

    def ask(*words: str, code: int = 0) -> dict[str, Any]:
        with pytest.raises(SystemExit) as end:
            app([*words, "--cluster", format_addresses(cluster.addresses), "--json"])
        assert end.value.code == code, words
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    with Cluster(1, tmp_path, options=("--with", "sessions")) as cluster:
        opened = ask("put", "colour", "green", "--session", "new")
        goes_on = ("--session", str(opened["session"]), "--number")
        assert opened["number"] == 1
        ask("put", "colour", "blue", *goes_on, "1")
        assert ask("get", "colour")["value"] == "green"
        ask("put", "colour", "blue", *goes_on, "2")
        ask("put", "colour", "red", *goes_on, "2")
        assert ask("get", "colour")["value"] == "blue"
        lost = ask("put", "colour", "red", "--session", "99", "--number", "1", code=2)
        assert "no such session" in lost["error"]
        assert "it may have been executed" in lost["error"]
        assert "needs --number" in ask("put", "a", "b", "--session", "1", code=2)["error"]
        assert "write new" in ask("put", "a", "b", "--session", "old", code=2)["error"]
        assert "--number goes with" in ask("put", "a", "b", "--number", "2", code=2)["error"]
    with Cluster(1, tmp_path / "without") as cluster:
        refused = ask("put", "colour", "green", "--session", "new", code=2)
        assert "start them with --with sessions" in refused["error"]


# --- simulated clusters ----------------------------------------------------------


def simulated(seed: int, file: FilePath, broken: str | None = None) -> Summary:
    config = replace(SIMULATED.having(["sessions"]), session_timeout=1.0)
    if broken and "snapshot" in broken:
        config = replace(config, snapshot_after=200)
    with file.open("wb") as out:
        return simulate(seed, steps=3000, out=out, config=config, clients=4, broken=broken)


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_try_again_are_served_once(seed: int, tmp_path: FilePath) -> None:
    """Also by another leader, and late; what they were told is linearizable."""
    file = tmp_path / f"{seed}.ndjson"
    simulated(seed, file)
    verdict = check([file])
    assert verdict.verdict == "conforms", verdict.explanation or verdict.error
    assert verdict.clients is not None
    assert verdict.clients.verdict == "linearizable"
    assert verdict.report is not None
    assert {"session.once", "session.registered"} <= set(verdict.report.exercised)


def test_a_request_that_is_tried_again_does_not_multiply(tmp_path: FilePath) -> None:
    """Nobody leads for long; each try may lead to one other, or soon there is nothing else."""
    config = replace(SIMULATED.having(["sessions"]), snapshot_after=400, session_timeout=0.5)
    file = tmp_path / "tried.ndjson"
    stormy = Faults(loss=0.1, crash=0.01, partition=0.01)
    with file.open("wb") as out:
        summary = simulate(4, server_names(3), 440, stormy, out, config=config, clients=3)
    assert summary.leaders > 3
    lengths = [json.loads(line).get("state", {}).get("log_length", 0) for line in file.open()]
    assert 20 < max(lengths) < 100


@pytest.mark.parametrize("rule", [rule for rule in BREAKS if rule.startswith("session.")])
def test_replay_finds_a_server_that_breaks_a_rule(rule: str, tmp_path: FilePath) -> None:
    """What it comes to may look like another rule of sessions left out, but not for each seed."""
    file = tmp_path / "broken.ndjson"
    shows_as = {"session.in_snapshot": "session.expiry_from_log"}  # some servers have it, others don't
    named = set()
    for seed in range(1, 10):
        simulated(seed, file, rule)
        if (verdict := check([file])).verdict != "conforms":
            assert verdict.explanation is not None
            named.add(verdict.explanation.rule)
            if named & {rule, "session.kept_response", shows_as.get(rule)}:
                return
    pytest.fail(f"no simulation up to seed {seed} shows that {rule} is broken, but {named}")

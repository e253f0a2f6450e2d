"""Membership changes: the two engines agree, and each rule of safety has its disaster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raftd.faults import BREAKS
from raftd.simulated_faults import Faults
from raftd.simulator import EXTENDED, SIMULATED, Summary, server_names, simulate
from raftspec.extensions import having
from raftspec.membership import membership
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import EXTENSION_CASES, Walk, committed
from raftworthy.explore.export import write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.needless import EXTENSION_NEEDLESS, EXTENSION_WAITS
from raftworthy.explore.reference import explore_model
from raftworthy.explore.why import why
from raftworthy.lockstep import lockstep
from raftworthy.lockstep import render as render_lockstep
from raftworthy.native import available
from raftworthy.replay.explain import render
from raftworthy.replay.verdict import check

MEMBERS = ("membership",)
VOTERS = ',"voters":["n1","n2","n3","n4"]'
CASES = {name: case for name, case in EXTENSION_CASES.items() if name.startswith("membership.")}

# The length of the shortest path to a leader that lacks what was committed, beginning included.
EXPECTED = {
    "membership.in_force_when_stored": 21,
    "membership.majority_of_both": 10,
    "membership.count_voters": 16,
    "membership.one_server": 15,
    "membership.one_at_a_time": 11,
    "membership.own_term_first": 24,
}


def test_every_rule_is_accounted_for() -> None:
    safety = {name for name, rule in membership.rules.items() if rule.kind == "safety"}
    assert safety == EXPECTED.keys() == CASES.keys()
    rest = {x for x in (*EXTENSION_NEEDLESS, *EXTENSION_WAITS) if x.startswith("membership.")}
    assert rest == membership.rules.keys() - safety


@pytest.mark.parametrize("rule", EXPECTED)
def test_without_a_rule_of_safety_a_leader_lacks_what_was_committed(rule: str) -> None:
    answer = why(rule)
    assert answer.disaster is not None
    assert answer.disaster.property == "leader_completeness"
    assert len(answer.disaster.path) == EXPECTED[rule]


def test_a_direct_switch_has_two_majorities_without_a_common_server() -> None:
    """Section 6: why the rule is there. What n1 commits alone, n2 and n3 know nothing of."""
    disaster = why("membership.one_server").disaster
    assert disaster is not None
    assert disaster.prevented.refused.startswith("at most one server is added or removed")
    last = disaster.path.world
    v = last.variables["n1"].log[-1].value
    assert last.past.voters[v] == {"n1"}
    assert {last.past.leaders[1], last.past.leaders[2]} == {"n1", "n2"}


def test_the_bug_of_2015_needs_a_change_of_an_older_term() -> None:
    disaster = why("membership.own_term_first").disaster
    assert disaster is not None
    assert disaster.prevented.refused.startswith("an entry of current_term is committed")
    assert disaster.path.world.variables["n1"].log[0].term == 1
    assert disaster.path.world.past.committed[0].term == 2


@pytest.mark.parametrize("rule", sorted(membership.rules.keys() - EXPECTED.keys()))
def test_nothing_goes_wrong_without_the_other_rules(rule: str) -> None:
    answer = why(rule)
    assert answer.waits or answer.explored
    assert answer.disaster is None


@pytest.mark.skipif(not available(), reason="needs llvmlite")
def test_both_engines_count_the_same_states() -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    bounds = Bounds(servers=2, max_term=1, max_log=2, commands=2, changes=2, extensions=MEMBERS)
    model = Model(having(*MEMBERS), bounds)
    by_python, native = explore_model(model), explore_native(model, permits=nothing("counted"))
    assert by_python.violation is None
    assert (by_python.distinct, by_python.states) == (native.distinct, native.states)


def test_a_configuration_goes_back_where_the_log_is_cut() -> None:
    """Dissertation, section 4.1: in force is the newest in the log, and that may be overwritten."""
    bounds = Bounds(commands=2, max_log=1, changes=1, extensions=MEMBERS)
    w = Walk(Model(having(*MEMBERS), bounds, {"membership.own_term_first"}))
    w = w.elect("n1", "n2").change("change_voters", "n1", "n1", "n2").do("timeout", "n3")
    assert w.path.world.variables["n1"].configured == 1
    w = w.elect("n3", "n2").ask("n3").receive("request_vote", "n3", "n1").send("n3", "n1")
    assert w.path.world.variables["n1"].configured == 0


def changed(without: frozenset[str] = frozenset()) -> Walk:
    """n1 has committed the removal of n3 with n2, and after it an entry with n2 alone."""
    bounds = Bounds(commands=4, max_log=4, changes=2, extensions=MEMBERS)
    w = committed(Walk(Model(having(*MEMBERS), bounds, without)))
    w = w.change("change_voters", "n1", "n1", "n2").send("n1", "n2").do("advance_commit_index", "n1", 2)
    return w.ask("n1").send("n1", "n2").do("advance_commit_index", "n1", 3)


def test_a_trace_with_a_change_is_replayed_with_the_quorums_in_force(tmp_path: Path) -> None:
    file = tmp_path / "changed.ndjson"
    write_trace(changed().path, file)
    assert '"voters":["n1","n2"]' in file.read_text()
    result = check([file])
    assert (result.verdict, result.error) == ("conforms", None)
    assert result.report is not None
    assert "membership.one_server" in result.report.exercised


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("membership.one_server", "at most one server is added or removed"),
        ("membership.own_term_first", "an entry of current_term is committed"),
        ("membership.one_at_a_time", "the last change is committed"),
    ],
)
def test_replay_names_the_rule_that_a_change_breaks(rule: str, said: str, tmp_path: Path) -> None:
    bounds = Bounds(commands=3, max_log=3, changes=2, extensions=MEMBERS)
    w = Walk(Model(having(*MEMBERS), bounds, {rule}))
    match rule:
        case "membership.one_server":
            w = committed(w).change("change_voters", "n1", "n1")
        case "membership.own_term_first":
            w = w.elect("n1", "n2").change("change_voters", "n1", "n1", "n2")
        case _:
            w = committed(w).change("change_voters", "n1", "n1", "n2").change("change_voters", "n1", "n1")
    file = tmp_path / "wrong.ndjson"
    write_trace(w.path, file)
    result = check([file])
    assert result.verdict == "violates"
    assert result.explanation is not None
    text = render(result.explanation)
    assert rule in text
    assert said in text


# --- raftd ---


def simulated(
    seed: int, file: Path, broken: str | None = None, faults: str = "all", snapshot_after: int = 0
) -> Summary:
    config = replace(EXTENDED if seed % 2 else SIMULATED, membership=True, snapshot_after=snapshot_after)
    with file.open("wb") as out:
        return simulate(seed, server_names(5), 1200, Faults.parse(faults), out, config=config, broken=broken)


@pytest.mark.parametrize("seed", range(8))
def test_simulated_clusters_that_change_conform(seed: int, tmp_path: Path) -> None:
    """Half of them with everything else that a server has beside Figure 2; some crash often."""
    file = tmp_path / f"{seed}.ndjson"
    simulated(seed, file, faults="crash=0.03,restart=0.01" if seed % 3 == 2 else "all")
    verdict = check([file])
    assert verdict.verdict == "conforms", verdict.explanation or verdict.error


def test_clusters_that_change_and_compact_what_they_changed_conform(tmp_path: Path) -> None:
    """Dissertation, section 4.1: a snapshot holds the configuration, also over a restart."""
    file = tmp_path / "compacted.ndjson"
    compacted = installed = 0
    for seed in range(10):
        faults = "crash=0.02,restart=0.02,loss=0.02,partition=0.005" if seed % 2 else "all"
        installed += simulated(seed, file, faults=faults, snapshot_after=(60, 300)[seed % 3 > 0]).installed
        verdict = check([file])
        assert verdict.verdict == "conforms", f"seed {seed}: {verdict.explanation or verdict.error}"
        events = (json.loads(line) for line in file.read_text().splitlines()[1:])
        starts = [e["state"] for e in events if e.get("event") == "restart"]
        compacted += sum(0 < state["configured"] <= state["snapshot_index"] for state in starts)
    assert compacted > 10
    assert installed > 10


@pytest.mark.parametrize("rule", [rule for rule in BREAKS if rule.startswith("membership.")])
def test_replay_finds_a_server_that_breaks_a_rule(rule: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.ndjson"
    for seed in range(2, 20):
        simulated(seed, file, rule, snapshot_after=200 if "snapshot" in rule else 0)
        if (verdict := check([file])).verdict != "conforms":
            assert verdict.verdict == "violates"
            return
    pytest.fail(f"no simulation up to seed {seed} shows that {rule} is broken")


LOCKED = Bounds(servers=2, max_term=1, max_log=2, commands=2, max_messages=4, extensions=MEMBERS)


def test_core_and_specification_agree_on_a_change() -> None:
    """Every configuration is asked for in every state of a leader, direct and joint."""
    result = lockstep(LOCKED)
    assert result.agrees, render_lockstep(result)
    assert result.agreed["change_voters"] > 100
    assert result.agreed["enter_joint"] > 100


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("membership.one_at_a_time", "membership.one_at_a_time"),
        ("membership.own_term_first", "membership.own_term_first"),
        ("membership.majority_of_both", "commit.majority"),
    ],
)
def test_a_core_that_changes_otherwise_differs(fault: str, rule: str) -> None:
    """The others take a third server, more messages or more time to show, and show in simulations."""
    result = lockstep(LOCKED, broken=fault)
    assert result.disagreement is not None
    assert result.disagreement.rule == rule


def test_a_trace_of_a_server_that_joined_later_names_it(tmp_path: Path) -> None:
    """The others' files, begun before, don't know it; who voted first, they say."""
    whole = tmp_path / "whole.ndjson"
    simulated(2, whole)
    header, *lines = whole.read_text().splitlines()
    assert '"voters":["n1","n2","n3","n4"]' in header
    files = []
    for i in server_names(5):
        file = tmp_path / f"{i}.ndjson"
        mine = [line for line in lines if line.startswith(f'{{"server":"{i}"')]
        known = header if i == "n5" else header.replace(',"n5"]', "]", 1).replace(VOTERS, "")
        file.write_text("\n".join([known, *mine, ""]))
        files.append(file)
    assert check(files).verdict == "conforms"
    files[0].write_text(files[0].read_text().replace('"n4"]', '"n4"],"voters":["n1"]', 1))
    assert "voters of the first configuration" in str(check(files).error)


def test_a_bound_on_changes_is_kept() -> None:
    none = replace(CASES["membership.majority_of_both"].bounds, changes=0, max_term=1)
    model = Model(having(*MEMBERS), none)
    found = explore_model(model, find=lambda s: bool(s.past.changes))
    assert found.witness is None

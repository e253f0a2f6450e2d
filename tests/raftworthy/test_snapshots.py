"""Snapshots in the specification: each rule is needed, or said why not, and both engines agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raftd.simulated_faults import Faults
from raftd.simulator import SIMULATED, Summary, server_names, simulate
from raftspec.extensions import having
from raftspec.snapshots import snapshots
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import COMPACTED, EXTENSION_CASES, WITH_SNAPSHOTS, Case
from raftworthy.explore.model import Model
from raftworthy.explore.needless import EXTENSION_NEEDLESS, EXTENSION_WAITS
from raftworthy.explore.reference import explore_model
from raftworthy.explore.why import why
from raftworthy.native import available
from raftworthy.replay.verdict import check

# What is violated first without each rule, and after how many steps, beginning included.
EXPECTED = {
    "snapshot.applied_only": ("compacted_is_committed", 4),
    "snapshot.last_term": ("leader_completeness", 22),
    "snapshot.send_kept": ("log_matching", 14),
    "snapshot.send_taken": ("state_machine_safety", 14),
    "snapshot.never_back": ("commit_never_falls", 21),
    "snapshot.keep_newer": ("match_index_is_true", 17),
    "snapshot.discard_conflict": ("log_matching", 30),
    "restart.keep_snapshot": ("committed_never_changes", 7),
}
SMALL = Bounds(max_messages=6, **WITH_SNAPSHOTS)


def test_every_rule_is_accounted_for() -> None:
    rest = snapshots.rules.keys() - EXPECTED.keys()
    assert rest == snapshots.rules.keys() & (EXTENSION_NEEDLESS.keys() | EXTENSION_WAITS.keys())
    assert {r for r, rule in snapshots.rules.items() if rule.kind == "safety"} == EXPECTED.keys()


@pytest.mark.parametrize("rule", EXPECTED)
def test_something_goes_wrong_without_a_rule_of_safety(rule: str) -> None:
    violation = EXTENSION_CASES[rule].explore(without={rule}).violation
    assert violation is not None
    assert (violation.property, len(violation.path)) == EXPECTED[rule]


@pytest.mark.parametrize("case", dict.fromkeys(EXTENSION_CASES[r] for r in EXPECTED), ids=str)
def test_nothing_goes_wrong_with_all_rules(case: Case) -> None:
    limited = case.explore(limit_states=300)
    assert limited.violation is None


@pytest.mark.parametrize("rule", sorted(snapshots.rules.keys() - EXPECTED.keys()))
def test_without_any_other_rule_only_progress_is_lost(rule: str) -> None:
    answer = why(rule)
    assert answer.disaster is None
    assert (answer.waits is not None) == (rule in EXTENSION_WAITS)


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize(
    "bounds", [SMALL, replace(SMALL, crashes=1, max_messages=4), replace(COMPACTED, max_messages=5)], ids=str
)
def test_both_engines_count_the_same_states(bounds: Bounds) -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    model = Model(having("snapshots"), bounds)
    by_python = explore_model(model)
    native = explore_native(model, permits=nothing("counted"))
    assert by_python.violation is None
    assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)


# --- traces ------------------------------------------------------------------


def recorded(path: Path, seed: int, **options: Any) -> Summary:
    with path.open("wb") as file:
        config = replace(SIMULATED, snapshot_after=(60, 200, 600)[seed % 3])
        return simulate(seed, server_names(3), 1500, out=file, config=config, **options)


def test_traces_with_snapshots_conform(tmp_path: Path) -> None:
    """Taken, sent, installed, and found on the disk after a crash in the middle of any step."""
    taken = installed = restarts = 0
    for seed in range(8):
        file = tmp_path / f"{seed}.ndjson"
        summary = recorded(file, seed)
        found = check([file])
        assert found.verdict == "conforms", f"seed {seed}: {found.error}"
        taken, installed = taken + summary.snapshots, installed + summary.installed
        restarts += summary.starts - 3
    assert taken > 100
    assert installed > 20
    assert restarts > 8


@pytest.mark.parametrize("extensions", [[], ["membership"]], ids=["", "membership"])
def test_snapshots_conform_though_nobody_logs_what_it_sends(extensions: list[str], tmp_path: Path) -> None:
    """What may have been sent is known from the leader's log, also of what it has compacted since."""
    file, installed = tmp_path / "unsent.ndjson", 0
    for seed in range(4):
        with file.open("wb") as out:
            config = replace(SIMULATED.having(extensions), snapshot_after=8)
            installed += simulate(seed, server_names(3), 300, out=out, config=config).installed
        events = [json.loads(line) for line in file.read_text().splitlines()]
        unsent = [{k: x for k, x in e.items() if k != "sends"} for e in events]
        file.write_text("".join(json.dumps(e) + "\n" for e in unsent))
        assert check([file]).verdict == "conforms", seed
    assert installed
    lie = next(e for e in unsent if e.get("event") == "handle_install_snapshot")
    lie["message"]["last_included_term"] += 1
    file.write_text("".join(json.dumps(e) + "\n" for e in unsent))
    assert check([file]).verdict == "violates"


def test_traces_with_snapshots_and_sessions_conform(tmp_path: Path) -> None:
    """A server that starts again has its table of sessions from its snapshot."""
    file = tmp_path / "sessions.ndjson"
    restarts = 0
    for seed in range(3):
        config = replace(SIMULATED.having(["sessions", "membership"][: 1 + seed % 2]), snapshot_after=200)
        stormy = Faults(loss=0.05, crash=0.02, restart=0.02)
        with file.open("wb") as out:
            simulate(seed, server_names(4), 1200, stormy, out, config=config)
        found = check([file])
        assert found.verdict == "conforms", f"seed {seed}: {found.error}"
        events = (json.loads(line) for line in file.read_text().splitlines()[1:])
        starts = [e["state"] for e in events if e["event"] == "restart"]
        restarts += sum(s["snapshot_index"] > 0 for s in starts)
    assert restarts > 5


def test_an_installed_snapshot_replaces_the_table_of_sessions(tmp_path: Path) -> None:
    """What its receiver had ended by itself was in there, too, and is open again before it ends again."""
    file = tmp_path / "replaced.ndjson"
    config = replace(SIMULATED.having(["sessions"]), snapshot_after=400, session_timeout=0.5)
    for seed in (2, 7, 11):
        with file.open("wb") as out:
            stormy = Faults(loss=0.1, crash=0.01, partition=0.01)
            summary = simulate(seed, server_names(3), 1200, stormy, out, config=config, clients=3)
        assert summary.installed
        found = check([file])
        assert found.verdict == "conforms", f"seed {seed}: {found.explanation or found.error}"


BROKEN = (
    "snapshot.applied_only", "snapshot.current_term", "snapshot.keep_newer",
    "snapshot.discard_conflict",
)  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN)
def test_replay_finds_a_server_that_breaks_a_rule_of_snapshots(rule: str, tmp_path: Path) -> None:
    stormy = Faults(loss=0.1, duplication=0.2, delay=0.1, reordering=0.2, partition=0.01, crash=0.01)
    file = tmp_path / "broken.ndjson"
    for seed in range(60):
        recorded(file, 3 * seed + 1, broken=rule, faults=stormy)
        if check([file]).verdict == "violates":
            return
    pytest.fail(f"no trace of 60 shows that {rule} is broken")


@pytest.mark.parametrize("seed", [1, 5])
def test_a_disk_that_lost_an_entry_is_blamed_and_not_who_waits_for_its_server(
    seed: int, tmp_path: Path
) -> None:
    """Others wait for what it sends after its start, and others again for them."""
    file = tmp_path / "lost.ndjson"
    config = SIMULATED.having(["membership", "pre_vote", "reads", "sessions"])
    with file.open("wb") as out:
        stormy = Faults(loss=0.05, crash=0.03, restart=0.01)
        config = replace(config, snapshot_after=300)
        simulate(seed, steps=400, faults=stormy, out=out, config=config, clients=3, broken="restart.keep_log")
    found = check([file])
    assert found.explanation is not None
    assert found.explanation.rule == "restart.keep_log"


def test_states_that_differ_show_a_machine_that_was_not_replaced(tmp_path: Path) -> None:
    """jgroups-raft#301. No trace has states, so it is the simulator that compares what servers save."""
    assert any(
        "another state" in (recorded(tmp_path / "x", seed, broken="snapshot.replace_state").violation or "")
        for seed in range(10)
    )


@pytest.mark.parametrize("name", ["last_included_index", "last_included_term", "snapshot_index"])
def test_a_lie_about_a_snapshot_is_found(name: str, tmp_path: Path) -> None:
    """Each number of a message received, and of an event that compacts."""
    file = tmp_path / "lie.ndjson"
    recorded(file, 1)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    lies = 0
    for k, event in enumerate(events):
        place = event.get("state", {}) if name == "snapshot_index" else event.get("message", {})
        if name not in place or event["event"] == "restart":
            continue
        said, place[name] = place[name], place[name] + 1
        file.write_text("".join(json.dumps(e) + "\n" for e in events[: k + 1]))
        assert check([file]).verdict == "violates", event
        place[name] = said
        lies += 1
        if lies == 5:
            return
    pytest.fail(f"{lies} events say {name}")

"""Real servers bear every fault, and a server that leaves out a rule does not get away with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftworthy.torture import torture


def test_right_servers_bear_it(tmp_path: Path) -> None:
    """Kills, freezing, partitions, disks, clocks; members that change, and snapshots."""
    result = torture(tmp_path, 8.0, seed=1)
    assert result.exit_code == 0, f"{result}\n{result.history}\n{result.traces}"
    assert sum(result.faults.values()) >= 5
    assert result.acknowledged > 50
    assert result.traces.report is not None
    assert result.traces.report.restarts > 3
    clients = result.traces.clients
    assert clients is not None
    assert clients.counts is not None
    assert clients.counts.entries >= result.acknowledged
    assert clients.verdict == "linearizable"
    assert result.sessions >= 6
    assert {*result.changes} - {"refused", "in doubt"}
    assert result.copies > 0
    assert {"session.not_forgotten", "session.kept_response"} <= {*result.traces.report.exercised}
    kinds = result.traces.report.kinds
    assert kinds["take_snapshot"]
    assert kinds["change_voters"]


@pytest.mark.parametrize("rule", ["commit.majority", "restart.keep_log"])
def test_servers_without_a_rule_are_found(tmp_path: Path, rule: str) -> None:
    result = torture(tmp_path, 6.0, seed=1, broken=rule)
    assert result.exit_code == 1, f"{result}\n{result.history}"
    assert result.traces.explanation is not None
    assert result.traces.explanation.rule == rule


def test_servers_that_execute_again_what_is_tried_again_are_found(tmp_path: Path) -> None:
    """As soon as somebody tries again what had been executed, which not every few seconds bring."""
    for seed in range(1, 9):
        result = torture(tmp_path / str(seed), 6.0, seed, broken="session.once")
        if result.exit_code == 1:
            if result.traces.explanation is not None:
                # Who executes again answers from that.
                assert result.traces.explanation.rule in ("session.once", "session.kept_response")
            else:  # Both times the answer was the same, and only what others read tells them apart.
                assert result.traces.clients is not None
                assert result.traces.clients.verdict == "not linearizable", f"{result}\n{result.history}"
            return
    pytest.fail(f"nothing was executed twice up to seed {seed}")


def test_what_was_done_is_data_for_machines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raftworthy", "torture", "--minutes", "0.03", "--seed", "2", "--json"]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "kept")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    data = json.loads(done.stdout)
    assert data["traces"]["verdict"] == "conforms"
    assert data["history"]["verdict"] == "linearizable"
    assert (tmp_path / "kept/history.ndjson").exists()
    again = subprocess.run(
        [*command, "--keep", str(tmp_path / "kept")], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 2
    assert "exists already" in again.stdout

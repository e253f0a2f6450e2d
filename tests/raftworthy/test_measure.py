"""What replay overlooks is measured in both forms of a trace, and what it finds, it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftworthy.measure import FORMS, measure_conformance, measure_detection


def quietly(done: int, of: int | None) -> None:
    """No progress is shown."""


def raftworthy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, run."""
    command = [sys.executable, "-m", "raftworthy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# Where less is logged, more changes leave a trace that is right, too: a heartbeat may tell another index.
NAMED = {"full": 0.9, "minimal": 0.8}


@pytest.mark.parametrize("form", FORMS)
def test_line_that_was_changed_by_hand_is_named(form: str) -> None:
    """A term, a vote, an index or a commit changed, in traces that conform before."""
    found = measure_detection(120, 1, form, None, quietly)
    assert found.first + found.because >= NAMED[form] * 120, str(found)
    assert sum(found.elsewhere.values()) <= 1, str(found)


def test_trace_that_is_wrong_already_is_not_measured() -> None:
    """Whatever is then changed, replay stops at what was wrong before."""
    wrong = Path(__file__).parents[2] / "traces/rules/commit.current_term.ndjson"
    with pytest.raises(ValueError, match="doesn't conform"):
        measure_detection(1, 1, "full", wrong, quietly)


def test_trace_that_tells_no_values_is_not_measured(tmp_path: Path) -> None:
    """There is nothing to change in it, however long one looks."""
    trace = tmp_path / "trace.ndjson"
    trace.write_text('{"raftworthy": 1, "servers": ["n1"]}\n{"server": "n1", "event": "timeout"}\n')
    with pytest.raises(ValueError, match="no event tells a term, a vote, an index or a commit"):
        measure_detection(1, 1, "full", trace, quietly)


def test_simulations_conform_in_the_minimal_form() -> None:
    """What isn't logged has to be found: replies, newer terms, commits."""
    found = measure_conformance(range(31, 33), 600, 3, "minimal", quietly)
    assert not found.does_not_conform, str(found)
    assert set(found.conforming.values()) == {2}
    assert len(found.conforming) > 12


def test_elections_are_timed_and_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "elections.svg"
    command = ["bench", "elections", "--ratios", "5,10", "--elections", "5", "--steps", "300"]
    done = raftworthy(*command, "--plot", str(plot))
    assert done.returncode == 0
    assert "T / broadcast time" in done.stdout
    assert "asynchronous" in done.stdout
    assert plot.read_text().startswith("<?xml")
    assert raftworthy(*command, "--plot", str(tmp_path / "x.nothing")).returncode == 2
    assert raftworthy("bench", "elections", "--ratios", "0").returncode == 2


def test_a_cluster_is_measured_with_and_without_its_trace() -> None:
    done = raftworthy("bench", "server", "--clients", "1,4", "--seconds", "0.3", "--rounds", "1", "--json")
    assert done.returncode == 0
    loads = json.loads(done.stdout)["loads"]
    assert [(load["system"], load["clients"]) for load in loads] == [
        ("raftd", 1),
        ("raftd", 4),
        ("raftd with its trace", 1),
        ("raftd with its trace", 4),
    ]
    assert all(load["puts"] > 0 and 0 < load["p50"] <= load["p99"] for load in loads)
    assert raftworthy("bench", "server", "--clients", "0").returncode == 2

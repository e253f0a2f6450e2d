"""A campaign of simulations conforms, is told apart from one that does not, and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftd.lying import FIELDS
from raftd.simulated_faults import FAULT_NAMES
from raftspec.extensions import EXTENSIONS
from raftworthy.campaign import EXTENDED, ResultsError, campaign, weather
from raftworthy.measure_byzantine import measure_byzantine
from raftworthy.replay.verdict import check


def raftworthy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raftworthy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_seed_has_a_weather_of_its_own_and_together_they_have_all() -> None:
    drawn = [weather(seed) for seed in range(1, 200)]
    assert len({str(faults) for *_, faults, _ in drawn}) > 190
    for name in FAULT_NAMES:
        with_it = sum(getattr(faults, name) > 0 for *_, faults, _ in drawn)
        assert 100 < with_it < 190 or (name == "corruption" and with_it == 0)
    assert {servers for servers, *_ in drawn} == {1, 2, 3, 4, 5, 7}
    assert {w.clients for w in drawn} == {0, 2, 6}
    extended = {name for w in drawn for name in w.config.extensions}
    assert extended == EXTENDED.keys() & EXTENSIONS.keys()


def test_right_servers_conform_in_all_weathers() -> None:
    found = campaign(range(1, 25), 500, None, None)
    assert not found.wrong, found.wrong
    assert found.conforming == 24


@pytest.mark.parametrize("seed", [143, 369, 1595, 2923, 4103, 5563, 6978])
def test_what_right_servers_do_is_no_false_alarm_any_more(seed: int) -> None:
    """A leader asks who joined within a round; a refused message commits nothing; the only voter's last step
    is lost, with what it committed in it; a leader that was removed sent what reached a disk; a step is lost
    that came after one which isn't logged; a leader starts again, and only a follower says what it committed.
    """
    assert not (found := campaign([seed], 1000, None, None)).wrong, found.wrong


def test_a_cluster_of_one_conforms_that_logs_the_least() -> None:
    """It wins in the step in which it stands, which are two events there."""
    alone = [seed for seed in range(1, 300) if weather(seed)[:2] == (1, "minimal")]
    assert len(alone) > 3
    assert not campaign(alone[:4], 300, None, None).wrong


def test_a_campaign_goes_on_where_it_stopped_and_splits(tmp_path: Path) -> None:
    whole = campaign(range(1, 9), 200, None, None)
    results = tmp_path / "results.ndjson"
    campaign(range(1, 4), 200, results, None)
    campaign(range(6, 9), 200, results, None, jobs=2)
    first = results.read_bytes()
    told: list[int] = []
    summed = campaign(range(1, 9), 200, results, None, progress=lambda done, of: told.append(done))
    assert results.read_bytes().startswith(first)
    assert told == [6, 7, 8]
    assert str(summed) == str(whole)
    with pytest.raises(ResultsError, match="a seed of 200 steps"):
        campaign(range(1, 9), 300, results, None)
    results.write_text("nothing")
    with pytest.raises(ResultsError, match=r"results\.ndjson:1: no result of a campaign"):
        campaign(range(1, 9), 200, results, None)


def test_servers_without_a_rule_are_found_and_the_seed_is_named(tmp_path: Path) -> None:
    command = ["campaign", "--seeds", "12", "--break", "restart.keep_vote", "--steps", "1000"]
    done = raftworthy(*command, "--keep", str(tmp_path / "kept"))
    assert done.returncode == 1
    again = next(line for line in done.stdout.splitlines() if "again: " in line).split("again: ")[1].split()
    seed = again[again.index("--first") + 1]
    assert check([tmp_path / "kept" / f"{seed}.ndjson"]).verdict == "violates"
    again[again.index("FOLDER")] = str(tmp_path / "again")
    repeated = raftworthy(*again[1:])
    assert repeated.returncode == 1
    assert (tmp_path / "again" / f"{seed}.ndjson").read_bytes() == (
        tmp_path / "kept" / f"{seed}.ndjson"
    ).read_bytes()


def test_a_changed_message_is_found_where_it_is_received() -> None:
    """Lecture: Byzantine failures. What is overlooked had been sent, too, or isn't in the trace."""
    found = measure_byzantine(3, 1, "full", lambda done, of: None)
    assert not found.wrong, found.wrong
    outcomes = {field: found.count(field) for field in FIELDS}
    assert sum(count["at its line"] for count in outcomes.values()) > 30
    for field in ("append_entries.term", "append_entries.prev_log_term", "request_vote_reply.granted"):
        received = sum(n for outcome, n in outcomes[field].items() if outcome is not None)
        assert outcomes[field]["at its line"] == received > 0
    assert set(outcomes["append_entries_reply.hint"]) <= {"unlogged", None}


def test_a_change_can_be_seen_again_by_its_command(tmp_path: Path) -> None:
    change = next(
        c
        for c in measure_byzantine(1, 2, "full", lambda done, of: None).changes
        if c.outcome == "at its line"
    )
    trace = str(tmp_path / "changed.ndjson")
    simulated, replayed = (part.replace("FILE", trace).split()[1:] for part in change.command.split(" && "))
    told = raftworthy(*simulated)
    line = told.stdout.split("received at line ")[1].split()[0]
    assert f"{trace}:{line}: error" in raftworthy(*replayed).stdout


def test_results_are_data_for_machines() -> None:
    done = raftworthy("campaign", "--seeds", "2", "--steps", "100", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["conforming"] == 2

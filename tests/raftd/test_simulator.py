"""The simulator repeats itself exactly, and right servers are safe in all of its weathers."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raftd
from raftd.core import Persistent
from raftd.faults import BREAKS, make_core
from raftd.lying import FIELDS, Lie, tell
from raftd.messages import Entry, RequestVoteReply
from raftd.simulated_faults import ALL_FAULTS, FAULT_NAMES, Faults
from raftd.simulator import EXTENDED, Simulation, SimulationError, server_names, simulate

THREE = server_names(3)
TOLERATED = set(FAULT_NAMES) - {"corruption"}


def trace_of(seed: int, steps: int = 2000, faults: Faults = ALL_FAULTS, **options: Any) -> bytes:
    out = io.BytesIO()
    simulate(seed, out=out, steps=steps, faults=faults, **options)
    return out.getvalue()


def events_of(trace: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in trace.splitlines()[1:]]


# Determinism.


def test_one_seed_gives_one_trace() -> None:
    assert trace_of(1) == trace_of(1)
    assert trace_of(1) != trace_of(2)


def test_trace_does_not_depend_on_the_hash_seed() -> None:
    """A set's order would."""
    program = (
        "import sys; from raftd.simulator import *;"
        "simulate(3, server_names(5), 2000, ALL_FAULTS, sys.stdout.buffer)"
    )
    root = str(Path(raftd.__file__).parents[1])
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(traces) == 1


def test_progress_is_told_and_changes_nothing() -> None:
    told: list[tuple[int, int]] = []
    trace = trace_of(1, steps=2500, progress=lambda done, steps: told.append((done, steps)))
    assert told == [(1000, 2500), (2000, 2500)]
    assert trace == trace_of(1, steps=2500)


# Safety and progress.


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 7),
    rates=st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(TOLERATED), st.floats(0, 0.2))),
)
def test_random_schedules_keep_safety(seed: int, count: int, rates: dict[str, float]) -> None:
    """Section 5.4.3: whatever the network and the clocks do. The simulation checks itself."""
    simulate(seed, server_names(count), 600, Faults(**rates))


def test_cluster_without_faults_elects_once_and_commits_everything() -> None:
    """Section 5.6: nothing keeps a majority from making progress."""
    summary = simulate(1, server_names(5), 5000, Faults())
    assert (summary.elections, summary.leaders, summary.terms, summary.starts) == (1, 1, 1, 5)
    assert summary.faults == Counter()
    assert summary.proposed - 20 < summary.committed <= summary.proposed + 1


def test_cluster_with_all_faults_still_gets_on() -> None:
    """Section 5.6: there is a majority often enough."""
    faults: Counter[str] = Counter()
    for seed in range(4):
        summary = simulate(seed, server_names(5), 10_000, config=EXTENDED)
        assert summary.leaders > 10
        assert summary.committed > 500
        faults += summary.faults
    assert {name for name in FAULT_NAMES if faults[name]} == TOLERATED - {"clock", "partition"}
    for shape in ("split", "isolated", "one-way", "bridge", "any"):
        assert faults[f"partition {shape}"]
    for point in ("before", "between", "unsent", "sending"):
        assert faults[f"crash {point}"]


@pytest.mark.parametrize("rule", ["election.majority", "vote.up_to_date", "append.truncate_only_conflict"])
def test_broken_cluster_is_reported_and_goes_on(rule: str) -> None:
    """Figure 3: the trace of what a broken server does is what the checker is tested with."""
    summaries = [simulate(seed, THREE, 4000, broken=rule) for seed in range(3)]
    assert all(summary.steps == 4000 for summary in summaries)
    violations = [summary.violation for summary in summaries if summary.violation]
    assert violations
    assert violations[0].startswith("seed ")


def test_changed_messages_are_received_as_nobody_sent_them() -> None:
    """Section 5.4.3: Byzantine faults are not tolerated; the trace shows them."""
    out = io.BytesIO()
    summary = simulate(1, THREE, 3000, Faults(corruption=0.01), out)
    sent: set[bytes] = set()
    changed = 0
    for event in events_of(out.getvalue()):
        changed += "message" in event and msgspec.json.encode(event["message"]) not in sent
        sent.update(msgspec.json.encode(m) for m in event["sends"])
    assert 0 < changed <= summary.faults["corruption"]


def test_one_field_of_one_message_is_changed_and_nothing_before_it() -> None:
    """What leads up to it is as without the lie, so that it can be looked at by itself."""
    true, lied = io.BytesIO(), io.BytesIO()
    simulate(3, THREE, 400, Faults(loss=0.1), true)
    summary = simulate(3, THREE, 400, Faults(loss=0.1), lied, lie=Lie("append_entries.leader_commit", 9))
    (told,) = summary.lies
    assert told.said != told.sent
    assert told.line is not None
    changed, same = told.line - 1, true.getvalue().splitlines()
    assert lied.getvalue().splitlines()[:changed] == same[:changed]
    assert lied.getvalue().splitlines()[changed] != same[changed]


CARRIED = simulate(1, THREE, 300, Faults()).carried


@pytest.mark.parametrize("field", [field for field in FIELDS if CARRIED[field.partition(".")[0]]])
def test_every_field_of_every_message_can_be_changed(field: str) -> None:
    told = [
        told for seed in range(4) for told in simulate(seed, THREE, 300, Faults(), lie=Lie(field, 1)).lies
    ]
    assert told, field
    assert {t.field for t in told} == {field}


def test_a_field_without_another_value_is_left_alone() -> None:
    """Of two servers none can stand for another."""
    vote = RequestVoteReply("n1", "n2", 1, granted=True)
    assert tell(vote, "request_vote_reply.source", ("n1", "n2"), random.Random(1)) is None
    told = tell(vote, "request_vote_reply.source", THREE, random.Random(1))
    assert told is not None
    assert told.said == RequestVoteReply("n3", "n2", 1, granted=True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "append_entries.nothing",
            "no message has a field 'append_entries.nothing': choose from request_vote",
        ),
        ("append_entries.term:0", "'0' does not count messages"),
        ("append_entries.term:x", "'x' does not count messages"),
    ],
)
def test_a_lie_about_nothing_is_refused(text: str, error: str) -> None:
    assert str(Lie.parse("append_entries.term:3")) == "append_entries.term:3"
    with pytest.raises(ValueError, match=error):
        Lie.parse(text)


def test_a_slow_disk_keeps_a_server_from_everything_and_loses_nothing_that_was_sent() -> None:
    """Figure 2: persisted before responding. What is not on disk yet has not been sent either."""
    summary = simulate(5, THREE, 4000, Faults(disk=0.2, restart=0.01))
    assert summary.faults["disk"] > 100
    assert summary.committed > 100


def test_who_leads_an_old_term_need_not_have_what_newer_ones_committed() -> None:
    """A vote that arrives late makes a leader whom nobody follows. This seed has one."""
    rates = {"loss": 0.3143, "duplication": 0.1874, "delay": 0.1005, "reordering": 0.1096, "clock": 0.5}
    rates |= {"partition": 0.0016, "crash": 0.0085, "restart": 0.0018, "pause": 0.0017, "disk": 0.0043}
    simulate(1283, THREE, 100, Faults(**rates))


def test_unexpected_violation_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure without its seed is lost."""
    monkeypatch.setattr("raftd.simulator.make_core", lambda *args: BREAKS["election.majority"](*args[:5]))
    with pytest.raises(SimulationError) as failure:
        simulate(7, THREE, 3000, Faults(loss=0.1, crash=0.01))
    assert str(failure.value).startswith("seed 7, step ")
    command = "raftworthy simulate --seed 7 --servers 3 --steps 3000 --faults loss=0.1,crash=0.01 --figure-2"
    assert str(failure.value).endswith(f"\nhelp: {command}")


def test_fault_of_an_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match="n9 is not a server"):
        simulate(1, broken={"n9": "vote.up_to_date"})
    with pytest.raises(ValueError, match=r"no fault is called 'vote\.twice'"):
        simulate(1, broken="vote.twice")


# The trace, as docs/traces.md promises it.


def test_trace_counts_lines_and_starts_of_each_server() -> None:
    trace = trace_of(1, steps=5000)
    assert trace.startswith(b'{"raftworthy":1,"servers":["n1","n2","n3"]}\n')
    seq, start = dict.fromkeys(THREE, 0), dict.fromkeys(THREE, 0)
    for event in events_of(trace):
        server = event["server"]
        if event["event"] == "restart":
            seq[server] = 0
            start[server] += 1
            assert event["start"] == start[server]
        seq[server] += 1
        assert event["seq"] == seq[server]
    assert all(count > 1 for count in start.values())


def test_nothing_is_received_that_no_trace_line_sent() -> None:
    """docs/traces.md: an event is written before any of its messages leave."""
    sent: set[bytes] = set()
    for event in events_of(trace_of(1, steps=5000)):
        if "message" in event:
            assert msgspec.json.encode(event["message"]) in sent
        sent.update(msgspec.json.encode(m) for m in event["sends"])


def test_restart_finds_the_last_state_or_one_step_more_or_less() -> None:
    """docs/traces.md, Crashes. Both orders of trace and disk occur, so both happen."""
    found: Counter[str] = Counter()
    for seed in range(10):
        before: dict[str, list[tuple[int, Any]]] = {name: [] for name in THREE}
        for event in events_of(trace_of(seed, steps=3000, faults=Faults(crash=0.03))):
            states = before[event["server"]]
            last = states[-1] if states else (0, None)
            state = event.get("state", {})
            now = (state.get("current_term", last[0]), state.get("voted_for", last[1]))
            if event["event"] == "restart" and states:
                if now == last:
                    found["the last"] += 1
                elif now == states[-2]:
                    found["one less"] += 1
                else:
                    assert now[0] >= last[0]
                    found["one more"] += 1
            states.append(now)
    assert found["the last"] > found["one less"] > 0 < found["one more"]


# Faults on the command line.


def test_faults_are_read_and_written() -> None:
    assert Faults.parse("none") == Faults()
    assert Faults.parse("all") == ALL_FAULTS
    some = Faults.parse("loss, crash=0.25")
    assert some == Faults(loss=ALL_FAULTS.loss, crash=0.25)
    for faults in (Faults(), ALL_FAULTS, some):
        assert Faults.parse(str(faults)) == faults


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no fault is called ''"),
        ("los", "no fault is called 'los': write none, all, or some of loss, duplication"),
        ("loss,all", "no fault is called 'all'"),
        ("loss=", "'' is no rate for loss"),
        ("loss=often", "'often' is no rate for loss"),
        ("loss=1", "'1' is no rate for loss: write a number from 0 to below 1, as loss=0.1"),
        ("loss=nan", "'nan' is no rate"),
        ("loss,loss=0.1", "loss stands twice"),
    ],
)
def test_wrong_faults_are_refused_with_what_to_write(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Faults.parse(text)


def test_a_leader_elected_late_need_not_have_what_a_newer_one_committed() -> None:
    """Figure 3, Leader Completeness, speaks of the leaders of higher terms than that of the commit."""
    world = Simulation(1, server_names(3), Faults())
    server = world.servers["n1"]
    entry = Entry(12, b"committed in term 12")
    world._applied, world._known_in = [entry], [12]
    for term, alarm in ((11, False), (13, True)):
        server.core = make_core("n1", server_names(3), random.Random(1), world.config, Persistent(term))
        if alarm:
            with pytest.raises(SimulationError, match="n1 leads term 13 without committed entry 1"):
                world._lead("n1")
        else:
            world._lead("n1")

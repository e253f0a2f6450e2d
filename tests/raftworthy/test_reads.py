"""Reads that are not in the log: what is explored, and what replay finds. Dissertation, section 6.4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raftd.simulated_faults import Faults
from raftd.simulator import SIMULATED, Summary, server_names, simulate
from raftspec.extensions import having
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.export import write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.linearize.checking import check as check_history
from raftworthy.linearize.reading import read_history
from raftworthy.native import available
from raftworthy.replay.verdict import Verdict, check

READS = having("reads")
LATE = Faults(duplication=0.6, delay=0.1, pause=0.03)
STORMY = Faults(loss=0.1, duplication=0.2, delay=0.1, reordering=0.2, partition=0.01, crash=0.01, clock=0.3)


def simulated(
    trace: Path,
    seed: int,
    faults: Faults = STORMY,
    broken: str | None = None,
    lease_drift: float | None = None,
    steps: int = 2500,
) -> Summary:
    config = replace(SIMULATED.having(["reads"]), lease_drift=lease_drift)
    with trace.open("wb") as file:
        return simulate(seed, server_names(3), steps, faults, file, broken=broken, config=config, clients=6)


# --- exploring ---------------------------------------------------------------


@pytest.mark.skipif(not available(), reason="needs llvmlite")
@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(servers=2, max_term=1, reads=2, extensions=("reads",)),
        Bounds(max_messages=6, extensions=("reads",)),
    ],
    ids=str,
)
def test_both_engines_count_the_same_states(bounds: Bounds) -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    model = Model(READS, bounds)
    by_python = explore_model(model)
    native = explore_native(model, permits=nothing("counted"))
    assert by_python.violation is None
    assert native.violation is None
    assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)


def test_the_bounds_say_how_many_rounds_there_are() -> None:
    told = str(Bounds(reads=2, extensions=("reads",)))
    assert "entries applied, 2 rounds of readers, with reads" in told
    assert "round" not in str(Bounds(reads=2))


# --- replay ------------------------------------------------------------------


def test_a_read_of_the_explorer_conforms_and_one_that_nobody_confirmed_does_not(tmp_path: Path) -> None:
    model = Model(READS, Bounds(servers=2, max_term=1, extensions=("reads",)))
    found = explore_model(model, find=lambda w: w.past.seen == 1)
    assert found.witness is not None
    actions = [m.action for m in found.witness.moves]
    assert actions[-4:] == ["begin_read", "handle_read_index", "handle_read_index_reply", "serve_read"]
    trace = tmp_path / "read.ndjson"
    write_trace(found.witness, trace)
    assert check([trace]).verdict == "conforms"
    lines = trace.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "handle_read_index_reply" not in line]
    trace.write_text("".join(line.replace('"seq":', '"time":') for line in kept))
    verdict = check([trace])
    assert verdict.verdict == "violates"
    assert named(verdict) == "reads.majority"


@pytest.mark.parametrize("lease_drift", [None, 2.0])
def test_what_right_servers_read_conforms(lease_drift: float | None, tmp_path: Path) -> None:
    """Clocks run up to 1.3 / 0.7 times as fast as another here, which a lease for 2.0 bears."""
    trace = tmp_path / "right.ndjson"
    summary = simulated(trace, 4, lease_drift=lease_drift)
    assert summary.reads > 10
    verdict = check([trace])
    assert verdict.verdict == "conforms"
    assert verdict.clients is not None


def test_a_server_that_joins_meanwhile_may_be_asked(tmp_path: Path) -> None:
    """It has a part in the quorum that the round needs by then."""
    trace = tmp_path / "joined.ndjson"
    config = SIMULATED.having(["reads", "membership"])
    with trace.open("wb") as file:
        simulate(8, server_names(3), 400, Faults(loss=0.1, partition=0.01), file, config=config, clients=4)
    assert check([trace]).verdict == "conforms"
    lines = trace.read_text().splitlines(keepends=True)
    asked = next(n for n, line in enumerate(lines) if '"round":1}' in line and "begin_read" in line)
    lines[asked] = lines[asked].replace('"round":1}', '"round":2}')
    trace.write_text("".join(lines))
    assert check([trace]).verdict == "violates"


@pytest.mark.parametrize(
    ("rule", "seed", "faults"),
    [
        ("reads.leader_only", 1, STORMY),
        ("reads.own_term", 3, STORMY),
        ("reads.majority", 1, STORMY),
        ("reads.current_round", 1, STORMY),
        ("reads.ack_current_term", 22, LATE),
        ("reads.ask_current_term", 1, STORMY),
        ("reads.give_up", 3, STORMY),
    ],
)
def test_a_broken_rule_is_named(rule: str, seed: int, faults: Faults, tmp_path: Path) -> None:
    trace = tmp_path / "broken.ndjson"
    simulated(trace, seed, faults, broken=rule)
    assert named(check([trace])) == rule


def named(verdict: Verdict) -> str | None:
    """The rule that a violation names."""
    return verdict.explanation.rule if verdict.explanation else None


# --- leases: no trace of servers shows them, but what clients saw does -------


PARTED = Faults(partition=0.004)


def test_a_lease_that_outlives_its_promises_is_found_in_what_clients_saw(tmp_path: Path) -> None:
    """L04 of the known bugs: for a while two servers take themselves for the leader, and one reads."""
    trace = tmp_path / "overstayed.ndjson"
    summary = simulated(trace, 8, PARTED, broken="lease.ends", lease_drift=2.0, steps=3000)
    assert "entries have left, though" in str(summary.violation)
    verdict = check([trace])
    assert verdict.verdict == "violates"
    assert verdict.explanation is None, "the servers' own events conform"
    assert check_history(read_history([trace])).exit_code == 1


def test_a_lease_is_as_good_as_the_clocks(tmp_path: Path) -> None:
    """These run up to 1.6 / 0.4 times as fast as another, which a lease may be told or not."""
    crooked = replace(PARTED, clock=0.6)
    assert simulated(tmp_path / "1", 1, crooked, lease_drift=1.0, steps=3000).violation
    assert not simulated(tmp_path / "2", 1, crooked, lease_drift=4.0, steps=3000).violation

"""Each deliberate fault shows: some step of a broken server isn't what a right one would do.

A right server is put into the broken one's state and given the same input, throughout
a simulation. That the checker finds each fault in the trace is tested with the checker.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import raftd.simulator
from raftd.core import Batch, CannotChange, Config, Core, NotLeader, Persistent
from raftd.faults import BREAKS, make_core
from raftd.sessions import Sessions
from raftd.simulated_faults import Faults
from raftd.simulator import EXTENDED, SIMULATED, server_names, simulate

# What makes rare steps less rare: many elections, and late messages from the terms before.
STORMY = Faults(
    loss=0.1, duplication=0.2, delay=0.1, reordering=0.2, partition=0.01, crash=0.01, clock=0.3, transfer=0.2
)
EXTENSIONS = ("pre_vote.", "check_quorum.", "transfer.")

# Answers that come when their leader leads again.
LATE = Faults(duplication=0.6, delay=0.1, pause=0.03)


class DifferenceSeenError(Exception):
    """A broken server has done what a right one would not."""


def twin(core: Core) -> Core:
    """A right server in the same state, timers and random numbers included."""
    other = copy.copy(core)
    other.__class__ = Core
    held = (
        "log",
        "votes",
        "pre_votes",
        "next_index",
        "match_index",
        "_probing",
        "_heard",
        "_sending",
        "_rng",
    )
    for name in (*held, "_sending", "_configurations"):
        setattr(other, name, copy.copy(getattr(core, name)))
    if (table := core.session_table) is not None:
        right = other.session_table = Sessions(copy.deepcopy(table.machine), lambda: 0.0, table.timeout)
        right.sessions = copy.deepcopy(table.sessions)
        right.expired, right.clock = table.expired, table.clock
    return other


def lease(core: Core) -> tuple[float, float]:
    """Until when it may read by itself, and until when it votes for nobody: no batch says either."""
    return core._lease_until, core._promised_until


def watched(core: Core) -> Core:
    """A broken server that raises as soon as it does something else than a right one."""

    def compare(name: str) -> None:
        take: Callable[..., Batch] = getattr(core, name)

        def step(*args: Any) -> Batch:
            right = twin(core)
            try:
                expected: Batch | None = getattr(Core, name)(right, *args)
            except AssertionError as error:
                raise DifferenceSeenError(f"a right server stops: {error}") from error
            except CannotChange as error:
                take(*args)
                raise DifferenceSeenError(f"a right server refuses: {error}") from error
            except NotLeader:
                expected = None
            table = right.session_table
            if name == "take_snapshot" and table is not None and args[-1] != table.save():
                raise DifferenceSeenError("a right server saves something else")
            batch = take(*args)
            kept, table = core.session_table, right.session_table
            if kept is not None and table is not None and kept.sessions != table.sessions:
                raise DifferenceSeenError("a right server has other sessions")
            if batch != expected or core.deadline != right.deadline or lease(core) != lease(right):
                raise DifferenceSeenError(
                    f"{batch}, due at {core.deadline}\nis not\n{expected}, due at {right.deadline}"
                )
            return batch

        setattr(core, name, step)

    for name in INPUTS:
        compare(name)
    return core


INPUTS = (
    "start", "receive", "tick", "propose", "hand_over", "change", "begin_read", "serve_read", "take_snapshot",
)  # fmt: skip


@pytest.mark.parametrize("rule", BREAKS)
def test_broken_server_does_what_a_right_one_would_not(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry of BREAKS, in simulations that the command line can repeat."""
    monkeypatch.setattr(raftd.simulator, "make_core", lambda *args: watched(make_core(*args)))
    reads, leases = rule.startswith(("reads.", "lease.")), rule.startswith("lease.")
    config = EXTENDED if rule.startswith(EXTENSIONS) else SIMULATED.having(["reads"] if reads else ())
    config = replace(config, lease_drift=2.0 if leases else None)
    faults = LATE if rule == "reads.ack_current_term" else STORMY
    sessions = rule.startswith("session.")
    clients, steps = (6, 1500) if reads or sessions else (0, 1000)
    if sessions:
        config, faults = SIMULATED.having(["sessions"]), STORMY
        if rule != "session.kept_by_all":  # which takes leaders that go, and not sessions that end
            config, faults = replace(config, session_timeout=0.5), Faults(clock=0.3, loss=0.1)
    servers = server_names(3)
    if rule.startswith("membership."):
        few = rule == "membership.leader_without_vote"  # and soon only one votes
        config, servers = SIMULATED.having(["membership"]), server_names(3 if few else 5)
    if "snapshot" in rule:
        config = replace(config, snapshot_after=200)
    for seed in range(40):
        try:
            simulate(seed, servers, steps, faults, broken=rule, config=config, clients=clients)
        except DifferenceSeenError:
            return
    pytest.fail(f"no simulation shows that {rule} is broken")


def test_right_server_is_never_told_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above finds nothing where there is nothing."""
    monkeypatch.setattr(raftd.simulator, "make_core", lambda *args: watched(make_core(*args)))
    simulate(1, steps=2000, faults=STORMY, config=EXTENDED)
    simulate(1, steps=2000, faults=STORMY, config=replace(SIMULATED, snapshot_after=200))


def test_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no fault is called 'vote.twice'.*vote.once_per_term"):
        make_core("n1", ("n1",), random.Random(1), broken="vote.twice")


def test_unbroken_core_is_the_core_itself() -> None:
    """A fault can't slip into a server that wasn't asked for one."""
    core = make_core("n1", ("n1",), random.Random(1), Config(), Persistent())
    assert type(core) is Core


def test_core_knows_nothing_of_faults() -> None:
    """What is right must not depend on what can be made wrong: `faults` subclasses, the core never asks."""
    parts = [part for part in Core.__mro__ if part is not object]
    assert len(parts) > 1
    for part in parts:
        text = Path(inspect.getfile(part)).read_text().lower()
        assert "broken" not in text
        assert "fault" not in text.replace("default", "")


def test_fault_replaces_one_small_method() -> None:
    """A rule stands in one place, or one class could not break it."""
    for rule, broken in BREAKS.items():
        replaced = [name for name in vars(broken) if not name.startswith("__")]
        assert len(replaced) == 1, f"{rule} replaces {replaced}"
        assert broken.__doc__
        assert hasattr(Core, replaced[0])

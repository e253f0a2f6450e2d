"""A cluster of three workers on this machine finds what threads find, whoever dies on the way."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
if importlib.util.find_spec("ray") is None:  # it mustn't be imported yet
    pytest.skip("needs ray", allow_module_level=True)

from raftspec.properties import raft
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.means import Means, Workers
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Result
from raftworthy.explore.running import run_explore
from raftworthy.native import cluster, engine
from raftworthy.native.cluster import Cluster
from raftworthy.native.engine import NativeResult, explore_native

THREE = Workers(3)
SMALL = Bounds(max_messages=8)
LARGE = Bounds(max_messages=10)


def counts(result: Result) -> tuple[Any, ...]:
    return (result.stopped, result.states, result.distinct, result.depth)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One cluster for all tests: starting it takes seconds."""
    _, ours = cluster.start_ray(THREE)
    import ray

    assert ours
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def large() -> tuple[Any, ...]:
    """What a thread says of LARGE without symmetry."""
    return counts(explore_native(Model(raft, LARGE), symmetry=False))


def test_a_cluster_on_this_machine_is_reached_by_loopback_only() -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("bounds", "symmetry"), [(LARGE, False), (Bounds(max_messages=7, crashes=1), True)], ids=str
)
def test_a_cluster_counts_what_a_thread_counts(bounds: Bounds, symmetry: bool) -> None:
    model = Model(raft, bounds)
    found = explore_native(model, symmetry=symmetry, workers=THREE)
    assert counts(found) == counts(explore_native(model, symmetry=symmetry))
    assert found.threads == len(found.work) == 3
    assert all(w.bytes_sent > 0 for w in found.work)


def test_a_cluster_counts_what_a_thread_counts_with_reductions() -> None:
    pytest.importorskip("z3")
    from raftworthy.reduce.deriving import permits_for

    model = Model(raft, Bounds(max_log=0))
    permits = permits_for(model, model.properties())
    assert permits.clock
    found = explore_native(model, permits=permits, workers=THREE)
    assert counts(found) == counts(explore_native(model, permits=permits))
    assert found.exhausted


def test_a_counterexample_is_as_short_as_a_threads() -> None:
    """Its steps are written down by all workers; Python has taken it again."""
    model = Model(raft, Bounds(max_term=3, max_messages=9), ["commit.majority"])
    expected = explore_native(model, symmetry=False).violation
    found = explore_native(model, symmetry=False, workers=THREE).violation
    assert expected is not None
    assert found is not None
    assert len(found.path) == len(expected.path)


def test_states_that_never_arrive_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, large: tuple[Any, ...]
) -> None:
    """What the first worker found for others is lost on the way."""
    exchange = Cluster.exchange

    def losing(self: Cluster) -> Any:
        self._parcels[0] = [cluster.NO_ROWS] * 3
        return exchange(self)

    monkeypatch.setattr(Cluster, "exchange", losing)
    assert counts(explore_native(Model(raft, LARGE), symmetry=False, workers=THREE)) != large


# --- death -------------------------------------------------------------------


def killing(monkeypatch: pytest.MonkeyPatch, method: str, at: set[int]) -> list[int]:
    """Kill a worker by signal 9 just before these calls of a method; who was killed."""
    original: Callable[..., Any] = getattr(Cluster, method)
    killed: list[int] = []
    calls = 0

    def call(self: Cluster, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in at:
            killed.append(self.processes[calls % 3])
            os.kill(killed[-1], signal.SIGKILL)
        return original(self, *args)

    monkeypatch.setattr(Cluster, method, call)
    return killed


def test_whenever_a_worker_is_killed_the_counts_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, large: tuple[Any, ...]
) -> None:
    """In either half of a round, between levels, while a checkpoint is made, and with little memory."""
    at = {"expand": 10, "exchange": 16, "descend": 12, "save": 22, "keep": 26}
    killed = [killing(monkeypatch, method, {call}) for method, call in at.items()]
    found = explore_native(
        Model(raft, LARGE), symmetry=False, workers=THREE, limit_memory=6_000_000, disk=tmp_path,
        checkpoint_every=0.0,
    )  # fmt: skip
    assert [len(k) for k in killed] == [1] * len(at)
    assert found.replaced == len(at)
    assert counts(found) == large
    assert found.memory <= 6_000_000
    assert list(tmp_path.iterdir()) == []


def test_a_counterexample_is_found_again_if_who_knows_the_way_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(raft, Bounds(max_term=3, max_messages=9), ["commit.majority"])
    expected = explore_native(model, symmetry=False).violation
    killed = killing(monkeypatch, "step", {1})
    found = explore_native(model, symmetry=False, workers=THREE)
    assert killed
    assert expected is not None
    assert found.violation is not None
    assert len(found.violation.path) == len(expected.path)


def test_workers_that_die_again_and_again_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    killing(monkeypatch, "begin", set(range(100)))
    with pytest.raises(UnusableError, match="workers died 4 times since the last checkpoint"):
        explore_native(Model(raft, SMALL), workers=THREE)


def test_a_lost_disk_is_said_to_be_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker dies, and the files of its last checkpoint are gone."""
    killing(monkeypatch, "expand", {9})
    recover = Cluster.recover

    def losing(self: Cluster) -> None:
        for file in (tmp_path / "worker-0").iterdir():
            file.unlink()
        recover(self)

    monkeypatch.setattr(Cluster, "recover", losing)
    with pytest.raises(UnusableError, match=r"the checkpoint in .* is damaged: .*worker-0"):
        explore_native(Model(raft, LARGE), symmetry=False, workers=THREE, disk=tmp_path, checkpoint_every=0.0)


# --- interruptions -----------------------------------------------------------


def test_a_signal_leaves_a_checkpoint_of_all_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, large: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(engine, "PROGRESS_EVERY", 0.0)
    sent: list[int] = []

    def tell(p: Any) -> None:
        if not sent and p.distinct >= 30_000:
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    means: dict[str, Any] = {"symmetry": False, "disk": tmp_path, "workers": THREE}
    first: NativeResult = explore_native(Model(raft, LARGE), progress=tell, **means)
    assert first.stopped == f"interrupted; go on with: raftworthy explore --resume {tmp_path}"
    with pytest.raises(UnusableError, match="another number of threads: None, not 1"):
        explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path, resume=True)
    assert counts(explore_native(Model(raft, LARGE), resume=True, **means)) == large
    assert list(tmp_path.iterdir()) == []


# --- what cannot be ----------------------------------------------------------


def test_without_ray_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_explore(SMALL, engine="ray") == 2
    assert "pip install 'raftworthy[cluster]'" in capsys.readouterr().err


def test_a_checkpoint_keeps_the_question_whatever_becomes_of_it() -> None:
    """The command takes the question apart afterwards."""
    question: dict[str, Any] = {"bounds": {}, "threads": None}
    kept = Means(workers=THREE).keeping(question).asked
    question.clear()
    assert kept == {"bounds": {}, "threads": None}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnusableError, match=r"no cluster of Ray at 127\.0\.0\.1:1: .*give HOST:PORT"):
        explore_native(Model(raft, SMALL), workers=Workers(3, "127.0.0.1:1"))
    with pytest.raises(UnusableError, match="the engine native has no workers; add --engine ray"):
        run_explore_raising("native", Means(workers=THREE))
    with pytest.raises(UnusableError, match="workers is 0"):
        Means(workers=Workers(0)).options()
    with pytest.raises(UnusableError, match="leave out --threads"):
        Means(workers=THREE, threads=2).options()
    with pytest.raises(UnusableError, match="the least is 24M for 3 workers"):
        Means(workers=THREE, memory="20M").options()


def run_explore_raising(name: str, means: Means) -> None:
    from raftworthy.explore.cases import Case
    from raftworthy.explore.choosing import explore_with

    explore_with(Case(SMALL), name, text=None, find=None, limit_states=None, counts=None, means=means)

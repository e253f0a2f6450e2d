"""Measurements of the native engine that a person can repeat: speed, memory, time until it is ready."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from typing import Any

from raftspec.properties import raft
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.means import Workers
from raftworthy.explore.model import Model
from raftworthy.native.engine import NativeResult, explore_native
from raftworthy.reduce.deriving import permits_for


def _explored(r: NativeResult) -> dict[str, Any]:
    """What was explored, whoever did it, for machines."""
    names = ("symmetry", "stopped", "states", "distinct", "depth", "seconds")
    return {"bounds": r.bounds.as_data(), **{name: getattr(r, name) for name in names}}


@dataclass(frozen=True)
class ExploreSpeed:
    """What an exploration took: times in seconds, memory in bytes."""

    result: NativeResult
    traced: float
    peak_memory: int

    def as_data(self) -> dict[str, Any]:
        """The figures for machines."""
        r = self.result
        return {
            **_explored(r),
            "traced": self.traced,
            "compiled": r.prepared,
            "threads": r.threads,
            "cpu": r.cpu,
            "disk": r.disk,
            "memory": r.memory,
            "table_memory": r.table_memory,
            "peak_memory": self.peak_memory,
            "collision": r.collision,
        }

    def __str__(self) -> str:
        r = self.result
        alike = ", states that differ in servers' names taken for one" if r.symmetry else ""
        return (
            f"{r.bounds}{alike}\n"
            f"{r.distinct:,} distinct states of {r.states:,} successors, depth {r.depth}: {r.stopped}\n"
            f"{r.distinct / r.seconds:,.0f} distinct states and {r.states / r.seconds:,.0f} "
            f"successors a second, in {r.seconds:.1f} s; "
            f"{r.distinct / r.cpu:,.0f} distinct states a CPU second, {r.threads} threads\n"
            f"ready after {self.traced + r.prepared:.2f} s, of which compiling took {r.prepared:.2f}\n"
            f"memory at most {r.memory / 1e6:,.0f} MB, the process {self.peak_memory / 1e6:,.0f} MB: "
            f"{r.table_memory / r.distinct:.1f} bytes a state for fingerprints, "
            f"the rest for the two levels at hand; {r.disk / 1e6:,.0f} MB written to disk\n"
            f"two states had one fingerprint with a probability of {r.collision:.0e}"
        )


@dataclass(frozen=True)
class ClusterSpeed:
    """What an exploration by a cluster took of its workers; times in seconds."""

    result: NativeResult

    def as_data(self) -> dict[str, Any]:
        """The figures for machines."""
        r = self.result
        return {
            **_explored(r),
            "workers": [asdict(w) for w in r.work],
            "rate": self.rate,
            "bytes_a_state": self.bytes_a_state,
            "exchanging": self.exchanging,
            "waiting": self.waiting,
            "rounds": self.rounds,
        }

    @property
    def rate(self) -> float:
        """Distinct states of a worker in a second of its CPU time."""
        return self.result.distinct / sum(w.cpu for w in self.result.work)

    @property
    def bytes_a_state(self) -> float:
        """Bytes that workers send each other for each distinct state."""
        return sum(w.bytes_sent for w in self.result.work) / self.result.distinct

    @property
    def rounds(self) -> int:
        return max(w.rounds for w in self.result.work)

    @property
    def exchanging(self) -> float:
        """The share of its working time in which a worker takes up what others sent."""
        busy = sum(w.expanding + w.exchanging for w in self.result.work)
        return sum(w.exchanging for w in self.result.work) / busy

    @property
    def waiting(self) -> float:
        """The share of all time in which a worker has nothing to do: it waits for others, or for Ray."""
        busy = sum(w.expanding + w.exchanging for w in self.result.work)
        return 1 - busy / (self.result.seconds * len(self.result.work))

    def __str__(self) -> str:
        r = self.result
        return (
            f"{r.bounds}\n"
            f"{r.distinct:,} distinct states of {r.states:,} successors, depth {r.depth}: {r.stopped}\n"
            f"{len(r.work)} workers, {r.seconds:.1f} s: {r.distinct / r.seconds:,.0f} distinct a second\n"
            f"{self.rate:,.0f} distinct states a CPU second of a worker, {self.bytes_a_state:.0f} bytes sent "
            f"for each\n"
            f"{self.rounds} rounds; {self.exchanging:.0%} of the work is taking up what others sent, "
            f"and {self.waiting:.0%} of the time a worker waits"
        )


def measure_cluster(
    bounds: Bounds, workers: Workers, limit_states: int | None = None, symmetry: bool = True
) -> ClusterSpeed:
    """Explore by a cluster, and say what it took."""
    model = Model(raft, bounds)
    return ClusterSpeed(explore_native(model, symmetry=symmetry, limit_states=limit_states, workers=workers))


def measure_reduced(bounds: Bounds, any_policy: bool, threads: int = 1) -> dict[str, Any]:
    """Exhaust with reductions; what was left out, what it took, and what the proofs took beforehand."""
    model = Model(raft, bounds, any_policy=any_policy)
    permits = permits_for(model, model.properties())
    r = explore_native(model, permits=permits, threads=threads)
    return {
        "bounds": str(bounds),
        "any_policy": any_policy,
        "stopped": r.stopped,
        "distinct": r.distinct,
        "states": r.states,
        "depth": r.depth,
        "cpu": round(r.cpu, 1),
        "seconds": round(r.seconds, 1),
        "proof_cpu": round(permits.seconds, 1),
        "questions": permits.questions,
        "reductions": {"on": list(permits.names()), "off": dict(permits.off)},
    }


def measure_explore(
    bounds: Bounds, limit_states: int | None = None, symmetry: bool = True, threads: int = 1
) -> ExploreSpeed:
    """Explore, and say what it took: time, memory, and what a state takes of it."""
    began = time.perf_counter()
    model = Model(raft, bounds)
    traced = time.perf_counter() - began
    result = explore_native(model, symmetry=symmetry, limit_states=limit_states, threads=threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return ExploreSpeed(result, traced, peak)

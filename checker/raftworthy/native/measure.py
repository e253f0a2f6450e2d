"""Measurements of the native engine that a person can repeat: speed, memory, time until it is ready."""

from __future__ import annotations

import resource
import time

from raftspec.properties import raft
from raftworthy.explore.reference import Bounds, Model
from raftworthy.native.engine import explore_native


def measure_explore(bounds: Bounds, limit_states: int | None = None, symmetry: bool = True) -> str:
    """Explore, and say what it took: time, memory, and what a state takes of it."""
    began = time.perf_counter()
    model = Model(raft, bounds)
    traced = time.perf_counter() - began
    result = explore_native(model, symmetry=symmetry, limit_states=limit_states)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    alike = ", states that differ in servers' names taken for one" if symmetry else ""
    return (
        f"{bounds}{alike}\n"
        f"{result.distinct:,} distinct states of {result.states:,} successors, depth {result.depth}: "
        f"{result.stopped}\n"
        f"{result.distinct / result.seconds:,.0f} distinct states and {result.states / result.seconds:,.0f} "
        f"successors a second, in {result.seconds:.1f} s\n"
        f"ready after {traced + result.prepared:.2f} s, of which compiling took {result.prepared:.2f}\n"
        f"memory at most {result.memory / 1e6:,.0f} MB, the process {peak / 1e6:,.0f} MB: "
        f"{result.table_memory / result.distinct:.1f} bytes a state for fingerprints, 8 for its parent, "
        f"the rest for the two levels at hand\n"
        f"two states had one fingerprint with a probability of {result.collision:.0e}"
    )

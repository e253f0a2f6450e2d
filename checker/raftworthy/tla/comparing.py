"""TLC and the native engine on the same models, in one run: what each counted, and its CPU time."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from raftspec.properties import raft
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.model import Model
from raftworthy.tla.module import export
from raftworthy.tla.tlc import cpu_seconds, run_tlc

QUESTION = ("explore", "--no-symmetry", "--engine", "native", "--json")


class Row(NamedTuple):
    """A model, what both counted, and the least CPU seconds that each took, its start included."""

    bounds: Bounds
    distinct: int
    successors: int
    tlc: float
    ours: float

    @property
    def ratio(self) -> float:
        """How much more of a model is explored in a CPU second than by TLC."""
        return self.tlc / self.ours


def compare(
    jar: Path, models: Sequence[Bounds], times: int, progress: Callable[[int, int | None], None]
) -> list[Row]:
    """Explore each model with both, in turn, so many times.

    Raises:
        UnusableError: TLC can't be run, or the two don't count the same.
    """
    rows = []
    for k, bounds in enumerate(models):
        spent: list[tuple[float, float]] = []
        for again in range(times):
            progress(k * times + again, len(models) * times)
            with tempfile.TemporaryDirectory() as folder:
                theirs = run_tlc(jar, export(Model(raft, bounds)).write(Path(folder)))
                out, seconds = cpu_seconds(
                    [sys.executable, "-m", "raftworthy", *QUESTION, *bounds.options()], Path()
                )
            ours = json.loads(out)
            if ours["verdict"] != "holds within bounds" or theirs.violated:
                raise UnusableError(f"{bounds}: {theirs.violated or ours['verdict']}: nothing to compare")
            counts = (ours["states"] + 1, ours["distinct"])  # TLC counts the first state as a successor
            if counts != (theirs.states, theirs.distinct):
                raise UnusableError(
                    f"{bounds}: {counts[1]} distinct states of {counts[0]}, and TLC has {theirs.distinct} of "
                    f"{theirs.states}: one of the back ends is wrong"
                )
            spent.append((theirs.seconds, seconds))
        tlc, native = (min(column) for column in zip(*spent, strict=True))
        rows.append(Row(bounds, ours["distinct"], ours["states"], tlc, native))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| messages | distinct states | successors | TLC, CPU s | raftworthy, CPU s | TLC, states a CPU s "
        "| raftworthy, states a CPU s | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.bounds.max_messages} | {r.distinct:,} | {r.successors:,} | {r.tlc:.1f} | {r.ours:.2f} "
        f"| {r.distinct / r.tlc:,.0f} | {r.distinct / r.ours:,.0f} | {r.ratio:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)

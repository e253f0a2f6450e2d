"""Holes made into simulated traces, and how long it takes to explain what is left."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftd.simulator import Faults, server_names, simulate
from raftworthy.holes.verdict import complete
from raftworthy.measure import Progress, machine


def simulated(seed: int, steps: int, faults: str = "none", servers: int = 3) -> list[dict[str, Any]]:
    """The lines of a simulation's trace."""
    out = io.BytesIO()
    simulate(seed, server_names(servers), steps, Faults.parse(faults), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def with_holes(
    lines: Sequence[dict[str, Any]], rng: random.Random, share: float, lost: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The same trace without some servers, and with this share of the fields of the others left out.

    Fields are those of `state`, of messages received and sent, `sends` as a whole, and `entries`.
    """
    out = [dict(lines[0])]
    for event in lines[1:]:
        if event["server"] in lost:
            continue
        e = json.loads(json.dumps(event))
        for m in (e.get("message"), *(e.get("sends") or ())):
            for f in [f for f in m or () if f != "kind"]:
                if rng.random() < share:
                    del m[f]
        for f in [f for f in e.get("state", {}) if rng.random() < share]:
            del e["state"][f]
        if rng.random() < share:
            e.pop("sends", None)
        if e.get("entries") and e["event"] != "restart" and rng.random() < share:
            e["entries"] = None
        out.append(e)
    return out


def written(lines: Sequence[dict[str, Any]], path: Path) -> Path:
    """A trace file of these lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@dataclass(frozen=True)
class Filled:
    """What it took to complete one trace: CPU seconds."""

    holes: str
    lines: int
    verdict: str
    solving: float
    in_all: float
    supplied: int


@dataclass(frozen=True)
class Completing:
    """What it took to complete traces with holes."""

    rows: list[Filled]
    machine: str

    def __str__(self) -> str:
        text = [
            f"{r.lines:7,} lines, {r.holes:26} {r.verdict:10} {r.solving:6.2f} s solving, "
            f"{r.in_all:6.2f} s in all, {r.supplied:,} steps supplied"
            for r in self.rows
        ]
        return "\n".join(
            [*text, f"CPU seconds; in all: with reading, and replay of what was found ({self.machine})"]
        )


def measure_complete(seed: int, faults: str, progress: Progress) -> Completing:
    """Make holes into simulations of three sizes, and complete them."""
    cases = [(200, 0.3, False), (1_000, 0.3, False), (10_000, 0.0, True)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (steps, share, lose) in enumerate(cases, 1):
            rng = random.Random(seed)
            lines = simulated(seed, steps, faults)
            lost = [rng.choice(lines[0]["servers"])] if lose else []
            path = written(with_holes(lines, rng, share, lost), Path(folder) / "holes.ndjson")
            began = time.process_time()
            done = complete([path])
            what = f"{lost[0]}'s lines lost" if lost else f"{share:.0%} of fields hidden"
            rows.append(
                Filled(
                    what, done.lines, done.verdict, done.solving, time.process_time() - began, done.supplied
                )
            )
            progress(number, len(cases))
    return Completing(rows, machine())

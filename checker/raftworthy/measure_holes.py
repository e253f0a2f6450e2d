"""Holes made into simulated traces, and how long it takes to explain what is left."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from raftd.simulated_faults import Faults
from raftd.simulator import SIMULATED, server_names, simulate
from raftd.state import Config
from raftworthy.holes.verdict import complete
from raftworthy.measure import Progress, machine

CLIENTS = 3
SNAPSHOT_AFTER = 200  # bytes, some twelve entries


def having(extensions: Collection[str]) -> Config:
    """Simulated servers that have these extensions."""
    config = SIMULATED.having(set(extensions) - {"snapshots"})
    return replace(config, snapshot_after=SNAPSHOT_AFTER if "snapshots" in extensions else 0)


def simulated(
    seed: int, steps: int, faults: str = "none", servers: int = 3, config: Config = SIMULATED
) -> list[dict[str, Any]]:
    """The lines of a simulation's trace, of the servers alone. Where they keep sessions, clients use them."""
    out, clients = io.BytesIO(), CLIENTS if config.sessions else 0
    simulate(seed, server_names(servers), steps, Faults.parse(faults), out, config=config, clients=clients)
    header, *events = (json.loads(line) for line in out.getvalue().splitlines())
    return [header, *(e for e in events if "server" in e)]


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
class Setting:
    """What is done to simulations before they are completed."""

    events: int
    hidden: float  # which share of the fields is left out
    lost: str = ""  # which server's lines are lost: "any", "leader" or "follower"
    faults: str = "none"

    def __str__(self) -> str:
        holes = [f"{self.hidden:.0%} hidden"] if self.hidden else []
        holes += (
            [f"{self.lost} server lost" if self.lost == "any" else f"{self.lost} lost"] if self.lost else []
        )
        faults = {"none": "no faults", "all": "every fault"}.get(self.faults, self.faults)
        return f"{self.events:,} events, {', '.join(holes)}, {faults}"


# Many seeds of each, and how many are explained.
MANY = (
    Setting(200, 0.1), Setting(200, 0.3), Setting(1_000, 0.3),
    Setting(200, 0.1, faults="all"), Setting(200, 0.3, faults="all"),
    Setting(400, 0, "any"), Setting(400, 0, "any", "all"),
    Setting(200, 0.1, "any"), Setting(200, 0.1, "any", "all"),
)  # fmt: skip
# Long histories, of one election without faults.
LONG = (
    Setting(10_000, 0, "leader"), Setting(10_000, 0, "follower"),
    Setting(10_000, 0, "leader", "crash"), Setting(10_000, 0, "follower", "crash"),
)  # fmt: skip


@dataclass(frozen=True)
class Filled:
    """What came of one setting: how many seeds with which verdict, and CPU seconds."""

    setting: str
    explained: int
    refuted: int  # always wrong, as it happened
    undecided: int
    middle: float  # CPU seconds, with reading, and replay of what was found
    longest: float
    not_explained: list[int]  # their seeds


@dataclass(frozen=True)
class Completing:
    """What came of completing traces with holes."""

    rows: list[Filled]
    limit: int
    machine: str

    def __str__(self) -> str:
        text = [f"{'':44} explained refuted undecided   CPU s: middle  longest"]
        for r in self.rows:
            seeds = ", ".join(map(str, r.not_explained))
            text.append(
                f"{r.setting:44} {r.explained:9} {r.refuted:7} {r.undecided:9} {r.middle:15.2f} "
                f"{r.longest:8.2f}" + (f"  not: {seeds}" if seeds else "")
            )
        return "\n".join([*text, f"at most {self.limit:,} steps are tried ({self.machine})"])


def holes_in(setting: Setting, seed: int, config: Config = SIMULATED) -> list[dict[str, Any]]:
    """A simulation's trace with the holes of a setting."""
    rng = random.Random(seed)
    lines = simulated(seed, setting.events, setting.faults, config=config)
    led = Counter(e["server"] for e in lines[1:] if e["event"] in ("append_entries", "client_request"))
    leader = led.most_common(1)[0][0] if led else lines[0]["servers"][0]
    others = [i for i in lines[0]["servers"] if i != leader]
    lost = {"any": lines[0]["servers"], "leader": [leader], "follower": others}.get(setting.lost)
    return with_holes(lines, rng, setting.hidden, [rng.choice(lost)] if lost else [])


def measure_complete(
    settings: Sequence[Setting], seeds: Sequence[int], limit: int, config: Config, progress: Progress
) -> Completing:
    """Make holes into simulations, and complete them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for k, setting in enumerate(settings):
            took, verdicts = [], {}
            for n, seed in enumerate(seeds, 1):
                path = written(holes_in(setting, seed, config), Path(folder) / "holes.ndjson")
                began = time.process_time()
                verdicts[seed] = complete([path], limit).verdict
                took.append(time.process_time() - began)
                progress(k * len(seeds) + n, len(settings) * len(seeds))
            count = Counter(verdicts.values())
            bad = [seed for seed, verdict in verdicts.items() if verdict != "explained"]
            row = count["explained"], count["violates"], len(bad) - count["violates"]
            rows.append(Filled(str(setting), *row, median(took), max(took), bad))
    return Completing(rows, limit, machine())

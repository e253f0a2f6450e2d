"""Measurements that a person can repeat: replay's speed, its false alarms, and what it overlooks."""

from __future__ import annotations

import json
import platform
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raftd.simulator import FAULT_NAMES, Faults, server_names, simulate
from raftworthy.replay.reading import TraceFile
from raftworthy.replay.verdict import check

Progress = Callable[[int, int | None], None]


def machine() -> str:
    """What this runs on, for the line beside a figure."""
    cpu = platform.processor() or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text()
        cpu = next(
            line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    return f"{cpu}, Python {platform.python_version()}, one core"


def measure_replay(file: Path | None, events: int, servers: int, seed: int, progress: Progress) -> str:
    """Replay a trace, and only decode it, in turn; CPU seconds, the better of three runs each."""
    with tempfile.TemporaryDirectory() as folder:
        path = file or Path(folder) / "simulated.ndjson"
        if file is None:
            with path.open("wb") as out:
                simulate(seed, server_names(servers), events, out=out, progress=progress)
        size = path.stat().st_size
        decode, replayed, wall, number = [], [], [], 0
        for _ in range(3):
            start = time.process_time()
            number = sum(len(chunk) for _, chunk in TraceFile.open(path).events())
            decode.append(time.process_time() - start)
            start, began = time.process_time(), time.perf_counter()
            verdict = check([path])
            replayed.append(time.process_time() - start)
            wall.append(time.perf_counter() - began)
            assert verdict.verdict == "conforms", verdict.error or verdict.explanation
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{number:,} events, {size / 1e6:,.0f} MB, {size / number:.0f} bytes an event ({machine()})\n"
        f"replay, reading included: {number / min(replayed):,.0f} events a second of CPU, "
        f"{number / min(wall):,.0f} of wall clock\n"
        f"JSON decoding alone:      {number / min(decode):,.0f} events a second of CPU; "
        f"replay takes {min(replayed) / min(decode):.1f} times that\n"
        f"peak memory: {peak:,.0f} MB"
    )


def fault_mixes() -> list[str]:
    """No faults, each kind alone, and all together."""
    return ["none", *(name for name in FAULT_NAMES if name != "corruption"), "all"]


def measure_conformance(
    seeds: Sequence[int], steps: int, servers: int, progress: Progress
) -> tuple[str, int]:
    """Simulate and replay every seed under every fault mix."""
    mixes = fault_mixes()
    conforming, events, wrong = Counter[str](), 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.ndjson"
        for number, seed in enumerate(seeds):
            for mix in mixes:
                count = servers if seed % 2 else servers + 2
                with path.open("wb") as out:
                    simulate(seed, server_names(count), steps, Faults.parse(mix), out)
                verdict = check([path])
                if verdict.report is not None:
                    conforming[mix] += 1
                    events += verdict.report.events
                else:
                    wrong.append(
                        f"raftworthy simulate --seed {seed} --servers {count} --steps {steps} "
                        f"--faults {mix} --out FILE"
                    )
                progress(number * len(mixes) + len(mixes), len(seeds) * len(mixes))
    lines = [f"{sum(conforming.values()):,} of {len(seeds) * len(mixes):,} traces conform, {events:,} events"]
    lines += [f"  {mix:12} {conforming[mix]} of {len(seeds)}" for mix in mixes]
    lines += [f"does not conform: {command}" for command in wrong]
    return "\n".join(lines), 1 if wrong else 0


# Values that somebody might change by hand.
CHANGED = {
    "current_term", "term", "last_log_term", "prev_log_term",  # terms
    "voted_for", "granted", "role",  # votes
    "commit_index", "leader_commit", "last_applied",  # commits
    "log_length", "last_log_index", "prev_log_index", "match_index", "success",  # indexes
}  # fmt: skip


def changeable(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in an event a term, a vote, an index or a commit stands."""
    if not isinstance(value, dict):
        return
    for name, inside in value.items():
        at = (*path, name)
        if name == "match_index" and isinstance(inside, dict):
            yield from ((*at, server) for server in inside)
        elif name in CHANGED:
            yield at
        elif name in ("message", "state"):
            yield from changeable(inside, at)
        elif name == "sends":
            for number, message in enumerate(inside):
                yield from changeable(message, (*at, number))
        elif name == "entries":
            yield from ((*at, number, 0) for number in range(len(inside)))


def changed(name: Any, value: Any, servers: Sequence[str], rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if name == "voted_for":
        return rng.choice([s for s in (*servers, None) if s != value])
    if name == "role":
        return rng.choice([r for r in ("follower", "candidate", "leader") if r != value])
    return value + rng.choice([-1, 1]) if value else 1


def change_line(lines: list[bytes], rng: random.Random) -> tuple[int, tuple[Any, ...], bytes]:
    """One value of one event changed: the line's number, where in it, and the new line."""
    servers = json.loads(lines[0])["servers"]
    while True:
        number = rng.randrange(1, len(lines))
        event = json.loads(lines[number])
        paths = list(changeable(event))
        if not paths:
            continue
        path = rng.choice(paths)
        inside = event
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = changed(path[-1], inside[path[-1]], servers, rng)
        return number, path, json.dumps(event, separators=(",", ":")).encode()


def measure_detection(changes: int, seed: int, file: Path | None, progress: Progress) -> str:
    """Change one value of a conforming trace, replay, and see whether the message names the changed line."""
    rng = random.Random(seed)
    found, named, overlooked = 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "source.ndjson", Path(folder) / "changed.ndjson"
        for number in range(changes):
            if file is not None:
                lines = file.read_bytes().splitlines()
            elif number % 20 == 0:
                with source.open("wb") as out:
                    simulate(seed + number, server_names(3 + number // 20 % 2 * 2), 1000, out=out)
                lines = source.read_bytes().splitlines()
            line, where, text = change_line(lines, rng)
            path.write_bytes(b"\n".join([*lines[:line], text, *lines[line + 1 :], b""]))
            verdict = check([path])
            if verdict.explanation is not None:
                found += 1
                places = [
                    f"{path}:{verdict.explanation.line}",
                    *(c.place for c in verdict.explanation.causes),
                ]
                named += f"{path}:{line + 1}" in places
            else:
                overlooked[".".join(str(s) for s in where if not isinstance(s, int))] += 1
            progress(number + 1, changes)
    lines_out = [
        f"{changes} changes of one value: {found} found ({found / changes:.1%}), "
        f"{named} with a message that names the changed line ({named / changes:.1%})"
    ]
    lines_out += [f"  overlooked: {where} ({n})" for where, n in overlooked.most_common()]
    return "\n".join(lines_out)

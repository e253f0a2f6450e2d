"""Measurements that a person can repeat: replay's speed, its false alarms, and what it overlooks."""

from __future__ import annotations

import gc
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftd.simulated_faults import FAULT_NAMES, Faults
from raftd.simulator import server_names, simulate
from raftworthy.files import open_trace
from raftworthy.replay.explain import Explanation
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


@dataclass(frozen=True)
class ReplaySpeed:
    """What replaying one trace took, beside only decoding its JSON: times in seconds, sizes in bytes."""

    events: int
    size: int
    replay_cpu: float
    replay_wall: float
    decode_cpu: float
    peak_memory: int
    machine: str

    def __str__(self) -> str:
        return (
            f"{self.events:,} events, {self.size / 1e6:,.0f} MB, "
            f"{self.size / self.events:.0f} bytes an event ({self.machine})\n"
            f"replay, reading included: {self.events / self.replay_cpu:,.0f} events a second of CPU, "
            f"{self.events / self.replay_wall:,.0f} of wall clock\n"
            f"JSON decoding alone:      {self.events / self.decode_cpu:,.0f} events a second of CPU; "
            f"replay takes {self.replay_cpu / self.decode_cpu:.1f} times as long\n"
            f"peak memory: {self.peak_memory / 2**20:,.0f} MB"
        )


def measure_replay(file: Path | None, events: int, servers: int, seed: int) -> ReplaySpeed:
    """Replay a trace, and only decode it, in turn; the best of three runs each.

    Without a file, another process simulates one, so that its memory isn't counted.

    Raises:
        ValueError: the trace doesn't conform, so that only a part of it was replayed.
        Unusable: it can't be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = file or Path(folder) / "simulated.ndjson"
        if file is None:
            words = ["simulate", "--seed", seed, "--servers", servers, "--steps", events, "--out", path]
            command = [sys.executable, "-m", "raftworthy", *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        decode, replayed, wall, number = [], [], [], 0
        gc.disable()  # as replay does
        for _ in range(3):
            gc.collect()  # the replay before
            start = time.process_time()
            number = sum(len(chunk) for _, chunk in TraceFile.open(path).events())
            decode.append(time.process_time() - start)
            start, began = time.process_time(), time.perf_counter()
            verdict = check([path])
            replayed.append(time.process_time() - start)
            wall.append(time.perf_counter() - began)
            if verdict.verdict != "conforms":
                raise ValueError(f"{path}: {verdict.verdict}; only a trace that conforms is replayed whole")
        gc.enable()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return ReplaySpeed(
            number, path.stat().st_size, min(replayed), min(wall), min(decode), peak, machine()
        )


# The least that is useful, as docs/traces.md has it.
LEAST_EVENTS = (
    "restart", "timeout", "handle_request_vote", "become_leader", "client_request", "handle_append_entries",
)  # fmt: skip
LEAST_VARIABLES = ("current_term", "voted_for", "commit_index", "log_length")


def minimal(lines: Sequence[bytes]) -> list[bytes]:
    """A trace that logs everything, as a server writes it that logs the least that is useful."""
    known: dict[str, dict[str, Any]] = {server: {} for server in json.loads(lines[0])["servers"]}
    kept = [lines[0]]
    for line in lines[1:]:
        event = json.loads(line)
        if "server" not in event:  # what a client saw
            kept.append(line)
            continue
        state = event.get("state", {})
        variables = known[event["server"]]
        variables |= state
        name = event["event"]
        if name == "handle_request_vote_reply" and state.get("role") == "leader":
            name = "become_leader"
        if name in LEAST_EVENTS:
            told = {"server": event["server"], "event": name}
            told |= {field: event[field] for field in ("start", "entries", "after") if field in event}
            if name.startswith("handle_"):
                told["message"] = event["message"]
            told["state"] = {variable: variables[variable] for variable in LEAST_VARIABLES}
            if name == "timeout" and state.get("role") == "leader":  # a cluster of one: it wins at once
                told["state"]["role"] = "leader"
            kept.append(_packed(told))
    return kept


def _packed(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


FORMS: dict[str, Callable[[Sequence[bytes]], Sequence[bytes]]] = {"full": list, "minimal": minimal}


def fault_mixes() -> list[str]:
    """No faults, each kind alone, and all together."""
    return ["none", *(name for name in FAULT_NAMES if name != "corruption"), "all"]


@dataclass(frozen=True)
class Conformance:
    """How many simulated traces conform under each fault mix, and commands that repeat those that don't."""

    seeds: int
    events: int
    conforming: dict[str, int]
    does_not_conform: list[str]

    def __str__(self) -> str:
        of = self.seeds * len(self.conforming)
        lines = [f"{sum(self.conforming.values()):,} of {of:,} traces conform, {self.events:,} events"]
        lines += [f"  {mix:12} {number} of {self.seeds}" for mix, number in self.conforming.items()]
        return "\n".join([*lines, *(f"does not conform: {command}" for command in self.does_not_conform)])


def measure_conformance(
    seeds: Sequence[int], steps: int, servers: int, form: str, progress: Progress
) -> Conformance:
    """Simulate and replay every seed under every fault mix, in a form of the trace."""
    mixes = fault_mixes()
    conforming, events, wrong = dict.fromkeys(mixes, 0), 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.ndjson"
        for number, seed in enumerate(seeds):
            for mix in mixes:
                count = servers if seed % 2 else servers + 2
                with path.open("wb") as out:
                    simulate(seed, server_names(count), steps, Faults.parse(mix), out)
                if form != "full":
                    path.write_bytes(b"\n".join([*FORMS[form](path.read_bytes().splitlines()), b""]))
                verdict = check([path])
                if verdict.report is not None:
                    conforming[mix] += 1
                    events += verdict.report.events
                else:
                    wrong.append(
                        f"raftworthy simulate --seed {seed} --servers {count} --steps {steps} "
                        f"--faults {mix} --out FILE"
                        + (
                            f" (in the {form} form: raftworthy bench conformance --first {seed} --seeds 1 "
                            f"--steps {steps} --servers {servers} --form {form})"
                            if form != "full"
                            else ""
                        )
                    )
                progress(number * len(mixes) + len(mixes), len(seeds) * len(mixes))
    return Conformance(len(seeds), events, conforming, wrong)


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


def change_line(lines: Sequence[bytes], rng: random.Random) -> tuple[int, tuple[Any, ...], bytes]:
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


@dataclass(frozen=True)
class Detection:
    """What replay said of traces in which one value was changed; the last two count by what was changed."""

    changes: int
    form: str
    first: int  # the message's first line names the changed line
    because: int  # only a later one does
    elsewhere: dict[str, int]  # found, and the line not named
    overlooked: dict[str, int]

    def __str__(self) -> str:
        found, named = self.changes - sum(self.overlooked.values()), self.first + self.because
        lines = [
            f"{self.changes:,} changes of one value, in traces of the {self.form} form: {found:,} found "
            f"({found / self.changes:.1%}),",
            f"{named:,} with a message that names the changed line ({named / self.changes:.1%}):",
            f'  {self.first:,} as the wrong one, {self.because:,} only under "because"',
        ]
        lines += [f"  overlooked: {what} ({n})" for what, n in self.overlooked.items()]
        return "\n".join(
            [*lines, *(f"  named elsewhere: {what} ({n})" for what, n in self.elsewhere.items())]
        )


def measure_detection(changes: int, seed: int, form: str, file: Path | None, progress: Progress) -> Detection:
    """Change one value of a conforming trace, replay, and see whether the message names the changed line.

    Raises:
        ValueError: a trace that is to be changed doesn't conform, so what is found says nothing; or it has
            no value that could be changed.
    """
    rng = random.Random(seed)
    at_line, not_named = Counter[str](), {"elsewhere": Counter[str](), "overlooked": Counter[str]()}
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "source.ndjson", Path(folder) / "changed.ndjson"
        lines: Sequence[bytes] = ()
        for number in range(changes):
            if not lines or (file is None and number % 20 == 0):
                if file is None:
                    with source.open("wb") as out:
                        simulate(seed + number, server_names(3 + number // 20 % 2 * 2), 1000, out=out)
                with open_trace(file or source) as whole:
                    lines = FORMS[form](whole.read().splitlines())
                source.write_bytes(b"\n".join([*lines, b""]))
                if check([source]).verdict != "conforms":
                    raise ValueError(
                        f"{file or f'seed {seed + number}'}: the trace to be changed doesn't conform itself; "
                        "see what raftworthy replay says"
                    )
                if not any(any(changeable(json.loads(line))) for line in lines[1:]):
                    raise ValueError(f"{file}: no event tells a term, a vote, an index or a commit")
            line, where, text = change_line(lines, rng)
            path.write_bytes(b"\n".join([*lines[:line], text, *lines[line + 1 :], b""]))
            outcome = named(check([path]).explanation, line + 1)
            if outcome in not_named:
                not_named[outcome][".".join(str(s) for s in where if not isinstance(s, int))] += 1
            else:
                at_line[outcome] += 1
            progress(number + 1, changes)
    elsewhere, overlooked = (dict(not_named[how].most_common()) for how in ("elsewhere", "overlooked"))
    return Detection(changes, form, at_line["first"], at_line["because"], elsewhere, overlooked)


def named(x: Explanation | None, line: int) -> str:
    """Where an explanation names a line of its file."""
    if x is None:
        return "overlooked"
    if x.line == line:
        return "first"
    return "because" if f"{x.file}:{line}" in [c.place for c in x.causes] else "elsewhere"

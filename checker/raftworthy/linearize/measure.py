"""How long histories take: simulated ones, those of a folder, and beside them Porcupine on the same files.

Porcupine's benchmarks say how long it takes, and fail if its verdict isn't the one that stands in its tests;
so the verdicts are read there. Neither side's reading of files counts, both stop at the first key without
an order, and both have one core and are measured by the processor's time.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from raftworthy.files import VERSION, Unusable
from raftworthy.linearize.checking import check
from raftworthy.linearize.history import History
from raftworthy.linearize.reading import read_history
from raftworthy.linearize.search import Search
from raftworthy.linearize.simulate import simulate

SUFFIXES = (".log", ".txt", ".ndjson")
TIMES = 5  # each is measured so often, and the least is taken
MORE = 10  # and Porcupine's slower ones so often again, for the time of its process
SLOW = 5.0  # milliseconds; what takes less is hardly interrupted, so its own clock will do
STEPS = 10_000_000
SHOWN = 6  # of the histories that take longest

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Row:
    """One history: times in milliseconds."""

    name: str
    operations: int
    linearizable: bool | None
    here: float
    porcupine: float | None = None
    porcupine_says: bool | None = None

    @property
    def agree(self) -> bool:
        return self.porcupine_says is None or self.porcupine_says is self.linearizable


@dataclass(frozen=True)
class Comparison:
    """All histories of a folder."""

    rows: list[Row]
    unusable: list[str]
    machine: str

    @property
    def differ(self) -> list[str]:
        return [row.name for row in self.rows if not row.agree]

    def __str__(self) -> str:
        compared = [row for row in self.rows if row.porcupine is not None]
        lines = [f"{'history':24}{'operations':>11}  {'verdict':17}{'here, ms':>10}"]
        if compared:
            lines[0] += f"{'Porcupine, ms':>15}"
        slowest = sorted(self.rows, key=lambda row: -max(row.here, row.porcupine or 0))
        lines += [_line(row, bool(compared)) for row in slowest[:SHOWN]]
        total = Row(
            f"all {len(self.rows)}",
            sum(row.operations for row in self.rows),
            None,
            sum(row.here for row in self.rows),
            sum(row.porcupine or 0 for row in self.rows),
        )
        lines.append(_line(total, bool(compared)))
        lines += [f"unusable: {what}" for what in self.unusable]
        if compared:
            lines.append(
                f"same verdict in {sum(row.agree for row in compared)} of {len(compared)} histories"
                + (f"; not in {', '.join(self.differ)}" if self.differ else "")
            )
        good = sum(row.linearizable is True for row in self.rows)
        bad = sum(row.linearizable is False for row in self.rows)
        lines.append(
            f"{good} linearizable, {bad} not, {len(self.rows) - good - bad} undecided ({self.machine})"
        )
        return "\n".join(lines)


def _line(row: Row, compared: bool) -> str:
    verdict = {True: "linearizable", False: "not linearizable", None: ""}[row.linearizable]
    other = f"{row.porcupine:15.1f}" if compared and row.porcupine is not None else ""
    return f"{row.name:24}{row.operations:11,}  {verdict:17}{row.here:10.1f}{other}"


def compare(folder: Path, porcupine: Path | None, machine: str, progress: Progress) -> Comparison:
    """Decide every history of a folder, and let Porcupine do so, too, if there is a checkout of it."""
    rows, unusable = [], []
    theirs = {} if porcupine is None else _porcupine(porcupine, progress)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    for number, path in enumerate(paths):
        progress(number, len(paths))
        name = str(path.relative_to(folder))
        try:
            history = read_history([path])
        except Unusable as error:
            unusable.append(str(error))
            continue
        taken = []
        for _ in range(TIMES):
            start = time.process_time()
            answer = decide(history)
            taken.append(1000 * (time.process_time() - start))
        milliseconds, says = theirs.get(name, (None, None))
        rows.append(Row(name, len(history.operations), answer, min(taken), milliseconds, says))
    return Comparison(rows, unusable, machine)


def decide(history: History) -> bool | None:
    """Whether every key has an order, as far as the first that has none."""
    for ops in history.by_key().values():
        answer = Search(ops, history.initial).run(STEPS)
        if not answer:
            return answer
    return True


def _porcupine(checkout: Path, progress: Progress) -> dict[str, tuple[float, bool]]:
    """Milliseconds and verdict of Porcupine for each history that its benchmarks know."""
    verdicts = _stated_verdicts((checkout / "porcupine_test.go").read_text())
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "porcupine.test"
        _run(["go", "test", "-c", "-o", str(binary)], checkout)
        told = _run(_benchmark(binary, "(EtcdJepsen|Kv[0-9])", 1, TIMES), checkout)
        least: dict[str, float] = {}
        for name, nanoseconds in re.findall(r"^Benchmark(\w+)\s+\d+\s+(\d+) ns/op", told, re.MULTILINE):
            least[name] = min(least.get(name, float("inf")), int(nanoseconds) / 1e6)
        for number, name in enumerate(least):
            progress(number, len(least))
            if least[name] > SLOW:
                least[name] = _processor_time(binary, f"{name}$", checkout)
    files = {_file_of(name): milliseconds for name, milliseconds in least.items()}
    return {file: (taken, verdicts[file]) for file, taken in files.items() if file in verdicts}


def _processor_time(binary: Path, name: str, checkout: Path) -> float:
    """Milliseconds of a benchmark, by the difference of its process running it MORE times more.

    A benchmark that is run more than once is first tried once, so its file is read once more, too.
    """
    taken = []
    for times in (1, MORE):
        before = _children()
        _run(_benchmark(binary, name, times, 1), checkout)
        taken.append(_children() - before)
    return 1000 * (taken[1] - taken[0]) / MORE


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _benchmark(binary: Path, name: str, times: int, count: int) -> list[str]:
    options = {"run": "^$", "bench": f"^Benchmark{name}", "cpu": 1, "benchtime": f"{times}x", "count": count}
    return [str(binary), *(f"-test.{option}={value}" for option, value in options.items())]


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        told = (done.stdout + done.stderr)[-300:].strip()
        raise Unusable(str(folder), f"{' '.join(command)} failed: {told}")
    return done.stdout


def _stated_verdicts(source: str) -> dict[str, bool]:
    etcd = re.findall(r"checkJepsen\(t, (\d+), (true|false)\)", source)
    kv = re.findall(r'checkKv\(t, "([\w-]+)", (true|false), true\)', source)
    return {f"jepsen/etcd_{int(n):03}.log": says == "true" for n, says in etcd} | {
        f"kv/{name}.txt": says == "true" for name, says in kv
    }


def _file_of(benchmark: str) -> str:
    """The history of a benchmark: EtcdJepsen007, Kv10ClientsOk."""
    if found := re.fullmatch(r"EtcdJepsen(\d+)", benchmark):
        return f"jepsen/etcd_{found[1]}.log"
    if found := re.fullmatch(r"Kv(\d+)Clients?(Ok|Bad)", benchmark):
        return f"kv/c{int(found[1]):02}-{found[2].lower()}.txt"
    return benchmark


@dataclass(frozen=True)
class Speed:
    """What a simulated history took: CPU seconds, bytes."""

    operations: int
    keys: int
    clients: int
    reading: float
    checking: float
    peak_memory: int
    machine: str

    def __str__(self) -> str:
        per_second = self.operations / (self.reading + self.checking)
        return (
            f"{self.operations:,} operations of {self.clients:,} clients at a time on {self.keys:,} keys "
            f"({self.machine})\n"
            f"{per_second:,.0f} operations a second of CPU: {self.reading:.2f} s to read them, "
            f"{self.checking:.2f} s to find and replay an order\n"
            f"peak memory: {self.peak_memory / 2**20:,.0f} MB"
        )


def measure(operations: int, clients: int, keys: int, seed: int, kinds: Sequence[str], machine: str) -> Speed:
    """Read and check a simulated history."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.ndjson"
        with path.open("w") as file:
            file.write(json.dumps({"raftworthy": VERSION}) + "\n")
            for event in simulate(Random(seed), operations, clients, keys, kinds=tuple(kinds)):
                file.write(json.dumps(event) + "\n")
        gc.disable()  # as the command does
        start = time.process_time()
        history = read_history([path])
        read = time.process_time()
        result = check(history, seconds=3600)
        checked = time.process_time()
        gc.enable()
    if result.verdict != "linearizable":
        raise AssertionError(f"seed {seed}: {result}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Speed(operations, keys, clients, read - start, checked - read, peak, machine)

"""How long a small question takes from the command line: the whole process, its code kept or not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import raftworthy
from raftworthy.kept import FOLDER

# Something is explored, but nothing that takes time: natively, and by whoever is quicker, which is Python.
SMALL = ("explore", "--servers", "3", "--max-term", "1", "--max-log", "0")
QUESTION = (*SMALL, "--engine", "native")
TIMES = 3
# Python's own compiled modules are there, as they are once a package is installed.
MODULES = ("PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Starts:
    """Seconds from start to end, the least of some runs: of the clock, and of the processor."""

    cold: float
    warm: float
    cold_cpu: float
    warm_cpu: float
    python_cpu: float  # without machine code
    runs: int

    def as_data(self) -> dict[str, Any]:
        """The figures for machines."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"raftworthy {' '.join(QUESTION)}, the least of {self.runs} runs: cold {self.cold:.2f} s "
            f"({self.cold_cpu:.2f} of CPU), warm {self.warm:.2f} s ({self.warm_cpu:.2f} of CPU); "
            f"answered by Python {self.python_cpu:.2f} s of CPU"
        )


def measure_starts(runs: int = TIMES) -> Starts:
    """Run the command, each time first with an empty cache and then with what the first run left there."""
    cold, warm, python = zip(*(_runs() for _ in range(runs)), strict=True)
    cold_wall, cold_cpu = map(min, zip(*cold, strict=True))
    warm_wall, warm_cpu = map(min, zip(*warm, strict=True))
    return Starts(cold_wall, warm_wall, cold_cpu, warm_cpu, min(cpu for _, cpu in python), runs)


def _runs() -> Iterator[tuple[float, float]]:
    """A cold start, a warm one, and one without machine code: seconds, and seconds of CPU."""
    roots = [str(Path(raftworthy.__path__[0]).parent), *filter(None, sys.path)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as modules:
        environment = {name: value for name, value in os.environ.items() if name not in MODULES}
        environment |= {MODULES[0]: modules, "PYTHONPATH": os.pathsep.join(roots)}
        _run(environment | {FOLDER: "off"})
        for question in (QUESTION, QUESTION, SMALL):
            began, before = time.perf_counter(), os.times()
            _run(environment | {FOLDER: folder}, question)
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            yield time.perf_counter() - began, cpu


def _run(environment: Mapping[str, str], question: tuple[str, ...] = QUESTION) -> None:
    subprocess.run(
        [sys.executable, "-m", "raftworthy", *question],
        env=environment, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip

"""Running TLC on an exported module, for whoever has its jar: what it counted, found, and took."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from raftworthy.explore.bounds import UnusableError

COUNTS = re.compile(r"^(\d+) states generated, (\d+) distinct states found", re.MULTILINE)
BROKEN = re.compile(r"^Error: (?:Invariant|Action property) (\w+) is violated", re.MULTILINE)
ACTION = re.compile(r"^State \d+: <(\w+) ", re.MULTILINE)
COMPLETED = "Model checking completed. No error has been found."


class Checked(NamedTuple):
    """What TLC said. `states` counts the successors that it computed, and the first state.

    `violated` is a property, `seconds` are of CPU, of all the process's threads.
    """

    states: int
    distinct: int
    violated: str | None
    actions: tuple[str, ...]  # of the counterexample
    seconds: float
    output: str


def cpu_seconds(command: list[str], folder: Path) -> tuple[str, float]:
    """Run a command in a folder: its output, and the CPU seconds that it took."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return out.read(), usage.ru_utime + usage.ru_stime


def run_tlc(jar: Path, module: Path) -> Checked:
    """Check a module, whose configuration lies beside it, with one worker.

    Raises:
        UnusableError: there is no Java or no such jar, or TLC failed; what it said is in the text.
    """
    java = shutil.which("java")
    if java is None:
        raise UnusableError("TLC needs Java, and there is no java on the path")
    if not jar.is_file():
        raise UnusableError(f"there is no file {jar}; TLC comes as tla2tools.jar")
    with tempfile.TemporaryDirectory() as states:
        # The parallel collector, which TLC itself asks for; one worker, so that the search is breadth first.
        out, seconds = cpu_seconds(
            [
                java, "-XX:+UseParallelGC", "-cp", str(jar.resolve()), "tlc2.TLC", "-workers", "1",
                "-metadir", states, "-noGenerateSpecTE", "-config", f"{module.stem}.cfg", module.name,
            ],
            module.parent,
        )  # fmt: skip
    counts, broken = COUNTS.search(out), BROKEN.search(out)
    if counts is None or (broken is None and COMPLETED not in out):
        raise UnusableError(f"TLC could not check {module}:\n{out.strip()}")
    actions = tuple(ACTION.findall(out)[1:]) if broken else ()
    return Checked(int(counts[1]), int(counts[2]), broken[1] if broken else None, actions, seconds, out)

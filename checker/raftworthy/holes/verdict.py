"""The verdict on traces with holes: explained, violates, or undecided, as text and as data."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftworthy.holes.lines import read_lines
from raftworthy.holes.search import GivenUpError, Search
from raftworthy.holes.telling import behaviour
from raftworthy.replay.reading import Unusable
from raftworthy.replay.verdict import check

EXIT_CODES = {"explained": 0, "violates": 1, "undecided": 2, "unusable": 2}
SECONDS = 60.0


@dataclass(frozen=True)
class Completed:
    """What came out of completing traces: a behaviour, lines that can't all be true, or neither."""

    verdict: str
    files: list[str]
    seconds: float  # of CPU time
    lines: int = 0
    lost: tuple[str, ...] = ()  # servers without lines
    supplied: int = 0  # steps that no line tells of
    behaviour: list[dict[str, Any]] = field(default_factory=list)
    tried: str | None = None  # what was tried, if that didn't decide it
    error: str | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def as_data(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v not in (None, [], ())}


def complete(
    paths: Sequence[Path], seconds: float = SECONDS, progress: Callable[[int], None] | None = None
) -> Completed:
    """Look for a behaviour of the specification that explains the lines of trace files."""
    files, began = [str(p) for p in paths], time.process_time()
    try:
        lines = read_lines(paths)
    except Unusable as error:
        return Completed("unusable", files, time.process_time() - began, error=str(error))
    search = Search(lines, seconds, progress)
    try:
        found = search.run()
    except GivenUpError:
        found = False
    if found:
        told = list(behaviour(search))
        refusal = _replayed(told)
        if refusal is None:
            spent = time.process_time() - began
            return Completed("explained", files, spent, search.total, lines.lost,
                             sum(t.line is None for t in search.taken), told)  # fmt: skip
        tried = f"the behaviour that was found is not one that replay takes: {refusal}"
    else:
        where = search.best.line.place if search.best else "nowhere"
        tried = (
            f"{search.tried:,} steps, {search.furthest:,} of {search.total:,} lines explained, up to {where}"
        )
    return Completed("undecided", files, time.process_time() - began, search.total, lines.lost, tried=tried)


def _replayed(told: Sequence[dict[str, Any]]) -> str | None:
    """What ordinary replay has to say against a behaviour."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completed.ndjson"
        path.write_text("".join(json.dumps(x) + "\n" for x in told))
        verdict = check([path])
    if verdict.verdict == "conforms":
        return None
    return verdict.error or (verdict.explanation.claim if verdict.explanation else verdict.verdict)


def print_completed(c: Completed) -> None:
    """Print a verdict for people."""
    if c.error:
        print(f"{c.error}\nunusable: nothing is said about the servers")
    elif c.verdict == "explained":
        print(
            f"explained: there is a behaviour with these {c.lines:,} lines ({c.seconds:.2f} s), "
            f"{c.supplied:,} steps of it supplied; replay takes it"
        )
    else:
        print(f"undecided: not refuted, and not explained\n  tried: {c.tried}")

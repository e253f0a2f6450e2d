"""Random walks for somebody at a terminal: where they went, what they found, and the command that repeats it.

The exit code is 1 if a property was violated, otherwise 2: walks that find nothing prove nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from rich.console import Console

from raftspec.extensions import WHOLE
from raftspec.mutants import MUTANTS
from raftworthy.diagram import explain
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.cases import BEGINNINGS, EXTENSION_BEGINNINGS, Case, mutant_called
from raftworthy.explore.export import trace_events, write_trace
from raftworthy.explore.walking import Walked, shorten, walk_python
from raftworthy.native import NoPlaceError, available

VIOLATED, UNDECIDED = 1, 2
SECONDS = 10.0  # if nothing else is said
DEEPEST = 100_000  # steps of a walk
Show = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Question:
    """What is walked through, and how far."""

    bounds: Bounds
    without: frozenset[str] = frozenset()
    mutant: str | None = None
    any_policy: bool = False
    properties: tuple[str, ...] | None = None
    start: str = "initial"
    seed: int = 1
    depth: int = 100
    walks: int | None = None
    seconds: float | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what can't be walked."""
        if self.engine not in ("auto", "native", "python"):
            raise UnusableError(f"no engine is called {self.engine}; there are auto, native, python")
        if self.engine == "native" and not available():
            raise UnusableError("the native engine isn't installed: pip install llvmlite numpy")
        for name, least in (("seed", 0), ("depth", 1), ("walks", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UnusableError(f"{name} is {getattr(self, name)}; the least is {least}")
        if self.depth > DEEPEST:
            raise UnusableError(f"depth is {self.depth}; the most is {DEEPEST}")
        if self.seconds is not None and not self.seconds > 0:
            raise UnusableError(f"{self.seconds} seconds are no time to walk in")

    def command(self, walked: Walked, engine: str) -> str:
        """What to run to walk the same ways again, up to the same end."""
        words: list[object] = ["raftworthy", "explore", "--random", "--seed", self.seed]
        words += ["--walks", walked.walks, "--depth", self.depth]
        words += ["--engine", engine, *self.bounds.options()]
        words += [x for rule in sorted(self.without) for x in ("--without", rule)]
        words += ["--mutant", self.mutant] if self.mutant else []
        words += ["--any-policy"] if self.any_policy else []
        words += [x for p in self.properties or () for x in ("--property", p)]
        words += ["--begin", self.start] if self.start != "initial" else []
        return shlex.join(map(str, words))


def walk(question: Question, progress: Callable[[int, float], None] | None = None) -> tuple[Walked, str]:
    """Walk, shorten what was found, and say which engine walked.

    Raises:
        UnusableError: a name is not known, the beginning doesn't fit the bounds, or the native engine has no
            place for a value.
    """
    q = question
    case = Case(q.bounds, q.start, q.any_policy, q.properties)
    model, prefix = case.begun(case.spec, q.without, mutant_called(q.mutant))
    wanted = model.properties(q.properties)
    seconds = SECONDS if q.seconds is None and q.walks is None else q.seconds
    limits: dict[str, Any] = {"seed": q.seed, "depth": q.depth, "walks": q.walks, "seconds": seconds}

    for name in wanted:  # before any step
        if model.spec.properties[name].states == 1 and not model.generated.properties[name](prefix.world):
            return Walked(q.seed, q.depth, 0, 0, 0, 0.0, 1, name, prefix, prefix), "python"
    engine = "python"
    if q.engine != "python" and available():
        from raftworthy.native.walks import walk_native  # imports llvmlite

        try:
            found, engine = walk_native(model, prefix.world, wanted, **limits, progress=progress), "native"
        except NoPlaceError:
            if q.engine == "native":
                raise
    if engine == "python":
        found = walk_python(model, prefix.world, wanted, **limits, progress=progress)
    if found.path is None or found.broken is None:
        return found, engine
    short = shorten(model, found.path, found.broken)
    claim, states = model.generated.properties[found.broken], model.spec.properties[found.broken].states
    assert not claim(*short.worlds()[-states:]), f"{found.broken} holds at the end of the shortened path"
    return found.told(prefix.then(*short.moves)), engine


def run_walks(
    question: Question,
    *,
    save: FilePath | None = None,
    as_json: bool = False,
    console: Console | None = None,
    progress: Callable[[], AbstractContextManager[Show]] = lambda: nullcontext(lambda done, total: None),
) -> int:
    """Walk, print what came of it, and return the exit code.

    Raises:
        UnusableError: see `walk`.
    """
    console = console or Console()
    with progress() as show:
        found, engine = walk(question, lambda steps, seconds: show(steps, None))
    if save is not None and found.shortest is not None:
        write_trace(found.shortest, save)
    if as_json:
        console.out(json.dumps(as_data(question, found, engine), indent=2), highlight=False)
    else:
        _print(console, question, found, engine, save if found.shortest else None)
    return VIOLATED if found.broken else UNDECIDED


def as_data(question: Question, found: Walked, engine: str) -> dict[str, Any]:
    """What walks found, for a machine."""
    q = question
    data: dict[str, Any] = {
        "verdict": "violated" if found.broken else "undecided",
        "bounds": q.bounds.as_data(),
        "without": sorted(q.without),
        "mutant": q.mutant,
        "seed": q.seed,
        "depth": q.depth,
        "walks": found.walks,
        "steps": found.steps,
        "deepest": found.deepest,
        "distinct_about": found.distinct,
        "seconds": round(found.seconds, 3),
        "engine": engine,
        "again": q.command(found, engine),
    }
    if found.broken and found.shortest is not None:
        data["property"] = found.broken
        data["because"] = " ".join(WHOLE.properties[found.broken].doc.split())
        data["walked"] = len(found.path) if found.path else 0
        data["path"] = [str(m) for m in found.shortest.moves]
        data["trace"] = list(trace_events(found.shortest))
    return data


def _print(console: Console, q: Question, found: Walked, engine: str, saved: FilePath | None) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if found.shortest is not None and found.broken:
        told = explain(found.shortest, WHOLE.properties[found.broken], q.without, console.width)
        console.print(told, soft_wrap=True)
        if q.mutant:
            line(f"mutant {q.mutant}: {MUTANTS[q.mutant].story}")
        console.print(f"violated after {len(found.shortest)} steps", style="bold red", highlight=False)
        line(f"  shortened from a walk of {len(found.path or ())} steps")
    else:
        console.print("undecided: no violation was met", style="yellow", highlight=False)
    line(f"  bounds: {q.bounds}, {q.depth} steps a walk")
    if q.start != "initial":
        line(f"  begun at {q.start}: {(BEGINNINGS | EXTENSION_BEGINNINGS)[q.start].__doc__}")
    if q.without:
        line(f"  without: {', '.join(sorted(q.without))}")
    rate = found.steps / found.seconds if found.seconds else 0
    line(
        f"  {found.walks:,} random walks, {found.steps:,} steps, the longest {found.deepest}, about "
        f"{found.distinct:,} distinct states, {found.seconds:.1f} s, {rate:,.0f} steps/s"
    )
    more = "" if available() else "; native code is much faster: pip install llvmlite numpy"
    line(f"  engine: {engine}{more}")
    line(f"  again: {q.command(found, engine)}")
    if saved is not None:
        line(f"  written to {saved}; try: raftworthy replay {saved}")

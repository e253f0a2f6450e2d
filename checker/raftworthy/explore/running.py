"""Exploring for somebody at a terminal: what was asked, what was found, within which bounds.

The exit code is 0 if nothing was violated or what was looked for was found, 1 if a property was
violated, 2 if the question was unusable or had no answer within the bounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import msgspec

from raftspec.extensions import WHOLE
from raftspec.mutants import MUTANTS
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.cases import BEGINNINGS, EXTENSION_BEGINNINGS, Case, mutant_called
from raftworthy.explore.choosing import explore_with
from raftworthy.explore.coverage import Coverage
from raftworthy.explore.export import trace_events, write_trace
from raftworthy.explore.find import predicate
from raftworthy.explore.means import Means
from raftworthy.explore.paths import Path, Progress, Result
from raftworthy.reduce.permits import Permits
from raftworthy.saying import Plain, Sayer

if TYPE_CHECKING:
    from rich.console import Console

HOLDS, VIOLATED, UNUSABLE = 0, 1, 2


def run_explore(
    bounds: Bounds,
    *,
    without: Iterable[str] = (),
    mutant: str | None = None,
    any_policy: bool = False,
    properties: Iterable[str] | None = None,
    find: str | None = None,
    symmetry: bool = True,
    limit_states: int | None = None,
    start: str = "initial",
    engine: str = "auto",
    coverage: bool = False,
    means: Means | None = None,
    unwanted: Iterable[str] | None = None,
    usual_messages: int | None = None,
    save: FilePath | None = None,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """Explore, print what came of it, and return the exit code.

    Args:
        bounds: how far to explore.
        without: rules to take away.
        mutant: a known bug to explore instead, from `raftspec.mutants`.
        any_policy: let servers do what is safe, not only what Figure 2 chooses.
        properties: what to check; all, if it is None.
        find: an expression over a state to look for; see `raftworthy.explore.find`.
        symmetry: take states that differ in servers' names only for one.
        limit_states: stop at this number of distinct states.
        start: where to begin; see `raftworthy.explore.cases.BEGINNINGS`.
        engine: `python`, `native`, `ray`: in a cluster, or `auto`: native, if it can and that takes long.
        coverage: count what was made use of, too; only Python counts, and takes ten times as long.
        means: what the native engine may use; chosen only, it is the engine.
        unwanted: reductions to do without; all, if it is None.
        usual_messages: how many there may be if the bounds don't say it, unless enough can be left out.
        save: a file to write the path to, as a trace.
        as_json: print data.
        console: where to print; else it is printed as it is.
    """
    say = console or Plain()
    without = frozenset(without)
    try:
        if limit_states is not None and limit_states < 1:
            raise UnusableError(f"--limit-states {limit_states} explores nothing; give 1 or more")
        wanted, symmetric = None, symmetry
        if find is not None:
            wanted, names_servers = predicate(find, bounds.names)
            symmetric = symmetry and not names_servers
        case = Case(bounds, start, any_policy, None if properties is None else tuple(properties))
        counts: list[Coverage] | None = [] if coverage else None
        with _Progress(silent=as_json) as progress:
            result, used, note = explore_with(
                case, engine, text=find, without=without, mutant=mutant_called(mutant), find=wanted,
                symmetry=symmetric, progress=progress, limit_states=limit_states, counts=counts,
                means=means or Means(), unwanted=unwanted, usual=usual_messages,
            )  # fmt: skip
    except UnusableError as error:
        if as_json:
            say.print(json.dumps({"verdict": "unusable", "error": str(error)}, indent=2), markup=False)
        else:
            print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    path = result.violation.path if result.violation else result.witness
    if save is not None and path is not None:
        write_trace(path, save)
    if as_json:
        more = {"coverage": counts[0].as_data()} if counts else {}
        data = as_data(result, find) | {"engine": used, "note": note} | more
        text = json.dumps(data, indent=2)
        console.out(text, highlight=False) if console else print(text)
    else:
        if path is not None:
            _draw(console, result, path, without)
        _print(say, result, find, save if path else None, start, used, note)
        if counts:
            say.print(str(counts[0]), markup=False, highlight=False)
    return exit_code(result, find)


def exit_code(result: Result, find: str | None) -> int:
    """0: nothing violated, or found. 1: violated. 2: looked for within the bounds, and not found."""
    if result.violation:
        return VIOLATED
    return HOLDS if result.witness or (find is None and result.exhausted) else UNUSABLE


def verdict(result: Result, find: str | None) -> str:
    """What was found, in a word."""
    if result.violation:
        return "violated"
    if find is not None:
        return "found" if result.witness else "not found" if result.exhausted else "undecided"
    return "holds within bounds" if result.exhausted else "undecided"


def as_data(result: Result, find: str | None = None) -> dict[str, Any]:
    """A result for a machine. A path is a trace's lines."""
    data: dict[str, Any] = {
        "verdict": verdict(result, find),
        "bounds": result.bounds.as_data(),
        "without": sorted(result.without),
        "mutant": result.mutant,
        "symmetry": result.symmetry,
        "stopped": result.stopped,
        "states": result.states,
        "distinct": result.distinct,
        "depth": result.depth,
        "collision": result.collision,
        "seconds": round(result.seconds, 3),
    }
    if permits := getattr(result, "permits", None):
        data["reductions"] = {
            "on": list(permits.names()),
            "off": dict(permits.off),
            "recorded": permits.recorded,
        }
    for name in ("threads", "memory", "disk", "exact", "replaced"):  # what the native engine also knows
        if hasattr(result, name):
            data[name] = getattr(result, name)
    if result.violation:
        data["property"] = result.violation.property
        data["because"] = " ".join(result.violation.doc.split())
    path = result.violation.path if result.violation else result.witness
    if path is not None:
        data["path"] = [step_data(path, k) for k in range(len(path))]
        data["trace"] = list(trace_events(path))
    return data


def step_data(path: Path, k: int) -> dict[str, Any]:
    """A step of a path for machines."""
    move = path.moves[k]
    return {
        "step": k + 1,
        "server": move.server,
        "action": move.action,
        "params": [msgspec.to_builtins(x) for x in move.params],
        "sends": [msgspec.to_builtins(m) for m in move.sent],
    }


def _draw(console: Console | None, result: Result, path: Path, without: Iterable[str]) -> None:
    """Draw what leads to where a property fails, or to what was looked for."""
    from rich.console import Console

    from raftworthy.diagram import explain

    console = console or Console()
    broken = WHOLE.properties[result.violation.property] if result.violation else None
    console.print(explain(path, broken, without, console.width), soft_wrap=True)


def _print(
    say: Sayer,
    result: Result,
    find: str | None,
    saved: FilePath | None,
    start: str,
    engine: str,
    note: str,
) -> None:
    path = result.violation.path if result.violation else result.witness
    if result.mutant:
        say.print(f"mutant {result.mutant}: {MUTANTS[result.mutant].story}", markup=False, highlight=False)
    style = {"violated": "bold red", "undecided": "yellow", "not found": "yellow"}.get(
        verdict(result, find), "bold green"
    )
    steps = f" after {len(path)} steps" if path is not None else ""
    say.print(f"{verdict(result, find)}{steps}", style=style, highlight=False)
    say.print(f"  bounds: {result.bounds}", highlight=False)
    if start != "initial":
        begun = (BEGINNINGS | EXTENSION_BEGINNINGS)[start]
        say.print(f"  begun at {start}: {begun.__doc__}", markup=False, highlight=False)
    if result.without:
        say.print(f"  without: {', '.join(sorted(result.without))}", highlight=False)
    if not result.exhausted and path is None:
        say.print(f"  {result.stopped}: what lies beyond was not explored", highlight=False)
    say.print(
        f"  {result.distinct} distinct states{' up to renaming of servers' if result.symmetry else ''}, "
        f"{result.states} steps, depth {result.depth}, {result.seconds:.1f} s, {result.rate:.0f} states/s",
        highlight=False,
    )
    whole = engine == "python" or getattr(result, "exact", False)
    exact = "states compared whole" if whole else "states told apart by 64-bit fingerprints"
    chance = f"; two had the same with a probability of {result.collision:.0e}" if result.collision else ""
    say.print(f"  engine: {engine}, {exact}{chance}", highlight=False)
    if note:
        say.print(f"  note: not the native engine: {note}", markup=False, highlight=False)
    if engine in ("native", "ray"):
        say.print(f"  {_means(result, engine)}", highlight=False)
    if permits := getattr(result, "permits", None):
        _print_permits(say, permits)
    if saved is not None:
        say.print(f"  written to {saved}; try: raftworthy replay {saved}", markup=False, highlight=False)


def _means(result: Any, engine: str) -> str:
    """What a native search made use of."""
    who = "thread" if engine == "native" else "worker"
    said = f"{result.threads} {who}{'s' * (result.threads > 1)}, {result.memory / 1e6:.0f} MB of memory"
    if result.disk:
        said += f", {result.disk / 1e6:.0f} MB written to disk"
    if engine == "ray":
        said += f", {sum(w.bytes_sent for w in result.work) / 1e6:.0f} MB exchanged"
    if result.replaced:
        said += f"; a worker was lost {result.replaced} times, and what it had done done again"
    return said


def _print_permits(say: Sayer, permits: Permits) -> None:
    """Which reductions were on, and why others were not."""
    on = list(permits.names())
    if on:
        proved = "Z3 has proved (recorded)" if permits.recorded else "Z3 proved"
        who = proved if "order" in on else "its expressions say"
        say.print(f"  reduced, as {who} that the answer stays the same: {', '.join(on)}", highlight=False)
        if "order" in on:
            say.print("  so a path may not be the shortest, which --no-reduction finds", highlight=False)
    if permits.opened:
        say.print(
            f"  what {permits.opened} would choose was left open: more was explored than asked",
            highlight=False,
        )
    for why in dict.fromkeys(permits.off.values()):
        names = ", ".join(name for name, reason in permits.off.items() if reason == why)
        say.print(f"  not reduced by {names}: {why}", markup=False, highlight=False)


class _Progress:
    """Shows how far it has come, once it takes longer than two seconds."""

    PATIENCE = 2.0

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._bar: Any = None
        self._task: Any = None
        self._frontiers: list[int] = []  # of each level

    def _estimate(self, p: Progress) -> str:
        """How long it may take, once levels get smaller: as if each shrank like the last one."""
        if len(self._frontiers) <= p.depth:
            self._frontiers += [p.frontier] * (p.depth + 1 - len(self._frontiers))
        last = self._frontiers[-2:]
        if len(last) < 2 or last[1] >= last[0]:
            return ""
        left = last[1] / (1 - last[1] / last[0]) * p.seconds / p.distinct
        return f"about {left:.0f} s left"

    def __enter__(self) -> Callable[[Progress], None]:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, p: Progress) -> None:
        if self._silent or p.seconds < self.PATIENCE:
            return
        if self._bar is None:
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn

            columns = SpinnerColumn(), TextColumn("{task.description}")
            self._bar = Bar(*columns, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("")
        rate = f"{p.distinct / p.seconds:.0f} states/s"
        left = f", {estimate}" if (estimate := self._estimate(p)) else ""
        text = f"{p.distinct} states, depth {p.depth}, frontier {p.frontier}, {rate}{left}"
        self._bar.update(self._task, description=text)

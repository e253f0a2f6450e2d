"""Commands that let simulated clusters go wrong, many times over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from raftworthy.cli.common import (
    CONFORMS,
    UNUSABLE,
    VIOLATES,
    Json,
    app,
    bench,
    check_writable,
    fail,
    print_json,
    progress_bar,
)
from raftworthy.cli.measuring import Form


@app.command
def campaign(
    *,
    seeds: int = 1000,
    first: int = 1,
    steps: int = 1000,
    jobs: int = 1,
    results: Path | None = None,
    keep: Path | None = None,
    broken: Annotated[str | None, Parameter(name="--break", help="run all servers without this rule")] = None,
    json: Json = False,
) -> int:
    """Simulate thousands of clusters, each in a weather of its own, and replay every trace.

    A seed decides how many servers there are, which faults and how often, and what the trace logs.
    Exit code: 0 if all conform, otherwise 1; each that doesn't is named with the command that repeats it.

    Args:
        seeds: how many
        first: the first of them, to split the work
        steps: of each
        jobs: processes that share the work
        results: a file with a line for each seed; if it is there, its seeds are not run again
        keep: a folder for the traces of seeds that don't conform

    Examples:
        raftworthy campaign --seeds 10000 --results campaign.ndjson
        raftworthy campaign --first 5001 --seeds 5000 --results campaign.ndjson
        raftworthy campaign --seeds 100 --break restart.keep_vote
    """
    from raftd.faults import BREAKS
    from raftworthy.campaign import campaign as run
    from raftworthy.campaign import command

    if seeds < 1 or steps < 1 or jobs < 1:
        return fail("at least one seed, one step and one job, or nothing is checked", json)
    if broken is not None and broken not in BREAKS:
        return fail(f"no fault {broken}; there are {', '.join(sorted(BREAKS))}", json)
    try:
        if results is not None:
            check_writable(results)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        with progress_bar("simulating and replaying", "seeds") as progress:
            found = run(range(first, first + seeds), steps, results, keep, broken, jobs, progress)
    except ValueError as error:
        return fail(str(error), json)
    if json:
        print_json(found)
    else:
        print(found)
        for wrong in found.wrong[:10]:
            print(f"seed {wrong.seed} {wrong.verdict}: {wrong.wrong}\n  again: {command(wrong)}")
    return VIOLATES if found.wrong else CONFORMS


@bench.command(name="byzantine")
def bench_byzantine(*, times: int = 20, seed: int = 1, form: Form = "full", json: Json = False) -> int:
    """Change one field of one message on its way, each field of each kind, and see what replay says of it.

    Each change has a simulated run of its own, under every fault that Raft tolerates. Where a change is
    overlooked, the table says why that is what a right server's trace may have, too.
    Exit code: 0, or 1 if in traces that log everything a change is overlooked for no such reason.

    Args:
        times: how often for each field
        seed: of the first runs; the next ones have the next seeds

    Examples:
        raftworthy bench byzantine --times 20
        raftworthy bench byzantine --form minimal
    """
    from raftworthy.measure_byzantine import measure_byzantine

    if times < 1:
        return fail("--times 1 at least, or nothing is measured", json)
    with progress_bar("changing and replaying", "seeds") as progress:
        found = measure_byzantine(times, seed, form, progress)
    if json:
        print_json(found)
    else:
        print(found)
        for change in found.wrong[:10]:
            print(f"{change.outcome}: {change.command}")
    return VIOLATES if found.wrong else CONFORMS


@bench.command(name="bugs")
def bench_bugs(
    names: Annotated[list[str] | None, Parameter(help="ids of known bugs; all if none")] = None,
    /,
    *,
    markdown: Annotated[bool, Parameter(help="as a page", negative="")] = False,
    json: Json = False,
) -> int:
    """Show who catches the bugs that real Raft servers had, and how fast.

    The explorer catches one in the specification, lockstep in raftd's core, and replay in the traces of
    simulated servers that have it. All of them take some minutes.
    Exit code: 0 if somebody catches each that breaks something, otherwise 2.

    Examples:
        raftworthy bench bugs R01 R05
        raftworthy bench bugs --markdown > docs/bugs.md
    """
    from raftspec.mutants import MUTANTS
    from raftworthy.measure_bugs import measure_bugs, page, table

    if unknown := [name for name in names or () if name not in MUTANTS]:
        return fail(f"no bug is called {unknown[0]}; there are {', '.join(MUTANTS)}", json)
    with progress_bar("looking", "bugs") as progress:
        found = measure_bugs(names, progress)
    if json:
        print_json([b.as_data() for b in found])
    else:
        print(page(found) if markdown else table(found))
    missed = [b for b in found if b.mutant.breaks and not (b.explorer or b.lockstep or b.replay)]
    return UNUSABLE if missed else CONFORMS

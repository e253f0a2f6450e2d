"""Commands for whoever has a Raft server: its traces are checked, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from raftworthy.cli.common import (
    CONFORMS,
    VIOLATES,
    Files,
    Json,
    UnwritableError,
    app,
    check_writable,
    fail,
    print_json,
    progress_bar,
)


@app.command
def replay(
    files: Files,
    /,
    *,
    complete: Annotated[
        bool | None,
        Parameter(help="fill holes in the trace; as a rule where ordinary replay can't decide without that"),
    ] = None,
    out: Annotated[Path | None, Parameter(help="with holes: write the behaviour that was found")] = None,
    limit_steps: Annotated[int, Parameter(help="with holes: give up after so many tried steps")] = 200_000,
    json: Json = False,
) -> int:
    """Check traces of a Raft cluster against the specification.

    Give one file for all servers, one per server, or one per server and start.
    The format is in docs/traces.md. Events of clients, in the same files or in others, are held to the
    committed log (docs/linearize.md). Where information is missing, a behaviour is looked for that has
    the lines that are there (docs/holes.md).
    Exit code: 0 conforms or explained, 1 violates, 2 undecided or unusable.

    Examples:
        raftworthy replay traces/figure_8.ndjson
        raftworthy replay n1.ndjson n2.ndjson n3.ndjson.zst --json
        raftworthy replay n1.ndjson n2.ndjson n3.ndjson history.ndjson
        raftworthy replay n1.ndjson n2.ndjson --complete --out whole.ndjson
    """
    from raftworthy.holes.missing import information_missing
    from raftworthy.replay.verdict import check, print_verdict

    try:
        if out is not None:
            check_writable(out)
    except UnwritableError as error:
        return fail(str(error), json)
    if limit_steps < 1:
        return fail(f"--limit-steps {limit_steps}: at least one step, or nothing is tried", json)
    note = None
    if not complete:
        with progress_bar("replaying", "events") as progress:
            verdict = check(files, lambda n: progress(n, None))
        note = None if complete is False else information_missing(verdict, files)
        if note is None:
            print_json(verdict.as_data()) if json else print_verdict(verdict)
            return verdict.exit_code
        if not json:
            print(f"note: {note}; looking for a behaviour that explains the lines that are there")
    from raftworthy.holes.verdict import complete as fill
    from raftworthy.holes.verdict import print_completed, write

    with progress_bar("completing", "events") as progress:
        completed = fill(files, limit_steps, lambda n: progress(n, None))
    if out is not None and completed.behaviour:
        write(completed.behaviour, out)
    if json:
        print_json(completed.as_data() | ({"note": note} if note else {}))
    else:
        print_completed(completed, out)
    return completed.exit_code


@app.command
def show(
    files: Files,
    /,
    *,
    until: Annotated[
        str | None, Parameter(help="the last event to show: FILE:LINE, or LINE of the only file")
    ] = None,
    last: Annotated[int, Parameter(help="how many events to show")] = 12,
    json: Json = False,
) -> int:
    """Draw the end of a trace in the terminal: a line down for each server, messages matched by labels.

    Without --until, up to the first wrong event, which is marked, or the end.
    Exit code: 0 shown, 1 the last event is wrong, 2 unusable.

    Examples:
        raftworthy show traces/figure_8.ndjson --until 30
        raftworthy show traces/rules/vote.up_to_date.ndjson --last 5
    """
    from rich.console import Console

    from raftworthy.files import Unusable
    from raftworthy.replay.explain import render
    from raftworthy.replay.showing import Window

    try:
        with progress_bar("replaying", "events") as progress:
            window = Window.open(files, until, last, lambda n: progress(n, None))
    except Unusable as error:
        return fail(str(error), json)
    if json:
        print_json(window.as_data())
    else:
        console = Console()
        console.print(window.text(console.width), soft_wrap=True)
        if window.explanation is not None:
            print(render(window.explanation))
    return CONFORMS if window.explanation is None else VIOLATES


@app.command
def rules(*, json: Json = False) -> int:
    """List the rules of Raft by name: their kind, their section in the paper and why they exist.

    safety: without it, something wrong can be agreed on.
    implied: follows from the other rules as they stand here; the paper states it.
    liveness: without it, nothing wrong is agreed on, but perhaps nothing at all.
    policy: Figure 2's choice among what is safe. A server may choose otherwise, so a trace is not held to it.

    Example:
        raftworthy rules
    """
    from dataclasses import asdict

    from raftspec.extensions import WHOLE

    if json:
        print_json({name: asdict(rule) for name, rule in WHOLE.rules.items()})
        return CONFORMS
    width = max(map(len, WHOLE.rules))
    for name, rule in WHOLE.rules.items():
        print(f"{name:{width}}  {rule.kind:8}  {rule.section:8}  {rule.why}")
    return CONFORMS


@app.command
def schema(*, json: Json = False) -> int:
    """Print the JSON Schema of the trace format, which is traces/schema.json. It is JSON in any case.

    Example:
        raftworthy schema > schema.json
    """
    from raftworthy.schema import schema

    print_json(schema())
    return CONFORMS

"""Commands that put questions about given logs to the specification, for Z3 to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from raftworthy.cli.common import Json, UnwritableError, app, check_writable, fail, print_json, progress_bar

ask = App(name="ask", help="Ask the specification about logs that somebody has.", help_format="plaintext")
app.command(ask)

LogsFile = Annotated[
    Path, Parameter(name="--logs", help="a line a server: `s1: 1 1 4 term=7 vote=s2 commit=2`; or JSON")
]
Without = Annotated[list[str] | None, Parameter(help="take these rules away", negative="")]
Mutant = Annotated[str | None, Parameter(help="ask about a known bug, by its id")]
Steps = Annotated[bool, Parameter(help="draw each step", negative="")]


@ask.command
def electable(
    *,
    logs: LogsFile,
    term: Annotated[int, Parameter(help="the term that somebody is to be elected for")],
    without: Without = None,
    mutant: Mutant = None,
    steps: Steps = False,
    json: Json = False,
) -> int:
    """Say which of the servers with these logs can be elected, with which votes, and why the others cannot.

    What the file doesn't say of a server's term and vote is whatever helps; logs stay as they are till then.
    Exit code: 0 somebody can be elected, 1 nobody, 2 undecided or unusable.

    Examples:
        raftworthy ask electable --logs docs/logs/figure_7.logs --term 8
        raftworthy ask electable --logs docs/logs/figure_7.logs --term 8 --without vote.up_to_date
        raftworthy ask electable --logs docs/logs/figure_7.logs --term 8 --mutant E16
    """
    import shutil

    from raftworthy.ask.change import changed
    from raftworthy.ask.running import run_electable

    with progress_bar("asking", "servers") as progress:
        data, text, code = run_electable(
            logs, term, change=changed(without or (), mutant), steps=steps,
            width=shutil.get_terminal_size((100, 24)).columns, progress=progress,
        )  # fmt: skip
    if json:
        print_json(data)
    else:
        print(text)
    return code


@ask.command
def reachable(
    *,
    logs: LogsFile,
    without: Without = None,
    mutant: Mutant = None,
    save: Annotated[Path | None, Parameter(help="write the history as a trace")] = None,
    steps: Steps = False,
    json: Json = False,
) -> int:
    """Say whether these logs can exist side by side: a history that leads there, or why there is none.

    Without a rule, or with a known bug, it says so of what Raft is then.
    Exit code: 0 they can, 1 they can't, 2 undecided or unusable.

    Examples:
        raftworthy ask reachable --logs docs/logs/figure_7.logs
        raftworthy ask reachable --logs docs/logs/no_majority.logs
        raftworthy ask reachable --logs docs/logs/no_majority.logs --without vote.up_to_date
        raftworthy ask reachable --logs docs/logs/figure_7.logs --save history.ndjson
    """
    import shutil

    from raftworthy.ask.change import changed
    from raftworthy.ask.running import run_reachable

    try:
        if save is not None:
            check_writable(save)
    except UnwritableError as error:
        return fail(str(error), json)
    with progress_bar("asking", "questions") as progress:
        data, text, code = run_reachable(
            logs, change=changed(without or (), mutant), save=save, steps=steps,
            width=shutil.get_terminal_size((100, 24)).columns, progress=progress,
        )  # fmt: skip
    if json:
        print_json(data)
    else:
        print(text)
    return code

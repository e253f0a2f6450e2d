"""Commands that write the specification for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from raftworthy.cli.common import CONFORMS, Json, With, app, fail, print_json

export = App(name="export", help="Write the specification for other tools.", help_format="plaintext")
app.command(export)


@export.command(name="tla")
def export_tla(
    *,
    servers: int = 3,
    max_term: int = 2,
    max_log: int = 1,
    max_messages: Annotated[int | None, Parameter(help="different messages ever sent")] = 8,
    crashes: int = 0,
    commands: int | None = None,
    entries: int = 1,
    applies: bool = False,
    changes: Annotated[int, Parameter(help="with membership: configurations that are proposed")] = 1,
    requests: Annotated[int, Parameter(help="with sessions: a client's different requests")] = 1,
    max_time: Annotated[int, Parameter(help="with sessions: what a leader's clock can say")] = 1,
    reads: Annotated[int, Parameter(help="with reads: in so many rounds")] = 1,
    with_: With = None,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="export a known bug, by its id")] = None,
    any_policy: Annotated[bool, Parameter(help="let servers do what is safe, not only Figure 2")] = False,
    property: Annotated[list[str] | None, Parameter(help="check these only", negative="")] = None,
    begin: Annotated[str, Parameter(help="where to begin: initial, figure_8, …")] = "initial",
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="a folder")] = Path("tla"),
    json: Json = False,
) -> int:
    """Write the specification within bounds as a TLA+ module, Raft.tla, with its configuration, for TLC.

    The options are those of `raftworthy explore`, which counts the same states as TLC with --no-symmetry.

    Examples:
        raftworthy export tla --servers 3 --max-term 2 -o tla && java -jar tla2tools.jar tla/Raft.tla
        raftworthy export tla --without vote.recorded --max-log 0 -o tla
    """
    import shlex
    import sys

    from raftworthy.explore.bounds import Bounds, UnusableError
    from raftworthy.explore.cases import Case, mutant_called, with_extensions
    from raftworthy.tla.module import export as write

    try:
        limits = (servers, max_term, max_log, max_messages, crashes, commands, entries, applies)
        more: dict[str, Any] = {
            "changes": changes,
            "requests": requests,
            "max_time": max_time,
            "reads": reads,
        }
        bounds = Bounds(*limits, extensions=with_extensions(with_, mutant), **more)
        bug = mutant_called(mutant)
        case = Case(bounds, begin, any_policy)
        model, begun = case.begun(case.spec, without or (), bug)
        command = shlex.join(["raftworthy", *sys.argv[1:]])
        file = write(model, begun.world, property, command).write(output)
    except UnusableError as error:
        return fail(str(error), json)
    if json:
        print_json({"module": str(file), "config": str(file.with_suffix(".cfg")), "bounds": str(bounds)})
    else:
        print(f"written: {file}; try: java -jar tla2tools.jar {file}")
    return CONFORMS

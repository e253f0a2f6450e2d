"""Commands that ask Z3: proofs about the specification, and answers to questions about it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from raftworthy.cli.common import CONFORMS, Json, With, app, print_json, progress_bar

prove = App(name="prove", help="Prove what the specification promises, with Z3.", help_format="plaintext")
app.command(prove)


@prove.default
def unbounded(
    *,
    with_: With = None,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="ask about a known bug, by its id")] = None,
    every: Annotated[bool, Parameter(help="go on after the first broken claim", negative="")] = False,
    cores: Annotated[bool, Parameter(help="begin with the hypotheses that are recorded")] = True,
    record_cores: Annotated[bool, Parameter(help="record the hypotheses that are used", negative="")] = False,
    record_failures: Annotated[
        bool, Parameter(help="record what fails first without each rule, for `why`", negative="")
    ] = False,
    seed: Annotated[int, Parameter(help="Z3's seed")] = 0,
    json: Json = False,
) -> int:
    """Prove the promises for any number of servers, any terms, logs of any length.

    Without a rule, or with a known bug, names what fails first, and shows the smallest step that breaks it.
    Exit code: 0 proved, 1 a step breaks the invariant, 2 undecided or unusable.

    Examples:
        raftworthy prove
        raftworthy prove --without vote.up_to_date
        raftworthy prove --mutant R08
        raftworthy prove --with check_quorum
    """
    if record_failures:
        from raftworthy.prove.unbounded.recording import record_failures as recording

        with progress_bar("proving", "rules and bugs") as progress:
            print(f"wrote {recording(progress)}")
        return CONFORMS
    from raftworthy.prove.unbounded.running import run_unbounded
    from raftworthy.prove.unbounded.showing import live_table

    with live_table() as told:
        data, text, code = run_unbounded(
            without=without or (), mutant=mutant, extensions=with_ or (), every=every, cores=cores,
            record_cores=record_cores, seed=seed, told=told,
        )  # fmt: skip
    if json:
        print_json(data)
    else:
        print(text)
    return code


@prove.command
def inductive(
    *,
    servers: int = 3,
    max_term: int = 4,
    max_log: int = 4,
    with_: With = None,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="ask about a known bug, by its id")] = None,
    every: Annotated[bool, Parameter(help="go on after the first broken claim", negative="")] = False,
    rounds: Annotated[bool, Parameter(help="also how logs come about, for `ask`", negative="")] = False,
    json: Json = False,
) -> int:
    """Prove at fixed sizes that every step keeps the invariant, from any state, reachable or not.

    If one doesn't, shows the smallest state and step for which it fails, as a table.
    Exit code: 0 inductive, 1 not inductive, 2 undecided or unusable.

    Examples:
        raftworthy prove inductive
        raftworthy prove inductive --servers 5
        raftworthy prove inductive --without vote.up_to_date
    """
    from raftworthy.prove.running import run_inductive

    with progress_bar("asking", "questions") as progress:
        data, text, code = run_inductive(
            servers, max_term, max_log, without=without or (), mutant=mutant, extensions=with_ or (),
            every=every, rounds=rounds, progress=progress,
        )  # fmt: skip
    if json:
        print_json(data)
    else:
        print(text)
    return code


@prove.command
def reach(
    *,
    depth: Annotated[int, Parameter(help="how many steps")] = 8,
    servers: int = 3,
    max_term: int = 2,
    max_log: int = 1,
    crashes: int = 0,
    commands: int | None = None,
    entries: int = 1,
    applies: bool = False,
    with_: With = None,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="ask about a known bug, by its id")] = None,
    property: Annotated[list[str] | None, Parameter(help="check these only", negative="")] = None,
    seconds: Annotated[float | None, Parameter(help="give up after so long")] = None,
    json: Json = False,
) -> int:
    """Look for a violation within so many steps from the initial state: bounded model checking.

    Says which depth was completed. Good at short counterexamples; for deep ones use `explore`.
    Exit code: 0 none to this depth, 1 violated, 2 undecided or unusable.

    Examples:
        raftworthy prove reach --depth 6
        raftworthy prove reach --without vote.once_per_term --max-log 0
        raftworthy prove reach --without restart.keep_vote --crashes 1 --property election_safety --depth 9
    """
    import shutil

    from raftworthy.explore.bounds import Bounds
    from raftworthy.explore.cases import with_extensions
    from raftworthy.prove.running import run_reach

    limits = (servers, max_term, max_log, None, crashes, commands, entries, applies)
    bounds = Bounds(*limits, extensions=with_extensions(with_, mutant))
    with progress_bar("unrolling", "steps") as progress:
        data, text, code = run_reach(
            bounds, depth, without=without or (), mutant=mutant, properties=property, seconds=seconds,
            width=shutil.get_terminal_size((100, 24)).columns, progress=progress,
        )  # fmt: skip
    if json:
        print_json(data)
    else:
        print(text)
    return code

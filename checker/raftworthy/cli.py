"""The command line. Each command imports what it needs, so that `raftworthy --help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

CONFORMS, VIOLATES, UNUSABLE = 0, 1, 2

app = App(
    name="raftworthy",
    help="Is this Raft implementation right? Replay its traces, explore the specification, run a server.",
    help_format="plaintext",
    version_flags=["--version"],
)
bench = App(name="bench", help="Measure, on this machine.", help_format="plaintext")
app.command(bench)

Files = Annotated[list[Path], Parameter(name="files", help="trace files, plain, .gz or .zst")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="print data for machines")]


# --- seeing it work --------------------------------------------------------------


@app.command
def demo(*, json: Json = False, keep: Path | None = None) -> int:
    """See the main job done: real servers killed and cut off, and what their traces say. Takes 20 s.

    Then servers of which one breaks a rule, and the specification explored, whole and without a rule.
    Exit code: 0 if all came out as expected, otherwise 1.

    Args:
        keep: a new folder for the servers' data and traces, which are removed otherwise

    Examples:
        raftworthy demo
        raftworthy demo --keep demo && raftworthy replay demo/1/traces/*.ndjson
    """
    from raftworthy.demo import run_demo

    try:
        return run_demo(as_json=json, keep=keep)
    except OSError as error:
        return fail(str(error))


# --- checking traces -------------------------------------------------------------


@app.command
def replay(files: Files, /, *, json: Json = False) -> int:
    """Check traces of a Raft cluster against the specification.

    Give one file for all servers, one per server, or one per server and start.
    The format is in docs/traces.md.
    Exit code: 0 conforms, 1 violates, 2 undecided or unusable.

    Examples:
        raftworthy replay traces/figure_8.ndjson
        raftworthy replay n1.ndjson n2.ndjson n3.ndjson.zst --json
    """
    from raftworthy.verdict import check, print_verdict

    with progress_bar("replaying", "events") as progress:
        verdict = check(files, lambda n: progress(n, None))
    print_verdict(verdict, json)
    return verdict.exit_code


@app.command
def show(
    files: Files,
    /,
    *,
    until: Annotated[
        str | None, Parameter(help="the last event to show: FILE:LINE, or LINE of the only file")
    ] = None,
    last: Annotated[int, Parameter(help="how many events to show")] = 12,
) -> int:
    """Draw the end of a trace in the terminal: a column for each server, messages matched by labels.

    Without --until, up to the first wrong event, or the end. Exit code: 0 shown, 1 violates, 2 unusable.

    Example:
        raftworthy show traces/figure_8.ndjson --until 30
    """
    from raftworthy.showing import run_show

    return run_show(files, until, last)


@app.command
def rules(*, json: Json = False) -> int:
    """List the rules of Raft by name: their section in the paper and why they exist.

    Example:
        raftworthy rules
    """
    from dataclasses import asdict

    from raftspec.properties import raft

    if json:
        print_json({name: asdict(rule) for name, rule in raft.rules.items()})
        return CONFORMS
    width = max(map(len, raft.rules))
    for name, rule in raft.rules.items():
        print(f"{name:{width}}  {rule.kind:8}  {rule.section:8}  {rule.why}")
    return CONFORMS


@app.command
def schema() -> int:
    """Print the JSON Schema of the trace format, which is traces/schema.json.

    Example:
        raftworthy schema > schema.json
    """
    from raftworthy.reading import schema

    print_json(schema())
    return CONFORMS


# --- exploring the specification ---------------------------------------------------


@app.command
def explore(
    *,
    servers: int = 3,
    max_term: int = 2,
    max_log: int = 1,
    max_messages: Annotated[int | None, Parameter(help="different messages ever sent")] = 8,
    crashes: int = 0,
    commands: int | None = None,
    entries: int = 1,
    applies: bool = False,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="explore a known bug, by its id")] = None,
    any_policy: Annotated[bool, Parameter(help="let servers do what is safe, not only Figure 2")] = False,
    property: Annotated[list[str] | None, Parameter(help="check these only", negative="")] = None,
    find: Annotated[str | None, Parameter(help="look for a state, by an expression")] = None,
    symmetry: Annotated[bool, Parameter(help="states that differ in names only are one")] = True,
    limit_states: Annotated[int | None, Parameter(help="stop at so many distinct states")] = None,
    begin: Annotated[str, Parameter(help="where to begin: initial, figure_8, …")] = "initial",
    save: Annotated[Path | None, Parameter(help="write the path found as a trace")] = None,
    engine: Annotated[str, Parameter(help="python, native, or auto: native where it can and pays")] = "auto",
    json: Json = False,
) -> int:
    """Explore every behaviour of the specification within bounds, breadth first, and check its properties.

    Exit code: 0 nothing violated within the bounds, or found; 1 violated; 2 undecided or unusable.

    Examples:
        raftworthy explore --max-term 2 --max-log 1 --max-messages 7
        raftworthy explore --without restart.keep_vote --crashes 1 --save vote.ndjson
        raftworthy explore --mutant R01 --begin figure_8 --max-term 4 --commands 2 --max-messages 20
        raftworthy explore --find "len(leaders()) == 2" --max-term 2
    """
    from raftworthy.explore import Bounds, UnusableError
    from raftworthy.exploring import run_explore

    try:
        bounds = Bounds(servers, max_term, max_log, max_messages, crashes, commands, entries, applies)
    except UnusableError as error:
        return fail(str(error))
    return run_explore(
        bounds, without=without or (), mutant=mutant, any_policy=any_policy, properties=property, find=find,
        symmetry=symmetry, limit_states=limit_states, start=begin, save=save, engine=engine, as_json=json,
    )  # fmt: skip


@app.command
def lockstep(
    *,
    servers: int = 3,
    terms: int = 2,
    log: int = 1,
    commands: int = 2,
    crashes: int = 1,
    entries: int = 1,
    messages: Annotated[int | None, Parameter(help="different messages ever sent")] = 8,
    broken: Annotated[str | None, Parameter(name="--break", help="leave out this rule in the server")] = None,
    json: Json = False,
) -> int:
    """Put the core of raftd into every state that the specification reaches, and compare each step.

    Exit code: 0 they agree, 1 they differ, 2 unusable.

    Examples:
        raftworthy lockstep
        raftworthy lockstep --break vote.up_to_date
    """
    from raftworthy.lockstep import run_lockstep

    return run_lockstep(
        servers=servers, terms=terms, log=log, commands=commands, crashes=crashes, entries=entries,
        messages=messages, broken=broken, json=json,
    )  # fmt: skip


# --- the server ------------------------------------------------------------------


@app.command(help_flags=[], version_flags=[])
def serve(*options: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run one Raft server (raftworthy serve --help lists the options).

    Example:
        raftworthy serve --server n1 --cluster n1=7001,n2=7002,n3=7003 --data data/n1 --trace traces
    """
    from raftd.serve import main

    return main(options)


Cluster = Annotated[
    str, Parameter(name="--cluster", help="all servers: NAME=HOST:PORT,… (127.0.0.1 if only a port)")
]


@app.command
def put(key: str, value: str, /, *, cluster: Cluster, timeout: float = 5.0) -> int:
    """Set a key of the replicated store.

    Example:
        raftworthy put colour green --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import put

    return _request(lambda addresses: put(addresses, key, value.encode(), timeout), cluster)


@app.command
def get(key: str, /, *, cluster: Cluster, timeout: float = 5.0) -> int:
    """Read a key of the replicated store. Exit code 1 if it isn't there.

    Example:
        raftworthy get colour --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import get

    found: list[bytes | None] = []

    async def ask(addresses: Any) -> None:
        found.append(await get(addresses, key, timeout))

    code = _request(ask, cluster)
    if code:
        return code
    if found[0] is None:
        print(f"{key} is not set", file=sys.stderr)
        return 1
    print(found[0].decode(errors="replace"))
    return 0


@app.command
def status(*, cluster: Cluster, timeout: float = 1.0) -> int:
    """Say how each server sees itself: role, term, commit index.

    Example:
        raftworthy status --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import status

    seen: dict[str, Any] = {}

    async def ask(addresses: Any) -> None:
        seen.update(await status(addresses, timeout))

    code = _request(ask, cluster)
    for server, answer in seen.items():
        print(
            f"{server}: no answer"
            if answer is None
            else f"{server}: {answer.role} in term {answer.current_term}, "
            f"commit index {answer.commit_index}, follows {answer.leader or 'nobody'}"
        )
    return code


def _request(ask: Callable[[Any], Any], cluster: str) -> int:
    import asyncio

    from raftd.addresses import parse_addresses
    from raftd.client import RequestError

    try:
        asyncio.run(ask(parse_addresses(cluster)))
    except (RequestError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    return CONFORMS


@app.command
def simulate(
    *,
    seed: int = 1,
    servers: int = 3,
    steps: int = 10_000,
    faults: str = "all",
    out: Path | None = None,
    broken: Annotated[
        str | None, Parameter(name="--break", help="run all servers with this rule left out")
    ] = None,
    json: Json = False,
) -> int:
    """Run a cluster of servers in virtual time, with faults, and write its trace. One seed gives one trace.

    Faults: none, all, or a list such as loss=0.1,crash,partition (loss, duplication, delay, reordering,
    partition, crash, restart, clock, pause, corruption).

    Examples:
        raftworthy simulate --seed 7 --servers 5 --steps 100000 --out trace.ndjson
        raftworthy simulate --faults crash,loss=0.2 --break vote.once_per_term --out bad.ndjson
    """
    from contextlib import nullcontext

    from raftd.faults import BREAKS
    from raftd.simulator import Faults, SimulationError, server_names
    from raftd.simulator import simulate as run

    if broken is not None and broken not in BREAKS:
        return fail(f"no fault {broken}; there are {', '.join(sorted(BREAKS))}")
    if servers < 1 or steps < 1:
        return fail(f"{servers} servers and {steps} steps: there must be one of each at least")
    if out is not None and out.suffix in (".gz", ".zst"):
        return fail(f"{out} would not be packed; write {out.with_suffix('')}, then pack it")
    try:
        chosen = Faults.parse(faults)
        with (
            out.open("wb") if out else nullcontext() as file,
            progress_bar("simulating", "steps") as progress,
        ):
            summary = run(seed, server_names(servers), steps, chosen, file, broken=broken, progress=progress)
    except (ValueError, OSError) as error:
        return fail(str(error))
    except SimulationError as error:
        print(f"error: {error}", file=sys.stderr)
        return VIOLATES
    if json:
        print_json(summary)
    else:
        print(
            f"{summary.events:,} events of {servers} servers in {summary.seconds:.1f} s of their time: "
            f"{summary.elections} elections, {summary.leaders} leaders, {summary.terms} terms, "
            f"{summary.committed:,} entries committed, {summary.starts} starts"
        )
        print("faults: " + (", ".join(f"{n} {name}" for name, n in sorted(summary.faults.items())) or "none"))
        if summary.violation:
            print(f"the servers disagree: {summary.violation}")
        if out:
            print(f"written to {out}; raftworthy replay {out} checks it")
    return VIOLATES if summary.violation else CONFORMS


# --- measuring ---------------------------------------------------------------------


@bench.command(name="replay")
def bench_replay(
    file: Path | None = None, /, *, events: int = 1_000_000, servers: int = 5, seed: int = 1
) -> int:
    """Measure replay: events a second, beside what reading the JSON alone takes.

    Without a file, a simulation of so many servers and events is recorded first.

    Example:
        raftworthy bench replay --events 1000000 --servers 5
    """
    from raftworthy.measure import measure_replay

    if file is None and events < 1:
        return fail("at least one event, or nothing is measured")

    with progress_bar("simulating", "steps") as progress:
        print(measure_replay(file, events, servers, seed, progress))
    return CONFORMS


@bench.command(name="conformance")
def bench_conformance(*, seeds: int = 200, steps: int = 1000, servers: int = 3, first: int = 1) -> int:
    """Replay simulations under every fault mix, and count those that conform. All of them should.

    Example:
        raftworthy bench conformance --seeds 200
    """
    from raftworthy.measure import measure_conformance

    if seeds < 1 or steps < 1:
        return fail("at least one seed and one step, or nothing is measured")

    with progress_bar("simulating and replaying", "traces") as progress:
        text, code = measure_conformance(range(first, first + seeds), steps, servers, progress)
    print(text)
    return code


@bench.command(name="detection")
def bench_detection(*, changes: int = 1000, seed: int = 1, file: Path | None = None) -> int:
    """Change one value of a conforming trace at a time, and count how often replay names the changed line.

    Examples:
        raftworthy bench detection --changes 1000
        raftworthy bench detection --changes 200 --file traces/figure_8.ndjson
    """
    from raftworthy.measure import measure_detection

    if changes < 1:
        return fail("at least one change, or nothing is measured")

    with progress_bar("changing and replaying", "changes") as progress:
        print(measure_detection(changes, seed, file, progress))
    return CONFORMS


@bench.command(name="explore")
def bench_explore(
    *, max_messages: int = 13, symmetry: bool = False, limit_states: int | None = None, max_term: int = 2
) -> int:
    """Measure the native engine: distinct states and successors a second, memory, time to compile.

    Example:
        raftworthy bench explore --max-messages 13
    """
    from raftworthy.explore import Bounds
    from raftworthy.native.measure import measure_explore

    bounds = Bounds(max_term=max_term, max_messages=max_messages)
    print(measure_explore(bounds, limit_states=limit_states, symmetry=symmetry))
    return CONFORMS


# --- helpers -------------------------------------------------------------------------


@contextmanager
def progress_bar(doing: str, things: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, shown when the work takes longer than two seconds."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    start = time.monotonic()
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(things),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=time.monotonic() - start > 2)

        yield update


def print_json(data: Any) -> None:
    """Data on one line a value, for machines."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def fail(message: str) -> int:
    """Say why the input can't be used."""
    print(f"error: {message}", file=sys.stderr)
    return UNUSABLE


def show_examples(commands: App) -> None:
    """Put each command's examples into its help: cyclopts takes them for notes and leaves them out."""
    import inspect

    for name in commands:
        if name.startswith("-"):
            continue
        command = commands[name]
        _, mark, examples = (inspect.getdoc(command.default_command) or "").partition("\nExample")
        if mark:
            command.help_epilogue = "Example" + examples
        show_examples(command)


def main() -> None:
    """The command `raftworthy`."""
    show_examples(app)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        # Python's own exit code is 1, and would say that the servers violate.
        if isinstance(error, OSError) or type(error).__name__ in ("Unusable", "UnusableError"):
            sys.exit(fail(str(error)))
        import traceback

        traceback.print_exc()
        print("error: a bug in raftworthy; nothing is said about the servers", file=sys.stderr)
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()

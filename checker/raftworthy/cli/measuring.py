"""Commands that measure, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from raftworthy.cli.common import (
    CONFORMS,
    UNUSABLE,
    VIOLATES,
    Json,
    With,
    app,
    bench,
    check_writable,
    fail,
    print_json,
    progress_bar,
    reason,
)

Form = Annotated[Literal["full", "minimal"], Parameter(help="what the traces log; minimal: the least events")]


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
        return fail(reason(error), json)


@app.command
def torture(
    *,
    minutes: float = 1.0,
    seed: int = 1,
    servers: int = 3,
    broken: Annotated[
        str | None, Parameter(name="--break", help="run all servers with this rule left out")
    ] = None,
    keep: Path | None = None,
    json: Json = False,
) -> int:
    """Do to real servers all that Raft has to bear, and judge their traces and what their clients saw.

    kill -9 at any moment and within a step, orderly stops, freezing, partitions of every shape, slow and full
    disks, clocks that jump; meanwhile members come and go, and logs are compacted. What clients try again in
    their sessions must be executed once.

    Exit code: 0 all conforms and is linearizable, 1 not, 2 undecided, or a server ended by itself.

    Args:
        minutes: for how long
        servers: members in the beginning; two more servers take others' places
        seed: of the schedule of faults; what servers make of it depends on the machine, too
        keep: a new folder for the servers' data, traces and history, which are removed otherwise

    Examples:
        raftworthy torture --minutes 10 --seed 7
        raftworthy torture --servers 5 --keep tortured
    """
    import tempfile

    from raftd.cluster import ClusterError
    from raftd.faults import BREAKS
    from raftworthy.replay.verdict import print_verdict
    from raftworthy.torture import torture as run

    if not 0 < minutes < 10_000 or not 2 <= servers <= 9:
        return fail("--minutes above 0, --servers from 2 to 9", json)
    if broken is not None and broken not in BREAKS:
        return fail(f"no fault {broken}; there are {', '.join(sorted(BREAKS))}", json)
    if keep is not None and keep.exists():
        return fail(f"{keep} exists already; name a new folder", json)
    repeat = f"raftworthy torture --minutes {minutes:g} --seed {seed} --servers {servers}"
    repeat += f" --break {broken}" if broken else ""
    with tempfile.TemporaryDirectory(prefix="raftworthy-") as folder:
        try:
            with progress_bar("torturing", "seconds") as progress:
                result = run(keep or Path(folder), 60 * minutes, seed, servers, broken, progress)
        except ClusterError as error:
            return fail(f"{error}\nthe same faults again: {repeat} --keep DIR", json)
    if json:
        print_json(result.as_data())
    else:
        print(result)
        print(f"\nraftworthy linearize: {result.history}\n\nraftworthy replay:")
        print_verdict(result.traces)
        if result.exit_code:
            print(f"\nthe same faults again: {repeat} --keep DIR")
    return result.exit_code


@bench.command(name="replay")
def bench_replay(
    file: Path | None = None,
    /,
    *,
    events: int = 1_000_000,
    servers: int = 5,
    seed: int = 1,
    json: Json = False,
) -> int:
    """Measure replay: events a second, beside what reading the JSON alone takes.

    Without a file, another process records a simulation of so many servers and events first.

    Example:
        raftworthy bench replay --events 1000000 --servers 5
    """
    from raftworthy.files import Unusable
    from raftworthy.measure import measure_replay

    if file is None and (events < 1 or servers < 1):
        return fail("at least one event and one server, or nothing is measured", json)
    try:
        speed = measure_replay(file, events, servers, seed)
    except (ValueError, Unusable) as error:
        return fail(str(error), json)
    print_json(speed) if json else print(speed)
    return CONFORMS


@bench.command(name="clients")
def bench_clients(
    *,
    operations: int = 100_000,
    clients: int = 64,
    servers: int = 3,
    seed: int = 1,
    faults: str = "loss=0.001,restart=0.0001",
    json: Json = False,
) -> int:
    """Measure how long it takes to check what clients saw beside the servers' traces.

    Another process simulates a cluster with so many clients first; a million operations take it minutes.

    Example:
        raftworthy bench clients --operations 1000000
    """
    from raftworthy.measure_clients import measure_clients

    if min(operations, clients, servers) < 1:
        return fail("at least one operation, client and server, or nothing is measured", json)
    try:
        speed = measure_clients(operations, clients, servers, seed, faults)
    except ValueError as error:
        return fail(str(error), json)
    print_json(speed) if json else print(speed)
    return CONFORMS


@bench.command(name="conformance")
def bench_conformance(
    *,
    seeds: int = 200,
    steps: int = 1000,
    servers: int = 3,
    first: int = 1,
    form: Form = "full",
    json: Json = False,
) -> int:
    """Replay simulations under every fault mix, and count those that conform. All of them should.

    Examples:
        raftworthy bench conformance --seeds 200
        raftworthy bench conformance --seeds 20 --form minimal
    """
    from raftworthy.measure import measure_conformance

    if seeds < 1 or steps < 1 or servers < 1:
        return fail("at least one seed, one step and one server, or nothing is measured", json)
    with progress_bar("simulating and replaying", "traces") as progress:
        found = measure_conformance(range(first, first + seeds), steps, servers, form, progress)
    print_json(found) if json else print(found)
    return VIOLATES if found.does_not_conform else CONFORMS


@bench.command(name="detection")
def bench_detection(
    *,
    changes: int = 1000,
    seed: int = 1,
    form: Form = "full",
    file: Path | None = None,
    json: Json = False,
) -> int:
    """Change one value of a conforming trace at a time, and count how often replay names the changed line.

    Values are terms, votes, indexes and commits. Some changes leave a trace that is right, too, more so
    where less is logged.

    Examples:
        raftworthy bench detection --changes 1000
        raftworthy bench detection --changes 1000 --form minimal
        raftworthy bench detection --changes 200 --file traces/figure_8.ndjson
    """
    from raftworthy.files import Unusable
    from raftworthy.measure import measure_detection

    if changes < 1:
        return fail("at least one change, or nothing is measured", json)
    try:
        with progress_bar("changing and replaying", "changes") as progress:
            found = measure_detection(changes, seed, form, file, progress)
    except (ValueError, Unusable) as error:
        return fail(str(error), json)
    print_json(found) if json else print(found)
    return CONFORMS


@bench.command(name="complete")
def bench_complete(
    *,
    seed: int = 1,
    seeds: Annotated[int, Parameter(help="how many of each setting")] = 20,
    long: Annotated[
        bool, Parameter(help="histories of 10,000 events without a server's lines", negative="")
    ] = False,
    with_: With = None,
    limit_steps: Annotated[int, Parameter(help="how many steps are tried for a trace")] = 20_000,
    json: Json = False,
) -> int:
    """Measure how many traces with holes are explained.

    They are simulated, with and without faults; fields are hidden, or a server's lines are lost.
    Exit code: 1 if any is refuted, as all of them happened; otherwise 0.

    Examples:
        raftworthy bench complete --seeds 5
        raftworthy bench complete --with snapshots --with sessions
        raftworthy bench complete --long --seeds 2 --limit-steps 200000
    """
    from raftworthy.explore.bounds import UnusableError
    from raftworthy.explore.cases import with_extensions
    from raftworthy.measure_holes import LONG, MANY, having, measure_complete

    if seeds < 1 or limit_steps < 1:
        return fail("at least one seed and one step, or nothing is measured", json)
    try:
        config = having(with_extensions(with_, None))
    except UnusableError as error:
        return fail(str(error), json)
    with progress_bar("completing", "traces") as progress:
        chosen = range(seed, seed + seeds)
        found = measure_complete(LONG if long else MANY, chosen, limit_steps, config, progress)
    print_json(found) if json else print(found)
    return VIOLATES if any(row.refuted for row in found.rows) else CONFORMS


@bench.command(name="explore")
def bench_explore(
    *,
    max_messages: int = 13,
    symmetry: bool = False,
    limit_states: int | None = None,
    max_term: int = 2,
    servers: int = 3,
    threads: int = 1,
    engine: Annotated[Literal["native", "ray"], Parameter(help="ray: by a cluster")] = "native",
    workers: Annotated[int | None, Parameter(help="with ray; else as many as there are cores")] = None,
    address: Annotated[str | None, Parameter(help="with ray: a cluster to join; else it is here")] = None,
    reduced: Annotated[
        bool, Parameter(help="with reductions; messages are not counted", negative="")
    ] = False,
    max_log: Annotated[int, Parameter(help="with --reduced")] = 1,
    any_policy: Annotated[bool, Parameter(help="with --reduced", negative="")] = False,
    record_permits: Annotated[
        bool, Parameter(help="instead: ask Z3 anew what may be left out, and record it", negative="")
    ] = False,
    tlc: Annotated[Path | None, Parameter(help="a tla2tools.jar, to compare with")] = None,
    times: Annotated[int, Parameter(help="with --tlc: measure each so often, and take the least")] = 2,
    json: Json = False,
) -> int:
    """Measure the native engine: distinct states and successors a second, memory, time to start.

    With --tlc, measure it and TLC on the same models, with as many messages, two fewer and four fewer:
    CPU seconds of the whole process, of all its threads, start included. TLC takes minutes.

    With --engine ray, measure what a cluster's workers do, and what they send each other.

    Examples:
        raftworthy bench explore --max-messages 13 --threads 2
        raftworthy bench explore --max-messages 13 --engine ray --workers 3
        raftworthy bench explore --max-messages 10 --tlc tla2tools.jar
        raftworthy bench explore --reduced --servers 5 --max-term 4 --max-log 2 --any-policy
        raftworthy bench explore --record-permits
    """
    from raftworthy.explore.bounds import Bounds, UnusableError
    from raftworthy.native import NEEDS, available

    if not available():
        return fail(f"the native engine can't be used: {NEEDS}", json)
    if limit_states is not None and limit_states < 1:
        return fail(f"--limit-states {limit_states}: at least one state, or nothing is measured", json)
    if engine == "ray" and (tlc is not None or threads != 1):
        return fail("--engine ray has workers with a thread each; leave out --threads and --tlc", json)
    if engine != "ray" and (workers is not None or address is not None):
        return fail("--workers and --address are for --engine ray", json)
    from raftworthy.native.measure import measure_cluster, measure_explore, measure_reduced
    from raftworthy.native.starting import measure_starts

    if record_permits:
        from raftworthy.explore.recording import record

        with progress_bar("asking Z3", "questions") as progress:
            place = record(progress)
        print_json({"verdict": "done", "written": str(place)}) if json else print(f"written to {place}")
        return CONFORMS
    if reduced:
        if tlc is not None or limit_states is not None:
            return fail("--reduced exhausts one model: no --tlc, no --limit-states", json)
        try:
            figures = measure_reduced(Bounds(servers, max_term, max_log), any_policy, threads)
        except UnusableError as error:
            return fail(str(error), json)
        if json:
            print_json(figures)
        else:
            print("\n".join(f"{name}: {value}" for name, value in figures.items()))
        return CONFORMS
    if tlc is not None:
        from raftworthy.measure import machine
        from raftworthy.tla.comparing import compare, table

        if symmetry or limit_states is not None or times < 1 or (servers, threads) != (3, 1):
            return fail(
                "--tlc counts all states of three servers by one thread: no --symmetry, --limit-states, "
                "--servers, --threads, and --times is at least 1",
                json,
            )
        sizes = sorted({max(max_messages - k, 0) for k in (0, 2, 4)})
        models = [Bounds(max_term=max_term, max_messages=k) for k in sizes]
        try:
            with progress_bar("exploring with both", "runs") as progress:
                rows = compare(tlc, models, times, progress)
        except UnusableError as error:
            return fail(str(error), json)
        if json:
            print_json([row._asdict() for row in rows])
        else:
            print(f"{Bounds(max_term=max_term)}, so many messages; {machine()}\n\n{table(rows)}")
        return CONFORMS

    try:
        bounds = Bounds(servers, max_term=max_term, max_messages=max_messages)
        if engine == "ray":
            from raftworthy.explore.means import Workers

            found = measure_cluster(bounds, Workers(workers, address), limit_states, symmetry)
            print_json(found.as_data()) if json else print(found)
            return CONFORMS
        speed = measure_explore(bounds, limit_states=limit_states, symmetry=symmetry, threads=threads)
    except UnusableError as error:
        return fail(str(error), json)
    starts = measure_starts()
    print_json(speed.as_data() | {"starts": starts.as_data()}) if json else print(f"{speed}\n{starts}")
    return CONFORMS


@bench.command(name="server")
def bench_server(
    *,
    clients: str = "1,64",
    seconds: float = 5.0,
    size: int = 100,
    rounds: int = 3,
    peer: Literal["etcd"] | None = None,
    reads: Annotated[bool, Parameter(negative="")] = False,
    savings: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Measure a cluster of three real servers: puts a second and latency, on disk before each answer.

    Without and with traces, and another system beside it if it is installed. They take turns.

    Args:
        clients: how many at a time, each with one put under way
        seconds: how long each load lasts
        size: of the values put, in bytes
        rounds: how many turns each system has; the medians are shown
        peer: measure this system, too
        reads: measure reads instead, by each way that servers have
        savings: leave out in turn what makes raftd fast: batching, group commit, pipelining, parallel disks

    Examples:
        raftworthy bench server
        raftworthy bench server --reads --rounds 1
        raftworthy bench server --savings
        raftworthy bench server --peer etcd --seconds 10
    """
    from raftworthy.measure_reads import measure_reads
    from raftworthy.measure_server import PeerError, measure_server

    numbers = [part.strip() for part in clients.split(",")]
    if not all(part.isdigit() and 0 < int(part) <= 1000 for part in numbers):
        return fail(f"--clients {clients}: write numbers of clients such as 1,64, each from 1 to 1000", json)
    if not (0.1 <= seconds < 3600 and 0 <= size <= 60_000 and rounds > 0):
        return fail("--seconds from 0.1, --size up to 60000, --rounds from 1", json)
    if reads and (peer or savings):
        return fail("reads are measured alone: leave out --reads, or --peer and --savings", json)
    speed: object
    try:
        with progress_bar("measuring servers", "turns") as progress:
            loads = list(map(int, numbers))
            if reads:
                speed = measure_reads(loads, seconds, size, rounds, progress)
            else:
                speed = measure_server(loads, seconds, size, rounds, peer, savings, progress)
    except PeerError as error:
        return fail(str(error), json)
    if json:
        print_json(speed)
    else:
        print(speed)
    return CONFORMS


@bench.command(name="elections")
def bench_elections(
    *,
    ratios: str = "0.5,1,2,5,10,20",
    servers: int = 5,
    elections: int = 1000,
    steps: int = 50_000,
    seed: int = 1,
    plot: Path | None = None,
    json: Json = False,
) -> int:
    """Measure how long a cluster is without a leader, against T / broadcast time, in virtual time.

    Leaders are crashed again and again, as for Figure 16 of the paper. Then the same cluster runs in a
    synchronous world, an asynchronous one, and between: it is safe in all, and gets on only within bounds.

    Args:
        ratios: T / broadcast time, one or more
        elections: how many for each ratio
        steps: how many in each world
        plot: draw the times into this file, .svg or .png

    Examples:
        raftworthy bench elections
        raftworthy bench elections --elections 1000 --plot elections.svg
    """
    from raftd.simulator import SimulationError
    from raftworthy.measure_timing import PlotError, measure_timing
    from raftworthy.measure_timing import plot as draw

    try:
        wanted = [float(part) for part in ratios.split(",")]
    except ValueError:
        wanted = []
    if not wanted or not all(0 < ratio <= 1000 for ratio in wanted):
        return fail(f"--ratios {ratios}: write numbers such as 1,5,10, each above 0", json)
    if servers < 2 or elections < 2 or steps < 1:
        return fail("at least two servers, two elections and one step, or nothing is measured", json)
    try:
        if plot is not None:
            check_writable(plot)
        with progress_bar("timing elections", "values of T") as progress:
            timing = measure_timing(wanted, servers, elections, steps, seed, progress)
        if plot is not None:
            draw(timing, plot)
    except (PlotError, ValueError) as error:
        return fail(str(error), json)
    except SimulationError as error:
        print(f"error: {error}")
        return VIOLATES
    if json:
        print_json(timing)
    else:
        print(timing)
    return VIOLATES if set(timing.verdicts) != {"conforms"} else CONFORMS


@bench.command(name="prove")
def bench_prove(
    *,
    seeds: Annotated[int, Parameter(help="how many of Z3's seeds")] = 20,
    cores: Annotated[bool, Parameter(help="begin with the hypotheses that are recorded")] = True,
    json: Json = False,
) -> int:
    """Measure the proof for any number of servers with different seeds, and how often Z3 gives up.

    Exit code: 0 if every question is proved with every seed, otherwise 2.

    Examples:
        raftworthy bench prove --seeds 20
        raftworthy bench prove --no-cores
    """
    if seeds < 1:
        return fail(f"--seeds {seeds}: at least one", json)
    from raftworthy.prove.unbounded.measure import measure_prove, table

    with progress_bar("proving", "seeds") as progress:
        runs = measure_prove(seeds, cores, progress)
    print_json([r._asdict() for r in runs]) if json else print(table(runs))
    return UNUSABLE if any(r.unknown for r in runs) else CONFORMS

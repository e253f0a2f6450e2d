"""Commands for whoever runs raftd: a server, its clients, a cluster in virtual time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from raftworthy.cli.common import (
    CONFORMS,
    UNUSABLE,
    VIOLATES,
    Json,
    app,
    check_writable,
    fail,
    print_json,
    progress_bar,
)

Answer = TypeVar("Answer")

NOT_SET = 1


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


Timeout = Annotated[float, Parameter(name="--timeout", help="how long to wait for an answer, in seconds")]


@app.command
def put(key: str, value: str, /, *, cluster: Cluster, timeout: Timeout = 5.0, json: Json = False) -> int:
    """Set a key of the replicated store.

    Exit code: 0 it is committed and applied, 2 it is not, or nobody knows: the message says which.

    Example:
        raftworthy put colour green --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import put

    _ask(cluster, timeout, json, lambda addresses: put(addresses, key, os.fsencode(value), timeout))
    if json:
        print_json({"verdict": "done", "key": key, "value": value})
    return CONFORMS


@app.command
def get(key: str, /, *, cluster: Cluster, timeout: Timeout = 5.0, json: Json = False) -> int:
    """Read a key of the replicated store.

    Exit code: 0 it is there, 1 it is not, 2 nobody answered.

    Example:
        raftworthy get colour --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import get

    found = _ask(cluster, timeout, json, lambda addresses: get(addresses, key, timeout))
    value = None if found is None else found.decode(errors="replace")
    if json:
        print_json({"verdict": "not set" if found is None else "done", "key": key, "value": value})
    elif value is None:
        print(f"{key} is not set", file=sys.stderr)
    else:
        print(value)
    return CONFORMS if found is not None else NOT_SET


@app.command
def status(*, cluster: Cluster, timeout: Timeout = 1.0, json: Json = False) -> int:
    """Say how each server sees itself: role, term, commit index.

    Exit code: 0 somebody answered, 2 nobody did.

    Example:
        raftworthy status --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import status

    seen = _ask(cluster, timeout, json, lambda addresses: status(addresses, timeout))
    if json:
        print_json({"verdict": "done" if any(seen.values()) else "unusable", "servers": seen})
    else:
        for server, answer in seen.items():
            print(
                f"{server}: no answer"
                if answer is None
                else f"{server}: {answer.role} in term {answer.current_term}, "
                f"commit index {answer.commit_index}, follows {answer.leader or 'nobody'}"
            )
    if any(seen.values()):
        return CONFORMS
    return UNUSABLE if json else fail(f"no server answered; is one of {cluster} running?")


def _ask(
    cluster: str, timeout: float, json: bool, ask: Callable[[Any], Coroutine[Any, Any, Answer]]
) -> Answer:
    """Ask the cluster, or end with one line that says what became of the request."""
    import asyncio

    from raftd.addresses import parse_addresses
    from raftd.client import RequestError

    try:
        addresses = parse_addresses(cluster)
        if not 0 < timeout < float("inf"):
            raise ValueError(f"--timeout {timeout:g} is no time to wait; give seconds, more than 0")
        return asyncio.run(ask(addresses))
    except (RequestError, ValueError) as error:
        sys.exit(fail(str(error), json))


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
        return fail(f"no fault {broken}; there are {', '.join(sorted(BREAKS))}", json)
    if servers < 1 or steps < 1:
        return fail(f"{servers} servers and {steps} steps: there must be one of each at least", json)
    try:
        if out is not None:
            check_writable(out)
        chosen = Faults.parse(faults)
        with (
            out.open("wb") if out else nullcontext() as file,
            progress_bar("simulating", "steps") as progress,
        ):
            summary = run(seed, server_names(servers), steps, chosen, file, broken=broken, progress=progress)
    except ValueError as error:
        return fail(str(error), json)
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

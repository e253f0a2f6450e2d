"""Commands for whoever runs raftd: a server, its clients, a cluster in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from raftworthy.cli.common import CONFORMS, UNUSABLE, VIOLATES, Json, app, fail, print_json, progress_bar


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

"""Commands for whoever runs raftd: a server, its clients, a cluster in virtual time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

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

if TYPE_CHECKING:
    from raftd.client import Client
    from raftd.codec import Status

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


@Parameter(name="*")
@dataclass(frozen=True)
class Access:
    """What a cluster asks of its clients."""

    cluster_id: str | None = None
    "what the servers were given as --cluster-id"
    tls_certificate: Path | None = None
    "this client's certificate, PEM"
    tls_key: Path | None = None
    "its private key"
    tls_authority: Path | None = None
    "whose certificates the servers must show"


OPEN = Access()

Timeout = Annotated[float, Parameter(name="--timeout", help="how long to wait for an answer, in seconds")]


@app.command
def put(
    key: str,
    value: str,
    /,
    *,
    cluster: Cluster,
    session: Annotated[
        str | None,
        Parameter(
            help="execute it once, however often it is tried: new opens a session, its id goes on with it"
        ),
    ] = None,
    number: Annotated[
        int | None,
        Parameter(help="of this request in its session, 1 in a new one; give it again to try again"),
    ] = None,
    timeout: Timeout = 5.0,
    access: Access = OPEN,
    json: Json = False,
) -> int:
    """Set a key of the replicated store.

    A put whose answer is lost is not tried again, for nobody knows whether it was executed. In a session it
    is, and is executed once. The servers have sessions if they were started with --with sessions.

    Exit code: 0 it is committed and applied, 2 it is not, or nobody knows: the message says which.

    Examples:
        raftworthy put colour green --cluster n1=7001,n2=7002,n3=7003
        raftworthy put colour green --session new --cluster n1=7001,n2=7002,n3=7003
        raftworthy put colour blue --session 17 --number 2 --cluster n1=7001,n2=7002,n3=7003
    """
    if wrong := _no_session(session, number):
        return fail(wrong, json)
    opened: dict[str, int] = {}

    async def ask(client: Client) -> None:
        if session is None:
            await client.put(key, os.fsencode(value))
            return
        if session == "new":
            made, first = await client.open_session(), 1
        else:
            assert number is not None
            made, first = client.resume_session(int(session), number), number
        opened.update(session=made.id, number=first)
        if not json:
            print(f"session {made.id}, number {first}", flush=True)
        await made.put(key, os.fsencode(value))

    _ask(cluster, timeout, access, json, ask)
    if json:
        print_json({"verdict": "done", "key": key, "value": value, **opened})
    return CONFORMS


def _no_session(session: str | None, number: int | None) -> str | None:
    """What is wrong with what somebody says of a session; None if nothing is."""
    if session is None or session == "new":
        if number not in (None, 1 if session else None):
            return "--number goes with --session ID; the first request of a new session is number 1"
        return None
    if not session.isdecimal() or int(session) < 1:
        return f"--session {session} is no session: write new, or the id that a new one was given"
    if number is None or number < 1:
        return (
            f"--session {session} needs --number: 1 and up, one more for each request, the same to try again"
        )
    return None


@app.command
def get(
    key: str,
    /,
    *,
    cluster: Cluster,
    read: Annotated[
        Literal["index", "log", "stale"],
        Parameter(
            help="index: the leader makes sure that it still leads; log: an entry of the log, like a put; "
            "stale: what one server has, which may be an old value"
        ),
    ] = "index",
    server: Annotated[str | None, Parameter(help="with --read stale: whom to ask, by its name")] = None,
    timeout: Timeout = 5.0,
    access: Access = OPEN,
    json: Json = False,
) -> int:
    """Read a key of the replicated store. Only --read stale may give a value that is out of date.

    Exit code: 0 it is there, 1 it is not, 2 nobody answered.

    Example:
        raftworthy get colour --cluster n1=7001,n2=7002,n3=7003
        raftworthy get colour --read stale --server n2 --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.codec import Read

    if server is not None and read != "stale":
        return fail(f"only a stale read is of one server; with --server {server} give --read stale", json)

    async def ask(client: Client) -> bytes | None:
        if server is None:
            return await client.get(key, read=Read(read))
        if server not in client.addresses:
            raise ValueError(f"no server is called {server}; --cluster has {', '.join(client.addresses)}")
        return await client.get_stale(key, server)

    found = _ask(cluster, timeout, access, json, ask)
    value = None if found is None else found.decode(errors="replace")
    if json:
        print_json({"verdict": "not set" if found is None else "done", "key": key, "value": value})
    elif value is None:
        print(f"{key} is not set", file=sys.stderr)
    else:
        print(value)
    return CONFORMS if found is not None else NOT_SET


@app.command
def transfer(
    *,
    cluster: Cluster,
    to: Annotated[str | None, Parameter(help="who shall lead; any server that has all entries")] = None,
    timeout: Timeout = 5.0,
    access: Access = OPEN,
    json: Json = False,
) -> int:
    """Let another server lead, as before a machine is stopped. The leader tells it to stand for election.

    Exit code: 0 another leads, 2 it doesn't, or nobody knows: the message says which.

    Examples:
        raftworthy transfer --cluster n1=7001,n2=7002,n3=7003
        raftworthy transfer --to n2 --cluster n1=7001,n2=7002,n3=7003
    """
    leader = _ask(cluster, timeout, access, json, lambda client: client.transfer(to))
    if json:
        print_json({"verdict": "done", "leader": leader})
    else:
        print(f"{leader} leads")
    return CONFORMS


@app.command
def status(*, cluster: Cluster, timeout: Timeout = 1.0, access: Access = OPEN, json: Json = False) -> int:
    """Say how each server sees itself: role, term, commit index; and of a leader's followers, what they lack.

    Exit code: 0 somebody answered, 2 nobody did.

    Example:
        raftworthy status --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.client import status

    seen = _ask(cluster, timeout, access, json, status)
    if json:
        print_json({"verdict": "done" if any(seen.values()) else "unusable", "servers": seen})
    else:
        for server, answer in seen.items():
            print(f"{server}: {'no answer' if answer is None else _in_words(answer)}")
    if any(seen.values()):
        return CONFORMS
    return UNUSABLE if json else fail(f"no server answered; is one of {cluster} running?")


def _in_words(status: Status) -> str:
    """A server as it sees itself, and what a leader knows of its followers."""
    told = [
        f"{status.role} in term {status.current_term}",
        f"commit index {status.commit_index}",
        f"follows {status.leader or 'nobody'}",
    ]
    for peer, follower in status.followers.items():
        told.append(
            f"{peer} lacks {follower.lag}"
            + (f" (silent for {follower.silent:.1f} s)" if follower.silent > 1 else "")
        )
    return ", ".join(told)


def _ask(
    cluster: str,
    timeout: float,
    access: Access,
    json: bool,
    ask: Callable[[Client], Coroutine[Any, Any, Answer]],
) -> Answer:
    """Ask the cluster, or end with one line that says what became of the request."""
    import asyncio

    from raftd.addresses import parse_addresses
    from raftd.client import Client, RequestError
    from raftd.security import Tls

    async def run(addresses: Any, tls: Tls | None) -> Answer:
        async with Client(addresses, timeout, cluster=access.cluster_id, tls=tls) as client:
            return await ask(client)

    try:
        tls = Tls.of(access.tls_certificate, access.tls_key, access.tls_authority)
        addresses = parse_addresses(cluster)
        if not 0 < timeout < float("inf"):
            raise ValueError(f"--timeout {timeout:g} is no time to wait; give seconds, more than 0")
        return asyncio.run(run(addresses, tls))
    except (RequestError, ValueError, OSError) as error:
        sys.exit(fail(str(error), json))


@app.command
def simulate(
    *,
    seed: int = 1,
    servers: int = 3,
    steps: int = 10_000,
    faults: str = "all",
    clients: Annotated[
        int, Parameter(help="so many work with a key-value store, and what they see stands in the trace")
    ] = 0,
    lease_reads: Annotated[
        float | None,
        Parameter(help="read by lease, as if no clock ran more than so many times as fast as another"),
    ] = None,
    out: Path | None = None,
    snapshot_after: Annotated[
        int, Parameter(help="servers compact their logs when so many bytes have been applied; 0: never")
    ] = 0,
    broken: Annotated[
        str | None, Parameter(name="--break", help="run all servers with this rule left out")
    ] = None,
    byzantine: Annotated[
        str | None, Parameter(help="change this field of one message on its way: KIND.FIELD[:N], the Nth")
    ] = None,
    with_: Annotated[
        list[str] | None,
        Parameter(name="--with", help="extensions of Raft, instead of those that serve has", negative=""),
    ] = None,
    figure_2: Annotated[bool, Parameter(help="no extensions: servers of Figure 2", negative="")] = False,
    json: Json = False,
) -> int:
    """Run a cluster of servers in virtual time, with faults, and write its trace. One seed gives one trace.

    Faults: none, all, or a list such as loss=0.1,crash,partition (loss, duplication, delay, reordering,
    partition, crash, restart, clock, pause, disk, transfer, corruption).

    Examples:
        raftworthy simulate --seed 7 --servers 5 --steps 100000 --out trace.ndjson
        raftworthy simulate --clients 8 --out seen.ndjson && raftworthy replay seen.ndjson
        raftworthy simulate --with reads --clients 6 --lease-reads 1 --faults clock=0.6,partition=0.004
        raftworthy simulate --faults crash,loss=0.2 --break vote.once_per_term --out bad.ndjson
        raftworthy simulate --faults none --byzantine append_entries.leader_commit:9 --out changed.ndjson
        raftworthy simulate --faults partition --figure-2
    """
    from contextlib import nullcontext
    from dataclasses import replace

    from raftd.faults import BREAKS
    from raftd.lying import Lie
    from raftd.simulated_faults import Faults
    from raftd.simulator import SIMULATED, SimulationError, server_names
    from raftd.simulator import simulate as run
    from raftd.state import chosen_extensions

    if broken is not None and broken not in BREAKS:
        return fail(f"no fault {broken}; there are {', '.join(sorted(BREAKS))}", json)
    if snapshot_after < 0:
        return fail(f"--snapshot-after {snapshot_after} is no number of bytes; write 0 for never", json)
    if servers < 1 or steps < 1:
        return fail(f"{servers} servers and {steps} steps: there must be one of each at least", json)
    if clients < 0:
        return fail(f"--clients {clients}: give a number, 0 for none", json)
    if lease_reads is not None and not 1 <= lease_reads < float("inf"):
        return fail(f"--lease-reads {lease_reads:g}: give a factor, 1 or more", json)
    try:
        if out is not None:
            check_writable(out)
        chosen = Faults.parse(faults)
        lie = Lie.parse(byzantine) if byzantine else None
        config = replace(SIMULATED.having(chosen_extensions(with_, figure_2)), snapshot_after=snapshot_after)
        if lease_reads is not None and not config.reads:
            raise ValueError("--lease-reads is for servers with the extension reads: give --with reads, too")
        config = replace(config, lease_drift=lease_reads)
        with (
            out.open("wb") if out else nullcontext() as file,
            progress_bar("simulating", "steps") as progress,
        ):
            summary = run(
                seed,
                server_names(servers),
                steps,
                chosen,
                file,
                broken=broken,
                config=config,
                lie=lie,
                clients=clients,
                progress=progress,
            )
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
            + (f", {summary.reads:,} reads without the log" if summary.reads else "")
        )
        if summary.snapshots:
            print(f"snapshots: {summary.snapshots:,} taken, {summary.installed:,} sent and installed")
        print("faults: " + (", ".join(f"{n} {name}" for name, n in sorted(summary.faults.items())) or "none"))
        for told in summary.lies[:10]:
            where = f"received at line {told.line}" if told.line else told.stopped or "received by nobody"
            print(f"changed {told.field}: {told.sent} into {told.said}; {where}")
        if summary.violation:
            print(f"the servers disagree: {summary.violation}")
        if out:
            print(f"written to {out}; raftworthy replay {out} checks it")
    return VIOLATES if summary.violation else CONFORMS

"""Start one server: `python -m raftd.serve --server n1 --cluster n1=7001,n2=7002,n3=7003 --data data/n1`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from raftd.addresses import Address, Addresses, parse_addresses
from raftd.bank import Bank
from raftd.codec import MAX_COMMAND, MAX_MESSAGE
from raftd.core import Config
from raftd.faults import BREAKS, make_core
from raftd.killing import KILL_POINTS, DoomedServer, KillAt
from raftd.kv import KeyValue
from raftd.security import Tls, is_loopback
from raftd.server import NoTrace, Server, Trace
from raftd.sessions import StateMachine
from raftd.state import EXTENSIONS, SAVINGS, USUAL, chosen_extensions
from raftd.storage import Storage, StorageError
from raftd.trace import TraceFile
from raftd.transport import MAX_CONNECTIONS, Transport

log = logging.getLogger("raftd")

EXIT_STOPPED: Final = 0
EXIT_UNUSABLE: Final = 2

MACHINES: dict[str, type[StateMachine]] = {"key-value": KeyValue, "bank": Bank}


async def serve(
    server: str,
    addresses: Addresses,
    data: Path,
    *,
    trace: Path | None = None,
    config: Config | None = None,
    listen: str | None = None,
    cluster: str | None = None,
    tls: Tls | None = None,
    max_connections: int = MAX_CONNECTIONS,
    watch: Address | None = None,
    seed: int | None = None,
    duration: float | None = None,
    exit_with_stdin: bool = False,
    trace_after_persist: bool = False,
    fault_switch: bool = False,
    kill_at: KillAt | None = None,
    broken: str | None = None,
    joins: bool = False,
    machine: str = "key-value",
) -> None:
    """Run one server until SIGTERM or SIGINT, for `duration` seconds, or until its stdin is closed.

    `data` is its folder, made if it isn't there; `trace` a folder for its trace files; `watch` where it
    answers over HTTP how it is. Raises `StorageError` if its store can't be used, `OSError` if a port can't.
    """
    config = config or Config()
    assert config.max_entries * (MAX_COMMAND + 64) < MAX_MESSAGE, "an AppendEntries would not fit a frame"
    if joins and not config.membership:
        raise ValueError("--join needs --with membership, on all servers")
    transport = Transport(
        server,
        addresses,
        listen,
        cluster=cluster,
        tls=tls,
        max_connections=max_connections,
        joins=joins,
        open_to_new=config.membership,
    )
    servers = tuple(addresses)
    first = tuple(i for i in servers if not (joins and i == server))
    with contextlib.ExitStack() as open_files:
        storage = open_files.enter_context(Storage(data, server, servers, cluster))
        events: Trace = NoTrace(lambda: storage.note_started(storage.started + 1))
        if trace is not None:
            events = file = TraceFile(
                trace, server, servers, storage.started, storage.note_started, config.extensions, first
            )
            open_files.callback(file.close)
        rng = random.Random(seed)
        core = make_core(
            server, first, rng, config, storage.persistent, broken=broken, traced=trace is not None
        )
        made = Server if kill_at is None else partial(DoomedServer, kill_at)
        running: Server = made(
            core,
            storage,
            transport,
            time.monotonic,
            trace=events,
            trace_after_persist=trace_after_persist,
            fault_switch=fault_switch,
            machine=MACHINES[machine](),
        )
        if watch is not None:
            from raftd.watching import watched

            open_files.enter_context(watched(running, watch))
        with _stopped_by(running, duration, exit_with_stdin):
            log.info("%s serves on %s with %s", server, addresses[server], data, extra={"server": server})
            await running.run()
    log.info("%s has stopped", server, extra={"server": server})


@contextlib.contextmanager
def _stopped_by(running: Server, duration: float | None, exit_with_stdin: bool) -> Iterator[None]:
    """Whatever can end a server politely."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, running.leave)
    timer = loop.call_later(duration, running.stop) if duration is not None else None

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop may have gone before us
            loop.call_soon_threadsafe(running.stop)

    if exit_with_stdin:
        # A thread, not the loop's own watch: that one takes no /dev/null and no file.
        threading.Thread(target=watch_stdin, daemon=True).start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


def _parser() -> argparse.ArgumentParser:
    default = Config()
    parser = argparse.ArgumentParser(
        prog="raftworthy serve",
        description="Run one Raft server until SIGTERM or SIGINT.",
        epilog="Example: raftworthy serve --server n1 --cluster n1=7001,n2=7002,n3=7003 --data data/n1",
    )
    parser.add_argument("--server", required=True, help="its name, one of those in --cluster")
    parser.add_argument(
        "--cluster", required=True, metavar="NAME=HOST:PORT,...", help="all servers, itself included"
    )
    parser.add_argument("--data", required=True, type=Path, help="its folder, used by no other server")
    parser.add_argument("--trace", type=Path, help="write its trace into this folder")
    parser.add_argument("--listen", metavar="HOST", help="listen here, not on its address in --cluster")
    parser.add_argument(
        "--cluster-id", metavar="NAME", help="talk only to servers that give the same; kept in the store"
    )
    parser.add_argument("--election-timeout", type=float, default=default.election_timeout, metavar="SECONDS")
    parser.add_argument(
        "--heartbeat-interval", type=float, default=default.heartbeat_interval, metavar="SECONDS"
    )
    parser.add_argument(
        "--snapshot-after",
        type=int,
        default=default.snapshot_after,
        metavar="BYTES",
        help="take a snapshot, and compact the log, when so much has been applied; 0: never",
    )
    parser.add_argument(
        "--with",
        dest="extensions",
        action="append",
        metavar="NAME",
        help=f"an extension of Raft ({', '.join(EXTENSIONS)}), the same on all servers; "
        f"if none is named: {', '.join(USUAL)}",
    )
    parser.add_argument(
        "--join",
        action="store_true",
        help="--cluster names the first servers and this one, which joins them: see raftworthy members add",
    )
    parser.add_argument(
        "--session-timeout",
        type=float,
        default=default.session_timeout,
        metavar="SECONDS",
        help="with sessions: end one that nobody uses for so long",
    )
    parser.add_argument(
        "--machine",
        choices=sorted(MACHINES),
        default="key-value",
        help="what the servers replicate: keys and values, or the accounts of a bank",
    )
    parser.add_argument("--figure-2", action="store_true", help="no extensions")
    parser.add_argument(
        "--lease-reads",
        type=float,
        metavar="FACTOR",
        help="read without asking anybody while a lease lasts: linearizable only as long as no server's "
        "clock runs more than FACTOR times as fast as another's, and none is set back or stands still while "
        "its server runs",
    )
    parser.add_argument("--seed", type=int, help="for the election timeouts")
    parser.add_argument(
        "--for", type=float, dest="duration", metavar="SECONDS", help="stop by itself after this time"
    )
    parser.add_argument(
        "--exit-with-stdin",
        action="store_true",
        help="stop when stdin is closed, as it is when the parent dies",
    )
    parser.add_argument("--verbose", action="store_true", help="log connections that come and go")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--watch",
        type=_address,
        metavar="[HOST:]PORT",
        help="answer /metrics (Prometheus), /health and /status over HTTP here",
    )
    parser.add_argument(
        "--max-connections", type=int, default=MAX_CONNECTIONS, metavar="N", help="from peers and clients"
    )
    security = parser.add_argument_group("security")
    security.add_argument("--tls-certificate", type=Path, metavar="PEM", help="names this server (SAN, DNS)")
    security.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    security.add_argument(
        "--tls-authority", type=Path, metavar="PEM", help="whose certificates servers and clients must show"
    )
    security.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS: whoever reaches the port may read, write and vote",
    )
    tests = parser.add_argument_group("for tests only")
    tests.add_argument(
        "--trace-after-persist", action="store_true", help="write each event after its fsync, not before"
    )
    tests.add_argument(
        "--fault-switch", action="store_true", help="let any client cut this server off from its peers"
    )
    tests.add_argument(
        "--kill-at",
        type=KillAt.parse,
        metavar="POINT[:N]",
        help=f"kill -9 itself in its Nth step that changes the disk; POINT: {', '.join(KILL_POINTS)}",
    )
    tests.add_argument(
        "--without",
        action="append",
        default=[],
        choices=SAVINGS,
        metavar="SAVING",
        help=f"leave out what saves time, to measure it; SAVING: {', '.join(SAVINGS)}; repeatable",
    )
    tests.add_argument(
        "--break",
        dest="broken",
        choices=sorted(BREAKS),
        metavar="RULE",
        help=f"leave out a rule of Raft; RULE: {', '.join(sorted(BREAKS))}",
    )
    return parser


def _address(text: str) -> Address:
    return parse_addresses(f"watch={text}")["watch"]


def _refuse_strangers(options: argparse.Namespace, tls: Tls | None) -> None:
    """Without TLS a server is for this machine only, unless it is told otherwise."""
    address = parse_addresses(options.cluster).get(options.server)
    if tls or options.insecure or address is None:
        return
    host = options.listen or address.host
    if not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines, and anybody there could read, write and vote: "
            "give --tls-certificate, --tls-key and --tls-authority, or --insecure on a network you trust"
        )


def _logging(verbose: bool, format: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if format == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(message)s", timestamp=True))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one server; the exit code is 2 if it can't be run."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 < options.heartbeat_interval < options.election_timeout:
        parser.error("--heartbeat-interval must be more than 0 and less than --election-timeout")
    if options.election_timeout == float("inf"):
        parser.error("--election-timeout must be a number of seconds")
    if options.duration is not None and not 0 < options.duration < float("inf"):
        parser.error("--for must be a number of seconds, more than 0")
    if options.snapshot_after < 0:
        parser.error("--snapshot-after must be a number of bytes, or 0 for never")
    if options.max_connections < 1:
        parser.error("--max-connections must be 1 at least")
    if options.lease_reads is not None and not 1 <= options.lease_reads < float("inf"):
        parser.error("--lease-reads is how many times as fast as another a clock may run: 1 or more")
    _logging(options.verbose, options.log_format)
    if options.lease_reads is not None:
        log.warning(
            "%s reads by lease: it may read an old value if a clock runs more than %g times as fast as "
            "another, or is set back or stopped while its server runs",
            options.server,
            options.lease_reads,
        )
    try:
        tls = Tls.of(options.tls_certificate, options.tls_key, options.tls_authority)
        _refuse_strangers(options, tls)
        extensions = chosen_extensions(options.extensions, options.figure_2)
        if options.lease_reads is not None and "reads" not in extensions:
            raise ValueError("--lease-reads is for servers with the extension reads: give --with reads, too")
        uvloop.run(
            serve(
                options.server,
                parse_addresses(options.cluster),
                options.data,
                trace=options.trace,
                config=Config(
                    options.election_timeout,
                    options.heartbeat_interval,
                    session_timeout=options.session_timeout,
                    snapshot_after=options.snapshot_after,
                    reads=True,
                    lease_drift=options.lease_reads,
                )
                .having(extensions)
                .without(options.without),
                listen=options.listen,
                cluster=options.cluster_id,
                tls=tls,
                max_connections=options.max_connections,
                watch=options.watch,
                seed=options.seed,
                duration=options.duration,
                exit_with_stdin=options.exit_with_stdin,
                trace_after_persist=options.trace_after_persist,
                fault_switch=options.fault_switch,
                kill_at=options.kill_at,
                broken=options.broken,
                joins=options.join,
                machine=options.machine,
            )
        )
    except StorageError as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    except (OSError, ValueError) as error:
        print(f"error: {_reason(error, options)}", file=sys.stderr)
        return EXIT_UNUSABLE
    return EXIT_STOPPED


def _reason(error: OSError | ValueError, options: argparse.Namespace) -> str:
    """What the system or the options refused, in words."""
    if isinstance(error, socket.gaierror):
        address = options.listen or parse_addresses(options.cluster)[options.server]
        return f"{options.server} can't listen on {address}: {error.strerror}"
    if isinstance(error, FileExistsError):
        return f"{error.filename} is a file; name a folder for traces"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())

"""How fast a cluster of three servers takes commands, durably, and etcd beside it in the same run.

Every put is answered after a majority has it on disk: raftd and etcd both call fsync before they acknowledge.
Servers and clients share one machine, so this measures what a command costs, not what a network would add.
Systems take turns, so that each is measured in the same weather.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raftd.cluster import Cluster, free_addresses
from raftd.state import SAVINGS
from raftworthy.measure import machine

Put = Callable[[str, bytes], Awaitable[object]]


class PeerError(Exception):
    """The other system can't be measured: why, and what to do."""


@dataclass(frozen=True)
class Load:
    """Puts by so many clients, each with one under way at a time; latencies in milliseconds."""

    system: str
    clients: int
    puts: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Puts a second."""
        return self.puts / self.seconds


@dataclass(frozen=True)
class ServerSpeed:
    """All loads in the order in which they were measured."""

    loads: list[Load]
    peer_own: float | None  # writes a second, as the peer's own tool measures it
    machine: str

    def of(self, system: str, clients: int) -> tuple[float, float, float]:
        """A system's median rate, p50 and p99 under a load."""
        found = [load for load in self.loads if (load.system, load.clients) == (system, clients)]
        rates, p50s, p99s = ([getattr(load, name) for load in found] for name in ("rate", "p50", "p99"))
        return statistics.median(rates), statistics.median(p50s), statistics.median(p99s)

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(load.system for load in self.loads))

    @property
    def clients(self) -> list[int]:
        return list(dict.fromkeys(load.clients for load in self.loads))

    def __str__(self) -> str:
        lines = [f"three servers and their clients, fsync before every acknowledgement ({self.machine})"]
        lines.append(f"{'':24}{'clients':>8}{'puts/s':>10}{'p50 ms':>9}{'p99 ms':>9}")
        for clients in self.clients:
            for system in self.systems:
                rate, p50, p99 = self.of(system, clients)
                lines.append(f"{system:24}{clients:>8}{rate:>10,.0f}{p50:>9.2f}{p99:>9.2f}")
        if self.peer_own is not None:
            lines.append(f"etcd by its own tool (etcdctl check perf): {self.peer_own:,.0f} writes/s")
        for clients in self.clients:
            rate, p50, _ = self.of(RAFTD, clients)
            for system in self.systems[1:]:
                other_rate, other_p50, _ = self.of(system, clients)
                lines.append(
                    f"{clients} client{'s' * (clients > 1)}: {system} has {other_rate / rate:.2f} times "
                    f"the puts/s of {RAFTD}, and {other_p50 / p50:.2f} times its p50"
                )
        return "\n".join(lines)


RAFTD, TRACED, ETCD = "raftd", "raftd with its trace", "etcd"
WITHOUT = {f"without {name.replace('_', ' ')}": name for name in SAVINGS}
# Etcd's own: a busy machine should slow both, and not cost one of them its leader.
PATIENT = ("--election-timeout", "1.0", "--heartbeat-interval", "0.1")


def measure_server(
    clients: Sequence[int],
    seconds: float,
    size: int,
    rounds: int,
    peer: str | None = None,
    savings: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> ServerSpeed:
    """Put commands of `size` bytes for `seconds` under each load, on each system, `rounds` times.

    With `savings`, each thing that makes raftd fast is left out in turn.

    Raises:
        PeerError: the peer isn't installed, or doesn't start.
    """
    systems = [RAFTD, *(WITHOUT if savings else [TRACED]), *([ETCD] if peer else [])]
    loads, own = [], None
    for number in range(rounds):
        for at, system in enumerate(systems):
            progress(number * len(systems) + at, rounds * len(systems))
            with tempfile.TemporaryDirectory(prefix="raftworthy-") as folder:
                if system == ETCD:
                    with _etcd(Path(folder)) as endpoints:
                        opened = partial(_etcd_client, _etcd_leader(endpoints))
                        loads += [load(system, n, seconds, size, opened) for n in clients]
                        if number == rounds - 1:
                            own = _check_perf(endpoints)
                else:
                    options = (*PATIENT, *(("--without", WITHOUT[system]) if system in WITHOUT else ()))
                    with Cluster(folder=Path(folder), trace=system == TRACED, options=options) as cluster:
                        opened = partial(_raftd_client, cluster)
                        loads += [load(system, n, seconds, size, opened) for n in clients]
    return ServerSpeed(loads, own, machine())


def load(
    system: str,
    clients: int,
    seconds: float,
    size: int,
    opened: Callable[[], contextlib.AbstractAsyncContextManager[Put]],
) -> Load:
    """Each client has a connection of its own, and puts one value after another."""
    value = bytes(size)
    latencies: list[float] = []

    async def one(number: int, end: float) -> None:
        async with opened() as put:
            await put(f"key {number}", value)  # connect, and find the leader
            latencies.clear()
            while (began := time.perf_counter()) < end:
                await put(f"key {number}", value)
                latencies.append(time.perf_counter() - began)

    async def all_of_them() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(one(number, end) for number in range(clients)))

    began = time.perf_counter()
    asyncio.run(all_of_them())
    took = time.perf_counter() - began
    cut = statistics.quantiles(latencies, n=100)
    return Load(system, clients, len(latencies), took, cut[49] * 1000, cut[98] * 1000)


@contextlib.asynccontextmanager
async def _raftd_client(cluster: Cluster) -> AsyncIterator[Put]:
    async with cluster.client(10.0) as client:
        yield client.put


# --- etcd, over its JSON gateway -----------------------------------------------------------------------


@contextlib.contextmanager
def _etcd(folder: Path) -> Iterator[list[str]]:
    """Three etcd processes on loopback, as they come; their client endpoints."""
    binary = shutil.which("etcd")
    if binary is None:
        raise PeerError("etcd isn't installed; on Debian: apt-get install etcd-server etcd-client")
    names = ("e1", "e2", "e3")
    ports = [address.port for address in free_addresses(2 * len(names))]
    peers = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports[:3], strict=True)}
    serve = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports[3:], strict=True)}
    cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    processes = []
    try:
        for name in names:
            command = [binary, "--name", name, "--data-dir", str(folder / name), "--log-level", "error"]
            command += ["--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]]
            command += ["--listen-client-urls", serve[name], "--advertise-client-urls", serve[name]]
            command += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        yield list(serve.values())
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


def _etcd_leader(endpoints: Sequence[str]) -> str:
    """The endpoint of the leader; puts sent elsewhere would take a hop more."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for endpoint in endpoints:
            request = urllib.request.Request(f"{endpoint}/v3/maintenance/status", b"{}")
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2) as answer:
                status = json.load(answer)
                if status.get("leader") == status["header"]["member_id"]:
                    return endpoint
        time.sleep(0.1)
    raise PeerError("etcd elects no leader within 20 s")


@contextlib.asynccontextmanager
async def _etcd_client(endpoint: str) -> AsyncIterator[Put]:
    """A kept-alive connection; as little HTTP as will do, so that etcd is measured and not this client."""
    host, port = endpoint.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def put(key: str, value: bytes) -> None:
        coded = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value).decode()}
        body = json.dumps(coded).encode()
        writer.write(
            b"POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise PeerError(f"etcd answers {head.splitlines()[0].decode()}")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().splitlines()
            if line.startswith(b"content-length")
        )
        await reader.readexactly(length)

    try:
        yield put
    finally:
        writer.close()


def _check_perf(endpoints: Sequence[str]) -> float | None:
    """Writes a second by etcd's own load of 60 s, None without its client."""
    tool = shutil.which("etcdctl")
    if tool is None:
        return None
    command = [tool, "--endpoints", ",".join(endpoints), "check", "perf", "--load", "xl"]
    done = subprocess.run(command, capture_output=True, text=True, env={"ETCDCTL_API": "3"}, check=False)
    rates = [line for line in done.stdout.splitlines() if "writes/s" in line]
    digits = "".join(x for x in (rates[-1].split("writes/s")[0] if rates else "") if x.isdigit())
    return float(digits) if digits else None

"""A cluster of real processes on this machine, to be killed, cut off and started again.

    with Cluster() as cluster:
        leader = cluster.leader()
        cluster.kill(leader)
        cluster.leader()
        cluster.restart(leader)

Nothing survives the `with`: each server also stops when the pipe to its stdin closes, so even a kill -9 of
this process leaves none behind. Each server's data, log and traces stay in `folder`, if one was given.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import raftd
from raftd import codec
from raftd.addresses import LOCALHOST, Address, format_addresses
from raftd.client import Client
from raftd.codec import (
    ClientHello,
    Done,
    FaultRequest,
    Faults,
    Reply,
    Request,
    Status,
    StatusRequest,
)
from raftd.security import Tls

# Below the ports that the kernel gives to outgoing connections: none of those can take a dead server's
# port, or connect to itself there.
PORTS: Final = range(20_000, 32_000)
POLL: Final = 0.02

T = TypeVar("T")


class ClusterError(Exception):
    """A server did not do what was waited for; the end of its log is in the message."""


class Cluster:
    """N servers, n1 to nN, as child processes."""

    def __init__(
        self,
        size: int = 3,
        folder: Path | None = None,
        *,
        trace: bool = True,
        options: Sequence[str] = (),
        own_options: Mapping[str, Sequence[str]] | None = None,
        tls: Tls | None = None,
    ) -> None:
        """`options` go to every server, as in `("--election-timeout", "0.3")`; `own_options` to one each.

        `tls` is for us, its clients; the servers have theirs in their options.
        """
        self.servers = tuple(f"n{number}" for number in range(1, size + 1))
        self.addresses = dict(zip(self.servers, free_addresses(size), strict=True))
        self._joined: set[str] = set()
        self._temporary = tempfile.TemporaryDirectory(prefix="raftd-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else folder or Path()
        self.traces = self.folder / "traces"
        self.tls = tls
        self._options = [*options, *(("--trace", str(self.traces)) if trace else ())]
        self._own_options = dict(own_options or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            for server in self.servers:
                self.start(server)
            # All of them: a server that is still on its way up can't be told of a partition.
            self.wait_until(lambda: all(map(self.status, self.servers)), "all servers answer")
            self.leader()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all servers, by force if need be, and remove the folder if it is ours."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close_stdin(process)
        self._processes.clear()
        if self._temporary:
            self._temporary.cleanup()

    # One server.

    def data(self, server: str) -> Path:
        """Its folder."""
        return self.folder / server

    def log(self, server: str) -> str:
        """What it has said so far, over all its starts."""
        path = self.folder / f"{server}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, server: str, *options: str) -> None:
        """Start a server that isn't running, with more `options` if you like."""
        assert not self.is_alive(server), f"{server} is running already"
        command = [sys.executable, "-m", "raftd.serve"]
        known = {i: a for i, a in self.addresses.items() if i == server or i not in self._joined}
        command += ["--server", server, "--cluster", format_addresses(known)]
        command += ["--join"] if server in self._joined else []
        command += ["--data", str(self.data(server)), "--fault-switch", "--exit-with-stdin"]
        command += [*self._options, *self._own_options.get(server, ()), *options]
        packages = str(Path(raftd.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{server}.log").open("ab") as log:
            self._processes[server] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
            )

    def join(self, *options: str) -> str:
        """Start one more server, which is no member until it is added."""
        server = f"n{len(self.servers) + 1}"
        (self.addresses[server],) = free_addresses(1)
        self.servers += (server,)
        self._joined.add(server)
        self.restart(server, *options)
        return server

    def restart(self, server: str, *options: str) -> None:
        """Start a dead server again, and wait until it answers."""
        self.start(server, *options)
        self.wait_until(lambda: self.status(server), f"{server} answers")

    def kill(self, server: str) -> None:
        """kill -9: whatever it had not made durable is gone."""
        process = self._processes.pop(server)
        process.kill()
        process.wait()
        _close_stdin(process)

    def stop(self, server: str, timeout: float = 5.0) -> int:
        """Stop it politely; its exit code."""
        self._processes[server].terminate()
        return self.wait_for_exit(server, timeout)

    def ask_to_stop(self, server: str) -> None:
        """Stop it politely, without waiting for its end."""
        self._processes[server].terminate()

    def wait_for_exit(self, server: str, timeout: float = 10.0) -> int:
        """Wait for a server to end by itself; its exit code, negative for a signal."""
        try:
            code = self._processes[server].wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"{server} still runs after {timeout:g} s", [server]) from None
        _close_stdin(self._processes.pop(server))
        return code

    @contextlib.contextmanager
    def paused(self, server: str) -> Iterator[None]:
        """Freeze it for a while: alive, silent, and behind when it thaws."""
        self.freeze(server)
        try:
            yield
        finally:
            self.thaw(server)

    def freeze(self, server: str) -> None:
        """Let it be alive and do nothing."""
        self._processes[server].send_signal(signal.SIGSTOP)

    def thaw(self, server: str) -> None:
        """Let it go on."""
        self._processes[server].send_signal(signal.SIGCONT)

    def has_ended(self, server: str) -> bool:
        """Whether it ended, by itself, and `wait_for_exit` hasn't been asked how."""
        return server in self._processes and not self.is_alive(server)

    def is_alive(self, server: str) -> bool:
        return server in self._processes and self._processes[server].poll() is None

    def status(self, server: str) -> Status | None:
        """How it sees itself, or None if it doesn't answer."""
        try:
            reply = self._ask(server, StatusRequest(1))
        except OSError:
            return None
        assert isinstance(reply, Status), reply
        return reply

    # All of them.

    def client(self, timeout: float = 5.0) -> Client:
        """A client that knows all servers; to be used inside a running loop."""
        return Client(self.addresses, timeout, tls=self.tls)

    def leader(self, timeout: float = 10.0) -> str:
        """Wait until a majority of all servers follows one leader that is up."""

        def find() -> str | None:
            seen = [
                status for server in self.servers if self.is_alive(server) and (status := self.status(server))
            ]
            for candidate in seen:
                term = candidate.current_term
                followers = [s for s in seen if s.leader == candidate.server and s.current_term == term]
                if candidate.role == "leader" and len(followers) > len(self.servers) // 2:
                    return candidate.server
            return None

        return self.wait_until(find, "a majority follows a leader", timeout)

    def wait_until(self, condition: Callable[[], T | None], claim: str, timeout: float = 10.0) -> T:
        """Ask again and again until the answer is neither None nor false."""
        end = time.monotonic() + timeout
        while True:
            value = condition()
            if value is not None and value is not False:
                return value
            # By kill -9 they die because somebody wanted it, perhaps with --kill-at.
            wanted = (None, -signal.SIGKILL)
            dead = [server for server, process in self._processes.items() if process.poll() not in wanted]
            if dead:
                raise self._error(f"{', '.join(dead)} ended before this was true: {claim}", dead)
            if time.monotonic() > end:
                raise self._error(f"not true after {timeout:g} s: {claim}", self.servers)
            time.sleep(POLL)

    def partition(self, group: Iterable[str]) -> None:
        """Cut the servers of `group` off from all others, in both directions."""
        inside = set(group)
        assert inside <= set(self.servers), inside
        for server in self.servers:
            other_side = [peer for peer in self.servers if (peer in inside) != (server in inside)]
            if self.is_alive(server):
                self.fault(server, Faults(mute=tuple(other_side), deaf=tuple(other_side)))

    def heal(self) -> None:
        """Let nothing be wrong around any server that is up."""
        for server in self.servers:
            if self.is_alive(server):
                self.fault(server, Faults())

    def fault(self, server: str, faults: Faults) -> None:
        """Let these faults be in force around a server, and no others."""
        reply = self._ask(server, FaultRequest(1, faults))
        assert isinstance(reply, Done), f"{server}: {reply}"

    def _ask(self, server: str, request: Request) -> Reply:
        context = self.tls.opening() if self.tls else None
        return ask(self.addresses[server], request, context=context, server=server)

    def _error(self, message: str, servers: Iterable[str]) -> ClusterError:
        ends = [f"--- end of {server}'s log\n{self.log(server)[-2000:]}" for server in servers]
        return ClusterError("\n".join([message, *ends]))


def ask(
    address: Address,
    request: Request,
    timeout: float = 2.0,
    context: ssl.SSLContext | None = None,
    server: str | None = None,
) -> Reply:
    """One request, one reply, without asyncio. Raises `OSError` if there is none."""
    with contextlib.ExitStack() as open_sockets:
        connection = open_sockets.enter_context(socket.create_connection(address, timeout))
        if context is not None:
            connection = open_sockets.enter_context(context.wrap_socket(connection, server_hostname=server))
        connection.sendall(codec.encode(ClientHello()) + codec.encode(request))
        frames = codec.Frames(codec.REPLY.limit)
        while (body := frames.next()) is None:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError(f"{address} hung up")
            frames.feed(data)
    return codec.REPLY.decode(body)


def free_addresses(count: int) -> list[Address]:
    """Ports of this machine that nobody listens on just now."""
    addresses: list[Address] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((LOCALHOST, port))
            except OSError:
                continue
        addresses.append(Address(LOCALHOST, port))
        if len(addresses) == count:
            return addresses
    raise OSError(f"fewer than {count} free ports in {PORTS}")


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()

"""How a server is, for those who operate it, over HTTP: `/metrics`, `/health`, `/status`.

A thread of its own answers, so that a server that hangs in a slow fsync can still be asked. It only reads,
and whatever it reads is one whole step's or the next one's.

    /metrics   Prometheus' text format
    /health    200 if this server leads or follows a leader, 503 if it knows of none
    /status    what `raftworthy status` prints, as JSON
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from raftd.addresses import Address
from raftd.core import Role
from raftd.server import Server


class Figures(Collector):
    """A server's figures at the time they are asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        server, status, counts = self._server, self._server.status(), self._server.counts
        for role in Role:
            yield _gauge("role", "1 for the role that the server is in", status.role == role, role=role)
        yield _gauge("current_term", "its current term", status.current_term)
        yield _gauge("has_leader", "1 if it leads, or knows whom it follows", status.leader is not None)
        yield _gauge("log_entries", "entries in its log", status.log_length)
        yield _gauge("commit_index", "the last entry that it knows to be committed", status.commit_index)
        yield _gauge("last_applied", "the last entry that its state machine has applied", status.last_applied)
        yield _gauge("connections", "opened by peers and clients", server.transport.connections)
        yield _gauge("starts", "of this server on this disk, now included", status.start)
        for peer, follower in status.followers.items():
            yield _gauge("follower_lag_entries", "what a follower lacks", follower.lag, follower=peer)
            yield _gauge("follower_silent_seconds", "since its last answer", follower.silent, follower=peer)
        yield _counter("elections", "that it stood in", counts.elections)
        yield _counter("leaderships", "elections that it won", counts.leaderships)
        yield _counter("commands", "of clients that it appended as leader", counts.commands)
        yield _counter("reads", "of clients that it answered without the log", server.readers.answered)
        yield _counter("read_rounds", "in which it asked whether it still leads", server.readers.rounds)
        yield _counter("disk_writes", "transactions, each with its fsync", counts.writes)
        yield _counter("disk_write_seconds", "time that these took", counts.write_seconds)


def _gauge(name: str, help: str, value: float, **labels: str) -> Metric:
    metric = GaugeMetricFamily(f"raftd_{name}", help, labels=list(labels))
    metric.add_metric(list(labels.values()), float(value))
    return metric


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"raftd_{name}", help, value=float(value))


class _Listener(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Who asks how a server is every few seconds is no news."""


@contextlib.contextmanager
def watched(server: Server, address: Address) -> Iterator[None]:
    """Answer at `address` until the `with` ends. Raises `OSError` if it can't be listened on."""
    registry = CollectorRegistry()
    registry.register(Figures(server))
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, status = environ.get("PATH_INFO"), server.status()
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        if path == "/health":
            healthy = status.leader is not None
            body = f"{status.server} is {status.role}, follows {status.leader or 'nobody'}\n".encode()
            start_response(
                "200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "text/plain")]
            )
            return [body]
        if path == "/status":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [msgspec.json.encode(status) + b"\n"]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"try /metrics, /health or /status\n"]

    listener = make_server(address.host, address.port, answer, _Listener, _Silent)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()

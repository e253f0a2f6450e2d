"""A crew of processes, on one machine or on many: Ray's actors, each with one shard, its own memory and disk.

They hand each other what they found through Ray's object store; whoever asked for the search only sees how
far each is. Nobody can look into the others' tables, so each notes what it has sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.means import Workers, usable_cores
from raftworthy.native.context import MOST_SHARDS, SLACK
from raftworthy.native.functions import Functions, Sent
from raftworthy.native.search import LostError
from raftworthy.native.shard import Tally
from raftworthy.native.storage import Disk, memory_to_use
from raftworthy.native.team import Team, Work

NEEDS = "the engine ray can't be used: it needs Ray; try: pip install 'raftworthy[cluster]'"
MOST_ROWS = 1 << 17  # of a worker, in a round: some tenths of a second
MANY = 32  # workers, from which a round has more rows, as there are as many parcels as pairs of workers
ROW_MEMORY = 1 << 13  # bytes of memory that there have to be for each row of a round
STORE_MEMORY = 512 << 20  # bytes of a local cluster's object store
LOOPBACK = "127.0.0.1"
PATIENCE = 60.0  # seconds for a worker to start
NO_ROWS = bytes(SLACK)
Parcel = npt.NDArray[np.uint8]  # Ray hands arrays on without copying them


class Worker:
    """One process of a cluster, and its shard. Ray makes it and calls it."""

    def __init__(self, sent: Sent, number: int, size: int, folder: str) -> None:
        self.sent, self.number, self.size, self.folder = sent, number, size, Path(folder)
        self.team: Team
        self.work = Work()

    def where(self) -> tuple[str, int]:
        """Which node this is, and which process."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def open(self, memory: int | None, sharing: int) -> int:
        """Begin anew, with so much memory, or a share of what the machine has; how much that is."""
        if hasattr(self, "team"):
            self.team.close()
        memory = memory if memory is not None else memory_to_use() // sharing
        numbers = range(self.number, self.number + 1)
        self.team = Team(Functions.received(self.sent), numbers, self.size, memory, Disk(self.folder))
        return memory

    def begin(self, row: bytes) -> Tally:
        self.team.clear()
        return self.team.begin(row)[0]

    def expand(self, rows: int, limit: int) -> list[Any]:
        """How far it is, and then what it found for each worker."""
        with self._timed("expanding"):
            (tally,) = self.team.expand(rows, [limit])
            parcels = [self.team.parcel(k) if k != self.number else NO_ROWS for k in range(self.size)]
            self.work.bytes_sent += sum(len(p) - SLACK for p in parcels)
            self.work.rounds += 1
            return [tally, *(np.frombuffer(p, np.uint8) for p in parcels)]

    def exchange(self, *parcels: Parcel) -> Tally:
        with self._timed("exchanging"):
            found = {k: [(p.ctypes.data, len(p) - SLACK)] for k, p in enumerate(parcels) if len(p) > SLACK}
            return self.team.exchange(found)[0]

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        setattr(self.work, what, getattr(self.work, what) + time.perf_counter() - began)
        self.work.cpu += time.process_time() - cpu

    def descend(self) -> tuple[int, Tally]:
        size, (tally,) = self.team.descend()
        return size, tally

    def step(self, number: int) -> tuple[int, int] | None:
        return self.team.step(self.number, number)

    def save(self, number: int) -> dict[str, Any]:
        return self.team.save(number)[0]

    def keep(self, saved: dict[str, Any]) -> None:
        self.team.keep([saved])

    def load(self, saved: dict[str, Any]) -> Tally:
        return self.team.load([saved])[0]

    def clear(self) -> None:
        """Remove its folder, which is nobody else's."""
        self.team.clear()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def report(self) -> tuple[int, Work]:
        """Bytes written to disk, and what it has done."""
        return self.team.written(), self.work


class Cluster:
    """A crew of Ray's actors. Each has a folder in that of `disk`, of its own node."""

    def __init__(self, functions: Functions, workers: Workers, memory: int | None, disk: Disk) -> None:
        """`memory` is that of all; None: what the machines have.

        Raises:
            UnusableError: Ray is missing, or there is no such cluster, or it is too small.
        """
        self.disk = disk
        self.size, self._ours = start_ray(workers)
        import ray

        self._ray, size = ray, self.size
        self._memory = None if memory is None else memory // size
        self._sent = ray.put(functions.sent())
        self._nodes: list[str | None] = [None] * size
        self._workers: list[Any] = []
        self._parcels: list[Any] = []
        self._known: list[tuple[int, Work]] = []
        try:
            self._workers = [self._hire(k) for k in range(size)]
            self._open()
        except BaseException:
            self._let_go()
            raise

    # --- workers ---

    def _hire(self, k: int) -> Any:
        """A new worker, on the node where its files are, if that is still there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._nodes[k]
        where = NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD"
        actor = self._ray.remote(num_cpus=1, max_restarts=0)(Worker)
        folder = str(self.disk.folder.resolve() / f"worker-{k}")
        return actor.options(scheduling_strategy=where).remote(self._sent, k, self.size, folder)

    def _open(self) -> None:
        """Have all begin anew, when all are there."""
        try:
            places = self._ray.get([w.where.remote() for w in self._workers], timeout=PATIENCE)
        except self._ray.exceptions.GetTimeoutError as error:
            raise UnusableError(
                f"{self.size} workers have not started within {PATIENCE:.0f} s; try fewer --workers"
            ) from error
        self._nodes = [node for node, _ in places]
        self.processes = [process for _, process in places]
        sharing = [self._nodes.count(node) for node in self._nodes]
        memory = self._all("open", [(self._memory, n) for n in sharing])
        self.round = max(256, min(MOST_ROWS * max(1, (self.size // MANY) ** 2), min(memory) // ROW_MEMORY))

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]] | None = None, returns: int = 1) -> Any:
        """What each answers, in their order."""
        work = zip(self._workers, arguments or [()] * self.size, strict=True)
        return self._get([getattr(w, method).options(num_returns=returns).remote(*a) for w, a in work])

    def _get(self, answers: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(answers)
        except errors.RayTaskError as error:
            raise error.cause from None
        except (errors.RayActorError, errors.ObjectLostError, errors.WorkerCrashedError) as error:
            raise LostError(str(error).splitlines()[0]) from error

    def recover(self) -> None:
        for k, worker in enumerate(self._workers):
            try:
                self._ray.get(worker.where.remote())
            except self._ray.exceptions.RayActorError:
                self._workers[k] = self._hire(k)
        self._open()

    def close(self) -> None:
        if self.disk.given is None and not self.disk.stays:
            with contextlib.suppress(Exception):  # whoever is gone leaves its folder behind
                self.clear()
        self._let_go()

    def _let_go(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        if self._ours:
            self._ray.shutdown()
        self.disk.close()

    # --- the search ---

    def begin(self, row: bytes) -> list[Tally]:
        out: list[Tally] = self._all("begin", [(row,)] * self.size)
        return out

    def expand(self, rows: int, limits: list[int]) -> list[Tally]:
        n = self.size + 1
        refs = [
            w.expand.options(num_returns=n).remote(rows, x)
            for w, x in zip(self._workers, limits, strict=True)
        ]
        self._parcels = [answer[1:] for answer in refs]
        tallies: list[Tally] = self._get([answer[0] for answer in refs])
        return tallies

    def exchange(self) -> list[Tally]:
        out: list[Tally] = self._all(
            "exchange", [tuple(p[k] for p in self._parcels) for k in range(self.size)]
        )
        self._parcels = []
        return out

    def descend(self) -> tuple[int, list[Tally]]:
        sizes, tallies = zip(*self._all("descend"), strict=True)
        return sum(sizes), list(tallies)

    def step(self, shard: int, number: int) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self._get(self._workers[shard].step.remote(number))
        return found

    # --- checkpoints ---

    def save(self, number: int) -> list[dict[str, Any]]:
        saved: list[dict[str, Any]] = self._all("save", [(number,)] * self.size)
        return saved

    def keep(self, saved: list[dict[str, Any]]) -> None:
        self._all("keep", [(what,) for what in saved])

    def load(self, saved: list[dict[str, Any]]) -> list[Tally]:
        tallies: list[Tally] = self._all("load", [(what,) for what in saved])
        return tallies

    def clear(self) -> None:
        self._all("clear")

    def written(self) -> int:
        return sum(written for written, _ in self._reports())

    def work(self) -> tuple[Work, ...]:
        return tuple(work for _, work in self._reports())

    def _reports(self) -> list[tuple[int, Work]]:
        with contextlib.suppress(LostError):  # what it has done is lost, too
            self._known = self._all("report")
        return self._known


def start_ray(workers: Workers) -> tuple[int, bool]:
    """Start a cluster on this machine, or join one; for how many workers, and whether it is ours to stop.

    Raises:
        UnusableError: Ray is missing, or there is no such cluster, or it is too small.
    """
    address, size = workers.address, workers.number
    if size is None and address is None:
        size = usable_cores()
    if size is not None and not 0 < size <= MOST_SHARDS:
        raise UnusableError(f"{size} workers: from 1 to {MOST_SHARDS} are possible")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        _knock(address)
    if address is None or address.startswith(f"{LOOPBACK}:"):
        # What it does here is that Ray keeps to loopback. It is read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise UnusableError(NEEDS) from error
    if ray.is_initialized():
        return size or _cores(), False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(
                num_cpus=size, include_dashboard=False, _node_ip_address=LOOPBACK,
                object_store_memory=STORE_MEMORY, **quiet,
            )  # fmt: skip
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"at {address}" if address else "on this machine"
        raise UnusableError(f"no cluster of Ray {where}: {str(error).splitlines()[0]}") from error
    if address is None and [n["NodeManagerAddress"] for n in ray.nodes()] != [LOOPBACK]:
        ray.shutdown()
        raise UnusableError("a cluster begun here would listen beyond loopback: Ray was imported too early")
    if size is not None and _cores() < size:
        few = _cores()
        ray.shutdown()
        raise UnusableError(f"the cluster at {address} has {few} cores; try: --workers {few}")
    return size or _cores(), True


def _knock(address: str) -> None:
    """Make sure that somebody is at an address: Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UnusableError(
            f"no cluster of Ray at {address}: {error}; give HOST:PORT of one begun by: ray start --head"
        ) from error


def _cores() -> int:
    """How many the cluster has, and so how many workers it can have."""
    import ray

    return min(int(ray.cluster_resources().get("CPU", 0)), MOST_SHARDS)

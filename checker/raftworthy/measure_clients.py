"""How long it takes to check what clients saw beside servers' traces: a simulated cluster with clients."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from raftd.core import Config
from raftd.simulated_faults import Faults
from raftd.simulator import Simulation, server_names
from raftworthy.measure import machine
from raftworthy.replay.verdict import check, print_verdict
from raftworthy.witness.checking import Counts

AT_ONCE = 5_000  # steps; then the simulation sees whether there are enough operations


@dataclass(frozen=True)
class ClientsSpeed:
    """What checking a trace with clients took: CPU seconds, bytes."""

    counts: Counts
    events: int  # of servers
    servers: int
    faults: str
    size: int
    replay: float
    clients: float
    peak_memory: int
    machine: str

    def __str__(self) -> str:
        operations = self.counts.operations
        return (
            f"{operations:,} operations of {self.counts.clients:,} clients ({self.counts.entries:,} entries, "
            f"{self.counts.looks:,} reads), {self.events:,} events of {self.servers} servers, "
            f"{self.size / 1e6:,.0f} MB, faults: {self.faults} ({self.machine})\n"
            f"{self.replay + self.clients:.1f} s of CPU, reading included: {self.replay:.1f} s for the "
            f"servers' events, {self.clients:.1f} s for the clients' "
            f"({operations / self.clients:,.0f} operations a second)\n"
            f"peak memory: {self.peak_memory / 2**20:,.0f} MB"
        )


def measure_clients(operations: int, clients: int, servers: int, seed: int, faults: str) -> ClientsSpeed:
    """Check the trace of a cluster of which clients asked so much, as `raftworthy replay` does.

    Another process simulates it, so that its memory isn't counted.

    Raises:
        ValueError: no such fault.
    """
    Faults.parse(faults)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.ndjson"
        simulating = multiprocessing.get_context("spawn").Process(
            target=simulate_clients, args=(path, operations, clients, servers, seed, faults)
        )
        simulating.start()
        simulating.join()
        if simulating.exitcode:
            raise AssertionError(f"the simulation of seed {seed} failed: {simulating.exitcode}")
        start = time.process_time()
        verdict = check([path])
        spent = time.process_time() - start
        if verdict.clients is None or verdict.clients.counts is None or verdict.report is None:
            print_verdict(verdict)
            raise AssertionError(f"seed {seed}: servers and clients are right, and it is {verdict.verdict}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return ClientsSpeed(
            verdict.clients.counts, verdict.report.events, servers, faults, path.stat().st_size,
            spent - verdict.clients.cpu, verdict.clients.cpu, peak, machine(),
        )  # fmt: skip


def simulate_clients(path: Path, operations: int, clients: int, servers: int, seed: int, faults: str) -> None:
    """Write the trace of a cluster with clients at work, until they have asked for so many operations.

    The servers send as much at once as real ones do.
    """
    with path.open("wb") as out:
        names = server_names(servers)
        world = Simulation(seed, names, Faults.parse(faults), out, config=Config(), clients=clients)
        assert world.clients is not None
        while world.clients.asked < operations:
            world.run(world.summary.steps + AT_ONCE)

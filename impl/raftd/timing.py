"""How long elections take, and when a cluster makes progress: the simulator as a stopwatch.

T                the election timeout; each is drawn from [T, 2T]
broadcast time   from a request to all servers until their answers are back. Section 5.6: it has to be
                 much smaller than T, or candidates split the vote again and again
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import BinaryIO

from raftd.core import Config, Role
from raftd.simulated_faults import Faults
from raftd.simulated_servers import Server
from raftd.simulator import Progress, Simulation, Summary, server_names

BROADCAST_TIME = 0.015  # seconds, as in the paper's Figure 16
LED_FOR = 3  # so many T a leader leads before it is crashed, enough for all to follow it
LIMIT = 1000  # so many T without a leader, and the cluster counts as stuck


class _Measured(Simulation):
    """A simulation that notes when it has leaders."""

    def __init__(
        self,
        seed: int,
        servers: tuple[str, ...],
        faults: Faults,
        config: Config,
        out: BinaryIO | None = None,
    ) -> None:
        super().__init__(seed, servers, faults, out, config=config)
        self.network.latency = (BROADCAST_TIME * 0.25, BROADCAST_TIME * 0.75)  # one way, in seconds
        self.led = 0.0  # seconds with a leader whom a majority follows
        self._checked = 0.0

    def _disturb(self) -> None:
        super()._disturb()
        if self._is_led():
            self.led += self.now - self._checked
        self._checked = self.now

    def _is_led(self) -> bool:
        cores = [server.core for server in self.servers.values() if server.core]
        for core in cores:
            if core.role is Role.LEADER:
                term = core.current_term
                followers = [c for c in cores if c.leader == core.server and c.current_term == term]
                if 2 * len(followers) > len(self.servers):
                    return True
        return False


class _Crashing(_Measured):
    """Each leader is crashed after a while; the time until the next one is a measurement."""

    def __init__(self, seed: int, servers: tuple[str, ...], config: Config) -> None:
        super().__init__(seed, servers, Faults(), config)
        self.times: list[float] = []
        self._crashed = False
        self._since = 0.0  # the last crash, or the end of the last election that was timed

    def _lead(self, name: str) -> None:
        super()._lead(name)
        if self._crashed:
            self.times.append(self.now - self._since)
            self._crashed, self._since = False, self.now
        # At a random moment between two heartbeats, as in the paper.
        later = LED_FOR * self.config.election_timeout + self.rng.random() * self.config.heartbeat_interval
        self._at(self.now + later, self._crash_leader, self.servers[name])

    def _crash_leader(self, server: Server) -> None:
        if server.core is not None and server.core.role is Role.LEADER and self._is_led():
            self._crashed, self._since = True, self.now
            self._stop(server, LED_FOR * self.config.election_timeout)

    def measure(self, wanted: int) -> list[float]:
        """So many times without a leader, in seconds; fewer if nobody leads for long, in `LIMIT` T."""
        while len(self.times) < wanted and self.now - self._since < LIMIT * self.config.election_timeout:
            self.run(self.summary.steps + 1000)
        return self.times[:wanted]


@dataclass(frozen=True)
class ElectionTimes:
    """Times without a leader, in seconds, for one T."""

    timeout: float
    ratio: float  # T / broadcast time
    times: list[float]

    def quantile(self, percent: int) -> float | None:
        """Seconds within which so many of a hundred elections ended, None if there were fewer than two."""
        return quantiles(self.times, n=100)[percent - 1] if len(self.times) > 1 else None


def election_times(
    ratios: list[float], servers: int, elections: int, seed: int, progress: Progress = lambda done, todo: None
) -> Iterator[ElectionTimes]:
    """Crash the leader again and again, for each T of so many broadcast times. The paper's Figure 16."""
    for number, ratio in enumerate(ratios):
        progress(number, len(ratios))
        timeout = ratio * BROADCAST_TIME
        config = Config(election_timeout=timeout, heartbeat_interval=timeout / 2)
        simulation = _Crashing(seed, server_names(servers), config)
        yield ElectionTimes(timeout, ratio, simulation.measure(elections))


@dataclass(frozen=True)
class Availability:
    """What a cluster got done in one kind of world."""

    world: str
    led: float  # the share of time with a leader whom a majority follows
    committed: float  # entries a second
    summary: Summary


# What is bounded in each, and what is not. Section 5.6; the lecture's synchronous and asynchronous systems.
WORLDS: dict[str, Faults] = {
    "synchronous": Faults(),
    "slow and fast clocks": Faults(clock=0.6),
    "partly synchronous": Faults(delay=0.05, reordering=0.2, pause=0.002, loss=0.02),
    "asynchronous": Faults(delay=0.9, reordering=0.9, pause=0.02, clock=0.6, loss=0.2),
}


def availability(servers: int, steps: int, seed: int, traces: Path | None = None) -> Iterator[Availability]:
    """The same cluster in each world, its trace in a folder if one is given.

    Whatever happens it stays safe, or `SimulationError` is raised.
    """
    for world, faults in WORLDS.items():
        with (traces / f"{world}.ndjson").open("wb") if traces else nullcontext() as out:
            simulation = _Measured(seed, server_names(servers), faults, Config(), out)
            summary = simulation.run(steps)
        yield Availability(
            world, simulation.led / simulation.now, summary.committed / simulation.now, summary
        )

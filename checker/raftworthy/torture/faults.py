"""What is done to a cluster while it is tortured: processes, network, disks and clocks go wrong.

The schedule comes from a seed. Each fault ends after a while; several may be in force at a time.
"""

from __future__ import annotations

import heapq
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from raftd.cluster import Cluster
from raftd.codec import Faults
from raftd.killing import KILL_POINTS

BETWEEN = 0.6  # mean seconds between two faults
LASTS = (0.1, 3.0)  # seconds that a fault lasts
DIES_WITHIN = 40  # steps that change the disk, for a server that is to kill itself
PATIENCE = 30.0  # seconds until all members have to agree once nothing is wrong any more
POLL = 0.02
STOPPED = (0, -signal.SIGTERM)  # exit codes of a server that was asked to, or before it could listen
STOPPED_BY_FULL_DISK = 2  # the exit code of a server that can't go on
KILLED = -9

SHAPES = ("split", "isolated", "mute", "deaf", "bridge", "any")

Progress = Callable[[int, int | None], None]


class TortureError(Exception):
    """A server did what no fault explains: it ended by itself, or never came to agree with the others."""


class Torturer:
    """Does one thing after another to any server, member or not, and counts what it did."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._faults = dict.fromkeys(cluster.servers, Faults())
        self._frozen: set[str] = set()
        self._doomed: set[str] = set()  # whose end is our doing, however it comes about
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._kinds = {
            "kill": self._kill,
            "kill within a step": self._kill_within_a_step,
            "stop": self._stop,
            "freeze": self._freeze,
            "partition": self._partition,
            "slow disk": self._slow_disk,
            "full disk": self._full_disk,
            "clock": self._clock,
        }

    def run(self, seconds: float, progress: Progress) -> None:
        """Do one thing after another, for so long."""
        began = now = time.monotonic()
        following = began
        while now < began + seconds:
            self._end_what_is_due(now)
            self._bury_the_dead()
            if now >= following:
                kind = self._rng.choice(list(self._kinds))
                self._kinds[kind](self._rng.choice(self._cluster.servers), now + self._rng.uniform(*LASTS))
                following = now + self._rng.expovariate(1 / BETWEEN)
            progress(int(now - began), int(seconds))
            time.sleep(POLL)
            now = time.monotonic()

    def relent(self) -> None:
        """End all that is wrong, and wait until the members agree."""
        # Not one end after the other: a server that doesn't answer would keep us waiting at each.
        self._ends.clear()
        self._faults = dict.fromkeys(self._cluster.servers, Faults())
        for server in self._frozen:
            if self._cluster.is_alive(server):
                self._cluster.thaw(server)
        self._frozen.clear()
        until = time.monotonic() + PATIENCE
        while not self._agreed():
            self._bury_the_dead()
            for server in self._cluster.servers:
                if not self._cluster.is_alive(server):
                    self._doomed.discard(server)
                    self._cluster.start(server)
                self._tell(server)
            if time.monotonic() > until:
                seen = {server: self._cluster.status(server) for server in self._cluster.servers}
                raise TortureError(f"nothing is wrong any more, and after {PATIENCE:g} s: {seen}")
            time.sleep(POLL)

    def _agreed(self) -> bool:
        """All members follow one leader, which knows who they are for good."""
        seen = {server: self._cluster.status(server) for server in self._cluster.servers}
        leaders = [s for s in seen.values() if s and s.role == "leader"]
        leader = max(leaders, key=lambda s: s.current_term, default=None)
        if leader is None or leader.members is None:
            return False
        members = leader.members
        said = [seen.get(i) for i in (*members.voters, *members.learners)]
        agree = all(s and (s.leader, s.current_term) == (leader.server, leader.current_term) for s in said)
        return agree and members.committed and not members.outgoing

    def _at(self, end: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._ends, (end, len(self._ends) + sum(self.counts.values()), undo))

    def _end_what_is_due(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            heapq.heappop(self._ends)[2]()

    def _is_up(self, server: str) -> bool:
        return self._cluster.is_alive(server) and server not in self._frozen

    # Processes.

    def _bury_the_dead(self) -> None:
        """Start again who ended because of us; anybody else should not have ended."""
        for server in self._cluster.servers:
            if not self._cluster.has_ended(server):
                continue
            code = self._cluster.wait_for_exit(server)
            if server not in self._doomed or code not in (*STOPPED, KILLED, STOPPED_BY_FULL_DISK):
                end = self._cluster.log(server)[-2000:]
                raise TortureError(f"{server} ended by itself, with exit code {code}\n{end}")
            self._start_later(server, time.monotonic() + self._rng.uniform(0, 1))

    def _start_later(self, server: str, when: float, *options: str) -> None:
        def start() -> None:
            if self._cluster.is_alive(server):
                return
            self._frozen.discard(server)
            self._doomed = self._doomed - {server} | ({server} if "--kill-at" in options else set())
            order = ("--trace-after-persist",) if self._rng.random() < 0.3 else ()
            self._cluster.start(server, *order, *options)
            # A new process knows of no fault. Where it is cut off it stays so; disk and clock are new.
            lost = self._faults[server]
            self._faults[server] = Faults(mute=lost.mute, deaf=lost.deaf)
            self._at(time.monotonic() + 0.5, lambda: self._tell(server))

        self._at(when, start)

    def _kill(self, server: str, end: float) -> None:
        if self._cluster.is_alive(server):
            self.counts["kill"] += 1
            self._cluster.kill(server)
            self._start_later(server, end)

    def _kill_within_a_step(self, server: str, end: float) -> None:
        """It starts again, kills itself between two effects of a later step, and starts once more."""
        if self._cluster.is_alive(server):
            point = self._rng.choice(KILL_POINTS)
            self.counts[f"kill {point}"] += 1
            self._cluster.kill(server)
            at = f"{point}:{self._rng.randint(1, DIES_WITHIN)}"
            self._start_later(server, time.monotonic() + self._rng.uniform(0, 1), "--kill-at", at)

    def _stop(self, server: str, end: float) -> None:
        """Politely: a leader hands over first."""
        if self._is_up(server) and server not in self._doomed:
            self.counts["stop"] += 1
            self._doomed.add(server)
            self._cluster.ask_to_stop(server)

    def _freeze(self, server: str, end: float) -> None:
        if not self._is_up(server):
            return
        self.counts["freeze"] += 1
        self._cluster.freeze(server)
        self._frozen.add(server)

        def thaw() -> None:
            self._frozen.discard(server)
            if self._cluster.is_alive(server):
                self._cluster.thaw(server)
                self._at(time.monotonic() + 0.2, lambda: self._tell(server))

        self._at(end, thaw)

    # Network, disk, clock.

    def _tell(self, server: str) -> None:
        """Let a server's faults be in force, if it can be told."""
        if self._is_up(server):
            with suppress(OSError):
                self._cluster.fault(server, self._faults[server])

    def _set(self, server: str, **changes: Any) -> None:
        self._faults[server] = replace(self._faults[server], **changes)
        self._tell(server)

    def _partition(self, _: str, end: float) -> None:
        rng, names = self._rng, list(self._cluster.servers)
        rng.shuffle(names)
        shape = rng.choice(SHAPES)
        self.counts[f"partition {shape}"] += 1
        size = 1 if shape in ("isolated", "mute", "deaf") else rng.randint(1, len(names) - 1)
        left, right = names[:size], names[size:]
        if shape == "bridge":
            right = right[1:]  # one server still hears both sides
        cut = [(a, b) for a in left for b in right]
        match shape:
            case "any":
                cut = [(a, b) for a in names for b in names if a != b and rng.random() < 0.5]
            case "deaf":
                cut = [(b, a) for a, b in cut]
            case "split" | "isolated" | "bridge":
                cut += [(b, a) for a, b in cut]
        for server in self._cluster.servers:
            self._set(server, mute=tuple(b for a, b in cut if a == server), deaf=())
        self._at(end, self._heal)

    def _heal(self) -> None:
        for server in self._cluster.servers:
            self._set(server, mute=(), deaf=())

    def _slow_disk(self, server: str, end: float) -> None:
        self.counts["slow disk"] += 1
        self._set(server, disk_delay=self._rng.uniform(0.01, 0.4))
        self._at(end, lambda: self._set(server, disk_delay=0.0))

    def _full_disk(self, server: str, end: float) -> None:
        if self._is_up(server):
            self.counts["full disk"] += 1
            self._doomed.add(server)
            self._set(server, disk_full=True)

    def _clock(self, server: str, end: float) -> None:
        """It jumps, and stays there: only differences of a server's own clock mean anything."""
        self.counts["clock"] += 1
        self._set(server, clock=self._faults[server].clock + self._rng.uniform(-30, 30))

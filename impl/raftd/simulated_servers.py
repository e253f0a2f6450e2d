"""A server of a simulated world: a machine with a disk and a clock, on which a process comes and goes."""

from __future__ import annotations

import random

import msgspec

from raftd.core import Core, Persist, Persistent
from raftd.kv import KeyValue
from raftd.simulated_faults import Faults
from raftd.transfer import Transfers

KINDS = 16  # of commands, to the simulated state machine

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[tuple[int, bytes]]]).decode


class Machine:
    """A replicated state machine that stays small: the last command of each kind, and how many there were."""

    def __init__(self) -> None:
        self.applied = 0
        self.last: dict[int, bytes] = {}

    def apply(self, command: bytes) -> None:
        self.applied += 1
        self.last[sum(command) % KINDS] = command

    def save(self) -> bytes:
        return _encode((self.applied, sorted(self.last.items())))

    def load(self, state: bytes) -> None:
        self.applied, last = _decode(state)
        self.last = dict(last)


class Server:
    """A simulated machine: its disk and clock outlive the process, which is a core."""

    def __init__(self, name: str, rng: random.Random, faults: Faults) -> None:
        self.name = name
        self.disk = Persistent()
        self.core: Core | None = None
        self.machine: Machine | KeyValue = Machine()
        self.transfers = Transfers(name, 0)
        # Either order of trace and disk is allowed before sending: a real server picks one.
        self.traces_first = rng.random() < 0.5
        self.clock_start = rng.uniform(0, 1000)
        self.clock_rate = rng.uniform(1 - faults.clock, 1 + faults.clock)
        self.next_tick = float("inf")  # when a tick is scheduled
        self.paused_until = 0.0
        self.writing = False  # to a slow disk

    def clock(self, now: float) -> float:
        """What this server's clock says."""
        return self.clock_start + self.clock_rate * now

    def when(self, clock: float) -> float:
        """When this server's clock will say that."""
        return (clock - self.clock_start) / self.clock_rate

    def persist(self, change: Persist | None) -> None:
        """The disk takes a change whole."""
        if change is not None:
            self.disk.write(change)

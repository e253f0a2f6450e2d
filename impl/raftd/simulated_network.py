"""The network of a simulated world: messages are lost, late, doubled, out of order, and links are cut."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from raftd.lying import Lie, tell
from raftd.messages import Aside, Message

if TYPE_CHECKING:
    from raftd.simulator import Simulation

LATENCY = (0.001, 0.004)


class Network:
    """Carries messages between the servers of a world. What goes wrong is drawn from the world's seed."""

    def __init__(self, world: Simulation, lie: Lie | None) -> None:
        self.latency = LATENCY  # one way, in seconds
        self.blocked: set[tuple[str, str]] = set()  # links; only ever asked for one
        self._world = world
        self._lie = lie
        self._last_arrival: dict[tuple[str, str], float] = {}
        self._partitions = 0

    def carry(self, m: Message | Aside) -> None:
        """A message is on its way: in order on each link, unless a fault says otherwise."""
        world = self._world
        rng, faults, config = world.rng, world.faults, world.config
        if rng.random() < faults.loss:
            world.summary.faults["loss"] += 1
            return
        m = self._perhaps_changed(m)
        arrival = world.now + rng.uniform(*self.latency)
        if rng.random() < faults.delay:
            world.summary.faults["delay"] += 1
            arrival += rng.uniform(0, 4) * config.election_timeout
        if rng.random() < faults.reordering:
            world.summary.faults["reordering"] += 1
            arrival += rng.uniform(0, 1) * config.heartbeat_interval
        else:
            link = (m.source, m.target)
            arrival = max(arrival, self._last_arrival.get(link, 0.0))
            self._last_arrival[link] = arrival
        world.at(arrival, self._arrive, m)
        if rng.random() < faults.duplication:
            world.summary.faults["duplication"] += 1
            world.at(arrival + rng.uniform(0, 4) * config.election_timeout, self._arrive, m)

    def _arrive(self, m: Message | Aside) -> None:
        """A message reaches a server, if one is there to be reached."""
        world = self._world
        server = world.servers[m.target]
        if (m.source, m.target) in self.blocked:
            world.summary.faults["blocked"] += 1
        elif server.core is None:
            world.summary.faults["undelivered"] += 1
        elif world.now < server.paused_until:
            world.at(server.paused_until, self._arrive, m)
        else:
            world.receive(server, server.core, m)

    def _perhaps_changed(self, m: Message | Aside) -> Message | Aside:
        """The message, or one that says something else: what Raft does not tolerate."""
        world, lie = self._world, self._lie
        kind = str(m.__struct_config__.tag)
        world.summary.carried[kind] += 1
        told = None
        if lie is not None and (lie.kind, lie.nth) == (kind, world.summary.carried[kind]):
            # Randomness of its own: all else happens as it does without the lie, up to its arrival.
            told = tell(m, lie.field, tuple(world.servers), random.Random(f"{world.summary.seed}/{lie}"))
        if world.rng.random() < world.faults.corruption:
            told = told or tell(m, None, tuple(world.servers), world.rng)
        if told is None:
            return m
        world.summary.faults["corruption"] += 1
        world.summary.lies.append(told)
        return told.said

    def cut(self) -> None:
        """Links are cut, in one of several shapes, until the next partition or a while later."""
        world = self._world
        rng, names = world.rng, list(world.servers)
        rng.shuffle(names)
        shape = rng.choice(("split", "isolated", "one-way", "bridge", "any"))
        world.summary.faults[f"partition {shape}"] += 1
        size = 1 if shape == "isolated" else rng.randint(1, max(1, len(names) - 1))
        left, right = names[:size], names[size:]
        if shape == "bridge":
            right = right[1:]  # one server still hears both sides
        if shape == "any":
            cut = [(a, b) for a in names for b in names if rng.random() < 0.5]
        else:
            cut = [(a, b) for a in left for b in right]
            cut += [(b, a) for a, b in cut] if shape != "one-way" else []
        self.blocked = set(cut)
        self._partitions += 1
        lasts = rng.uniform(0.5, 15) * world.config.election_timeout
        world.at(world.now + lasts, self._heal, self._partitions)

    def _heal(self, partition: int) -> None:
        if partition == self._partitions:
            self.blocked = set()

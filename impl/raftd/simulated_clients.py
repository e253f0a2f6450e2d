"""Clients of a simulated cluster: what they ask and are told stands in the trace, beside what the servers do.

Each has one request under way at a time, as most do. It asks whom it takes for the leader, and somebody
else if that one isn't; if nobody answers in time it gives up, and nobody knows what became of its request. A
server proposes together what comes while it writes to its disk, and answers once an entry is applied, as
`raftd.server` does.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raftd.codec import Done, Redirect, Reply
from raftd.configurations import for_state_machine
from raftd.core import Batch, Core, NotLeader, Role
from raftd.kv import Command, Get, KeyValue, Put, encode_command
from raftd.readers import Reader, Readers
from raftd.sessions import Result
from raftd.trace import digest_of_put

if TYPE_CHECKING:
    from raftd.simulated_servers import Server
    from raftd.simulator import Simulation

KEYS = 5
THINKING = 0.01  # mean seconds between an answer and the next request
WRITING = 0.002  # seconds; what comes meanwhile is proposed together
PATIENCE = 20  # election timeouts until a client gives up
STRAY = 0.2  # of the requests are sent to anybody, where servers read without the log
BACK_OFF = 0.05  # seconds before somebody else is asked


class CrashedError(Exception):
    """A server died within a step."""


@dataclass(eq=False)
class Request:
    """What a client asks for, until it has its answer."""

    client: str
    seq: int
    command: Command
    over: bool = False

    @property
    def who(self) -> dict[str, Any]:
        return {"client": self.client, "seq": self.seq}

    @property
    def named(self) -> dict[str, Any]:
        """What its entries are known by, if that is more than their digest."""
        return {}


@dataclass
class Driver:
    """What a server process keeps of its clients' requests, and its state machine."""

    machine: KeyValue
    readers: Readers
    arrived: list[Request] = field(default_factory=list)  # to be proposed together
    # By index, with the term of the entry.
    appended: dict[int, tuple[int, Request]] = field(default_factory=dict)


class Clients:
    """The clients of a simulation, and what its servers do for them beside Raft.

    They have randomness of their own, so that a seed's servers meet the same faults with them and without.
    """

    def __init__(self, world: Simulation, count: int, seed: int) -> None:
        self.world = world
        self.names = [f"c{n}" for n in range(1, count + 1)]
        self.rng = random.Random(f"{seed}/clients")
        self.asked = 0  # requests so far
        self.drivers: dict[str, Driver] = {}
        self.reads = 0  # answered without the log
        self._leader: str | None = None  # whom clients ask

    def start(self) -> None:
        """Let each begin with its first request."""
        for client in self.names:
            self._later(self._ask, client, 1)

    # What a client does.

    def _later(self, then: Any, *what: Any) -> None:
        self.world.at(self.world.now + self.rng.expovariate(1 / THINKING), then, *what)

    def _ask(self, client: str, seq: int) -> None:
        key = f"k{self.rng.randrange(KEYS)}"
        asked: dict[str, Any] = {"operation": "get", "key": key}
        command: Command = Get(key)
        if self.rng.random() < 0.5 and not self._only_reads(client):
            value = f"{client}.{seq}"
            asked = {"operation": "put", "key": key, "value": value}
            command = Put(key, value.encode())
            asked["digest"] = digest_of_put(key, command.value)
        self.asked += 1
        request = self._made(client, seq, command)
        if request.named:
            asked.pop("digest", None)
        self.world.write_client({**request.who, "event": "invoke", **asked, **request.named})
        patience = PATIENCE * self.world.config.election_timeout
        self.world.at(self.world.now + patience, self._give_up, request)
        self._send(request)

    def _made(self, client: str, seq: int, command: Command) -> Request:
        return Request(client, seq, command)

    def _only_reads(self, client: str) -> bool:
        """Where servers read without the log, half of the clients never wait for a put that is lost."""
        return self.world.config.reads and self.names.index(client) % 2 == 1

    def _send(self, request: Request) -> None:
        """Ask whom clients take for the leader; where they read without the log, now and then anybody.

        Else nobody would still ask a leader that has been replaced.
        """
        if request.over:
            return
        server = self._leader
        if server is None or (self.world.config.reads and self.rng.random() < STRAY):
            server = self.rng.choice(list(self.world.servers))
        self._carry(self._arrive, server, request)

    def _carry(self, then: Any, *what: Any) -> None:
        """The network between clients and servers, which may lose what it carries."""
        if self.rng.random() >= self.world.faults.loss:
            self.world.at(self.world.now + self.rng.uniform(*self.world.network.latency), then, *what)

    def _give_up(self, request: Request) -> None:
        """No answer in time: it may have been executed, or be executed yet."""
        if not request.over:
            self._leader = None
            self._end(request, {"outcome": "unknown"})

    def _told(self, request: Request, value: bytes | None) -> None:
        """The answer arrives, unless the client has given up."""
        if not request.over:
            found = None if value is None else value.decode()
            self._end(request, {"value": found} if isinstance(request.command, Get) else {})

    def _answered(self, request: Request, index: int, result: Result) -> None:
        """Its entry, at this index, was executed."""
        self._told(request, result.value)

    def _told_unknown(self, request: Request) -> None:
        """The server doesn't know what will become of it. A get can be sent again; a put must not."""
        if isinstance(request.command, Get):
            self._redirected(request, None)
        elif not request.over:
            self._end(request, {"outcome": "unknown"})

    def _redirected(self, request: Request, leader: str | None) -> None:
        """It was not executed: ask somebody else, after a while if nobody is named."""
        self._leader = leader
        if leader is not None:
            self._send(request)
        else:
            self.world.at(self.world.now + BACK_OFF, self._send, request)

    def _end(self, request: Request, told: dict[str, Any]) -> None:
        request.over = True
        self.world.write_client({**request.who, "event": "return", **told})
        self._later(self._ask, request.client, request.seq + 1)

    # What a server does for them.

    def started(self, core: Core) -> KeyValue:
        """A process begins with an empty state machine, and owes nobody an answer."""
        machine = KeyValue()
        readers = Readers(core, machine.read, lambda id: Redirect(id, core.leader, None))
        self.drivers[core.server] = Driver(machine, readers)
        return machine

    def _arrive(self, name: str, request: Request) -> None:
        server = self.world.servers[name]
        if server.core is None:
            return
        if self.world.now < server.paused_until:
            self.world.at(server.paused_until, self._arrive, name, request)
            return
        driver = self.drivers[name]
        if isinstance(request.command, Get) and self.world.config.reads:
            driver.readers.add(self._reader(server.core, request, request.command.key))
            self.serve(server)
            return
        driver.arrived.append(request)
        if len(driver.arrived) == 1:
            self.world.at(self.world.now + WRITING, self._propose, server, driver)

    def _propose(self, server: Server, driver: Driver) -> None:
        """Append what has arrived, or tell who leads."""
        core = server.core
        if core is None or self.drivers[server.name] is not driver:
            return  # the process is gone, and its clients with it
        if self.world.now < server.paused_until:
            self.world.at(server.paused_until, self._propose, server, driver)
            return
        requests, driver.arrived = driver.arrived, []
        term, first = core.current_term, core.log.last_index + 1
        driver.appended.update(enumerate(((term, request) for request in requests), first))
        commands = [self._encoded(server, request) for request in requests]
        try:
            self.world.step(server, lambda clock: core.propose(clock, commands))
        except NotLeader as error:
            for index, request in enumerate(requests, first):
                del driver.appended[index]
                self._carry(self._redirected, request, error.leader)

    def _encoded(self, server: Server, request: Request) -> bytes:
        """A request as an entry carries it."""
        return encode_command(request.command)

    def _reader(self, core: Core, request: Request, key: str) -> Reader:
        """Who reads without the log has to see all that anybody had applied before."""
        needed = self.world.applied

        def respond(reply: Reply) -> None:
            match reply:
                case Done(value=value):
                    self.reads += 1
                    if core.last_applied < needed:
                        self.world.read_too_little(core, needed)
                    self._carry(self._told, request, value)
                case Redirect(leader=leader):
                    self._carry(self._redirected, request, leader if leader != core.server else None)

        return Reader(request.seq, key, respond)

    def serve(self, server: Server) -> None:
        """Answer who reads and can be answered, as a server does after each of its steps."""
        driver = self.drivers[server.name]

        def step(batch: Batch) -> None:
            self.world.take(server, batch)
            if server.core is None or self.drivers[server.name] is not driver:
                raise CrashedError

        if server.core is not None:
            with suppress(CrashedError):  # then nobody is answered any more
                driver.readers.serve(server.clock(self.world.now), step)

    def applied(self, server: Server, batch: Batch) -> None:
        """Execute what is committed, and answer who asked for it."""
        driver, core = self.drivers[server.name], server.core
        for place, (index, entry) in enumerate(batch.apply):
            if batch.results:
                result = batch.results[place]
            else:
                value = driver.machine.apply(entry.command) if for_state_machine(entry.command) else None
                result = Result(index, value)
            term, request = driver.appended.pop(index, (0, None))
            if request is not None and term == entry.term:
                self._carry(self._answered, request, index, result)
            elif request is not None:
                self._carry(self._told_unknown, request)
        if driver.appended and (core is None or core.role is not Role.LEADER):
            for _, request in driver.appended.values():
                self._carry(self._told_unknown, request)
            driver.appended.clear()

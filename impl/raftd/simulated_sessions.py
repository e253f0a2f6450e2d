"""Simulated clients with sessions: they try again elsewhere, come late, and stay away for long.

What they are told again has to be what they were told before, whoever leads by then; the trace says which
entry each answer is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raftd.core import Batch, NotLeader, Role
from raftd.kv import Command, Put, encode_command
from raftd.sessions import Ask, Expire, Register, Result
from raftd.sessions import encode_command as session_command
from raftd.simulated_clients import Clients, Request

if TYPE_CHECKING:
    from raftd.simulated_servers import Server
    from raftd.simulator import Simulation

RETRY = 3  # election timeouts until somebody else is asked
LATE = 0.1  # of the requests arrive once more, perhaps after they were answered
AWAY = 0.02  # of the clients' pauses are about as long as their sessions last
EXPIRY = 0.25  # of a session's time between two looks for idle ones


@dataclass(eq=False)
class Asked(Request):
    """A request of a session; number 0 opens one."""

    session: int = 0
    number: int = 0
    sent: int = 0  # so often

    @property
    def named(self) -> dict[str, Any]:
        return {"session": self.session, "sequence": self.number}


class SessionClients(Clients):
    """Clients that open sessions, and use them."""

    def __init__(self, world: Simulation, count: int, seed: int) -> None:
        super().__init__(world, count, seed)
        self._sessions: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def start(self) -> None:
        super().start()
        self.world.at(self.world.now, self._expire)

    # What a client does.

    def _ask(self, client: str, seq: int) -> None:
        if client in self._sessions:
            super()._ask(client, seq)
        else:
            self._send(Asked(client, seq, Put("", b"")))

    def _made(self, client: str, seq: int, command: Command) -> Request:
        self._numbers[client] += 1
        return Asked(client, seq, command, session=self._sessions[client], number=self._numbers[client])

    def _send(self, request: Request) -> None:
        super()._send(request)
        if request.over:
            return
        assert isinstance(request, Asked)
        request.sent += 1
        patience = RETRY * self.world.config.election_timeout
        self.world.at(self.world.now + patience, self._again, request, request.sent)
        if request.sent == 1 and self.rng.random() < LATE:
            server = self._leader or self.rng.choice(list(self.world.servers))
            self.world.at(
                self.world.now + self.rng.uniform(0, patience), self._carry, self._arrive, server, request
            )

    def _again(self, request: Asked, sent: int) -> None:
        """Nobody has answered, nor sent it elsewhere since; else its copies would multiply."""
        if not request.over and request.sent == sent:
            self._leader = None
            self._send(request)

    def _told_unknown(self, request: Request) -> None:
        """In a session anything can be sent again."""
        if not request.over:
            self._redirected(request, None)

    def _answered(self, request: Request, index: int, result: Result) -> None:
        assert isinstance(request, Asked)
        if request.over:
            return
        if not request.number:
            request.over = True
            self._sessions[request.client], self._numbers[request.client] = index, 0
            super()._ask(request.client, request.seq)
        elif result.asked and not result.origin:
            del self._sessions[request.client]
            self._end(request, {"outcome": "unknown"})
        else:
            self._told(request, result.value)

    def _later(self, then: Any, *what: Any) -> None:
        if self.rng.random() < AWAY:
            away = self.rng.uniform(0.5, 1.5) * self.world.config.session_timeout
            self.world.at(self.world.now + away, then, *what)
        else:
            super()._later(then, *what)

    # What a server does for them.

    def _stamp(self, server: Server) -> int:
        """The servers' clocks began together, and go as fast as they do."""
        assert server.core is not None
        assert server.core.session_table is not None
        return server.core.session_table.stamp(server.clock_rate * self.world.now)

    def _encoded(self, server: Server, request: Request) -> bytes:
        assert isinstance(request, Asked)
        time = self._stamp(server)
        if not request.number:
            return session_command(Register(time))
        # One request at a time: all before it have been answered.
        command = encode_command(request.command)
        return session_command(Ask(request.session, request.number, request.number, time, command))

    def _expire(self) -> None:
        """Whoever leads ends the sessions that have been idle for long."""
        timeout = self.world.config.session_timeout
        self.world.at(self.world.now + EXPIRY * timeout, self._expire)
        for server in self.world.servers.values():
            core = server.core
            if core is None or core.role is not Role.LEADER or self.world.now < server.paused_until:
                continue
            assert core.session_table is not None
            now = self._stamp(server)
            if core.session_table.idle(now):
                ended = session_command(Expire(now - int(timeout * 1000)))
                self._propose_one(server, ended)

    def _propose_one(self, server: Server, command: bytes) -> None:
        core = server.core
        assert core is not None

        def propose(clock: float) -> Batch | None:
            try:
                return core.propose(clock, [command])
            except NotLeader:
                return None

        self.world.step(server, propose)

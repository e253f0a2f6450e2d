"""A cluster that does what a script says: who times out, what arrives, what is lost, who dies.

The servers are real cores; clock, network and disk are the script's. So the figures of
the paper can be played step by step, and what the servers did is their own trace.

    m  a message     c  a cluster, in scripts
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from raftd.core import Batch, Config, Core, Persistent, Role
from raftd.faults import make_core
from raftd.messages import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raftd.trace import client_line, digest, header, line

STEP = 0.01  # seconds from one step to the next

Kind = type[RequestVote] | type[RequestVoteReply] | type[AppendEntries] | type[AppendEntriesReply]


class Cluster:
    """Servers, their disks, the messages in flight, and the lines they have traced.

    `broken` names for some servers the rule that they break, of `raftd.faults.BREAKS`. `extensions` are what
    the trace says that these servers have; the script sees to what commands mean then.
    """

    def __init__(
        self,
        *servers: str,
        config: Config | None = None,
        broken: Mapping[str, str] | None = None,
        extensions: tuple[str, ...] = (),
    ) -> None:
        self.servers = servers
        self.extensions = extensions
        self._meanings: dict[str, dict[str, int]] = {}
        self.config = config or Config()
        self.broken = broken or {}
        self.cores: dict[str, Core] = {}  # of the servers that are up
        self.disks = {server: Persistent() for server in servers}
        self.in_flight: list[Message] = []
        self._starts = dict.fromkeys(servers, 0)
        self._seq = dict.fromkeys(servers, 0)
        self._lines: list[tuple[str, int, bytes]] = []
        self._last_words: dict[str, str] = {}
        self._steps = 0
        for server in servers:
            self.start(server)

    # What a script says.

    def start(self, server: str) -> None:
        """A process starts, with what its disk holds."""
        assert server not in self.cores, f"{server} is up"
        disk = self.disks[server]
        self._starts[server] += 1
        self._seq[server] = 0
        held = Persistent(disk.current_term, disk.voted_for, disk.log)
        rng = random.Random(f"{server}/{self._starts[server]}")
        core = make_core(server, self.servers, rng, self.config, held, self.broken.get(server))
        self.cores[server] = core
        self._step(server, core.start)

    def crash(self, *servers: str) -> None:
        """Processes are gone, with all that isn't on their disks."""
        for server in servers:
            del self.cores[server]

    def crash_in_next_step(self, server: str, done: str) -> None:
        """In its next step the server dies, when that is only `traced` or only `persisted`."""
        assert done in ("traced", "persisted")
        self._last_words[server] = done

    def timeout(self, *servers: str) -> None:
        """Servers hear from no leader for too long, and start elections."""
        for server in servers:
            self._step(server, self.cores[server].start_election)

    def heartbeat(self, leader: str) -> None:
        """A leader's heartbeats are due."""
        self._steps += round(self.config.heartbeat_interval / STEP)
        self._step(leader, self.cores[leader].send_heartbeats)

    def propose(self, leader: str, *commands: str | bytes) -> None:
        """A client asks for commands."""
        encoded = [c.encode() if isinstance(c, str) else c for c in commands]
        self._step(leader, partial(self.cores[leader].propose, commands=encoded))

    def mean(self, command: str, meaning: dict[str, int]) -> None:
        """Where a leader appends this command, the trace says what it means."""
        self._meanings[digest(command.encode())] = meaning

    def deliver(self, source: str, target: str, kind: Kind | None = None, again: bool = False) -> Message:
        """The oldest message of a link arrives; a copy of it stays in flight to arrive `again`."""
        found = (m for m in self.in_flight if (m.source, m.target) == (source, target))
        m = next((m for m in found if kind is None or isinstance(m, kind)), None)
        assert m is not None, f"nothing{f' of {kind.__name__}' if kind else ''} from {source} to {target}"
        if not again:
            self.in_flight.remove(m)
        self.arrive(m)
        return m

    def arrive(self, m: Message) -> None:
        """A message arrives, sent or not."""
        self._step(m.target, partial(self.cores[m.target].receive, m=m))

    def settle(self, *group: str) -> None:
        """A group talks until it has nothing more to say; the messages of others stay in flight."""
        group = group or tuple(self.cores)
        while m := next((m for m in self.in_flight if m.source in group and m.target in group), None):
            self.in_flight.remove(m)
            self.arrive(m)

    def drop(self, *servers: str) -> None:
        """All messages in flight are lost, or those to or from some servers."""
        gone = servers or self.servers
        self.in_flight = [m for m in self.in_flight if m.source not in gone and m.target not in gone]

    def elect(self, server: str, *voters: str) -> None:
        """A server stands for election, if need be until its term is the voters' next, and wins."""
        newest = max(self.cores[voter].current_term for voter in voters)
        self.timeout(server)
        while self.cores[server].current_term <= newest:
            self.timeout(server)
        term = self.cores[server].current_term
        self.in_flight = [
            m
            for m in self.in_flight
            if not isinstance(m, RequestVote) or (m.target in voters and m.term == term)
        ]
        for voter in voters:
            self.deliver(server, voter, RequestVote)
            self.deliver(voter, server, RequestVoteReply)
        assert self.cores[server].role is Role.LEADER, f"{server} doesn't win term {term}"

    def claim(self, server: str, event: str, **fields: Any) -> None:
        """A server says that it did what no core here would do: a line of a trace, and nothing else."""
        self._trace({"server": server, "event": event, **fields})

    def note(self, event: dict[str, Any]) -> None:
        """A client's event stands in the trace."""
        self._lines.append(("", 0, client_line(event)))

    # What has come of it.

    def terms(self, server: str) -> list[int]:
        """A running server's log, as the paper's figures show logs."""
        return [entry.term for entry in self.cores[server].log]

    def trace(self) -> bytes:
        """One file for all servers."""
        return header(self.servers, self.extensions) + b"".join(text for _, _, text in self._lines)

    def traces(self) -> dict[str, bytes]:
        """A file for each start of each server, by name."""
        files: dict[str, bytes] = {}
        for server, start, text in self._lines:
            name = f"{server}.{start}.ndjson"
            files[name] = files.get(name, header(self.servers)) + text
        return files

    # One step: trace, persist, send.

    def _step(self, server: str, take: Any) -> None:
        self._steps += 1
        batch: Batch = take(round(self._steps * STEP, 6))
        last = self._last_words.pop(server, None)
        if last != "persisted":
            self._trace(batch.event)
        if last != "traced" and batch.persist is not None:
            self.disks[server].write(batch.persist)
        if last is not None:
            self.crash(server)
        else:
            self.in_flight += batch.send

    def _trace(self, event: dict[str, Any]) -> None:
        server = event["server"]
        if self._meanings and event["event"] != "restart" and "entries" in event:
            entries = [
                [term, told, self._meanings[told]] if told in self._meanings else [term, told]
                for term, told in event["entries"]
            ]
            event = {**event, "entries": entries}
        self._seq[server] += 1
        text = line(event, self._seq[server], self._starts[server])
        self._lines.append((server, self._starts[server], text))


THREE = ("n1", "n2", "n3")
FIVE = ("n1", "n2", "n3", "n4", "n5")
ONE_BY_ONE = Config(max_entries=1)

GOOD: dict[str, Callable[[], Cluster]] = {}
BAD: dict[str, Callable[[], Cluster]] = {}
RULES: dict[str, Callable[[], Cluster]] = {}


def recorded(table: dict[str, Callable[[], Cluster]], name: str = "") -> Callable[..., Callable[[], Cluster]]:
    """The scenario that follows is recorded, under its own name or another."""

    def note(scenario: Callable[[], Cluster]) -> Callable[[], Cluster]:
        table[name or scenario.__name__] = scenario
        return scenario

    return note

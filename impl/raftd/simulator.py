"""A whole cluster in one process, in virtual time, with every fault drawn from one seed.

The servers are real cores; clock, network, disk and clients are simulated. The same
arguments give the same trace, byte for byte. Raft must be safe whatever happens here,
unless a server breaks a rule or the network changes messages (section 5.4.3); that it
gets anywhere needs a majority that is up and connected (section 5.6).

    T     the election timeout        a step   one input to one core, one trace event
    rate  a probability per message (loss, duplication, delay, reordering, corruption)
          or per step (partition, crash, restart, pause, disk, transfer); for clocks the largest drift
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from raftd.configurations import Configuration, for_state_machine
from raftd.core import Batch, CannotChange, Config, Core, NotLeader, Persistent, Role
from raftd.faults import make_core
from raftd.lying import Lie, Told
from raftd.messages import (
    Aside,
    Entry,
    InstallSnapshot,
    Message,
    Snapshot,
    SnapshotChunk,
    SnapshotChunkReply,
)
from raftd.simulated_clients import Clients
from raftd.simulated_faults import ALL_FAULTS, Faults
from raftd.simulated_network import Network
from raftd.simulated_servers import Machine, Server
from raftd.simulated_sessions import SessionClients
from raftd.state import EXTENSIONS, USUAL
from raftd.trace import TraceStream
from raftd.transfer import Transfers

# Small batches, so that followers lag and logs are repaired in many messages.
SIMULATED = Config(max_entries=4, max_in_flight=16, session_timeout=2.0)
# The same with what a server to trust has beside Figure 2.
EXTENDED = SIMULATED.having(USUAL)

CHANGE_INTERVAL = 0.3  # mean seconds between two changes of membership that are asked for
REQUEST_INTERVAL = 0.02  # mean seconds between a client's requests
MAX_COMMANDS = 3  # in one request
CHUNK = 48  # bytes of a snapshot in one message
PROGRESS_STEPS = 1000  # between two calls of `progress`

Progress = Callable[[int, int], None]


class SimulationError(Exception):
    """The servers did what no Raft cluster may do; the message says how to see it again."""


@dataclass
class Summary:
    """What happened in a simulation."""

    seed: int
    servers: tuple[str, ...]
    steps: int = 0
    events: int = 0  # in the trace; fewer than steps, since a crash may come first
    client_events: int = 0  # in the trace, too
    seconds: float = 0.0  # of virtual time
    elections: int = 0  # begun
    leaders: int = 0  # elections won
    terms: int = 0  # the highest
    proposed: int = 0  # commands that a leader took
    committed: int = 0  # entries, no-ops included
    reads: int = 0  # answered without the log
    redirected: int = 0  # requests to servers that weren't leaders
    starts: int = 0
    changes: int = 0  # of membership
    refused_changes: int = 0
    snapshots: int = 0  # taken
    installed: int = 0  # of those that leaders sent
    faults: Counter[str] = field(default_factory=Counter)  # each by name: how often
    carried: Counter[str] = field(default_factory=Counter)  # messages by kind, without those lost
    lies: list[Told] = field(default_factory=list)  # messages that were changed on the way
    violation: str | None = None  # the first; only where a server is broken or messages are changed


def server_names(count: int) -> tuple[str, ...]:
    """n1, n2, …: what servers are called where nobody gave them names."""
    return tuple(f"n{i}" for i in range(1, count + 1))


def simulate(
    seed: int,
    servers: tuple[str, ...] = server_names(3),
    steps: int = 10_000,
    faults: Faults = ALL_FAULTS,
    out: BinaryIO | None = None,
    *,
    broken: Mapping[str, str] | str | None = None,
    lie: Lie | None = None,
    config: Config = SIMULATED,
    clients: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Run a cluster for a number of steps, and write its trace to `out`.

    `broken` breaks a rule of `raftd.faults.BREAKS`: one rule for all servers, or by
    server; `lie` changes one message. Then, or if messages are corrupted, a violation is noted in the
    summary; otherwise it raises SimulationError. With `clients`, so many work with a key-value store, and
    what they see stands in the trace; without, commands come from nowhere. `progress` is called with the
    steps done and the steps to do.
    """
    simulation = Simulation(
        seed, servers, faults, out, broken=broken, lie=lie, config=config, clients=clients
    )
    return simulation.run(steps, progress)


class Simulation:
    """The world around the servers: a queue of what happens next, in virtual time."""

    def __init__(
        self,
        seed: int,
        servers: tuple[str, ...],
        faults: Faults,
        out: BinaryIO | None = None,
        *,
        broken: Mapping[str, str] | str | None = None,
        lie: Lie | None = None,
        config: Config = SIMULATED,
        clients: int = 0,
    ) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.config = config
        self.summary = Summary(seed, servers)
        self.servers = {name: Server(name, self.rng, faults) for name in servers}
        self.broken = dict.fromkeys(servers, broken) if isinstance(broken, str) else dict(broken or {})
        unknown = [name for name in self.broken if name not in self.servers]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a server: break a rule of one of {', '.join(servers)}")
        self.lie = lie
        # Where membership can change, some servers join only later.
        self.first = servers[: (len(servers) + 1) // 2 + 1] if config.membership else servers
        self.trace = TraceStream(out, servers, config.extensions, self.first) if out is not None else None
        self.network = Network(self, lie)
        self._operator = random.Random(f"{seed}/operator")  # whose choices change nothing else

        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._queued = 0
        self._applied: list[Entry] = []  # what the servers agree on
        self._known_in: list[int] = []  # of each the term in which somebody knew first that it was committed
        self._leader_of: dict[int, str] = {}  # by term
        self._states: dict[int, Snapshot] = {}  # what servers saved, by the last entry in it
        self._steps = 0
        kind = SessionClients if config.sessions else Clients
        self.clients = kind(self, clients, seed) if clients else None

    def at(self, time: float, happen: Callable[..., None], *what: Any) -> None:
        """Let clients do something at a time."""
        self._at(time, happen, *what)

    def step(self, server: Server, take: Callable[[float], Batch | None]) -> None:
        """Let a server take a step for its clients."""
        self._step(server, take)

    def take(self, server: Server, batch: Batch) -> None:
        """Let a server do what a step for its readers asks for."""
        self._take(server, batch)

    @property
    def applied(self) -> int:
        """How many entries some server has applied."""
        return len(self._applied)

    def read_too_little(self, core: Core, needed: int) -> None:
        """A client read what was out of date: wrong, unless clocks are worse than leases assume."""
        drift, worst = self.config.lease_drift, (1 + self.faults.clock) / (1 - self.faults.clock)
        self._violated(
            f"{core.server} reads what {core.last_applied} entries have left, "
            f"though {needed} had been applied when it was asked",
            allowed=drift is not None and worst > drift,
        )

    def run(self, steps: int, progress: Progress | None = None) -> Summary:
        """Let the world go on until the servers have taken this many steps, in this and earlier runs."""
        self._steps = steps
        if not self._queue:
            for server in self.servers.values():
                self._at(self.rng.uniform(0, self.config.election_timeout), self._start, server)
            if self.clients is not None:
                self.clients.start()
            else:
                self._at(self.rng.expovariate(1 / REQUEST_INTERVAL), self._request)
            if self.config.membership:
                self._at(CHANGE_INTERVAL, self._change_members)
        reported = 0
        while self.summary.steps < steps:
            self.now, _, happen, what = heapq.heappop(self._queue)
            happen(*what)
            if progress and self.summary.steps >= reported + PROGRESS_STEPS:
                reported = self.summary.steps
                progress(reported, steps)
        self.summary.seconds = round(self.now, 3)
        self.summary.committed = len(self._applied)
        self.summary.reads = self.clients.reads if self.clients else 0
        return self.summary

    def write_client(self, event: dict[str, Any]) -> None:
        """A client's event stands in the trace, too."""
        self.summary.client_events += 1
        if self.trace:
            self.trace.write_client(event)

    def _at(self, time: float, happen: Callable[..., None], *what: Any) -> None:
        self._queued += 1
        heapq.heappush(self._queue, (time, self._queued, happen, what))

    # What happens.

    def _start(self, server: Server) -> None:
        """A process starts with what its disk holds."""
        assert server.core is None
        rng = random.Random(f"{self.summary.seed}/{server.name}/{self.summary.starts}")
        self.summary.starts += 1
        held = server.disk
        disk = Persistent(held.current_term, held.voted_for, held.log, held.snapshot)
        broken = self.broken.get(server.name)
        server.core = make_core(server.name, self.first, rng, self.config, disk, broken)
        server.machine = self.clients.started(server.core) if self.clients else Machine()
        if self.config.sessions:
            server.core.keep_sessions(server.machine, lambda: server.clock(self.now))
        elif disk.snapshot is not None:
            server.machine.load(disk.snapshot.state)
        server.transfers = Transfers(server.name, self.config.heartbeat_interval, CHUNK)
        server.next_tick = float("inf")
        self._step(server, server.core.start)

    def _tick(self, server: Server) -> None:
        """A timer fires, unless it has been set to another time since."""
        core = server.core
        if core is None or server.next_tick != self.now:
            return
        server.next_tick = float("inf")
        if self.now < server.paused_until or self.now < server.when(core.deadline):
            self._schedule_tick(server)
            return
        # Rounding may put the clock just before the deadline that it has reached.
        self._step(server, lambda clock: core.tick(max(clock, core.deadline)))

    def _schedule_tick(self, server: Server) -> None:
        assert server.core is not None
        time = max(self.now, server.paused_until, server.when(server.core.deadline))
        if time < server.next_tick:
            server.next_tick = time
            self._at(time, self._tick, server)

    def _request(self) -> None:
        """A client asks whoever claims to lead, which may be several, or now and then anyone."""
        rng = self.rng
        self._at(self.now + rng.expovariate(1 / REQUEST_INTERVAL), self._request)
        running = [s for s in self.servers.values() if s.core and self.now >= s.paused_until]
        leaders = [s for s in running if s.core and s.core.role is Role.LEADER]
        asked = running if not leaders or rng.random() < 0.05 else leaders
        if not asked:
            return
        server = rng.choice(asked)
        assert server.core is not None
        first = self.summary.proposed
        commands = [b"%d" % n for n in range(first, first + rng.randint(1, MAX_COMMANDS))]
        core = server.core
        try:
            self._step(server, lambda clock: core.propose(clock, commands))
        except NotLeader:
            self.summary.redirected += 1
        else:
            self.summary.proposed += len(commands)

    def _change_members(self) -> None:
        """An operator asks whoever claims to lead for some change, which may be none that is allowed."""
        rng = self._operator
        self._at(self.now + rng.expovariate(1 / CHANGE_INTERVAL), self._change_members)
        leaders = [s for s in self.servers.values() if s.core and s.core.role is Role.LEADER]
        ready = [s for s in leaders if self.now >= s.paused_until]
        if not ready:
            return
        server = rng.choice(ready)
        core = server.core
        assert core is not None
        name = rng.choice(list(self.servers))
        others = [i for i in self.servers if i != name]
        now = core.configuration
        wanted = rng.choice(
            (
                core.with_learner(name),
                core.with_learner(name, promoted=False),
                core.with_voter(name),
                core.without(name),
                now.but(rng.sample(now.members, max(1, len(now.members) - 2))),  # a direct switch
                core.joint_with((name, *rng.sample(others, rng.randint(0, len(others))))),
            )
        )
        self._change(server, wanted)

    def _change(self, server: Server, wanted: Configuration) -> None:
        core = server.core
        assert core is not None
        if wanted.members == core.configuration.members and wanted.voters == core.configuration.voters:
            return
        try:
            self._step(server, lambda clock: core.change(clock, wanted))
        except (NotLeader, CannotChange):
            self.summary.refused_changes += 1
        else:
            self.summary.changes += 1

    def receive(self, server: Server, core: Core, m: Message | Aside) -> None:
        """A message is a step; a part of a snapshot is one if it is the last."""
        transfers = server.transfers
        answer: Message | Aside | None = None
        match m:
            case SnapshotChunk():
                answer = transfers.receive(m, core.current_term, core.commit_index)
            case SnapshotChunkReply():
                answer = transfers.acknowledged(server.clock(self.now), m)
            case _:
                told, written = self._told(m), self.summary.events
                self._step(server, lambda clock: core.receive(clock, m), told)
                if told is not None and told.line == self._next_line and self.summary.events == written:
                    told.line = None  # a crash came first: a copy may yet be received
        if isinstance(answer, InstallSnapshot):
            self._step(server, lambda clock: core.receive(clock, answer))
        elif answer is not None:
            self.network.carry(answer)

    def _told(self, m: Message | Aside) -> Told | None:
        """If a message was changed on the way, where in the trace it is received."""
        told = next((told for told in self.summary.lies if told.said is m), None)
        if told is not None and told.line is None:
            told.line = self._next_line
        return told

    @property
    def _next_line(self) -> int:
        """Where the next event will stand in the trace, if it is written at once: after the header."""
        return self.summary.events + self.summary.client_events + 2

    # What a driver does with a batch, and how it dies.

    def _step(self, server: Server, take: Callable[[float], Batch | None], told: Told | None = None) -> None:
        """One step of one server, then whatever else goes wrong."""
        try:
            batch = take(server.clock(self.now))
        except (AssertionError, IndexError) as error:
            if told is not None:
                told.stopped, told.line = str(error), None
            self._violated(f"{server.name} stopped itself: {error}", error)
            self._crash(server)
            return
        if batch is None:
            return
        self._take(server, batch)
        if self.clients is not None:
            self.clients.serve(server)

    def _take(self, server: Server, batch: Batch) -> None:
        """What a step asks for is done, or some of it."""
        self.summary.steps += 1
        if self.rng.random() < self.faults.crash:
            self._drive_and_crash(server, batch)
        elif batch.persist and self.faults.disk and self.rng.random() < self.faults.disk:
            self._drive_slowly(server, batch)
        else:
            self._drive(server, batch)
        self._disturb()

    def _drive(self, server: Server, batch: Batch) -> None:
        """Trace, persist, send, apply."""
        self._write(batch)
        server.persist(batch.persist)
        self._finish(server, batch)

    def _finish(self, server: Server, batch: Batch) -> None:
        """What may happen once a step is on disk."""
        self._send(server, batch.send)
        self._apply(server, batch)
        if self.clients is not None:
            self.clients.applied(server, batch)
        self._schedule_tick(server)
        core = server.core
        if core is not None and core.snapshot_due:
            self.summary.snapshots += 1
            self._step(
                server, lambda clock: core.take_snapshot(clock, (core.session_table or server.machine).save())
            )
        elif core is not None and (wanted := core.change_due()) is not None:
            self._change(server, wanted)

    def _send(self, server: Server, messages: Sequence[Message]) -> None:
        """A step's messages leave, of a snapshot the next part."""
        for m in messages:
            if not isinstance(m, InstallSnapshot):
                self.network.carry(m)
            elif chunk := server.transfers.send(server.clock(self.now), m):
                self.network.carry(chunk)

    def _drive_slowly(self, server: Server, batch: Batch) -> None:
        """The disk takes its time, in which the server does nothing, and may be stopped.

        What a server that is stopped meanwhile finds on its disk is the old or the new, as with a crash.
        What may go out early does, and is written by then, if not yet safe from a power cut.
        """
        self.summary.faults["disk"] += 1
        core = server.core
        persist = batch.persist
        self._note(batch)  # now, for others may go on meanwhile
        traced = server.traces_first or batch.early
        if traced:
            self._write_trace(batch)
        if batch.early or self.rng.random() < 0.5:  # only the answer is late
            server.persist(persist)
            persist = None
        if batch.early:
            self._send(server, batch.send)
            batch = batch._replace(send=())

        def written() -> None:
            if server.core is not core:
                return
            server.writing = False
            server.persist(persist)
            if not traced:
                self._write_trace(batch)
            self._finish(server, batch)

        server.writing = True
        server.paused_until = self.now + self.rng.uniform(0, 3) * self.config.election_timeout
        self._at(server.paused_until, written)

    def _drive_and_crash(self, server: Server, batch: Batch) -> None:
        """A server dies within a step: before or after each of its effects, or between two sends."""
        point = self.rng.choice(("before", "between", "unsent", "sending"))
        self.summary.faults[f"crash {point}"] += 1
        first, second = ("trace", "persist") if server.traces_first else ("persist", "trace")
        done = {"before": (), "between": (first,)}.get(point, (first, second))
        if "trace" in done:
            self._write(batch)
        if "persist" in done:
            server.persist(batch.persist)
        if point == "sending":
            self._send(server, batch.send[: self.rng.randint(0, len(batch.send))])
        self._crash(server)

    def _crash(self, server: Server) -> None:
        """A process is gone with all it hadn't persisted, for a while."""
        self.summary.faults["crash"] += 1
        self._stop(server, self.rng.uniform(0.2, 10) * self.config.election_timeout)

    def _stop(self, server: Server, seconds: float) -> None:
        server.core = None
        server.next_tick = float("inf")
        server.paused_until = 0.0
        server.writing = False
        self._at(self.now + seconds, self._start, server)

    def _write(self, batch: Batch) -> None:
        self._note(batch)
        self._write_trace(batch)

    def _write_trace(self, batch: Batch) -> None:
        self.summary.events += 1
        if self.trace:
            self.trace.write(batch.event)

    def _note(self, batch: Batch) -> None:
        """What a step comes to, for the summary."""
        state = batch.event["state"]
        if batch.event["event"] == "timeout":
            self.summary.elections += 1
        self.summary.terms = max(self.summary.terms, state.get("current_term", 0))
        if state.get("role") == Role.LEADER:
            self._lead(batch.event["server"])

    # What goes wrong between steps.

    def _disturb(self) -> None:
        """After a step, a partition may begin, a server be restarted, or one pause."""
        rng, faults = self.rng, self.faults
        if rng.random() < faults.partition:
            self.network.cut()
        if rng.random() < faults.restart:
            server = rng.choice(list(self.servers.values()))
            if server.core:
                self.summary.faults["restart"] += 1
                self._stop(server, 0.0)
        if rng.random() < faults.pause:
            server = rng.choice(list(self.servers.values()))
            if server.core and not server.writing:
                self.summary.faults["pause"] += 1
                server.paused_until = self.now + rng.uniform(0.1, 4) * self.config.election_timeout
        if self.config.leadership_transfer and rng.random() < faults.transfer:
            self._at(self.now, self._hand_over, rng.choice(list(self.servers.values())))

    def _hand_over(self, server: Server) -> None:
        """A server that leads hands over, if somebody has all of its log."""
        core = server.core
        free = self.now >= server.paused_until and not server.writing
        if core is not None and core.role is Role.LEADER and free:
            self.summary.faults["transfer"] += 1
            self._step(server, core.hand_over)

    # What must never happen, as far as can be seen cheaply from outside.

    def _lead(self, name: str) -> None:
        """At most one leader a term, and it has all that was committed in earlier ones. Figure 3."""
        core = self.servers[name].core
        assert core is not None
        self.summary.leaders += 1
        other = self._leader_of.setdefault(core.current_term, name)
        if other != name:
            self._violated(f"{other} and {name} both lead term {core.current_term} (election safety)")
        # A vote may be so late that a newer leader has committed meanwhile.
        known = max((n for n, term in enumerate(self._known_in, 1) if term < core.current_term), default=0)
        base = core.log.snapshot_index
        log, applied = core.log.entries(base + 1, max(0, known - base)), tuple(self._applied[base:known])
        if log != applied:
            n = base + _first_difference(log, applied)
            self._violated(f"{name} leads term {core.current_term} without committed entry {n}")

    def _apply(self, server: Server, batch: Batch) -> None:
        """All servers apply the same entries in the same order. Figure 3, State Machine Safety."""
        if batch.install is not None:
            self.summary.installed += 1
            if not self.config.sessions:
                server.machine.load(batch.install.state)
        for _, entry in batch.apply if self.clients is None and not self.config.sessions else ():
            if for_state_machine(entry.command):
                server.machine.apply(entry.command)
        taken = batch.persist.snapshot if batch.persist else None
        if taken and self._states.setdefault(taken.last_included_index, taken) != taken:
            n = taken.last_included_index
            self._violated(f"{server.name} has another state or other members after entry {n}")
        if not batch.apply:
            return
        before = batch.apply[0][0] - 1
        entries = [entry for _, entry in batch.apply]
        agreed = self._applied[before : before + len(entries)]
        if before > len(self._applied) or agreed != entries[: len(agreed)]:
            n = before + _first_difference(agreed, entries)
            self._violated(f"{server.name} applies another entry {n} than was applied before")
            return
        news = entries[len(agreed) :]
        self._applied += news
        assert server.core is not None
        self._known_in += [server.core.current_term] * len(news)

    def _violated(self, what: str, cause: Exception | None = None, *, allowed: bool = False) -> None:
        """A violation ends the run, unless it was asked for."""
        message = f"seed {self.summary.seed}, step {self.summary.steps}: {what}"
        if not (allowed or self.broken or self.faults.corruption or self.lie):
            raise SimulationError(f"{message}\nhelp: {self._command()}") from cause
        self.summary.violation = self.summary.violation or message

    def _extensions(self) -> str:
        """How the command line asks for this cluster's extensions."""
        extensions = [name for name in self.config.extensions if name in EXTENSIONS]
        if set(extensions) == set(USUAL):
            return ""
        return "".join(f" --with {name}" for name in extensions) or " --figure-2"

    def _command(self) -> str:
        """The one command that does all this again."""
        names = tuple(self.servers)
        servers = len(names) if names == server_names(len(names)) else ",".join(names)
        return (
            f"raftworthy simulate --seed {self.summary.seed} --servers {servers}"
            f" --steps {self._steps} --faults {self.faults}{self._extensions()}"
            + (f" --snapshot-after {self.config.snapshot_after}" if self.config.snapshot_after else "")
            + self._clients_command()
        )

    def _clients_command(self) -> str:
        drift, clients = self.config.lease_drift, len(self.clients.names) if self.clients else 0
        return (f" --clients {clients}" if clients else "") + (f" --lease-reads {drift:g}" if drift else "")


def _first_difference(these: Sequence[Entry], those: Sequence[Entry]) -> int:
    """The first index, from 1, at which two sequences differ."""
    pairs = zip(these, those, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(these), len(those)))
    return same + 1

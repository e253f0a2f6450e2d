"""The driver of the core: one step at a time.

For each step of the core, in this order: its trace event is written, its changes are made durable, its
messages are sent, its newly committed entries are applied, and the clients who wait for them answered.
So nothing is promised before it is on disk (Figure 2: "updated on stable storage before responding").
A leader that asks its followers to store its clients' commands promises nothing yet: these go out
before its own fsync, and all disks work at the same time (dissertation, section 10.2.1).

All proposals that have come in meanwhile go into one step, and so share one fsync. A step's fsync blocks
the loop on purpose: there is nothing else this server may do before it, least of all count
itself among those who store the entries; what arrives in the meantime waits in the sockets, where it
becomes the next batch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, assert_never

from raftd.addresses import parse_addresses
from raftd.codec import (
    MAX_COMMAND,
    DeleteRequest,
    Done,
    FaultRequest,
    Faults,
    GetRequest,
    MembersRequest,
    NoSession,
    PutRequest,
    Read,
    Redirect,
    Refused,
    RegisterRequest,
    Reply,
    Request,
    SessionRequest,
    Status,
    StatusRequest,
    TransferRequest,
    UnknownOutcome,
)
from raftd.configurations import Configuration, for_state_machine
from raftd.core import Batch, CannotChange, Core, NotLeader, Persist, Role
from raftd.kv import Command, Delete, Get, KeyValue, Put, encode_command
from raftd.messages import (
    Aside,
    InstallSnapshot,
    Message,
    SnapshotChunk,
    SnapshotChunkReply,
)
from raftd.operating import status_of, wanted_by
from raftd.readers import Reader, Readers
from raftd.sessions import Ask, Expire, Register, Result, StateMachine
from raftd.sessions import encode_command as encode_session_command
from raftd.storage import Storage
from raftd.transfer import Transfers
from raftd.transport import Respond, Transport

log = logging.getLogger("raftd")

# More than this and a client is told to come back: the queue is for bursts, not for overload.
MAX_WAITING: Final = 10_000
MAX_MESSAGES: Final = 10_000


class Trace(Protocol):
    """Where events go."""

    def write(self, event: dict[str, Any]) -> None: ...


class NoTrace:
    """For a server that isn't watched. Its start counts: what it does is missing in every trace."""

    def __init__(self, note_started: Callable[[], None] = lambda: None) -> None:
        self._note_started = note_started

    def write(self, event: dict[str, Any]) -> None:
        if event["event"] == "restart":
            self._note_started()


@dataclass
class Counts:
    """What a server has done since its start, for whoever watches it."""

    elections: int = 0  # it has stood in
    leaderships: int = 0
    writes: int = 0  # to the disk, each with its fsync
    write_seconds: float = 0.0
    commands: int = 0  # appended for clients


@dataclass(frozen=True)
class Proposal:
    """A client's command on its way into the log, and whom to tell."""

    id: int
    command: bytes
    respond: Respond
    opens: bool = False  # a session


def _answer(proposal: Proposal, index: int, result: Result) -> Reply:
    """What a client is told of its entry, which is applied."""
    if proposal.opens:
        return Done(proposal.id, b"%d" % index)
    if result.asked and not result.origin:
        return NoSession(proposal.id, "there is no such session, or it has ended, or the answer was given")
    return Done(proposal.id, result.value)


@dataclass
class HandOver:
    """A leader that wants another to lead: because it stops, or because an operator asked for it."""

    until: float
    successor: str | None = None
    respond: Callable[[bytes | str], None] | None = None  # the new leader's name, or why there is none
    told: bool = False


class Server:
    """A Raft server: a core with a disk, a network, a clock and a state machine."""

    def __init__(
        self,
        core: Core,
        storage: Storage,
        transport: Transport,
        clock: Callable[[], float],
        *,
        trace: Trace | None = None,
        machine: StateMachine | None = None,
        wall: Callable[[], float] = time.time,
        trace_after_persist: bool = False,
        fault_switch: bool = False,
    ) -> None:
        self.core = core
        self.machine: StateMachine = machine or KeyValue()
        self._storage = storage
        self._transport = transport
        self._true_clock = clock
        self._faults = Faults()
        self._trace = trace or NoTrace()
        self._trace_after_persist = trace_after_persist
        self._fault_switch = fault_switch
        self._noted: tuple[Role, int, str | None] = (core.role, core.current_term, core.leader)

        self._transfers = Transfers(core.server, core.config.election_timeout)
        self._wall = wall
        self._expiring = 0  # the index of the last entry by which this leader ends sessions
        if core.config.sessions:
            core.keep_sessions(self.machine, clock)
        elif core.snapshot is not None:
            self.machine.load(core.snapshot.state)

        self.counts = Counts()
        self._messages: deque[Message | Aside] = deque(maxlen=MAX_MESSAGES)
        self.readers = Readers(core, self.machine.read, self._redirect)
        self._proposals: list[Proposal] = []
        self._changes: list[tuple[MembersRequest, Respond]] = []
        # What this leader has appended in `_appended_term` and not applied yet, by log index.
        self._appended: dict[int, Proposal] = {}
        self._appended_term = 0
        self._met = 0  # the configuration whose members have been met
        self._loop: asyncio.AbstractEventLoop | None = None  # none before the first step
        self._woken = False  # all that has come in is soon looked at
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when it wakes us
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._stopping = False
        self._handing_over: HandOver | None = None

    async def run(self) -> None:
        """Serve until `stop`, or until something fails that a server can't go on without."""
        await self._transport.start(self._on_message, self._on_request)
        try:
            self._step(self.core.start(self._clock()))
            self._loop = asyncio.get_running_loop()
            self._wake()
            await self._ended.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._transport.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Finish the step under way, and no other."""
        self._stopping = True
        self._ended.set()

    def leave(self) -> None:
        """Stop; a leader first hands over to a follower, so that clients don't wait for an election.

        It takes no more commands, and waits for an election timeout at most. A second call stops at once.
        """
        alone = not self.core.peers or not self.core.config.leadership_transfer
        leaving = self._handing_over is not None and self._handing_over.respond is None
        if leaving or self.core.role is not Role.LEADER or alone:
            self.stop()
            return
        self._handing_over = HandOver(self._clock() + self.core.config.election_timeout)
        self._wake()

    def _transfer(self, successor: str | None, respond: Callable[[bytes | str], None]) -> None:
        """An operator wants another leader."""
        core = self.core
        if not core.config.leadership_transfer:
            respond(f"{core.server} was started without leadership_transfer")
        elif successor == core.server:
            respond(core.server.encode())
        elif self._handing_over is not None:
            respond(f"{core.server} hands over already")
        elif not core.peers or successor not in (None, *core.peers):
            respond(f"{successor or 'nobody else'} is none of {', '.join(core.servers)}")
        else:
            until = self._clock() + 2 * core.config.election_timeout
            self._handing_over = HandOver(until, successor, respond)
            self._wake()

    def _hand_over(self) -> None:
        """Tell a follower that has caught up to stand, once; then wait until another leads, or time is up."""
        wanted, core = self._handing_over, self.core
        if wanted is None:
            return
        late = self._clock() >= wanted.until
        if core.role is Role.LEADER and not late:
            if not wanted.told and (batch := core.hand_over(self._clock(), wanted.successor)):
                log.info("%s hands over to %s", core.server, batch.send[0].target, extra=self._fields())
                self._step(batch)
                wanted.told = True
        elif wanted.respond is None:
            self.stop()
        elif core.leader not in (None, core.server):
            self._handing_over = None
            wanted.respond(str(core.leader).encode())
        elif late:
            self._handing_over = None
            who = f"{wanted.successor} has not" if wanted.successor else "nobody has"
            wanted.respond(f"{who} taken over in time: is it up, and has it all entries?")

    # Inputs wait here until the step before them is done.

    def _on_message(self, message: Message | Aside) -> None:
        """A message is a step of its own, taken at once."""
        self._messages.append(message)
        if self._loop is None:
            return
        self._do(self._take_messages)
        if self._handing_over or self.core.snapshot_due or self.core.change_due():
            self._wake()

    def _on_request(self, request: Request, respond: Respond) -> None:
        match request:
            case PutRequest(id, key, value):
                self._enqueue(id, Put(key, value), respond)
            case GetRequest(id, key, Read.STALE):
                respond(Done(id, self.machine.read(key)))
            case GetRequest(id, key, Read.INDEX) if self.core.config.reads:
                self._wait_to_read(Reader(id, key, respond))
            case GetRequest(id, key):
                self._enqueue(id, Get(key), respond)
            case DeleteRequest(id, key):
                self._enqueue(id, Delete(key), respond)
            case TransferRequest(id) if self.core.role is not Role.LEADER:
                respond(self._redirect(id))
            case TransferRequest(id, successor):
                self._transfer(
                    successor, lambda x: respond(Done(id, x) if isinstance(x, bytes) else Refused(id, x))
                )
            case RegisterRequest(id) | SessionRequest(id) if self.core.session_table is None:
                respond(Refused(id, "these servers keep no sessions: start them with --with sessions"))
            case RegisterRequest(id):
                self._queue(id, encode_session_command(Register(self._stamp())), respond, opens=True)
            case SessionRequest(id, session, number, lowest, command):
                asked = Ask(session, number, lowest, self._stamp(), command)
                self._queue(id, encode_session_command(asked), respond)
            case StatusRequest(id):
                respond(self.status(id))
            case MembersRequest(id) if not self.core.config.membership:
                respond(
                    Refused(
                        id, "the members are as they were given: start all servers with --with membership"
                    )
                )
            case MembersRequest():
                self._changes.append((request, respond))
                self._wake()
            case FaultRequest(id) if not self._fault_switch:
                respond(
                    Refused(id, "the fault switch is off: for tests, start the server with --fault-switch")
                )
            case FaultRequest(id, faults):
                try:
                    self._suffer(faults)
                    respond(Done(id))
                except ValueError as error:
                    respond(Refused(id, str(error)))
            case _:
                assert_never(request)

    def _suffer(self, faults: Faults) -> None:
        """For tests: the network, the disk and the clock are as told from now on."""
        if not 0 <= faults.disk_delay < 60:
            raise ValueError(f"a disk that takes {faults.disk_delay:g} s longer: write 0 to 60")
        if not math.isfinite(faults.clock):
            raise ValueError(f"a clock that is {faults.clock:g} s ahead: write a number of seconds")
        self._transport.lose(faults.mute, faults.deaf)
        self._storage.delay = faults.disk_delay
        if faults.disk_full:
            self._storage.fill()
        self._faults = faults
        self._due = math.inf  # the clock may have jumped
        self._wake()

    def _clock(self) -> float:
        return self._true_clock() + self._faults.clock

    def _enqueue(self, id: int, command: Command, respond: Respond) -> None:
        if isinstance(self.machine, KeyValue):
            self._queue(id, encode_command(command), respond)
        else:
            respond(Refused(id, "these servers keep no keys and values, but another state machine"))

    def _stamp(self) -> int:
        """A leader's time for an entry."""
        assert self.core.session_table is not None
        return self.core.session_table.stamp(self._wall() + self._faults.clock)

    def _expire_sessions(self) -> None:
        """A leader ends sessions that nobody has used for long, for all servers: in the log."""
        table, core = self.core.session_table, self.core
        if table is None or core.role is not Role.LEADER or core.commit_index < self._expiring:
            return
        now = self._stamp()
        if table.idle(now):
            since = now - int(core.config.session_timeout * 1000)
            batch = core.propose(self._clock(), [encode_session_command(Expire(since))])
            self._expiring = core.log.last_index
            self._step(batch)

    def _queue(self, id: int, encoded: bytes, respond: Respond, opens: bool = False) -> None:
        if self._handing_over is not None:
            respond(Redirect(id, None, None))
        elif len(encoded) > MAX_COMMAND:
            respond(Refused(id, f"the command has {len(encoded)} bytes, {MAX_COMMAND} are allowed"))
        elif len(self._proposals) + len(self._appended) >= MAX_WAITING:
            respond(Refused(id, f"{MAX_WAITING} commands are waiting already: try again later"))
        else:
            self._proposals.append(Proposal(id, encoded, respond, opens))
            self._wake()

    def _wait_to_read(self, reader: Reader) -> None:
        if self._handing_over is not None:
            reader.respond(Redirect(reader.id, None, None))
        elif len(self.readers) >= MAX_WAITING:
            reader.respond(Refused(reader.id, f"{MAX_WAITING} reads are waiting already: try again later"))
        else:
            self.readers.add(reader)
            self._wake()

    def _redirect(self, id: int) -> Redirect:
        """Whom to ask instead, if this server knows."""
        leader = self.core.leader
        if leader is None or leader == self.core.server:
            return Redirect(id, None, None)
        return Redirect(id, leader, self._transport.addresses.get(leader))

    # What wakes it.

    def _wake(self) -> None:
        """Look soon at all that has come in: what comes in until then shares a step."""
        if self._loop is not None and not self._woken:
            self._woken = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._woken = False
        self._do(self._take_inputs)

    def _do(self, work: Callable[[], None]) -> None:
        """Take steps. One that fails ends this server: the loop would only log it, or hang up on a peer."""
        if self._stopping:
            return
        try:
            work()
            self._set_timer()
        except BaseException as failure:
            self._failure = failure
            self.stop()

    def _set_timer(self) -> None:
        """Let time wake us at the next deadline, or before: one that moves on is only looked at then."""
        due = self.core.deadline
        if self._handing_over is not None:
            due = min(due, self._handing_over.until)
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        assert self._loop is not None
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._work()

    # Steps.

    def _take_inputs(self) -> None:
        """Messages before time: a heartbeat that has arrived counts, however late we come to read it."""
        self._take_messages()
        if self._proposals:
            proposals, self._proposals = self._proposals, []
            if self.core.config.group_commit:
                self._propose(proposals)
            else:
                for proposal in proposals:
                    self._propose([proposal])
        self._change_members()
        batch = self.core.tick(self._clock())
        if batch is not None:
            self._step(batch)
        if self.core.snapshot_due:
            replicated = self.core.session_table or self.machine
            self._step(self.core.take_snapshot(self._clock(), replicated.save()))
        self._expire_sessions()
        self._serve_readers()
        self._hand_over()

    def _serve_readers(self) -> None:
        if len(self.readers) and not self._stopping:
            self.readers.serve(self._clock(), self._step)

    def _take_messages(self) -> None:
        while self._messages and not self._stopping:
            self._take(self._messages.popleft())
        self._serve_readers()

    def _take(self, message: Message | Aside) -> None:
        """A step for a message, or what it asks for that is none."""
        core, now = self.core, self._clock()
        match message:
            case SnapshotChunk():
                answer = self._transfers.receive(message, core.current_term, core.commit_index)
                if isinstance(answer, InstallSnapshot):
                    self._step(core.receive(now, answer))
                elif answer:
                    self._transport.send(answer)
            case SnapshotChunkReply():
                if chunk := self._transfers.acknowledged(now, message):
                    self._transport.send(chunk)
            case _:
                self._step(core.receive(now, message))

    def _propose(self, proposals: list[Proposal]) -> None:
        try:
            batch = self.core.propose(self._clock(), [proposal.command for proposal in proposals])
        except NotLeader:
            for proposal in proposals:
                proposal.respond(self._redirect(proposal.id))
            return
        self.counts.commands += len(proposals)
        first = self.core.log.last_index - len(proposals) + 1
        self._appended_term = self.core.current_term
        self._appended.update(enumerate(proposals, start=first))
        self._step(batch)

    def _change_members(self) -> None:
        """What operators ask of a leader, and what it does by itself to bring a change to its end."""
        changes, self._changes = self._changes, []
        for request, respond in changes:
            try:
                self._change(wanted_by(request, self.core), Proposal(request.id, b"", respond))
            except NotLeader:
                respond(self._redirect(request.id))
            except (CannotChange, ValueError) as error:
                respond(Refused(request.id, str(error)))
        if (wanted := self.core.change_due()) is not None:
            self._change(wanted)

    def _change(self, wanted: Configuration, proposal: Proposal | None = None) -> None:
        """A leader appends a configuration; who asked for it is told when it is committed."""
        batch = self.core.change(self._clock(), wanted)
        if proposal is not None:
            index = self.core.configured
            self._appended_term = self.core.current_term
            self._appended[index] = replace(proposal, command=self.core.log.entry(index).command)
        log.info("%s: the voters are %s", self.core.server, ", ".join(wanted.voters), extra=self._fields())
        self._step(batch)

    def _meet(self) -> None:
        """Whoever has joined is to be reached where its configuration says."""
        for server, address in self.core.configuration.addresses.items():
            self._transport.meet(server, parse_addresses(f"{server}={address}")[server])

    def _step(self, batch: Batch) -> None:
        """Trace, persist, send, apply, in this order."""
        # The format allows both orders, and replay must accept what a kill leaves behind in either.
        if not self._trace_after_persist:
            self._write_trace(batch)
        if batch.persist is not None:
            self._write(batch.persist)
            if not batch.early:
                self._sync()
        if self._trace_after_persist:
            self._write_trace(batch)
        if self.core.configured != self._met:
            self._met = self.core.configured
            self._meet()
        for message in batch.send:
            self._send(message)
        if batch.early:
            self._sync()
        if batch.install is not None and self.core.session_table is None:
            self.machine.load(batch.install.state)
        if batch.apply:
            self._apply(batch)
        if self._appended:
            self._give_up_what_is_lost()
        self._note_role()

    def _write_trace(self, batch: Batch) -> None:
        self._trace.write(batch.event)

    def _send(self, message: Message) -> None:
        """A snapshot goes in chunks: the first one now, or the one that got lost."""
        if not isinstance(message, InstallSnapshot):
            self._transport.send(message)
        elif chunk := self._transfers.send(self._clock(), message):
            self._transport.send(chunk)

    def _write(self, persist: Persist) -> None:
        began = self._true_clock()
        self._storage.write(persist)
        self.counts.writes += 1
        self.counts.write_seconds += self._true_clock() - began

    def _sync(self) -> None:
        began = self._true_clock()
        self._storage.sync()
        self.counts.write_seconds += self._true_clock() - began

    def _note_role(self) -> None:
        """Count and log what this server has become; who operates it wants to know."""
        core = self.core
        now = (core.role, core.current_term, core.leader)
        if now == self._noted:
            return
        if core.role is not self._noted[0] or core.role is not Role.FOLLOWER:
            self.counts.elections += core.role is Role.CANDIDATE
            self.counts.leaderships += core.role is Role.LEADER
            log.info("%s is %s in term %d", core.server, core.role, core.current_term, extra=self._fields())
        elif core.leader is not None:
            log.info(
                "%s follows %s in term %d", core.server, core.leader, core.current_term, extra=self._fields()
            )
        self._noted = now

    def _fields(self) -> dict[str, Any]:
        """What goes with each line of a structured log."""
        core = self.core
        return {
            "server": core.server,
            "role": str(core.role),
            "term": core.current_term,
            "leader": core.leader,
            "commit_index": core.commit_index,
        }

    def _apply(self, batch: Batch) -> None:
        """Execute what is committed, if the core has not, and answer whoever waits for it."""
        for place, (index, entry) in enumerate(batch.apply):
            if batch.results:
                result = batch.results[place]
            else:
                value = self.machine.apply(entry.command) if for_state_machine(entry.command) else None
                result = Result(index, value)
            proposal = self._appended.pop(index, None)
            if proposal is None:
                continue
            # Another leader's entry may have taken the place of ours.
            if entry.term == self._appended_term:
                assert entry.command == proposal.command
                proposal.respond(_answer(proposal, index, result))
            else:
                proposal.respond(UnknownOutcome(proposal.id, f"entry {index} is from another leader"))

    def _give_up_what_is_lost(self) -> None:
        """A leader no more: whether its entries get committed is for others to say, and we won't know."""
        if self.core.role is not Role.LEADER or self.core.current_term != self._appended_term:
            reason = f"{self.core.server} no longer leads term {self._appended_term}"
            for proposal in self._appended.values():
                proposal.respond(UnknownOutcome(proposal.id, reason))
            self._appended.clear()

    @property
    def transport(self) -> Transport:
        """Its connections."""
        return self._transport

    def status(self, id: int = 0) -> Status:
        """This server as it sees itself; what `status` prints."""
        return status_of(self.core, self._clock(), id, self._storage.start, self._faults)

"""The driver: what happens in which order, what clients are told, and what strangers can't do to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd import codec
from raftd.addresses import Address
from raftd.client import Client, RequestError
from raftd.cluster import ask, free_addresses
from raftd.codec import (
    ClientHello,
    Done,
    FaultRequest,
    Faults,
    GetRequest,
    PeerHello,
    PutRequest,
    Redirect,
    Refused,
    Reply,
    Status,
    StatusRequest,
    UnknownOutcome,
)
from raftd.core import Config, Core, Persist, Role
from raftd.killing import KillAt
from raftd.kv import KeyValue, Put, encode_command
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Aside,
    Entry,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raftd.server import Server
from raftd.storage import Storage, StorageError
from raftd.transport import QUEUE_LIMIT, Transport

SERVERS = ("n1", "n2", "n3")
CLUSTER = "tests"
ADDRESSES = {"n1": Address("127.0.0.1", 1), "n2": Address("127.0.0.1", 2), "n3": Address("127.0.0.1", 3)}


# --- one step at a time, by hand ----------------------------------------------------------------------


class RecordedStorage(Storage):
    def __init__(self, folder: Path, done: list[str]) -> None:
        self.done = done
        super().__init__(folder, "n1", SERVERS)

    def write(self, persist: Persist) -> None:
        super().write(persist)
        self.done.append("write")

    def sync(self) -> None:
        super().sync()
        self.done.append("sync")


class RecordedTransport(Transport):
    def __init__(self, done: list[str]) -> None:
        super().__init__("n1", ADDRESSES)
        self.done = done
        self.sent: list[Message | Aside] = []

    def send(self, message: Message | Aside) -> None:
        self.done.append("send")
        self.sent.append(message)


class RecordedMachine(KeyValue):
    def __init__(self, done: list[str]) -> None:
        super().__init__()
        self.done = done

    def apply(self, encoded: bytes) -> bytes | None:
        self.done.append("apply")
        return super().apply(encoded)


class Bench:
    """A server n1 of three, whose world is this test."""

    def __init__(self, folder: Path, config: Config | None = None, **options: Any) -> None:
        self.done: list[str] = []
        self.now = 0.0
        self.replies: list[Reply] = []
        self.storage = RecordedStorage(folder, self.done)
        self.transport = RecordedTransport(self.done)
        core = Core("n1", SERVERS, random.Random(1), config or Config(), self.storage.persistent)
        self.server = Server(
            core,
            self.storage,
            self.transport,
            lambda: self.now,
            trace=self,
            machine=RecordedMachine(self.done),
            **options,
        )
        self.server._step(core.start(self.now))
        self.done.clear()

    def write(self, event: dict[str, Any]) -> None:
        self.done.append("trace")

    def respond(self, reply: Reply) -> None:
        self.done.append("reply")
        self.replies.append(reply)

    def receive(self, *messages: Message | Aside) -> None:
        for message in messages:
            self.server._on_message(message)
        self.server._take_inputs()

    def lead(self) -> int:
        """Become the leader of the next term, and have its no-op committed; the term."""
        self.now = self.server.core.deadline
        self.server._take_inputs()
        term = self.server.core.current_term
        self.receive(RequestVoteReply("n2", "n1", term, granted=True))
        assert self.server.core.role is Role.LEADER
        self.acknowledge()
        self.done.clear()
        return term

    def acknowledge(self) -> None:
        core = self.server.core
        self.receive(AppendEntriesReply("n2", "n1", core.current_term, True, core.log.last_index))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.storage.close()


@pytest.mark.parametrize(
    ("swapped", "order"),
    [(False, ["trace", "write", "sync", "send"]), (True, ["write", "sync", "trace", "send"])],
)
def test_a_vote_is_traced_and_durable_before_it_is_sent(
    bench: Callable[..., Bench], swapped: bool, order: list[str]
) -> None:
    """Figure 2, State: "updated on stable storage before responding to RPCs"."""
    server = bench(trace_after_persist=swapped)
    server.receive(RequestVote("n2", "n1", 1, 0, 0))
    assert server.done == order


@pytest.mark.parametrize(
    ("swapped", "order"),
    [(False, ["trace", "write", "send", "sync"]), (True, ["write", "trace", "send", "sync"])],
)
def test_a_client_is_answered_after_its_command_is_committed_and_applied(
    bench: Callable[..., Bench], swapped: bool, order: list[str]
) -> None:
    """Section 5.3: the leader applies the entry, and returns the result of that execution to the client.

    Its followers write at the same time as it does: dissertation, section 10.2.1.
    """
    server = bench(trace_after_persist=swapped)
    server.lead()
    server.server._on_request(PutRequest(7, "a", b"1"), server.respond)
    server.server._take_inputs()
    # n3 has not answered this leader yet, and is sent nothing until it does.
    assert server.done == order
    assert server.replies == []

    server.done.clear()
    server.acknowledge()
    assert server.done[:3] == ["trace", "apply", "reply"]
    assert server.replies == [Done(7)]


def test_waiting_proposals_share_one_write(bench: Callable[..., Bench]) -> None:
    server = bench()
    server.lead()
    for id in range(50):
        server.server._on_request(PutRequest(id, f"key {id}", b""), server.respond)
    server.server._take_inputs()
    assert server.done.count("sync") == 1
    server.acknowledge()
    assert server.replies == [Done(id) for id in range(50)]


@pytest.mark.parametrize(
    ("left_out", "syncs", "sizes"),
    [
        ((), 1, [3]),
        (("group_commit",), 3, [1, 1, 1]),
        (("batching",), 1, [1, 1, 1]),
        (("pipelining", "group_commit"), 3, [1]),
        (("pipelining", "batching"), 1, [1]),
    ],
)
def test_what_saves_time_can_be_left_out(
    bench: Callable[..., Bench], left_out: tuple[str, ...], syncs: int, sizes: list[int]
) -> None:
    """Three puts, of which a follower is sent what it may be sent before it answers."""
    server = bench(config=Config().without(left_out))
    server.lead()
    server.transport.sent.clear()
    for id in range(3):
        server.server._on_request(PutRequest(id, "a", b""), server.respond)
    server.server._take_inputs()
    sent = [m.entries for m in server.transport.sent if isinstance(m, AppendEntries)]
    assert [len(entries) for entries in sent] == sizes
    assert server.done.count("sync") == syncs
    for _ in range(3):
        server.acknowledge()
    assert server.replies == [Done(id) for id in range(3)]


def test_a_leader_can_be_told_to_wait_for_its_disk_before_it_sends(bench: Callable[..., Bench]) -> None:
    server = bench(config=Config().without(["parallel_disks"]))
    server.lead()
    server.server._on_request(PutRequest(7, "a", b"1"), server.respond)
    server.server._take_inputs()
    assert server.done == ["trace", "write", "sync", "send"]


def test_a_get_sees_the_puts_before_it_in_the_log(bench: Callable[..., Bench]) -> None:
    server = bench()
    server.lead()
    for request in (GetRequest(1, "a"), PutRequest(2, "a", b"x"), GetRequest(3, "a")):
        server.server._on_request(request, server.respond)
    server.server._take_inputs()
    server.acknowledge()
    assert server.replies == [Done(1, None), Done(2), Done(3, b"x")]


def test_a_leader_that_is_deposed_does_not_know_what_becomes_of_its_entries(
    bench: Callable[..., Bench],
) -> None:
    """Section 5.4.2: an entry of an older term may be committed by a later leader, or overwritten."""
    server = bench()
    term = server.lead()
    server.server._on_request(PutRequest(1, "a", b"1"), server.respond)
    server.server._take_inputs()
    server.receive(AppendEntries("n3", "n1", term + 1, 0, 0, (), 0))
    assert [type(reply) for reply in server.replies] == [UnknownOutcome]


def test_a_leader_that_leads_again_does_not_answer_for_its_older_term(bench: Callable[..., Bench]) -> None:
    server = bench()
    term = server.lead()
    server.server._on_request(PutRequest(1, "a", b"1"), server.respond)
    server.server._take_inputs()
    server.receive(RequestVote("n3", "n1", term + 1, 0, 0))
    assert server.lead() > term
    assert [type(reply) for reply in server.replies] == [UnknownOutcome]


def test_a_follower_names_the_leader_and_where_it_is(bench: Callable[..., Bench]) -> None:
    """Section 8: "the server will reject the client's request and supply information about the most
    recent leader it has heard from"."""
    server = bench()
    server.server._on_request(GetRequest(1, "a"), server.respond)
    server.server._take_inputs()
    server.receive(AppendEntries("n3", "n1", 1, 0, 0, (), 0))
    server.server._on_request(GetRequest(2, "a"), server.respond)
    server.server._take_inputs()
    assert server.replies == [Redirect(1, None, None), Redirect(2, "n3", ADDRESSES["n3"])]


def test_a_command_that_is_too_long_is_refused(bench: Callable[..., Bench]) -> None:
    server = bench()
    server.lead()
    overhead = len(encode_command(Put("a", bytes(60_000)))) - 60_000
    server.server._on_request(PutRequest(1, "a", bytes(codec.MAX_COMMAND - overhead + 1)), server.respond)
    assert [type(reply) for reply in server.replies] == [Refused]
    server.server._on_request(PutRequest(2, "a", bytes(codec.MAX_COMMAND - overhead)), server.respond)
    server.server._take_inputs()
    server.acknowledge()
    assert server.replies[1:] == [Done(2)]


def test_the_fault_switch_is_off_unless_it_was_asked_for(bench: Callable[..., Bench]) -> None:
    server = bench()
    server.server._on_request(FaultRequest(1, Faults(mute=("n2",))), server.respond)
    assert [type(reply) for reply in server.replies] == [Refused]
    assert server.server.status().faults == Faults()


@pytest.mark.parametrize("wrong", [Faults(deaf=("n2", "n1")), Faults(disk_delay=-1.0)])
def test_faults_that_can_not_be_are_refused(tmp_path: Path, wrong: Faults) -> None:
    server = Bench(tmp_path, fault_switch=True)
    server.server._on_request(FaultRequest(1, wrong), server.respond)
    server.server._on_request(FaultRequest(2, Faults(mute=("n2",))), server.respond)
    assert [type(reply) for reply in server.replies] == [Refused, Done]
    assert server.server.status().faults == Faults(mute=("n2",))
    server.storage.close()


def test_what_the_deaf_are_sent_is_lost_and_what_the_mute_send(tmp_path: Path) -> None:
    transport = Transport("n1", ADDRESSES)
    heard: list[Message | Aside] = []
    transport._on_message = heard.append
    transport.lose(mute=["n2"], deaf=["n3"])
    for peer in ("n2", "n3"):
        transport.send(RequestVoteReply("n1", peer, 1, granted=False))
        transport.received(peer, RequestVoteReply(peer, "n1", 1, granted=False))
    assert [m.source for m in heard] == ["n2"]
    assert [len(transport._links[peer].queue) for peer in ("n2", "n3")] == [0, 1]


def test_who_joins_later_is_cut_off_from_the_beginning() -> None:
    async def run() -> None:
        transport = Transport("n1", ADDRESSES)
        transport.lose(mute=["n9"], deaf=[])
        transport.meet("n9", ADDRESSES["n2"])
        transport.send(RequestVoteReply("n1", "n9", 1, granted=False))
        assert not transport._links["n9"].queue
        transport.lose(mute=[], deaf=[])
        transport.send(RequestVoteReply("n1", "n9", 1, granted=False))
        assert len(transport._links["n9"].queue) == 1
        await transport.close()

    asyncio.run(run())


def test_a_full_disk_stops_a_server_before_it_promises_anything(tmp_path: Path) -> None:
    server = Bench(tmp_path, fault_switch=True)
    server.lead()
    server.server._on_request(FaultRequest(1, Faults(disk_full=True)), server.respond)
    server.server._on_request(PutRequest(2, "a", bytes(60_000)), server.respond)
    sent = len(server.transport.sent)
    with pytest.raises(StorageError, match="full"):
        server.server._take_inputs()
    assert [type(reply) for reply in server.replies] == [Done]
    assert len(server.transport.sent) == sent
    server.storage.close()
    with Storage(tmp_path, "n1", SERVERS) as again:
        assert again.persistent.log.last_index == 1  # the no-op of its election


def test_a_clock_that_jumps_ahead_brings_the_timeout_on(tmp_path: Path) -> None:
    server = Bench(tmp_path, fault_switch=True)
    server.server._on_request(FaultRequest(1, Faults(clock=1000.0)), server.respond)
    server.server._take_inputs()
    assert server.server.core.role is Role.CANDIDATE
    server.storage.close()


def test_an_unreadable_command_changes_nothing_on_any_replica() -> None:
    machine = KeyValue()
    machine.apply(encode_command(Put("a", b"1")))
    for encoded in (b"\xff", b"nonsense", b"\x93\xa1p\xa1a", encode_command(Put("b", b""))[:-1]):
        assert machine.apply(encoded) is None
    assert machine.values == {"a": b"1"}


def test_a_peer_that_is_away_has_a_bounded_queue_of_the_newest_messages() -> None:
    transport = Transport("n1", ADDRESSES)
    for term in range(QUEUE_LIMIT + 10):
        transport.send(RequestVoteReply("n1", "n2", term, granted=False))
    assert [m.term for m in transport._links["n2"].queue] == list(range(10, QUEUE_LIMIT + 10))


@pytest.mark.parametrize("text", ["", "nowhere", "after-trace:", "after-trace:0", "after-trace:x"])
def test_a_bad_kill_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        KillAt.parse(text)
    assert KillAt.parse("after-trace:3") == KillAt("after-trace", 3)


# --- strangers at the door ----------------------------------------------------------------------------


class Running:
    """Server n1 of three, the others away, in a thread of its own."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        self.addresses = dict(zip(SERVERS, free_addresses(3), strict=True))
        self.address = self.addresses["n1"]
        self._config = config or Config()
        self.transport = Transport(
            "n1",
            self.addresses,
            cluster=CLUSTER,
            max_connections=20,
            open_to_new=self._config.membership,
        )
        self._loop = asyncio.new_event_loop()
        self._folder = folder
        self._up = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as failure:
            self.failure = failure
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        with Storage(self._folder, "n1", SERVERS) as storage:
            core = Core("n1", SERVERS, random.Random(1), self._config, storage.persistent)
            self._server = Server(core, storage, self.transport, time.monotonic)
            self._loop.call_later(0.05, self._up.set)
            await self._server.run()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.failure is None

    def still_serves(self) -> None:
        assert isinstance(ask(self.address, StatusRequest(1)), Status)

    def hangs_up_on(self, data: bytes) -> bool:
        """Whether it closes the connection on which `data` came, within a second and without a word."""
        with socket.create_connection(self.address, 1.0) as connection:
            try:
                connection.sendall(data)
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Running(tmp_path_factory.mktemp("running"))
    yield server
    server.stop()


PEER = codec.encode(PeerHello("n2", "n1", SERVERS, CLUSTER, "127.0.0.1:1"))
CLIENT = codec.encode(ClientHello())
VOTE = codec.encode(RequestVoteReply("n2", "n1", 0, granted=False))


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(hello=st.sampled_from([b"", PEER, CLIENT]), data=st.binary(max_size=300), framed=st.booleans())
@settings(max_examples=100, deadline=None)
def test_random_bytes_do_not_harm_a_server(running: Running, hello: bytes, data: bytes, framed: bool) -> None:
    with socket.create_connection(running.address, 1.0) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(hello + (frame(data) if framed else data))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    running.still_serves()


@pytest.mark.parametrize(
    "data",
    [
        frame(b"\xc1"),
        b"GET / HTTP/1.1\r\n\r\n",
        (codec.MAX_HELLO + 1).to_bytes(4, "big"),
        PEER + (codec.MAX_MESSAGE + 1).to_bytes(4, "big"),
        CLIENT + (codec.MAX_REQUEST + 1).to_bytes(4, "big"),
        VOTE,
        CLIENT + VOTE,
        CLIENT + CLIENT,
        PEER + PEER,
        PEER + codec.encode(GetRequest(1, "a")),
        codec.encode(PeerHello("n9", "n1", SERVERS, CLUSTER, "127.0.0.1:1")),
        codec.encode(PeerHello("n1", "n1", SERVERS, CLUSTER, "127.0.0.1:1")),
        codec.encode(PeerHello("n2", "n3", SERVERS, CLUSTER, "127.0.0.1:1")),
        codec.encode(PeerHello("n2", "n1", ("n1", "n2"), CLUSTER, "127.0.0.1:1")),
        codec.encode(PeerHello("n2", "n1", SERVERS, "another", "127.0.0.1:1")),
        codec.encode(PeerHello("n2", "n1", SERVERS, CLUSTER, "127.0.0.1:1", version=2)),
        codec.encode(ClientHello(version=2)),
        PEER + codec.encode(RequestVoteReply("n3", "n1", 0, granted=True)),
        PEER + codec.encode(RequestVoteReply("n2", "n3", 0, granted=True)),
        PEER + codec.encode(AppendEntries("n2", "n1", 1, 0, 0, (Entry(-1, b""),), 0)),
    ],
)
def test_who_breaks_the_protocol_is_hung_up_on(running: Running, data: bytes) -> None:
    assert running.hangs_up_on(data)
    running.still_serves()


class Gone(asyncio.Transport):
    """A connection that is closed already, as uvloop leaves it: it takes nothing."""

    closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def test_a_connection_that_was_made_when_time_was_up_is_not_used() -> None:
    """Its protocol isn't told that it was closed."""
    gone, transport = Gone(), Transport("n1", ADDRESSES)

    async def too_late(make: Callable[[], asyncio.Protocol], *where: Any, **how: Any) -> None:
        make().connection_made(gone)
        gone.closed = True
        raise TimeoutError

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "create_connection", too_late)
            task = asyncio.create_task(transport._links["n2"].run())
            await asyncio.sleep(0.01)
            assert gone.closed
            transport.send(RequestVoteReply("n1", "n2", 0, granted=False))
            task.cancel()

    asyncio.run(run())
    assert len(transport._links["n2"].queue) == 1


@pytest.fixture(scope="module")
def open_to_new(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Running(tmp_path_factory.mktemp("open"), Config(membership=True))
    yield server
    server.stop()


@pytest.mark.parametrize("source", ["n4", "n2"])
def test_who_calls_is_called_where_it_says_it_is(open_to_new: Running, source: str) -> None:
    """It may be new to us, or have moved: nobody is at n2's address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        hello = PeerHello(source, "n1", SERVERS, CLUSTER, f"127.0.0.1:{listening.getsockname()[1]}")
        with socket.create_connection(open_to_new.address, 1.0) as connection:
            connection.sendall(codec.encode(hello))
            with listening.accept()[0] as called:
                frames = codec.Frames(codec.MAX_HELLO)
                while (body := frames.next()) is None:
                    frames.feed(called.recv(4096))
    answer = codec.HELLO.decode(body)
    assert isinstance(answer, PeerHello)
    assert (answer.source, answer.target, answer.address) == ("n1", source, str(open_to_new.address))


@pytest.mark.parametrize(
    "hello",
    [
        PeerHello("n1", "n1", SERVERS, CLUSTER, "127.0.0.1:1"),
        PeerHello("n5", "n1", SERVERS, CLUSTER, "nowhere"),
        PeerHello("../n5", "n1", SERVERS, CLUSTER, "127.0.0.1:1"),
    ],
)
def test_who_cannot_be_a_new_peer_is_hung_up_on(open_to_new: Running, hello: PeerHello) -> None:
    assert open_to_new.hangs_up_on(codec.encode(hello))
    open_to_new.still_serves()


def test_peers_have_a_limit(open_to_new: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may pass for a peer can't have us call ever more."""
    monkeypatch.setattr("raftd.transport.MAX_PEERS", 2)
    assert open_to_new.hangs_up_on(codec.encode(PeerHello("n9", "n1", SERVERS, CLUSTER, "127.0.0.1:1")))
    open_to_new.still_serves()


@pytest.mark.parametrize("data", [b"", b"\0", PEER, PEER + VOTE, CLIENT, PEER[:-1]])
def test_who_keeps_to_the_protocol_is_not(running: Running, data: bytes) -> None:
    with socket.create_connection(running.address, 0.2) as connection:
        connection.sendall(data)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_client_gives_up_at_its_deadline_and_knows_that_nothing_was_executed(running: Running) -> None:
    async def run() -> RequestError:
        async with Client(running.addresses) as client:
            with pytest.raises(RequestError, match="no answer within") as failure:
                await client.put("a", b"1", timeout=0.3)
            return failure.value

    assert not asyncio.run(run()).may_have_executed

"""Whatever a stranger sends to a server, on any of its ports, and whatever happens to its disk's files.

No input ends a server, and none is accepted half: it is one whole message or request, or it is refused. What
a peer may say and Raft forbids is told apart: a server stops with the reason, for one of the two is wrong.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import shutil
import socket
import tempfile
import types
import typing
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any, Union

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd import codec, transport
from raftd.addresses import Address, parse_addresses
from raftd.cluster import Cluster, free_addresses
from raftd.codec import ClientHello, Faults, PeerHello
from raftd.core import Config, Core, Persist
from raftd.faults import make_core
from raftd.kv import KeyValue
from raftd.messages import MAX_NUMBER, Aside, Entry, Message, Snapshot
from raftd.serve import main
from raftd.server import Server
from raftd.storage import DATABASE, LOCK, STORE, WRITES, Storage, StorageError
from raftd.transfer import Transfers

SERVERS = ("n1", "n2", "n3")
CLUSTER = "n1=7001,n2=7002,n3=7003"

# --- any value of a type, as the wire could bring it ------------------------------------------------------

numbers = st.one_of(st.integers(0, 12), st.sampled_from([MAX_NUMBER, MAX_NUMBER - 1]))
names = st.sampled_from([*SERVERS, "n9", ""])


def any_value(of: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    origin, inside = typing.get_origin(of), typing.get_args(of)
    if origin in (Union, types.UnionType):
        return st.one_of([any_value(part) for part in inside])
    if origin is tuple and inside[-1] is Ellipsis:
        return st.lists(any_value(inside[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_value, inside))
    if origin in (frozenset, list):
        return st.lists(any_value(inside[0]), max_size=3).map(origin)
    if origin is dict:
        return st.dictionaries(any_value(inside[0]), any_value(inside[1]), max_size=2)
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        parts = [any_value(field.type) for field in msgspec.structs.fields(of)]
        return st.tuples(*parts).map(lambda values: of(*values))
    if origin is typing.Literal:
        return st.sampled_from(inside)
    if isinstance(of, type) and issubclass(of, StrEnum):
        return st.sampled_from(of)
    if origin is typing.Annotated:
        return st.one_of(st.integers(0, 12), st.sampled_from([inside[1].le, inside[1].le - 1]))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: numbers,
        str: names | st.text(max_size=4),
        bool: st.booleans(),
        bytes: st.binary(max_size=9),
        float: st.floats(),
        type(None): st.none(),
    }
    return plain[of]


any_message = any_value(Message | Aside)
any_request = any_value(codec.Request)
any_hello = st.one_of(
    any_value(codec.Hello),
    st.just(ClientHello()),
    st.sampled_from(["n2", "n3"]).map(lambda peer: PeerHello(peer, "n1", SERVERS, CLUSTER, "127.0.0.1:1")),
)


def damaged(frame: bytes, data: st.DataObject) -> bytes:
    """A frame as it was, or cut, doubled, changed, or something else altogether."""
    match data.draw(st.sampled_from(["whole", "whole", "cut", "doubled", "flipped", "anything", "long"])):
        case "cut":
            return frame[: data.draw(st.integers(0, len(frame)))]
        case "doubled":
            return frame * 2
        case "flipped":
            at, bits = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(1, 255))
            return frame[:at] + bytes([frame[at] ^ bits]) + frame[at + 1 :]
        case "anything":
            return data.draw(st.binary(max_size=40))
        case "long":
            return data.draw(st.integers(0, 2**32 - 1)).to_bytes(4, "big") + frame
    return frame


# --- the port of peers and clients ------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """The other end of a connection: what was written to it, and whether it was hung up on."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_a_stranger_sends_is_a_whole_message_or_request_or_ends_the_connection(
    data: st.DataObject,
) -> None:
    """Nothing else comes out, no error goes further, and whoever is hung up on is heard no more."""
    hello = data.draw(any_hello)
    sent = data.draw(st.lists(any_message | any_request, max_size=4))
    stream = b"".join(damaged(codec.encode(part), data) for part in (hello, *sent))
    cuts = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=9))
    taken: list[Any] = []
    bodies: list[bytes] = []

    class Kept(codec.Frames):
        def next(self) -> bytes | None:
            body = super().next()
            if body is not None:
                bodies.append(body)
            return body

    async def run() -> None:
        owner = transport.Transport("n1", parse_addresses(CLUSTER))
        owner._on_message = taken.append
        owner._on_request = lambda request, respond: taken.append(request)
        incoming, wire = transport._Incoming(owner), Wire()
        incoming._frames = Kept(codec.HELLO.limit)
        incoming.connection_made(wire)
        rest, turn = stream, 0
        while rest:
            size = cuts[turn % len(cuts)]
            turn += 1
            was_closed, before = wire.closed, len(taken)
            incoming.data_received(rest[:size])
            assert not was_closed or len(taken) == before
            rest = rest[size:]
        incoming._patience.cancel()

    asyncio.run(run())
    # Each came in a frame of its own, of which nothing was left out: packed again it is the same value.
    for value in taken:
        reader: codec.Reader[Any] = codec.MESSAGE if isinstance(value, Message | Aside) else codec.REQUEST
        assert any(_decoded(reader, body) == value for body in bodies)
        if isinstance(value, Message | Aside):
            assert (value.source in ("n2", "n3"), value.target) == (True, "n1")


def _decoded(reader: codec.Reader[Any], body: bytes) -> Any:
    try:
        return reader.decode(body)
    except codec.CodecError:
        return None


@given(request=any_request)
@settings(max_examples=200, deadline=None)
def test_every_request_has_one_answer_or_waits(request: codec.Request) -> None:
    """What is refused is told; what is proposed waits for the log. A fault that makes no sense is refused."""
    with tempfile.TemporaryDirectory() as folder, Storage(Path(folder), "n1", SERVERS) as storage:
        core = make_core("n1", SERVERS, random.Random(1), Config(), storage.persistent)
        wires = transport.Transport("n1", parse_addresses(CLUSTER))
        server = Server(core, storage, wires, lambda: 1.0, fault_switch=True)
        answers: list[codec.Reply] = []
        server._on_request(request, answers.append)
        server._take_inputs()
        assert [answer.id for answer in answers] == [request.id]
        assert codec.REPLY.decode(codec.encode(answers[0])[codec.LENGTH_BYTES :]) == answers[0]


@pytest.mark.parametrize("clock", [float("nan"), float("inf"), -float("inf")])
def test_a_clock_that_shows_no_time_is_refused(tmp_path: Path, clock: float) -> None:
    with Storage(tmp_path, "n1", SERVERS) as storage:
        core = make_core("n1", SERVERS, random.Random(1), Config(), storage.persistent)
        wires = transport.Transport("n1", parse_addresses(CLUSTER))
        server = Server(core, storage, wires, lambda: 1.0, fault_switch=True)
        answers: list[codec.Reply] = []
        server._on_request(codec.FaultRequest(1, Faults(clock=clock)), answers.append)
        assert isinstance(answers[0], codec.Refused)


# --- messages that Raft forbids ---------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_core_takes_any_message_or_says_what_is_wrong(data: st.DataObject) -> None:
    """Never half: a message either is a step, with its event, or the server stops with a sentence."""
    config = data.draw(
        st.sampled_from([Config(), Config(reads=True, snapshot_after=50).having(("pre_vote",))])
    )
    core = Core("n1", SERVERS, random.Random(data.draw(st.integers(0, 9))), config)
    transfers = Transfers("n1", 1.0)
    core.start(0.0)
    now = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.sampled_from([0.0, 0.05, 0.5]))
        core.tick(now)
        m = data.draw(any_message)
        m = msgspec.structs.replace(m, source=data.draw(st.sampled_from(["n2", "n3"])), target="n1")
        wrong = None
        try:
            _take(core, transfers, now, m)
        except AssertionError as error:
            wrong = str(error)
        if wrong is not None:
            assert wrong, m
            return


def _take(core: Core, transfers: Transfers, now: float, m: Any) -> None:
    """As the server does it."""
    kind = m.__struct_config__.tag
    if kind == "snapshot_chunk":
        answer = transfers.receive(m, core.current_term, core.commit_index)
        if answer is not None and answer.__struct_config__.tag == "install_snapshot":
            core.receive(now, answer)  # type: ignore[arg-type]
    elif kind == "snapshot_chunk_reply":
        transfers.acknowledged(now, m)
    elif kind != "install_snapshot" or m.snapshot.last_included_index:
        core.receive(now, m)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_command_with_one_result(command: bytes) -> None:
    """Replicas would part over it otherwise."""
    first, second = KeyValue(), KeyValue()
    assert first.apply(command) == second.apply(command)
    assert first.values == second.values


# --- the port of those who watch --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[tuple[Address, Cluster]]:
    (address,) = free_addresses(1)
    options = ("--watch", str(address.port))
    with Cluster(1, tmp_path_factory.mktemp("watched"), trace=False, options=options) as cluster:
        yield address, cluster


REQUESTS = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
    b"POST /status HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_who_watches_can_send_anything(watched: tuple[Address, Cluster], data: st.DataObject) -> None:
    address, cluster = watched
    sent = data.draw(st.sampled_from(REQUESTS) | st.binary(max_size=200))
    at = data.draw(st.integers(0, len(sent)))
    with socket.create_connection(address, 2.0) as connection:
        connection.sendall(sent[:at] + data.draw(st.binary(max_size=5)) + sent[at:])
    assert cluster.is_alive("n1")


def test_after_all_that_it_still_answers(watched: tuple[Address, Cluster]) -> None:
    address, cluster = watched
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.request("GET", "/status")
    assert msgspec.json.decode(connection.getresponse().read())["server"] == "n1"
    assert cluster.status("n1") is not None


# --- the disk's files -------------------------------------------------------------------------------------


def command(n: int) -> Entry:
    return Entry(1 + n // 9, b"command %d " % n * 9)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Stores of several moments of a server's life, with what each holds; some closed, some killed."""
    folder = tmp_path_factory.mktemp("stores")
    found: dict[str, tuple[Path, Any]] = {}

    def keep(name: str, storage: Storage) -> None:
        storage.sync()
        shutil.copytree(storage.folder, folder / name)
        copy = folder / (name + " copy")
        shutil.copytree(folder / name, copy)
        with Storage(copy, storage._meta.server, SERVERS) as opened:
            found[name] = folder / name, _holds(opened)

    with ExitStack() as stack:
        for server in ("n1", "n2"):
            storage = stack.enter_context(Storage(folder / server, server, SERVERS))
            storage.write(Persist(1, server, 0, tuple(command(n) for n in range(1, 31))))
            if server == "n1":
                keep("killed early", storage)
            for n in range(31, 61):
                storage.write(Persist(n // 9 + 1, "n1", n - 1, (command(n),)))
            keep(f"killed {server}", storage)
        storage = stack.enter_context(Storage(folder / "compacted", "n1", SERVERS))
        storage.write(Persist(3, "n1", 0, tuple(command(n) for n in range(1, 31))))
        snapshot = Snapshot(20, command(20).term, b"state" * 900)
        storage.write(Persist(3, "n1", 30, (), snapshot))
        keep("killed compacted", storage)
    for name in ("n1", "compacted"):
        with Storage(folder / name, "n1", SERVERS):
            pass
        shutil.copytree(folder / name, folder / f"closed {name}")
        with Storage(folder / name, "n1", SERVERS) as opened:
            found[f"closed {name}"] = folder / f"closed {name}", _holds(opened)
    return found


def _holds(storage: Storage) -> Any:
    p = storage.persistent
    entries = p.log.entries(p.log.snapshot_index + 1)
    return p.current_term, p.voted_for, p.snapshot, entries


DAMAGES = ("flip", "cut", "double", "zero", "garbage", "swap files", "of another", "missing", "empty")


def damage(folder: Path, others: list[Path], data: st.DataObject) -> str:
    """Let something happen to a file of a store."""
    files = sorted(path for path in (folder / STORE).iterdir())
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(DAMAGES))
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    match kind:
        case "flip" if content:
            for place in (at, data.draw(st.integers(0, len(content) - 1))):
                content[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[at:]
        case "double":
            content = content * 2 if data.draw(st.booleans()) else content[:at] + content
        case "zero":
            length = data.draw(st.sampled_from([1, 512, 4096]))
            content[at : at + length] = bytes(len(content[at : at + length]))
        case "garbage":
            content += data.draw(st.binary(min_size=1, max_size=5000))
        case "swap files":
            other = data.draw(st.sampled_from(files))
            content = bytearray(other.read_bytes())
            other.write_bytes(file.read_bytes())
        case "of another":
            foreign = data.draw(st.sampled_from(others)) / STORE / file.name
            content = bytearray(foreign.read_bytes() if foreign.exists() else b"")
        case "empty":
            content.clear()
    file.write_bytes(content)
    if kind == "missing":
        file.unlink()
    return f"{kind} {file.name} at {at}"


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_damaged_files_are_refused_or_hold_all(
    stores: dict[str, tuple[Path, Any]], data: st.DataObject
) -> None:
    """Flipped, cut, doubled, zeroed, longer, swapped, another store's, gone: all of it, or a refusal.

    A whole file of another moment can make a whole store: a folder put back from an older copy, which nobody
    can tell. Then it must hold what that copy held, and not a mixture.
    """
    name = data.draw(st.sampled_from([name for name in stores if name != "killed n2"]))
    source, holds = stores[name]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "n1"
        shutil.copytree(source, folder)
        done = damage(folder, [path for path, _ in stores.values()], data)
        refusal = None
        try:
            with Storage(folder, "n1", SERVERS) as storage:
                older = [held for path, held in stores.values() if "killed n2" not in str(path)]
                found = _holds(storage)
                assert found == holds or (done.startswith("of another") and found in older), done
                last = storage.persistent.log.last_index
                storage.write(Persist(99, "n2", last, (Entry(99, b"one more"),)))
        except StorageError as error:
            refusal = str(error)
        if refusal is not None:
            assert refusal.startswith(str(folder)), done
            assert "\nhelp: " in refusal, done


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / STORE / DATABASE).write_bytes(b""), "error: "),
        (lambda f: (f / STORE / DATABASE).write_bytes(b"x" * 9000), "the database is damaged"),
        (lambda f: (f / STORE / WRITES).write_bytes(b"x" * 9), "error: "),
        (lambda f: shutil.rmtree(f / STORE), "this folder held a store and it is missing"),
        (lambda f: (f / STORE / DATABASE).unlink(), "its database is missing"),
        (lambda f: shutil.copy(f / STORE / WRITES, f / STORE / DATABASE), "the database is damaged"),
    ],
)
def test_a_server_with_a_damaged_disk_does_not_start_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], said: str
) -> None:
    with Storage(tmp_path / "n1", "n1", ("n1",)) as storage:
        storage.write(Persist(1, "n1", 0, (command(1),)))
    spoil(tmp_path / "n1")
    (address,) = free_addresses(1)
    serve = [
        "--server",
        "n1",
        "--cluster",
        f"n1={address.port}",
        "--data",
        str(tmp_path / "n1"),
        "--for",
        "0.1",
    ]
    assert main(serve) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "help: " in told
    assert "Traceback" not in told
    assert (tmp_path / "n1" / LOCK).exists()

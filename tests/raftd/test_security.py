"""Who may talk to a server, and how many: TLS, the cluster's name, limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from raftd import codec
from raftd.client import Client, RequestError
from raftd.cluster import Cluster
from raftd.codec import ClientHello, PeerHello
from raftd.security import Tls, is_loopback, names
from raftd.serve import main

SERVERS = ("n1", "n2", "n3")
PATIENT = ("--election-timeout", "1.5")


def files(folder: Path, authority: trustme.CA, name: str) -> Tls:
    """A certificate for `name`, and its files."""
    made = authority.issue_cert(name)
    folder.mkdir(exist_ok=True)
    tls = Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "authority.pem")
    made.cert_chain_pems[0].write_to_path(str(tls.certificate))
    made.private_key_pem.write_to_path(str(tls.key))
    authority.cert_pem.write_to_path(str(tls.authority))
    return tls


def options(tls: Tls) -> tuple[str, ...]:
    return (
        "--tls-certificate",
        str(tls.certificate),
        "--tls-key",
        str(tls.key),
        "--tls-authority",
        str(tls.authority),
    )


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Cluster]:
    """Three servers that talk TLS, each with its own certificate."""
    folder = tmp_path_factory.mktemp("secured")
    own = {name: options(files(folder / "tls", authority, name)) for name in SERVERS}
    client = files(folder / "tls", authority, "client")
    # Patient enough that their own terms stay low while a stranger's rise.
    with Cluster(folder=folder, options=PATIENT, own_options=own, tls=client) as cluster:
        yield cluster


def put(cluster: Cluster, tls: Tls | None) -> RequestError | None:
    """The error that a put ends with, if any."""

    async def run() -> RequestError | None:
        async with Client(cluster.addresses, 1.0, tls=tls) as client:
            try:
                await client.put("a", b"1")
            except RequestError as error:
                return error
            return None

    return asyncio.run(run())


def test_servers_with_certificates_serve_clients_with_certificates(secured: Cluster) -> None:
    assert put(secured, secured.tls) is None


def test_a_client_without_tls_gets_nothing(secured: Cluster) -> None:
    assert put(secured, None) is not None


def test_a_client_of_another_authority_gets_nothing(secured: Cluster, tmp_path: Path) -> None:
    error = put(secured, files(tmp_path, trustme.CA(), "client"))
    assert error is not None
    assert not error.may_have_executed


def test_a_client_does_not_trust_a_server_with_the_certificate_of_another(
    secured: Cluster, tmp_path: Path
) -> None:
    swapped = dict(zip(SERVERS, [secured.addresses[name] for name in ("n2", "n3", "n1")], strict=True))

    async def run() -> None:
        async with Client(swapped, 1.0, tls=secured.tls) as client:
            await client.put("a", b"1")

    with pytest.raises(RequestError, match="certificate"):
        asyncio.run(run())


@pytest.mark.parametrize(("name", "welcome"), [("n2", True), ("n3", False), ("client", False)])
def test_only_the_holder_of_its_certificate_passes_for_a_peer(
    secured: Cluster, authority: trustme.CA, tmp_path: Path, name: str, welcome: bool
) -> None:
    cluster = ",".join(f"{server}={address}" for server, address in secured.addresses.items())
    hello = codec.encode(PeerHello("n2", "n1", SERVERS, cluster, "127.0.0.1:1"))
    context = files(tmp_path, authority, name).opening()
    with (
        socket.create_connection(secured.addresses["n1"], 1.0) as plain,
        context.wrap_socket(plain, server_hostname="n1") as connection,
    ):
        connection.settimeout(0.3)
        connection.sendall(hello)
        try:
            hung_up = connection.recv(1) == b""
        except TimeoutError:
            hung_up = False
        assert hung_up is not welcome


def test_a_server_without_a_certificate_cannot_join(secured: Cluster) -> None:
    """It claims to be n3, and asks for votes in term after term: nobody hears of these terms."""
    secured.kill("n3")
    plain = Cluster(folder=secured.folder / "stranger", options=("--figure-2",))
    plain.addresses = secured.addresses
    plain.start("n3")
    try:
        plain.wait_until(lambda: "in term 12" in plain.log("n3"), "it stands for election again and again")
        seen = [secured.status(name) for name in ("n1", "n2")]
        assert all(status is not None and status.current_term < 12 for status in seen)
    finally:
        plain.close()
        secured.restart("n3")


# --- the cluster's name ---------------------------------------------------------------------------------


def test_servers_and_clients_of_another_cluster_are_refused(tmp_path: Path) -> None:
    with Cluster(folder=tmp_path, options=("--cluster-id", "blue")) as cluster:

        async def put(name: str | None) -> None:
            async with Client(cluster.addresses, 2.0, cluster=name) as client:
                await client.put("a", b"1")

        asyncio.run(put("blue"))
        asyncio.run(put(None))
        with pytest.raises(RequestError, match="in the cluster blue, not in green") as failure:
            asyncio.run(put("green"))
        assert not failure.value.may_have_executed

        cluster.kill("n3")
        other = Cluster(folder=tmp_path / "other", options=("--cluster-id", "green", "--figure-2"))
        other.addresses = cluster.addresses
        other.start("n3")
        try:
            other.wait_until(lambda: "in term 3" in other.log("n3"), "it stands for election again and again")
            refused = "n3 is in the cluster green, this is blue"
            cluster.wait_until(lambda: refused in cluster.log("n1") + cluster.log("n2"), "n3 is refused")
        finally:
            other.close()


def test_a_store_belongs_to_its_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve = ["--server", "n1", "--cluster", "n1=1", "--data", str(tmp_path), "--for", "0.1"]
    with Cluster(1, tmp_path, options=("--cluster-id", "blue")):
        pass
    serve[5] = str(tmp_path / "n1")
    assert main([*serve, "--cluster-id", "green"]) == 2
    assert "n1 in the cluster 'blue' of n1, not of n1 in the cluster 'green' of n1" in capsys.readouterr().err


# --- limits, and what is refused at the start ----------------------------------------------------------


def test_one_connection_too_many_is_hung_up_on_and_room_is_made_again(tmp_path: Path) -> None:
    with Cluster(1, tmp_path, options=("--max-connections", "5")) as cluster:
        address = cluster.addresses["n1"]
        held = [socket.create_connection(address, 2.0) for _ in range(5)]
        with socket.create_connection(address, 2.0) as refused:
            assert refused.recv(1) == b""
        for connection in held:
            connection.close()
        cluster.wait_until(lambda: cluster.status("n1"), "there is room again")


def test_who_says_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raftd import transport

    async def run() -> bytes:
        monkeypatch.setattr(transport, "HELLO_TIMEOUT", 0.05)
        with Cluster(1, tmp_path) as cluster:
            addresses = cluster.addresses
        listening = transport.Transport("n1", addresses)
        await listening.start(lambda message: None, lambda request, respond: None)
        reader, writer = await asyncio.open_connection(*addresses["n1"])
        try:
            return await asyncio.wait_for(reader.read(1), 5)
        except ConnectionError:
            return b""
        finally:
            writer.close()
            await listening.close()

    assert asyncio.run(run()) == b""


def test_a_client_with_too_many_requests_under_way_is_refused() -> None:
    from raftd import transport

    class Silent(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += bytes(data)

        def is_closing(self) -> bool:
            return False

    async def run() -> bytes:
        from raftd.addresses import parse_addresses

        owner = transport.Transport("n1", parse_addresses("n1=7001"))
        owner._on_request = lambda request, respond: None
        incoming, silent = transport._Incoming(owner), Silent()
        incoming.connection_made(silent)
        incoming.data_received(codec.encode(ClientHello()))
        for number in range(transport.MAX_OUTSTANDING):
            incoming.data_received(codec.encode(codec.GetRequest(number + 1, "a")))
        assert silent.written == b""
        incoming.data_received(codec.encode(codec.GetRequest(9999, "a")))
        incoming._patience.cancel()
        return silent.written

    frames = codec.Frames(codec.REPLY.limit)
    frames.feed(asyncio.run(run()))
    body = frames.next()
    assert body is not None
    reply = codec.REPLY.decode(body)
    assert isinstance(reply, codec.Refused)
    assert reply.id == 9999


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("10.1.2.3", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_beyond_this_machine_a_server_wants_tls_or_to_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = ["--server", "n1", "--cluster", "n1=192.0.2.1:7001", "--data", str(tmp_path), "--for", "0.1"]
    assert main(serve) == 2
    assert "192.0.2.1 can be reached from other machines" in capsys.readouterr().err
    assert main([*serve, "--insecure"]) == 2  # this machine has no such address
    assert "can be reached" not in capsys.readouterr().err


def test_half_of_tls_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    tls = files(tmp_path, authority, "n1")
    with pytest.raises(ValueError, match="all three"):
        Tls.of(tls.certificate, None, tls.authority)
    tls.authority.write_text("nothing")
    with pytest.raises(ValueError, match="can't be used"):
        tls.opening()


def test_a_certificate_names_what_it_was_issued_for() -> None:
    assert names(None) == frozenset()
    assert names({"subjectAltName": (("DNS", "n1"), ("IP Address", "127.0.0.1"))}) == {"n1"}

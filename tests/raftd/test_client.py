"""The client: what it sends again, what it never does, and what it knows about the outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from raftd import client as client_module
from raftd import codec
from raftd.addresses import Address
from raftd.client import Client, RequestError, RequestTimeoutError
from raftd.cluster import free_addresses
from raftd.codec import Done, GetRequest, PutRequest, Redirect, Refused, Reply, Request, UnknownOutcome

T = TypeVar("T")

# What a scripted server does with each request: answer, hang up (None), or leave it (no reply at all).
SILENCE = Done(-1)
Script = Callable[[Request], Reply | None]


class ScriptedServer:
    """Speaks the protocol and follows a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = codec.Frames(codec.REQUEST.limit)
        greeted = False
        while data := await reader.read(65536):
            frames.feed(data)
            while (body := frames.next()) is not None:
                if not greeted:
                    codec.HELLO.decode(body)
                    greeted = True
                    continue
                request = codec.REQUEST.decode(body)
                self.seen.append(request)
                reply = self.script(request)
                if reply is None:
                    writer.close()
                    return
                if reply is not SILENCE:
                    writer.write(codec.encode(reply))
        writer.close()


@contextlib.asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[dict[str, Address], list[ScriptedServer]]]:
    """Servers n1, n2, … and where they are. The client asks n2 first."""
    addresses = {f"n{n}": address for n, address in enumerate(free_addresses(len(scripts)), start=1)}
    servers = [ScriptedServer(script) for script in scripts]
    async with contextlib.AsyncExitStack() as stack:
        for server, (host, port) in zip(servers, addresses.values(), strict=True):
            await stack.enter_async_context(await asyncio.start_server(server.serve, host, port))
        yield addresses, servers


def run(coroutine: Awaitable[T]) -> T:
    async def main() -> T:
        return await coroutine

    return asyncio.run(main())


def done(request: Request) -> Reply:
    return Done(request.id, b"value")


def hang_up(request: Request) -> None:
    return None


def silent(request: Request) -> Reply:
    return SILENCE


def not_leader(request: Request) -> Reply:
    return Redirect(request.id, None, None)


def lost(request: Request) -> Reply:
    return UnknownOutcome(request.id, "leads no more")


@pytest.mark.parametrize("answer", [hang_up, lost])
def test_a_put_in_doubt_is_reported_and_never_sent_again(answer: Script) -> None:
    """A second put could overwrite what another client has written since."""

    async def check() -> None:
        async with scripted(done, answer) as (addresses, (n1, n2)), Client(addresses) as client:
            with pytest.raises(RequestError) as failure:
                await client.put("a", b"1")
            assert failure.value.may_have_executed
            assert "may have been executed" in str(failure.value)
            assert (len(n1.seen), len(n2.seen)) == (0, 1)

    run(check())


@pytest.mark.parametrize("answer", [hang_up, lost, silent, not_leader])
def test_a_get_is_asked_elsewhere(answer: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GET_PATIENCE", 0.1)

    async def check() -> None:
        async with scripted(done, answer) as (addresses, (n1, n2)), Client(addresses) as client:
            assert await client.get("a") == b"value"
            assert [type(request) for request in n1.seen + n2.seen] == [GetRequest, GetRequest]

    run(check())


def test_a_put_that_a_server_has_refused_to_take_is_asked_elsewhere() -> None:
    async def check() -> None:
        async with scripted(done, not_leader) as (addresses, (n1, n2)), Client(addresses) as client:
            await client.put("a", b"1")
            assert [type(request) for request in n1.seen + n2.seen] == [PutRequest, PutRequest]

    run(check())


def test_a_put_without_an_answer_is_in_doubt_at_the_deadline() -> None:
    async def check() -> None:
        async with scripted(done, silent) as (addresses, _), Client(addresses) as client:
            with pytest.raises(RequestTimeoutError) as failure:
                await client.put("a", b"1", timeout=0.2)
            assert failure.value.may_have_executed

    run(check())


def test_a_put_that_no_server_took_was_not_executed() -> None:
    async def check() -> None:
        async with scripted(not_leader, not_leader) as (addresses, _), Client(addresses) as client:
            with pytest.raises(RequestTimeoutError) as failure:
                await client.put("a", b"1", timeout=0.2)
            assert not failure.value.may_have_executed

    run(check())


def test_a_refusal_is_final() -> None:
    async def check() -> None:
        def refuse(request: Request) -> Reply:
            return Refused(request.id, "too long")

        async with scripted(done, refuse) as (addresses, (n1, _)), Client(addresses) as client:
            with pytest.raises(RequestError, match="too long; it was not executed"):
                await client.put("a", b"1")
            assert n1.seen == []

    run(check())


def test_servers_that_name_each_other_are_not_asked_without_pause() -> None:
    async def check() -> None:
        where: dict[str, Address] = {}

        def to(server: str) -> Script:
            return lambda request: Redirect(request.id, server, where[server])

        async with scripted(to("n2"), to("n1")) as (addresses, (n1, n2)), Client(addresses) as client:
            where.update(addresses)
            with pytest.raises(RequestTimeoutError) as failure:
                await client.put("a", b"1", timeout=0.3)
            assert not failure.value.may_have_executed
            assert 4 <= len(n1.seen) + len(n2.seen) <= 30

    run(check())


def test_a_connection_that_is_about_to_close_is_not_asked() -> None:
    """What is written to it goes nowhere, and whoever wrote would be in doubt for nothing."""

    async def main() -> None:
        async with scripted(done) as (addresses, (server,)), Client(addresses, 5.0) as client:
            await client.put("a", b"1")
            for connection in client._connections.values():
                connection._transport.abort()
            await client.put("a", b"2")
            assert len(server.seen) == 2

    run(main())


def test_requests_overlap_on_one_connection_and_may_be_answered_in_any_order() -> None:
    async def check() -> None:
        async with scripted(done) as (addresses, _), Client(addresses) as client:
            assert await asyncio.gather(*(client.get(str(n)) for n in range(50))) == [b"value"] * 50
            assert len(client._connections) == 1

    run(check())

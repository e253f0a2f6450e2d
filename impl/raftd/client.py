"""A client of the cluster: finds the leader, retries what may be retried, and knows what it doesn't know.

A request is sent again only if it can't have been executed, or if executing it twice does no harm (get).
A put whose connection broke, or whose leader lost its leadership, may be in the log or not: that is an
error for the caller to judge (`may_have_executed`), never a silent second try, which could overwrite what
another client wrote in between. In a session (`open_session`) it is sent again, and executed once.

    async with Client(parse_addresses("n1=127.0.0.1:7001,n2=127.0.0.1:7002")) as client:
        await client.put("colour", b"green")
        assert await client.get("colour") == b"green"
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, cast

from raftd import codec
from raftd.addresses import Address, Addresses
from raftd.client_session import Session
from raftd.codec import (
    ClientHello,
    CodecError,
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
    Status,
    StatusRequest,
    TransferRequest,
    UnknownOutcome,
)
from raftd.reading import Reading
from raftd.security import Tls

FIRST_BACK_OFF: Final = 0.01
MAX_BACK_OFF: Final = 0.2
CONNECT_TIMEOUT: Final = 0.5
# A leader that is cut off never answers. A get may be asked elsewhere meanwhile; a put may not.
GET_PATIENCE: Final = 1.0

MakeRequest = Callable[[int], Request]


class RequestError(Exception):
    """A request failed. `may_have_executed` says whether the state machine may have seen it, now or later."""

    def __init__(self, message: str, *, may_have_executed: bool) -> None:
        outcome = (
            "it may have been executed, or be executed yet" if may_have_executed else "it was not executed"
        )
        super().__init__(f"{message}; {outcome}")
        self.may_have_executed = may_have_executed


class RequestTimeoutError(RequestError):
    """The deadline passed without an answer."""


class SessionLostError(RequestError):
    """There is no such session, or no more: open another, and judge what became of the request."""


class Client:
    """One connection per server, made when needed; any number of requests at a time on each."""

    def __init__(
        self,
        addresses: Addresses,
        timeout: float = 5.0,
        *,
        cluster: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        """With `cluster`, servers of any other one refuse us. With `tls`, only those it knows are asked."""
        self.addresses = dict(addresses)
        self.timeout = timeout
        self._cluster = cluster
        self._tls = tls.opening() if tls else None
        self._names = {address: server for server, address in addresses.items()}
        self._connections: dict[Address, _Connection] = {}
        self._connecting: dict[Address, asyncio.Lock] = {}
        self._leader: Address | None = None
        self._turn = 0

    async def put(self, key: str, value: bytes, timeout: float | None = None) -> None:
        """Set `key` to `value`. Returns once that is committed and applied."""
        if len(key.encode()) + len(value) > codec.MAX_COMMAND:
            raise RequestError(
                f"key and value have more than {codec.MAX_COMMAND} bytes: store them in parts",
                may_have_executed=False,
            )
        await self._to_leader(lambda id: PutRequest(id, key, value), timeout, repeatable=False)

    async def get(self, key: str, timeout: float | None = None, read: Read = Read.INDEX) -> bytes | None:
        """The value of `key`, None if it has none: the newest one that was put before we asked, or later.

        With `Read.STALE` it is what some server knows, and may be older.
        """
        return (await self._to_leader(lambda id: GetRequest(id, key, read), timeout, repeatable=True)).value

    async def get_stale(self, key: str, server: str, timeout: float | None = None) -> bytes | None:
        """What `server` has for `key`, which may be older than what was put before we asked."""
        reply = await self._to_server(server, lambda id: GetRequest(id, key, Read.STALE), timeout)
        if not isinstance(reply, Done):
            raise RequestError(f"{server} answered a read with {reply}", may_have_executed=False)
        return reply.value

    async def delete(self, key: str, timeout: float | None = None) -> bytes | None:
        """Remove `key`; the value it had."""
        return (await self._to_leader(lambda id: DeleteRequest(id, key), timeout, repeatable=False)).value

    async def transfer(self, successor: str | None = None, timeout: float | None = None) -> str:
        """Let another server lead, this one if one is named; who leads now."""
        done = await self._to_leader(lambda id: TransferRequest(id, successor), timeout, repeatable=False)
        return (done.value or b"").decode()

    async def open_session(self, timeout: float | None = None) -> Session:
        """A session, in which requests that are tried again are executed once. Dissertation, section 6.3.

        It ends when it isn't used for long (`Config.session_timeout`). Opened twice after a lost answer, one
        is never used, and ends.
        """
        done = await self._to_leader(RegisterRequest, timeout, repeatable=True)
        return Session(self, int(done.value or b"0"))

    def resume_session(self, id: int, number: int) -> Session:
        """A session that was opened before, perhaps by another client; its next request has this number.

        If that was asked already, it is not executed again.
        """
        return Session(self, id, resumed_at=number)

    async def ask_in_session(
        self, make: MakeRequest, timeout: float | None, *, asked_before: bool = False
    ) -> bytes | None:
        """Ask until there is an answer: it is executed once at most."""
        done = await self._to_leader(make, timeout, repeatable=True, session=True, asked_before=asked_before)
        return done.value

    async def status(self, server: str, timeout: float | None = None) -> Status:
        """How `server` sees itself."""
        reply = await self._to_server(server, StatusRequest, timeout)
        if not isinstance(reply, Status):
            raise RequestError(f"{server} answered a status request with {reply}", may_have_executed=False)
        return reply

    async def change_members(
        self,
        action: Literal["add", "promote", "remove", "set"],
        server: str = "",
        *,
        address: str = "",
        promoted: bool = True,
        voters: tuple[str, ...] = (),
        timeout: float | None = None,
    ) -> None:
        """Change who is in the cluster; returns once the configuration is committed. See `MembersRequest`."""
        await self._to_leader(
            lambda id: MembersRequest(id, action, server, address, promoted, voters),
            timeout,
            repeatable=False,
        )

    async def fault(self, server: str, faults: Faults, timeout: float | None = None) -> None:
        """For tests: these faults are in force around `server`, and no others. Needs its `--fault-switch`."""
        reply = await self._to_server(server, lambda id: FaultRequest(id, faults), timeout)
        if not isinstance(reply, Done):
            reason = reply.reason if isinstance(reply, Refused) else str(reply)
            raise RequestError(f"{server}: {reason}", may_have_executed=False)

    async def close(self) -> None:
        """Close the connections; requests under way fail."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _to_server(self, server: str, make: MakeRequest, timeout: float | None) -> Reply:
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                connection = await self._connect(self.addresses[server])
                return await connection.ask(make)
        except TimeoutError as error:
            raise RequestTimeoutError(f"no answer from {server} in time", may_have_executed=False) from error
        except OSError as error:
            raise RequestError(f"no answer from {server}: {error}", may_have_executed=False) from error

    async def _to_leader(
        self,
        make: MakeRequest,
        timeout: float | None,
        *,
        repeatable: bool,
        session: bool = False,
        asked_before: bool = False,
    ) -> Done:
        """Ask the leader, whoever that is by now, until it answers or time is up.

        In a session a request is repeatable, and yet it may have been executed if nobody says so.
        """
        timeout = self.timeout if timeout is None else timeout
        in_doubt = False  # a request that must not be sent twice is under way
        doubt = earlier = asked_before  # it may be in a log: what was sent last, and what before
        last = "no server has been reached"
        back_off = FIRST_BACK_OFF
        hops = 0
        try:
            async with asyncio.timeout(timeout):
                while True:
                    address = self._leader or self._next_address()
                    reply: Reply | None = None
                    try:
                        connection = await self._connect(address)
                        earlier, doubt = doubt, session
                        doubt |= earlier
                        in_doubt, last = not repeatable, f"{address} has been asked and doesn't answer"
                        reply = await asyncio.wait_for(
                            connection.ask(make), GET_PATIENCE if repeatable else None
                        )
                    except _RefusedError as error:
                        raise RequestError(f"{address}: {error}", may_have_executed=earlier) from error
                    except OSError as error:
                        last = f"{address}: {error or 'no answer'}"
                    match reply:
                        case Done():
                            self._leader = address
                            return reply
                        case Refused(reason=reason):
                            raise RequestError(f"{address}: {reason}", may_have_executed=earlier)
                        case Redirect():
                            doubt = earlier
                            in_doubt, last = (
                                False,
                                f"{address} is not the leader and names {reply.leader or 'none'}",
                            )
                        case NoSession(reason=reason):
                            raise SessionLostError(f"{address}: {reason}", may_have_executed=earlier)
                        case UnknownOutcome(reason=reason):
                            last = f"{address}: {reason}"
                        case Status():
                            last = f"{address} answers with {reply}"
                    if in_doubt:
                        self._forget(address)
                        raise RequestError(last, may_have_executed=True)
                    if isinstance(reply, Redirect) and reply.address and hops < len(self.addresses):
                        self._leader = Address(*reply.address)
                        self._names[self._leader] = reply.leader or ""
                        hops += 1
                        continue
                    # Also if servers send us in circles, as they may during an election.
                    self._forget(address)
                    hops = 0
                    await asyncio.sleep(back_off)
                    back_off = min(2 * back_off, MAX_BACK_OFF)
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"no answer within {timeout:g} s: {last}", may_have_executed=in_doubt or doubt
            ) from error

    def _next_address(self) -> Address:
        addresses = list(self.addresses.values())
        self._turn += 1
        return addresses[self._turn % len(addresses)]

    def _forget(self, address: Address) -> None:
        if self._leader == address:
            self._leader = None

    async def _connect(self, address: Address) -> _Connection:
        if connection := self._connected(address):
            return connection
        async with self._connecting.setdefault(address, asyncio.Lock()):
            if connection := self._connected(address):
                return connection
            loop = asyncio.get_running_loop()
            # Its TimeoutError is an OSError, so a caller need not tell them apart.
            opening = loop.create_connection(
                lambda: _Connection(self._cluster),
                *address,
                ssl=self._tls,
                server_hostname=self._names[address] if self._tls else None,
            )
            _, made = await asyncio.wait_for(opening, CONNECT_TIMEOUT)
            self._connections[address] = made
            return made

    def _connected(self, address: Address) -> _Connection | None:
        connection = self._connections.get(address)
        return connection if connection is not None and connection.is_open else None


async def status(client: Client) -> dict[str, Status | None]:
    """How each server sees itself, None for one that doesn't answer."""

    async def one(server: str) -> Status | None:
        try:
            return await client.status(server)
        except RequestError:
            return None

    answers = await asyncio.gather(*map(one, client.addresses))
    return dict(zip(client.addresses, answers, strict=True))


class _BrokenError(ConnectionError):
    """The connection broke: whatever was asked on it and not answered may have arrived."""


class _RefusedError(_BrokenError):
    """The server doesn't want us: nothing that was asked has been executed."""


class _Connection(Reading):
    """A connection to one server, with the requests that wait for its replies."""

    def __init__(self, cluster: str | None) -> None:
        super().__init__()
        self.broken: _BrokenError | None = None
        self._cluster = cluster
        self._frames = codec.Frames(codec.REPLY.limit)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._last_id = 0

    @property
    def is_open(self) -> bool:
        """Whether it makes sense to ask: one that is about to close takes what is written and drops it."""
        return self.broken is None and not self._transport.is_closing()

    async def ask(self, make: MakeRequest) -> Reply:
        """Send a request and wait for its reply; raises `_BrokenError`."""
        if not self.is_open:
            raise self.broken or _BrokenError("the connection is about to close")
        self._last_id += 1
        id = self._last_id
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        try:
            self._transport.write(codec.encode(make(id)))
            return await future
        finally:
            self._waiting.pop(id, None)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(codec.encode(ClientHello(self._cluster)))

    def data_received(self, data: bytes | memoryview) -> None:
        self._frames.feed(data)
        try:
            while (body := self._frames.next()) is not None:
                reply = codec.REPLY.decode(body)
                if isinstance(reply, Refused) and reply.id == 0:
                    self._break(_RefusedError(reply.reason))
                    return
                future = self._waiting.get(reply.id)
                if future is not None and not future.done():
                    future.set_result(reply)
        except CodecError as error:
            self._break(_BrokenError(f"not a server of ours: {error}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._break(_BrokenError(f"the connection broke: {error or 'closed by the server'}"))

    def _break(self, why: _BrokenError) -> None:
        if self.broken is None:
            self.broken = why
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(self.broken)

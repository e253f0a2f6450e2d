"""Connections to peers and from peers and clients, over TCP with asyncio.

Raft asks little of its network: messages may be lost, late, doubled or out of order (section 2). So each
server opens one connection to each peer and sends on it; what doesn't fit the queue while a peer is slow
or away is dropped, the oldest first, and nobody is told.

Without TLS, anybody who can reach the port can claim to be a peer: then run this on a network whose machines
you trust. With it (`security.py`), a peer has to show the certificate of the server that it claims to be.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from raftd import codec
from raftd.addresses import Address, Addresses, format_addresses, parse_addresses
from raftd.codec import ClientHello, CodecError, PeerHello, Refused, Reply, Request
from raftd.messages import Aside, Message
from raftd.reading import Reading
from raftd.security import Tls, names

log = logging.getLogger("raftd")

QUEUE_LIMIT: Final = 256  # messages for one peer
CONNECT_TIMEOUT: Final = 1.0
FIRST_BACK_OFF: Final = 0.02
# Short of an election timeout or two: a restarted server should hear its leader before it becomes impatient.
MAX_BACK_OFF: Final = 0.2

MAX_PEERS: Final = 100  # each is called again and again, from when it has called or is a member
MAX_CONNECTIONS: Final = 1000  # from others; each may hold a frame in memory that is not yet whole
MAX_OUTSTANDING: Final = 1000  # requests of one client that are not answered yet
HELLO_TIMEOUT: Final = 5.0  # who says nothing in this time is hung up on

OnMessage = Callable[[Message | Aside], None]
Respond = Callable[[Reply], None]
OnRequest = Callable[[Request, Respond], None]


class Transport:
    """All connections of one server."""

    def __init__(
        self,
        server: str,
        addresses: Addresses,
        listen: str | None = None,
        *,
        cluster: str | None = None,
        tls: Tls | None = None,
        max_connections: int = MAX_CONNECTIONS,
        joins: bool = False,
        open_to_new: bool = False,
    ) -> None:
        """`cluster` tells clusters apart; two that give none are the same if all their addresses are.

        `addresses` are those of the first configuration, and its own if it `joins` later. With `open_to_new`,
        servers of the same cluster may call that are not among them.
        """
        if server not in addresses:
            raise ValueError(f"{server!r} is not one of the cluster's servers: {', '.join(addresses)}")
        self.server = server
        self.addresses = dict(addresses)
        first = {i: a for i, a in sorted(addresses.items()) if not (joins and i == server)}
        self.cluster = cluster or format_addresses(first)
        self._open_to_new = open_to_new
        self.max_connections = max_connections
        self.accepting = tls.accepting() if tls else None
        self.opening = tls.opening() if tls else None
        self._mute: frozenset[str] = frozenset()
        self._deaf: frozenset[str] = frozenset()
        self._listen = listen or addresses[server].host
        self._links = {peer: _Link(self, peer) for peer in addresses if peer != server}
        self._incoming: set[_Incoming] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.Server | None = None

    async def start(self, on_message: OnMessage, on_request: OnRequest) -> None:
        """Listen, and keep a connection to every peer from now on."""
        self._on_message = on_message
        self._on_request = on_request
        loop = asyncio.get_running_loop()
        port = self.addresses[self.server].port
        self._listener = await loop.create_server(
            lambda: _Incoming(self),
            self._listen,
            port,
            ssl=self.accepting,
            ssl_handshake_timeout=HELLO_TIMEOUT if self.accepting else None,
        )
        self._tasks = [asyncio.create_task(link.run()) for link in self._links.values()]

    def meet(self, peer: str, address: Address) -> None:
        """Keep a connection to a server that has joined, or has another address now."""
        if peer == self.server or self.addresses.get(peer) == address:
            return
        self.addresses[peer] = address
        if peer not in self._links:
            link = self._links[peer] = _Link(self, peer)
            self._tasks.append(asyncio.create_task(link.run()))

    def send(self, message: Message | Aside) -> None:
        """Hand a message to the connection of its target, or drop it."""
        assert message.source == self.server, message
        if message.target not in self._mute and (link := self._links.get(message.target)):
            link.send(message)

    def lose(self, mute: Iterable[str], deaf: Iterable[str]) -> None:
        """Fault switch: lose all messages to `mute`, the waiting ones too, and from `deaf`; and no others.

        Who isn't a member yet is cut off as soon as it is one.
        """
        if self.server in {*mute, *deaf}:
            raise ValueError(f"{self.server} can't be cut off from itself")
        self._mute, self._deaf = frozenset(mute), frozenset(deaf)
        for peer in self._mute & self._links.keys():
            self._links[peer].queue.clear()

    async def close(self) -> None:
        """Close everything. What clients wait for stays unanswered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            link.close()
        if self._listener is not None:
            self._listener.close()
        for incoming in list(self._incoming):
            incoming.close()

    @property
    def connections(self) -> int:
        """How many connections others have opened to this server."""
        return len(self._incoming)

    def greeted_by(self, hello: PeerHello, names: frozenset[str]) -> None:
        """A peer has connected, with a certificate for `names`; refuse one that isn't of this cluster."""
        stranger = hello.source not in self._links and not self._open_to_new
        if stranger or hello.source == self.server:
            raise CodecError(f"{hello.source!r} is not a peer of {self.server}")
        if self.accepting and hello.source not in names:
            raise CodecError(
                f"the certificate of {', '.join(sorted(names)) or 'nobody'}, not of {hello.source}"
            )
        if hello.target != self.server:
            raise CodecError(f"{hello.source} wants {hello.target!r}, this is {self.server}")
        if set(hello.servers) != set(self.addresses) and not self._open_to_new:
            raise CodecError(f"{hello.source} is in another cluster: {', '.join(hello.servers)}")
        if hello.cluster != self.cluster:
            raise CodecError(f"{hello.source} is in the cluster {hello.cluster}, this is {self.cluster}")
        if self._open_to_new:
            self._learn(hello)
        self._links[hello.source].hurry()

    def _learn(self, hello: PeerHello) -> None:
        """Who calls may have joined by entries that we haven't got yet. To get them, we have to answer."""
        try:
            address = parse_addresses(f"{hello.source}={hello.address}")[hello.source]
        except ValueError as error:
            raise CodecError(str(error)) from error
        if hello.source in self._links:
            self._links[hello.source].said = address
        elif len(self._links) >= MAX_PEERS:
            raise CodecError(f"{hello.source} is one more than {MAX_PEERS} peers")
        else:
            self.meet(hello.source, address)

    def received(self, peer: str, message: Message | Aside) -> None:
        """A peer has sent a message; refuse one that isn't from it to us."""
        if (message.source, message.target) != (peer, self.server):
            raise CodecError(
                f"a message from {message.source!r} to {message.target!r} on the connection of {peer}"
            )
        if peer not in self._deaf:
            self._on_message(message)

    def requested(self, request: Request, respond: Respond) -> None:
        """A client asks for something."""
        self._on_request(request, respond)

    def asked_by(self, hello: ClientHello) -> None:
        """A client has connected; refuse one that wants another cluster."""
        if hello.cluster not in (None, self.cluster):
            raise CodecError(f"{self.server} is in the cluster {self.cluster}, not in {hello.cluster}")

    def opened(self, incoming: _Incoming) -> None:
        """Somebody has connected; one too many is hung up on at once."""
        if len(self._incoming) >= self.max_connections:
            log.warning("%s has %d connections, and takes no more", self.server, self.max_connections)
            incoming.abort()
        else:
            self._incoming.add(incoming)

    def closed(self, incoming: _Incoming) -> None:
        self._incoming.discard(incoming)


class _Link(asyncio.Protocol):
    """The connection to one peer, opened again whenever it breaks. Nothing is received on it."""

    def __init__(self, owner: Transport, peer: str) -> None:
        self.queue: deque[Message | Aside] = deque(maxlen=QUEUE_LIMIT)
        self.said: Address | None = None  # where the peer says that it listens
        self._owner = owner
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._lost = asyncio.Event()
        self._hurry = asyncio.Event()

    def send(self, message: Message | Aside) -> None:
        self.queue.append(message)
        self._flush()

    def hurry(self) -> None:
        """The peer is up, for it has just called: don't wait out the back-off."""
        self._hurry.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def run(self) -> None:
        """Connect, wait for the connection to break, wait a little; for ever."""
        loop = asyncio.get_running_loop()
        back_off = FIRST_BACK_OFF
        for attempt in itertools.count():
            # Where we believe it to be, and where it says it is: either may be out of date.
            ways = [self._owner.addresses[self._peer], *([self.said] if self.said else [])]
            host, port = ways[attempt % len(ways)]
            self._lost.clear()
            self._hurry.clear()
            began = loop.time()
            try:
                # Who answers there must be this very peer, not just any server of ours.
                name = self._peer if self._owner.opening else None
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await loop.create_connection(
                        lambda: self, host, port, ssl=self._owner.opening, server_hostname=name
                    )
                await self._lost.wait()
            except ssl.SSLError as error:
                log.warning("%s does not trust %s: %s", self._owner.server, self._peer, error)
            except (OSError, TimeoutError) as error:
                log.debug("%s cannot reach %s: %s", self._owner.server, self._peer, error)
            # One that was made when time was up is closed without a word.
            self._transport, self._full = None, False
            # A peer that accepts and then hangs up is no better than one that is away.
            back_off = (
                FIRST_BACK_OFF if loop.time() - began > CONNECT_TIMEOUT else min(2 * back_off, MAX_BACK_OFF)
            )
            try:
                async with asyncio.timeout(back_off):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # A message goes out at once, not when the step is over: its sender may yet wait for the disk.
        self._transport.set_write_buffer_limits(1)  # byte; with TLS, 0 would mean never
        owner = self._owner
        address = str(owner.addresses[owner.server])
        hello = PeerHello(owner.server, self._peer, tuple(owner.addresses), owner.cluster, address)
        self._transport.write(codec.encode(hello))
        self._flush()

    def data_received(self, data: bytes) -> None:
        log.warning("%s answers on a connection that goes one way; closed", self._peer)
        self.close()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        log.debug("%s lost its connection to %s: %s", self._owner.server, self._peer, error or "closed")
        self._transport = None
        self._full = False
        self._lost.set()

    def _flush(self) -> None:
        while self.queue and self._transport is not None and not self._full:
            self._transport.write(codec.encode(self.queue.popleft()))


class _Incoming(Reading):
    """A connection that somebody opened to us: a peer, a client, or neither."""

    def __init__(self, owner: Transport) -> None:
        super().__init__()
        self._owner = owner
        self._frames = codec.Frames(codec.HELLO.limit)
        self._handle: Callable[[bytes], None] = self._on_hello
        self._outstanding = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._patience = asyncio.get_running_loop().call_later(HELLO_TIMEOUT, self._transport.abort)
        self._owner.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._patience.cancel()
        self._owner.closed(self)

    def abort(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes | memoryview) -> None:
        self._frames.feed(data)
        try:
            while not self._transport.is_closing() and (body := self._frames.next()) is not None:
                self._handle(body)
        except CodecError as error:
            log.warning("closed the connection from %s: %s", self._caller(), error)
            self._transport.abort()

    def _on_hello(self, body: bytes) -> None:
        hello = codec.HELLO.decode(body)
        self._patience.cancel()
        if hello.version != codec.VERSION:
            raise CodecError(f"version {hello.version} of the protocol, this is {codec.VERSION}")
        if isinstance(hello, PeerHello):
            self._owner.greeted_by(hello, names(self._transport.get_extra_info("peercert")))
            peer = hello.source
            self._frames.limit = codec.MESSAGE.limit
            self._handle = lambda body: self._owner.received(peer, codec.MESSAGE.decode(body))
        else:
            try:
                self._owner.asked_by(hello)
            except CodecError as error:
                # It is a client of somebody, and can be told; all else would be guessing.
                self._transport.write(codec.encode(Refused(0, str(error))))
                self._transport.close()
                return
            self._frames.limit = codec.REQUEST.limit
            self._handle = self._on_request

    def _on_request(self, body: bytes) -> None:
        request = codec.REQUEST.decode(body)
        self._outstanding += 1
        if self._outstanding > MAX_OUTSTANDING:
            reason = f"{MAX_OUTSTANDING} requests of this client are waiting already"
            self._respond(Refused(request.id, f"{reason}: wait for their replies"))
        else:
            self._owner.requested(request, self._respond)

    def _respond(self, reply: Reply) -> None:
        self._outstanding -= 1
        if not self._transport.is_closing():
            self._transport.write(codec.encode(reply))

    def pause_writing(self) -> None:
        # A client that doesn't read its replies gets to ask no more.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def _caller(self) -> str:
        address: Any = self._transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else "somebody"

"""Connections to peers and from peers and clients, over TCP with asyncio.

Raft asks little of its network: messages may be lost, late, doubled or out of order (section 2). So each
server opens one connection to each peer and sends on it; what doesn't fit the queue while a peer is slow
or away is dropped, the oldest first, and nobody is told.

Anybody who can reach the port can claim to be a peer. Run this on a network whose machines you trust.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from raftd import codec
from raftd.addresses import Addresses
from raftd.codec import CodecError, PeerHello, Reply, Request
from raftd.messages import Message

log = logging.getLogger("raftd")

QUEUE_LIMIT: Final = 256  # messages for one peer
CONNECT_TIMEOUT: Final = 1.0
FIRST_BACK_OFF: Final = 0.02
# Short of an election timeout or two: a restarted server should hear its leader before it becomes impatient.
MAX_BACK_OFF: Final = 0.2

OnMessage = Callable[[Message], None]
Respond = Callable[[Reply], None]
OnRequest = Callable[[Request, Respond], None]


class Transport:
    """All connections of one server."""

    def __init__(self, server: str, addresses: Addresses, listen: str | None = None) -> None:
        if server not in addresses:
            raise ValueError(f"{server!r} is not one of the cluster's servers: {', '.join(addresses)}")
        self.server = server
        self.addresses = dict(addresses)
        self.partitioned_from: frozenset[str] = frozenset()
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
        self._listener = await loop.create_server(lambda: _Incoming(self), self._listen, port)
        self._tasks = [asyncio.create_task(link.run()) for link in self._links.values()]

    def send(self, message: Message) -> None:
        """Hand a message to the connection of its target, or drop it."""
        assert message.source == self.server, message
        if message.target not in self.partitioned_from:
            self._links[message.target].send(message)

    def partition(self, peers: Iterable[str]) -> None:
        """Fault switch: lose all messages to and from `peers`, the waiting ones too."""
        self.partitioned_from = frozenset(peers)
        unknown = self.partitioned_from - self._links.keys()
        if unknown:
            self.heal()
            raise ValueError(f"not peers of {self.server}: {', '.join(sorted(unknown))}")
        for peer in self.partitioned_from:
            self._links[peer].queue.clear()

    def heal(self) -> None:
        """Fault switch: lose no more messages."""
        self.partitioned_from = frozenset()

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

    def greeted_by(self, hello: PeerHello) -> None:
        """A peer has connected; refuse one that isn't of this cluster."""
        if hello.source not in self._links:
            raise CodecError(f"{hello.source!r} is not a peer of {self.server}")
        if hello.target != self.server:
            raise CodecError(f"{hello.source} wants {hello.target!r}, this is {self.server}")
        if set(hello.servers) != set(self.addresses):
            raise CodecError(f"{hello.source} is in another cluster: {', '.join(hello.servers)}")
        self._links[hello.source].hurry()

    def received(self, peer: str, message: Message) -> None:
        """A peer has sent a message; refuse one that isn't from it to us."""
        if (message.source, message.target) != (peer, self.server):
            raise CodecError(
                f"a message from {message.source!r} to {message.target!r} on the connection of {peer}"
            )
        if peer not in self.partitioned_from:
            self._on_message(message)

    def requested(self, request: Request, respond: Respond) -> None:
        """A client asks for something."""
        self._on_request(request, respond)

    def opened(self, incoming: _Incoming) -> None:
        self._incoming.add(incoming)

    def closed(self, incoming: _Incoming) -> None:
        self._incoming.discard(incoming)


class _Link(asyncio.Protocol):
    """The connection to one peer, opened again whenever it breaks. Nothing is received on it."""

    def __init__(self, owner: Transport, peer: str) -> None:
        self.queue: deque[Message] = deque(maxlen=QUEUE_LIMIT)
        self._owner = owner
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._lost = asyncio.Event()
        self._hurry = asyncio.Event()

    def send(self, message: Message) -> None:
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
        host, port = self._owner.addresses[self._peer]
        back_off = FIRST_BACK_OFF
        while True:
            self._lost.clear()
            self._hurry.clear()
            began = loop.time()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await loop.create_connection(lambda: self, host, port)
                await self._lost.wait()
            except (OSError, TimeoutError) as error:
                log.debug("%s cannot reach %s: %s", self._owner.server, self._peer, error)
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
        hello = PeerHello(self._owner.server, self._peer, tuple(self._owner.addresses))
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


class _Incoming(asyncio.Protocol):
    """A connection that somebody opened to us: a peer, a client, or neither."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner
        self._frames = codec.Frames(codec.HELLO.limit)
        self._handle: Callable[[bytes], None] = self._on_hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.closed(self)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while not self._transport.is_closing() and (body := self._frames.next()) is not None:
                self._handle(body)
        except CodecError as error:
            log.warning("closed the connection from %s: %s", self._caller(), error)
            self._transport.abort()

    def _on_hello(self, body: bytes) -> None:
        hello = codec.HELLO.decode(body)
        if hello.version != codec.VERSION:
            raise CodecError(f"version {hello.version} of the protocol, this is {codec.VERSION}")
        if isinstance(hello, PeerHello):
            self._owner.greeted_by(hello)
            peer = hello.source
            self._frames.limit = codec.MESSAGE.limit
            self._handle = lambda body: self._owner.received(peer, codec.MESSAGE.decode(body))
        else:
            self._frames.limit = codec.REQUEST.limit
            self._handle = lambda body: self._owner.requested(codec.REQUEST.decode(body), self._respond)

    def _respond(self, reply: Reply) -> None:
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

"""Snapshots on their way from a leader to a follower, in chunks. Dissertation, section 5.3 and Figure 5.3.

To Raft a snapshot is one message, sent once its first chunk is and received once its last one is. In
between, the receiver says how much it has, so a transfer that was broken off goes on where it stopped,
under a new leader, too, if its snapshot is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

from raftd.messages import InstallSnapshot, Snapshot, SnapshotChunk, SnapshotChunkReply

CHUNK: Final = 256 * 1024
MAX_CHUNK: Final = 16 * 1024 * 1024


class Identity(NamedTuple):
    """What tells a snapshot from all others."""

    last_included_index: int
    last_included_term: int
    size: int
    digest: str


@dataclass
class Outgoing:
    """A snapshot that a follower is getting."""

    message: InstallSnapshot
    identity: Identity
    received: int = 0  # by the follower, as far as is known
    sent: float = 0.0  # when the last chunk was


@dataclass
class Incoming:
    """The part of a snapshot that is here so far."""

    identity: Identity
    term: int  # of whoever sends it
    data: bytearray = field(default_factory=bytearray)


class Transfers:
    """A server's transfers. At most one to each follower, and one from whoever leads."""

    def __init__(self, server: str, patience: float, chunk: int = CHUNK) -> None:
        """After `patience` seconds without an answer a chunk is sent again."""
        assert 0 < chunk <= MAX_CHUNK
        self._server = server
        self._patience = patience
        self._chunk = chunk
        self._outgoing: dict[str, Outgoing] = {}
        self._incoming: Incoming | None = None
        self._known: tuple[Snapshot, Identity] | None = None  # the last identity asked for

    # A leader's side.

    def send(self, now: float, m: InstallSnapshot) -> SnapshotChunk | None:
        """A snapshot is to be sent; None while an answer to one of its chunks may still come."""
        identity = self._identity(m.snapshot)
        under_way = self._outgoing.get(m.target)
        if under_way is None or under_way.identity != identity or under_way.message.term != m.term:
            under_way = self._outgoing[m.target] = Outgoing(m, identity)
        elif now - under_way.sent < self._patience:
            return None
        return self._next(now, under_way)

    def acknowledged(self, now: float, m: SnapshotChunkReply) -> SnapshotChunk | None:
        """A follower has got so much; None if that is all, or if nobody is sending it that snapshot."""
        under_way = self._outgoing.get(m.source)
        if under_way is None or under_way.message.term != m.term:
            return None
        if under_way.identity.last_included_index != m.last_included_index:
            return None
        if not 0 <= m.received < under_way.identity.size:
            return None
        if m.received == under_way.received and now - under_way.sent < self._patience:
            return None  # a late copy: its answer is on the way
        under_way.received = m.received
        return self._next(now, under_way)

    def _next(self, now: float, under_way: Outgoing) -> SnapshotChunk:
        under_way.sent = now
        m, start = under_way.message, under_way.received
        data = m.snapshot.state[start : start + self._chunk]
        configuration = m.snapshot.configured, m.snapshot.configuration
        return SnapshotChunk(m.source, m.target, m.term, *under_way.identity, start, data, *configuration)

    def _identity(self, snapshot: Snapshot) -> Identity:
        if self._known is None or self._known[0] is not snapshot:
            digest = blake2b(snapshot.state, digest_size=16).hexdigest()
            index, term = snapshot.last_included_index, snapshot.last_included_term
            self._known = snapshot, Identity(index, term, len(snapshot.state), digest)
        return self._known[1]

    # A follower's side.

    def receive(
        self, m: SnapshotChunk, current_term: int, commit_index: int
    ) -> SnapshotChunkReply | InstallSnapshot | None:
        """A chunk arrives: say how much is here, or hand over the whole. None if the chunk is of no use.

        A snapshot of what is committed here is handed over without its state, which nobody will look at.
        """
        if m.term < current_term or m.last_included_index <= commit_index:
            return self._whole(m, b"")
        identity = Identity(m.last_included_index, m.last_included_term, m.size, m.digest)
        here = self._incoming
        if here is None or here.identity != identity:
            if here and (m.term, m.last_included_index) < (here.term, here.identity.last_included_index):
                return None  # a late copy from a transfer before
            here = self._incoming = Incoming(identity, m.term)
        here.term = max(here.term, m.term)
        if m.offset == len(here.data) and len(m.data) <= m.size - m.offset:
            here.data += m.data
        if len(here.data) < m.size:
            return SnapshotChunkReply(m.target, m.source, m.term, m.last_included_index, len(here.data))
        self._incoming = None
        state = bytes(here.data)
        if blake2b(state, digest_size=16).hexdigest() != m.digest:
            return None  # not what was sent: it will be sent again
        return self._whole(m, state)

    def _whole(self, m: SnapshotChunk, state: bytes) -> InstallSnapshot:
        n, term = m.last_included_index, m.last_included_term
        snapshot = Snapshot(n, term, state, m.configured, m.configuration)
        return InstallSnapshot(m.source, m.target, m.term, snapshot)

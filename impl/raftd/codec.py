"""What goes over TCP: frames, and what is in them.

A frame is a length of four bytes, big-endian, and as many bytes of MessagePack. The first frame of a
connection is a hello. After a peer's hello come Raft's messages, one way only: a reply travels on the
connection that its sender opened. After a client's hello come requests, each answered by one reply with
the request's `id`, in any order.

Nothing here knows sockets: bytes in, values out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Generic, Literal, TypeVar

import msgspec

from raftd.messages import Aside, Message

VERSION: Final = 1

MAX_COMMAND: Final = 64 * 1024
MAX_HELLO: Final = 16 * 1024
MAX_REQUEST: Final = MAX_COMMAND + 16 * 1024
MAX_MESSAGE: Final = 64 * 1024 * 1024  # an AppendEntries of 512 commands of full size is half of it

LENGTH_BYTES: Final = 4


class CodecError(ValueError):
    """The other side doesn't speak our protocol. The connection is of no use any more."""


# --- hello ------------------------------------------------------------------------------------------


class PeerHello(msgspec.Struct, frozen=True, tag="peer_hello", tag_field="kind"):
    """A server says who it is and where, whom it wants, and which cluster it takes itself to be in."""

    source: str
    target: str
    servers: tuple[str, ...]
    cluster: str
    address: str
    version: int = VERSION


class ClientHello(msgspec.Struct, frozen=True, tag="client_hello", tag_field="kind"):
    """A client follows. It may say which cluster it wants."""

    cluster: str | None = None
    version: int = VERSION


Hello = PeerHello | ClientHello


# --- requests ---------------------------------------------------------------------------------------


class PutRequest(msgspec.Struct, frozen=True, tag="put", tag_field="kind"):
    """Set `key` to `value`."""

    id: int
    key: str
    value: bytes


class Read(StrEnum):
    """What a client asks of a read."""

    INDEX = "index"  # linearizable: the leader makes sure that it still leads
    LOG = "log"  # linearizable: an entry of the log, like a put
    STALE = "stale"  # whatever this very server has applied, however old


class GetRequest(msgspec.Struct, frozen=True, tag="get", tag_field="kind"):
    """Read `key`."""

    id: int
    key: str
    read: Read = Read.INDEX


class DeleteRequest(msgspec.Struct, frozen=True, tag="delete", tag_field="kind"):
    """Remove `key`."""

    id: int
    key: str


class TransferRequest(msgspec.Struct, frozen=True, tag="transfer", tag_field="kind"):
    """Let another server lead: this one, if one is named. Done with the new leader's name."""

    id: int
    successor: str | None = None


class RegisterRequest(msgspec.Struct, frozen=True, tag="register", tag_field="kind"):
    """Open a session. Done's value is its id, as text."""

    id: int


class SessionRequest(msgspec.Struct, frozen=True, tag="ask", tag_field="kind"):
    """Have a command executed once. All numbers below `lowest` have been answered, or given up."""

    id: int
    session: int
    number: int
    lowest: int
    command: bytes


class StatusRequest(msgspec.Struct, frozen=True, tag="status", tag_field="kind"):
    """Ask this very server how it sees itself."""

    id: int


class MembersRequest(msgspec.Struct, frozen=True, tag="members", tag_field="kind"):
    """Change who is in the cluster; done when the configuration is committed.

    `action` is `add` (a learner, at an `address` as `host:port`, that votes when it has caught up if it is
    `promoted`), `promote`, `remove`, or `set`: to `voters`, through a joint configuration.
    """

    id: int
    action: Literal["add", "promote", "remove", "set"]
    server: str = ""
    address: str = ""
    promoted: bool = True
    voters: tuple[str, ...] = ()


class Faults(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes wrong around a server, which itself knows nothing of it: by default nothing."""

    mute: tuple[str, ...] = ()  # what it sends to these peers is lost
    deaf: tuple[str, ...] = ()  # what these peers send to it is lost
    disk_delay: float = 0.0  # seconds that each write takes longer
    disk_full: bool = False  # until its next start: a full disk stops a server
    clock: float = 0.0  # seconds that its clock has jumped ahead, or back


class FaultRequest(msgspec.Struct, frozen=True, tag="fault", tag_field="kind"):
    """For tests: let these faults be in force, and no others, from now on. Needs `--fault-switch`."""

    id: int
    faults: Faults = Faults()


Request = (
    PutRequest
    | GetRequest
    | DeleteRequest
    | TransferRequest
    | RegisterRequest
    | SessionRequest
    | StatusRequest
    | MembersRequest
    | FaultRequest
)


# --- replies ----------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="kind"):
    """Committed and applied. `value`: what get found, what delete removed, None for nothing."""

    id: int
    value: bytes | None = None


class Redirect(msgspec.Struct, frozen=True, tag="redirect", tag_field="kind"):
    """Not executed: this server isn't the leader. `leader` and its `address`, if it knows of one."""

    id: int
    leader: str | None
    address: tuple[str, int] | None


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind"):
    """Not executed, for a reason that another server would give too.

    With the id 0, which no request has, all that is asked on the connection is refused, and it is closed.
    """

    id: int
    reason: str


class NoSession(msgspec.Struct, frozen=True, tag="no_session", tag_field="kind"):
    """Not executed now; whether it was before, nobody knows any more."""

    id: int
    reason: str


class UnknownOutcome(msgspec.Struct, frozen=True, tag="unknown_outcome", tag_field="kind"):
    """In the log of a leader that lost its leadership: it may be executed yet, or never."""

    id: int
    reason: str


class FollowerStatus(msgspec.Struct, frozen=True):
    """A follower as its leader sees it: what it lacks, and for how many seconds it has been silent."""

    match_index: int
    lag: int
    silent: float


class Members(msgspec.Struct, frozen=True):
    """The configuration in force at a server, which may not be committed yet. Dissertation, chapter 4."""

    voters: tuple[str, ...]
    outgoing: tuple[str, ...]  # who decides, too, in a joint configuration
    learners: tuple[str, ...]
    committed: bool
    addresses: dict[str, str] = {}  # of those that joined later


class Status(msgspec.Struct, frozen=True, tag="status_reply", tag_field="kind"):
    """A server as it sees itself. `followers` is what a leader knows of them, empty for all others."""

    id: int
    server: str
    role: str
    leader: str | None
    current_term: int
    log_length: int
    commit_index: int
    last_applied: int
    start: int
    snapshot_index: int = 0  # the last entry that its snapshot stands for
    followers: dict[str, FollowerStatus] = {}
    members: Members | None = None  # where membership can change
    faults: Faults = Faults()


Reply = Done | Redirect | Refused | NoSession | UnknownOutcome | Status


# --- frames -----------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()

T = TypeVar("T")


class Reader(Generic[T]):
    """A typed decoder with the size that its frames may have."""

    def __init__(self, of: object, limit: int) -> None:
        self.limit = limit
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(of)

    def decode(self, body: bytes) -> T:
        """The value in one frame's body."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise CodecError(f"bad frame: {error}") from error


HELLO: Final[Reader[Hello]] = Reader(Hello, MAX_HELLO)
MESSAGE: Final[Reader[Message | Aside]] = Reader(Message | Aside, MAX_MESSAGE)
REQUEST: Final[Reader[Request]] = Reader(Request, MAX_REQUEST)
REPLY: Final[Reader[Reply]] = Reader(Reply, MAX_REQUEST)


def encode(value: Hello | Message | Aside | Request | Reply) -> bytes:
    """One frame."""
    body = _encoder.encode(value)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into frames' bodies, whatever pieces it arrives in.

    `limit` may change between frames: a hello is short, what follows is as long as its kind.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole frame's body, or None until more has been fed."""
        if len(self._buffer) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
        if length > self.limit:
            raise CodecError(f"a frame of {length} bytes, where {self.limit} are allowed")
        end = LENGTH_BYTES + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[LENGTH_BYTES:end])
        del self._buffer[:end]
        return body

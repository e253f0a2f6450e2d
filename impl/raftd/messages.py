"""The four messages of Raft, those of its extensions, and the log entry.

Figure 2 of Ongaro and Ousterhout (2014).

Messages are values: never changed, equal if their fields are. On the wire they are
MessagePack maps whose `kind` tells them apart.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_NUMBER: Final = 2**62  # SQLite holds 63 bits
MAX_STATE: Final = 10**9  # bytes; what SQLite keeps in one row

# A term, an index or the like. What the network brings is held to it, not just to be any integer.
Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A client's command in the log, with the term of the leader that appended it."""

    term: Number
    command: bytes


class RequestVote(msgspec.Struct, frozen=True, tag="request_vote", tag_field="kind", gc=False):
    """A candidate asks for a vote. Section 5.2."""

    source: str
    target: str
    term: Number
    last_log_index: Number
    last_log_term: Number


class RequestVoteReply(msgspec.Struct, frozen=True, tag="request_vote_reply", tag_field="kind", gc=False):
    """A voter answers, with its own term."""

    source: str
    target: str
    term: Number
    granted: bool


class AppendEntries(msgspec.Struct, frozen=True, tag="append_entries", tag_field="kind", gc=False):
    """A leader replicates entries; without any it is a heartbeat. Section 5.3."""

    source: str
    target: str
    term: Number
    prev_log_index: Number
    prev_log_term: Number
    entries: tuple[Entry, ...]
    leader_commit: Number


class AppendEntriesReply(msgspec.Struct, frozen=True, tag="append_entries_reply", tag_field="kind", gc=False):
    """A follower answers.

    `match_index` is the last index known to equal the leader's log, 0 in a refusal.
    `hint` is, in a refusal, the highest `prev_log_index` worth trying next; it
    saves the leader round trips and safety never depends on it (section 5.3, end).
    """

    source: str
    target: str
    term: Number
    success: bool
    match_index: Number
    hint: Number = 0


class ReadIndex(msgspec.Struct, frozen=True, tag="read_index", tag_field="kind", gc=False):
    """A leader that was asked to read makes sure that it still leads. Dissertation, section 6.4."""

    source: str
    target: str
    term: Number
    round: Number


class ReadIndexReply(msgspec.Struct, frozen=True, tag="read_index_reply", tag_field="kind", gc=False):
    """A server answers, with its own term. To a question of an older term it names no round, but 0.

    `promise` is for how many seconds from now, by its clock, it will vote for nobody: what a lease rests on.
    No trace has it, for the specification has no clocks.
    """

    source: str
    target: str
    term: Number
    round: Number
    promise: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the entries up to `last_included_index` have come to, in their place. Dissertation, section 5.1.

    `state` is the state machine's, with all that is replicated along with it. Where membership can change,
    `configuration` is the command of the newest configuration entry among them, and `configured` its index;
    0 if there is none, and so the first configuration was in force. Dissertation, section 4.1.
    """

    last_included_index: Number
    last_included_term: Number
    state: bytes
    configured: Number = 0
    configuration: bytes = b""


class InstallSnapshot(msgspec.Struct, frozen=True, tag="install_snapshot", tag_field="kind", gc=False):
    """A leader sends its snapshot to a follower that lacks what is compacted. Dissertation, section 5.3.

    The answer is an AppendEntriesReply. It goes over the wire in chunks, see `transfer`.
    """

    source: str
    target: str
    term: Number
    snapshot: Snapshot


class PreVote(msgspec.Struct, frozen=True, tag="pre_vote", tag_field="kind", gc=False):
    """A server asks who would vote for it in the term after its own. Dissertation, section 9.6."""

    source: str
    target: str
    term: Number
    last_log_index: Number
    last_log_term: Number


class PreVoteReply(msgspec.Struct, frozen=True, tag="pre_vote_reply", tag_field="kind", gc=False):
    """A server says whether it would; with its own term, and the one in which it was asked."""

    source: str
    target: str
    term: Number
    granted: bool
    asked_term: Number


class TimeoutNow(msgspec.Struct, frozen=True, tag="timeout_now", tag_field="kind", gc=False):
    """A leader that wants to go tells a follower to stand for election. Dissertation, section 3.10."""

    source: str
    target: str
    term: Number


Message = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | ReadIndex
    | ReadIndexReply
    | InstallSnapshot
    | PreVote
    | PreVoteReply
    | TimeoutNow
)


class SnapshotChunk(msgspec.Struct, frozen=True, tag="snapshot_chunk", tag_field="kind", gc=False):
    """A part of a snapshot: `data` is what its state holds from `offset`. Dissertation, Figure 5.3.

    `size` and `digest` are those of the whole state: two servers' snapshots may be one and the same.
    Each chunk has the configuration, which is short.
    """

    source: str
    target: str
    term: Number
    last_included_index: Number
    last_included_term: Number
    size: Annotated[int, Meta(ge=0, le=MAX_STATE)]
    digest: str
    offset: Number
    data: bytes
    configured: Number = 0
    configuration: bytes = b""


class SnapshotChunkReply(msgspec.Struct, frozen=True, tag="snapshot_chunk_reply", tag_field="kind", gc=False):
    """How much of a snapshot its receiver has: the next chunk begins there."""

    source: str
    target: str
    term: Number
    last_included_index: Number
    received: Number


# Not steps of Raft: no variable changes.
Aside = SnapshotChunk | SnapshotChunkReply

"""What the parts of a Raft server share: its variables, its disk, and what a step asks of its driver."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from raftd.log import Log
from raftd.messages import Entry, Message, Snapshot
from raftd.sessions import Result

NO_OP = b""
# What a server can have beside Figure 2, each an option of `Config`; and what one to trust has.
EXTENSIONS = ("pre_vote", "check_quorum", "leadership_transfer", "reads", "sessions", "membership")
USUAL = ("pre_vote", "check_quorum", "leadership_transfer", "reads")

# What makes a server fast, each to be left out so that it can be measured; Raft is the same without.
SAVINGS = ("batching", "group_commit", "parallel_disks", "pipelining")


def chosen_extensions(names: Iterable[str] | None, figure_2: bool) -> tuple[str, ...]:
    """What somebody wants of a server: these extensions, none of them, or by default the usual ones.

    Raises:
        ValueError: there is no such extension, or both are asked for.
    """
    if names and figure_2:
        raise ValueError("Figure 2 has no extensions: leave out --with or --figure-2")
    if "snapshots" in (names or ()):
        raise ValueError("snapshots are taken by size: write --snapshot-after BYTES")
    if unknown := sorted(set(names or ()) - set(EXTENSIONS)):
        raise ValueError(f"no extension is called {unknown[0]}; there are {', '.join(EXTENSIONS)}")
    return () if figure_2 else tuple(names or USUAL)


class Role(StrEnum):
    """What a server is in its current term. Section 5.1."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True)
class Config:
    """Times in seconds and sizes in entries. Section 5.6 says how the times relate."""

    election_timeout: float = 0.15  # T: each timeout is drawn from [T, 2T]
    heartbeat_interval: float = 0.03
    max_entries: int = 512  # in one AppendEntries
    max_in_flight: int = 4096  # sent to a follower and not yet acknowledged
    pipelining: bool = True  # send a follower more before it has answered
    group_commit: bool = True  # commands that came in during a step share the next one, and so its fsync
    parallel_disks: bool = (
        True  # a leader's entries go out before its own fsync. Dissertation, section 10.2.1
    )
    pre_vote: bool = False  # ask before an election; raftd.pre_vote
    check_quorum: bool = False  # a leader that hears no majority stops leading; raftd.check_quorum
    leadership_transfer: bool = False  # a leader can hand over; raftd.leadership_transfer
    reads: bool = False  # read without the log, by asking a majority. Dissertation, section 6.4
    # Read without asking anybody as long as a lease lasts, which is safe only if no server's clock runs more
    # than so many times as fast as another's; None: no leases.
    lease_drift: float | None = None
    membership: bool = False  # servers can join and leave; raftd.membership
    sessions: bool = False  # execute a client's request once, however often it is tried; raftd.sessions
    session_timeout: float = 3600.0  # a session that nobody uses for so long ends
    snapshot_after: int = 0  # bytes of applied entries after which a snapshot is taken; 0 for never

    def __post_init__(self) -> None:
        assert 0 < self.heartbeat_interval < self.election_timeout
        assert 0 < self.max_entries <= self.max_in_flight
        assert self.lease_drift is None or (self.reads and self.lease_drift >= 1)
        assert self.snapshot_after >= 0

    @property
    def extensions(self) -> tuple[str, ...]:
        """What this server has beside Figure 2, as the head of its trace says."""
        has = {name: getattr(self, name) for name in EXTENSIONS} | {"snapshots": self.snapshot_after > 0}
        return tuple(name for name, on in has.items() if on)

    def having(self, names: Iterable[str]) -> Config:
        """The same with these extensions, and no others."""
        return replace(self, **dict.fromkeys(EXTENSIONS, False) | dict.fromkeys(names, True))

    def without(self, savings: Iterable[str]) -> Config:
        """The same, slower. Without batching an AppendEntries has one entry."""
        left = set(savings)
        entries = 1 if "batching" in left else self.max_entries
        return replace(self, max_entries=entries, **dict.fromkeys(left - {"batching"}, False))


@dataclass
class Persistent:
    """What a server's disk holds. Figure 2, State, persistent on all servers."""

    current_term: int = 0
    voted_for: str | None = None
    log: Log = field(default_factory=Log)
    snapshot: Snapshot | None = None  # stands for what is compacted of the log

    def write(self, change: Persist) -> None:
        """The disk takes a change whole; for those that simulate one."""
        assert change.keep <= self.log.last_index, f"keeps {change.keep} of {self.log.last_index} entries"
        self.current_term, self.voted_for = change.current_term, change.voted_for
        self.log.truncate(change.keep)
        self.log.append(change.entries)
        if change.snapshot is not None:
            self.snapshot = change.snapshot
            self.log.install(change.snapshot.last_included_index, change.snapshot.last_included_term)


class Persist(NamedTuple):
    """A change to the disk, to be made whole or not at all, before anything is sent."""

    current_term: int
    voted_for: str | None
    keep: int  # how many entries of the log on disk stay
    entries: tuple[Entry, ...]  # follow these
    snapshot: Snapshot | None = None  # then stands for the entries that it includes, and they go


class Batch(NamedTuple):
    """What one step asks of its driver, in this order.

    `early` says that the disk need not be done before anything is sent: nothing in `send` is an answer, and
    nothing in it counts on the disk. Dissertation, section 10.2.1.
    """

    event: dict[str, Any]  # a line of the trace, without `seq`
    persist: Persist | None
    send: tuple[Message, ...]
    apply: tuple[tuple[int, Entry], ...]  # newly committed, no-ops included
    results: tuple[Result, ...] = ()  # of those, if this server keeps sessions; it has applied them itself
    install: Snapshot | None = None  # the state machine's state becomes this before anything is applied
    early: bool = False


class NotLeader(Exception):  # noqa: N818  (an answer to the client, not a failure)
    """Only a leader takes commands; `leader` is whom to ask, if known. Section 8."""

    def __init__(self, server: str, leader: str | None) -> None:
        super().__init__(f"{server} is not the leader: ask {leader or 'another server'}")
        self.leader = leader


class Variables(NamedTuple):
    """The variables of Figure 2 that a trace shows, as they are at one moment."""

    role: Role
    current_term: int
    voted_for: str | None
    commit_index: int
    last_applied: int
    votes: list[str]
    match_index: dict[str, int]
    log_length: int
    last_log_term: int
    snapshot_index: int

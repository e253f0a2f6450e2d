"""What a replay keeps and what it finds: the servers, the messages sent, violations, the report."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET

from raftspec.extensions import WHOLE, having
from raftspec.properties import raft
from raftspec.raft import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from raftworthy.files import Place
from raftworthy.generated import Generated, generate
from raftworthy.replay.format import trace_format
from raftworthy.replay.tables import Tables

# Figure 2's policy is not asked of a server, but its refusals are part of the conversation.
NOT_ASKED = WHOLE.policy - {"vote.refuse", "append.refuse"}
WINDOW = 100_000  # how many messages are remembered exactly, at least
PORTION = 4096  # how many of them are forgotten at a time
FIGURE_2 = frozenset(raft.server.types())  # an extension's variables are compared whole
LEADERSHIPS = 16  # how many ended leaderships of a server are remembered


class Mismatch(NamedTuple):
    """A value of an event that the specification does not give."""

    name: str
    expected: Any
    seen: Any


class Violation(Exception):  # noqa: N818  (a verdict, not a failure)
    """An event that is not a behaviour of the specification.

    `kind` is guard (an action that may not be taken), state or sends (its outcome differs), unsent
    (nobody sent the message), restart (a disk that holds something else), or message.
    """

    def __init__(self, kind: str, e: Any, action: str, params: tuple[Any, ...] = (), *, guard: int = 0,
                 mismatches: Iterable[Mismatch] = (), what: str = "") -> None:  # fmt: skip
        super().__init__(what or f"{e.server} {action}: {kind}")
        self.kind = kind
        self.event = e
        self.action = action
        self.params = params
        self.guard = guard
        self.mismatches = tuple(mismatches)
        self.what = what
        self.place: Place | None = None
        self.number = 0  # how many events were replayed before this one
        self.servers: tuple[str, ...] = ()
        self.extensions: frozenset[str] = frozenset()
        self.voters: tuple[str, ...] = ()


class Stopped(Exception):  # noqa: N818  (asked for)
    """The replay came to the event that it was to stop before."""


class Log(list[Any]):
    """A log that remembers what was last cut off it, so that one step can be taken back."""

    __slots__ = ("cut", "pasts")

    def __init__(self, entries: Iterable[Any] = ()) -> None:
        super().__init__(entries)
        self.cut: list[Any] | None = None
        self.pasts: list[PastLog] = []

    def __delitem__(self, where: Any) -> None:
        assert isinstance(where, slice)
        assert where.stop is None, "a log is cut at its end only"
        self.cut = self[where]
        for past in self.pasts:
            past.keep(where.start)
        super().__delitem__(where)

    def end(self, kept: int, entries: Iterable[Any], cut: list[Any] | None = None) -> None:
        """Let other entries follow the first `kept`, as if `cut` had last been cut off."""
        del self[kept:]
        self.extend(entries)
        self.cut = cut

    def copy(self) -> Log:
        return Log(self)


class PastLog:
    """What a log held once, without a copy: the log's beginning, and what was cut off it since."""

    def __init__(self, log: Log, length: int, tail: Iterable[Any] = ()) -> None:
        self.log = log
        self.shared = length  # so many entries are still those of the log
        self.tail = list(tail)
        log.pasts = [*log.pasts[1 - LEADERSHIPS :], self]

    def keep(self, length: int) -> None:
        """The log is about to be cut to this length."""
        self.tail[:0] = self.log[length : self.shared]
        self.shared = min(self.shared, length)

    def entries(self) -> list[Any]:
        return [*self.log[: self.shared], *self.tail]


class Leadership(NamedTuple):
    """A leadership that ended: what the server had then, as far as its AppendEntries show it."""

    term: int
    log: PastLog
    commit_index: int


# What a server's disk held before its last step: current_term, voted_for, the log's length.
Persistent = tuple[int, str | None, int]


class SentMessages:
    """The messages sent so far: exact for the last `WINDOW` at least, forgotten in portions.

    A message is known by its hash (64 bits), and goes with who received it last, "" for nobody. Most
    are received soon, so the newest portion is a dict of its own that stays in the processor's cache.
    """

    def __init__(self) -> None:
        self.recent: dict[int, str] = {}  # always the same dict, as the fast path holds on to it
        self.older: deque[dict[int, str]] = deque()  # newest first
        self.forgot = False

    def __contains__(self, key: int) -> bool:
        return key in self.recent or any(key in portion for portion in self.older)

    def put_away(self, kept: Iterable[int]) -> None:
        """Begin a new portion with the keys `kept`, and forget the oldest if enough are known without it."""
        first = {key: self.recent.pop(key) for key in kept if key in self.recent}
        self.older.appendleft(self.recent.copy())
        self.recent.clear()
        self.recent.update(first)
        while sum(map(len, self.older)) - len(self.older[-1]) > WINDOW:
            self.older.pop()
            self.forgot = True

    def receive(self, key: int, receiver: str) -> bool:
        """Note that somebody received a message; whether it was ever sent."""
        for portion in (self.recent, *self.older):
            if key in portion:
                portion[key] = receiver
                return True
        return False

    def copy(self) -> SentMessages:
        made = SentMessages()
        made.recent = self.recent.copy()
        made.older = deque(portion.copy() for portion in self.older)
        made.forgot = self.forgot
        return made

    def take_back(self, keys: Iterable[int]) -> dict[int, str]:
        """Forget messages that never left. Those that were received nevertheless, with their receiver."""
        first_sent = [key for key in keys if not any(key in portion for portion in self.older)]
        receivers = {key: self.recent.pop(key, "") for key in first_sent}
        return {key: receiver for key, receiver in receivers.items() if receiver}


@dataclass(slots=True)
class Server:
    """What replay keeps for a server beside the specification's variables."""

    name: str
    me: Any  # the specification's variables
    seq: int = 0
    start: int = 0
    before: Persistent | None = None  # what the disk held before the last step
    compacted: tuple[int, int] = (0, 0)  # the number of a step, and how far the log was compacted before it
    news: Sequence[int] = ()  # messages first sent by the last step
    held: dict[str, set[int]] = field(default_factory=dict)  # by event: what its last step may yet send
    ended: list[Leadership] = field(default_factory=list)
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)  # (by whom, term): up to where
    logs_sends: bool = True
    could_commit: int = 0  # what Figure 2 gave as its commit index, in this start, if it took less


@dataclass
class Report:
    """What was replayed, for the summary."""

    servers: tuple[str, ...]
    files: list[str]
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    elections: int = 0
    leaders: dict[int, str] = field(default_factory=dict)
    terms: int = 0
    committed: int = 0
    restarts: int = 0
    lost_steps: int = 0
    hidden_steps: int = 0
    exercised: tuple[str, ...] = ()
    not_exercised: tuple[str, ...] = ()
    unchecked: list[str] = field(default_factory=list)
    leeway: list[str] = field(default_factory=list)
    policy: int = 0  # how many rules are not asked of a trace


def replay_actions(servers: tuple[str, ...], extensions: frozenset[str] = frozenset()) -> Generated:
    """The specification with these extensions as replay runs it: in place, without Figure 2's policy."""
    return _replay_actions(servers, extensions)


@cache
def _replay_actions(servers: tuple[str, ...], extensions: frozenset[str]) -> Generated:
    structs = trace_format(servers, extensions).structs
    return generate(having(*extensions), servers, structs, NOT_ASKED, watch=True, properties=False)


class Ledger:
    """Where a replay stands: the state of the specification, and what has to be known beside it."""

    def __init__(self, servers: tuple[str, ...], extensions: frozenset[str] = frozenset()) -> None:
        self.servers = servers
        self.extensions = extensions
        self.generated = replay_actions(servers, extensions)
        self.spec = self.generated.spec
        self.actions = self.generated.actions
        # An extension's actions that append an entry, with their parameters but the first.
        self.entered = {
            a.name: dict(list(a.params.items())[1:])
            for a in self.spec.actions.values()
            if a.name not in raft.actions and any(t.name == "value" for t in a.params.values())
        }
        self.told = trace_format(servers, extensions).told
        self.tables = Tables() if self.told and "sessions" in extensions else None
        self.world = self.generated.initial()
        for v in self.world.variables.values():
            v.log = Log()
        self.state = {i: Server(i, self.world.variables[i]) for i in servers}
        self.sent = SentMessages()
        self.requests: dict[tuple[str, int], Any] = {}  # the RequestVote of a candidate and term
        # Messages of lost steps that were received: violations, unless the same is sent after the restart.
        self.owed: dict[int, Violation] = {}
        self.parked: dict[str, deque[tuple[Any, Place]]] = {}  # servers that wait, with their events
        self.waiting: dict[int, str] = {}  # who waits for which message
        self.ready: deque[str] = deque()  # whose message was sent
        self.number = 0  # events replayed
        self.kinds = dict.fromkeys(self.actions, 0)
        self.lost_steps = 0
        self.hidden_steps = 0
        self.unchecked: Counter[str] = Counter()
        self.leeway: Counter[str] = Counter()  # where servers did less than Figure 2 says, safely
        structs: dict[Any, Any] = dict(self.generated.structs)
        self.request_vote, self.request_vote_reply = structs[RequestVote], structs[RequestVoteReply]
        self.append_entries, self.append_entries_reply = structs[AppendEntries], structs[AppendEntriesReply]

    def begin_with(self, voters: Collection[str]) -> None:
        """Who votes in the first configuration, where membership can change; none: all servers."""
        if voters and "membership" in self.extensions:
            self.world.past.joining = frozenset(self.servers) - frozenset(voters)

    def said(self, e: Any) -> dict[str, list[Any]]:
        """The actions that append one entry of which an event says what it means, and what it says."""
        out = {}
        for name, params in self.entered.items():
            values = [getattr(e, p, UNSET) for p, t in params.items() if t.name != "value"]
            if UNSET not in values:
                out[name] = values
        return out

    def arrived(self, key: int) -> None:
        """A message that was sent for the first time: somebody may have waited for it."""
        self.owed.pop(key, None)
        if key in self.waiting:
            self.ready.append(self.waiting.pop(key))

    def wake(self, source: str) -> None:
        """Nobody need wait for one message of a server that turns out not to log what it sends."""
        for key, i in list(self.waiting.items()):
            if self.parked[i][0][0].message.source == source:
                del self.waiting[key]
                self.ready.append(i)

    def remember_leadership(self, server: Server, term: int, cut: list[Any] | None, length: int) -> None:
        """Keep what a leader had when it stopped, for those of its AppendEntries that arrive later.

        `length` is that of its log then, `cut` what the step that ended it has cut off.
        """
        me = server.me
        past = PastLog(me.log, length - len(cut or ()), cut or ())
        server.ended = [*server.ended[1 - LEADERSHIPS :], Leadership(term, past, me.commit_index)]

    def leaders_of(self, i: str, term: int) -> Iterator[Any]:
        """The variables of server i as leader of a term, now or when that ended."""
        me = self.state[i].me
        if me.role == "leader" and me.current_term == term:
            yield me
        for past in self.state[i].ended:
            if past.term == term:
                yield as_leader(me, term, past.log.entries(), past.commit_index)

    def report(self, files: list[str]) -> Report:
        """What was replayed, and which rules it exercised."""
        past = self.world.past
        taken = {name for name, n in self.kinds.items() if n}
        if any(v.last_applied for v in self.world.variables.values()):
            taken.add("apply_entries")  # of which other events tell
        exercised = exercised_rules(self.generated, taken)
        asked = [n for n in self.spec.rules if n not in NOT_ASKED]
        unchecked = [f"{n} {what}" for what, n in self.unchecked.items()]
        silent = [i for i, s in self.state.items() if not s.logs_sends]
        if silent:
            said = f"which messages {', '.join(silent)} sent"
            unchecked.append(f"{said}: taken for sent is all that the specification allows")
        unseen = [i for i, s in self.state.items() if not s.seq]
        if unseen:
            unchecked.append(f"anything about {', '.join(unseen)}: no events")
        return Report(
            self.servers, files, self.number, Counter(self.kinds), self.kinds["timeout"], dict(past.leaders),
            max((v.current_term for v in self.world.variables.values()), default=0), len(past.committed),
            past.restarts, self.lost_steps, self.hidden_steps,
            tuple(n for n in asked if n in exercised), tuple(n for n in asked if n not in exercised),
            unchecked, [f"{n} {what}" for what, n in self.leeway.items()],
            len(self.spec.rules) - len(asked),
        )  # fmt: skip


def sent_by(m: Any) -> tuple[str, tuple[Any, ...]] | None:
    """The action by which a leader sends a message when it wants to, with its parameters; or None."""
    match type(m).__name__:
        case "AppendEntries":
            return "append_entries", (m.source, m.target, m.prev_log_index, len(m.entries), m.leader_commit)
        case "TimeoutNow":
            return "transfer_leadership", (m.source, m.target)
        case "InstallSnapshot":
            return "install_snapshot", (m.source, m.target, m.last_included_index)
    return None


def as_leader(v: Any, term: int, log: list[Any], commit_index: int) -> Any:
    """The variables of a server that leads, as far as its AppendEntries show them; else as they are now."""
    made = shallow(v)
    made.role, made.current_term, made.log, made.commit_index = "leader", term, log, commit_index
    return made


def shallow(v: Any) -> Any:
    """A copy to try a step on. Logs are shared, as a copy of a long one takes long: put them right again."""
    made = type(v)()
    for name in v.__slots__:
        value = getattr(v, name)
        setattr(made, name, dict(value) if isinstance(value, dict) else value)
    return made


def differences(state: Any, me: Any) -> Iterator[Mismatch]:
    """Where an event's state and a server's variables differ. `next_index` is policy, so not compared."""
    if state is UNSET:
        return
    log = me.log
    expected = {
        "role": me.role,
        "current_term": me.current_term,
        "voted_for": me.voted_for,
        "log_length": len(log),
        "last_log_term": log[-1].term if log else 0,
        "commit_index": me.commit_index,
        "last_applied": me.last_applied,
    }
    if me.extensions:
        expected |= {name: getattr(me, name) for name in me.__slots__ if name not in FIGURE_2}
    for name, value in expected.items():
        seen = getattr(state, name)
        if seen is not UNSET and seen != value:
            yield Mismatch(name, value, seen)
    # Votes are of use to a candidate only, and match_index to a leader; what others hold is their affair.
    if state.votes is not UNSET and state.votes != me.votes and me.role == "candidate":
        yield Mismatch("votes", me.votes, state.votes)
    if state.match_index is not UNSET and me.role == "leader":
        for j, n in state.match_index.items():
            if me.match_index.get(j, 0) != n:
                yield Mismatch(f"match_index[{j}]", me.match_index.get(j, 0), n)


def exercised_rules(generated: Generated, taken: Iterable[str]) -> set[str]:
    """The rules that made a difference: let a guarded step pass, or came out other than if taken away."""
    return set(generated.exercised).union(*(generated.tracer.followed.get(name, ()) for name in taken))

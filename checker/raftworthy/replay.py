"""Replaying traces: is what the servers did a behaviour of the specification?

Each event is explained as a short sequence of the specification's steps, run by the generated
Python back end in place. Order comes from causality alone: a server's own order, and a
receive after its send. So there is no search, one pass, and memory for the logs and a window of messages.

    e  an event     i  the server whose event it is     me  i's variables     m  a message
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET

from raftspec.graph import postorder
from raftspec.properties import raft
from raftspec.raft import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from raftspec.rules import POLICY
from raftworthy.generated import Generated, World, generate
from raftworthy.reading import Place, TraceFile, Unusable, trace_format
from raftworthy.structs import snake_case

# Figure 2's policy is not asked of a server, but its refusals are part of the conversation.
NOT_ASKED = POLICY - {"vote.refuse", "append.refuse"}
WINDOW = 100_000  # how many messages are remembered exactly, at least
# What a server can wait for, other than for a message (its hash).
ANYTHING, OTHERS_END = 0, -1
LEADERSHIPS = 16  # how many ended leaderships of a server are remembered

HANDLERS = {a.name: snake_case(a.message.__name__) for a in raft.actions.values() if a.message}


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


class Stopped(Exception):  # noqa: N818  (asked for)
    """The replay came to the event that it was to stop before."""


class Log(list[Any]):
    """A log that remembers what was last cut off it, so that one step can be taken back."""

    __slots__ = ("cut",)

    def __init__(self, entries: Iterable[Any] = ()) -> None:
        super().__init__(entries)
        self.cut: list[Any] | None = None

    def __delitem__(self, where: Any) -> None:
        if isinstance(where, slice):
            self.cut = self[where]
        super().__delitem__(where)

    def copy(self) -> Log:
        return Log(self)


# What a server's disk held before its last step: current_term, voted_for, the log's length.
Persistent = tuple[int, str | None, int]


class SentMessages:
    """The messages sent so far: exact for the last `WINDOW` at least, forgotten in two halves.

    A message is known by its hash (64 bits). `news` are those of the step that is being replayed.
    """

    def __init__(self) -> None:
        self.recent: dict[int, str] = {}
        self.older: dict[int, str] = {}
        self.forgot = False

    def __contains__(self, key: int) -> bool:
        return key in self.recent or key in self.older

    def forget(self) -> None:
        """Make room: the older half goes."""
        self.forgot = self.forgot or bool(self.older)
        self.older, self.recent = self.recent, {}

    def receive(self, key: int, receiver: str) -> bool:
        """Note that somebody received a message; whether it was ever sent."""
        store = self.recent if key in self.recent else self.older
        if key not in store:
            return False
        store[key] = receiver
        return True

    def take_back(self, keys: Iterable[int]) -> dict[int, str]:
        """Forget messages that never left. Those that were received nevertheless, with their receiver."""
        receivers = {key: self.recent.pop(key, "") or self.older.pop(key, "") for key in keys}
        return {key: receiver for key, receiver in receivers.items() if receiver}


@dataclass
class Server:
    """What replay keeps for a server beside the specification's variables."""

    name: str
    me: Any  # the specification's variables
    seq: int = 0
    start: int = 0
    before: Persistent | None = None  # what the disk held before the last step
    news: Sequence[int] = ()  # messages first sent by the last step
    ended: list[tuple[int, Any]] = field(default_factory=list)  # (term, variables) of ended leaderships
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)  # (by whom, term): up to where
    logs_sends: bool = True


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


@cache
def replay_actions(servers: tuple[str, ...]) -> Generated:
    """The specification as replay runs it: in place, without Figure 2's policy."""
    return generate(raft, servers, trace_format().structs, NOT_ASKED, watch=True, properties=False)


class Replay:
    """The state of a replay. `feed` takes events in any order that keeps each server's own."""

    def __init__(
        self, servers: tuple[str, ...], observer: Callable[[Any, Place, World], None] | None = None
    ) -> None:
        self.generated = replay_actions(servers)
        self.servers = servers
        self.world = self.generated.initial()
        for v in self.world.variables.values():
            v.log = Log()
        self.state = {i: Server(i, self.world.variables[i]) for i in servers}
        self.sent = SentMessages()
        self.observer = observer
        self.actions = self.generated.actions
        self.number = 0
        self.stop_at: int | None = None
        self.unchecked: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.lost_steps = 0
        self.hidden_steps = 0
        self.requests: dict[tuple[str, int], Any] = {}
        # Messages of lost steps that somebody received: violations, unless the same is sent after the restart.
        self.owed: dict[int, Violation] = {}
        # Servers that wait, with their events; who waits for which message, for anything, and who needs not wait any more.
        self.parked: dict[str, deque[tuple[Any, Place]]] = {}
        self.waiting: dict[int, str] = {}
        self.hungry: set[str] = set()
        self.ready: deque[str] = deque()
        structs: dict[Any, Any] = dict(self.generated.structs)
        self._request_vote, self._request_vote_reply = structs[RequestVote], structs[RequestVoteReply]
        self._append_entries, self._append_entries_reply = structs[AppendEntries], structs[AppendEntriesReply]
        self._handlers: dict[str, Any] = {
            a.name: structs[a.message] for a in raft.actions.values() if a.message is not None
        }
        self._append = self.actions["append_entries"]
        self._out: list[Any] = []
        self._made: list[Any] = []

    # --- order -----------------------------------------------------------------

    def feed(
        self, events: Sequence[Any], file: str, line: int, start: int = 0, pause_at: str | None = None
    ) -> int:
        """Replay events from `start` on, or keep those that must wait until what they need has happened.

        `line` is the line of the first. Returns where it stopped: at the end, or before an event of the
        server `pause_at` while that one waits.

        Raises:
            Violation, Unusable
        """
        parked, take, observer = self.parked, self._take, self.observer
        at = start
        try:
            for at in range(start, len(events)):
                e = events[at]
                if parked and e.server in parked:
                    if e.server == pause_at:
                        return at
                    parked[e.server].append((e, Place(file, line + at)))
                    continue
                key = take(e)
                if key is not None:
                    self._park(e.server, key, e, Place(file, line + at))
                    continue
                self.number += 1
                if self.owed or observer is not None:
                    self._note(e, Place(file, line + at))
                if self.number == self.stop_at:
                    raise Stopped
                if self.hungry or self.ready:
                    self._drain()
        except Violation as v:
            if v.place is None:
                v.place, v.number = Place(file, line + at), self.number
            raise
        except Unusable as u:
            raise (u if u.place else Unusable(Place(file, line + at), u.what)) from None
        return len(events)

    def _note(self, e: Any, place: Place) -> None:
        """Tell the observer, and keep the place of a restart that may prove wrong."""
        for v in self.owed.values():
            if v.event is e:
                v.place = place
        if self.observer is not None:
            self.observer(e, place, self.world)

    def _park(self, i: str, key: int, e: Any, place: Place) -> None:
        self.parked[i] = deque([(e, place)])
        if key == ANYTHING:
            self.hungry.add(i)
        elif key != OTHERS_END:
            self.waiting[key] = i

    def _drain(self) -> None:
        """Go on with servers whose wait may be over, until none can move."""
        moved = True
        while self.ready or (self.hungry and moved):
            before = self.number
            ready = [*self.ready, *sorted(self.hungry)]
            self.ready.clear()
            for i in ready:
                self._go_on(i)
            moved = self.number > before

    def _go_on(self, i: str) -> None:
        """Replay what a parked server has waiting, as far as it goes."""
        self.hungry.discard(i)
        queue = self.parked.pop(i, None)
        while queue and i not in self.parked:
            e, place = queue.popleft()
            self.feed([e], place.file, place.line)
        if queue:
            self.parked[i].extend(queue)

    def retry(self) -> bool:
        """Try restarts again that nothing had explained yet; whether any server went on."""
        before = self.number
        for i in sorted(self.parked):
            if i in self.parked and self.parked[i][0][0].event == "restart":
                self._go_on(i)
        return self.number > before

    def finish(self) -> None:
        """No more events will come: whoever still waits, waits for what never happened.

        Raises:
            Violation: the first event that can't have happened.
        """
        while self.parked and (self.retry() or self._assume_forgotten()):
            pass
        if self.parked:
            self._check_parked_sequences()
            # Of the waits, one that no other waiting server could end.
            i = min(self.parked, key=lambda i: (self._waits_for(i) in self.parked, self.parked[i][0][1]))
            e, place = self.parked[i][0]
            v = self._never(e)
            v.place, v.number = place, self.number
            raise v
        for v in self.owed.values():
            raise v

    def _waits_for(self, i: str) -> str:
        """The server from which a parked server needs a message, if it needs one."""
        m = self.parked[i][0][0].message
        return "" if m is UNSET else str(m.source)

    def _assume_forgotten(self) -> bool:
        """A receive may wait for a message that was sent before the window; whether one does."""
        if not self.sent.forgot or not self.waiting:
            return False
        key, i = min(self.waiting.items(), key=lambda item: self.parked[item[1]][0][1])
        self.unchecked["receives of messages older than the window"] += 1
        del self.waiting[key]
        self.sent.recent[key] = ""
        self._go_on(i)
        return True

    def _check_parked_sequences(self) -> None:
        """A line that is missing explains a wait better than any server's fault."""
        for i, queue in self.parked.items():
            server = Server(i, None, self.state[i].seq)
            for e, place in queue:
                try:
                    server.seq = self._check_sequence(e, server) if e.seq != server.seq + 1 else e.seq
                except Unusable as u:
                    raise Unusable(place, u.what) from None

    def _never(self, e: Any) -> Violation:
        if e.event in HANDLERS:
            return Violation("unsent", e, e.event, (e.message,))
        if e.event == "restart":
            return self._other_disk(e)
        return self._try_again(e)

    def _try_again(self, e: Any) -> Violation:
        """Why an event that waited for unlogged replies can't happen."""
        try:
            self._take(e, last=True)
        except Violation as v:
            return v
        return Violation("guard", e, e.event)

    # --- one event ---------------------------------------------------------------

    def _take(self, e: Any, last: bool = False) -> int | None:
        """Replay one event. None if it happened; otherwise the message it waits for (its hash), or what else.

        This is the path of every event, so the common case is written out in it.
        """
        name, message, state = e.event, e.message, e.state
        server = self.state.get(e.server)
        if server is None:
            raise Unusable("", f"server {e.server} is not in the header's list ({', '.join(self.servers)})")
        handler = self._handlers.get(name)
        if handler is not None:
            if type(message) is not handler or message.target != e.server:
                self._refuse_message(e, handler)
            key = hash(message)
            recent = self.sent.recent
            if key in recent:
                recent[key] = e.server
            elif not self.sent.receive(key, e.server):
                wait = self._may_come(e, key)
                if wait is not None:
                    return wait
        seq = server.seq + 1
        if e.seq != seq:
            seq = self._check_sequence(e, server)
        out = self._out
        out.clear()
        if name == "restart":
            if not self._restart(e, server, last):
                return OTHERS_END
        else:
            me = server.me
            log = me.log
            role = me.role
            before = (me.current_term, me.voted_for, len(log))
            log.cut = None
            if handler is not None:
                self.actions[name](self.world, message, out.append)
            elif name != "append_entries" and not self._act(e, me, last):
                return ANYTHING
            if state is not UNSET:
                if (
                    (me.role != "follower" or e.entries or state.last_applied is not UNSET)
                    and not self._follow_up(e, state, me, last)
                ):  # fmt: skip
                    return ANYTHING
                if (
                    (state.log_length is not UNSET and state.log_length != len(log))
                    or (
                        state.last_log_term is not UNSET
                        and state.last_log_term != (log[-1].term if log else 0)
                    )
                    or (state.commit_index is not UNSET and state.commit_index != me.commit_index)
                    or (state.last_applied is not UNSET and state.last_applied != me.last_applied)
                    or (
                        state.match_index is not UNSET
                        and not state.match_index.items() <= me.match_index.items()
                    )
                    or (state.current_term is not UNSET and state.current_term != me.current_term)
                    or (state.voted_for is not UNSET and state.voted_for != me.voted_for)
                    or (state.role is not UNSET and state.role != me.role)
                    or state.votes is not UNSET
                ):
                    self._compare(e, me)
            if role == "leader" and me.role != "leader":
                self._remember_leadership(server, before[0], log.cut, before[2])
            server.before = before
            if e.sends or out:
                self._send(e, server)
            else:
                server.news = ()
        server.seq = seq
        self.kinds[name] += 1
        return None

    def _act(self, e: Any, me: Any, last: bool) -> bool:
        """The step that the event names, where it isn't the receipt of a message. False if it must wait."""
        if e.event == "client_request":
            if not e.entries:
                raise Unusable("", "client_request needs entries: [[term, digest], …]")
            self._client_request(e, me)
            return True
        return self._do(e, e.event, *self._parameters(e, e.event), last=last)

    def _follow_up(self, e: Any, state: Any, me: Any, last: bool) -> bool:
        """The rest of the sequence that one event may stand for. False if it must wait."""
        if me.role != "follower" or e.entries:
            if (
                state.role == "leader"
                and me.role == "candidate"
                and not self._do(e, "become_leader", e.server, last=last)
            ):
                return False
            if e.entries and e.event != "client_request":
                self._client_request(e, me)
            commit_index = state.commit_index
            if (
                commit_index is not UNSET
                and commit_index > me.commit_index
                and me.role == "leader"
                and not self._do(e, "advance_commit_index", e.server, commit_index, last=last)
            ):
                return False
        if state.last_applied is not UNSET and state.last_applied > me.last_applied:
            self._do(e, "apply_entries", e.server, state.last_applied)
        return True

    def _refuse_message(self, e: Any, handler: type) -> None:
        """A handler's event without its message, or with somebody else's."""
        if e.message is UNSET:
            raise Unusable("", f"{e.event} needs its message, of kind {HANDLERS[e.event]}")
        if type(e.message) is not handler:
            raise Unusable(
                "", f"{e.event} needs a message of kind {HANDLERS[e.event]}, not {_kind(e.message)}"
            )
        raise Violation(
            "message",
            e,
            e.event,
            (e.message,),
            mismatches=[Mismatch("message.target", e.server, e.message.target)],
        )

    def _check_sequence(self, e: Any, server: Server) -> int:
        """A server's own count of its events has neither gaps nor repeats, and starts over at a restart."""
        seq: Any = e.seq
        if seq is UNSET:
            return server.seq + 1
        if e.event == "restart" and seq == 1:
            return 1
        what = "repeats" if seq <= server.seq else "leaves a gap in"
        raise Unusable(
            "", f"seq {seq} of {server.name} {what} its sequence; after {server.seq} comes {server.seq + 1}"
        )

    def _parameters(self, e: Any, name: str) -> tuple[Any, ...]:
        needed = {"advance_commit_index": "commit_index", "apply_entries": "last_applied"}.get(name)
        if needed is None:
            return (e.server,)
        value = UNSET if e.state is UNSET else getattr(e.state, needed)
        if value is UNSET:
            raise Unusable("", f"{name} needs state.{needed}")
        return (e.server, value)

    def _do(self, e: Any, name: str, *params: Any, last: bool = True) -> bool:
        """Take a step with guards. False if replies that aren't logged may yet allow it; a Violation if nothing can."""
        failed = self.actions[name](self.world, *params, self._out.append)
        if not failed:
            return True
        if e.sends is UNSET and name in ("become_leader", "advance_commit_index"):
            self._receive_unlogged(e.server)
            failed = self.actions[name](self.world, *params, self._out.append)
            if not failed:
                return True
            if not last:
                return False
        raise Violation("guard", e, name, params, guard=failed)

    def _receive_unlogged(self, i: str) -> None:
        """Let a server that doesn't log what it receives have the replies that were sent to it."""
        me = self.world.variables[i]
        mine: list[Any] = []
        for j in self.servers:
            vote = self._request_vote_reply(j, i, me.current_term, True)
            if hash(vote) in self.sent and me.role == "candidate":
                self.actions["handle_request_vote_reply"](self.world, vote, mine.append)
            match = self.state[i].acknowledged.get((j, me.current_term))
            if match and me.role == "leader":
                ack = self._append_entries_reply(j, i, me.current_term, True, match)
                self.actions["handle_append_entries_reply"](self.world, ack, mine.append)

    def _client_request(self, e: Any, me: Any) -> None:
        """A leader appends the event's entries, each with the term that the specification gives it."""
        i = e.server
        do = self.actions["client_request"]
        for entry in e.entries:
            failed = do(self.world, i, entry.value, self._out.append)
            if failed:
                raise Violation("guard", e, "client_request", (i, entry.value), guard=failed)
            if me.log[-1] != entry:
                mismatch = Mismatch(f"entries[{len(me.log)}].term", me.log[-1].term, entry.term)
                raise Violation("state", e, "client_request", (i, entry.value), mismatches=[mismatch])

    def _compare(self, e: Any, me: Any) -> None:
        """What the event says of the variables after the step is what the specification gives."""
        mismatches = list(differences(e.state, me))
        if mismatches:
            raise Violation("state", e, e.event, _params(e), mismatches=mismatches)

    def _send(self, e: Any, server: Server) -> None:
        """The messages of a step are those that the specification sends in it, or a leader's AppendEntries."""
        out, sends = self._out, e.sends
        if sends is UNSET:
            server.logs_sends = False
            sends = out
            for m in out:
                if type(m) is self._append_entries_reply and m.success:
                    acknowledged = self.state[m.target].acknowledged
                    known = (m.source, m.term)
                    acknowledged[known] = max(acknowledged.get(known, 0), m.match_index)
        sent, news = self.sent, []
        recent, older = sent.recent, sent.older
        append_entries, made = self._append_entries, self._made
        for m in sends:
            if type(m) is append_entries and m.source == e.server and m.target in self.state:
                # The common case of _may_send.
                made.clear()
                size = len(m.entries)
                failed = self._append(self.world, m.source, m.target, m.prev_log_index, size, m.leader_commit, made.append)
                fine = not failed and made[0] == m
            else:
                fine = m in out
            if not fine and not self._may_send(e, m):
                expected = next((x for x in out if type(x) is type(m) and x.target == m.target), None)
                raise Violation("sends", e, e.event, _params(e), mismatches=[Mismatch("sends", expected, m)])
            key = hash(m)
            if key in recent or key in older:
                continue
            recent[key] = ""
            news.append(key)
            if self.owed:
                self.owed.pop(key, None)
            if self.waiting and key in self.waiting:
                self.ready.append(self.waiting.pop(key))
            if type(m) is self._request_vote:
                self.requests[m.source, m.term] = m
        server.news = news
        if len(recent) > WINDOW:
            sent.forget()

    def _may_send(self, e: Any, m: Any) -> bool:
        """Whether a message that no handler sends is one that a leader may send now, or was sent before."""
        if m.source != e.server or m.target not in self.state:
            return False
        if type(m) is not self._append_entries:
            return hash(m) in self.sent
        made: list[Any] = []
        params = (m.source, m.target, m.prev_log_index, len(m.entries), m.leader_commit)
        failed = self._append(self.world, *params, made.append)
        if failed:
            if hash(m) in self.sent:
                return True
            raise Violation("guard", e, "append_entries", params, guard=failed)
        if made[0] == m:
            return True
        raise Violation("sends", e, "append_entries", params, mismatches=[Mismatch("sends", made[0], m)])

    # --- messages that are not (yet) known to be sent ------------------------------

    def _may_come(self, e: Any, key: int) -> int | None:
        """What to do with a message nobody is known to have sent: None to take it, else what to wait for."""
        m = e.message
        source = self.state.get(m.source)
        if source is None:
            raise Violation("unsent", e, e.event, (m,))
        them = self.world.variables[m.source]
        if not source.logs_sends and type(m) is self._append_entries and self._could_have_sent(source, m):
            return None
        if them.current_term > m.term:
            if self.sent.forgot:
                self.unchecked["receives of messages older than the window"] += 1
                return None
            if not source.logs_sends and type(m) is self._append_entries:
                return ANYTHING  # the acknowledgements that let it commit may be of events still to come
            if m.source in self.parked or self._restart_may_take_back(source, m.term):
                return key if source.logs_sends else ANYTHING
            raise Violation("unsent", e, e.event, (m,))
        return key if source.logs_sends and source.seq else ANYTHING

    def _restart_may_take_back(self, source: Server, term: int) -> bool:
        """The sender's last step may prove to be lost, and its term with it."""
        return source.before is not None and source.before[0] <= term

    def _could_have_sent(self, source: Server, m: Any) -> bool:
        """Whether a leader that doesn't log what it sends is, or was, in a state to send this."""
        params = (m.source, m.target, m.prev_log_index, len(m.entries), m.leader_commit)
        made: list[Any] = []
        for v in [self.world.variables[source.name], *(v for _, v in source.ended)]:
            if v.current_term != m.term:
                continue
            if m.leader_commit > v.commit_index and self._could_have_committed(source, v, m.leader_commit):
                v = _as_leader(v, v.log, m.leader_commit)
            world = World({**self.world.variables, source.name: v}, self.world.past)
            if not self.actions["append_entries"](world, *params, made.append):
                return bool(made.pop() == m)
        return False

    def _could_have_committed(self, source: Server, v: Any, n: int) -> bool:
        """Whether the acknowledgements that were sent let a leader commit entry n, though none is logged."""
        acknowledged = (source.acknowledged.get((j, v.current_term), 0) for j in self.servers)
        quorum = 2 * (1 + sum(match >= n for match in acknowledged)) > len(self.servers)
        return quorum and n <= len(v.log) and v.log[n - 1].term == v.current_term

    def _remember_leadership(self, server: Server, term: int, cut: list[Any] | None, length: int) -> None:
        """Keep what a leader had when it stopped, for those of its AppendEntries that arrive later."""
        me = server.me
        log = me.log[:length] if cut is None else [*me.log[: length - len(cut)], *cut]
        past = _as_leader(me, log, me.commit_index)
        past.current_term = term
        server.ended = [*server.ended[1 - LEADERSHIPS :], (term, past)]

    # --- restarts ------------------------------------------------------------------

    def _restart(self, e: Any, server: Server, last: bool) -> bool:
        """A server starts with what its disk holds. False if what it holds may yet be explained by others.

        The last logged step may be lost, if none of its messages was received; or one more
        step may have reached the disk but not the trace. Nothing else.
        """
        if e.start is not UNSET:
            if e.start != server.start + 1 and not (server.start == 0 and e.start == 1):
                missing = server.start + 1
                raise Unusable(
                    "",
                    f"this is start {e.start} of {server.name}; the trace of its start {missing} is missing",
                )
            server.start = e.start
        me = self.world.variables[e.server]
        if me.role == "leader":
            self._remember_leadership(server, me.current_term, None, len(me.log))
        found = self._disk_holds(e, me)
        if not found and server.before is not None and self._take_back(e, server, me):
            found = True
        if not found and server.seq:  # before its first start, a server took no steps
            found = self._hidden_step(e, server)
        if not found:
            if e.start is not UNSET:
                server.start -= 1
            if last or not self._others_may_move(e.server):
                raise self._other_disk(e)
            return False
        me = server.me = self.world.variables[e.server]
        me.log.cut = None
        self.actions["restart"](self.world, e.server, self._out.append)
        self._compare(e, me)
        server.before = None
        server.news = ()
        return True

    def _others_may_move(self, i: str) -> bool:
        """Whether anything could still happen that explains a disk; `finish` decides in the end."""
        return len(self.servers) > 1

    def _disk_holds(self, e: Any, v: Any) -> bool:
        """Whether the persistent variables are what the restart event says."""
        state, log = e.state, v.log
        if state is not UNSET and not (
            (state.current_term is UNSET or state.current_term == v.current_term)
            and (state.voted_for is UNSET or state.voted_for == v.voted_for)
            and (state.log_length is UNSET or state.log_length == len(log))
            and (state.last_log_term is UNSET or state.last_log_term == (log[-1].term if log else 0))
        ):
            return False
        if not e.entries:
            return True
        after = len(log) - len(e.entries) if e.after is UNSET else e.after
        return after >= 0 and list(e.entries) == log[after:]

    def _take_back(self, e: Any, server: Server, me: Any) -> bool:
        """The last step was logged but never reached the disk: undo it, if that explains the disk."""
        before = server.before
        assert before is not None
        log = me.log
        trial = type(me)()
        for name in me.__slots__:
            setattr(trial, name, getattr(me, name))
        cut = log.cut
        trial.log = Log(log if cut is None else [*log[: before[2] - len(cut)], *cut])
        if cut is None:
            del trial.log[before[2] :]
        trial.current_term, trial.voted_for = before[0], before[1]
        if not self._disk_holds(e, trial):
            return False
        for key, receiver in self.sent.take_back(server.news).items():
            what = f"the step before this restart is not on the disk, but {receiver} received a message of it"
            v = Violation("restart", e, "restart", (e.server,), what=what)
            v.number = self.number
            self.owed[key] = v
        self.world.variables[e.server] = trial
        self.lost_steps += 1
        return True

    def _hidden_step(self, e: Any, server: Server) -> bool:
        """One step reached the disk but not the trace: find a step of the specification that explains the disk."""
        for steps in self._candidates(e):
            variables = self.world.variables
            trial = World({**variables, e.server: variables[e.server].copy()}, self.world.past.copy())
            made: list[Any] = []
            taken = not any(self.actions[name](trial, *params, made.append) for name, *params in steps)
            if taken and self._disk_holds(e, trial.variables[e.server]):
                variables[e.server] = trial.variables[e.server]
                self.world.past = trial.past
                self.hidden_steps += 1
                return True
        return False

    def _candidates(self, e: Any) -> Iterator[list[tuple[Any, ...]]]:
        """What a server may have done unseen, each as actions with parameters, judging by what its disk holds."""
        i, state = e.server, e.state
        me = self.world.variables[i]
        if state is UNSET:
            return
        yield [("timeout", i)]
        term = me.current_term if state.current_term is UNSET else state.current_term
        if state.voted_for not in (UNSET, None) and (state.voted_for, term) in self.requests:
            m = self.requests[state.voted_for, term]
            yield [
                (
                    "handle_request_vote",
                    self._request_vote(m.source, i, term, m.last_log_index, m.last_log_term),
                )
            ]
        for j in self.servers:
            them = self.world.variables[j]
            if j == i or them.current_term < term:
                continue
            yield [("handle_request_vote_reply", self._request_vote_reply(j, i, term, False))]
            leaders = [v for t, v in self.state[j].ended if t == term] + [them] * (them.role == "leader")
            for leader in leaders:
                if leader.current_term == term:
                    yield [("handle_append_entries", self._missed_entries(i, j, leader.log, term, state))]
        if state.log_length is not UNSET and e.entries:
            added = state.log_length - len(me.log)
            appends = [("client_request", i, entry.value) for entry in e.entries[len(e.entries) - added :]]
            if 0 < added <= len(e.entries):
                if me.role == "candidate":
                    votes = [self._request_vote_reply(j, i, term, True) for j in self.servers]
                    received = [
                        ("handle_request_vote_reply", vote) for vote in votes if hash(vote) in self.sent
                    ]
                    yield [*received, ("become_leader", i), *appends]
                yield list(appends)

    def _missed_entries(self, i: str, j: str, log: list[Any], term: int, state: Any) -> Any:
        """The AppendEntries of leader j that would make i's log what its disk holds: j's log up to some point."""
        mine = self.world.variables[i].log
        upto = len(mine) if state.log_length is UNSET else state.log_length
        prev = min(len(mine), len(log), upto)
        while prev and mine[prev - 1] != log[prev - 1]:
            prev -= 1
        prev_term = log[prev - 1].term if prev else 0
        return self._append_entries(j, i, term, prev, prev_term, tuple(log[prev:upto]), 0)

    def _other_disk(self, e: Any) -> Violation:
        me = self.world.variables[e.server]
        found = [
            m
            for m in differences(e.state, me)
            if m.name in ("current_term", "voted_for", "log_length", "last_log_term")
        ]
        if not found:
            found = [Mismatch("entries", f"the end of a log of {len(me.log)}", "other entries")]
        return Violation("restart", e, "restart", (e.server,), mismatches=found)

    # --- the end -------------------------------------------------------------------

    def report(self, files: list[str]) -> Report:
        """What was replayed, and which rules it exercised."""
        past = self.world.past
        exercised = exercised_rules(self.generated, (name for name, n in self.kinds.items() if n))
        asked = [n for n in raft.rules if n not in NOT_ASKED]
        unchecked = [f"{n} {what}" for what, n in self.unchecked.items()]
        silent = [i for i, s in self.state.items() if not s.logs_sends]
        if silent:
            unchecked.append(
                f"which messages {', '.join(silent)} sent: taken for sent is all that the specification allows"
            )
        unseen = [i for i, s in self.state.items() if not s.seq]
        if unseen:
            unchecked.append(f"anything about {', '.join(unseen)}: no events")
        return Report(
            self.servers, files, self.number, self.kinds, self.kinds["timeout"], dict(past.leaders),
            max((v.current_term for v in self.world.variables.values()), default=0), len(past.committed),
            past.restarts, self.lost_steps, self.hidden_steps,
            tuple(n for n in asked if n in exercised), tuple(n for n in asked if n not in exercised), unchecked,
        )  # fmt: skip


def _params(e: Any) -> tuple[Any, ...]:
    """The parameters of the action that an event names."""
    return (e.server,) if e.message is UNSET else (e.message,)


def _as_leader(v: Any, log: list[Any], commit_index: int) -> Any:
    """A server's variables as far as its AppendEntries show them."""
    made = type(v)()
    made.role, made.current_term, made.log, made.commit_index = "leader", v.current_term, log, commit_index
    return made


def _kind(message: Any) -> str:
    return snake_case(type(message).__name__)


def differences(state: Any, me: Any) -> Iterator[Mismatch]:
    """Where an event's state and a server's variables differ. `next_index` is policy, so it isn't compared."""
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
    for name, value in expected.items():
        seen = getattr(state, name)
        if seen is not UNSET and seen != value:
            yield Mismatch(name, value, seen)
    # Votes are of use to a candidate only, and match_index to a leader; what others still hold is their affair.
    if state.votes is not UNSET and state.votes != me.votes and me.role == "candidate":
        yield Mismatch("votes", me.votes, state.votes)
    if state.match_index is not UNSET and me.role == "leader":
        for j, n in state.match_index.items():
            if me.match_index.get(j, 0) != n:
                yield Mismatch(f"match_index[{j}]", me.match_index.get(j, 0), n)


def exercised_rules(generated: Generated, taken: Iterable[str]) -> set[str]:
    """The rules that made a difference: let a guarded step pass, or came out other than if they were taken away."""
    found: set[str] = set()
    for name in taken:
        found |= generated.tracer.followed.get(name, set())
    for name, outcomes in generated.seen.items():
        guards = {
            n.attr
            for g in generated.transitions[name].guards
            for n in postorder(g.condition)
            if n.op == "rule"
        }
        for position, rule in enumerate(generated.rules_of(name)):
            without = generated.tracer.rules[rule]
            if any(rule in guards or outcome[position] != without for outcome in outcomes):
                found.add(rule)
    return found


# --- files ---------------------------------------------------------------------


class Stream:
    """The events of one server's files, start by start, or of one file for several servers."""

    def __init__(self, files: list[TraceFile]) -> None:
        self.files = files
        self.ended = False
        self._server = files[0].first.server if files[0].first is not None else None  # if it is the only one
        self._chunks = self._read()
        self._file, self._line, self._events, self._next = "", 0, [], 0  # type: tuple[str, int, list[Any], int]

    def _read(self) -> Iterator[tuple[str, int, list[Any]]]:
        for number, file in enumerate(self.files):
            for line, events in file.events(lenient=number + 1 < len(self.files)):
                yield str(file.path), line, events

    def feed(self, replay: Replay, patient: bool) -> None:
        """Replay events up to the end of a chunk, or until the stream's one server has to wait.

        A patient stream reads on, and keeps what has to wait.
        """
        only = self._server if not patient else None
        self._next = replay.feed(self._events, self._file, self._line, self._next, only)
        if self._next == len(self._events):
            self._file, self._line, self._events = next(self._chunks, ("", 0, []))
            self._next = 0
            self.ended = not self._events
            if self._server is not None and any(e.server != self._server for e in self._events):
                self._server = None


def replay_files(
    paths: Iterable[Path],
    progress: Callable[[int], None] | None = None,
    observer: Callable[[Any, Place, World], None] | None = None,
    stop_at: int | None = None,
) -> Replay:
    """Replay trace files, merging those of several servers by causality.

    Args:
        paths: one file for all servers, one per server, or one per server and start.
        progress: called now and then with the number of events replayed.
        observer: called after every event with the event, its place and the state.
        stop_at: stop before the event of this number, counted from 0 in the order of the replay.

    Raises:
        Violation: an event is not a behaviour of the specification.
        Unusable: the input can't be used.
    """
    files = [TraceFile.open(p) for p in paths]
    if not files:
        raise Unusable("replay", "no files given")
    servers = files[0].servers
    for file in files:
        if file.servers != servers:
            raise Unusable(
                Place(str(file.path), 1),
                f"servers {file.servers} differ from those of {files[0].path}, {servers}",
            )
    replay = Replay(servers, observer)
    replay.stop_at = stop_at
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and looking for them takes a third of the time
    try:
        _merge(replay, [Stream(chain) for chain in _chains(files)], progress)
        replay.finish()
    except Violation as v:
        v.servers = servers
        raise
    except Stopped:
        return replay
    finally:
        if collecting:
            gc.enable()
    if not replay.number:
        raise Unusable(", ".join(str(f.path) for f in files), "no events, so nothing was checked")
    return replay


def _merge(replay: Replay, streams: list[Stream], progress: Callable[[int], None] | None) -> None:
    """Read the streams in turn, each as far as causality lets it go."""
    while streams:
        before = replay.number
        for stream in streams:
            stream.feed(replay, patient=False)
            if progress is not None:
                progress(replay.number)
        if replay.number == before and not replay.retry():
            for stream in streams:
                stream.feed(replay, patient=True)
        streams = [s for s in streams if not s.ended]


def _chains(files: list[TraceFile]) -> list[list[TraceFile]]:
    """Files that begin with starts of the same server belong together, in the order of the starts."""
    chains: dict[Any, list[TraceFile]] = {}
    for file in files:
        first = file.first
        starts = first is not None and first.event == "restart" and first.start is not UNSET
        chains.setdefault(first.server if starts else file.path, []).append(file)
    return [sorted(chain, key=lambda f: f.first.start if len(chain) > 1 else 0) for chain in chains.values()]

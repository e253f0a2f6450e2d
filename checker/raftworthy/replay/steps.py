"""One event of a trace, as steps of the specification.

`Steps.take` is what replaying an event means. `fused` has a faster way for ordinary events.

    e  an event     i  the server whose event it is     me  i's variables     m  a message
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET

from raftspec.raft import Entry
from raftworthy.files import Unusable
from raftworthy.generated import World
from raftworthy.replay import leeway
from raftworthy.replay.format import appending
from raftworthy.replay.ledger import (
    Ledger,
    Mismatch,
    Server,
    Violation,
    as_leader,
    differences,
    sent_by,
    shallow,
)
from raftworthy.replay.meanings import note
from raftworthy.replay.prefixes import told_as, whole
from raftworthy.replay.restarts import other_disk, restart
from raftworthy.structs import snake_case

# What a server can wait for, other than for a message (its hash).
ANYTHING, OTHERS_END = 0, -1

LEEWAY = {
    f.__name__: f for f in (leeway.handle_request_vote, leeway.handle_append_entries, leeway.handle_pre_vote)
}
# Events that say what they do by what they send.
TOLD_BY_SENDS = ("append_entries", "transfer_leadership", "install_snapshot")
# Actions with a parameter that the event tells by a variable.
TOLD_BY = {
    "advance_commit_index": "commit_index",
    "apply_entries": "last_applied",
    "take_snapshot": "snapshot_index",
}
OLDER = "receives of messages older than the window"


class Steps(Ledger):
    """Takes events one by one, in an order that somebody else sees to."""

    def __init__(self, servers: tuple[str, ...], extensions: frozenset[str] = frozenset()) -> None:
        super().__init__(servers, extensions)
        self._out: list[Any] = []  # what the specification sends in the step
        self.may_commit = self.generated.guards_of("advance_commit_index")
        handled = ((a.name, a.message) for a in self.spec.actions.values() if a.message)
        self.appending = appending(self.spec)  # actions by which an entry is more than a command
        self._entry = self.generated.structs[Entry]
        self.received = {**self.generated.structs, **self.told}  # messages as a trace has them
        self._handlers: dict[str, Any] = {name: self.received[m] for name, m in handled}

    def take(self, e: Any, last: bool = False) -> int | None:
        """Replay one event. None if it happened; otherwise the message it waits for (its hash), or what else.

        `last` says that nothing more will come, so waiting is no use.

        Raises:
            Violation, Unusable
        """
        server = self.state.get(e.server)
        if server is None:
            raise Unusable("", f"server {e.server} is not in the header's list ({', '.join(self.servers)})")
        if self.appending and e.entries:
            note(self.world.past, e, self._entry, self.appending)
        if e.event in self._handlers:
            wait = self._receive(e)
            if wait is not None:
                return wait
        seq = self.check_sequence(e, server.seq)
        if e.event == "restart":
            if not restart(self, e, server, last):
                return OTHERS_END
        elif not self._step(e, server, last):
            return ANYTHING
        server.seq = seq
        self.kinds[e.event] += 1
        return None

    def _step(self, e: Any, server: Server, last: bool) -> bool:
        """What an event other than a restart stands for. False if it must wait."""
        me = server.me
        role, length = me.role, len(me.log)
        before = (me.current_term, me.voted_for, length)
        compacted = me.snapshot_index if self.told else 0
        me.log.cut = None
        self._out.clear()
        # An event that doesn't log what it sends may have to wait for others in the middle of its steps.
        begun = _noted(me) if e.sends is UNSET else None
        if not (self._catch_up(e, me, last) and self._act(e, me, last) and self.follow_up(e, me, last)):
            if begun is not None:
                _take_up(me, begun)
            return False
        self.compare(e, me)
        if role == "leader" and me.role != "leader":
            self.remember_leadership(server, before[0], me.log.cut, length)
        server.before = before
        if self.told:
            server.compacted = (server.seq + 1, compacted)
            if self.tables and me.snapshot_index != compacted:
                self.tables.keep(me, (x.me.snapshot_index for x in self.state.values()))
        self.send(e, server, self._out)
        return True

    def _catch_up(self, e: Any, me: Any, last: bool) -> bool:
        """What replies that aren't logged did before this event. False if it must wait.

        A leader may have committed before the event in which it steps down; any server may
        have seen a newer term.
        """
        if e.sends is not UNSET or e.state is UNSET:
            return True
        term, n = e.state.current_term, e.state.commit_index
        received = 0 if e.message is UNSET else e.message.term
        newer = received > me.current_term or (term is not UNSET and term > me.current_term)
        commits = newer and me.role == "leader" and n is not UNSET and n > me.commit_index
        told = commits and self._commits_by_message(e, n)
        if commits and not told and not self._do(e, "advance_commit_index", e.server, n, last=last):
            return False
        if term is UNSET or term <= max(received, me.current_term + (e.event == "timeout")):
            return True
        term -= e.event == "timeout"
        for j in self.servers:
            if j != e.server and self.state[j].me.current_term >= term:
                reply = self.request_vote_reply(j, e.server, term, False)
                self.actions["handle_request_vote_reply"](self.world, reply, self._out.append)
                return True
        return last

    def _commits_by_message(self, e: Any, n: int) -> bool:
        """Whether a leader's message, if it is taken, is what tells a server that n entries are committed."""
        if type(e.message) is not self.append_entries or e.message.leader_commit < n:
            return False
        me, log = self.state[e.server].me, self.state[e.server].me.log
        length = len(log)
        trial = World({**self.world.variables, e.server: shallow(me)}, shallow(self.world.past))
        self.actions[e.event](trial, e.message, lambda m: None)
        log.end(length - len(log.cut or ()), log.cut or (), None)
        return bool(trial.variables[e.server].commit_index >= n)

    def _act(self, e: Any, me: Any, last: bool) -> bool:
        """The step that the event names. False if it must wait."""
        if e.event in LEEWAY:
            LEEWAY[e.event](self, e, me, self._out)
            return True
        if e.event in self._handlers:
            self.actions[e.event](self.world, self._whole(e), self._out.append)
            return True
        if e.event in TOLD_BY_SENDS:
            return True
        if e.event == "client_request":
            if not e.entries:
                raise Unusable("", "client_request needs entries: [[term, digest], …]")
            self._client_request(e, me)
            return True
        if e.event in self.entered:
            if not self._do(e, e.event, e.server, *self._entry_of(e), last=last):
                return False
            if me.log[-1] != e.entries[0]:
                self.refuse_entry(e, e.entries[0], me)
            return True
        if e.event not in TOLD_BY:
            return self._do(e, e.event, e.server, last=last)
        n = UNSET if e.state is UNSET else getattr(e.state, TOLD_BY[e.event])
        if n is UNSET:
            raise Unusable("", f"{e.event} needs state.{TOLD_BY[e.event]}")
        if e.event == "apply_entries":
            self._apply(e, me, n)
            return True
        return self._do(e, e.event, e.server, n, last=last)

    def _whole(self, e: Any) -> Any:
        """The event's message as the specification has it."""
        m = whole(e.message, self.generated.structs, self.world.past.committed) if self.told else e.message
        if m is None:
            n = e.message.last_included_index
            known = len(self.world.past.committed)
            what = (
                f"a snapshot of entries 1 to {n} is installed, where 1 to {known} are known to be committed"
            )
            raise Violation("message", e, e.event, (e.message,), what=what)
        return m

    def _entry_of(self, e: Any) -> list[Any]:
        """The parameters of an action that appends one entry: its value, and what the event says it means."""
        if not e.entries or len(e.entries) > 1:
            raise Unusable("", f"{e.event} needs entries, with the one that it appends: [[term, digest]]")
        params = []
        for name, t in self.entered[e.event].items():
            x = e.entries[0].value if t.name == "value" else getattr(e, name)
            if x is UNSET:
                raise Unusable("", f"{e.event} needs {name}")
            params.append(x)
        return params

    def follow_up(self, e: Any, me: Any, last: bool) -> bool:
        """The rest of the steps that one event may stand for. False if it must wait."""
        i, state = e.server, e.state
        wins = state is not UNSET and state.role == "leader" and me.role == "candidate"
        if wins and not self._do(e, "become_leader", i, last=last):
            return False
        if self.appending and e.entries:  # the fast path comes here, too
            note(self.world.past, e, self._entry, self.appending)
        if e.entries and e.event != "client_request" and e.event not in self.entered:
            self._client_request(e, me)
        if state is UNSET:
            return True
        leeway.commit_later(e, self.state[i])
        n = state.commit_index
        commits = n is not UNSET and n > me.commit_index and me.role == "leader"
        if commits and not self._do(e, "advance_commit_index", i, n, last=last):
            return False
        if state.last_applied is not UNSET and state.last_applied > me.last_applied:
            self._apply(e, me, state.last_applied)
        return True

    def _apply(self, e: Any, me: Any, last: int) -> None:
        """Entries are applied, one by one where the specification knows clients; they get these answers."""
        if "sessions" not in self.extensions:
            self._do(e, "apply_entries", e.server, last)
            return
        answers = {} if e.answers is UNSET else e.answers
        if self.tables and last >= me.snapshot_index:
            self.tables.give(me)
            if me.last_applied == last:
                return
        for n in range(me.last_applied + 1, max(last, me.last_applied + 1) + 1):
            self._do(e, "apply_entries", e.server, n)
            told = answers.get(n, me.answer)
            if told != me.answer and self.world.past.client.get(me.log[n - 1].value):
                mismatch = Mismatch(f"answers[{n}]", me.answer, told)
                raise Violation("state", e, "apply_entries", (e.server, n), mismatches=[mismatch])

    def _do(self, e: Any, name: str, *params: Any, last: bool = True) -> bool:
        """Take a step with guards. False if replies that aren't logged may yet allow it.

        Raises:
            Violation: nothing can allow it.
        """
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
        me = self.state[i].me
        mine: list[Any] = []
        for j in self.servers:
            vote = self.request_vote_reply(j, i, me.current_term, True)
            if hash(vote) in self.sent and me.role == "candidate":
                self.actions["handle_request_vote_reply"](self.world, vote, mine.append)
            match = self.state[i].acknowledged.get((j, me.current_term))
            if match and me.role == "leader":
                ack = self.append_entries_reply(j, i, me.current_term, True, match)
                self.actions["handle_append_entries_reply"](self.world, ack, mine.append)

    def _client_request(self, e: Any, me: Any) -> None:
        """A leader appends the event's entries."""
        if self.appending:  # the fast path may have taken the event so far
            note(self.world.past, e, self._entry, self.appending)
        for entry in e.entries:
            params = (e.server, entry.value)
            failed = self.actions["client_request"](self.world, *params, self._out.append)
            if failed:
                raise Violation("guard", e, "client_request", params, guard=failed)
            if me.log[-1] != entry:
                self.refuse_entry(e, entry, me)

    def refuse_entry(self, e: Any, entry: Any, me: Any) -> None:
        """A leader appended an entry of another term than the specification gives it."""
        mismatch = Mismatch(f"entries[{len(me.log)}].term", me.log[-1].term, entry.term)
        raise Violation("state", e, "client_request", (e.server, entry.value), mismatches=[mismatch])

    def compare(self, e: Any, me: Any) -> None:
        """What the event says of the variables after the step is what the specification gives.

        Raises:
            Violation: something else.
            Unusable: it speaks of a server that isn't one of the cluster.
        """
        for name in ("next_index", "match_index") if e.state is not UNSET else ():
            given = getattr(e.state, name)
            strangers = [] if given is UNSET else sorted(given.keys() - self.state.keys())
            if strangers:
                listed = ", ".join(self.servers)
                what = f"state.{name} has {', '.join(strangers)}, which the header's list has not ({listed})"
                raise Unusable("", what)
        mismatches = list(differences(e.state, me))
        if mismatches:
            raise Violation("state", e, e.event, _params(e), mismatches=mismatches)

    def check_sequence(self, e: Any, seq: int) -> int:
        """The event's number. A server's count has no gaps and no repeats, and starts over at a restart."""
        if e.seq is UNSET or e.seq == seq + 1:
            return seq + 1
        if e.event == "restart" and e.seq == 1:
            return 1
        what = "repeats" if e.seq <= seq else "leaves a gap in"
        raise Unusable("", f"seq {e.seq} of {e.server} {what} its sequence; after {seq} comes {seq + 1}")

    # --- messages sent -------------------------------------------------------------

    def send(self, e: Any, server: Server, out: Sequence[Any]) -> None:
        """The messages of a step are `out`, which the specification sends, and a leader's AppendEntries."""
        sends = e.sends
        if sends is UNSET:
            if server.logs_sends:
                server.logs_sends = False
                self.wake(server.name)
            sends = out
            for m in out:
                if type(m) is self.append_entries_reply and m.success:
                    acknowledged = self.state[m.target].acknowledged
                    known = (m.source, m.term)
                    acknowledged[known] = max(acknowledged.get(known, 0), m.match_index)
        news = []
        for m in sends:
            if m not in out:
                self.check_sent(e, m, out)
            key = hash(m)
            if key not in self.sent.recent:
                self.sent.recent[key] = ""
                news.append(key)
                self.arrived(key)
                if type(m) is self.request_vote:
                    self.requests[m.source, m.term] = m
        server.news = news
        if len(sends) < len(out):
            # The specification sends to all servers at once; one may become a member, and be asked, later.
            server.held[e.event] = {hash(m) for m in out}.difference(map(hash, sends))

    def check_sent(self, e: Any, m: Any, out: Sequence[Any]) -> None:
        """A message that no handler sends is one that a leader may send now, or was sent before, or not yet.

        Raises:
            Violation: it is neither.
        """
        if m.source == e.server and m.target in self.state:
            held = self.state[m.source].held.values()
            if hash(m) in self.sent or any(hash(m) in late for late in held):
                return
            unasked = sent_by(m)
            if unasked is not None:
                action, params = unasked
                made: list[Any] = []
                failed = self.actions[action](self.world, *params, made.append)
                if failed:
                    raise Violation("guard", e, action, params, guard=failed)
                made = [told_as(x, self.told) for x in made]
                if made[0] != m:
                    mismatch = Mismatch("sends", made[0], m)
                    raise Violation("sends", e, action, params, mismatches=[mismatch])
                return
        expected = next((x for x in out if type(x) is type(m) and x.target == m.target), None)
        raise Violation("sends", e, e.event, _params(e), mismatches=[Mismatch("sends", expected, m)])

    # --- messages received -----------------------------------------------------------

    def _receive(self, e: Any) -> int | None:
        """The event's message was sent. None if so, else what to wait for."""
        m, kind = e.message, self._handlers[e.event]
        if m is UNSET:
            raise Unusable("", f"{e.event} needs its message, of kind {_kind(kind)}")
        if type(m) is not kind:
            what = f"{e.event} needs a message of kind {_kind(kind)}, not {_kind(type(m))}"
            raise Unusable("", what)
        if m.target != e.server:
            mismatch = Mismatch("message.target", e.server, m.target)
            raise Violation("message", e, e.event, (m,), mismatches=[mismatch])
        key = hash(m)
        return None if self.sent.receive(key, e.server) else self._may_come(e, key)

    def _may_come(self, e: Any, key: int) -> int | None:
        """What to do with a message nobody is known to have sent: None to take it, else what to wait for."""
        m = e.message
        source = self.state.get(m.source)
        if source is None:
            raise Violation("unsent", e, e.event, (m,))
        unlogged = not source.logs_sends and sent_by(m) is not None
        if unlogged and self._could_have_sent(source, m):
            return None
        if source.me.current_term > m.term:
            if self.sent.forgot:
                self.unchecked[OLDER] += 1
                return None
            if unlogged:
                return ANYTHING  # the acknowledgements that let it commit may be of events still to come
            lost = source.before is not None and source.before[0] <= m.term
            if lost or m.source in self.parked:
                # The sender's last step may prove to be lost, and its term with it.
                return key if source.logs_sends else ANYTHING
            raise Violation("unsent", e, e.event, (m,))
        return key if source.logs_sends and source.seq else ANYTHING

    def _could_have_sent(self, source: Server, m: Any) -> bool:
        """Whether a leader that doesn't log what it sends is, or was, in a state to send this."""
        return any(made == m for made in self.could_have_sent(source, m, m.term))

    def could_have_sent(self, source: Server, m: Any, term: int) -> Iterator[Any]:
        """What a leader of a term may have sent in place of m, as AppendEntries for its place in the log.

        They differ from m where it can't be that leader's.
        """
        unasked = sent_by(m)
        assert unasked is not None, "no message that a leader sends when it wants to"
        action, params = unasked
        made: list[Any] = []
        for v in self.leaders_of(source.name, term):
            if type(m) is self.append_entries:
                v = self._when_it_sent(source, v, m)
            world = World({**self.world.variables, source.name: v}, self.world.past)
            if not self.actions[action](world, *params, made.append):
                yield told_as(made.pop(), self.told)

    def _when_it_sent(self, source: Server, v: Any, m: Any) -> Any:
        """A leader's variables as they may have been when it sent AppendEntries."""
        commit = v.commit_index
        if m.leader_commit > commit and self._could_have_committed(source, v, m.leader_commit):
            commit = m.leader_commit
        elif not (self.told and v.snapshot_index):
            return v
        v = as_leader(v, v.current_term, v.log, commit)
        if self.told:
            v.snapshot_index = 0  # what is compacted by now, it had then
        return v

    def _could_have_committed(self, source: Server, v: Any, n: int) -> bool:
        """Whether the acknowledgements that were sent let a leader commit entry n, though none is logged."""
        told = as_leader(v, v.current_term, v.log, v.commit_index)
        told.match_index = {j: source.acknowledged.get((j, v.current_term), 0) for j in self.servers}
        return not self.may_commit(World({source.name: told}, self.world.past), source.name, n, None)

    def never(self, e: Any) -> Violation:
        """Why an event that waited to the end can't have happened."""
        if e.event in self._handlers:
            return Violation("unsent", e, e.event, (e.message,))
        if e.event == "restart":
            return other_disk(e, self.state[e.server].me)
        try:
            self.take(e, last=True)
        except Violation as v:
            return v
        return Violation("guard", e, e.event)


def _noted(me: Any) -> list[Any]:
    """What `_take_up` needs. Before an event waits, its steps have changed the log at its end at most."""
    values = (getattr(me, name) for name in me.__slots__)
    return [len(me.log), *(dict(v) if isinstance(v, dict) else v for v in values)]


def _take_up(me: Any, begun: list[Any]) -> None:
    """Undo the steps of an event that has to wait; they will be taken later."""
    length, *values = begun
    for name, value in zip(me.__slots__, values, strict=True):
        setattr(me, name, value)
    del me.log[length:]
    me.log.cut = None


def _params(e: Any) -> tuple[Any, ...]:
    """The parameters of the action that an event names."""
    return (e.server,) if e.message is UNSET else (e.message,)


def _kind(message: type) -> str:
    return snake_case(message.__name__)

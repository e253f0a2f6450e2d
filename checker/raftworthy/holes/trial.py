"""Where a completion stands: the steps taken so far, and a way back.

Steps are those of replay (`Steps.take`), from events whose holes have been filled on trial. A step
copies its server's variables before it changes them, so going back is putting old ones in place again.

    i  a server     m  a message
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace as but

from raftspec.raft import Entry
from raftworthy.holes.lines import Line, whole
from raftworthy.holes.offers import Offers, Taken
from raftworthy.replay.format import trace_format
from raftworthy.replay.ledger import FIGURE_2, Server, Violation
from raftworthy.replay.meanings import mean, meaning_of

LEFT_OUT = ("message", "sends", "seq", "time")  # of a line, where it is put together anew


class Saved(NamedTuple):
    """What it takes to go back."""

    past: Any
    variables: dict[str, Any]
    state: dict[str, Server]
    at: dict[str, int]
    depends: dict[str, int]
    taken: int
    trail: int
    owed: dict[int, Violation]


class Trial(Offers):
    """The steps taken so far. `attempt` takes one more, or changes nothing."""

    def __init__(
        self, servers: tuple[str, ...], extensions: frozenset[str] = frozenset(), limit: int | None = None
    ) -> None:
        super().__init__(servers, extensions, limit)
        self.at = dict.fromkeys(servers, 0)  # how many of its lines each server has taken
        self.depends = dict.fromkeys(servers, 0)  # on which choices a server's variables depend, as bits
        self._line: Line | None = None
        self._eager = True
        self._way = 0
        self.inferred = False  # the last step did more than its line says
        self.bounded = False  # or less, as a later line says
        self.hints: Hints | None = None
        self.tables = None  # a wrong guess may have made them
        self._event = trace_format(servers, extensions).event
        of_state = next(f.type for f in msgspec.structs.fields(self._event) if f.name == "state")
        self.state_type: Any = next(t for t in get_args(of_state) if t is not UnsetType)

    # --- back and forth ---

    def save(self) -> Saved:
        return Saved(
            self.world.past, dict(self.world.variables), dict(self.state), dict(self.at), dict(self.depends),
            len(self.taken), len(self.trail), dict(self.owed),
        )  # fmt: skip

    def restore(self, s: Saved) -> None:
        while len(self.trail) > s.trail:
            self.trail.pop()()
        del self.taken[s.taken :]
        self.world.past, self.world.variables = s.past, dict(s.variables)
        self.state, self.at, self.depends = dict(s.state), dict(s.at), dict(s.depends)
        self.owed = dict(s.owed)

    def attempt(
        self,
        e: Any,
        line: Line | None,
        patterns: Sequence[Any] | None,
        eager: bool = True,
        way: int = 0,
        last: bool = True,
    ) -> Violation | bool:
        """Take an event, whose holes are filled. True if it happened, False if it has to wait.

        `patterns` are the messages that it is known to send, None if that is not known. With `eager`, a
        server whose line leaves it open becomes leader and commits as soon as it can.
        """
        i = e.server
        self.spend()
        before = self.save()
        self.world.past = self.world.past.copy()
        held = self.world.variables[i]
        me = self.world.variables[i] = held.copy()
        me.log.cut = held.log.cut
        self.state[i] = replace(self.state[i], me=me)
        self._line, self._eager, self._way, self._patterns = line, eager, way, patterns
        self.inferred = self.bounded = False
        self._pending.clear()
        self.taken.append(Taken(e, line))
        try:
            if self.take(e, last=last) is not None:
                self.restore(before)
                return False
        except Violation as v:
            self.restore(before)
            return v
        self._after(i)
        return True

    def _after(self, i: str) -> None:
        """Keep what the step came to, and what may be received because of it."""
        me, event = self.state[i].me, len(self.taken) - 1
        t = self.taken[-1]
        t.values = {
            "role": me.role, "current_term": me.current_term, "voted_for": me.voted_for,
            "log_length": len(me.log), "last_log_term": me.log[-1].term if me.log else 0,
            "commit_index": me.commit_index, "last_applied": me.last_applied,
        }  # fmt: skip
        if me.role == "candidate":
            t.values["votes"] = sorted(me.votes)
        if me.role == "leader":
            t.values["match_index"] = {j: n for j, n in me.match_index.items() if j != i}
        if self.extensions:
            more = {name: getattr(me, name) for name in me.__slots__ if name not in FIGURE_2}
            t.values |= {k: sorted(x) if isinstance(x, Set) else x for k, x in more.items()}
        leading = self.leading(event, i)
        for offer in self._pending:
            self._offer(t, offer, leading)
        if self._patterns is None and me.role == "leader":
            opened = self.open.setdefault((i, me.current_term), [])
            opened.append(leading)
            self.trail.append(opened.pop)

    # --- what `Steps` asks ---

    def _receive(self, e: Any) -> int | None:
        return None  # whoever fills the hole sees to it that the message was sent

    def check_sequence(self, e: Any, seq: int) -> int:
        return seq + 1

    def _act(self, e: Any, me: Any, last: bool) -> bool:
        """The step that the event names, also where the line doesn't tell what it is about."""
        state = e.state
        if e.event == "client_request" and not e.entries:
            if me.role != "leader":
                raise Violation("guard", e, "client_request", (e.server, ""), guard=1)
            return True  # the entries follow
        if e.event == "advance_commit_index" and (state is UNSET or state.commit_index is UNSET):
            before = me.commit_index
            assert self._line is not None
            self._commit(self._line, e.server, me, needed=True)
            if me.commit_index == before:
                raise Violation("guard", e, e.event, (e.server, before + 1), guard=1)
            return True
        if e.event == "apply_entries" and (state is UNSET or state.last_applied is UNSET):
            return self._do(e, e.event, e.server, me.last_applied + 1, last=last)
        if e.event in self.entered:
            self._settle_entry(e, me)
        if e.event == "take_snapshot" and (state is UNSET or state.snapshot_index is UNSET):
            assert self._line is not None
            assert self.hints is not None
            n = self.hints.snapshot(self._line)
            return self._do(e, e.event, e.server, n or me.last_applied, last=last)
        return super()._act(e, me, last)

    def _settle_entry(self, e: Any, me: Any) -> None:
        """Decide which entry an event appends, and for whom it lets vote, where the line doesn't say so."""
        assert self.hints is not None
        if not e.entries:
            value = self.hints.value(me.current_term, len(me.log) + 1)
            e.entries = (self.generated.structs[Entry](me.current_term, value),)
        (name,) = (x for x, t in self.entered[e.event].items() if t.name != "value")
        if getattr(e, name) is UNSET:
            made = self.configurations(e.event, e.server, e.entries[0].value)
            if self._way >= len(made):
                raise Violation("guard", e, e.event, (e.server, e.entries[0].value), guard=1)
            setattr(e, name, made[self._way])

    def configurations(self, event: str, i: str, value: str) -> list[frozenset[str]]:
        """Whom leader i may let vote now, likely ones first."""
        some = (x for k in range(len(self.servers)) for x in combinations(self.servers, k + 1))
        fails = self.generated.guards_of(event)
        made = [x for x in map(frozenset, some) if not fails(self.world, i, value, x, None)]
        return sorted(made, key=lambda x: (self.unlikeliness(i, value, x), sorted(x)))

    def unlikeliness(self, i: str, value: str, voters: frozenset[str]) -> tuple[bool, int, int]:
        """It is as some line says; or the change is small, and who is elected has the votes of many."""
        assert self.hints is not None
        me, past = self.world.variables[i], self.world.past
        newest = me.log[me.configured - 1].value if me.configured else ""
        now = past.voters.get(newest, frozenset(self.servers) - past.joining)
        silent = max((len(voters - votes) for votes in self.hints.elected(len(me.log) + 1)), default=0)
        change = len(voters ^ now)
        return voters != self.hints.voters(value), silent + change, change

    def follow_up(self, e: Any, me: Any, last: bool) -> bool:
        """What else the event stands for: as its line says, and as its holes let it."""
        line, i = self._line, e.server
        state = e.state
        if line is None or self.hints is None:
            return super().follow_up(e, me, last)
        if me.role == "candidate":
            if state is not UNSET and state.role == "leader":
                self._do(e, "become_leader", i)
            elif (state is UNSET or state.role is UNSET) and self._eager and self.hints.leads(line, me):
                self.inferred |= not self.actions["become_leader"](self.world, i, self._out.append)
        if e.entries and e.event not in ("client_request", *self.entered):
            self._client_request(e, me)
        if line.entries_unknown and not e.entries:
            before = len(me.log)
            for value in self.hints.entries(line, me, self._way):
                self._mean(value, len(me.log) + 1)
                self.actions["client_request"](self.world, i, value, self._out.append)
            self.taken[-1].appended = me.log[before:]
        if state is UNSET or state.commit_index is UNSET:
            self._commit_unseen(line, i, me)
        done = super().follow_up(but(e, entries=UNSET), me, last)
        if done and (state is UNSET or state.last_applied is UNSET):
            n = self.hints.applied(line, me)
            if me.last_applied < n <= me.commit_index:
                self._apply(e, me, n)
        return done

    def _client_request(self, e: Any, me: Any) -> None:
        for n, entry in enumerate(e.entries, len(me.log) + 1):
            self._mean(entry.value, n)
        super()._client_request(e, me)

    def _mean(self, value: str, n: int) -> None:
        """Let entry n, of which no line says what it means, mean what later lines need it to."""
        if not self.appending or self.hints is None or meaning_of(self.world.past, value, self.appending):
            return
        if told := self.hints.meaning(value, n):
            mean(self.world.past, value, told, self.appending)

    def _commit_unseen(self, line: Line, i: str, me: Any) -> None:
        """Commit as far as the lines let it, where this one doesn't tell."""
        assert self.hints is not None
        if me.role == "leader":
            self._commit(line, i, me)
            return
        bound = self.hints.commit_at_most(line)
        if bound is not None and self._before.commit_index <= bound < me.commit_index:
            self.state[i].could_commit = max(self.state[i].could_commit, me.commit_index)
            me.commit_index = bound
            self.bounded = True

    def _commit(self, line: Line, i: str, me: Any, needed: bool = False) -> None:
        """Let a leader commit as much as it can and no later line contradicts."""
        assert self.hints is not None
        bound = self.hints.commit_at_most(line)
        least = self.hints.commit_at_least(line)
        if not needed and not self._eager and least <= me.commit_index:
            return
        top = len(me.log) if bound is None else min(bound, len(me.log))
        stored = sorted({top, *(min(n, top) for n in me.match_index.values())}, reverse=True)
        for n in stored:
            if n <= me.commit_index:
                break
            if not self.may_commit(self.world, i, n, None):
                self.actions["advance_commit_index"](self.world, i, n, self._out.append)
                self.inferred = True
                break

    def _step(self, e: Any, server: Server, last: bool) -> bool:
        self._before = server.me.copy()
        return super()._step(e, server, last)

    # --- events ---

    def event_of(self, server: str, event: str, message: Any = UNSET, **more: Any) -> Any:
        """An event of the trace format."""
        return self._event(server=server, event=event, message=message, **more)

    def filled(self, line: Line, m: Any) -> Any:
        """A line's event with its message, as replay takes it. What it sends is seen to elsewhere."""
        told = {f: getattr(line.e, f) for f in self._event.__struct_fields__ if f not in LEFT_OUT}
        if told["event"] in self.appending:  # as replay takes it
            told["event"] = "client_request"
        sends = tuple(x for x in line.e.sends or () if whole(x))
        return self._event(**told, message=m, sends=sends)


class Hints:
    """What a server's later lines say about what an earlier one leaves open."""

    def leads(self, line: Line, me: Any) -> bool:
        raise NotImplementedError

    def commit_at_most(self, line: Line) -> int | None:
        raise NotImplementedError

    def commit_at_least(self, line: Line) -> int:
        raise NotImplementedError

    def entries(self, line: Line, me: Any, way: int) -> Sequence[str]:
        raise NotImplementedError

    def voters(self, value: str) -> frozenset[str] | None:
        raise NotImplementedError

    def elected(self, n: int) -> Sequence[frozenset[str]]:
        raise NotImplementedError

    def snapshot(self, line: Line) -> int | None:
        raise NotImplementedError

    def applied(self, line: Line, me: Any) -> int:
        raise NotImplementedError

    def value(self, term: int, n: int) -> str:
        raise NotImplementedError

    def meaning(self, value: str, n: int) -> dict[str, int]:
        raise NotImplementedError

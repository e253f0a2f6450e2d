"""Where a completion stands: the steps taken so far, what they sent, and a way back.

Steps are those of replay (`Steps.take`), from events whose holes have been filled on trial. A step
copies its server's variables before it changes them, so going back is putting old ones in place again.

    i  a server     m  a message     pattern  what is known of a message, by field
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace as but

from raftworthy.generated import World
from raftworthy.holes.lines import Line, known, whole
from raftworthy.replay.format import trace_format
from raftworthy.replay.ledger import SentMessages, Server, Violation, as_leader
from raftworthy.replay.steps import Steps


@dataclass(slots=True, eq=False)
class Taken:
    """One event of the behaviour that is being built."""

    e: Any
    line: Line | None  # the line that tells of it; None if it was supplied
    sends: list[Any] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    appended: list[Any] | None = None  # what its line doesn't say was appended


@dataclass(slots=True, eq=False)
class Offer:
    """A message that was sent: m, or AppendEntries of which only a pattern is known so far."""

    m: Any
    pattern: Mapping[str, Any]
    leading: Leading | None
    place: int  # in the sends of the event
    received: int = 0


class Leading(NamedTuple):
    """What a leader could send after one of its events."""

    event: int  # its number among those taken
    source: str
    term: int
    length: int
    commit: int


UNKNOWN = "?"  # a value that begins so stands for any


class Saved(NamedTuple):
    """What it takes to go back."""

    variables: dict[str, Any]
    state: dict[str, Server]
    at: dict[str, int]
    depends: dict[str, int]
    taken: int
    trail: int
    owed: dict[int, Violation]


class Sent(SentMessages):
    """The messages sent, all of them, and a way back."""

    def __init__(self, trail: list[Callable[[], Any]]) -> None:
        super().__init__()
        self.trail = trail

    def add(self, key: int) -> bool:
        """Note that a message was sent; whether for the first time."""
        if key in self.recent:
            return False
        self.recent[key] = ""
        self.trail.append(lambda: self.recent.pop(key, None))
        return True

    def receive(self, key: int, receiver: str) -> bool:
        if key not in self.recent:
            return False
        before, self.recent[key] = self.recent[key], receiver
        self.trail.append(lambda: self.recent.update({key: before}))
        return True

    def take_back(self, keys: Iterable[int]) -> dict[int, str]:
        receivers = {key: self.recent.pop(key) for key in list(keys) if key in self.recent}
        self.trail.append(lambda: self.recent.update(receivers))
        return {key: receiver for key, receiver in receivers.items() if receiver}


class Trial(Steps):
    """The steps taken so far. `attempt` takes one more, or changes nothing."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        super().__init__(servers)
        self.trail: list[Callable[[], Any]] = []
        self.sent: Sent = Sent(self.trail)
        self.taken: list[Taken] = []
        self.at = dict.fromkeys(servers, 0)  # how many of its lines each server has taken
        self.depends = dict.fromkeys(servers, 0)  # on which choices a server's variables depend, as bits
        self.offers: dict[tuple[type, str, str], list[Offer]] = {}
        self.open: dict[
            tuple[str, int], list[Leading]
        ] = {}  # events of leaders that don't tell what they send
        self.past_logs: dict[tuple[str, int], tuple[list[Any], int]] = {}
        self._line: Line | None = None
        self._eager = True
        self._way = 0
        self.bindings: dict[str, str] = {}  # what values that stood for any turned out to be
        self._patterns: Sequence[Any] | None = None
        self.inferred = False  # the last step did more than its line says
        self.bounded = False  # or less, as a later line says
        self._pending: list[tuple[Any, Mapping[str, Any]]] = []
        self.hints: Hints | None = None
        self._event = trace_format(servers).event
        of_state = next(f.type for f in msgspec.structs.fields(self._event) if f.name == "state")
        self.state_type: Any = next(t for t in get_args(of_state) if t is not UnsetType)

    # --- back and forth ---

    def save(self) -> Saved:
        return Saved(
            dict(self.world.variables), dict(self.state), dict(self.at), dict(self.depends),
            len(self.taken), len(self.trail), dict(self.owed),
        )  # fmt: skip

    def restore(self, s: Saved) -> None:
        while len(self.trail) > s.trail:
            self.trail.pop()()
        del self.taken[s.taken :]
        self.world.variables = dict(s.variables)
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
        before = self.save()
        held = self.world.variables[i]
        me = self.world.variables[i] = held.copy()
        me.log.cut = held.log.cut
        self.state[i] = replace(self.state[i], me=me)
        self._line, self._eager, self._way, self._patterns = line, eager, way, patterns
        self.inferred = self.bounded = False
        self._pending = []
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
        leading = Leading(event, i, me.current_term, len(me.log), me.commit_index)
        for m, pattern in self._pending:
            self._offer(t, m, pattern, leading)
        if self._patterns is None and me.role == "leader":
            opened = self.open.setdefault((i, me.current_term), [])
            opened.append(leading)
            self.trail.append(opened.pop)

    def _offer(self, t: Taken, m: Any, pattern: Mapping[str, Any], leading: Leading) -> None:
        """Let a message be received, by whoever it may be for."""
        t.sends.append(m)
        kind = type(m) if m is not None else self.append_entries
        target = m.target if m is not None else pattern.get("target")
        made = Offer(m, pattern, leading, len(t.sends) - 1)
        for j in self.servers if target is None else (target,):
            offers = self.offers.setdefault((kind, t.e.server, j), [])
            offers.append(made)
            self.trail.append(offers.pop)

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
        return super()._act(e, me, last)

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
        if e.entries and e.event != "client_request":
            self._client_request(e, me)
        if line.entries_unknown and not e.entries:
            before = len(me.log)
            for value in self.hints.entries(line, me, self._way):
                self.actions["client_request"](self.world, i, value, self._out.append)
            self.taken[-1].appended = me.log[before:]
        if state is UNSET or state.commit_index is UNSET:
            self._commit_unseen(line, i, me)
        return super().follow_up(
            e if not e.entries else self.event_of(i, e.event, e.message, state=state), me, last
        )

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

    def remember_leadership(self, server: Server, term: int, cut: list[Any] | None, length: int) -> None:
        log = [*server.me.log[: length - len(cut or ())], *(cut or ())]
        key = (server.name, term)
        before = self.past_logs.get(key)
        self.past_logs[key] = (log, server.me.commit_index)
        self.trail.append(
            lambda: self.past_logs.pop(key) if before is None else self.past_logs.update({key: before})
        )

    def leaders_of(self, i: str, term: int) -> Iterator[Any]:
        me = self.state[i].me
        if me.role == "leader" and me.current_term == term:
            yield me
        if (i, term) in self.past_logs:
            log, commit = self.past_logs[i, term]
            yield as_leader(me, term, log, commit)

    def send(self, e: Any, server: Server, out: Sequence[Any]) -> None:
        """Offer what the step sends: what the line lists, or all that the specification sends."""
        news: list[int] = []
        if self._patterns is None:
            for m in out:
                self._sends(m, news)
        else:
            rest = list(out)
            for x in sorted(self._patterns, key=lambda x: ("target" not in known(x), -len(known(x)))):
                self._sends_like(e, x, rest, news)
        server.news = news

    def _sends(self, m: Any, news: list[int]) -> None:
        key = hash(m)
        if self.sent.add(key):
            news.append(key)
            self.owed.pop(key, None)
        if type(m) is self.request_vote:
            self.requests[m.source, m.term] = m
        self._pending.append((m, {}))

    def _sends_like(self, e: Any, x: Any, rest: list[Any], news: list[int]) -> None:
        """Offer a message that the line lists, as far as it is known."""
        pattern = known(x)
        name = type(x).__name__
        for m in rest:
            if type(m).__name__ == name and self.fits(m, pattern):
                rest.remove(m)
                self._sends(m, news)
                return
        me = self.world.variables[e.server]
        if "entries" in pattern and "prev_log_index" in pattern:
            n = pattern["prev_log_index"]
            held = me.log[n : n + len(pattern["entries"])]
            if self.alike(held, pattern["entries"]):
                self.learn(held, pattern["entries"])
                pattern = {**pattern, "entries": tuple(held)}
        if whole(x):
            m = but(x, entries=pattern["entries"]) if "entries" in pattern else x
            self.check_sent(e, m, self._out)
            self._sends(m, news)
            return
        if name == self.append_entries.__name__ and me.role == "leader":
            leading = Leading(0, e.server, me.current_term, len(me.log), me.commit_index)
            targets = (
                [pattern["target"]] if "target" in pattern else [j for j in self.servers if j != e.server]
            )
            if any(next(self.appends(leading, j, pattern, me.log), None) is not None for j in targets):
                self._pending.append((None, pattern))
                return
        for (kind, source, _), offers in self.offers.items():  # sent again
            if source == e.server and kind.__name__ == name:
                for o in offers:
                    if o.m is not None and self.fits(o.m, pattern):
                        self._sends(o.m, news)
                        return
        raise Violation("sends", e, e.event, (e.server,))

    # --- events ---

    def event_of(self, server: str, event: str, message: Any = UNSET, **more: Any) -> Any:
        """An event of the trace format."""
        return self._event(server=server, event=event, message=message, **more)

    def filled(self, line: Line, m: Any) -> Any:
        """A line's event with its message, as replay takes it. What it sends is seen to elsewhere."""
        e = line.e
        sends = tuple(x for x in e.sends or () if whole(x))
        return self.event_of(
            e.server, e.event, m, state=e.state, sends=sends, entries=e.entries, after=e.after, start=e.start
        )

    # --- values that nobody knows ---

    def fits(self, m: Any, pattern: Mapping[str, Any]) -> bool:
        """Whether a message is what is known of it, or may be: unknown values may be any."""
        for f, x in pattern.items():
            y = getattr(m, f)
            if y != x and not (f == "entries" and self.alike(y, x)):
                return False
        return True

    def alike(self, entries: Sequence[Any], others: Sequence[Any]) -> bool:
        pairs = zip(entries, others, strict=False)
        return len(entries) == len(others) and all(
            a.term == b.term
            and (self.known_value(a.value) == b.value or self.known_value(a.value)[0] == UNKNOWN)
            for a, b in pairs
        )

    def known_value(self, value: str) -> str:
        """What a value is known to be by now."""
        return self.bindings.get(value, value)

    def learn(self, entries: Sequence[Any], others: Sequence[Any]) -> None:
        """Unknown values among entries are those of the others."""
        for a, b in zip(entries, others, strict=True):
            value = self.known_value(a.value)
            if value[0] == UNKNOWN and b.value[0] != UNKNOWN:
                self.bindings[value] = b.value
                self.trail.append(partial(self.bindings.pop, value))

    # --- messages that may be received ---

    def leaders_log(self, source: str, term: int) -> list[Any]:
        """The log of a term's leader, as of its last step in it."""
        me = self.world.variables[source]
        if me.role == "leader" and me.current_term == term:
            return me.log  # type: ignore[no-any-return]
        return self.past_logs.get((source, term), ([], 0))[0]

    def appends(
        self, leading: Leading, target: str, pattern: Mapping[str, Any], log: list[Any],
        wanted: Wanted | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """AppendEntries that a leader could send after one of its events, most likely first."""
        if pattern.get("term", leading.term) != leading.term:
            return
        v = as_leader(self.world.variables[leading.source], leading.term, log, leading.commit)
        world = World({**self.world.variables, leading.source: v}, self.world.past)
        made: list[Any] = []
        w = wanted or Wanted()
        for prev in _numbers(pattern.get("prev_log_index"), w.prev, leading.length, w.likely):
            if "entries" in pattern:
                ends: Sequence[int] = (prev + len(pattern["entries"]),)
            else:
                ends = [n for n in dict.fromkeys((*w.end, leading.length, prev)) if prev <= n]
                if not (w.only_ends or w.likely):
                    ends = [*ends, *(n for n in range(prev, leading.length) if n not in ends)]
            for end in ends:
                if end > leading.length:
                    continue
                commits = (*w.commit, leading.commit)
                for commit in _numbers(pattern.get("leader_commit"), commits, leading.commit, w.likely):
                    if commit > leading.commit:
                        continue
                    if self.actions["append_entries"](
                        world, leading.source, target, prev, end - prev, commit, made.append
                    ):
                        continue
                    m = made.pop()
                    if self.fits(m, pattern):
                        yield m
                    elif "prev_log_term" in pattern and m.prev_log_term != pattern["prev_log_term"]:
                        break

    def settle_rest(self) -> None:
        """Let what was sent, and received by nobody, be some message that it can be."""
        for event, t in enumerate(self.taken):
            for place, m in enumerate(t.sends):
                if m is None:
                    t.sends[place] = self._any_of(event, place)

    def _any_of(self, event: int, place: int) -> Any:
        """Some message for a pattern of which nobody received anything."""
        for offers in self.offers.values():
            for o in offers:
                if o.m is None and o.leading is not None and (o.leading.event, o.place) == (event, place):
                    log = self.leaders_log(o.leading.source, o.leading.term)
                    targets = [
                        j
                        for j in self.servers
                        if j not in (o.leading.source,) and o.pattern.get("target", j) == j
                    ]
                    m = next(m for j in targets for m in self.appends(o.leading, j, o.pattern, log))
                    if "entries" in o.pattern:
                        self.learn(m.entries, o.pattern["entries"])
                    return m
        raise AssertionError("a message that nobody offered")

    def receive_from(self, i: str, offer: Offer | None, leading: Leading | None, m: Any) -> None:
        """Note that a message was received, and settle what had been left open of its sending."""
        told = self._told_of(i)
        if told is not None:
            self.learn(m.entries, told)
        if offer is not None:
            offer.received += 1
            self.trail.append(lambda: setattr(offer, "received", offer.received - 1))
            if offer.m is None:
                self.settle_offer(offer, m)
            self.depends[i] |= self.depends[m.source]
        elif leading is not None:
            self.offer_from(leading, m).received = 1
            self.depends[i] |= self.depends[m.source]
        self.sent.receive(hash(m), i)

    def _told_of(self, i: str) -> Any:
        """The entries that a server's next line says it received."""
        return None

    def settle_offer(self, offer: Offer, m: Any) -> None:
        """What was sent, and known as a pattern only, is this message."""
        assert offer.leading is not None
        sends, place = self.taken[offer.leading.event].sends, offer.place
        if "entries" in offer.pattern:
            self.learn(m.entries, offer.pattern["entries"])
        offer.m, sends[place] = m, m
        self.trail.append(partial(setattr, offer, "m", None))
        self.trail.append(partial(sends.__setitem__, place, None))
        self.sent.add(hash(m))

    def offer_from(self, leading: Leading, m: Any) -> Offer:
        """A leader's event that doesn't tell what it sends sent this."""
        t = self.taken[leading.event]
        t.sends.append(m)
        self.trail.append(t.sends.pop)
        offers = self.offers.setdefault((type(m), m.source, m.target), [])
        made = Offer(m, {}, leading, len(t.sends) - 1)
        offers.append(made)
        self.trail.append(offers.pop)
        self.sent.add(hash(m))
        return made


class Wanted(NamedTuple):
    """What would make an AppendEntries come out as its receiver's line says, most likely first."""

    prev: Sequence[int] = ()
    end: Sequence[int] = ()
    commit: Sequence[int] = ()
    only_ends: bool = False
    likely: bool = False  # nothing but what is likely


def _numbers(given: int | None, likely: Sequence[int], top: int, only_likely: bool) -> Iterator[int]:
    """A number that is known, or all from 0 to `top`, the likely ones first."""
    if given is not None:
        yield given
        return
    seen = set()
    for n in likely:
        if 0 <= n <= top and n not in seen:
            seen.add(n)
            yield n
    for n in () if only_likely else reversed(range(top + 1)):
        if n not in seen:
            yield n


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

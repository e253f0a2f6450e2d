"""What a line of a trace with holes may stand for: messages that its server could have received, in each way.

The likeliest come first. Which of them is taken, and what is done where that leads nowhere, is the search's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from msgspec import UNSET

from raftspec.snapshots import InstallSnapshot
from raftworthy.holes.appends import Leading
from raftworthy.holes.bounds import Bounds
from raftworthy.holes.hints import WAYS, LaterLines, answered
from raftworthy.holes.lines import HANDLERS, Line, Lines, known
from raftworthy.holes.offers import SENDING, Offer
from raftworthy.holes.supply import Supplier
from raftworthy.holes.trial import Trial
from raftworthy.replay.ledger import Violation
from raftworthy.replay.restarts import added_unseen, newer_term

Option: TypeAlias = Callable[[], Any]  # does something, and returns True if it is possible
LATEST = 4  # how many messages that were received already are tried once more, in a hurry
RECENT = 40  # how many events of a leader are looked at that don't tell what they send
MANY = 400  # AppendEntries that are tried for one line, at most


class Options(Trial):
    """Takes lines with what fills their holes, and knows what there is to choose from."""

    def __init__(self, lines: Lines, limit: int, patient: bool) -> None:
        super().__init__(lines.servers, lines.extensions, limit)
        self.begin_with(lines.voters)
        self.lines = lines
        self.patient = patient  # whether a line may wait for a message that is still to be sent
        self.hints = self.later = LaterLines(lines)
        self.bounds = Bounds(lines)
        self.supplier = Supplier(self)
        self.astray = False  # whether the last message that was received might have been for another
        self.outcomes: set[Any] = set()  # of what was tried where something is being chosen
        self.deferred: frozenset[str] = frozenset()
        self.last = False  # whether restarts must be explained now
        self.exhaustive = True  # nothing was left untried

    # --- taking a line ---

    def head(self, i: str) -> Line | None:
        """A server's next line."""
        lines = self.lines.of[i]
        return lines[self.at[i]] if self.at[i] < len(lines) else None

    def _other_ways(self, line: Line) -> list[tuple[bool, int]]:
        """How else the step that was just taken could go on, as its line leaves that open."""
        ways = [(False, 0)] if self.inferred else []
        if line.e.event in self.entered and not self.said(line.e):
            ways += [(True, n) for n in range(1, 1 << len(self.servers))]
        if (
            line.entries_unknown
            and not line.e.entries
            and self.world.variables[line.e.server].role == "leader"
        ):
            told = line.e.state is not UNSET and line.e.state.log_length is not UNSET
            ways += [] if told else [(True, n) for n in range(1, WAYS + 1)]
        return ways

    def receive_from(self, i: str, offer: Offer | None, leading: Leading | None, m: Any) -> None:
        """Note that a message was received, and settle what had been left open of its sending."""
        told = self._told_of(i)
        if told is not None:
            self.learn(m.entries, told)
        if offer is not None:
            offer.received += 1
            self.trail.append(lambda: setattr(offer, "received", offer.received - 1))
            if offer.m is None:
                self.astray = offer.astray
                self.settle_offer(offer, m)
            self.depends[i] |= self.depends[m.source]
        elif leading is not None:
            self.offer_from(leading, m).received = 1
            self.depends[i] |= self.depends[m.source]
        self.sent.receive(hash(m), i)

    def _told_of(self, i: str) -> Any:
        line = self.head(i)
        m = UNSET if line is None else line.e.message
        return None if m is UNSET else known(m).get("entries")

    def _with(
        self,
        i: str,
        line: Line,
        m: Any,
        offer: Offer | None,
        leading: Leading | None,
        eager: bool = True,
        way: int = 0,
    ) -> Violation | bool:
        """Take a server's next line with a message. What had been left open of its sending is settled."""
        saved = self.save()
        self.astray = False
        if m is not UNSET:
            self.receive_from(i, offer, leading, m)
        found = self.take_line(i, line, m, eager, way)
        if found is not True:
            self.restore(saved)
        return found

    def _outcome(self, i: str) -> Any:
        """What the last step came to, as far as it matters to later ones."""
        me, t = self.world.variables[i], self.taken[-1]
        log = me.log[-4:]  # one line's message doesn't make logs that differ further back
        voters = self.world.past.voters.items() if "membership" in self.extensions else ()
        state = tuple(sorted((k, repr(x)) for k, x in t.values.items()))
        sent = tuple(x for x in t.sends if x is not None)
        return state, tuple((x.term, x.value) for x in log), sent, tuple(sorted(map(repr, voters)))

    def take_line(self, i: str, line: Line, m: Any, eager: bool = True, way: int = 0) -> Violation | bool:
        """Take a server's next line, with its message."""
        e = self.filled(line, m)
        saved = self.save()
        sends = None if line.e.sends is UNSET else line.e.sends
        found = self.attempt(e, line, sends, eager, way, last=line.e.event != "restart" or self.last)
        if found is True:
            further = self.bounds.after[line].exceeded(self.world.variables[i])
            if further is not None:
                self.restore(saved)
                return Violation("state", e, line.e.event, (i,), mismatches=[further])
        if found is True:
            self.at[i] += 1
            if self.deferred:
                self.deferred = frozenset()
        return found

    def _offer_of(self, m: Any) -> Offer | None:
        for o in reversed(self.offers.get((type(m), m.source, m.target), ())):
            if o.m == m:
                return o
        return None

    # --- what a line may stand for ---

    def _fresh(self, i: str, line: Line) -> Iterator[Option]:
        """Messages that were sent and nobody has received so far."""
        return self._offered(i, line, received=False)

    def _opened(self, i: str, line: Line) -> Iterator[Option]:
        """AppendEntries that a leader may have sent in an event that doesn't tell what it sends."""
        return self._left_open(i, line)

    def _unlogged(self, i: str, line: Line) -> Iterator[Option]:
        """Messages of servers that left no lines."""
        return self._supplied(i, line)

    def _again(self, i: str, line: Line) -> Iterator[Option]:
        """Messages that somebody received before, or one that is still to be sent."""
        yield from self._offered(i, line, received=True)
        if self.patient:
            yield lambda: self._defer(i)

    def _defer(self, i: str) -> bool:
        if i in self.deferred:
            return False
        self.deferred |= {i}
        return True

    def _pattern(self, line: Line) -> dict[str, Any]:
        m = line.e.message
        return {} if m is UNSET else known(m)

    def _kind(self, line: Line) -> type:
        return self.received[HANDLERS[line.e.event]]

    def _offered(self, i: str, line: Line, received: bool) -> Iterator[Option]:
        pattern, kind = self._pattern(line), self._kind(line)
        tried: set[Any] = set()
        sources = [pattern["source"]] if "source" in pattern else [j for j in self.servers if j != i]
        found: list[tuple[int, Offer | None, Leading]] = []
        for j in sources:
            offers = [
                x
                for x in self.offers.get((kind, j, i), ())
                if bool(x.received) == received and (x.m is None or self.fits(x.m, pattern))
            ]
            found += [(x.leading.event, x, x.leading) for x in offers]
        if received and not self.patient:
            found = found[-LATEST:]
        if kind is self.append_entries and not received:
            found += [(leading.event, None, leading) for leading in self._unused(i, pattern)]
        for _, o, leading in sorted(found, key=partial(self._likeliest, i)):
            if o is not None and o.m is not None:
                if (
                    o.m.target != i
                    or o.m in tried
                    or not self.fits(o.m, pattern)
                    or hash(o.m) not in self.sent.recent
                ):
                    continue
                tried.add(o.m)
                yield from self._try(i, line, o.m, o, None)
            elif o is not None and o.options:
                for m in o.options:
                    if m.target == i and self.fits(m, pattern):
                        yield from self._try(i, line, m, o, None)
            else:
                both = {**pattern, **o.pattern} if o is not None else pattern
                if all(
                    both[f] == x or (f == "entries" and self.alike(both[f], x)) for f, x in pattern.items()
                ):
                    yield from self._concrete(i, line, leading, both, o)

    def _likeliest(self, i: str, x: tuple[int, Offer | None, Leading]) -> tuple[bool, int, bool, int]:
        """Messages in the order in which they were sent; of one event, what is known best first."""
        event, o, _ = x
        if o is None:
            return False, event, True, 0
        return self.for_another(o, i), event, o.astray, -len(o.pattern)

    def _unused(self, i: str, pattern: dict[str, Any]) -> Iterator[Leading]:
        """Events of leaders that as a rule send to all, of which i has received nothing."""
        for (source, term), opened in self.open.items():
            if source == i or pattern.get("source", source) != source or pattern.get("term", term) != term:
                continue
            for leading in opened[-RECENT:]:
                t = self.taken[leading.event]
                if t.line is None or t.e.event not in SENDING:
                    continue
                if not any(m is not None and m.target == i for m in t.sends):
                    yield leading

    def _left_open(self, i: str, line: Line) -> Iterator[Option]:
        kind, pattern = self._kind(line), self._pattern(line)
        if kind not in (self.append_entries, self.received.get(InstallSnapshot)):
            return
        for (source, term), opened in list(self.open.items()):
            if source == i or pattern.get("source", source) != source or pattern.get("term", term) != term:
                continue
            if kind is not self.append_entries:
                yield from self._snapshots(i, line, opened, pattern)
            elif opened:
                yield from self._concrete(i, line, opened[-1], pattern, None)

    def _snapshots(
        self, i: str, line: Line, opened: Sequence[Leading], pattern: Mapping[str, Any]
    ) -> Iterator[Option]:
        """A leader's snapshots, the newest first, each in the last event that could have sent it."""
        last = {leading.compacted: leading for leading in opened if leading.compacted}
        for n, leading in sorted(last.items(), reverse=True):
            log = self.leaders_log(leading.source, leading.term)
            m = self.received[InstallSnapshot](leading.source, i, leading.term, n, log[n - 1].term)
            if self.fits(m, pattern):
                yield from self._try(i, line, m, None, leading)

    def _concrete(
        self, i: str, line: Line, leading: Leading, pattern: dict[str, Any], offer: Offer | None
    ) -> Iterator[Option]:
        log = self.leaders_log(leading.source, leading.term)
        wanted = self.later.wanted(line, self.world.variables[i], likely=not self.patient)
        for number, m in enumerate(self.appends(leading, i, pattern, log, wanted)):
            if number == MANY:
                self.exhaustive = False
                return
            yield from self._try(i, line, m, offer, leading)

    def _supplied(self, i: str, line: Line) -> Iterator[Option]:
        pattern, kind = self._pattern(line), self._kind(line)
        for s in self.lines.lost:
            if pattern.get("source", s) != s:
                continue
            self.exhaustive = False
            likely = {**answered(line, self.world.variables[i]), **pattern}
            for p in (likely, pattern) if likely != pattern else (pattern,):
                for way in self.supplier.ways(s, i, kind, p, line):
                    yield from self._try(i, line, None, None, None, way)

    def _stored_unseen(self, i: str, line: Line) -> Iterator[Option]:
        """What of a server without lines reached i's disk in no step of its lines: entries, or a term."""

        def take(way: Callable[[], Any]) -> bool:
            return way() is not None and self.take_line(i, line, UNSET) is True

        unseen = [
            (self.append_entries, added_unseen(line.e, self.world.variables[i].log)),
            (self.request_vote, newer_term(line.e, self.world.variables[i])),
        ]
        for kind, pattern in unseen:
            for s in self.lines.lost if pattern else ():
                yield from (partial(take, way) for way in self.supplier.ways(s, i, kind, pattern, line))

    def _try(
        self, i: str, line: Line, m: Any, offer: Offer | None, leading: Leading | None,
        way: Callable[[], Any] | None = None,
    ) -> Iterator[Option]:  # fmt: skip
        """Take a line with a message, in each way that its holes leave open."""
        others: list[tuple[bool, int]] = []

        def take(eager: bool, number: int) -> bool:
            nonlocal m, offer
            if way is not None:
                m = way()
                if m is None:
                    return False
                offer = self._offer_of(m)
            if self._with(i, line, m, offer, leading, eager, number) is not True:
                return False
            others.extend(x for x in self._other_ways(line) if x not in others)
            settled = None if offer is None else (offer.leading.event, offer.place)
            outcome = self._outcome(i), settled if leading is not None else None
            if outcome in self.outcomes:
                return False
            self.outcomes.add(outcome)
            return True

        yield lambda: take(True, 0)
        for other in others:
            yield partial(take, *other)

    def _now_or_never(self) -> Iterator[Option]:
        def now() -> bool:
            self.last = True
            self.trail.append(lambda: setattr(self, "last", False))
            return True

        yield now

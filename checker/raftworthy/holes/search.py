"""The search for a behaviour that explains the lines of a trace.

Events whose message is known are taken as in replay. Where several messages could have been received,
the likeliest is tried, and the others if that leads nowhere: the newest choice that a contradiction depends
on is made anew. Steps of servers that left no lines are supplied as others need them (`supply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from msgspec import UNSET

from raftworthy.holes.bounds import Bounds
from raftworthy.holes.causes import own_choices, sending_choices
from raftworthy.holes.hints import WAYS, LaterLines
from raftworthy.holes.lines import HANDLERS, Line, Lines, known, whole
from raftworthy.holes.offers import Leading, Offer
from raftworthy.holes.supply import Supplier
from raftworthy.holes.trial import Saved, Trial
from raftworthy.replay.ledger import Violation
from raftworthy.replay.restarts import added_unseen, newer_term

Option: TypeAlias = Callable[[], Any]  # does something, and returns True if it is possible
SENDING = ("append_entries", "client_request", "become_leader")
LATEST = 4  # how many messages that were received already are tried once more, in a hurry
RECENT = 40  # how many events of a leader are looked at that don't tell what they send
MANY = 400  # AppendEntries that are tried for one line, at most


@dataclass(eq=False)
class Conflict(Exception):  # noqa: N818  (what the search goes by)
    """What was chosen doesn't agree with a line. `depends` has the choices that it came from, as bits."""

    line: Line
    violation: Violation | None
    depends: int


@dataclass(eq=False)
class Choice:
    """A point of the search: how it was, and what else could be done."""

    saved: Saved
    line: Line
    options: Iterator[Option]
    deferred: frozenset[str]
    server: str
    outcomes: set[Any] = field(default_factory=set)  # of what was tried
    conflicts: int = 0


class Search(Trial):
    """Looks for a behaviour of the specification that has the lines of a trace."""

    def __init__(
        self,
        lines: Lines,
        limit: int,
        progress: Callable[[int], None] | None = None,
        patient: bool = False,
        narrow: bool = False,
    ) -> None:
        super().__init__(lines.servers, lines.extensions, limit)
        self.patient = patient  # whether a line may wait for a message that is still to be sent
        self.narrow = narrow  # whether only what is likely to have caused a contradiction is made anew
        self.outcomes: set[Any] = set()
        self.lines = lines
        self.hints = self.later = LaterLines(lines)
        self.bounds = Bounds(lines)
        self.supplier = Supplier(self)
        self.progress = progress
        self.choices: list[Choice] = []
        self.deferred: frozenset[str] = frozenset()
        self.last = False  # whether restarts must be explained now
        self.exhaustive = True  # nothing was left untried
        self.furthest = 0
        self.first: Conflict | None = None  # the first contradiction met
        self.best: Conflict | None = None  # the contradiction that came latest
        self.total = sum(len(x) for x in lines.of.values())

    def run(self) -> bool:
        """Whether there is such a behaviour: it is then what was taken.

        Raises:
            GivenUpError: it would take more steps than it may.
        """
        while True:
            try:
                self._settle()
                if self._finished():
                    return True
                self._branch()
            except Conflict as c:
                self._note(c)
                if not self._go_back(c):
                    return False

    def _finished(self) -> bool:
        if any(self.at[i] < len(self.lines.of[i]) for i in self.servers):
            return False
        for v in self.owed.values():
            line = next(x for x in self.lines.all() if x.e.server == v.event.server)
            raise Conflict(line, v, self._all())
        return True

    def _note(self, c: Conflict) -> None:
        self.first = self.first or c
        done = sum(self.at.values())
        if self.best is None or done >= self.furthest:
            self.best, self.furthest = c, done

    def _all(self) -> int:
        return (1 << len(self.choices)) - 1

    def _of(self, i: str) -> int:
        """The choices on which it may depend that a server is stuck: all, or in a hurry its own."""
        if self.patient:
            return self._all()
        line = self.head(i)
        if self.narrow and line is not None:
            return sending_choices(line, self.choices)
        source = self._pattern(line).get("source") if line is not None else None
        servers = {i, source} if source else set(self.servers)
        return sum(1 << k for k, choice in enumerate(self.choices) if choice.server in servers)

    def _go_on(self) -> None:
        """Show how far it is, and stop where that has taken too many steps."""
        self.spend()
        if self.steps % 16 == 0 and self.progress is not None:
            self.progress(sum(self.at.values()))

    # --- what needs no choice ---

    def _settle(self) -> None:
        """Take events as long as nothing has to be chosen.

        Raises:
            Conflict: a line that can't be.
        """
        moved = True
        while moved:
            moved = False
            for i in sorted(self.servers, key=self._next):
                while (line := self.head(i)) is not None and i not in self.deferred and self._sure(i, line):
                    moved = True

    def _next(self, i: str) -> int:
        line = self.head(i)
        return line.number if line is not None else self.total

    def head(self, i: str) -> Line | None:
        """A server's next line."""
        lines = self.lines.of[i]
        return lines[self.at[i]] if self.at[i] < len(lines) else None

    def _sure(self, i: str, line: Line) -> bool:
        """Take a line that leaves nothing open. False if it has to wait, or leaves something open."""
        m: Any = UNSET
        offer: Offer | None = None
        if line.receives:
            if not whole(line.e.message):
                return False
            m = line.e.message
            offer = self._offer_of(m)
            if offer is None or hash(m) not in self.sent.recent:
                return False
        saved = self.save()
        depends = self.depends[i] | (self.depends[m.source] if offer is not None else 0)
        found = self._with(i, line, m, offer, None)
        if found is False:
            return False
        if isinstance(found, Violation):
            raise Conflict(line, found, own_choices(line, self.choices) if self.narrow else depends)
        others = self._other_ways(line)
        if others:  # doing more than the line says, or less, is another choice
            rest = (lambda way=way: self._with(i, line, m, offer, None, *way) for way in others)
            self._chosen(Choice(saved, line, rest, self.deferred, i))
        return True

    def _other_ways(self, line: Line) -> list[tuple[bool, int]]:
        """How else the step that was just taken could go on, as its line leaves that open."""
        ways = [(False, 0)] if self.inferred else []
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
        state = tuple(sorted((k, repr(x)) for k, x in t.values.items()))
        return state, tuple((x.term, x.value) for x in log), tuple(x for x in t.sends if x is not None)

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

    # --- what has to be chosen ---

    def _branch(self) -> None:
        """Take a line for which something has to be chosen, and remember what else there was.

        Raises:
            Conflict: there is nothing to choose.
        """
        waiting = sorted((i for i in self.servers if self.head(i) is not None), key=self._next)
        heads = [(i, line) for i in waiting if (line := self.head(i)) is not None]
        tiers = (self._fresh, self._opened, self._unlogged, self._again)
        for k, tier in enumerate(tiers):
            for i, line in heads:
                if i in self.deferred or not line.receives:
                    continue
                self.outcomes = set()
                choice = Choice(self.save(), line, tier(i, line), self.deferred, i, self.outcomes)
                if self._choose_again(choice):
                    rest = (later(i, line) for later in tiers[k + 1 :])
                    choice.options = chain(choice.options, chain.from_iterable(rest))
                    return
        for i, line in heads:
            if line.e.event == "restart" and self._choose_again(
                Choice(self.save(), line, self._stored_unseen(i, line), self.deferred, i)
            ):
                return
        if not self.last and any(line.e.event == "restart" for _, line in heads):
            self._choose_again(
                Choice(self.save(), heads[0][1], self._now_or_never(), self.deferred, waiting[0])
            )
            return
        raise Conflict(heads[0][1], None, self._of(heads[0][0]))

    def _now_or_never(self) -> Iterator[Option]:
        def now() -> bool:
            self.last = True
            self.trail.append(lambda: setattr(self, "last", False))
            return True

        yield now

    def _choose_again(self, choice: Choice) -> bool:
        """Take the next option of a choice, from where it was made."""
        for option in choice.options:
            self._go_on()
            self.outcomes = choice.outcomes
            if option() is True:
                self._chosen(choice)
                return True
            self.restore(choice.saved)
            self.deferred = choice.deferred
        return False

    def _chosen(self, choice: Choice) -> None:
        bit = 1 << len(self.choices)
        self.choices.append(choice)
        for i in (choice.server, *self.lines.lost):
            self.depends[i] |= bit

    def _go_back(self, c: Conflict) -> bool:
        """Make the newest choice anew that a contradiction depends on. False if there is none."""
        depends = c.depends
        while self.choices:
            choice = self.choices.pop()
            bit = 1 << len(self.choices)
            self.restore(choice.saved)
            self.deferred = choice.deferred
            if depends & bit:
                choice.conflicts |= depends & ~bit
                if self._choose_again(choice):
                    return True
                # Other messages might have done, had others sent them.
                depends = choice.conflicts | (bit - 1 if self.patient else 0)
        return False

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
        return self.generated.structs[HANDLERS[line.e.event]]

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
        for _, o, leading in sorted(found, key=_likeliest):
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
        if kind is not self.append_entries:
            return
        for (source, term), opened in list(self.open.items()):
            if source == i or pattern.get("source", source) != source or pattern.get("term", term) != term:
                continue
            if opened:
                yield from self._concrete(i, line, opened[-1], pattern, None)

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
            if pattern.get("source", s) == s:
                self.exhaustive = False
                for way in self.supplier.ways(s, i, kind, pattern, line):
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


def _likeliest(x: tuple[int, Offer | None, Leading]) -> tuple[int, bool, int]:
    """Messages in the order in which they were sent; of one event, what is known best first."""
    event, o, _ = x
    if o is None:
        return event, True, 0
    return event, o.m is None and "target" not in o.pattern, -len(o.pattern)

"""Messages of a completion: what was sent, as far as that is known, and what may have been received.

A step that tells what it sends offers that; one that doesn't offers what the specification sends. Which
message it was may stay open until somebody receives it: AppendEntries of a leader, or a pre-vote that may
be refused.

    i, j  servers     m  a message     pattern  what is known of a message, by field
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace as but

from raftworthy.holes.appends import Appends, Leading
from raftworthy.holes.lines import Line, known, whole
from raftworthy.replay.ledger import SentMessages, Server, Violation, as_leader
from raftworthy.replay.leeway import answers
from raftworthy.replay.prefixes import told_as

# What a leader sends when it wants to, by the event that tells of nothing else.
UNASKED = {"transfer_leadership": "TimeoutNow", "install_snapshot": "InstallSnapshot"}
SENDING = ("append_entries", "client_request", "become_leader")  # leaders' events that send to all


@dataclass(slots=True, eq=False)
class Taken:
    """One event of the behaviour that is being built."""

    e: Any
    line: Line | None  # the line that tells of it; None if it was supplied
    sends: list[Any] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    appended: list[Any] | None = None  # what its line doesn't say was appended


NOT_YET = Leading(0, "", 0, 0, 0)


@dataclass(slots=True, eq=False)
class Offer:
    """A message that was sent: m; or if that is open so far, one of a few, or AppendEntries of a pattern."""

    m: Any
    likely: Any  # what m is if nobody receives it
    pattern: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[Any, ...] = ()  # what m may be, if these are all
    leading: Leading = NOT_YET
    place: int = 0  # in the sends of the event
    received: int = 0

    @property
    def may_be(self) -> tuple[Any, ...]:
        """What it is, or the few that it may be; nothing if it may be many."""
        return self.options if self.m is None else (self.m,)

    @property
    def astray(self) -> bool:
        """Whether nothing says to whom it was sent."""
        return self.m is None and not self.options and "target" not in self.pattern


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


class Offers(Appends):
    """Knows what was sent. What is open of a message is settled when it is received."""

    def __init__(self, servers: tuple[str, ...], extensions: frozenset[str], limit: int | None) -> None:
        super().__init__(servers, extensions, limit)
        self.sent: Sent = Sent(self.trail)
        self.taken: list[Taken] = []
        self.offers: dict[tuple[type, str, str], list[Offer]] = {}  # by kind, sender and receiver
        # Events of leaders that don't tell what they send, by server and term.
        self.open: dict[tuple[str, int], list[Leading]] = {}
        self._patterns: Sequence[Any] | None = None
        self._pending: list[Offer] = []  # what the step that is being taken sends

    # --- what steps send ---

    def _offer(self, t: Taken, offer: Offer, leading: Leading) -> None:
        """Let a message be received, by whoever it may be for."""
        offer.leading, offer.place = leading, len(t.sends)
        t.sends.append(offer.m)
        target = offer.pattern.get("target") if offer.pattern else offer.likely.target
        targets = tuple(dict.fromkeys(m.target for m in offer.options)) or (target,)
        for j in self.servers if None in targets else targets:
            offers = self.offers.setdefault((type(offer.likely), t.e.server, j), [])
            offers.append(offer)
            self.trail.append(offers.pop)

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
                self._sends_some(answers(m), news)
            if options := self.unasked(e.server, UNASKED.get(e.event, "")):
                self._sends_some(options, news)
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
        self._pending.append(Offer(m, m))

    def _sends_some(self, options: tuple[Any, ...], news: list[int]) -> None:
        """Offer one of these messages; which one is left open if there are several."""
        if len(options) == 1:
            self._sends(options[0], news)
        else:
            self._pending.append(Offer(None, options[0], options=options))

    def _sends_like(self, e: Any, x: Any, rest: list[Any], news: list[int]) -> None:
        """Offer a message that the line lists, as far as it is known."""
        pattern = known(x)
        name = type(x).__name__
        if self._sends_one_of(rest, name, pattern, news):
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
            leading = self.leading(0, e.server)
            targets = (
                [pattern["target"]] if "target" in pattern else [j for j in self.servers if j != e.server]
            )
            made = (m for j in targets for m in self.appends(leading, j, pattern, me.log))
            likely = next(made, None)
            if likely is not None:
                self._pending.append(Offer(None, likely, pattern))
                return
        wanted = self.unasked(e.server, name, pattern.get("last_included_index"))
        options = tuple(m for m in wanted if self.fits(m, pattern))
        if options:
            self._sends_some(options, news)
            return
        for (kind, source, _), offers in self.offers.items():  # sent again
            if source == e.server and kind.__name__ == name:
                for o in offers:
                    m = next((m for m in o.may_be if self.fits(m, pattern)), None)
                    if m is not None:
                        if o.m is None:
                            self.settle_offer(o, m)
                        self._sends(m, news)
                        return
        raise Violation("sends", e, e.event, (e.server,))

    def _sends_one_of(self, rest: list[Any], name: str, pattern: Mapping[str, Any], news: list[int]) -> bool:
        """Offer the message of a step that a line lists; all that it may be if it has no target."""
        may_be = {
            m: tuple(x for x in answers(m) if self.fits(x, pattern)) for m in rest if type(m).__name__ == name
        }
        those = [m for m, options in may_be.items() if options]
        if len({m.target for m in those}) > self._without_target(name):
            self._sends_some(tuple(x for m in those for x in may_be[m]), news)
            return True
        for m in those[:1]:
            rest.remove(m)
            self._sends_some(may_be[m], news)
        return bool(those)

    def _without_target(self, name: str) -> int:
        """To how many of a step's messages of a kind the line doesn't say who got them."""
        of_kind = [known(x) for x in self._patterns or () if type(x).__name__ == name]
        return sum("target" not in x for x in of_kind) or len(of_kind)

    def leading(self, event: int, i: str) -> Leading:
        """What leader i could send now, that is after an event."""
        me = self.world.variables[i]
        compacted = me.snapshot_index if self.told else 0
        return Leading(event, i, me.current_term, len(me.log), me.commit_index, compacted)

    def unasked(self, i: str, kind: str, n: int | None = None) -> tuple[Any, ...]:
        """The messages of a kind that leader i may send when it wants to, beside AppendEntries.

        A snapshot is the one of its entries up to n, or its latest.
        """
        action = next((a for a, name in UNASKED.items() if name == kind), "")
        if action not in self.actions:
            return ()
        made: list[Any] = []
        up_to = () if action != "install_snapshot" else (n or self.world.variables[i].snapshot_index,)
        for j in self.servers:
            self.actions[action](self.world, i, j, *up_to, made.append)
        return tuple(told_as(m, self.told) for m in made)

    # --- messages that may be received ---

    def offered(self, kind: type, source: str, target: str) -> Iterator[Offer]:
        """What was sent from one server to another, or may have been, the newest first."""
        for o in reversed(self.offers.get((kind, source, target), ())):
            if o.m is None or o.m.target == target:
                yield o

    def for_another(self, offer: Offer, i: str) -> bool:
        """Whether a message of an unknown receiver is likely to be for another than i.

        What a leader sends to all it sends to each once; an answer to a reply goes to whom it came from.
        """
        if not offer.astray:
            return False
        t = self.taken[offer.leading.event]
        if t.e.event in SENDING:
            return any(m is not None and m.target == i for m in t.sends)
        return bool(t.e.message is not UNSET and t.e.message.source != i)

    def settle_rest(self) -> None:
        """Let what was sent, and received by nobody, be what it was likely to be."""
        for o in (o for offers in self.offers.values() for o in offers):
            if o.m is None:
                self.taken[o.leading.event].sends[o.place] = o.likely
                if "entries" in o.pattern:
                    self.learn(o.likely.entries, o.pattern["entries"])

    def settle_offer(self, offer: Offer, m: Any) -> None:
        """What was sent, and known as a pattern only, is this message."""
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
        made = Offer(m, m, leading=leading, place=len(t.sends) - 1)
        offers.append(made)
        self.trail.append(offers.pop)
        self.sent.add(hash(m))
        return made

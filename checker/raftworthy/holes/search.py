"""The search for a behaviour that explains the lines of a trace.

Events whose message is known are taken as in replay. Where several messages could have been received,
the likeliest is tried, and the others if that leads nowhere: the newest choice that a contradiction depends
on is made anew. Steps of servers that left no lines are supplied as others need them (`supply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from msgspec import UNSET

from raftworthy.holes.causes import guesses_of_voters, own_choices, sending_choices
from raftworthy.holes.lines import Line, Lines, whole
from raftworthy.holes.offers import Offer
from raftworthy.holes.options import Option, Options
from raftworthy.holes.trial import Saved
from raftworthy.replay.ledger import Violation


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
    astray: bool = False  # whether what was received might have been for another server
    voters: bool = False  # whether it was guessed who votes


class Search(Options):
    """Looks for a behaviour of the specification that has the lines of a trace."""

    def __init__(
        self,
        lines: Lines,
        limit: int,
        progress: Callable[[int], None] | None = None,
        patient: bool = False,
        narrow: bool = False,
    ) -> None:
        super().__init__(lines, limit, patient)
        self.narrow = narrow  # whether only what is likely to have caused a contradiction is made anew
        self.progress = progress
        self.choices: list[Choice] = []
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
            return sending_choices(line, self.choices) | guesses_of_voters(self.choices)
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
            if self.narrow:
                guessed = guesses_of_voters(self.choices) if found.kind == "guard" else 0
                depends = own_choices(line, self.choices) | guessed
            raise Conflict(line, found, depends)
        others = self._other_ways(line)
        if others:  # doing more than the line says, or less, is another choice
            rest = (lambda way=way: self._with(i, line, m, offer, None, *way) for way in others)
            self._chosen(Choice(saved, line, rest, self.deferred, i, voters=line.e.event in self.entered))
        return True

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

    def _choose_again(self, choice: Choice) -> bool:
        """Take the next option of a choice, from where it was made."""
        for option in choice.options:
            self._go_on()
            self.outcomes = choice.outcomes
            self.supplier.changed = False
            if option() is True:
                choice.astray, choice.voters = self.astray, self.supplier.changed
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

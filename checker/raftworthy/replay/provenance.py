"""Where the values of a replay came from: which event set a variable, stored an entry, sent a message."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from raftworthy.files import Place
from raftworthy.generated import World
from raftworthy.wording import describe_event, show

OTHERWISE = 10  # what differs and is no number is as far apart as numbers that differ by this
REMEMBERED = 200_000  # messages whose sending is remembered while looking for causes


@dataclass(frozen=True)
class Cause:
    """An earlier event that the wrong one conflicts with."""

    place: str
    what: str


@dataclass
class Known:
    """What a server was last seen with, and the events that made it so."""

    values: dict[str, Any] = field(default_factory=dict)
    since: dict[str, Cause] = field(default_factory=dict)
    log: list[Cause] = field(default_factory=list)  # for each entry, the event that stored it

    def note(self, name: str, value: Any, where: str, event: str) -> None:
        """Keep the event that gave a variable its value."""
        if name not in self.values or self.values[name] != value:
            self.values[name], self.since[name] = value, Cause(where, f"{name} = {show(value)}: {event}")


class Provenance:
    """Watches a replay, to tell later which event set a variable, stored an entry or sent a message."""

    def __init__(self) -> None:
        self.servers: dict[str, Known] = {}
        self.sent: dict[int, Cause] = {}
        self.order: deque[int] = deque()
        self.last: dict[str, Cause] = {}  # each server's last event
        self.answered: dict[tuple[str, str], Cause] = {}  # and the last that answers another's request
        self.messages: dict[tuple[str, str, str], deque[tuple[Any, Cause]]] = {}

    def __call__(self, e: Any, place: Place, world: World) -> None:
        i = e.server
        me = world.variables[i]
        known = self.servers.setdefault(i, Known())
        where, event = str(place), describe_event(e)
        self.last[i] = Cause(where, event)
        if e.message is not UNSET and not e.event.endswith("_reply"):
            self.answered[i, e.message.source] = self.last[i]
        for name in ("role", "current_term", "voted_for", "commit_index", "last_applied"):
            known.note(name, getattr(me, name), where, event)
        for j, n in me.match_index.items():
            known.note(f"match_index[{j}]", n, where, event)
        if me.log.cut is not None:
            del known.log[max(0, len(known.log) - len(me.log.cut)) :]
        del known.log[len(me.log) :]
        for n in range(len(known.log), len(me.log)):
            known.log.append(Cause(where, f"entry {n + 1} of {i}, of term {me.log[n].term}: {event}"))
        for m in e.sends or ():
            self._note(m, Cause(where, f"{i} sent it ({e.event})"))

    def _note(self, m: Any, cause: Cause) -> None:
        key = hash(m)
        if key not in self.sent:
            self.order.append(key)
            self.sent[key] = cause
            if len(self.order) > REMEMBERED:
                self.sent.pop(self.order.popleft(), None)
        like = (type(m).__name__, m.source, m.target)
        self.messages.setdefault(like, deque(maxlen=200)).append((m, cause))

    def nearest(self, m: Any) -> tuple[Any, Cause] | None:
        """The sent message most like one that nobody sent."""
        sent = self.messages.get((type(m).__name__, m.source, m.target), ())

        return min(reversed(sent), key=lambda other: distance(other[0], m), default=None)


def unlike(m: Any, other: Any) -> list[str]:
    """The fields in which two messages of a kind differ."""
    return [f for f in m.__struct_fields__ if getattr(m, f) != getattr(other, f)]


def distance(m: Any, other: Any) -> tuple[int, int]:
    """How far apart two messages of a kind are: in how many fields, and their numbers by how much."""
    fields = unlike(m, other)
    values = [(getattr(m, f), getattr(other, f)) for f in fields]
    return len(fields), sum(abs(a - b) if isinstance(a, int) else OTHERWISE for a, b in values)

"""A network that lies: one field of a message says something else than was sent. Section 5.4.3.

That is a Byzantine fault, which Raft does not tolerate. Whoever is told so acts on it, so it is for others to
notice: a message is received that nobody sent. Fields are those of the messages, whatever messages there are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from msgspec import Struct
from msgspec.structs import replace

from raftd.messages import Aside, Entry, Message

KINDS: dict[str, type[Struct]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Message | Aside)}
FIELDS: tuple[str, ...] = tuple(
    f"{name}.{field}" for name, kind in KINDS.items() for field in kind.__struct_fields__
)


@dataclass(frozen=True)
class Lie:
    """Which message is changed, and where: the `nth` of its kind that the network carries."""

    field: str
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> Lie:
        """From `append_entries.term`, or `append_entries.term:5` for the fifth message of that kind."""
        field, colon, nth = text.partition(":")
        if field not in FIELDS:
            raise ValueError(f"no message has a field {field!r}: choose from {', '.join(FIELDS)}")
        if colon and not (nth.isdigit() and int(nth) > 0):
            raise ValueError(f"{nth!r} does not count messages: write {field}:1 for the first")
        return cls(field, int(nth) if colon else 1)

    def __str__(self) -> str:
        return f"{self.field}:{self.nth}"

    @property
    def kind(self) -> str:
        return self.field.partition(".")[0]


@dataclass
class Told:
    """A lie that was told, and what became of it."""

    field: str
    sent: Message | Aside
    said: Message | Aside
    line: int | None = None  # of the trace, where the message is first received
    stopped: str | None = None  # the server that received it found it impossible, and stopped


def tell(m: Message | Aside, field: str | None, servers: Sequence[str], rng: random.Random) -> Told | None:
    """Change a field of a message, any if none is named; None if it can have no other value."""
    kind = str(m.__struct_config__.tag)
    names = list(m.__struct_fields__) if field is None else [field.partition(".")[2]]
    rng.shuffle(names)
    for name in names:
        value = getattr(m, name)
        # A source or target is another server still, and no message is from its own receiver: what a
        # server refuses at its door changes nothing.
        others = [s for s in servers if s not in (m.source, m.target)]
        said = _changed(value, others, rng)
        if said != value:
            return Told(f"{kind}.{name}", m, replace(m, **{name: said}))
    return None


def _changed(value: Any, others: Sequence[str], rng: random.Random) -> Any:
    """Another value of the same type, near the true one; the value itself if there is none."""
    match value:
        case bool():
            return not value
        case int():
            return rng.choice([value + 1, value + rng.randint(2, 9), *([value - 1] if value else [])])
        case float():
            return value + rng.uniform(0.1, 1)
        case str():
            return rng.choice(others) if others else value
        case bytes():
            return value + b"\0" if not value else bytes([value[0] ^ 1]) + value[1:]
        case Entry():
            return replace(value, **({"term": value.term + 1} if rng.random() < 0.5 else {"command": b"lie"}))
        case tuple() if value:
            at = rng.randrange(len(value))
            return rng.choice([value[:at], (*value[:at], _changed(value[at], others, rng), *value[at + 1 :])])
        case _:
            return value

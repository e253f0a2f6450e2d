"""Operations of clients on a key-value store, and what each does to its key.

A key is a register of its own: Herlihy and Wing (1990) show that a history is linearizable if and only
if each object's part of it is. What a client asked and was told becomes one effect on the register.

    read    it was found to hold `seen`          differs  it was found to hold something else
    write   it holds `new` afterwards            swap     it held `seen`, and holds `new` afterwards
    append  `new` is put behind the text in it
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, NamedTuple

from raftworthy.files import Place

Value = str | int | None  # None: the key is not set


class Impossible(Enum):
    """What comes of an effect that the register's state rules out."""

    IMPOSSIBLE = "impossible"


IMPOSSIBLE: Final = Impossible.IMPOSSIBLE


class Effect(NamedTuple):
    """What an operation found in its key, and what it left there."""

    kind: Literal["read", "differs", "write", "swap", "append"]
    seen: Value = None
    new: Value = None

    @property
    def only_looks(self) -> bool:
        """It changes nothing, wherever it is possible."""
        return self.kind in ("read", "differs")

    @property
    def makes(self) -> bool:
        """It leaves `new` there, whatever was there before."""
        return self.kind in ("write", "swap")


def after(effect: Effect, state: Value) -> Value | Impossible:
    """The key's value after an effect, or that the effect can't happen while the key holds `state`."""
    match effect.kind:
        case "read":
            return state if state == effect.seen else IMPOSSIBLE
        case "differs":
            return state if state != effect.seen else IMPOSSIBLE
        case "write":
            return effect.new
        case "swap":
            return effect.new if state == effect.seen else IMPOSSIBLE
        case "append":
            if isinstance(state, int) or not isinstance(effect.new, str):
                return IMPOSSIBLE
            return (state or "") + effect.new


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked once, and what it was told: an interval in the observer's order of events.

    `invoked` and `returned` are positions in that order. An operation whose outcome nobody knows has not
    returned: it may take effect at any time after it was invoked, or never.
    """

    client: str
    text: str  # what it was, in the words of its file: put 3
    key: str
    effect: Effect
    invoked: int
    returned: int | None
    file: str
    first: int  # the line of its invoke
    last: int | None  # the line of its return, if it has one

    @property
    def lines(self) -> str:
        if self.last is None:
            return f"line {self.first}, no answer"
        return f"lines {min(self.first, self.last)}-{max(self.first, self.last)}"

    @property
    def end(self) -> Place:
        """Where its last event stands."""
        return Place(self.file, self.first if self.last is None else self.last)

    def __str__(self) -> str:
        return f"{self.text} of {self.client} ({self.lines})"


@dataclass
class History:
    """What the clients of one store did."""

    operations: list[Operation]
    initial: Value = None  # what a key holds that nobody has written
    left_out: int = 0  # operations that surely had no effect, or whose answer nobody knows and nobody needs
    skipped: int = 0  # lines that tell of other things

    def by_key(self) -> dict[str, list[Operation]]:
        keys: dict[str, list[Operation]] = {}
        for op in self.operations:
            keys.setdefault(op.key, []).append(op)
        return keys


@dataclass
class Asked:
    """An operation that is under way: what its invoke said."""

    client: str
    kind: Literal["get", "put", "append", "cas", "delete"]
    key: str
    value: Value
    expected: Value
    position: int
    file: str
    line: int


@dataclass
class Builder:
    """Puts invokes and returns together to operations, in the order in which they happened."""

    initial: Value = None
    operations: list[Operation] = field(default_factory=list)
    left_out: int = 0

    def returned(self, asked: Asked, position: int, line: int, *, value: Value = None, told: bool) -> None:
        """The client got its answer. `told` is whether a cas swapped, or a delete says what was there."""
        effect, text = effect_of(asked, value, told)
        self._add(asked, text, effect, position, line)

    def unknown(self, asked: Asked) -> None:
        """Nobody knows what became of it."""
        if asked.kind == "get":
            self.left_out += 1
            return
        effect, text = effect_of(asked, None, asked.kind == "cas")
        self._add(asked, text, effect, None, None)

    def not_executed(self) -> None:
        """It surely has had no effect, and won't have one."""
        self.left_out += 1

    def history(self, under_way: Iterable[Asked], skipped: int = 0) -> History:
        for asked in under_way:
            self.unknown(asked)
        self.operations.sort(key=lambda op: op.invoked)
        return History(self.operations, self.initial, self.left_out, skipped)

    def _add(self, a: Asked, text: str, effect: Effect, position: int | None, line: int | None) -> None:
        self.operations.append(
            Operation(a.client, text, a.key, effect, a.position, position, a.file, a.line, line)
        )


def shown(value: Value) -> str:
    """A value for people; long ones by their ends."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) and value and value.isprintable() else repr(value)
    if isinstance(value, str) and (value == "nothing" or " " in value or value.lstrip("-").isdigit()):
        text = f'"{value}"'
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def effect_of(a: Asked, value: Value, told: bool) -> tuple[Effect, str]:
    match a.kind:
        case "get":
            return Effect("read", value), f"get -> {shown(value)}"
        case "put":
            return Effect("write", None, a.value), f"put {shown(a.value)}"
        case "append":
            return Effect("append", None, a.value), f"append {shown(a.value)}"
        case "delete":
            if told:
                return Effect("swap", value, None), f"delete -> {shown(value)}"
            return Effect("write", None, None), "delete"
        case "cas":
            text = f"cas {shown(a.expected)} to {shown(a.value)}"
            if not told:
                return Effect("differs", a.expected), f"{text}, refused"
            if a.expected == a.value:
                return Effect("read", a.expected), text
            return Effect("swap", a.expected, a.value), text

"""Where a state's values lie: each variable is some bits of a word, each message one word.

Widths follow from the bounds. They hold every value that the bounds allow; what a broken
specification makes beyond that is noticed when it is stored, never cut off.

    t  a type     room  how many entries a sequence has place for     n  the number of servers
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftspec.types import Message, Record, Type, zero
from raftspec.values import Map
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.generated import World
from raftworthy.native import NoPlaceError
from raftworthy.native.identity import text_of_type

WORD = 64
# The top bit of a word is free: a map that something doesn't fit into is marked there.
WIDEST = WORD - 1


@dataclass(frozen=True)
class Slot:
    """The place of a value: which word of its group, from which bit, how many bits."""

    type: Type
    room: int
    word: int
    shift: int
    width: int


class Layout:
    """How states and messages of a specification within bounds are packed.

    A state's words are those of each server in turn, then those of history. Nobody is the number n,
    server k is k - 1, a sequence is its length and then its entries, the first one lowest.
    """

    def __init__(self, model: Model) -> None:
        self.bounds: Bounds = model.bounds
        self.servers = model.servers
        self.generated = model.generated
        spec = model.spec
        self.kinds: tuple[type[Message], ...] = spec.messages
        self.kind_bits = (len(self.kinds) - 1).bit_length()
        self.server, self.server_words = self._place(spec.server.types(), self.bounds.max_log)
        self.history, self.history_words = self._place(spec.history.types(), self.bounds.max_log)
        self.words = len(self.servers) * self.server_words + self.history_words
        carried = min(self.bounds.entries, self.bounds.max_log)
        self.message: dict[type[Message], dict[str, Slot]] = {}
        self.message_bits = 0
        for cls in self.kinds:
            slots, words = self._place(cls.types(), carried, self.kind_bits)
            if words > 1:
                raise NoPlaceError(f"a {cls.__name__} within these bounds is more than a word")
            self.message[cls] = slots
            self.message_bits = max(self.message_bits, *(s.shift + s.width for s in slots.values()))

    def parts(self) -> Iterator[str]:
        """All that a layout is made from, as text."""
        yield f"{self.bounds!r} {self.servers}"
        kinds = ((cls.__name__, slots) for cls, slots in self.message.items())
        for group, slots in (("server", self.server), ("history", self.history), *kinds):
            yield from (f"{group}.{name} {text_of_type(s.type)} {s.room}" for name, s in slots.items())

    # --- widths ---

    def width(self, t: Type, room: int = 0) -> int:
        """How many bits a value takes."""
        match t.kind:
            case "bool":
                return 1
            case "num":
                return self.largest(t).bit_length()
            case "enum":
                return (len(_members(t)) - 1).bit_length()
            case "server" | "maybe":
                return len(self.servers).bit_length()
            case "set":
                return len(self.servers)
            case "map":
                assert t.of is not None
                return self.keys(t) * self.width(t.of)
            case "seq":
                assert t.of is not None
                return room.bit_length() + room * self.width(t.of)
            case "record":
                assert t.cls is not None
                return sum(self.width(f) for f in t.cls.types().values())
        raise NoPlaceError(f"the native engine has no place for a {t}")

    def largest(self, t: Type) -> int:
        """The largest number of a kind within the bounds; the next index to send may be one past the log."""
        b = self.bounds
        return {
            "term": b.max_term,
            "index": b.max_log + 1,
            "count": b.most_counted,
            "value": b.max_commands,
        }[t.name]

    def keys(self, t: Type) -> int:
        """How many keys a map has."""
        assert t.key is not None
        match t.key.kind:
            case "server":
                return len(self.servers)
            case "num":
                return self.largest(t.key) + 1
        raise NoPlaceError(f"the native engine has no maps from a {t.key}")

    def capacity(self, t: Type) -> int:
        """How many entries a sequence can have while a step is computed."""
        assert t.of is not None
        return WIDEST // max(self.width(t.of), 1)

    def _place(self, types: Mapping[str, Type], room: int, start: int = 0) -> tuple[dict[str, Slot], int]:
        slots: dict[str, Slot] = {}
        word, at = 0, start
        for name, t in types.items():
            width = self.width(t, room)
            if t.kind == "seq" and self.capacity(t) < 2 * room:
                raise NoPlaceError(f"{name} within these bounds doesn't fit into a word")
            if width > WIDEST:
                raise NoPlaceError(f"{name} within these bounds takes {width} bits, more than a word")
            if at + width > WORD:
                word, at = word + 1, 0
            slots[name] = Slot(t, room, word, at, width)
            at += width
        return slots, word + 1

    # --- values to bits and back ---

    def encode(self, t: Type, value: Any, room: int = 0) -> int:
        """A value's bits. Takes values of the specification and of the Python back end.

        Raises:
            NoPlaceError: the value is beyond the bounds.
        """
        match t.kind:
            case "bool":
                return int(value)
            case "num":
                number = int(value[1:]) if isinstance(value, str) else int(value)
                if number < 0 or number.bit_length() > self.width(t):
                    raise NoPlaceError(f"{t} {value} is beyond the bounds ({self.bounds})")
                return number
            case "enum":
                return _members(t).index(value)
            case "server" | "maybe":
                return self.servers.index(value) if value else len(self.servers)
            case "set":
                return sum(1 << self.servers.index(i) for i in value)
            case "map":
                return self._encode_map(t, value.items if isinstance(value, Map) else value)
            case "seq":
                assert t.of is not None
                if len(value) > room:
                    raise NoPlaceError(f"{len(value)} entries are beyond the bounds ({self.bounds})")
                return len(value) | self.body(t, value) << room.bit_length()
            case "record":
                assert t.cls is not None
                return self.join(
                    (self.encode(f, getattr(value, name)), self.width(f)) for name, f in t.cls.types().items()
                )
        raise NoPlaceError(f"the native engine has no place for a {t}")

    def body(self, t: Type, entries: Sequence[Any]) -> int:
        """The bits of a sequence's entries, without its length."""
        assert t.of is not None
        width = self.width(t.of)
        return self.join((self.encode(t.of, x), width) for x in entries)

    @staticmethod
    def join(parts: Iterable[tuple[int, int]]) -> int:
        """Bits side by side, the first lowest, from pairs of bits and their number."""
        out = at = 0
        for bits, width in parts:
            out |= bits << at
            at += width
        return out

    def _all_keys(self, t: Type) -> Sequence[Any]:
        """A map's keys, in order."""
        assert t.key is not None
        if t.key.kind == "server":
            return self.servers
        return [self.decode(t.key, k) for k in range(self.keys(t))]

    def _encode_map(self, t: Type, items: Mapping[Any, Any]) -> int:
        assert t.of is not None
        width, keys = self.width(t.of), self._all_keys(t)
        if not items.keys() <= set(keys):
            raise NoPlaceError(f"{items} has keys beyond the bounds ({self.bounds})")
        return self.join((self.encode(t.of, items.get(k, zero(t.of))), width) for k in keys)

    def decode(self, t: Type, bits: int, room: int = 0) -> Any:
        """The Python back end's value with these bits."""
        match t.kind:
            case "bool":
                return bool(bits)
            case "num":
                return f"c{bits}" if t.name == "value" and bits else bits
            case "enum":
                return _members(t)[bits]
            case "server" | "maybe":
                return self.servers[bits] if bits < len(self.servers) else zero(t)
            case "set":
                return frozenset(i for k, i in enumerate(self.servers) if bits >> k & 1)
            case "map":
                return self._decode_map(t, bits)
            case "seq":
                assert t.of is not None
                length, body = cut(bits, 0, room.bit_length()), bits >> room.bit_length()
                width = self.width(t.of)
                return [self.decode(t.of, cut(body, k * width, width)) for k in range(length)]
        assert t.cls is not None
        fields, at = [], 0
        for f in t.cls.types().values():
            fields.append(self.decode(f, cut(bits, at, self.width(f))))
            at += self.width(f)
        return self._class_of(t.cls)(*fields)

    def _class_of(self, cls: type[Record]) -> Any:
        return self.generated.structs[cls]

    def _decode_map(self, t: Type, bits: int) -> dict[Any, Any]:
        assert t.of is not None
        width, keys = self.width(t.of), self._all_keys(t)
        values = [self.decode(t.of, cut(bits, k * width, width)) for k in range(len(keys))]
        return {k: x for k, x in zip(keys, values, strict=True) if x != zero(t.of)}

    # --- states ---

    def pack(self, s: World) -> list[int]:
        """The words of the servers' variables and of history."""
        out = [0] * self.words
        groups = [(k * self.server_words, self.server, v) for k, v in enumerate(s.variables.values())]
        for start, slots, values in (*groups, (self.words - self.history_words, self.history, s.past)):
            for name, slot in slots.items():
                bits = self.encode(slot.type, getattr(values, name), slot.room)
                out[start + slot.word] |= bits << slot.shift
        return out

    def pack_message(self, m: Any) -> int:
        """A message's word."""
        kind = next(k for k, cls in enumerate(self.kinds) if self.generated.structs[cls] is type(m))
        out = kind
        for name, slot in self.message[self.kinds[kind]].items():
            out |= self.encode(slot.type, getattr(m, name), slot.room) << slot.shift
        return out

    def unpack(self, words: Sequence[int], messages: Iterable[int]) -> World:
        """The state that these words are."""
        s = self.generated.initial()
        groups = [(k * self.server_words, self.server, v) for k, v in enumerate(s.variables.values())]
        for start, slots, values in (*groups, (self.words - self.history_words, self.history, s.past)):
            for name, slot in slots.items():
                bits = cut(words[start + slot.word], slot.shift, slot.width)
                setattr(values, name, self.decode(slot.type, bits, slot.room))
        s.messages = frozenset(map(self.unpack_message, messages))
        return s

    def unpack_message(self, word: int) -> Any:
        """The message that a word is."""
        cls = self.kinds[cut(word, 0, self.kind_bits)]
        values = [
            self.decode(s.type, cut(word, s.shift, s.width), s.room) for s in self.message[cls].values()
        ]
        return self._class_of(cls)(*(tuple(x) if isinstance(x, list) else x for x in values))


def _members(t: Type) -> list[Any]:
    """An enumeration's values, in order."""
    assert t.cls is not None
    assert issubclass(t.cls, enum.Enum)
    return [x.value for x in t.cls]


def cut(bits: int, shift: int, width: int) -> int:
    """`width` bits from bit `shift`."""
    return bits >> shift & (1 << width) - 1

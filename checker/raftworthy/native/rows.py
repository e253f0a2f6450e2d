"""Rows: states as bytes, as short as they can be without looking at bits.

A row is the number of its messages, then each word of the servers' and of history's variables, cut to the
bytes that it needs, then each message's. It is taken apart into words before it is expanded.
"""

from __future__ import annotations

from raftworthy.native.context import SLACK
from raftworthy.native.layout import Layout
from raftworthy.native.words import Code, Word

COUNT_BYTES = 2
MOST_MESSAGES = 1024


class Rows:
    """How long the parts of a row are, and code that reads and writes them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.sizes: list[int] = []  # of each word, in bytes
        groups = [layout.server] * len(layout.servers) + [layout.history]
        counts = [layout.server_words] * len(layout.servers) + [layout.history_words]
        for slots, words in zip(groups, counts, strict=True):
            for w in range(words):
                self.sizes.append(
                    _bytes(max([s.shift + s.width for s in slots.values() if s.word == w] + [1]))
                )
        self.message = _bytes(layout.message_bits)
        self.fixed = COUNT_BYTES + sum(self.sizes)
        limit = layout.bounds.max_messages
        self.most_messages = min(MOST_MESSAGES, MOST_MESSAGES if limit is None else limit)

    def length(self, messages: Word) -> Word:
        """How many bytes a row with so many messages is."""
        return messages * self.message + self.fixed

    def count(self, code: Code, row: Word) -> Word:
        return code.read(row, 0) & ((1 << 8 * COUNT_BYTES) - 1)

    def unpack(self, code: Code, row: Word, state: Word, messages: Word) -> Word:
        """Write a row's words to `state` and its messages to `messages`; how many messages it has."""
        at = COUNT_BYTES
        for k, size in enumerate(self.sizes):
            code.store(state, k, code.read(row, at) & _ones(size))
            at += size
        n = self.count(code, row)
        with code.loop(0, n) as (j, _):
            code.store(messages, j, code.read(row, j * self.message + at) & _ones(self.message))
        return n

    def write(self, code: Code, row: Word, state: Word, old: Word, n: Word, sends: Word, fresh: Word) -> None:
        """Write a row: a state's words, the n messages of an `old` row, and those that are new."""
        self.write_words(code, row, state, n + fresh)
        with code.loop(0, (n * self.message + 7) >> 3) as (k, _):
            code.write(row, k * 8 + self.fixed, code.read(old, k * 8 + self.fixed))
        with code.loop(0, fresh) as (k, _):
            code.write(row, (n + k) * self.message + self.fixed, code.load(sends, k))

    def write_words(self, code: Code, row: Word, state: Word, n: Word) -> None:
        """Write how many messages a row has, and a state's words."""
        code.write(row, 0, n)
        at = COUNT_BYTES
        for k, size in enumerate(self.sizes):
            code.write(row, at, code.load(state, k))
            at += size

    @staticmethod
    def copy(code: Code, source: Word, target: Word, size: Word) -> None:
        """Copy bytes; up to 7 more."""
        with code.loop(0, (size + 7) >> 3) as (k, _):
            code.write(target, k * 8, code.read(source, k * 8))

    # --- from Python ---

    def pack(self, words: list[int], messages: list[int]) -> bytes:
        """A row, with as many bytes behind it as are read too many."""
        parts = [len(messages).to_bytes(COUNT_BYTES, "little")]
        parts += [x.to_bytes(size, "little") for x, size in zip(words, self.sizes, strict=True)]
        parts += [m.to_bytes(self.message, "little") for m in messages]
        return b"".join(parts) + bytes(SLACK)

    def parse(self, row: bytes | memoryview) -> tuple[list[int], list[int], int]:
        """The words and the messages at the beginning of bytes, and how long the row is."""
        n, at = int.from_bytes(row[:COUNT_BYTES], "little"), COUNT_BYTES
        words, messages = [], []
        for size in self.sizes:
            words.append(int.from_bytes(row[at : at + size], "little"))
            at += size
        for _ in range(n):
            messages.append(int.from_bytes(row[at : at + self.message], "little"))
            at += self.message
        return words, messages, at


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _ones(size: int) -> int:
    return (1 << 8 * size) - 1

"""By what states are known: one number, from parts of which a step changes few.

`Plain` sums up the mixed words of a state, each with a number for its place. `symmetry.Symmetric` gives
states that differ in the servers' names only the same number.

    i  a server     S, T  the variables' words before and after a step     known  what is known of S, in words
"""

from __future__ import annotations

from typing import Protocol

from llvmlite import ir

from raftworthy.native.layout import Layout
from raftworthy.native.words import Code, Word, mix

GOLDEN = 0x9E3779B97F4A7C15


class Step:
    """What changes in a step: server i's variables or history's, if at all, and new messages."""

    def __init__(self, after: Word, i: Word, server: Word, past: Word, sends: Word, fresh: Word) -> None:
        self.after, self.i, self.sends, self.fresh = after, i, sends, fresh
        self.server, self.past = server, past  # conditions: whether they changed


class Prints(Protocol):
    """How a state's fingerprint comes from its words."""

    known_words: int

    def build(self, module: ir.Module) -> None:
        """Build the functions in a module."""

    def begin(self, code: Code, known: Word, state: Word, messages: Word, n: Word) -> None:
        """Note what is to be known of a state whose successors are made."""

    def key(self, code: Code, known: Word, step: Step) -> Word:
        """The fingerprint after a step."""


def fingerprint(code: Code, prints: Prints, known: Word, state: Word) -> Word:
    """The fingerprint of a state that is known."""
    no, none = code.truth(False), code.const(0)
    return prints.key(code, known, Step(state, none, no, no, state, none))


class Plain:
    """Sums of mixed words. Known are each server's part, history's, and the sum of all."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.servers = len(layout.servers)
        self.known_words = self.servers + 2

    def build(self, module: ir.Module) -> None:
        lay = self.layout
        self.of_server = Code(module, "hash_server", 2, 1)
        self._hash(self.of_server, lay.server_words)
        self.of_past = Code(module, "hash_history", 2, 1)
        self._hash(self.of_past, lay.history_words)

    @staticmethod
    def _hash(code: Code, words: int) -> None:
        """`f(words, place)`: their part of the sum."""
        group, place = code.args
        total = code.const(0)
        for w in range(words):
            total = total + (code.load(group, w) + (place * 64 + (w + 1)) * GOLDEN).mixed()
        code.leave(total)

    def _message(self, m: Word) -> Word:
        return (m + mix(self.servers + 1)).mixed()

    def begin(self, code: Code, known: Word, state: Word, messages: Word, n: Word) -> None:
        lay, total = self.layout, code.const(0)
        for i in range(self.servers):
            part = code.call(self.of_server, code.address(state, i * lay.server_words), i)
            code.store(known, i, part)
            total = total + part
        past = code.call(self.of_past, code.address(state, lay.words - lay.history_words), self.servers)
        code.store(known, self.servers, past)
        summed = code.local(total + past)
        with code.loop(0, n) as (k, _):
            code.add_to(summed, 0, self._message(code.load(messages, k)))
        code.store(known, self.servers + 1, code.load(summed, 0))

    def key(self, code: Code, known: Word, step: Step) -> Word:
        lay = self.layout
        total = code.local(code.load(known, self.servers + 1))
        with code.when(step.server):
            new = code.call(self.of_server, code.address(step.after, step.i * lay.server_words), step.i)
            code.add_to(total, 0, new - code.load(known, step.i))
        with code.when(step.past):
            place = code.address(step.after, lay.words - lay.history_words)
            new = code.call(self.of_past, place, self.servers)
            code.add_to(total, 0, new - code.load(known, self.servers))
        with code.loop(0, step.fresh) as (k, _):
            code.add_to(total, 0, self._message(code.load(step.sends, k)))
        key = code.load(total, 0)
        return key.equals(0).where(1, key)

"""What searches, compiled: all that those who search have to know of a program. Others can have it."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from raftworthy.explore.bounds import UnusableError
from raftworthy.native.compiling import MachineCode, key_of


class Sent(NamedTuple):
    """Functions as another process takes them, with what they were made by and for: sources and machine."""

    made_for: str
    code: bytes
    context_words: int


class Functions:
    """A program's compiled functions, how many words of context they need, how wide a table's places are."""

    def __init__(self, code: MachineCode, context_words: int, exact: bool = False) -> None:
        self.context_words, self.exact, self.width = context_words, exact, 2 if exact else 1
        self.use(code)

    def use(self, code: MachineCode) -> None:
        """Call other code of the same program, between rounds."""
        self.code = code  # what is called below lives in it
        address, number = ctypes.c_void_p, ctypes.c_int64
        self.expand = code.function("expand", address)
        self.receive = code.function("receive", address, address, number)
        self.start = code.function("start", address, address)
        self.insert = code.function("insert", address, address, number, number)

    def sent(self) -> Sent:
        """As another process takes them."""
        assert not self.exact
        return Sent(key_of([]), self.code.content, self.context_words)

    @classmethod
    def received(cls, sent: Sent) -> Functions:
        """Those that another process sent.

        Raises:
            UnusableError: they were made for another kind of machine, or by another version.
        """
        if sent.made_for != key_of([]):
            raise UnusableError(
                "the machines of a cluster need the same versions of raftworthy and llvmlite, and the same "
                "kind of processor; these differ"
            )
        return cls(MachineCode(sent.code, cached=True), sent.context_words)

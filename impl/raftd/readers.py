"""Clients who read without the log: who waits for which round. Dissertation, section 6.4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftd.codec import Done, Redirect, Reply
from raftd.core import Batch, Core, NotLeader

Step = Callable[[Batch], None]


@dataclass(frozen=True)
class Reader:
    """A client that reads a key, and whom to tell."""

    id: int
    key: str
    respond: Callable[[Reply], None]


class Readers:
    """Who reads at a leader. Whoever comes while a round is under way waits for the next one.

    A reader may be sent away at any time: reading twice does no harm.
    """

    def __init__(
        self, core: Core, read: Callable[[str], bytes | None], redirect: Callable[[int], Redirect]
    ) -> None:
        self.answered = 0
        self.rounds = 0
        self._core = core
        self._read = read
        self._redirect = redirect
        self._waiting: list[Reader] = []
        self._asking: list[Reader] = []  # in the round under way

    def __len__(self) -> int:
        return len(self._waiting) + len(self._asking)

    def add(self, reader: Reader) -> None:
        """Let a client wait for the next round, or read at once if there is a lease."""
        self._waiting.append(reader)

    def serve(self, now: float, step: Step) -> None:
        """Answer whoever can be answered, and begin a round for those who wait. `step` takes the core's."""
        if self._asking:
            if not self._core.read_acks:
                self.send_away()  # it leads no more
            elif batch := self._core.serve_read(now):
                step(batch)
                self._answer(self._asking)
        if self._waiting and self._core.has_lease(now):
            self._answer(self._waiting)
        if self._waiting and not self._asking:
            self._begin(now, step)

    def send_away(self) -> None:
        """Let all of them ask another server."""
        for reader in (*self._asking, *self._waiting):
            reader.respond(self._redirect(reader.id))
        self._asking, self._waiting = [], []

    def _begin(self, now: float, step: Step) -> None:
        try:
            batch = self._core.begin_read(now)
        except NotLeader:
            self.send_away()
            return
        if batch is not None:
            self.rounds += 1
            self._asking, self._waiting = self._waiting, []
            step(batch)
            self.serve(now, step)  # a lone voter has its majority

    def _answer(self, readers: list[Reader]) -> None:
        """What they read is the state machine as it is now: it has applied all that the round asks for."""
        for reader in readers:
            reader.respond(Done(reader.id, self._read(reader.key)))
        self.answered += len(readers)
        readers.clear()

"""A server that kills itself when it is told to, for tests: between any two effects of a step."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from typing import Any, Final

from raftd.core import Batch, Persist
from raftd.messages import Message
from raftd.server import Server

log = logging.getLogger("raftd")

KILL_POINTS: Final = (
    "before-trace",
    "after-trace",
    "after-write",  # the write is with the system, which has not been told to fsync it
    "after-persist",
    "after-first-send",
    "after-send",
    "after-apply",
)


@dataclass(frozen=True)
class KillAt:
    """Where this process shall kill itself, in its `nth` step that changes the disk, or later."""

    point: str
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> KillAt:
        """From `after-persist` or `after-persist:3`."""
        point, colon, nth = text.partition(":")
        if point not in KILL_POINTS:
            raise ValueError(f"{point!r} is not a kill point: choose from {', '.join(KILL_POINTS)}")
        if colon and not (nth.isdigit() and int(nth) > 0):
            raise ValueError(f"{nth!r} does not count steps: write {point}:1 for the first")
        return cls(point, int(nth) if colon else 1)


class DoomedServer(Server):
    """A server that kills itself at a point of its nth step that changes the disk, or of a later one."""

    def __init__(self, kill_at: KillAt, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._kill_at = kill_at
        self._writes = 0  # steps so far that change the disk
        self._writing = False  # the step under way is one
        self._sent = 0  # messages of it

    def _step(self, batch: Batch) -> None:
        self._writing = batch.persist is not None
        self._writes += self._writing
        self._sent = 0
        self._pass("before-trace")
        super()._step(batch)
        self._pass("after-send")  # of a step that applies nothing
        self._pass("after-apply")

    def _write_trace(self, batch: Batch) -> None:
        super()._write_trace(batch)
        self._pass("after-trace")

    def _write(self, persist: Persist) -> None:
        super()._write(persist)
        self._pass("after-write")

    def _sync(self) -> None:
        super()._sync()
        self._pass("after-persist")

    def _send(self, message: Message) -> None:
        super()._send(message)
        self._sent += 1
        if self._sent == 1:
            self._pass("after-first-send")

    def _apply(self, batch: Batch) -> None:
        self._pass("after-send")
        super()._apply(batch)

    def _dies(self, point: str) -> bool:
        return self._writing and self._kill_at.point == point and self._writes >= self._kill_at.nth

    def _pass(self, point: str) -> None:
        if self._dies(point):
            log.warning("%s kills itself %s, as it was told", self.core.server, point)
            os.kill(os.getpid(), signal.SIGKILL)

"""Writing a history while clients work: an invoke before each request, a return after its answer.

All clients of a recorder are in one thread, and each line is written at once, so the order of the lines is
the order of the events. A kill leaves at worst a request without its answer: an operation of unknown outcome.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from raftworthy.files import VERSION
from raftworthy.linearize.history import Value

Answer = TypeVar("Answer")


class Store(Protocol):
    """A client of a key-value store. What it raises may say `may_have_executed`; if not, nobody knows."""

    async def put(self, key: str, value: bytes) -> None: ...
    async def get(self, key: str) -> bytes | None: ...


class Recorder:
    """A history file that is being written.

    With `digest_of_put`, which says what the servers' traces call the entry of a put, it can be held against
    their log.
    """

    def __init__(self, path: Path, digest_of_put: Callable[[str, bytes], str] | None = None) -> None:
        self.path = path
        self._digest_of_put = digest_of_put
        self._file = path.open("wb", buffering=0)
        self._write({"raftworthy": VERSION})
        self._clients = 0

    def client(self, store: Store, session: int | None = None) -> RecordedClient:
        """A client with a name of its own; several may share one connection.

        With `session`, its puts are that session's requests 1, 2, 3, …; nobody else uses it.
        """
        self._clients += 1
        return RecordedClient(f"c{self._clients}", store, self._write, self._digest_of_put, session)

    def close(self) -> None:
        """No more events; operations under way stay of unknown outcome."""
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        if not self._file.closed:
            self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


class RecordedClient:
    """Asks a store, and writes down what was asked and answered."""

    def __init__(
        self,
        name: str,
        store: Store,
        write: Callable[[dict[str, Any]], None],
        digest_of_put: Callable[[str, bytes], str] | None = None,
        session: int | None = None,
    ) -> None:
        self.name = name
        self._session = session
        self._sequence = 0
        self._digest_of_put = digest_of_put
        self._store = store
        self._write = write
        self._seq = 0

    async def put(self, key: str, value: bytes) -> None:
        """Set a key."""
        asked: dict[str, Any] = {"operation": "put", "key": key, "value": _text(value)}
        if self._session is not None:
            self._sequence += 1
            asked |= {"session": self._session, "sequence": self._sequence}
        elif self._digest_of_put is not None:
            asked["digest"] = self._digest_of_put(key, value)
        await self._ask(asked, lambda: self._store.put(key, value), lambda _: {})

    async def get(self, key: str) -> bytes | None:
        """Read a key."""
        asked = {"operation": "get", "key": key}
        return await self._ask(asked, lambda: self._store.get(key), lambda found: {"value": _text(found)})

    async def _ask(
        self,
        asked: dict[str, Any],
        ask: Callable[[], Awaitable[Answer]],
        told: Callable[[Answer], dict[str, Value]],
    ) -> Answer:
        self._seq += 1
        who = {"client": self.name, "seq": self._seq}
        self._write({**who, "event": "invoke", **asked})
        try:
            answer = await ask()
        except BaseException as error:
            known = getattr(error, "may_have_executed", True) is False
            self._write({**who, "event": "return", "outcome": "not_executed" if known else "unknown"})
            raise
        self._write({**who, "event": "return", **told(answer)})
        return answer


def _text(value: bytes | None) -> str | None:
    # Equal for equal values and different otherwise, whatever the bytes.
    return None if value is None else value.decode("latin-1")

"""A client's session: what is tried again is executed once. Dissertation, section 6.3.

async with Client(addresses) as client:
    session = await client.open_session()
    await session.put("colour", b"green")
    await session.execute(bank.encode_command(Deposit("a", 100_000)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftd.codec import SessionRequest
from raftd.kv import Delete, Put, encode_command

if TYPE_CHECKING:
    from raftd.client import Client


class Session:
    """Any number of requests at a time; each carries the lowest number that has no answer yet."""

    def __init__(self, client: Client, id: int, resumed_at: int | None = None) -> None:
        """With `resumed_at`, that is the next request's number, and somebody may have asked it before."""
        self.id = id
        self._client = client
        self._last = 0 if resumed_at is None else resumed_at - 1
        self._resumed_at = resumed_at
        self._waiting: set[int] = set()

    async def put(self, key: str, value: bytes, timeout: float | None = None) -> None:
        """Set `key` to `value`, once."""
        await self.execute(encode_command(Put(key, value)), timeout)

    async def delete(self, key: str, timeout: float | None = None) -> bytes | None:
        """Remove `key`, once; the value it had."""
        return await self.execute(encode_command(Delete(key)), timeout)

    async def execute(self, command: bytes, timeout: float | None = None) -> bytes | None:
        """Have any state machine's command executed once, however often it takes to hear of it.

        Raises:
            SessionLostError: there is no such session, or no more.
            RequestError: what may have happened it says in `may_have_executed`.
        """
        self._last += 1
        number = self._last
        self._waiting.add(number)
        try:
            return await self._client.ask_in_session(
                lambda id: SessionRequest(id, self.id, number, min(self._waiting), command),
                timeout,
                asked_before=number == self._resumed_at,
            )
        finally:
            # Given up, too, it is not asked for again: the server need not keep its response.
            self._waiting.discard(number)

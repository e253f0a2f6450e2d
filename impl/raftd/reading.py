"""Reading from a connection, into one buffer again and again.

The loop's own way makes a buffer of 256 KiB for each read, which is more work than the read itself.
"""

from __future__ import annotations

import asyncio
from typing import Final

READ: Final = 64 * 1024  # bytes at a time, at most


class Reading(asyncio.BufferedProtocol):
    """A connection that calls `data_received` with what has arrived; that is there until it returns."""

    def __init__(self) -> None:
        self._arrived = memoryview(bytearray(READ))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop is to read into."""
        return self._arrived

    def buffer_updated(self, nbytes: int) -> None:
        """It has read so much."""
        self.data_received(self._arrived[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Take what has arrived."""
        raise NotImplementedError

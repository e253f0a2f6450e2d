"""The tables of sessions that snapshots hold: a table is the same on all servers that have applied as much.

Who starts from a snapshot, or is sent one, has the state that the entries before it make. Made again from the
first entry each time, that would take the longer the more snapshots there are; so those in use are kept.

    me  a server's variables     n  the last entry of a snapshot
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftspec.raft import ServerVariables
from raftspec.sessions import WithSessions

TABLE = sorted(WithSessions.types().keys() - ServerVariables.types().keys())
NEWEST = 8  # so many are kept for servers that are yet to be sent one


class Tables:
    """By the last entry that they stand for."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}

    def keep(self, me: Any, in_use: Iterable[int]) -> None:
        """A server has taken a snapshot of all that it has applied, or got one."""
        n = me.snapshot_index
        if n != me.last_applied or n in self._known:
            return
        self._known[n] = _copied({name: getattr(me, name) for name in TABLE})
        wanted = {*in_use, *sorted(self._known)[-NEWEST:]}
        self._known = {k: table for k, table in self._known.items() if k in wanted}

    def give(self, me: Any) -> None:
        """As much of what a server's snapshot stands for as is known, unless it has more."""
        n = max((k for k in self._known if me.last_applied < k <= me.snapshot_index), default=0)
        if n:
            for name, value in _copied(self._known[n]).items():
                setattr(me, name, value)
            me.last_applied = n


def _copied(table: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(x) if isinstance(x, dict) else x for name, x in table.items()}

"""Snapshots in a trace: told by the index and the term of their last entry.

A trace doesn't repeat what a snapshot stands for. All that it can stand for has been committed, so the
specification's message, which has the whole prefix, is made of that when it is received.

    told   a message as a trace has it     whole  the specification's
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from raftspec.snapshots import InstallSnapshot
from raftspec.types import Record
from raftworthy.structs import Natural, name_of, snake_case


def told_structs(
    structs: Mapping[type[Record], type[msgspec.Struct]], servers: tuple[str, ...]
) -> dict[type[Record], type[msgspec.Struct]]:
    """The structs of messages that a trace tells otherwise than the specification has them."""
    if InstallSnapshot not in structs:
        return {}
    fields = [("source", name_of(servers)), ("target", name_of(servers)), ("term", Natural)]
    fields += [("last_included_index", Natural), ("last_included_term", Natural)]
    name = InstallSnapshot.__name__
    told = msgspec.defstruct(name, fields, frozen=True, gc=False, tag_field="kind", tag=snake_case(name))
    return {InstallSnapshot: told}


def told_as(m: Any, told: Mapping[type[Record], type[msgspec.Struct]]) -> Any:
    """A message of the specification as a trace tells it."""
    if not hasattr(m, "prefix"):
        return m
    last = m.prefix[-1].term if m.prefix else 0
    return told[InstallSnapshot](m.source, m.target, m.term, len(m.prefix), last)


def whole(m: Any, structs: Mapping[type[Record], Any], committed: Sequence[Any]) -> Any:
    """A told message as the specification has it; None if it can't be, since so much isn't committed."""
    if not hasattr(m, "last_included_index"):
        return m
    n = m.last_included_index
    if not 0 < n <= len(committed) or committed[n - 1].term != m.last_included_term:
        return None
    return structs[InstallSnapshot](m.source, m.target, m.term, tuple(committed[:n]))

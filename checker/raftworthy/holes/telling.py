"""The behaviour that was found, as a trace that ordinary replay takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from raftworthy.holes.search import Search
from raftworthy.replay.meanings import meaning_of

ANEW = ("server", "event", "state", "sends", "entries", "seq", "start", "time")  # what is written anew


def behaviour(found: Search) -> Iterator[dict[str, Any]]:
    """The lines of a trace without holes: a header, and each event with all that is known of it now.

    `line` says which line of the trace an event stands for; events without it were supplied.
    """
    header = {"raftworthy": 1, "servers": list(found.servers)}
    if found.extensions:
        header["extensions"] = sorted(found.extensions)
    if "membership" in found.extensions:
        header["voters"] = list(found.lines.voters)
    yield header
    found.settle_rest()
    seq = dict.fromkeys(found.servers, 0)
    start = dict.fromkeys(found.servers, 0)
    for t in found.taken:
        e = t.e
        made: dict[str, Any] = {"server": e.server}
        if e.event == "restart":
            seq[e.server] = 0
            start[e.server] += 1
        seq[e.server] += 1
        made |= {"seq": seq[e.server], "event": e.event}
        if e.event == "restart":
            made["start"] = start[e.server]
        if t.line is not None:
            made["line"] = str(t.line.place)
        for name in e.__struct_fields__:
            if name not in ANEW and getattr(e, name) is not UNSET:
                made[name] = _plain(found, getattr(e, name))
        entries = t.appended if t.appended is not None else e.entries
        if entries is not UNSET:
            made["entries"] = [_entry(found, entry) for entry in entries]
        made["state"] = t.values
        made["sends"] = [_plain(found, m) for m in t.sends]
        yield made


def _entry(found: Search, entry: Any) -> Any:
    """An entry with what it means, if it means anything."""
    meaning = meaning_of(found.world.past, entry.value, found.appending)
    return [*_plain(found, entry), meaning] if meaning else _plain(found, entry)


def _plain(found: Search, value: Any) -> Any:
    """A value as JSON has it, with values that turned out to be others."""
    return _known(found, msgspec.to_builtins(value, str_keys=True, order="deterministic"))


def _known(found: Search, data: Any) -> Any:
    if isinstance(data, dict):
        return {k: _known(found, x) for k, x in data.items()}
    if isinstance(data, list | tuple):
        return [_known(found, x) for x in data]
    return found.known_value(data) if isinstance(data, str) else data

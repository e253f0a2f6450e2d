"""What commands mean, where a trace says it: requests of clients' sessions, registrations, expiries.

An event that appends an entry says what its command means, in the entry's third place. The specification
keeps that in history, as equal commands mean the same for ever; so it is noted as soon as it is read, and
the entry is one like any other from then on.

    e  an event     past  the history
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from raftworthy.files import Unusable

# In the specification a request's number is unique, so it has the client in its upper half.
NUMBERS = 1 << 32


def note(past: Any, e: Any, entry_struct: Any, known: dict[str, frozenset[str]]) -> None:
    """Put the meanings of an event's entries into history, and leave entries as they are everywhere else.

    Raises:
        Unusable: no command means that, or this one has meant something else.
    """
    for entry in e.entries:
        if (meaning := getattr(entry, "meaning", None)) is not None:
            told = {name: getattr(meaning, name) for name in meaning.__struct_fields__}
            mean(past, entry.value, {name: x for name, x in told.items() if x is not UNSET}, known)
    e.entries = tuple(entry_struct(x.term, x.value) for x in e.entries)
    if e.event in known:
        e.event = "client_request"  # the leader's step is the same, whatever the command means


def mean(past: Any, command: str, told: dict[str, int], known: dict[str, frozenset[str]]) -> None:
    """Put into history what a command means.

    Raises:
        Unusable: no command means that, or this one has meant something else.
    """
    if told.keys() not in known.values():
        ways = ", or ".join(" and ".join(sorted(names)) for names in known.values())
        raise Unusable("", f"no command means {told}; a meaning has {ways}")
    if not all(told.values()):
        raise Unusable("", f"a command can't mean {told}: numbers and times begin with 1")
    if told.get("lowest", 0) > told.get("sequence", 0):
        raise Unusable("", f"a command can't mean {told}: who asks has no response to sequence yet")
    for name, number in told.items():
        x = number + told["client"] * NUMBERS if name in ("sequence", "lowest") else number
        if getattr(past, name).setdefault(command, x) != x:
            what = f"the command {command} has meant something else before"
            raise Unusable("", f"{what}; different commands need different digests")


def meaning_of(past: Any, command: str, known: dict[str, frozenset[str]]) -> dict[str, int]:
    """What a command means, as a trace tells it; empty if it is one like any other."""
    names = sorted(frozenset[str]().union(*known.values()))
    told = {name: x for name in names if (x := getattr(past, name).get(command))}
    return {name: x % NUMBERS if name in ("sequence", "lowest") else x for name, x in told.items()}


def requests_of(past: Any, entries: list[Any]) -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
    """By their entries' indexes, the client and number of requests; and which were not executed."""
    found = {
        n: (client, past.sequence[x.value] % NUMBERS)
        for n, x in enumerate(entries, 1)
        if (client := past.client.get(x.value))
    }
    return found, frozenset(n for n in found if n <= past.applied and not past.executions.get(n))

"""What entries mean to both: a configuration is a value that history explains, and a command of the core.

s  the specification's state     i  the server
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

import raftd.messages
from raftd.configurations import Configuration, configuration_in, encode_configuration
from raftd.sessions import decode_command
from raftspec.spec import State
from raftworthy.lockstep.clients import core_table, session_command, table_after, table_in


def configuration_of(servers: Iterable[str], voters: Iterable[str], outgoing: Iterable[str]) -> Configuration:
    """A configuration as the core has it. Everybody else learns, for the specification sends to all."""
    members = {*voters, *outgoing}
    return Configuration(
        voters=tuple(sorted(voters)),
        outgoing=tuple(sorted(outgoing)),
        learners=tuple(i for i in sorted(servers) if i not in members),
    )


def command_of(s: State[Any, Any], value: Any) -> bytes:
    """The command that an entry's value is in the core: a short text, or a configuration."""
    voters = s.past.voters[value] if s.has("membership") else ()
    if voters:
        return encode_configuration(configuration_of(s.servers, voters, s.past.outgoing[value]))
    if s.has("sessions") and (command := session_command(s, value)):
        return command
    encoded: bytes = value.encode()
    return encoded


def core_entry(s: State[Any, Any], entry: Any) -> raftd.messages.Entry:
    """An entry of the specification as the core has it."""
    return raftd.messages.Entry(entry.term, command_of(s, entry.value))


def snapshot_of(s: State[Any, Any], prefix: Any) -> raftd.messages.Snapshot | None:
    """The snapshot that stands for a log's beginning; None for nothing. Its state is all that was applied."""
    entries = [core_entry(s, e) for e in prefix]
    if not entries:
        return None
    state = table_after(entries).save() if s.has("sessions") else msgspec.msgpack.encode(entries)
    newest: tuple[int, bytes] = 0, b""
    for n, entry in enumerate(entries, 1):
        if configuration_in(entry.command):
            newest = n, entry.command
    return raftd.messages.Snapshot(len(entries), entries[-1].term, state, *newest)


def applied_in(state: bytes, sessions: bool) -> list[raftd.messages.Entry]:
    """The entries that have come to this state of the state machine; an empty state is of none."""
    if sessions:
        found: list[raftd.messages.Entry] = table_in(state).machine.applied  # type: ignore[attr-defined]
        return found
    return msgspec.msgpack.decode(state, type=list[raftd.messages.Entry]) if state else []


def snapshot_parts(snapshot: raftd.messages.Snapshot, sessions: bool) -> dict[str, Any]:
    """What a snapshot holds, as it is compared: members, clients, and what was applied."""
    parts: dict[str, Any] = {
        "configured": snapshot.configured,
        "configuration": text_of(snapshot.configuration),
        "applied": applied_in(snapshot.state, sessions),
    }
    if sessions:
        table = table_in(snapshot.state)
        parts |= core_table(table) | {"clock": table.clock}
    return parts


def text_of(command: bytes) -> str:
    """A command as both sides print it, and as it is compared."""
    found = configuration_in(command)
    if found is None:
        said = decode_command(command)
        return str(said) if said else command.decode()
    joint = f" with {' '.join(found.outgoing)}" if found.outgoing else ""
    return f"({' '.join(found.voters)}{joint})"

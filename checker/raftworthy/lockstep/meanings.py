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
from raftworthy.lockstep.clients import session_command


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
    return raftd.messages.Snapshot(len(entries), entries[-1].term, msgspec.msgpack.encode(entries))


def applied_in(state: bytes) -> list[raftd.messages.Entry]:
    """The entries that have come to this state of the state machine; an empty state is of none."""
    return msgspec.msgpack.decode(state, type=list[raftd.messages.Entry]) if state else []


def text_of(command: bytes) -> str:
    """A command as both sides print it, and as it is compared."""
    found = configuration_in(command)
    if found is None:
        said = decode_command(command)
        return str(said) if said else command.decode()
    joint = f" with {' '.join(found.outgoing)}" if found.outgoing else ""
    return f"({' '.join(found.voters)}{joint})"

"""Sessions on both sides: what a client asks for, the table of sessions, and what was executed.

s  the specification's state     i  the server     me  i's variables in s     k  a client     q  a request
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import msgspec

from raftd.core import Batch, Core
from raftd.messages import Entry
from raftd.sessions import Ask, Command, Expire, Register, Sessions, encode_command
from raftspec.configurations import is_configuration
from raftspec.session_table import is_open
from raftspec.spec import State

S = State[Any, Any]
TIMES = (1, 2)  # what a leader's clock says
MEANINGS = ("client", "sequence", "lowest", "time", "registered", "expired")


class Machine:
    """A state machine that remembers what it has executed, and all entries that its server has applied."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []
        self.applied: list[Entry] = []

    def apply(self, command: bytes) -> None:
        self.executed.append(command)

    def save(self) -> bytes:
        return msgspec.msgpack.encode((self.executed, self.applied))

    def load(self, state: bytes) -> None:
        self.executed, self.applied = msgspec.msgpack.decode(state, type=tuple[list[bytes], list[Entry]])


def requests() -> Iterator[tuple[Any, ...]]:
    """The actions by which a leader appends something about sessions, with what it means."""
    for time in TIMES:
        yield "register_client", time
        yield "expire_sessions", time
    for k in (1, 2):  # whether that entry is a registration or not
        for q in (2 * k - 1, 2 * k):  # no two clients use the same
            for lowest in range(2 * k - 1, q + 1):
                yield from (("session_request", k, q, lowest, time) for time in TIMES)


def meant_by(action: str, *said: int, command: bytes) -> bytes:
    """The core's command for what such an action appends."""
    made: Command
    if action == "register_client":
        made = Register(*said)
    elif action == "expire_sessions":
        made = Expire(*said)
    else:
        session, number, lowest, time = said
        made = Ask(session, number, lowest, time, command)
    return encode_command(made)


def session_command(s: S, value: Any) -> bytes | None:
    """The core's command for a value that is about sessions."""
    past = s.past
    if time := past.registered.get(value):
        return encode_command(Register(time))
    if time := past.expired.get(value):
        return encode_command(Expire(time))
    if client := past.client.get(value):
        said = (client, past.sequence.get(value), past.lowest.get(value), past.time.get(value))
        return encode_command(Ask(*said, command=value.encode()))
    return None


def keep_sessions(core: Core, applied: int) -> None:
    """Give a core its state machine and table, into which its first `applied` entries have gone.

    Its clock runs fast: a session that is idle by it has been idle for long.
    """
    clock = count(0.0, 2 * core.config.session_timeout)
    core.keep_sessions(Machine(), lambda: next(clock))
    assert core.session_table is not None
    _note_entries(core.session_table, core.log.entry)
    for n in range(core.log.snapshot_index + 1, applied + 1):
        core.session_table.apply(n, core.log.entry(n).command)


def _note_entries(table: Sessions, entry: Callable[[int], Entry]) -> None:
    """Have the state machine remember also those entries that it doesn't execute."""
    execute = table.apply

    def apply(index: int, encoded: bytes) -> Any:
        table.machine.applied.append(entry(index))  # type: ignore[attr-defined]
        return execute(index, encoded)

    table.apply = apply  # type: ignore[method-assign]


def table_after(entries: Iterable[Entry]) -> Sessions:
    """A right server's table, and its state machine, when these entries are applied."""
    log = list(entries)
    table = Sessions(Machine(), lambda: 0.0, 0.0)
    _note_entries(table, lambda n: log[n - 1])
    for n, entry in enumerate(log, 1):
        table.apply(n, entry.command)
    return table


def table_in(state: bytes) -> Sessions:
    """The table that a snapshot's state holds."""
    table = Sessions(Machine(), lambda: 0.0, 0.0)
    if state:
        table.load(state)
    return table


def spec_table(s: S, i: str) -> dict[str, Any]:
    """The table of server i's sessions, as it is compared: what can still be told from each other."""
    me = s[i]
    opened = [k for k in me.active.items if is_open(s, me, k)]
    owners = {q: s.past.client[me.log.at(n).value] for q, n in me.responses.items.items()}
    kept = {q for q, k in owners.items() if k in opened and q >= me.lowest[k]}
    numbers = range(1, me.last_applied + 1)
    values = [me.log.at(n).value for n in numbers if s.past.executions[n]]
    if s.has("membership"):  # which the state machine doesn't see
        values = [value for value in values if not is_configuration(s, value)]
    return {
        "active": {k: me.active[k] for k in sorted(opened)},
        "lowest": {k: me.lowest[k] for k in sorted(opened)},
        "responses": {q: me.responses[q] for q in sorted(kept)},
        "sessions_expired": me.expired,
        "executed": [value for value in values if value],
    }


def core_table(table: Sessions) -> dict[str, Any]:
    """The same of a core."""
    found = sorted(table.sessions.items())
    machine: Any = table.machine
    return {
        "active": {k: session.active for k, session in found},
        "lowest": {k: session.lowest for k, session in found},
        "responses": dict(sorted((q, r[0]) for _, session in found for q, r in session.responses.items())),
        "sessions_expired": table.expired,
        "executed": [command.decode() for command in machine.executed if command],
    }


def answers(t: S, batch: Batch) -> tuple[dict[int, int], dict[int, int]]:
    """By entry, whose execution its response came from: as the specification has it, and as told."""
    told = {n: result.origin for (n, _), result in zip(batch.apply, batch.results, strict=True)}
    return {n: t.past.answers[n] for n in told}, told

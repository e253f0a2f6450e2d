"""Sessions on both sides: what a client asks for, the table of sessions, and what was executed.

s  the specification's state     i  the server     me  i's variables in s     k  a client     q  a request
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from raftd.core import Batch, Core
from raftd.sessions import Ask, Command, Expire, Register, encode_command
from raftspec.session_table import is_open
from raftspec.spec import State

S = State[Any, Any]
TIMES = (1, 2)  # what a leader's clock says
MEANINGS = ("client", "sequence", "lowest", "time", "registered", "expired")


class Machine:
    """A state machine that remembers what it has executed."""

    def __init__(self) -> None:
        self.executed: list[bytes] = []

    def apply(self, command: bytes) -> None:
        self.executed.append(command)


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
    if past.registered[value]:
        return encode_command(Register(past.registered[value]))
    if past.expired[value]:
        return encode_command(Expire(past.expired[value]))
    if past.client[value]:
        said = (past.client[value], past.sequence[value], past.lowest[value], past.time[value])
        return encode_command(Ask(*said, command=value.encode()))
    return None


def keep_sessions(core: Core, applied: int) -> None:
    """Give a core its state machine and table, into which its first `applied` entries have gone.

    Its clock runs fast: a session that is idle by it has been idle for long.
    """
    clock = count(0.0, 2 * core.config.session_timeout)
    core.keep_sessions(Machine(), lambda: next(clock))
    assert core.session_table is not None
    for n in range(1, applied + 1):
        core.session_table.apply(n, core.log.entry(n).command)


def spec_table(s: S, i: str) -> dict[str, Any]:
    """The table of server i's sessions, as it is compared: what can still be told from each other."""
    me = s[i]
    opened = [k for k in me.active.items if is_open(s, me, k)]
    owners = {q: s.past.client[me.log.at(n).value] for q, n in me.responses.items.items()}
    kept = {q for q, k in owners.items() if k in opened and q >= me.lowest[k]}
    numbers = range(1, me.last_applied + 1)
    values = [me.log.at(n).value for n in numbers if s.past.executions[n]]
    return {
        "active": {k: me.active[k] for k in sorted(opened)},
        "lowest": {k: me.lowest[k] for k in sorted(opened)},
        "responses": {q: me.responses[q] for q in sorted(kept)},
        "sessions_expired": me.expired,
        "executed": [value for value in values if value],
    }


def core_table(core: Core) -> dict[str, Any]:
    """The same of a core."""
    table = core.session_table
    assert table is not None
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

"""Clients' sessions: a request that is tried again is executed once. Dissertation, section 6.3.

A session is opened by a command in the log, and its id is the index of that entry. What a client asks for
carries the session, a number of its own, and the lowest number that it has no response for. All of that is
in the log, with the leader's time; so all servers open, use and end sessions at the same entries.

The table of sessions is a part of the replicated state: a snapshot has it beside the state machine's own.

    index  of an entry     number  of a request in its session     time  a leader's, in milliseconds
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from raftd.configurations import for_state_machine


class Register(msgspec.Struct, frozen=True, array_like=True, tag="register", gc=False):
    """Open a session."""

    time: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask", gc=False):
    """Execute `command`, unless that was done before."""

    session: int
    number: int
    lowest: int
    time: int
    command: bytes


class Expire(msgspec.Struct, frozen=True, array_like=True, tag="expire", gc=False):
    """End the sessions that nobody has used since."""

    since: int


Command = Register | Ask | Expire

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """The command as log entries carry it."""
    return _encoder.encode(command)


def decode_command(encoded: bytes) -> Command | None:
    """What a log entry carries, if that is about sessions."""
    try:
        return _decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def meaning(encoded: bytes) -> dict[str, int] | None:
    """What a trace says of a command that is about sessions."""
    match decode_command(encoded):
        case Register(time):
            return {"registered": time}
        case Ask(session, number, lowest, time):
            return {"client": session, "sequence": number, "lowest": lowest, "time": time}
        case Expire(since):
            return {"expired": since}
    return None


class StateMachine(Protocol):
    """What commands are for."""

    def apply(self, command: bytes, /) -> bytes | None: ...
    def save(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...
    def read(self, key: str, /) -> bytes | None: ...


class Result(NamedTuple):
    """What came of an entry. `origin` is the entry whose execution gave the value; 0: none has."""

    origin: int
    value: bytes | None = None
    asked: bool = False  # by a session's client


class Session(msgspec.Struct, array_like=True):
    """A client's: when it was last heard of, and the responses that it may not have yet."""

    active: int
    lowest: int = 0
    responses: dict[int, tuple[int, bytes | None]] = {}  # by number: the entry, and what came of it


class _Saved(msgspec.Struct, array_like=True):
    sessions: dict[int, Session]
    expired: int
    clock: int
    machine: bytes


_state_encoder = msgspec.msgpack.Encoder()  # in the order of the log, the same everywhere
_state_decoder: msgspec.msgpack.Decoder[_Saved] = msgspec.msgpack.Decoder(_Saved)


class Sessions:
    """A state machine with the table of the sessions that use it: one replicated state."""

    def __init__(self, machine: Any, local_clock: Callable[[], float], timeout: float) -> None:
        """`local_clock` is here for a server that goes by it, which is wrong: all go by the log."""
        self.machine: StateMachine = machine
        self.sessions: dict[int, Session] = {}
        self.expired = 0
        self.clock = 0  # the latest time that any leader has told
        self.timeout = timeout
        self._local_clock = local_clock

    def stamp(self, seconds: float) -> int:
        """A leader's time for a new entry: its clock's, but never before what the log has said."""
        return max(1, self.clock, self.expired, int(seconds * 1000))

    def idle(self, time: int) -> bool:
        """Whether a session has not been used for so long that its leader should end it."""
        since = time - int(self.timeout * 1000)
        return any(session.active < since for session in self.sessions.values())

    def apply(self, index: int, encoded: bytes) -> Result:
        """Execute an entry, or say what came of it when it was executed."""
        if not for_state_machine(encoded):
            return Result(index)
        match decode_command(encoded):
            case Register(time):
                self.clock = max(self.clock, time)
                if time >= self.expired:  # of an older time it would have ended already
                    self.sessions[index] = Session(time)
                return Result(index)
            case Expire(since):
                self.expired = max(self.expired, since)
                self._end_idle()
                return Result(index)
            case Ask() as asked:
                self.clock = max(self.clock, asked.time)
                return self._ask(index, asked)
        return Result(index, self.machine.apply(encoded))

    def _ask(self, index: int, asked: Ask) -> Result:
        session = self._session(asked.session)
        if session is None:
            return self._without_session(index, asked)
        lowest = session.lowest
        kept = session.responses.get(asked.number)
        session.active = max(session.active, asked.time)
        session.lowest = max(lowest, asked.lowest)
        for number in [n for n in session.responses if n < session.lowest]:
            del session.responses[number]
        if self._is_forgotten(asked.number, lowest):
            return Result(0, asked=True)
        if kept is not None and self._is_repeated(kept):
            return self._response(index, kept, asked)
        response = (index, self.machine.apply(asked.command))
        if asked.number >= session.lowest:
            session.responses[asked.number] = response
        return Result(*response, asked=True)

    def _end_idle(self) -> None:
        ended = [k for k, session in self.sessions.items() if session.active < self.expired]
        for k in ended:
            del self.sessions[k]

    def save(self) -> bytes:
        """The state as a snapshot holds it: the same bytes for the same state."""
        return _state_encoder.encode(
            _Saved(self._saved_sessions(), self.expired, self.clock, self.machine.save())
        )

    def load(self, state: bytes) -> None:
        """Become what `save` saw, whatever was there before."""
        saved = _state_decoder.decode(state)
        self.sessions, self.expired, self.clock = saved.sessions, saved.expired, saved.clock
        self.machine.load(saved.machine)

    # Rules. Dissertation, section 6.3.

    def _session(self, k: int) -> Session | None:
        """A client's session, if the log has opened it and not ended it."""
        return self.sessions.get(k)

    def _without_session(self, index: int, asked: Ask) -> Result:
        """With a session its responses are gone, so nobody knows whether this was executed."""
        return Result(0, asked=True)

    def _is_forgotten(self, number: int, lowest: int) -> bool:
        """A late copy of a request whose response the client has had."""
        return number < lowest

    def _is_repeated(self, kept: tuple[int, bytes | None]) -> bool:
        """What has a response was executed."""
        return True

    def _response(self, index: int, kept: tuple[int, bytes | None], asked: Ask) -> Result:
        """Who asks again is told what came of it the first time."""
        return Result(*kept, asked=True)

    def _saved_sessions(self) -> dict[int, Session]:
        """Sessions belong to what a snapshot stands for."""
        return self.sessions

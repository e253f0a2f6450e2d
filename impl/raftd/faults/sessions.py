"""Servers that break a rule of sessions. Dissertation, section 6.3; only where `Config.sessions` is on."""

from __future__ import annotations

from raftd.faults.breaking import Broken, breaks
from raftd.sessions import Ask, Result, Session, Sessions


class _ExecutesAgain(Sessions):
    def _is_repeated(self, kept: tuple[int, bytes | None]) -> bool:
        return False


class _AnswersAnew(Sessions):
    def _response(self, index: int, kept: tuple[int, bytes | None], asked: Ask) -> Result:
        return Result(index, None, asked=True)


class _ExecutesLateCopies(Sessions):
    def _is_forgotten(self, number: int, lowest: int) -> bool:
        return False


class _ServesAnybody(Sessions):
    def _without_session(self, index: int, asked: Ask) -> Result:
        return Result(index, self.machine.apply(asked.command), asked=True)


class _GoesByItsClock(Sessions):
    def _session(self, k: int) -> Session | None:
        now = self._local_clock()
        self._heard: dict[int, float] = getattr(self, "_heard", {})
        silent = now - self._heard.get(k, now)
        self._heard[k] = now
        if silent > self.timeout:
            self.sessions.pop(k, None)
        return self.sessions.get(k)


@breaks("session.once")
class ExecutesAgain(Broken):
    """What is tried again is executed again."""

    _SESSIONS = _ExecutesAgain


@breaks("session.kept_response")
class AnswersAnew(Broken):
    """Who asks again is told something else."""

    _SESSIONS = _AnswersAnew


@breaks("session.not_forgotten")
class ExecutesLateCopies(Broken):
    """A late copy of a request is executed if its response is forgotten."""

    _SESSIONS = _ExecutesLateCopies


@breaks("session.registered")
class ServesAnybody(Broken):
    """A request whose session has ended is executed."""

    _SESSIONS = _ServesAnybody


@breaks("session.expiry_from_log")
class GoesByItsClock(Broken):
    """A server ends sessions when its own clock says so."""

    _SESSIONS = _GoesByItsClock


class _SavesNoSessions(Sessions):
    def _saved_sessions(self) -> dict[int, Session]:
        return {}


@breaks("session.in_snapshot")
class SavesNoSessions(Broken):
    """A server's snapshot has the state machine's state, and not the sessions."""

    _SESSIONS = _SavesNoSessions


@breaks("session.kept_by_all")
class ForgetsAsLeader(Broken):
    """Whoever becomes leader knows nothing of what its predecessor answered."""

    def _become_leader(self) -> None:
        if self.session_table is not None:
            for session in self.session_table.sessions.values():
                session.responses.clear()
        super()._become_leader()

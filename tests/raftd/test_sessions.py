"""Sessions of clients: requests are executed once, whatever is tried again, restarted or expired."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.raftd.test_client import Script, scripted

from raftd.bank import AddInterest, Bank, Deposit
from raftd.bank import encode_command as bank_command
from raftd.client import Client, RequestError, RequestTimeoutError, SessionLostError
from raftd.cluster import Cluster
from raftd.codec import Done, NoSession, Redirect, SessionRequest, UnknownOutcome
from raftd.sessions import Ask, Command, Expire, Register, Sessions, encode_command

DEPOSIT = bank_command(Deposit("a", 100))


def table() -> Sessions:
    return Sessions(Bank(), lambda: 0.0, 1.0)


def asked(number: int, lowest: int = 1, time: int = 1, session: int = 1) -> bytes:
    return encode_command(Ask(session, number, lowest, time, DEPOSIT))


def balance(sessions: Sessions) -> bytes | None:
    return sessions.machine.read("a")


def test_what_is_tried_again_gets_the_old_response() -> None:
    sessions = table()
    sessions.apply(1, encode_command(Register(1)))
    assert sessions.apply(2, asked(1)) == (2, b"100", True)
    assert sessions.apply(3, asked(2)) == (3, b"200", True)
    assert sessions.apply(4, asked(1)) == (2, b"100", True)
    assert balance(sessions) == b"200"


def test_below_the_lowest_unanswered_nothing_is_kept_and_nothing_executed() -> None:
    sessions = table()
    sessions.apply(1, encode_command(Register(1)))
    sessions.apply(2, asked(1))
    sessions.apply(3, asked(3, lowest=3))
    assert list(sessions.sessions[1].responses) == [3]
    assert sessions.apply(4, asked(1)).origin == 0
    assert sessions.apply(5, asked(2)).origin == 0
    assert balance(sessions) == b"200"


def test_a_session_ends_where_the_log_says_so() -> None:
    sessions = table()
    sessions.apply(1, encode_command(Register(1)))
    sessions.apply(2, asked(1, time=5))
    sessions.apply(3, encode_command(Expire(5)))
    assert sessions.apply(4, asked(2, time=9)).origin == 4
    sessions.apply(5, encode_command(Expire(10)))
    assert sessions.apply(6, asked(2, time=11)).origin == 0
    assert sessions.apply(7, asked(1, session=6)).origin == 0
    assert balance(sessions) == b"200"


commands = st.lists(
    st.one_of(
        st.builds(Register, st.integers(1, 9)),
        st.builds(Expire, st.integers(1, 9)),
        st.builds(
            lambda k, q, low, time: Ask(k, q, min(q, low), time, DEPOSIT),
            *(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9)),
        ),
    ),
    max_size=12,
)


@given(commands, st.integers(0, 12))
def test_a_snapshot_has_the_table_of_sessions(log: list[Command], cut: int) -> None:
    """Who starts from a snapshot answers all that follows as who has seen everything."""
    whole, later = table(), table()
    for n, command in enumerate(log, 1):
        if n == cut:
            later.load(whole.save())
        result = whole.apply(n, encode_command(command))
        if n >= cut > 0:
            assert later.apply(n, encode_command(command)) == result
    if 0 < cut <= len(log):
        assert later.save() == whole.save()


def test_time_in_the_log_never_falls_behind_what_has_ended() -> None:
    """Or a new leader whose clock is slow opens sessions that have ended already."""
    sessions = table()
    sessions.apply(1, encode_command(Expire(5000)))
    assert sessions.stamp(1.0) == 5000
    sessions.apply(2, encode_command(Register(1000)))
    assert sessions.apply(3, asked(1, session=2)).origin == 0


def test_interest_and_deposit_depend_on_their_order() -> None:
    orders = []
    both = (Deposit("a", 100_000), AddInterest("a", 10))
    for first, second in (both, both[::-1]):
        bank = Bank()
        bank.apply(bank_command(Deposit("a", 50_000)))
        bank.apply(bank_command(first))
        orders.append(bank.apply(bank_command(second)))
    assert orders == [b"165000", b"155000"]


# --- the client ----------------------------------------------------------------


def ask(*scripts: Script, timeout: float = 2.0) -> tuple[bytes | None, list[SessionRequest]]:
    async def main() -> tuple[bytes | None, list[SessionRequest]]:
        from raftd.client_session import Session

        async with scripted(*scripts) as (addresses, servers), Client(addresses, timeout) as client:
            value = await Session(client, 7).execute(DEPOSIT)
            return value, [r for s in servers for r in s.seen if isinstance(r, SessionRequest)]

    return asyncio.run(main())


def test_a_request_of_a_session_is_sent_again_under_its_number() -> None:
    answers = iter([None, UnknownOutcome(0, "lost"), "done"])

    def script(request: object) -> Done | UnknownOutcome | None:
        assert isinstance(request, SessionRequest)
        answer = next(answers)
        if isinstance(answer, UnknownOutcome):
            return UnknownOutcome(request.id, answer.reason)
        return Done(request.id, b"100") if answer else None

    value, seen = ask(script)
    assert value == b"100"
    assert [(r.session, r.number, r.lowest) for r in seen] == [(7, 1, 1)] * 3


@pytest.mark.parametrize("before", [False, True])
def test_a_lost_session_says_what_may_have_happened(before: bool) -> None:
    """Never sent before, a request that is refused was not executed; otherwise nobody knows."""
    answers = iter([None] if before else [])

    def script(request: object) -> NoSession | None:
        assert isinstance(request, SessionRequest)
        return next(answers, NoSession(request.id, "no session"))

    with pytest.raises(SessionLostError) as lost:
        ask(script)
    assert lost.value.may_have_executed is before


def test_time_runs_out_in_doubt_only_if_somebody_took_it() -> None:
    with pytest.raises(RequestTimeoutError) as redirected:
        ask(lambda r: Redirect(r.id, None, None), timeout=0.3)
    assert not redirected.value.may_have_executed
    with pytest.raises(RequestTimeoutError) as silent:
        ask(lambda r: Done(-1), timeout=0.3)
    assert silent.value.may_have_executed


# --- real servers ----------------------------------------------------------------


def test_a_bank_of_real_servers_books_once_though_leaders_die(tmp_path: Path) -> None:
    options = ("--with", "sessions", "--machine", "bank", "--snapshot-after", "200")
    with Cluster(3, tmp_path, options=options) as cluster:
        cluster.leader()

        async def book() -> list[bytes | None]:
            async with cluster.client(20.0) as client:
                session = await client.open_session()
                for _ in range(20):
                    await session.execute(DEPOSIT)
                cluster.kill(leader := cluster.leader())
                await asyncio.gather(*(session.execute(DEPOSIT) for _ in range(10)))
                cluster.start(leader)
                told = await session.execute(DEPOSIT)
                with pytest.raises(RequestError, match="another state machine"):
                    await client.put("a", b"1")
                session.id = 1 << 40
                with pytest.raises(SessionLostError, match="was not executed"):
                    await session.execute(DEPOSIT)
                return [told]

        assert asyncio.run(book()) == [b"3100"]


def test_an_idle_session_ends_for_all_servers(tmp_path: Path) -> None:
    options = ("--with", "sessions", "--session-timeout", "0.2")
    with Cluster(1, tmp_path, options=options) as cluster:
        cluster.leader()

        async def idle() -> None:
            async with cluster.client() as client:
                session = await client.open_session()
                await session.put("colour", b"green")
                await asyncio.sleep(0.6)
                with pytest.raises(SessionLostError):
                    await session.put("colour", b"blue")
                assert await client.get("colour") == b"green"

        asyncio.run(idle())

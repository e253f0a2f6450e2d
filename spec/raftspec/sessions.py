"""Clients' sessions: a request that is tried again is executed once. Dissertation, section 6.3; paper, section 8.

A client registers through the log, and its id is the index of that entry. Each request carries the client and
a number of its own, and the lowest number that the client has no response for. The leader says with each what time it
is, and now and then which sessions have been idle for too long; all servers go by what the log says.
A request that is tried again is another entry with the same client and number. What the entries do as they are
applied stands in `raftspec.session_table`.

    i  the leader     v  the entry's value     client  the index of the entry that registered it
"""

# ruff: noqa: E501  (one rule, one row)

from __future__ import annotations

from typing import Any

from raftspec.raft import LEADER, Entry, History, ServerVariables
from raftspec.rules import read
from raftspec.spec import Extension, State, Step, when
from raftspec.types import Count, Index, Server, Value
from raftspec.values import Map, every, forall, implies, no


class WithSessions(ServerVariables):
    """The session table is part of the state machine's state, which a restart loses and applying gives back."""

    answer: Index = 0  # whose execution the response to the entry applied last came from; 0: there is none
    executed: Index = 0  # the entry that was executed last
    active: Map[Index, Count] = Map(default=0)  # by client: when it was last heard of; 0: never
    expired: Count = 0  # whoever was last active before has no session
    responses: Map[Count, Index] = Map(default=0)  # by request: the entry whose execution gave it
    lowest: Map[Index, Count] = Map(default=0)  # by client: it has the responses below


class SessionHistory(History):
    """What commands mean, and what was first done with each entry."""

    client: Map[Value, Index] = Map(default=0)  # a request's
    sequence: Map[Value, Count] = Map(default=0)
    lowest: Map[Value, Count] = Map(default=0)
    time: Map[Value, Count] = Map(default=0)
    registered: Map[Value, Count] = Map(default=0)  # of a registration: when
    expired: Map[Value, Count] = Map(default=0)  # of an expiry: of sessions last active before
    applied: Index = 0  # by whoever has come furthest
    answers: Map[Index, Index] = Map(default=0)
    executions: Map[Index, bool] = Map(default=False)


A = State[WithSessions, SessionHistory]

sessions = Extension(
    WithSessions,
    SessionHistory,
    read("""
session.once             | safety   | D 6.3 | A request that is tried again must not be executed again: it may be a payment.
session.kept_response    | safety   | D 6.3 | Who asks again is told what came of it the first time; the state machine may give something else by now.
session.lowest_unanswered| liveness | D 6.3 | The client says which responses it has; kept for ever, they would fill the memory.
session.not_forgotten    | safety   | D 6.3 | A late copy of a request whose response is forgotten looks like a new one.
session.registered       | safety   | D 6.3 | With a session its responses go; what asks again then can't be told from what is new, so neither is executed.
session.expiry_from_log  | safety   | D 6.3 | Sessions end for all servers at the same entry; by their own clocks one would execute what another refuses.
"""),
    name="sessions",
)


# --- a leader appends ----------------------------------------------------------


@sessions.action
def register_client(s: A, i: Server, v: Value, registered: Count) -> Step:
    """Leader i appends that somebody registers at its time registered. Dissertation, section 6.3."""
    meaning = {"registered": s.past.registered.set(v, registered)}
    return _append(s, i, v, meaning, when("time has begun", registered > 0))


@sessions.action
def session_request(
    s: A, i: Server, v: Value, client: Index, sequence: Count, lowest: Count, time: Count
) -> Step:
    """Leader i appends request sequence of session client, perhaps not for the first time. Section 6.3 there."""
    past = s.past
    meaning = {
        "client": past.client.set(v, client),
        "sequence": past.sequence.set(v, sequence),
        "lowest": past.lowest.set(v, lowest),
        "time": past.time.set(v, time),
    }
    return _append(
        s, i, v, meaning,
        when("a client asks", client > 0),
        when("the request has a number", sequence > 0),
        when("it has no response yet", lowest <= sequence),
    )  # fmt: skip


@sessions.action
def expire_sessions(s: A, i: Server, v: Value, expired: Count) -> Step:
    """Leader i appends that sessions end which were last active before expired. Dissertation, section 6.3."""
    meaning = {"expired": s.past.expired.set(v, expired)}
    return _append(s, i, v, meaning, when("time has begun", expired > 0))


def _append(s: A, i: Any, v: Any, meaning: dict[str, Any], *guards: Any) -> Step:
    me = s[i]
    return Step(
        i,
        when("i is leader", s.rule("append.leader_only", me.role == LEADER)),
        *guards,
        then=me.but(log=me.log.append(Entry(me.current_term, v))),
        history=s.past.but(commands=s.past.commands + 1, **meaning),
    )


# --- properties ----------------------------------------------------------------


@sessions.invariant
def exactly_once(s: A) -> bool:
    """No request is executed twice, however often it is tried. Dissertation, section 6.3."""
    past = s.past

    def same(k: int, n: int) -> bool:
        value, other = past.committed.at(k).value, past.committed.at(n).value
        return (past.client[value] > 0) & (past.sequence[value] == past.sequence[other])

    return forall(
        past.applied,
        lambda n: forall(
            n, lambda k: implies((k < n) & past.executions[k] & past.executions[n], no(same(k, n)))
        ),
    )


@sessions.invariant
def responses_are_of_executions(s: A) -> bool:
    """What a client is told came of executing its request. Dissertation, section 6.3."""
    past = s.past

    def its_own(n: int, k: int) -> bool:
        value = past.committed.at(n).value
        executed = past.executions[k] & (past.sequence[past.committed.at(k).value] == past.sequence[value])
        return (past.client[value] == 0) | (k == 0) | executed

    return forall(past.applied, lambda n: its_own(n, past.answers[n]))


@sessions.step_property
def replicas_answer_alike(s: A, t: A) -> bool:
    """All servers execute the same entries, and give the same responses. Dissertation, section 6.3."""

    def alike(i: str) -> bool:
        n = t[i].last_applied
        same = t[i].answer == s.past.answers[n]
        return same & ((t[i].executed == n) == s.past.executions[n])

    return every(
        implies((t[i].last_applied > s[i].last_applied) & (t[i].last_applied <= s.past.applied), alike(i))
        for i in s.servers
    )

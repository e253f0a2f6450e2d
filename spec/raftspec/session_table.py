"""A state machine that knows its clients, applied one entry at a time. Dissertation, section 6.3.

What a command means stands in history, under its entry's value, and is read only for entries of a server's
log: so it hides nothing. What a command does is left open. A state machine's state is the commands executed
so far, and a response is known by the index of the entry whose execution it came from.

    me  a server's variables                 k  the client: the index of the entry that registered it
    n   the index of the entry to be applied q  the request's number. No two clients use the same here.
"""

from __future__ import annotations

from typing import Any

from raftspec.spec import State
from raftspec.values import Map, ite, largest, no


def apply_one(s: State[Any, Any], me: Any, n: int) -> tuple[Any, Any]:
    """A server's variables and history after entry n is applied, which is the next."""
    past, v = s.past, me.log.at(n).value
    k, q, time = past.client[v], past.sequence[v], past.time[v]
    registered = past.registered[v]
    asks = k > 0

    known = asks & is_open(s, me, k)
    responds = known & (me.responses[q] > 0)
    if s.follows("session.lowest_unanswered"):
        responds = responds & (q >= me.lowest[k])
    executes = (
        s.rule("session.registered", known)
        & s.rule("session.once", no(responds))
        & s.rule("session.not_forgotten", (q >= me.lowest[k]) | no(known))
    )
    executed = ite(asks, executes, (registered == 0) & (past.expired[v] == 0))
    kept = me.responses[q] if s.follows("session.kept_response") else n
    answer = ite(asks, ite(executes, n, ite(responds, kept, 0)), n)

    heard_of = ite(registered > 0, registered, largest(me.active[k], time))
    me = me.but(
        last_applied=n,
        answer=answer,
        executed=ite(executed, n, me.executed),
        active=ite(known | (registered > 0), me.active.set(ite(registered > 0, n, k), heard_of), me.active),
        expired=largest(me.expired, past.expired[v]),
        responses=ite(asks & executes, me.responses.set(q, n), me.responses),
        lowest=ite(known, me.lowest.set(k, largest(me.lowest[k], past.lowest[v])), me.lowest),
    )
    first = n > past.applied  # of all servers
    past = past.but(
        applied=ite(first, n, past.applied),
        answers=past.answers.set(n, ite(first, answer, past.answers[n])),
        executions=past.executions.set(n, ite(first, executed, past.executions[n])),
    )
    return me, past


def emptied(me: Any) -> Any:
    """A server whose state machine has applied nothing: what a snapshot holds is made again from there."""
    nothing: Map[Any, Any] = Map(default=0)
    return me.but(
        last_applied=0, answer=0, executed=0, active=nothing, expired=0, responses=nothing, lowest=nothing
    )


def is_open(s: State[Any, Any], me: Any, k: int) -> Any:
    """Whether client k has a session: registered, and not expired since."""
    if s.follows("session.expiry_from_log"):
        return (me.active[k] > 0) & (me.active[k] >= me.expired)
    # No server's clock is specified. How much it has heard of differs as clocks do.
    return (me.active[k] > 0) & (k + 1 >= me.commit_index)

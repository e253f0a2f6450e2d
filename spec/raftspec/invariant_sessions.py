"""Why a request is executed once: what holds in every state of Raft with clients' sessions.

What a server answers follows from the entries that it has applied. So beside the protocol is kept, for every
n, the session table of the first server that applied entry n. It follows from the one before by what that
entry says, and all servers that have applied so much have it.

    i  a server    t  a term    n  an entry that some server has applied    v  an entry's value
    k  a client, or an entry before n    q  a request's number
"""

from __future__ import annotations

from typing import Any

from raftspec.claims import conjunct_of
from raftspec.raft import Entry
from raftspec.session_table import apply_one
from raftspec.spec import State
from raftspec.types import Count, Index, Record, Server, Term, Value
from raftspec.values import Map, Seq, implies, ite, no
from raftspec.witnesses import Made


class Tables(Made):
    """The session table as of each entry, by the first server that applied it."""

    activity: Map[Index, Map[Index, Count]] = Map(default=Map(default=0))  # by entry, then as servers have it
    expiry: Map[Index, Count] = Map(default=0)
    responded: Map[Index, Map[Count, Index]] = Map(default=Map(default=0))
    lows: Map[Index, Map[Index, Count]] = Map(default=Map(default=0))


W = State[Any, Any]


class StateMachine(Record):
    """What a server has that applies entries."""

    log: Seq[Entry]
    last_applied: Index
    answer: Index
    executed: Index
    active: Map[Index, Count]
    expired: Count
    responses: Map[Count, Index]
    lowest: Map[Index, Count]


def applied(s: W, n: Index) -> StateMachine:
    """Who has applied the entries up to n, as it was written down."""
    past = s.past
    table = past.activity[n], past.expiry[n], past.responded[n], past.lows[n]
    return StateMachine(past.committed, n, past.answers[n], 0, *table)


def as_ruled(s: W, n: Index) -> StateMachine:
    """Who has applied entry n by the rules, all of them, after those before it as that was written down."""
    now, _ = apply_one(State({}, s.past), applied(s, n - 1), n)
    return now  # type: ignore[no-any-return]


def was_applied(s: W, n: Index) -> bool:
    return (n > 0) & (n <= s.past.applied)  # type: ignore[no-any-return]


def asks(s: W, n: Index) -> bool:
    """Whether entry n is a client's request."""
    return s.past.client[s.past.committed.at(n).value] > 0  # type: ignore[no-any-return]


def number(s: W, n: Index) -> Count:
    """The number of the request that entry n is."""
    return s.past.sequence[s.past.committed.at(n).value]  # type: ignore[no-any-return]


def written(s: Any, me: Any, past: Any) -> Any:
    """What is written down when a server, which then has these variables, applies an entry."""
    n = me.last_applied
    first = n > s.past.applied

    def kept(old: Any, new: Any) -> Any:
        return ite(first, old.set(n, new), old)

    return past.but(
        activity=kept(past.activity, me.active),
        expiry=kept(past.expiry, me.expired),
        responded=kept(past.responded, me.responses),
        lows=kept(past.lows, me.lowest),
    )


# --- what is executed, and what is answered ----------------------------------------


@conjunct_of("sessions")
def h1_an_entry_says_one_thing(s: W, v: Value) -> bool:
    """An entry registers a client, ends sessions, or is a request with a number; a new one says nothing."""
    past = s.past
    is_request, registers, ends = past.client[v] > 0, past.registered[v] > 0, past.expired[v] > 0
    at_most_one = (no(is_request) | no(registers)) & (no(ends) | no(is_request | registers))
    nothing = no(is_request | registers | ends)
    numbered = is_request == (past.sequence[v] > 0)
    return at_most_one & numbered & ((past.place[v] > 0) | nothing)  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h2_executed_requests_have_responses(s: W, k: Index, n: Index) -> bool:
    """Once a request was executed, there is a response to its number."""
    executed = (k > 0) & (k <= n) & (n <= s.past.applied) & s.past.executions[k]
    return implies(executed & asks(s, k), applied(s, n).responses[number(s, k)] > 0)


@conjunct_of("sessions")
def h3_responses_are_of_executions(s: W, n: Index, q: Count) -> bool:
    """A response came from executing a request of that number."""
    k = applied(s, n).responses[q]
    of = (k <= n) & s.past.executions[k] & (number(s, k) == q)
    return implies(was_applied(s, n) & (k > 0), of)


@conjunct_of("sessions")
def h4_executed_requests_are_new(s: W, n: Index) -> bool:
    """A request is executed only if there is no response to its number yet."""
    executed = was_applied(s, n) & s.past.executions[n] & asks(s, n)
    return implies(executed, applied(s, n - 1).responses[number(s, n)] == 0)


@conjunct_of("sessions")
def h5_answers_are_known_or_new(s: W, n: Index) -> bool:
    """Who asks is told what came of executing this, or the response that there is, or nothing."""
    answer = s.past.answers[n]
    own = (answer == n) & s.past.executions[n]
    known = answer == applied(s, n - 1).responses[number(s, n)]
    return implies(was_applied(s, n) & asks(s, n), (answer == 0) | own | known)


# --- all servers do the same ---------------------------------------------------------


@conjunct_of("sessions")
def h6_what_is_applied_was_written_down(s: W, i: Server) -> bool:
    """No server has applied more than the one that has come furthest."""
    return s[i].last_applied <= s.past.applied  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h7_what_was_executed_was_applied(s: W, i: Server) -> bool:
    """No server has executed an entry that it hasn't applied."""
    return s[i].executed <= s[i].last_applied  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h8_what_was_applied_is_committed(s: W) -> bool:
    """Nothing was ever applied that isn't committed."""
    return s.past.applied <= s.past.committed.length  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h9_no_entry_is_made(s: W) -> bool:
    """What stands for no entry was never made."""
    return s.past.place[0] == 0  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h10_entries_were_made(s: W, t: Term, n: Index) -> bool:
    """An entry of a leader's log was made in its place."""
    log = s.past.logs[t]
    return implies((n > 0) & (n <= log.length), s.past.place[log.at(n).value] == n)


@conjunct_of("sessions")
def h11_committed_entries_were_made(s: W, n: Index) -> bool:
    """So was one that is committed."""
    log = s.past.committed
    return implies((n > 0) & (n <= log.length), s.past.place[log.at(n).value] == n)


@conjunct_of("sessions")
def h12_clients_are_unknown_at_first(s: W, k: Index) -> bool:
    """Before the first entry nobody has a session."""
    none = applied(s, 0)
    return (none.active[k] == 0) & (none.lowest[k] == 0)


@conjunct_of("sessions")
def h13_no_responses_at_first(s: W, q: Count) -> bool:
    """Before the first entry there are no responses."""
    return applied(s, 0).responses[q] == 0


@conjunct_of("sessions")
def h14_entries_are_applied_as_ruled(s: W, n: Index) -> bool:
    """Whether an entry is executed, what is answered, and what ends follows from it and those before it."""
    ruled = as_ruled(s, n)
    same = (s.past.executions[n] == (ruled.executed == n)) & (s.past.expiry[n] == ruled.expired)
    return implies(was_applied(s, n), (s.past.answers[n] == ruled.answer) & same)


@conjunct_of("sessions")
def h15_sessions_are_as_ruled(s: W, n: Index, k: Index) -> bool:
    """So does which clients have sessions then."""
    was, ruled = applied(s, n), as_ruled(s, n)
    same = (was.active[k] == ruled.active[k]) & (was.lowest[k] == ruled.lowest[k])
    return implies(was_applied(s, n), same)


@conjunct_of("sessions")
def h16_responses_are_as_ruled(s: W, n: Index, q: Count) -> bool:
    """So do the responses that there are then."""
    return implies(was_applied(s, n), applied(s, n).responses[q] == as_ruled(s, n).responses[q])


@conjunct_of("sessions")
def h17_servers_have_these_sessions(s: W, i: Server, k: Index) -> bool:
    """Clients have those sessions with every server that has applied so much."""
    me = s[i]
    of = applied(s, me.last_applied)
    return (me.active[k] == of.active[k]) & (me.lowest[k] == of.lowest[k])  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h18_servers_have_these_responses(s: W, i: Server, q: Count) -> bool:
    """Every server that has applied so much has those responses."""
    me = s[i]
    return me.responses[q] == applied(s, me.last_applied).responses[q]  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h19_servers_know_what_ended(s: W, i: Server) -> bool:
    """For every server that has applied so much those sessions have ended."""
    return s[i].expired == s.past.expiry[s[i].last_applied]  # type: ignore[no-any-return]


@conjunct_of("sessions")
def h20_nothing_ended_at_first(s: W) -> bool:
    """Before the first entry no session has ended."""
    return s.past.expiry[0] == 0  # type: ignore[no-any-return]

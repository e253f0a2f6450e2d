"""Where a server may do less than Figure 2 says, and be right: refuse a vote, or commit later.

Neither can be told from what messages that arrive late, or never, would do; so it is as safe.

    e  the event     m  its message     me  the variables of the server that took the step
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from raftworthy.generated import World
from raftworthy.replay.ledger import Ledger, Server, shallow

REFUSED = "votes were refused that could have been given"
UNSUPPORTED = "pre-votes were refused that could have been given"
LATER = "times a follower committed less than it could"


def handle_request_vote(ledger: Ledger, e: Any, me: Any, out: list[Any]) -> None:
    """Answer a RequestVote, and refuse even a vote that could be given if the event says so.

    A server that still hears from a leader may refuse, so that one who was cut off doesn't disturb
    (section 6). It is as if the request had got lost, or all of it but its term.
    """
    handle, i, m = ledger.actions["handle_request_vote"], e.server, e.message
    term = _refuses_in(ledger, e)
    if term is not None:
        trial = World({**ledger.world.variables, i: shallow(me)}, ledger.world.past)
        handle(trial, m, out.append)
        ignored = me.current_term == term < m.term
        if ignored or (term == m.term and any(reply.granted for reply in out)):
            if not ignored:
                told = ledger.request_vote_reply(m.source, i, m.term, False)
                ledger.actions["handle_request_vote_reply"](ledger.world, told, out.append)
            out[:] = [ledger.request_vote_reply(i, m.source, me.current_term, False)]
            ledger.leeway[REFUSED] += 1
            return
        out.clear()
    handle(ledger.world, m, out.append)


def _refuses_in(ledger: Ledger, e: Any) -> int | None:
    """The term in which an event says that its server refused the vote, if it says so."""
    m, state = e.message, e.state
    term, voted_for = (UNSET, UNSET) if state is UNSET else (state.current_term, state.voted_for)
    for x in e.sends or ():
        if type(x) is ledger.request_vote_reply and x.target == m.source:
            return int(x.term) if not x.granted and term in (UNSET, x.term) else None
    if term is not UNSET and term < m.term:
        return int(term)
    return None if voted_for in (UNSET, m.source) else int(m.term)


def handle_pre_vote(ledger: Ledger, e: Any, me: Any, out: list[Any]) -> None:
    """Answer a PreVote, and refuse even a pre-vote that could be given if the event says so.

    How long ago a server heard a leader is a matter of time, of which a trace says nothing for certain.
    """
    ledger.actions["handle_pre_vote"](ledger.world, e.message, out.append)
    for k, reply in enumerate(out):
        refusal = answers(reply)[-1]
        if reply.granted and refusal in (e.sends or ()):
            out[k] = refusal
            ledger.leeway[UNSUPPORTED] += 1


def answers(m: Any) -> tuple[Any, ...]:
    """A message, and what may as well be sent in its place: a pre-vote may always be refused."""
    fields = m.__struct_fields__
    if "asked_term" not in fields or not m.granted:
        return (m,)
    return m, type(m)(*(False if f == "granted" else getattr(m, f) for f in fields))


def handle_append_entries(ledger: Ledger, e: Any, me: Any, out: list[Any]) -> None:
    """Answer an AppendEntries, and commit less than it allows if the event says so.

    It is as if the leader had told less of its commit index, which is policy (`replicate.latest_commit`).
    """
    server, before = ledger.state[e.server], me.commit_index
    ledger.actions["handle_append_entries"](ledger.world, e.message, out.append)
    n = UNSET if e.state is UNSET else e.state.commit_index
    if n is not UNSET and before <= n < me.commit_index:
        server.could_commit = max(server.could_commit, me.commit_index)
        me.commit_index = n
        ledger.leeway[LATER] += 1


def commit_later(e: Any, server: Server) -> None:
    """Commit, in any event that says so, what could have been committed before."""
    n = UNSET if e.state is UNSET else e.state.commit_index
    if n is not UNSET and server.me.commit_index < n <= server.could_commit:
        server.me.commit_index = n

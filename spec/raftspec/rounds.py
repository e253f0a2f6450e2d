"""How logs come about, term by term: claims that decide which logs can exist side by side.

No server goes back to an earlier term, so a history of logs is a row of rounds: in each, somebody may be
elected by a quorum, on the strength of the logs as the round before left them, appends entries of its own,
and others take its log over up to an entry. `with_rounds` keeps beside the protocol what the log of each
server was when it left a term. Every step keeps the claims, together with those of `raftspec.invariant`:
`raftworthy prove inductive --rounds` asks Z3.

    i, j  servers    c  a candidate or leader    t  a term     n  an index     m  a message
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftspec.claims import CONJUNCTS
from raftspec.invariant import with_witnesses
from raftspec.properties import raft
from raftspec.raft import Entry, RequestVote, is_quorum
from raftspec.spec import Action, Property, Spec, State, Step
from raftspec.types import Server, Term, type_of, zero
from raftspec.values import Map, Seq, count, forall, implies, ite, no
from raftspec.witnesses import Chronicle, Witnesses, has_own, started


class Remembering(Witnesses):
    """A server that remembers its logs."""

    ends: Map[Term, Seq[Entry]] = Map(default=Seq((), zero(type_of(Entry))))  # when it left a term


R = State[Any, Chronicle]  # of servers that are Remembering


def _remembering(original: Callable[..., Step], terms: int) -> Callable[..., Step]:
    """An action that also keeps the log for each term that the server leaves, or passes by."""

    def changed(s: Any, *params: Any) -> Step:
        step = original(s, *params)
        if step.then is None:
            return step
        me, then = s[step.server], step.then
        ends = me.ends
        for t in range(terms):
            left = (me.current_term <= t) & (then.current_term > t)
            ends = ite(left, ends.set(t, me.log), ends)
        kept = {name: getattr(then, name) for name in Witnesses.types()}
        return Step(
            step.server,
            *step.guards,
            then=Remembering(**kept, ends=ends),
            send=step.sends,
            history=step.history,
        )

    return changed


def with_rounds(terms: int, spec: Spec = raft) -> Spec:
    """Raft, or a mutant of it, that remembers logs for terms up to `terms`, with all claims as properties."""
    spec = with_witnesses(spec)
    actions = {n: Action(n, _remembering(a.function, terms), a.params) for n, a in spec.actions.items()}
    return replace(spec, server=Remembering, actions=actions, properties={**ROUNDS, **spec.properties})


# --- what the claims speak of ----------------------------------------------------


def log_after(s: R, i: Server, t: Term) -> Seq[Entry]:
    """The log of server i as its steps in terms up to t left it."""
    return ite(t < s[i].current_term, s[i].ends[t], s[i].log)


def equal(a: Seq[Entry], b: Seq[Entry]) -> bool:
    return (a.length == b.length) & a.agrees(b, b.length)


def reaches(a: Seq[Entry], b: Seq[Entry]) -> bool:
    """Log a is as up to date as b. Section 5.4.1."""
    return (a.last.term > b.last.term) | ((a.last.term == b.last.term) & (a.length >= b.length))


ROUNDS: dict[str, Property] = {}


def claim(function: Callable[..., bool]) -> Callable[..., bool]:
    """Declare a claim about every state and every value of its parameters."""
    ROUNDS[function.__name__] = Property.of(function, states=1)
    return function


# --- the claims ----------------------------------------------------------------


@claim
def h1_logs_begin_empty(s: R, i: Server) -> bool:
    """In term 0 there are no entries."""
    return log_after(s, i, 0).length == 0


@claim
def h2_logs_change_to_the_leaders(s: R, i: Server, t: Term) -> bool:
    """In a term a log stays, or becomes the beginning of its leader's log; it is never only cut off."""
    before, after, log = log_after(s, i, t - 1), log_after(s, i, t), s.past.logs[t]
    taken = started(s, t) & log.agrees(after, after.length) & no(before.agrees(after, after.length))
    return implies(t > 0, equal(before, after) | taken)


@claim
def h3_leaders_only_append(s: R, c: Server, t: Term) -> bool:
    """A leader's log is the one that it had when the term began, and then entries of its term."""
    before, log = log_after(s, c, t - 1), s.past.logs[t]
    own = forall(log.length, lambda n: (n <= before.length) | (log.at(n).term == t))
    whole = log.agrees(before, before.length) & own & equal(log_after(s, c, t), log)
    return implies((s.past.leaders[t] == c) & (t > 0), whole)


@claim
def h4_requests_show_the_log_of_before(s: R, m: RequestVote) -> bool:
    """What a candidate says of its log is true of the one that it had when the term began."""
    log = log_after(s, m.source, m.term - 1)
    return (m.last_log_index == log.length) & (m.last_log_term == log.last.term)


@claim
def h5_first_votes_are_for_logs_that_reach(s: R, i: Server, c: Server, t: Term) -> bool:
    """As long as nobody leads a term, its votes are for logs as up to date as the voters' own."""
    given = s[i].voted[t].has(c) & no(started(s, t)) & (t > 0)
    return implies(given, reaches(log_after(s, c, t - 1), log_after(s, i, t - 1)))


@claim
def h6_leaders_had_such_votes(s: R, c: Server, t: Term) -> bool:
    """A quorum voted for a leader whose logs, when the term began, were no more up to date than its own."""
    mine = log_after(s, c, t - 1)
    votes = count(s[j].voted[t].has(c) & reaches(mine, log_after(s, j, t - 1)) for j in s.servers)
    return implies((s.past.leaders[t] == c) & (t > 0), is_quorum(s, votes))


@claim
def h7_acknowledged_entries_were_stored(s: R, i: Server, t: Term) -> bool:
    """What was acknowledged to a term's leader was stored when the term was left."""
    return log_after(s, i, t).agrees(s.past.logs[t], s[i].acked[t])


@claim
def h8_commits_were_stored(s: R, t: Term) -> bool:
    """What a leader committed ends with an entry of its term, and a quorum had it when they left the term."""
    n, log = s.past.commits[t], s.past.logs[t]
    storing = count(log_after(s, j, t).agrees(log, n) for j in s.servers)
    return implies(n > 0, has_own(s, t, n) & is_quorum(s, storing))


@claim
def h9_votes_written_down_were_given(s: R, i: Server, c: Server) -> bool:
    """For whom a server remembers to have voted, it said to vote."""
    return implies(s[i].voted_for == c, s[i].voted[s[i].current_term].has(c))


@claim
def h10_whoever_asks_voted_for_itself(s: R, m: RequestVote) -> bool:
    """A candidate that asks for votes has voted for itself in the term."""
    return s[m.source].voted[m.term].has(m.source)  # type: ignore[no-any-return]


@claim
def h11_whoever_gets_votes_voted_for_itself(s: R, i: Server, c: Server, t: Term) -> bool:
    """Who gets a vote in a term has voted for itself in it."""
    return implies(s[i].voted[t].has(c), s[c].voted[t].has(c))


# Of the invariant and the promises, those that speak of logs and of what is committed.
OF_HISTORIES = (
    "a1_votes_are_in_terms_reached",
    "a3_nobody_votes_in_term_zero",
    "a2_current_vote_is_remembered",
    "a4_one_vote_a_term",
    "a5_candidates_are_in_their_terms",
    "a7_candidates_vote_for_themselves",
    "b2_leaders_are_in_their_terms",
    "d1_commits_are_of_the_leaders_term",
    "d3_commit_index_is_justified",
    "d5_committed_is_in_leaders_logs",
    "d6_committed_is_by_some_leader",
    "g3_logs_come_from_leaders",
    "g6_leader_logs_are_of_past_terms",
    "g8_terms_grow_along_logs",
    "g9_leader_logs_share_prefixes",
)
PROMISES = ("state_machine_safety", "committed_on_quorum")
HISTORIES = {
    **ROUNDS,
    **{name: CONJUNCTS[name] for name in OF_HISTORIES},
    **{name: raft.properties[name] for name in PROMISES},
}

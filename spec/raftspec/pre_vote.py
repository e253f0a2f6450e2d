"""Pre-vote: a server asks whether it would be elected before it begins a term. Dissertation, section 9.6.

A server that was cut off would come back with a newer term otherwise, and depose a leader that a majority
hears. Asking begins no term, and changes nothing in whoever is asked; the role stays what it was.
How long ago a leader was heard is a matter of time, and time isn't specified: `silence` may come whenever it likes.
"""

# ruff: noqa: E501  (one rule, one row)

from __future__ import annotations

from raftspec.raft import (
    LEADER,
    NO_VOTES,
    NOBODY,
    History,
    S,
    ServerVariables,
    adopt,
    has_quorum,
    term_at,
    up_to_date,
)
from raftspec.rules import read
from raftspec.spec import Extension, Step, only_if, when
from raftspec.types import Index, MaybeServer, Message, Server, Term
from raftspec.values import ServerSet, every, implies, ite


class Asking(ServerVariables):
    pre_votes: ServerSet = NO_VOTES  # who would vote for it, itself included; nobody if it doesn't ask
    hears: MaybeServer = NOBODY  # the leader that it has heard from within an election timeout


pre_vote = Extension(
    Asking,
    History,
    read("""
pre_vote.majority     | liveness | D 9.6   | Who no majority would elect begins a term for nothing, and deposes a leader that others hear.
pre_vote.keep_term    | liveness | D 9.6   | Asking begins no term, however often a server that is cut off does it.
pre_vote.keep_vote    | safety   | D 9.6   | Asking is no election: a vote that is forgotten for it could be given again in the same term.
pre_vote.not_adopted  | liveness | D 9.6   | Who was cut off may be in a newer term; its question must not depose a leader.
pre_vote.current_term | liveness | D 9.6   | Who asks in an older term would stand in one that has begun already.
pre_vote.up_to_date   | liveness | D 9.6   | Who would get no vote, because its log is behind, gets no pre-vote either.
pre_vote.leader_heard | policy   | D 4.2.3 | Whoever hears a leader needs no other; only that leader may ask, since it leads no more.
pre_vote.refuse       | liveness | D 9.6   | A refusal brings a newer term, in which the server that has the longer log can then ask.
pre_vote.count_granted| liveness | D 9.6   | A refusal is no pre-vote.
pre_vote.count_asked  | liveness | D 9.6   | What was answered in an older term, or to a question given up since, says nothing of an election now.
pre_vote.no_vote      | safety   | D 9.6   | A pre-vote is no vote: it is written nowhere, and given to everybody who could win.
pre_vote.leader_found | liveness | D 9.6   | Who hears the leader of its term needs no election any more.
"""),
    name="pre_vote",
)


# --- messages ----------------------------------------------------------------


class PreVote(Message):
    """A server asks in its own term, and would stand in the next one."""

    last_log_index: Index
    last_log_term: Term


class PreVoteReply(Message):
    granted: bool
    asked_term: Term  # the question's, which may be newer than the sender's own


# --- actions -----------------------------------------------------------------


@pre_vote.action
def start_pre_vote(s: S, i: Server) -> Step:
    """Server i has heard no leader for too long, and asks who would vote for it. Dissertation, section 9.6."""
    me = s[i]
    return Step(
        i,
        when("i is not leader", s.rule("election.not_leader", me.role != LEADER)),
        then=me.but(
            current_term=me.current_term if s.follows("pre_vote.keep_term") else me.current_term + 1,
            voted_for=me.voted_for if s.follows("pre_vote.keep_vote") else NOBODY,
            pre_votes=NO_VOTES.add(i),
            hears=NOBODY,
        ),
        send=[
            only_if(i != j, PreVote(i, j, me.current_term, me.log.length, term_at(s, me, me.log.length)))
            for j in s.servers
        ],
    )


@pre_vote.action
def handle_pre_vote(s: S, m: PreVote) -> Step:
    """Server m.target says whether it would vote for m.source in the term after m's. Dissertation, section 9.6."""
    i = m.target
    me = s[i] if s.follows("pre_vote.not_adopted") else adopt(s, s[i], m.term)
    heard_of_no_other = (me.hears == NOBODY) | (me.hears == m.source)
    grants = (
        s.rule("pre_vote.current_term", m.term >= me.current_term)
        & s.rule("pre_vote.up_to_date", up_to_date(s, me, m))
        & s.rule("pre_vote.leader_heard", (me.role != LEADER) & heard_of_no_other)
    )
    return Step(
        i,
        then=me,
        send=only_if(
            grants | s.follows("pre_vote.refuse"),
            PreVoteReply(i, m.source, me.current_term, grants, m.term),
        ),
    )


@pre_vote.action
def handle_pre_vote_reply(s: S, m: PreVoteReply) -> Step:
    """Server m.target counts a pre-vote. Dissertation, section 9.6."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    counts = s.rule("pre_vote.count_granted", m.granted) & s.rule(
        "pre_vote.count_asked", me.pre_votes.has(i) & (m.asked_term == me.current_term)
    )
    votes = me.votes if s.follows("pre_vote.no_vote") else ite(counts, me.votes.add(m.source), me.votes)
    return Step(i, then=me.but(votes=votes, pre_votes=ite(counts, me.pre_votes.add(m.source), me.pre_votes)))


@pre_vote.action
def silence(s: S, i: Server) -> Step:
    """Server i has not heard from its leader for an election timeout. Dissertation, section 4.2.3."""
    return Step(i, when("i hears a leader", s[i].hears != NOBODY), then=s[i].but(hears=NOBODY))


# --- properties --------------------------------------------------------------


@pre_vote.step_property
def candidate_has_support(s: S, t: S) -> bool:
    """Whoever stands for election was told that it could win, by a quorum or by its leader. Section 9.6 there."""

    def stands(i: str) -> bool:
        return (t[i].current_term > s[i].current_term) & (t[i].voted_for == i)

    def supported(i: str) -> bool:
        told = s[i].told_to_stand if s.has("leadership_transfer") else False
        return told | has_quorum(s, s[i], s[i].pre_votes.has, s[i].pre_votes.size)

    return every(implies(stands(i), supported(i)) for i in s.servers)

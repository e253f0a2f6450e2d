"""What the invariant speaks of and no server remembers: past votes, acknowledgements, leaders' logs.

It is kept beside the protocol's own variables (`raftspec.invariant.with_witnesses`), and no rule reads it.

    i, j  servers    t  a term    n  an index
    choosable (t, n)  the entry n of term t's leader is committed, or may still come to be
"""

from __future__ import annotations

from raftspec.raft import CANDIDATE, LEADER, NOBODY, Entry, History, ServerVariables, is_quorum
from raftspec.spec import State
from raftspec.types import Count, Index, Server, Term, Value, type_of, zero
from raftspec.values import Map, Seq, ServerSet, count


class Witnesses(ServerVariables):
    """What a server has told others, for good: a message once sent is not taken back."""

    voted: Map[Term, ServerSet] = Map(default=ServerSet())  # for whom it said to vote
    acked: Map[Term, Index] = Map(default=0)  # up to where it said to store what the leader has


class Answering(Witnesses):
    """What a server has told readers' leaders."""

    answered: Map[Term, Count] = Map(default=0)  # up to which round of the term's leader


class Chronicle(History):
    """What leaders had."""

    logs: Map[Term, Seq[Entry]] = Map(default=Seq((), zero(type_of(Entry))))  # as of their last own step


class Made(Chronicle):
    """Which entries were ever made, where their values say more than that they are commands."""

    place: Map[Value, Index] = Map(default=0)  # where an entry of this value was made, if one was


W = State[Witnesses, Chronicle]


# --- what the conjuncts speak of ----------------------------------------------


def leads(s: W, i: Server) -> bool:
    return s[i].role == LEADER


def stands(s: W, i: Server) -> bool:
    return s[i].role == CANDIDATE


def started(s: W, t: Term) -> bool:
    """Somebody was elected for term t."""
    return s.past.leaders[t] != NOBODY


def has_own(s: W, t: Term, n: Index) -> bool:
    """Entry n of the leader of term t is one of term t."""
    return (t > 0) & (s.past.logs[t].at(n).term == t)


def acknowledged(s: W, i: Server, t: Term, n: Index) -> bool:
    """Server i told the leader of term t that it stores entry n, or is that leader."""
    return n <= s[i].acked[t]


def choosable(s: W, t: Term, n: Index) -> bool:
    """A quorum has acknowledged entry n to the leader of term t, or still can."""
    return is_quorum(s, count(acknowledged(s, j, t, n) | (s[j].current_term <= t) for j in s.servers))

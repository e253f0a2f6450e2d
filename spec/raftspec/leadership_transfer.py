"""Leadership transfer: a leader that wants to go tells a follower to stand. Dissertation, section 3.10.

The follower doesn't wait for its timeout, and asks nobody whether it could win. It begins an election as
always, so all that transfer can do wrong is to waste a term.
"""

from __future__ import annotations

from typing import Any

from raftspec.configurations import has_left, in_force
from raftspec.raft import LEADER, NOBODY, History, S, ServerVariables, adopt
from raftspec.rules import read
from raftspec.spec import Extension, Step, When, when
from raftspec.types import Message, Server
from raftspec.values import every, forall, implies, no


class Told(ServerVariables):
    told_to_stand: bool = False  # by the leader of its term


leadership_transfer = Extension(
    Told,
    History,
    read("""
transfer.leader_only  | liveness | D 3.10 | Only the leader knows who stores its log; from anybody else it is a disturbance.
transfer.caught_up    | liveness | D 3.10 | Who lacks entries of the leader's log may not be elected, and then a term is lost.
transfer.to_voter     | policy   | D 4.2.2 | Who doesn't vote would lead only until that is committed.
transfer.current_term | liveness | D 3.10 | Who stored all of an older leader's log may lack what was appended since.
"""),  # noqa: E501  (one rule, one row)
    name="leadership_transfer",
)


class TimeoutNow(Message):
    """The leader of a term tells a follower to begin the next one."""


@leadership_transfer.action
def transfer_leadership(s: S, i: Server, j: Server) -> Step:
    """Leader i tells j, which stores all of its log, to stand for election. Dissertation, section 3.10."""
    me: Any = s[i]
    may_lead: tuple[When, ...] = ()
    if s.has("membership"):
        votes = no(has_left(s, me, in_force(s, me), j))
        may_lead = (when("j votes", s.rule("transfer.to_voter", votes)),)
    return Step(
        i,
        when("i is leader", s.rule("transfer.leader_only", me.role == LEADER)),
        when("j is another server", i != j),
        when("j stores all of i's log", s.rule("transfer.caught_up", me.match_index[j] == me.log.length)),
        *may_lead,
        send=TimeoutNow(i, j, me.current_term),
    )


@leadership_transfer.action
def handle_timeout_now(s: S, m: TimeoutNow) -> Step:
    """Server m.target is told by its leader to stand, without waiting. Dissertation, section 3.10."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    told = (me.role != LEADER) & s.rule("transfer.current_term", m.term == me.current_term)
    return Step(i, then=me.but(told_to_stand=me.told_to_stand | told))


@leadership_transfer.invariant
def told_by_leader(s: S) -> bool:
    """Whoever is told to stand is in a term that has, or had, a leader. Section 3.10 there."""
    return every(implies(s[i].told_to_stand, s.past.leaders[s[i].current_term] != NOBODY) for i in s.servers)


@leadership_transfer.invariant
def told_to_stand_is_complete(s: S) -> bool:
    """Whoever is told to stand stores all that leaders of earlier terms committed. Section 3.10 there."""

    def has_all(i: str, term: int) -> bool:
        return implies(term < s[i].current_term, s[i].log.agrees(s.past.committed, s.past.commits[term]))

    return every(
        implies(s[i].told_to_stand, forall(s[i].current_term, lambda t, i=i: has_all(i, t)))  # type: ignore[misc]
        for i in s.servers
    )

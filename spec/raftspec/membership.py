"""Membership changes: one server at a time, or through a joint configuration. Dissertation, section 4.

A configuration is an entry of the log, in force from when it is stored until a newer one is, or until it is
cut off. Servers that don't vote in it are learners: they are sent entries as all are, and vote if they are
asked, since they may not know yet that they were promoted. Left out: who is told of whom, and timers, by
which a server that was removed is kept from disturbing (dissertation, section 4.2.3).

    i  the leader     v  the configuration entry's value     voters, joint  who votes then
"""

from __future__ import annotations

from raftspec.configurations import in_force, is_joint, votes
from raftspec.raft import LEADER, NO_VOTES, Entry, History, ServerVariables
from raftspec.rules import read
from raftspec.spec import Extension, State, Step, When, when
from raftspec.types import Count, Index, Server, Value
from raftspec.values import Map, ServerSet, count, every, implies, ite, no, those


class Configured(ServerVariables):
    configured: Index = 0  # the newest configuration entry of the log; 0: the first configuration


class Configurations(History):
    """What configuration entries say. A server reads this only for entries that are in its log."""

    voters: Map[Value, ServerSet] = Map(default=NO_VOTES)
    outgoing: Map[Value, ServerSet] = Map(default=NO_VOTES)  # of a joint configuration: who voted before
    joining: ServerSet = NO_VOTES  # who is not in the first configuration
    changes: Count = 0


M = State[Configured, Configurations]

membership = Extension(
    Configured,
    Configurations,
    read("""
membership.in_force_when_stored     | safety   | D 4.1   | Who counts by an older configuration can be at odds with those who know a newer one; also who counts by one that was cut off.
membership.majority_of_both         | safety   | 6       | In a joint configuration neither the old servers nor the new ones decide alone, or both could.
membership.count_voters             | safety   | D 4.2.2 | Only the configuration's own servers count; a learner or a leader that was removed is no part of its majority.
membership.one_server               | safety   | D 4.1   | Switched directly, old and new configuration can have majorities without a common server; if they differ by one server, they can't.
membership.one_at_a_time            | safety   | D 4.1   | Two changes on the way at once are a larger one.
membership.own_term_first           | safety   | D 4.1   | A change of an older term may come back; after an entry of its own term is committed, a leader knows that none can (the correction of 2015).
membership.through_joint            | implied  | 6       | The joint configuration is that of the servers that vote now, and the new one is in force only after it.
membership.somebody_votes           | liveness | D 4.1   | A configuration without voters can't decide anything, also not to be changed.
membership.caught_up                | policy   | D 4.2.1 | A new voter that lacks what is committed would hold up the next commitment until it has it.
membership.removed_leader_steps_down| liveness | D 4.2.2 | A leader that isn't in the configuration leads only until that is committed.
"""),  # noqa: E501  (one rule, one row)
    name="membership",
)


@membership.action
def change_voters(s: M, i: Server, v: Value, voters: ServerSet) -> Step:
    """Leader i appends v, the configuration of voters. Dissertation, section 4.1.

    It adds or removes one, or leaves a joint configuration (section 6).
    """
    me = s[i]
    n = in_force(s, me)
    now = votes(s, me, n)
    joint = is_joint(s, me, n)
    differ = count(voters.has(j) != now(j) for j in s.servers)
    own = me.log.at(me.commit_index).term == me.current_term
    return Step(
        i,
        *_may_change(s, me, voters),
        when(
            "at most one server is added or removed",
            s.rule("membership.one_server", ite(joint, differ == 0, differ <= 1)),
        ),
        when(
            "an entry of current_term is committed",
            joint | s.rule("membership.own_term_first", own),
        ),
        when(
            "the new voters have caught up",
            s.rule(
                "membership.caught_up",
                every(
                    implies(voters.has(j) & no(now(j)), (i == j) | (me.match_index[j] >= me.commit_index))
                    for j in s.servers
                ),
            ),
        ),
        then=_with_entry(me, v),
        history=_recorded(s, v, voters, NO_VOTES),
    )


@membership.action
def enter_joint(s: M, i: Server, v: Value, joint: ServerSet) -> Step:
    """Leader i appends v, in which those who voted so far decide together with joint. Section 6."""
    me = s[i]
    n = in_force(s, me)
    now = votes(s, me, n)
    return Step(
        i,
        *_may_change(s, me, joint),
        when("i is in no joint configuration", s.rule("membership.through_joint", no(is_joint(s, me, n)))),
        then=_with_entry(me, v),
        history=_recorded(s, v, joint, those(s.servers, now)),
    )


def _may_change(s: M, me: Configured, voters: ServerSet) -> tuple[When, ...]:
    """What every change needs."""
    return (
        when("i is leader", s.rule("append.leader_only", me.role == LEADER)),
        when("somebody votes", s.rule("membership.somebody_votes", voters.size > 0)),
        when(
            "the last change is committed",
            s.rule("membership.one_at_a_time", me.configured <= me.commit_index),
        ),
    )


def _with_entry(me: Configured, v: Value) -> Configured:
    return me.but(log=me.log.append(Entry(me.current_term, v)), configured=me.log.length + 1)


def _recorded(s: M, v: Value, voters: ServerSet, outgoing: ServerSet) -> Configurations:
    past = s.past
    return past.but(
        commands=past.commands + 1,
        changes=past.changes + 1,
        voters=past.voters.set(v, voters),
        outgoing=past.outgoing.set(v, outgoing),
    )

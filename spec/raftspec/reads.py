"""Reads that are not in the log: a leader makes sure that it still leads. Dissertation, section 6.4.

A round asks every server which term it is in. As soon as a majority has answered with the leader's own, what was
committed when the round began can be read. A round serves all who asked before it began, so whoever asks
later is not in it. Left out: leases, as they rest on clocks.
"""

# ruff: noqa: E501  (one rule, one row)

from __future__ import annotations

from raftspec.raft import LEADER, NO_VOTES, History, S, ServerVariables, adopt, has_quorum
from raftspec.rules import read
from raftspec.spec import Extension, Step, only_if, when
from raftspec.types import Count, Index, Message, Server
from raftspec.values import Map, ServerSet, ite, no


class Reading(ServerVariables):
    read_index: Index = 0  # leader: what must be applied before this round's readers are answered
    read_round: Count = 0  # leader: how many rounds it has begun in its term
    read_acks: ServerSet = NO_VOTES  # leader: who acknowledged the round under way, itself included


class ReadingHistory(History):
    rounds: Count = 0
    asked: Map[Server, Index] = Map(default=0)  # how much had been committed when each server's round began
    needed: Index = 0  # the same for the readers who were answered last
    seen: Index = 0  # how much of the log they saw the effect of


reads = Extension(
    Reading,
    ReadingHistory,
    read("""
reads.leader_only     | safety | D 6.4 | Followers hear of what is committed later than the leader.
reads.own_term        | safety | D 6.4 | Before an entry of its own term is committed, a leader doesn't know all that earlier leaders committed.
reads.one_round       | policy | D 6.4 | Readers who come during a round wait for the next, and share it.
reads.majority        | safety | D 6.4 | Only if a majority is still in its term, no other leader can have committed anything since.
reads.current_round   | safety | D 6.4 | An answer to an earlier question says nothing of what has happened since.
reads.ack_current_term| safety | D 6.4 | An answer of an older term is to a question of an earlier leadership.
reads.ask_current_term| safety | D 6.4 | A question of an older term is of an earlier leadership, whose rounds were numbered from 1, too.
reads.wait_applied    | safety | D 6.4 | What is committed and not applied yet can't be seen in the state machine.
reads.give_up         | liveness | D 6.4 | Who leads no more gets no answers that count: its readers would wait for ever, and those after them.
"""),
    name="reads",
)


# --- messages ----------------------------------------------------------------


class ReadIndex(Message):
    round: Count


class ReadIndexReply(Message):
    round: Count  # 0: of a question of an older term


# --- actions -----------------------------------------------------------------


@reads.action
def begin_read(s: S, i: Server) -> Step:
    """Leader i asks whether it still leads, for all readers who wait. Dissertation, section 6.4."""
    me, past = s[i], s.past
    knows = me.log.at(me.commit_index).term == me.current_term
    return Step(
        i,
        when("i is leader", s.rule("reads.leader_only", me.role == LEADER)),
        when("an entry of current_term is committed", s.rule("reads.own_term", knows)),
        when("no round is under way", s.rule("reads.one_round", no(me.read_acks.has(i)))),
        then=me.but(read_index=me.commit_index, read_round=me.read_round + 1, read_acks=NO_VOTES.add(i)),
        send=[only_if(i != j, ReadIndex(i, j, me.current_term, me.read_round + 1)) for j in s.servers],
        history=past.but(rounds=past.rounds + 1, asked=past.asked.set(i, past.committed.length)),
    )


@reads.action
def handle_read_index(s: S, m: ReadIndex) -> Step:
    """Server m.target says which term it is in. Dissertation, section 6.4."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    answered = ite(s.rule("reads.ask_current_term", m.term == me.current_term), m.round, 0)
    return Step(i, then=me, send=ReadIndexReply(i, m.source, me.current_term, answered))


@reads.action
def handle_read_index_reply(s: S, m: ReadIndexReply) -> Step:
    """Leader m.target counts who is still in its term. Dissertation, section 6.4."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    counts = (
        me.read_acks.has(i)
        & s.rule("reads.ack_current_term", m.term == me.current_term)
        & s.rule("reads.current_round", m.round == me.read_round)
    )
    return Step(i, then=me.but(read_acks=ite(counts, me.read_acks.add(m.source), me.read_acks)))


@reads.action
def serve_read(s: S, i: Server) -> Step:
    """Leader i answers the readers of its round, from its state machine. Dissertation, section 6.4."""
    me, past = s[i], s.past
    return Step(
        i,
        when("a round is under way", me.read_acks.has(i)),
        when(
            "a quorum acknowledged it",
            s.rule("reads.majority", has_quorum(s, me, me.read_acks.has, me.read_acks.size)),
        ),
        when("i has applied read_index", s.rule("reads.wait_applied", me.last_applied >= me.read_index)),
        then=me.but(read_index=0, read_acks=NO_VOTES),
        history=past.but(needed=past.asked[i], seen=me.last_applied),
    )


# --- properties --------------------------------------------------------------


@reads.invariant
def reads_see_what_was_committed(s: S) -> bool:
    """A read sees all that had been committed when it was asked for: it is linearizable. Section 6.4 there."""
    return no(s.past.seen < s.past.needed)

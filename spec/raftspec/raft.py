"""Raft as a transition system: state, messages, actions.

Follows Figure 2 of Ongaro and Ousterhout (2014). Run, explored, solved and replayed from here.
What else Raft has is in modules of its own (`raftspec.extensions`). Left out: real time.
A message once sent can be received at any time, again, or never.

    i, j  servers     n  log index, from 1; 0 is before the log
    m     a message   s  the state before a step     me  server i's variables
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from raftspec.configurations import Who, has_left, have_majority, newest_kept, newest_stored
from raftspec.rules import RULES
from raftspec.session_table import apply_one
from raftspec.spec import Spec, State, Step, When, only_if, when
from raftspec.types import Count, Index, MaybeServer, Message, Record, Server, Term, Value
from raftspec.values import Map, Seq, ServerSet, count, exists, ite, largest, no, set_each, smallest


class Role(StrEnum):
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


FOLLOWER, CANDIDATE, LEADER = Role
NOBODY = None
NO_VOTES = ServerSet()


# --- state -------------------------------------------------------------------


class Entry(Record):
    term: Term
    value: Value


class ServerVariables(Record):
    role: Role = FOLLOWER
    current_term: Term = 0  # persistent
    voted_for: MaybeServer = NOBODY  # persistent
    log: Seq[Entry] = Seq()  # persistent
    commit_index: Index = 0
    last_applied: Index = 0
    votes: ServerSet = NO_VOTES  # candidate: who voted for it
    next_index: Map[Server, Index] = Map(default=0)  # leader: what to send next
    match_index: Map[Server, Index] = Map(default=0)  # leader: what each server is known to store


class History(Record):
    """What happened, for the properties and the bounds; no server can read it."""

    leaders: Map[Term, MaybeServer] = Map(default=None)  # who was elected
    committed: Seq[Entry] = Seq()  # the entries ever committed
    commits: Map[Term, Index] = Map(default=0)  # how far the leader of each term committed
    commands: Count = 0
    restarts: Count = 0


raft = Spec(server=ServerVariables, history=History, rules=RULES)
S = State[ServerVariables, History]


# --- messages ----------------------------------------------------------------


class RequestVote(Message):
    last_log_index: Index
    last_log_term: Term


class RequestVoteReply(Message):
    granted: bool


class AppendEntries(Message):
    prev_log_index: Index
    prev_log_term: Term
    entries: Seq[Entry]
    leader_commit: Index


class AppendEntriesReply(Message):
    success: bool
    match_index: Index  # 0 in a refusal


# --- helpers -----------------------------------------------------------------


def is_quorum(s: State[Any, Any], size: int) -> bool:
    return size + size > s.n


def has_quorum(s: S, me: ServerVariables, who: Who, size: int) -> bool:
    """Whether the servers for which `who` holds, `size` in all, are a majority; section 5.2.

    Where membership can change, of those who vote in the configuration that is in force at this server.
    """
    return have_majority(s, me, who) if s.has("membership") else is_quorum(s, size)


def up_to_date(s: S, me: ServerVariables, m: Any) -> bool:
    """Whether the log that m tells of is at least as complete as a server's own. Section 5.4.1."""
    last_term = term_at(s, me, me.log.length)
    newer_log: bool = m.last_log_term > last_term
    longer_log: bool = (m.last_log_term == last_term) & (m.last_log_index >= me.log.length)
    return newer_log | longer_log


def unprepared(s: S, me: ServerVariables) -> ServerVariables:
    """Whatever let a server stand for election is over: it stands, or leads, or is in a newer term."""
    if s.has("pre_vote"):
        me = me.but(pre_votes=NO_VOTES, hears=NOBODY)
    return me.but(told_to_stand=False) if s.has("leadership_transfer") else me


def step_down(s: S, me: ServerVariables) -> ServerVariables:
    """Whoever follows has no votes, and knows nothing of what others store.

    Figure 2 resets `match_index` when leadership begins. Here it is when it ends: the same
    for every reader, and fewer states to explore.
    """
    me = unprepared(s, me).but(role=FOLLOWER, votes=NO_VOTES, next_index=Map(default=0))
    if s.has("reads") and s.follows("reads.give_up"):
        me = me.but(read_index=0, read_round=0, read_acks=NO_VOTES)
    return me.but(match_index=Map(default=0)) if s.follows("leader.reset_match_index") else me


def adopt(s: S, me: ServerVariables, term: Term) -> ServerVariables:
    """A newer term in any message is adopted. Figure 2, Rules for Servers, All Servers."""
    newer = term > me.current_term
    if s.rule("term.step_down", newer, without=False):
        me = step_down(s, me)
    adopts = s.rule("term.adopt_newer", newer, without=False)
    return me.but(
        current_term=ite(adopts, term, me.current_term),
        voted_for=ite(s.rule("term.fresh_vote", adopts, without=False), NOBODY, me.voted_for),
    )


def term_at(s: S, me: Any, n: Index) -> Term:
    """The term of entry n. Of what is compacted, a snapshot has its last one's."""
    term: Term = me.log.at(n).term
    if s.has("snapshots"):
        known = n >= me.snapshot_index if s.follows("snapshot.last_term") else n > me.snapshot_index
        term = ite(known, term, 0)
    return term


def with_leader(s: S, me: Any, m: Message, current: bool) -> Any:
    """A server that has heard from a leader of its term doesn't ask whether it should stand for election."""
    if not s.has("pre_vote"):
        return me
    found = s.rule("pre_vote.leader_found", current, without=False)
    return me.but(pre_votes=ite(found, NO_VOTES, me.pre_votes), hears=ite(current, m.source, me.hears))


# --- elections ---------------------------------------------------------------


@raft.action
def timeout(s: S, i: Server) -> Step:
    """Server i starts an election. Section 5.2."""
    me = s[i]
    term = me.current_term + 1 if s.follows("election.new_term") else me.current_term
    last_term = term_at(s, me, me.log.length)
    guards = [when("i is not leader", s.rule("election.not_leader", me.role != LEADER))]
    if s.has("pre_vote"):
        told = me.told_to_stand if s.has("leadership_transfer") else False
        expected = s.rule("pre_vote.majority", told | has_quorum(s, me, me.pre_votes.has, me.pre_votes.size))
        guards.append(when("a quorum would vote for i", expected))
    return Step(
        i,
        *guards,
        then=step_down(s, me).but(
            role=CANDIDATE,
            current_term=term,
            voted_for=i if s.follows("election.vote_for_self") else NOBODY,
            votes=NO_VOTES.add(i),
        ),
        send=[only_if(i != j, RequestVote(i, j, term, me.log.length, last_term)) for j in s.servers],
    )


@raft.action
def handle_request_vote(s: S, m: RequestVote) -> Step:
    """Server m.target decides whether to vote for m.source. Figure 2, RequestVote RPC."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    complete = up_to_date(s, me, m)
    grants = (
        s.rule("vote.current_term", m.term == me.current_term)
        & s.rule("vote.up_to_date", complete)
        & s.rule("vote.once_per_term", (me.voted_for == NOBODY) | (me.voted_for == m.source))
    )
    return Step(
        i,
        then=me.but(voted_for=ite(grants, m.source, me.voted_for)) if s.follows("vote.recorded") else me,
        send=only_if(
            grants | s.follows("vote.refuse"), RequestVoteReply(i, m.source, me.current_term, grants)
        ),
    )


@raft.action
def handle_request_vote_reply(s: S, m: RequestVoteReply) -> Step:
    """Candidate m.target counts a vote. Section 5.2."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    counts = (
        (me.role == CANDIDATE)
        & s.rule("vote.count_granted", m.granted)
        & s.rule("vote.count_current_term", m.term == me.current_term)
    )
    return Step(i, then=me.but(votes=ite(counts, me.votes.add(m.source), me.votes)))


@raft.action
def become_leader(s: S, i: Server) -> Step:
    """Candidate i wins the election. Figure 2, Rules for Servers, Candidates and Leaders."""
    me = s[i]
    won = has_quorum(s, me, me.votes.has, me.votes.size)
    next_index = me.next_index
    if s.follows("leader.initial_next_index"):
        next_index = set_each(next_index, s.servers, lambda j: me.log.length + 1)
    return Step(
        i,
        when("i is candidate", s.rule("election.candidate_only", me.role == CANDIDATE)),
        when("a quorum voted for i", s.rule("election.majority", won)),
        then=unprepared(s, me).but(role=LEADER, votes=NO_VOTES, next_index=next_index),
        history=s.past.but(leaders=s.past.leaders.set(me.current_term, i)),
    )


# --- replication -------------------------------------------------------------


@raft.action
def client_request(s: S, i: Server, v: Value) -> Step:
    """Leader i appends a client's command v to its log. Section 5.3."""
    me = s[i]
    term = me.current_term if s.follows("append.own_term") else me.log.last.term
    return Step(
        i,
        when("i is leader", s.rule("append.leader_only", me.role == LEADER)),
        then=me.but(log=me.log.append(Entry(term, v))),
        history=s.past.but(commands=s.past.commands + 1),
    )


@raft.action
def append_entries(s: S, i: Server, j: Server, prev: Index, size: Index, commit: Index) -> Step:
    """Leader i sends j the `size` entries after `prev`; a heartbeat has none. Section 5.3."""
    me: Any = s[i]
    kept: tuple[When, ...] = ()
    after = prev  # entries follow the one of index `after`
    if s.has("snapshots"):
        kept = (when("prev is kept", s.rule("snapshot.send_kept", prev >= me.snapshot_index)),)
        after = largest(prev, me.snapshot_index)
    return Step(
        i,
        when("i is leader", s.rule("replicate.leader_only", me.role == LEADER)),
        when("j is another server", i != j),
        when("the entries are in the log", after + size <= me.log.length),
        *kept,
        when("prev is before next_index", s.rule("replicate.next_index", prev + 1 == me.next_index[j])),
        when("commit is known to i", s.rule("replicate.commit_index", commit <= me.commit_index)),
        when("commit is all that i knows", s.rule("replicate.latest_commit", commit == me.commit_index)),
        send=AppendEntries(
            i, j, me.current_term, prev, term_at(s, me, prev), me.log.slice(after, after + size), commit
        ),
    )


def agrees_before(s: S, me: Any, m: AppendEntries) -> bool:
    """Whether a log has the entry that precedes the message's. What is compacted any leader has, too."""
    same: bool = me.log.at(m.prev_log_index).term == m.prev_log_term
    if not s.has("snapshots"):
        return same
    compacted = m.prev_log_index < me.snapshot_index
    return (same & no(compacted)) | s.rule("snapshot.compacted_joins", compacted, without=False)


def conflicts(s: S, me: Any, m: AppendEntries, k: int) -> bool:
    """Whether the message's k-th entry is another than the log has there."""
    n = m.prev_log_index + k
    differs: bool = me.log.at(n).term != m.entries.at(k).term
    return differs & (n > me.snapshot_index) if s.has("snapshots") else differs


@raft.action
def handle_append_entries(s: S, m: AppendEntries) -> Step:
    """Server m.target stores entries where they join onto its log. Figure 2, AppendEntries RPC."""
    i, me = m.target, adopt(s, s[m.target], m.term)
    current = s.rule("append.current_term", m.term == me.current_term)
    if s.rule("append.candidate_steps_down", current & (me.role != FOLLOWER), without=False):
        me = step_down(s, me)
    me = with_leader(s, me, m, current)
    joins = s.rule("append.previous_entry", agrees_before(s, me, m))
    if not (current & joins & s.rule("append.no_gap", m.prev_log_index <= me.log.length)):
        refusal = AppendEntriesReply(i, m.source, me.current_term, False, 0)
        return Step(i, then=me, send=refusal if s.follows("append.refuse") else ())

    match_index = m.prev_log_index + m.entries.length
    stored = me.log.length - m.prev_log_index  # how many of the entries' places are taken
    conflict = exists(
        smallest(stored, m.entries.length),
        lambda k: conflicts(s, me, m, k),
    )
    conflict = s.rule("append.truncate_conflict", conflict, without=False)
    cut = s.rule("append.truncate_only_conflict", conflict, without=True)
    if s.has("membership"):
        stays = ite(cut, m.prev_log_index, me.log.length)
        me = me.but(configured=newest_stored(s, me, stays, m.prev_log_index, m.entries))
    log = ite(
        cut,
        me.log.prefix(m.prev_log_index).concat(m.entries),
        me.log.concat(m.entries.slice(stored, m.entries.length)),
    )
    # The log may be longer, but only this prefix is known to be the leader's.
    acknowledged = ite(
        s.rule("append.acknowledge_matched", log.length <= match_index), log.length, match_index
    )
    certain = ite(s.rule("commit.follower_limit", log.length <= match_index), log.length, match_index)
    commit_index = smallest(m.leader_commit, certain)
    forward = s.rule("commit.never_back", commit_index > me.commit_index)
    return Step(
        i,
        then=me.but(log=log, commit_index=ite(forward, commit_index, me.commit_index)),
        send=AppendEntriesReply(i, m.source, me.current_term, True, acknowledged),
    )


@raft.action
def handle_append_entries_reply(s: S, m: AppendEntriesReply) -> Step:
    """Leader m.target learns what m.source stores, or that it must go back. Section 5.3."""
    i, j, me = m.target, m.source, adopt(s, s[m.target], m.term)
    if not ((me.role == LEADER) & s.rule("replicate.ack_current_term", m.term == me.current_term)):
        return Step(i, then=me)
    known, following = me.match_index[j], me.next_index[j]
    if s.rule("replicate.ack_success", m.success):
        known = ite(s.rule("commit.match_monotone", m.match_index > known), m.match_index, known)
        if s.follows("replicate.next_after_match"):
            following = largest(following, known + 1)
    elif s.follows("replicate.back_off"):
        following = largest(following - 1, known + 1)
    return Step(
        i,
        then=me.but(match_index=me.match_index.set(j, known), next_index=me.next_index.set(j, following)),
    )


# --- commitment --------------------------------------------------------------


@raft.action
def advance_commit_index(s: S, i: Server, n: Index) -> Step:
    """Leader i learns that entry n is committed. Figure 2, Rules for Servers, Leaders.

    The last guard is Figure 8: an entry of an older term may be on a majority and
    still be overwritten.
    """
    me = s[i]

    def stores(j: Server) -> bool:
        return (i == j) | (me.match_index[j] >= n)

    committed = has_quorum(s, me, stores, count(map(stores, s.servers)))
    after = me.but(commit_index=n)
    if s.has("membership"):
        left = (n >= me.configured) & has_left(s, me, me.configured, i)
        if s.rule("membership.removed_leader_steps_down", left, without=False):
            after = step_down(s, after)
    return Step(
        i,
        when("i is leader", s.rule("commit.leader_only", me.role == LEADER)),
        when("n is past commit_index", n > me.commit_index),
        when("n is in the log", s.rule("commit.in_log", n <= me.log.length)),
        when("a quorum stores n", s.rule("commit.majority", committed)),
        when("n is from current_term", s.rule("commit.current_term", me.log.at(n).term == me.current_term)),
        then=after,
        history=s.past.but(
            committed=s.past.committed.concat(me.log.slice(s.past.committed.length, n)),
            commits=s.past.commits.set(me.current_term, n),
        ),
    )


@raft.action
def apply_entries(s: S, i: Server, n: Index) -> Step:
    """Server i applies its entries up to n to its state machine. Figure 2, All Servers."""
    me = s[i]
    guards = [
        when("n is past last_applied", n > me.last_applied),
        when("n is committed", s.rule("apply.committed_only", n <= me.commit_index)),
    ]
    if not s.has("sessions"):
        return Step(i, *guards, then=me.but(last_applied=n))
    then, past = apply_one(s, me, n)
    return Step(i, *guards, when("n is next", n == me.last_applied + 1), then=then, history=past)


@raft.action
def restart(s: S, i: Server) -> Step:
    """Server i crashes and starts again with what is persistent. Figure 2, State."""
    me: Any = s[i]
    log = me.log if s.follows("restart.keep_log") else me.log.prefix(me.log.length - 1)
    n = 0
    if s.has("snapshots"):  # what a snapshot holds is committed and applied
        n = me.snapshot_index if s.follows("restart.keep_snapshot") else 0
        log = log if s.follows("restart.keep_snapshot") else ite(me.snapshot_index > 0, log.prefix(0), log)
    after: Any = type(me)(
        current_term=me.current_term if s.follows("restart.keep_term") else 0,
        voted_for=me.voted_for if s.follows("restart.keep_vote") else NOBODY,
        log=log,
        commit_index=n,
        last_applied=0 if s.has("sessions") else n,  # with sessions, entry by entry
    )
    if s.has("snapshots"):
        after = after.but(snapshot_index=n)
    if s.has("membership"):
        after = after.but(configured=newest_kept(s, me, log.length))
    return Step(
        i,
        then=after,
        history=s.past.but(restarts=s.past.restarts + 1),
    )

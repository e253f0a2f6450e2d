"""Why Raft's promises hold: the conjuncts of the invariant for Figure 2, small enough to be read.

Each is a claim about any state and any servers, terms, indices or messages; `raftspec.invariant` says of what
use. What is choosable is said in `raftspec.witnesses`.

    i, j, c  servers    t, u  terms, u the later one    n, k  indices    m  a message
"""

from __future__ import annotations

from raftspec.claims import conjunct, lemma_of
from raftspec.raft import (
    FOLLOWER,
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    RequestVoteReply,
    is_quorum,
)
from raftspec.types import Index, Server, Term
from raftspec.values import count, exists, forall, implies, ite, no, some
from raftspec.witnesses import W, acknowledged, choosable, has_own, leads, stands, started

# --- elections -----------------------------------------------------------------


@conjunct
def a1_votes_are_in_terms_reached(s: W, i: Server, t: Term, c: Server) -> bool:
    """Who voted in a term has reached it."""
    return implies(s[i].voted[t].has(c), t <= s[i].current_term)


@conjunct
def a2_current_vote_is_remembered(s: W, i: Server, c: Server) -> bool:
    """A vote in the current term is the one that is written down."""
    return implies(s[i].voted[s[i].current_term].has(c), s[i].voted_for == c)


@conjunct
def a3_nobody_votes_in_term_zero(s: W, i: Server, c: Server) -> bool:
    """Before the first election nobody has voted."""
    return no(s[i].voted[0].has(c))


@conjunct
def a4_one_vote_a_term(s: W, i: Server, t: Term) -> bool:
    """A server votes for one candidate in a term."""
    return s[i].voted[t].size <= 1


@conjunct
def a5_candidates_are_in_their_terms(s: W, i: Server, t: Term, c: Server) -> bool:
    """A candidate has reached the term that it gets votes in."""
    return implies(s[i].voted[t].has(c), t <= s[c].current_term)


@conjunct
def a6_counted_votes_were_given(s: W, c: Server, i: Server) -> bool:
    """The votes that a candidate counts were given to it in its term."""
    return implies(stands(s, c) & s[c].votes.has(i), s[i].voted[s[c].current_term].has(c))


@conjunct
def a7_candidates_vote_for_themselves(s: W, i: Server) -> bool:
    """Who stands for election, or leads, voted for itself."""
    return implies(s[i].role != FOLLOWER, s[i].voted[s[i].current_term].has(i))


@conjunct
def a8_only_candidates_have_votes(s: W, i: Server) -> bool:
    """Who doesn't stand for election has no votes."""
    return stands(s, i) | (s[i].votes.size == 0)


@conjunct
def a9_votes_sent_were_given(s: W, m: RequestVoteReply) -> bool:
    """A message that grants a vote comes from a server that gave it."""
    return implies(m.granted, s[m.source].voted[m.term].has(m.target))


@conjunct
def b1_leaders_have_a_quorum(s: W, t: Term, i: Server) -> bool:
    """Who was elected for a term has a quorum of votes in it."""
    votes = count(s[j].voted[t].has(i) for j in s.servers)
    return implies(s.past.leaders[t] == i, is_quorum(s, votes))


@conjunct
def b2_leaders_are_in_their_terms(s: W, t: Term, i: Server) -> bool:
    """Who was elected for a term has reached it, and it isn't term 0."""
    return implies(s.past.leaders[t] == i, (t <= s[i].current_term) & (t > 0))


@conjunct
def b4_leaders_were_elected(s: W, i: Server) -> bool:
    """Who leads was elected for its term."""
    return implies(leads(s, i), s.past.leaders[s[i].current_term] == i)


@conjunct
def b5_candidates_were_not_elected(s: W, i: Server) -> bool:
    """A candidate was not elected for its term before, and the term isn't 0."""
    elected = s.past.leaders[s[i].current_term] == i
    return implies(stands(s, i), no(elected) & (s[i].current_term > 0))


@conjunct
def r1_requests_are_in_terms_reached(s: W, m: RequestVote) -> bool:
    """Who asks for votes in a term has reached it, and it isn't term 0."""
    return (m.term > 0) & (m.term <= s[m.source].current_term)


@conjunct
def r2_requests_show_the_log(s: W, m: RequestVote) -> bool:
    """What a candidate says of its log is true as long as it stands."""
    me = s[m.source]
    running = stands(s, m.source) & (m.term == me.current_term)
    return implies(running, (m.last_log_index == me.log.length) & (m.last_log_term == me.log.last.term))


# --- logs ----------------------------------------------------------------------


@conjunct
def g3_logs_come_from_leaders(s: W, i: Server, n: Index) -> bool:
    """Up to an entry, a log is that of the leader of the entry's term."""
    log = s[i].log
    return implies((n > 0) & (n <= log.length), log.agrees(s.past.logs[log.at(n).term], n))


@conjunct
def g4_entries_are_of_terms_reached(s: W, i: Server, n: Index) -> bool:
    """No entry is of a term that its server has not reached."""
    return s[i].log.at(n).term <= s[i].current_term


@conjunct
def g6_leader_logs_are_of_past_terms(s: W, t: Term, n: Index) -> bool:
    """A leader's log has entries of its term and of earlier ones that somebody was elected for."""
    log = s.past.logs[t]
    term = log.at(n).term
    return implies((n > 0) & (n <= log.length), (term <= t) & (term > 0) & started(s, term) & started(s, t))


@conjunct
def g8_terms_grow_along_logs(s: W, t: Term, k: Index, n: Index) -> bool:
    """Along a leader's log terms never fall."""
    log = s.past.logs[t]
    return implies((k <= n) & (n <= log.length), log.at(k).term <= log.at(n).term)


@conjunct
def g9_leader_logs_share_prefixes(s: W, u: Term, n: Index) -> bool:
    """Up to an entry, a leader's log is that of the leader of the entry's term."""
    log = s.past.logs[u]
    return implies((n > 0) & (n <= log.length), log.agrees(s.past.logs[log.at(n).term], n))


@conjunct
def g10_leader_logs_are_known(s: W, i: Server) -> bool:
    """The log of who leads is the one known as its term's leader's."""
    log, known = s[i].log, s.past.logs[s[i].current_term]
    return implies(leads(s, i), (log.length == known.length) & log.agrees(known, log.length))


# --- AppendEntries, and what comes back -----------------------------------------


@conjunct
def m1_requests_join_the_leaders_log(s: W, m: AppendEntries) -> bool:
    """AppendEntries come from the term's leader, and name an entry of its log, or the log's beginning."""
    log = s.past.logs[m.term]
    known = (m.prev_log_index <= log.length) & (log.at(m.prev_log_index).term == m.prev_log_term)
    return (s.past.leaders[m.term] == m.source) & known


@conjunct
def m3_requests_carry_the_leaders_entries(s: W, m: AppendEntries) -> bool:
    """The entries sent are those of the leader's log."""
    log, before = s.past.logs[m.term], m.prev_log_index

    def same(k: int) -> bool:
        sent, has = m.entries.at(k), log.at(before + k)
        return (sent.term == has.term) & (sent.value == has.value)  # type: ignore[no-any-return]

    return (before + m.entries.length <= log.length) & forall(m.entries.length, same)


@conjunct
def m4_requests_tell_what_is_committed(s: W, m: AppendEntries) -> bool:
    """The commit index sent is covered by what the leader of this or an earlier term committed."""
    covered = exists(m.term, lambda t: m.leader_commit <= s.past.commits[t])
    return (m.leader_commit == 0) | covered


@conjunct
def k1_acknowledgements_are_in_terms_reached(s: W, i: Server, t: Term) -> bool:
    """Who acknowledged entries to a term's leader has reached the term, and there was that leader."""
    return implies(s[i].acked[t] > 0, (t <= s[i].current_term) & started(s, t))


@conjunct
def k2_acknowledged_entries_are_stored(s: W, i: Server) -> bool:
    """What was acknowledged in the current term is stored."""
    me = s[i]
    return me.log.agrees(s.past.logs[me.current_term], me.acked[me.current_term])


@conjunct
def k3_leaders_acknowledge_their_own(s: W, i: Server) -> bool:
    """Who leads counts itself among those that store its log."""
    return implies(leads(s, i), s[i].acked[s[i].current_term] == s[i].log.length)


@conjunct
def k4_acknowledged_entries_are_the_leaders(s: W, i: Server, t: Term) -> bool:
    """Nobody acknowledges more than the leader has."""
    return s[i].acked[t] <= s.past.logs[t].length


@conjunct
def k5_counted_entries_were_acknowledged(s: W, i: Server, j: Server) -> bool:
    """What a leader counts as stored was acknowledged to it in its term."""
    return implies(leads(s, i), s[i].match_index[j] <= s[j].acked[s[i].current_term])


@conjunct
def k6_only_leaders_count_entries(s: W, i: Server, j: Server) -> bool:
    """Who doesn't lead counts nothing as stored."""
    return leads(s, i) | (s[i].match_index[j] == 0)


@conjunct
def k7_acknowledgements_sent_were_given(s: W, m: AppendEntriesReply) -> bool:
    """A reply tells of entries only what its sender acknowledged."""
    return m.match_index <= ite(m.success, s[m.source].acked[m.term], 0)


# --- choosable: the heart of leader completeness ---------------------------------


@conjunct
def c1_choosable_entries_are_kept(s: W, i: Server, t: Term, n: Index) -> bool:
    """An entry that is choosable is still there at each server that acknowledged it."""
    kept = s[i].log.at(n).term == t
    return implies(acknowledged(s, i, t, n) & has_own(s, t, n) & choosable(s, t, n), kept)


@conjunct
def c2_later_leaders_have_choosable_entries(s: W, t: Term, u: Term, n: Index) -> bool:
    """An entry that is choosable is in the logs of all later leaders."""
    later = started(s, u) & (t < u)
    return implies(later & has_own(s, t, n) & choosable(s, t, n), s.past.logs[u].at(n).term == t)


@conjunct
def c3_voters_pass_choosable_entries_on(s: W, i: Server, c: Server, t: Term, n: Index) -> bool:
    """Whoever gets a vote from a server that acknowledged a choosable entry has a log that reaches as far."""
    term, log = s[c].current_term, s[c].log
    given = stands(s, c) & s[i].voted[term].has(c) & (t < term)
    reaches = (log.last.term > t) | ((log.last.term == t) & (log.length >= n))
    return implies(given & acknowledged(s, i, t, n) & has_own(s, t, n) & choosable(s, t, n), reaches)


# --- commitment --------------------------------------------------------------------


@conjunct
def d1_commits_are_of_the_leaders_term(s: W, t: Term) -> bool:
    """The last entry that a leader committed itself is of its term. Section 5.4.2."""
    n = s.past.commits[t]
    return implies(n > 0, has_own(s, t, n))


@conjunct
def d2_commits_were_acknowledged(s: W, t: Term) -> bool:
    """A quorum acknowledged what a leader committed."""
    n = s.past.commits[t]
    return implies(n > 0, is_quorum(s, count(acknowledged(s, j, t, n) for j in s.servers)))


@conjunct
def d3_commit_index_is_justified(s: W, i: Server) -> bool:
    """What a server takes for committed, the leader of a term that it has reached committed."""
    me = s[i]
    n = me.commit_index

    def justified(t: int) -> bool:
        return (n <= s.past.commits[t]) & me.log.agrees(s.past.logs[t], n)

    return (n == 0) | exists(me.current_term, justified)


@conjunct
def d4_leaders_know_their_commits(s: W, i: Server) -> bool:
    """Who leads knows what it committed in its term."""
    return implies(leads(s, i), s.past.commits[s[i].current_term] <= s[i].commit_index)


@conjunct
def d5_committed_is_in_leaders_logs(s: W, t: Term) -> bool:
    """What a leader committed is part of what was ever committed."""
    return s.past.logs[t].agrees(s.past.committed, s.past.commits[t])


@conjunct
def d6_committed_is_by_some_leader(s: W) -> bool:
    """All that was ever committed was committed by the leader of a term."""
    size = s.past.committed.length

    def by(i: str) -> bool:
        return exists(s[i].current_term, lambda t: s.past.commits[t] == size)

    return (size == 0) | some(by(i) for i in s.servers)


@conjunct
def d7_applied_is_committed(s: W, i: Server) -> bool:
    """A state machine has applied only what its server takes for committed."""
    return s[i].last_applied <= s[i].commit_index


@lemma_of()
def l3_leaders_have_what_earlier_ones_committed(s: W, t: Term, u: Term) -> bool:
    """What the leader of a term committed, leaders of later terms have."""
    return implies(started(s, u) & (t <= u), s.past.logs[t].agrees(s.past.logs[u], s.past.commits[t]))

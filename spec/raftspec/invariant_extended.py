"""What else holds in every state of Raft with an extension, so that the whole is inductive; see `invariant`.

i  a server    t  a term    m  a message
"""

from __future__ import annotations

from raftspec.claims import conjunct_of, lemma_of
from raftspec.leadership_transfer import TimeoutNow
from raftspec.raft import is_quorum
from raftspec.reads import ReadIndex, ReadIndexReply
from raftspec.snapshots import InstallSnapshot
from raftspec.types import Server, Term
from raftspec.values import count, exists, forall, implies, no
from raftspec.witnesses import W, leads, started

# --- snapshots -----------------------------------------------------------------


@conjunct_of("snapshots")
def s1_compacted_is_applied(s: W, i: Server) -> bool:
    """What a server has compacted, its state machine has applied; with sessions it may do so again."""
    me = s[i]
    return me.snapshot_index <= (me.commit_index if s.has("sessions") else me.last_applied)  # type: ignore[no-any-return]


@conjunct_of("snapshots")
def s2_snapshots_come_from_leaders(s: W, m: InstallSnapshot) -> bool:
    """A snapshot that is sent comes from the term's leader, and stands for the beginning of its log."""
    log = s.past.logs[m.term]
    return (s.past.leaders[m.term] == m.source) & m.prefix.agrees(log, m.prefix.length)


@conjunct_of("snapshots")
def s3_snapshots_are_of_committed_entries(s: W, m: InstallSnapshot) -> bool:
    """What a snapshot that is sent stands for, the leader of its term or of an earlier one committed."""
    return exists(m.term, lambda t: m.prefix.length <= s.past.commits[t])


@lemma_of("snapshots")
def l1_compacted_is_stored(s: W, i: Server) -> bool:
    """What is compacted are entries of the log."""
    return s[i].snapshot_index <= s[i].log.length  # type: ignore[no-any-return]


@lemma_of("snapshots")
def l2_leaders_have_what_is_committed(s: W, i: Server, u: Term) -> bool:
    """What a server takes for committed, the leaders of its term and of later ones have."""
    me, log = s[i], s.past.logs[u]
    return implies(started(s, u) & (me.current_term <= u), me.log.agrees(log, me.commit_index))


# --- leadership transfer ---------------------------------------------------------


@conjunct_of("leadership_transfer")
def t1_told_by_leaders(s: W, m: TimeoutNow) -> bool:
    """Who tells another to stand was elected for the term."""
    return s.past.leaders[m.term] == m.source


@conjunct_of("leadership_transfer")
def t2_told_in_terms_with_leaders(s: W, i: Server) -> bool:
    """Who was told to stand is in a term that somebody was elected for."""
    return implies(s[i].told_to_stand, started(s, s[i].current_term))


def _has_what_is_older(s: W, i: Server, t: Term) -> bool:
    """What the leader of term t had from older terms, server i told it that it stores."""
    log = s.past.logs[t]
    return forall(log.length, lambda n: (n <= s[i].acked[t]) | (log.at(n).term == t))


@conjunct_of("leadership_transfer")
def t3_told_when_complete(s: W, m: TimeoutNow) -> bool:
    """Who is asked to stand has acknowledged what its leader had from older terms."""
    return _has_what_is_older(s, m.target, m.term)


@conjunct_of("leadership_transfer")
def t4_whoever_was_told_is_complete(s: W, i: Server) -> bool:
    """Who was told to stand has acknowledged what its leader had from older terms."""
    return implies(s[i].told_to_stand, _has_what_is_older(s, i, s[i].current_term))


@lemma_of("leadership_transfer")
def l4_whoever_was_told_has_what_was_committed(s: W, i: Server, t: Term) -> bool:
    """Who was told to stand stores what the leader of an earlier term committed."""
    earlier = s[i].told_to_stand & (t < s[i].current_term)
    return implies(earlier, s[i].log.agrees(s.past.logs[t], s.past.commits[t]))


# --- reads -----------------------------------------------------------------------


@conjunct_of("reads")
def f1_only_leaders_count_answers(s: W, i: Server, j: Server) -> bool:
    """Who doesn't lead has no round under way."""
    return leads(s, i) | no(s[i].read_acks.has(j))


@conjunct_of("reads")
def f2_counted_answers_were_given(s: W, i: Server, j: Server) -> bool:
    """Whom a leader counts has answered its round, or a later one."""
    me = s[i]
    return implies(me.read_acks.has(j), me.read_round <= s[j].answered[me.current_term])


@conjunct_of("reads")
def f3_answers_sent_were_given(s: W, m: ReadIndexReply) -> bool:
    """An answer names a round only if its sender, in this term, has answered it."""
    return m.round <= s[m.source].answered[m.term]  # type: ignore[no-any-return]


@conjunct_of("reads")
def f4_questions_come_from_leaders(s: W, m: ReadIndex) -> bool:
    """Who asks was elected for the term, and as long as it leads has begun that round."""
    me = s[m.source]
    begun = implies(leads(s, m.source) & (m.term == me.current_term), m.round <= me.read_round)
    return (s.past.leaders[m.term] == m.source) & begun & (m.term <= me.current_term)


@conjunct_of("reads")
def f5_answered_rounds_were_begun(s: W, i: Server, j: Server) -> bool:
    """Nobody has answered a round that its leader hasn't begun."""
    return implies(leads(s, i), s[j].answered[s[i].current_term] <= s[i].read_round)


@conjunct_of("reads")
def f6_answers_are_to_leaders(s: W, j: Server, t: Term) -> bool:
    """Only in terms that somebody was elected for are there rounds."""
    return implies(s[j].answered[t] > 0, started(s, t))


@conjunct_of("reads")
def f7_a_round_fails_or_its_readers_see_all(s: W, i: Server) -> bool:
    """If a leader didn't know all that was committed when its round began, a quorum can't answer any more."""
    me, term = s[i], s[i].current_term
    gone = count((s[j].current_term > term) & (s[j].answered[term] < me.read_round) for j in s.servers)
    return implies(me.read_acks.has(i), (s.past.asked[i] <= me.read_index) | is_quorum(s, gone))


@conjunct_of("reads")
def f8_readers_saw_what_was_committed(s: W) -> bool:
    """Who was answered saw all that had been committed when it asked."""
    return s.past.needed <= s.past.seen  # type: ignore[no-any-return]


@lemma_of("reads")
def l5_leaders_know_what_earlier_ones_committed(s: W, i: Server, t: Term) -> bool:
    """Once an entry of its term is committed, a leader knows all that leaders up to then committed."""
    me = s[i]
    knows = leads(s, i) & (me.log.at(me.commit_index).term == me.current_term)
    return implies(knows & (t <= me.current_term), s.past.commits[t] <= me.commit_index)


@lemma_of("reads")
def l6_commits_are_in_terms_reached(s: W, t: Term) -> bool:
    """Where a leader committed anything, a quorum has reached its term."""
    reached = count(s[j].current_term >= t for j in s.servers)
    return implies(s.past.commits[t] > 0, is_quorum(s, reached))

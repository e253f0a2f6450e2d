"""What Raft promises: properties of states, of steps, and of what history recorded.

Figure 3 of the paper, section 5.4, and what Figure 2's variables must always satisfy.
Importing this module adds them to the specification.

    s  the state, or the one before a step     t  the state after it
"""

from __future__ import annotations

from raftspec.raft import LEADER, NOBODY, S, is_quorum, raft
from raftspec.values import count, every, forall, implies, no, some

# What only Figure 2's own choices make true: a server that chooses otherwise is not wrong.
BY_POLICY = frozenset({"next_index_after_match"})

__all__ = ["raft"]  # with its properties


# --- states ------------------------------------------------------------------


@raft.invariant
def election_safety(s: S) -> bool:
    """At most one server leads in a term. Figure 3."""

    def both_lead(i: str, j: str) -> bool:
        return (s[i].role == LEADER) & (s[j].role == LEADER) & (s[i].current_term == s[j].current_term)

    return every(implies(i < j, no(both_lead(i, j))) for i in s.servers for j in s.servers)


@raft.invariant
def log_matching(s: S) -> bool:
    """Two logs with an entry of the same index and term are equal up to it. Figure 3."""

    def up_to(i: str, j: str, n: int) -> bool:
        a, b = s[i].log, s[j].log
        return implies((a.at(n).term == b.at(n).term) & (n <= b.length), a.agrees(b, n))

    return every(
        implies(i < j, forall(s[i].log.length, lambda n, i=i, j=j: up_to(i, j, n)))  # type: ignore[misc]
        for i in s.servers
        for j in s.servers
    )


@raft.invariant
def leader_completeness(s: S) -> bool:
    """A leader has every entry that leaders of earlier terms committed. Figure 3."""

    def has_all(i: str, term: int) -> bool:
        return implies(term < s[i].current_term, s[i].log.agrees(s.past.committed, s.past.commits[term]))

    return every(
        implies(s[i].role == LEADER, forall(s[i].current_term, lambda t, i=i: has_all(i, t)))  # type: ignore[misc]
        for i in s.servers
    )


@raft.invariant
def state_machine_safety(s: S) -> bool:
    """No two servers commit different entries at an index. Figure 3; consensus calls it agreement."""
    return every(s[i].log.agrees(s.past.committed, s[i].commit_index) for i in s.servers)


@raft.invariant
def committed_on_quorum(s: S) -> bool:
    """What was committed stays in the logs of a quorum: it is durable. Section 5.4."""
    size = s.past.committed.length
    if s.has(
        "membership"
    ):  # of which servers it must be, no state tells; `leader_completeness` says the rest
        return (size == 0) | some(s[i].log.agrees(s.past.committed, size) for i in s.servers)
    return is_quorum(s, count(s[i].log.agrees(s.past.committed, size) for i in s.servers))


@raft.invariant
def integrity(s: S) -> bool:
    """No command is committed twice. The textbook's consensus, section "integrity"."""
    log = s.past.committed
    return forall(
        log.length, lambda n: forall(n, lambda k: implies(k < n, log.at(k).value != log.at(n).value))
    )


@raft.invariant
def applied_is_committed(s: S) -> bool:
    """A state machine applies only what its server knows to be committed. Section 5.3."""
    return every(s[i].last_applied <= s[i].commit_index for i in s.servers)


@raft.invariant
def commit_within_log(s: S) -> bool:
    """A server takes for committed only what it stores."""
    return every(s[i].commit_index <= s[i].log.length for i in s.servers)


@raft.invariant
def leader_voted_for_itself(s: S) -> bool:
    """A leader's own vote of the term was for itself. Section 5.2."""
    return every(implies(s[i].role == LEADER, s[i].voted_for == i) for i in s.servers)


@raft.invariant
def match_index_is_true(s: S) -> bool:
    """What a leader counts as stored is stored, unless a newer leader has spoken since. Figure 2."""
    return every(
        implies(
            (i != j) & (s[i].role == LEADER) & (s[j].current_term <= s[i].current_term),
            s[i].log.agrees(s[j].log, s[i].match_index[j]),
        )
        for i in s.servers
        for j in s.servers
    )


@raft.invariant
def next_index_after_match(s: S) -> bool:
    """A leader never sends again what it knows to be stored. Figure 2."""
    return every(
        implies(
            (i != j) & (s[i].role == LEADER) & (s[i].next_index[j] > 0),
            s[i].next_index[j] > s[i].match_index[j],
        )
        for i in s.servers
        for j in s.servers
    )


# --- steps -------------------------------------------------------------------


@raft.step_property
def one_leader_per_term(s: S, t: S) -> bool:
    """Who was elected for a term stays the only one, also after losing power. Figure 3."""

    def same(term: int) -> bool:
        before, after = s.past.leaders[term], t.past.leaders[term]
        return (before == NOBODY) | (before == after)

    return every(forall(s[i].current_term, same) for i in s.servers)


@raft.step_property
def terms_never_fall(s: S, t: S) -> bool:
    """A server's term only grows, also over a restart. Section 5.1."""
    return every(t[i].current_term >= s[i].current_term for i in s.servers)


@raft.step_property
def vote_is_kept(s: S, t: S) -> bool:
    """A vote is not changed within its term, also over a restart. Section 5.2."""
    return every(
        implies(
            (s[i].voted_for != NOBODY) & (s[i].current_term == t[i].current_term),
            s[i].voted_for == t[i].voted_for,
        )
        for i in s.servers
    )


@raft.step_property
def commit_never_falls(s: S, t: S) -> bool:
    """A commit index moves back only when a server restarts."""
    restarted = t.past.restarts > s.past.restarts
    return every(restarted | (t[i].commit_index >= s[i].commit_index) for i in s.servers)


@raft.step_property
def match_index_never_falls(s: S, t: S) -> bool:
    """As long as a server leads a term, what it counts as stored only grows. Figure 2, State."""

    def leads_on(i: str) -> bool:
        same_term = s[i].current_term == t[i].current_term
        return (s[i].role == LEADER) & (t[i].role == LEADER) & same_term

    return every(
        implies(leads_on(i), t[i].match_index[j] >= s[i].match_index[j]) for i in s.servers for j in s.servers
    )


@raft.step_property
def leader_append_only(s: S, t: S) -> bool:
    """A leader never overwrites or deletes entries of its log. Figure 3."""
    return every(
        implies((s[i].role == LEADER) & (t[i].role == LEADER), s[i].log.agrees(t[i].log, s[i].log.length))
        for i in s.servers
    )


@raft.step_property
def committed_never_changes(s: S, t: S) -> bool:
    """Entries that a server knows to be committed stay in its log. Section 5.4."""
    return every(
        s[i].log.agrees(t[i].log, s[i].commit_index) | (s[i].commit_index > s[i].log.length)
        for i in s.servers
    )


@raft.step_property
def only_leaders_commit(s: S, t: S) -> bool:
    """An entry becomes committed by a leader, and is in its log. Section 5.3."""
    grows = t.past.committed.length > s.past.committed.length

    def by_leader(i: str) -> bool:
        acts = t[i].commit_index != s[i].commit_index
        return implies(
            grows & acts, (s[i].role == LEADER) & s[i].log.agrees(t.past.committed, t[i].commit_index)
        )

    return every(by_leader(i) for i in s.servers)


# --- what eventually happens -------------------------------------------------


@raft.eventually
def termination(s: S) -> bool:
    """A command is decided in the end, if its client tries each new leader. The textbook's consensus."""
    return s.past.committed.length > 0

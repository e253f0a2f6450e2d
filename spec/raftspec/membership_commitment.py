"""What leaders commit while voters change: it follows from the conjuncts in any state.

That later leaders have what was decided (`membership_lemmas`) is said here once more of what may be decided:
a leader of an older term can still commit an entry, when later leaders have committed others. Its decision
isn't written down yet, but the majority is there, and that is all that it takes.

    t, u  terms, u the later one    n  an index    x  the configuration that may decide
"""

from __future__ import annotations

from raftspec.claims import lemma_of
from raftspec.configurations import votes
from raftspec.invariant_figure_2 import l3_leaders_have_what_earlier_ones_committed
from raftspec.invariant_membership import W, changes, known, majority, none_between
from raftspec.membership_lemmas import (
    NAME,
    Later,
    agree,
    before,
    child,
    has,
    last,
    leader,
    met,
    parent,
    siblings,
    single,
)
from raftspec.types import Index, Server, Term
from raftspec.values import implies, no, smallest, some
from raftspec.witnesses import acknowledged, has_own, leads, started

# As without membership, where it follows from other conjuncts.
lemma_of(NAME)(l3_leaders_have_what_earlier_ones_committed)


@lemma_of(NAME)
def l7_somebody_stores_what_was_committed(s: W, t: Term) -> bool:
    """Somebody stores what the leader of a term committed."""
    log, n = s.past.logs[t], s.past.commits[t]
    return (n == 0) | some(s[j].log.agrees(log, n) for j in s.servers)  # type: ignore[no-any-return]


@lemma_of(NAME)
def l8_somebody_votes(s: W, i: Server) -> bool:
    """Where somebody leads, somebody votes."""
    voter = votes(s, s[i], s[i].configured)
    return implies(leads(s, i), some(voter(j) for j in s.servers))


# --- what may be decided -----------------------------------------------------------------------


def placed(s: W, t: Term, n: Index, x: Index) -> bool:
    """Entry n of the leader of term t is its own, and x its newest configuration up to n, or a later one."""
    log = s.past.logs[t]
    newest = known(s, log, x) & none_between(s, log, x, n)
    return has_own(s, t, n) & (n <= log.length) & newest  # type: ignore[no-any-return]


def decidable(s: W, t: Term, n: Index, x: Index) -> bool:
    """A majority of configuration x acknowledged the entry to its leader."""
    return placed(s, t, n, x) & majority(s, s.past.logs[t], x, lambda j: acknowledged(s, j, t, n))


def no_newer(s: W, later: Later, t: Term) -> bool:
    """There are both leaders, and the later one's log ended in no later term than the other's."""
    return started(s, t) & later.there & (t < later.term) & (last(later) <= t)


def near(s: W, later: Later, t: Term, x: Index) -> bool:
    """The configurations are the same, or one follows the other, or both follow the same one."""
    log, y = s.past.logs[t], later.y
    p, q = before(s, log, x), before(s, later.log, y)
    follow = ((y > 0) & (q == x)) | ((x > 0) & (p == y)) | ((x > 0) & (y > 0) & (p == q))
    return ((x == y) & agree(log, later.log, x)) | follow


@lemma_of(NAME)
def y1_leaders_have_what_y_came_after(s: W, t: Term, u: Term) -> bool:
    """What is before y, the leader of term t has."""
    later, log = leader(s, u), s.past.logs[t]
    q = before(s, later.log, later.y)
    return implies(no_newer(s, later, t) & (later.y > 0), agree(log, later.log, q) & known(s, log, q))


@lemma_of(NAME)
def y2_configurations_are_near(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """The later leader has the entry, or the configurations are near each other."""
    later = leader(s, u)
    return implies(no_newer(s, later, t) & placed(s, t, n, x), has(later, t, n) | near(s, later, t, x))


@lemma_of(NAME)
def y3_one_configuration_follows(s: W, t: Term, x: Index, y: Index) -> bool:
    """In one log, one configuration follows another."""
    log = s.past.logs[t]
    siblings = changes(s, log, x) & changes(s, log, y) & (before(s, log, x) == before(s, log, y))
    return implies(siblings, x == y)


@lemma_of(NAME)
def y4_siblings_in_one_log_are_the_same(s: W, t: Term, u: Term, x: Index) -> bool:
    """If the later leader's log ended in term t, both follow the same one only if they are the same."""
    later, log = leader(s, u), s.past.logs[t]
    there = later.there & (t < u) & (last(later) == t) & changes(s, log, x)
    siblings = (later.y > 0) & (before(s, log, x) == before(s, later.log, later.y))
    return implies(there & siblings, (x == later.y) & agree(log, later.log, x))


@lemma_of(NAME)
def y5_rivals_are_the_same(s: W, t: Term, u: Term, x: Index) -> bool:
    """So two changes of a single server are the same if they follow the same configuration."""
    later, log = leader(s, u), s.past.logs[t]
    siblings = (later.y > 0) & (before(s, log, x) == before(s, later.log, later.y))
    rivals = changes(s, log, x) & siblings & single(s, log, later, x)
    return implies(no_newer(s, later, t) & rivals, (x == later.y) & agree(log, later.log, x))


@lemma_of(NAME)
def y6_the_same_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If x and y are the same, majorities meet."""
    later, log = leader(s, u), s.past.logs[t]
    same = (x == later.y) & agree(log, later.log, x)
    return implies(later.there & decidable(s, t, n, x) & same, met(s, later, t, n))


@lemma_of(NAME)
def y7_children_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If y follows x, majorities meet."""
    later = leader(s, u)
    close = child(s, s.past.logs[t], later, x)
    return implies(later.there & decidable(s, t, n, x) & close, met(s, later, t, n))


@lemma_of(NAME)
def y8_parents_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If x follows y, majorities meet."""
    later = leader(s, u)
    close = parent(s, s.past.logs[t], later, x)
    return implies(later.there & decidable(s, t, n, x) & close, met(s, later, t, n))


@lemma_of(NAME)
def y9_siblings_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If both follow one, and one of the three is joint, majorities meet."""
    later, log = leader(s, u), s.past.logs[t]
    close = siblings(s, log, later, x) & no(single(s, log, later, x))
    return implies(later.there & decidable(s, t, n, x) & close, met(s, later, t, n))


@lemma_of(NAME)
def y10_joint_or_not_siblings_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If both follow the same one, majorities meet, joint or not."""
    later = leader(s, u)
    both = (x > 0) & (later.y > 0) & (before(s, s.past.logs[t], x) == before(s, later.log, later.y))
    return implies(no_newer(s, later, t) & decidable(s, t, n, x) & both, met(s, later, t, n))


@lemma_of(NAME)
def y11_near_ones_meet(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If they are near each other, majorities meet."""
    later = leader(s, u)
    there = no_newer(s, later, t) & decidable(s, t, n, x)
    return implies(there & near(s, later, t, x), met(s, later, t, n))


@lemma_of(NAME, "u", 0)
def y12_who_meet_pass_on(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If majorities meet, who comes later has the entry, or its log ended in a later term."""
    later = leader(s, u)
    there = later.there & (t < u) & (last(later) <= t) & decidable(s, t, n, x)
    return implies(there & met(s, later, t, n), has(later, t, n))


@lemma_of(NAME, "u", 0)
def y13_newer_leaders_pass_on(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """If its log ended in a later term, it has the entry from that term's leader."""
    later = leader(s, u)
    there = later.there & (t < u) & (last(later) > t) & decidable(s, t, n, x)
    return implies(there, has(later, t, n))


@lemma_of(NAME, "u", 1)
def y14_they_have_what_may_be_decided(s: W, t: Term, u: Term, n: Index, x: Index) -> bool:
    """What may be decided, later leaders have."""
    later = leader(s, u)
    return implies(later.there & (t < u) & decidable(s, t, n, x), has(later, t, n))


# --- what who leads may commit ------------------------------------------------------------------


def committable(s: W, i: Server, n: Index) -> bool:
    """Who leads may commit entry n, as far as it knows."""
    me = s[i]
    stored = majority(s, me.log, me.configured, lambda j: (i == j) | (me.match_index[j] >= n))
    own = (n > 0) & (n <= me.log.length) & (me.log.at(n).term == me.current_term)
    return leads(s, i) & own & stored  # type: ignore[no-any-return]


@lemma_of(NAME)
def z1_leaders_count_what_was_acknowledged(s: W, i: Server, t: Term, n: Index, x: Index) -> bool:
    """What who leads may commit, may be decided by its newest configuration."""
    of = (t == s[i].current_term) & (x == s[i].configured)
    return implies(committable(s, i, n) & of, decidable(s, t, n, x))


@lemma_of(NAME)
def z2_later_leaders_have_it(s: W, i: Server, u: Term, n: Index) -> bool:
    """So later leaders have it."""
    t = s[i].current_term
    return implies(committable(s, i, n) & started(s, u) & (t < u), s.past.logs[u].at(n).term == t)


@lemma_of(NAME)
def z3_it_fits_what_was_committed(s: W, i: Server, n: Index) -> bool:
    """So it is what was committed, as far as that goes."""
    log, done = s[i].log, s.past.committed
    return implies(committable(s, i, n), log.agrees(done, smallest(n, done.length)))

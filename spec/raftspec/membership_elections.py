"""One leader a term, while voters change: it follows from the conjuncts in any state.

Two that win an election in one term have the same past: each has what was decided in earlier terms
(`membership_lemmas`). So, as there, their configurations x and y are the same, or one follows the other, or
both follow the same one, and majorities share a server, which would have voted twice.

    c  a candidate     x, y  the configurations by which the leader of its term and it are elected
"""

from __future__ import annotations

from typing import NamedTuple

from raftspec.claims import lemma_of
from raftspec.invariant_membership import W, changes, known
from raftspec.membership_lemmas import NAME, Later, agree, before, leader, siblings, single, winner
from raftspec.types import Index, Server, Term
from raftspec.values import implies, no, some
from raftspec.witnesses import started


class Duel(NamedTuple):
    """A candidate that wins in a term which has a leader, if there is one."""

    there: bool
    leader: Later
    winner: Later


def duel(s: W, c: Server) -> Duel:
    """Candidate c, and the leader of its term."""
    a, b = leader(s, s[c].current_term), winner(s, c)
    return Duel(a.there & b.there, a, b)


def came_after(s: W, one: Later, other: Later) -> bool:
    """What one's configuration came after, the other has, and it is not after its own."""
    p = before(s, one.log, one.y)
    return agree(one.log, other.log, p) & known(s, other.log, p) & (p <= other.y) & (p < one.y)


def rivals(s: W, d: Duel) -> bool:
    """Both configurations are changes of a single server, after the same one."""
    a, b, x = d.leader, d.winner, d.leader.y
    return d.there & changes(s, a.log, x) & siblings(s, a.log, b, x) & single(s, a.log, b, x)


def secured(s: W, one: Later) -> Index:
    """The entry that was decided before one's configuration was made."""
    return s.past.secured[one.log.at(one.y).value]  # type: ignore[no-any-return]


def made(one: Later) -> Term:
    """The term in which one's configuration was made."""
    return one.log.at(one.y).term


@lemma_of(NAME)
def x1_leaders_have_what_y_came_after(s: W, c: Server) -> bool:
    """What is before y, the leader has."""
    d = duel(s, c)
    return implies(d.there & (d.winner.y > 0), came_after(s, d.winner, d.leader))


@lemma_of(NAME)
def x2_winners_have_what_x_came_after(s: W, c: Server) -> bool:
    """What is before x, who wins has."""
    d = duel(s, c)
    return implies(d.there & (d.leader.y > 0), came_after(s, d.leader, d.winner))


@lemma_of(NAME)
def x3_they_are_near(s: W, c: Server) -> bool:
    """Both are the first configuration, or one follows the other, or both follow the same one."""
    d = duel(s, c)
    x, y = d.leader.y, d.winner.y
    p, q = before(s, d.leader.log, x), before(s, d.winner.log, y)
    follow = ((y > 0) & (q == x)) | ((x > 0) & (p == y)) | ((x > 0) & (y > 0) & (p == q))
    return implies(d.there, ((x == 0) & (y == 0)) | follow)


@lemma_of(NAME)
def x4_y_is_after_what_secured_x(s: W, c: Server) -> bool:
    """Of rivals, y comes after what was decided before x was made."""
    d = duel(s, c)
    n = secured(s, d.leader)
    return implies(rivals(s, d), (n > 0) & (n < d.winner.y) & (d.winner.log.at(n).term == made(d.leader)))


@lemma_of(NAME)
def x5_x_is_after_what_secured_y(s: W, c: Server) -> bool:
    """Of rivals, x comes after what was decided before y was made."""
    d = duel(s, c)
    n = secured(s, d.winner)
    return implies(rivals(s, d), (n > 0) & (n < d.leader.y) & (d.leader.log.at(n).term == made(d.winner)))


@lemma_of(NAME)
def x6_rivals_are_of_one_term(s: W, c: Server) -> bool:
    """Of rivals, neither is newer."""
    d = duel(s, c)
    return implies(rivals(s, d), made(d.leader) == made(d.winner))


@lemma_of(NAME)
def x7_rivals_are_the_same(s: W, c: Server) -> bool:
    """So they are one."""
    d = duel(s, c)
    x = d.leader.y
    return implies(rivals(s, d), (x == d.winner.y) & agree(d.leader.log, d.winner.log, x))


@lemma_of(NAME)
def x8_majorities_meet(s: W, c: Server) -> bool:
    """So somebody voted for both."""
    d = duel(s, c)
    return implies(d.there, some(d.leader.voted(j) & d.winner.voted(j) for j in s.servers))


@lemma_of(NAME)
def e1_winners_are_alone(s: W, c: Server) -> bool:
    """If a candidate wins, nobody was elected for its term."""
    return implies(winner(s, c).there, no(started(s, s[c].current_term)))

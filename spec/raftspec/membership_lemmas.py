"""Leader completeness while voters change: it follows from the conjuncts in any state, by induction on terms.

A decision (t, n, x): the leader of term t committed its entry n by a majority of the configuration of entry
x. Who comes later, as the leader of a term, was elected by the newest configuration y of its log. If x and y
are the same, or one follows the other, or both follow the same one and not both are changes of a single
server, majorities of both share a server: it acknowledged the entry, voted for who came later, and didn't
vote for a log that lacks the entry. That they are so related follows from what was decided before each was
made, in earlier terms or by earlier configurations. Of rivals, two changes of a single server, each leader
decided an entry of its term first, which the other has: so they are the same.

    t, u  terms, u the later one    n, k  indices    x  the configuration that decided
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from raftspec.claims import LEMMAS, RANKS
from raftspec.configurations import Who
from raftspec.invariant_membership import Log, W, changes, joint, known, majority
from raftspec.spec import Property
from raftspec.types import INDEX, SERVER, TERM, Index, Server, Term
from raftspec.values import implies, no, some
from raftspec.witnesses import acknowledged, has_own, stands, started

NAME = "membership"


class Later(NamedTuple):
    """Who comes later, if it does: its term, its log, how much of that it had when elected, y, its voters."""

    there: bool
    term: Term
    log: Log
    length: Index
    y: Index
    voted: Who


def leader(s: W, u: Term) -> Later:
    """The leader of term u."""
    past = s.past
    return Later(started(s, u), u, past.logs[u], past.began[u], past.elected[u], past.ballots[u].has)


def winner(s: W, c: Server) -> Later:
    """Candidate c, if a majority of the configuration that it goes by voted for it."""
    me, term = s[c], s[c].current_term

    def voted(j: Server) -> bool:
        return s[j].voted[term].has(c)  # type: ignore[no-any-return]

    wins = stands(s, c) & majority(s, me.log, me.configured, voted)
    return Later(wins, term, me.log, me.log.length, me.configured, voted)


# --- what lemmas speak of ---------------------------------------------------------------


def decided(s: W, t: Term, n: Index, x: Index) -> bool:
    """The leader of term t committed its own entry n by the configuration of entry x."""
    v = s.past.logs[t].at(n).value
    return has_own(s, t, n) & s.past.decided[v] & (s.past.by[v] == x)  # type: ignore[no-any-return]


def concerns(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """There is such a decision, and who comes later."""
    return later.there & (t < later.term) & decided(s, t, n, x)


def has(later: Later, t: Term, n: Index) -> bool:
    """Who comes later has entry n of term t."""
    return later.log.at(n).term == t


def last(later: Later) -> Term:
    """The term in which its log ended when it was elected."""
    return later.log.at(later.length).term


def agree(a: Log, b: Log, n: Index) -> bool:
    """Two logs are the same up to n. That their entries n are is said once more, as a hint for provers."""
    same = (a.at(n).term == b.at(n).term) & (a.at(n).value == b.at(n).value)
    return a.agrees(b, n) & same  # type: ignore[no-any-return]


def before(s: W, log: Log, x: Index) -> Index:
    """The configuration before that of entry x."""
    return s.past.parent[log.at(x).value]  # type: ignore[no-any-return]


def met(s: W, later: Later, t: Term, n: Index) -> bool:
    """Somebody acknowledged the entry to the leader of term t, and voted for who comes later."""
    return some(acknowledged(s, j, t, n) & later.voted(j) for j in s.servers)


def child(s: W, log: Log, later: Later, x: Index) -> bool:
    """The configuration y is the one after x."""
    return (later.y > 0) & (before(s, later.log, later.y) == x) & agree(log, later.log, x)


def parent(s: W, log: Log, later: Later, x: Index) -> bool:
    """The configuration y is the one before x."""
    return (x > 0) & (before(s, log, x) == later.y) & agree(log, later.log, later.y)


def siblings(s: W, log: Log, later: Later, x: Index) -> bool:
    """Both configurations are made after the same one."""
    p = before(s, log, x)
    return (x > 0) & (later.y > 0) & (before(s, later.log, later.y) == p) & agree(log, later.log, p)


def single(s: W, log: Log, later: Later, x: Index) -> bool:
    """None of these configurations is joint."""
    return no(joint(s, log, before(s, log, x))) & no(joint(s, log, x)) & no(joint(s, later.log, later.y))


def rivals(s: W, later: Later, t: Term, x: Index) -> bool:
    """Both are changes of a single server, after the same configuration; the later log ended earlier."""
    log = s.past.logs[t]
    there = later.there & (t < later.term) & started(s, t) & (last(later) < t) & changes(s, log, x)
    return there & siblings(s, log, later, x) & single(s, log, later, x)


def lemma(
    number: int, kind: int | None, *params: str
) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Declare two lemmas of who comes later: of leaders (J), and of candidates that win (W).

    With a kind, it may use itself and others of the same, of leaders where their terms are smaller, or,
    if they are equal, decisions' terms, configurations, kinds, in this order.
    """

    def declare(claim: Callable[..., bool]) -> Callable[..., bool]:
        def of_leaders(s: W, u: Term, *rest: Any) -> bool:
            return claim(s, leader(s, u), *rest)

        def of_winners(s: W, c: Server, *rest: Any) -> bool:
            return claim(s, winner(s, c), *rest)

        x = "x" if "x" in params else 0
        types = {p: TERM if p == "t" else INDEX for p in params}
        for letter, held, who in (("j", of_leaders, {"u": TERM}), ("w", of_winners, {"c": SERVER})):
            name = f"{letter}{number}_{claim.__name__}"
            held.__doc__, held.__name__ = claim.__doc__, name
            of = OF_WINNERS if letter == "w" else LEMMAS.setdefault(NAME, {})
            of[name] = Property(name, held, 1, {**who, **types})
            if kind is not None:
                RANKS[name] = (*(["u"] if letter == "j" else []), "t", x, kind)
        return claim

    return declare


OF_WINNERS: dict[str, Property] = {}  # after all of leaders, which they may use


# --- what needs no induction ------------------------------------------------------------


@lemma(1, None, "t", "n", "k")
def logs_match(s: W, later: Later, t: Term, n: Index, k: Index) -> bool:
    """Two logs with entries of one term are the same up to the earlier of them. Figure 3."""
    log = s.past.logs[t]
    there = (n > 0) & (k > 0) & (n <= log.length) & (k <= later.log.length)
    same = implies(n <= k, agree(log, later.log, n)) & implies(k <= n, agree(log, later.log, k))
    return implies(there & (log.at(n).term == later.log.at(k).term), same)


@lemma(2, None)
def y_is_no_newer_than_the_last(s: W, later: Later) -> bool:
    """The configuration y is of no later term than the last entry."""
    return implies(later.there, later.log.at(later.y).term <= last(later))


@lemma(3, None)
def y_is_in_its_own_leaders_log(s: W, later: Later) -> bool:
    """If y isn't the first configuration, the leader that made it has it, with all before it."""
    y, d = later.y, later.log.at(later.y).term
    log = s.past.logs[d]
    own = changes(s, log, y) & (log.at(y).term == d) & agree(log, later.log, y)
    same = (before(s, log, y) == before(s, later.log, y)) & (before(s, log, y) < y)
    return implies(later.there & (y > 0), own & same)


@lemma(4, None, "t", "n", "x")
def the_same_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If x and y are the same, majorities meet."""
    same = (x == later.y) & agree(s.past.logs[t], later.log, x)
    return implies(concerns(s, later, t, n, x) & same, met(s, later, t, n))


@lemma(5, None, "t", "n", "x")
def children_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If y follows x, majorities meet."""
    return implies(concerns(s, later, t, n, x) & child(s, s.past.logs[t], later, x), met(s, later, t, n))


@lemma(6, None, "t", "n", "x")
def parents_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If x follows y, majorities meet."""
    return implies(concerns(s, later, t, n, x) & parent(s, s.past.logs[t], later, x), met(s, later, t, n))


@lemma(7, None, "t", "n", "x")
def siblings_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If both follow one, and one of the three is joint, majorities meet."""
    log = s.past.logs[t]
    close = siblings(s, log, later, x) & no(single(s, log, later, x))
    return implies(concerns(s, later, t, n, x) & close, met(s, later, t, n))


# --- what was decided before, who comes later has ---------------------------------------------


@lemma(8, 0, "t", "x")
def they_have_what_own_changes_came_after(s: W, later: Later, t: Term, x: Index) -> bool:
    """What is before a configuration that a leader made, who comes later has."""
    log = s.past.logs[t]
    own = changes(s, log, x) & (log.at(x).term == t)
    return implies(later.there & (t < later.term) & own, agree(log, later.log, before(s, log, x)))


@lemma(9, 1, "t", "x")
def they_have_what_changes_came_after(s: W, later: Later, t: Term, x: Index) -> bool:
    """What is before a configuration in a leader's log, who comes later has."""
    log = s.past.logs[t]
    there = later.there & (t < later.term) & changes(s, log, x)
    return implies(there, agree(log, later.log, before(s, log, x)))


@lemma(10, 1, "t")
def leaders_have_what_y_came_after(s: W, later: Later, t: Term) -> bool:
    """What is before y, a leader of a term after the later log's last has."""
    log = s.past.logs[t]
    between = started(s, t) & later.there & (t < later.term) & (last(later) < t)
    return implies(between & (later.y > 0), agree(log, later.log, before(s, later.log, later.y)))


@lemma(11, 2, "t", "x")
def what_is_before_x_is_not_after_y(s: W, later: Later, t: Term, x: Index) -> bool:
    """The configuration before x is in the later log, too, and not after y."""
    p = before(s, s.past.logs[t], x)
    there = later.there & (t < later.term) & changes(s, s.past.logs[t], x)
    return implies(there, (p <= later.y) & known(s, later.log, p))


@lemma(12, 2, "t", "n", "x")
def what_is_before_y_is_not_after_x(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """The configuration before y is in the leader's log, too: if it is after x, it is after the entry."""
    p = before(s, later.log, later.y)
    there = concerns(s, later, t, n, x) & started(s, t) & (later.y > 0) & (last(later) < t)
    return implies(there, has(later, t, n) | ((p <= x) & known(s, s.past.logs[t], p)))


@lemma(13, 2, "t", "x")
def they_have_what_was_secured(s: W, later: Later, t: Term, x: Index) -> bool:
    """What was decided before a change in a leader's log, who comes later has."""
    log = s.past.logs[t]
    n = s.past.secured[log.at(x).value]
    there = later.there & (t < later.term) & changes(s, log, x) & (n > 0)
    return implies(there, has(later, log.at(x).term, n))


@lemma(14, 1, "t")
def leaders_have_what_was_secured_before_y(s: W, later: Later, t: Term) -> bool:
    """What was decided before y was made, a leader of a term after the later log's last has."""
    n, d = s.past.secured[later.log.at(later.y).value], later.log.at(later.y).term
    between = started(s, t) & later.there & (t < later.term) & (last(later) < t)
    return implies(between & (later.y > 0) & (n > 0), s.past.logs[t].at(n).term == d)


# --- rivals are the same --------------------------------------------------------------------


@lemma(15, 3, "t", "x")
def y_is_after_what_secured_x(s: W, later: Later, t: Term, x: Index) -> bool:
    """Of rivals, y comes after what was decided before x was made."""
    n = s.past.secured[s.past.logs[t].at(x).value]
    return implies(rivals(s, later, t, x), (n > 0) & (n < later.y))


@lemma(16, 3, "t", "x")
def x_is_after_what_secured_y(s: W, later: Later, t: Term, x: Index) -> bool:
    """Of rivals, x comes after what was decided before y was made."""
    n = s.past.secured[later.log.at(later.y).value]
    return implies(rivals(s, later, t, x), (n > 0) & (n < x))


@lemma(17, 4, "t", "x")
def x_is_not_newer(s: W, later: Later, t: Term, x: Index) -> bool:
    """Of rivals, x is of no later term than y."""
    return implies(rivals(s, later, t, x), s.past.logs[t].at(x).term <= later.log.at(later.y).term)


@lemma(18, 4, "t", "x")
def y_is_not_newer(s: W, later: Later, t: Term, x: Index) -> bool:
    """Of rivals, y is of no later term than x."""
    return implies(rivals(s, later, t, x), later.log.at(later.y).term <= s.past.logs[t].at(x).term)


@lemma(19, 5, "t", "x")
def rivals_are_the_same(s: W, later: Later, t: Term, x: Index) -> bool:
    """So they are one."""
    return implies(rivals(s, later, t, x), (x == later.y) & agree(s.past.logs[t], later.log, x))


# --- leader completeness -----------------------------------------------------------------------


@lemma(20, 5, "t", "n", "x")
def who_meet_pass_on(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If majorities meet, who comes later has the entry, or its log ended in a later term."""
    there = concerns(s, later, t, n, x) & (last(later) <= t) & met(s, later, t, n)
    return implies(there, has(later, t, n))


@lemma(21, 5, "t", "n", "x")
def newer_leaders_pass_on(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If its log ended in a later term, it has the entry from that term's leader."""
    return implies(concerns(s, later, t, n, x) & (last(later) > t), has(later, t, n))


@lemma(22, 5, "t", "n", "x")
def the_same_logs_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If its log ended in the same term, it has the entry, or majorities meet."""
    there = concerns(s, later, t, n, x) & (last(later) == t)
    return implies(there, has(later, t, n) | met(s, later, t, n))


@lemma(23, 5, "t", "n", "x")
def older_logs_meet_or_are_rivals(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If its log ended in an earlier term, it has the entry, or majorities meet, or these are rivals."""
    there = concerns(s, later, t, n, x) & started(s, t) & (last(later) < t)
    return implies(there, has(later, t, n) | met(s, later, t, n) | rivals(s, later, t, x))


@lemma(24, 6, "t", "n", "x")
def they_have_it_or_meet(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """If its log ended in no later term, it has the entry, or majorities meet."""
    there = concerns(s, later, t, n, x) & (last(later) <= t)
    return implies(there, has(later, t, n) | met(s, later, t, n))


@lemma(25, 7, "t", "n", "x")
def they_have_what_was_decided(s: W, later: Later, t: Term, n: Index, x: Index) -> bool:
    """What was decided, later leaders have."""
    return implies(concerns(s, later, t, n, x), has(later, t, n))


LEMMAS[NAME] |= OF_WINNERS

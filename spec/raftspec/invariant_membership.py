"""Why Raft keeps its promises while its voters change: what holds in every state of Raft with membership.

What a majority is depends on the configuration, so these take the place of what `invariant` says of quorums.
An entry is chosen if a majority of a configuration that its leader goes by acknowledged it. That later
leaders have it follows from the other conjuncts in any state, by induction on terms: a configuration and
the one before it in a log have majorities that share a server; the one before was decided when it was
changed; and of two that follow the same one, not both are changes of a single server, or one was decided.

    t, u  terms, u the later one    n, k  indices    x  a configuration entry's index, 0 for the first one
    p  the configuration before x's in the log    v  a configuration entry's value
"""

from __future__ import annotations

from typing import Any, NamedTuple

from raftspec.claims import conjunct_of
from raftspec.configurations import Who, votes
from raftspec.raft import Entry
from raftspec.spec import State
from raftspec.types import Index, Server, Term, Value
from raftspec.values import Map, Seq, ServerSet, count, every, exists, forall, implies, ite, no
from raftspec.witnesses import Made, acknowledged, has_own, leads, stands, started


class Elections(Made):
    """What leaders went by."""

    configures: Map[Value, bool] = Map(default=False)  # whether a value stands for a configuration
    joins: Map[Value, bool] = Map(default=False)  # whether for a joint one
    made: Map[Value, Term] = Map(default=0)  # in which term
    decided: Map[Value, bool] = Map(default=False)  # whether its leader committed just up to it
    by: Map[Value, Index] = Map(default=0)  # by the majority of which configuration
    parent: Map[Value, Index] = Map(default=0)  # the configuration that was in force when this one was made
    secured: Map[Value, Index] = Map(default=0)  # an entry of the leader's term that was committed then, or 0
    elected: Map[Term, Index] = Map(default=0)  # the configuration in force when the leader was elected
    began: Map[Term, Index] = Map(default=0)  # how long its log was then
    ballots: Map[Term, ServerSet] = Map(default=ServerSet())  # whose votes the leader had counted then


W = State[Any, Any]
Log = Seq[Entry]


class Holder(NamedTuple):
    """Who has this log."""

    log: Log


def joint(s: W, log: Log, x: Index) -> bool:
    """Whether the configuration of entry x is an old and a new one together."""
    return s.past.joins[log.at(x).value]  # type: ignore[no-any-return]


def changes(s: W, log: Log, n: Index) -> bool:
    """Whether entry n is a configuration."""
    return (n > 0) & (n <= log.length) & s.past.configures[log.at(n).value]  # type: ignore[no-any-return]


def known(s: W, log: Log, x: Index) -> bool:
    """Whether x is a configuration of a log: one of its entries, or the first one."""
    return (x == 0) | changes(s, log, x)


def none_between(s: W, log: Log, x: Index, n: Index) -> bool:
    """No entry after x, up to n, is a configuration."""
    return forall(n, lambda k: (k <= x) | no(s.past.configures[log.at(k).value]))


def majority(s: W, log: Log, x: Index, who: Who) -> bool:
    """Those for whom `who` holds are a majority of the configuration of entry x, or of both in it."""

    def of(voters: Who) -> bool:
        size = count(voters(j) & who(j) for j in s.servers)
        return size + size > count(voters(j) for j in s.servers)

    old = s.past.outgoing[log.at(x).value].has
    return of(votes(s, Holder(log), x)) & (no(joint(s, log, x)) | of(old))


def overwritten(s: W, t: Term, n: Index, last: Term) -> bool:
    """A leader after term t, up to a last one, has another entry than n of term t."""
    return exists(last, lambda u: (t < u) & started(s, u) & (s.past.logs[u].at(n).term != t))


def reaches(log: Log, length: Index, t: Term, n: Index) -> bool:
    """A log of this length is at least as complete as one that ends with entry n of term t."""
    last = log.at(length).term
    return (last > t) | ((last == t) & (length >= n))


# --- configurations ----------------------------------------------------------------


@conjunct_of("membership")
def v1_no_entry_is_made(s: W) -> bool:
    """What stands for no entry is no configuration, and was never made."""
    return no(s.past.configures[0]) & (s.past.place[0] == 0)  # type: ignore[no-any-return]


@conjunct_of("membership")
def v2_entries_were_made(s: W, t: Term, n: Index) -> bool:
    """An entry of a leader's log was made there."""
    log = s.past.logs[t]
    v = log.at(n).value
    made = (s.past.place[v] == n) & (s.past.made[v] == log.at(n).term)
    return implies((n > 0) & (n <= log.length), made)


@conjunct_of("membership")
def v3_configurations_were_made(s: W, v: Value) -> bool:
    """Only what was made is decided, or a configuration: that has voters, and old ones if it is joint."""
    made = (s.past.place[v] > 0) | (no(s.past.configures[v]) & no(s.past.decided[v]))
    has = s.past.configures[v] == (s.past.voters[v].size > 0)
    had = s.past.joins[v] == (s.past.outgoing[v].size > 0)
    return made & has & had & implies(s.past.joins[v], s.past.configures[v])  # type: ignore[no-any-return]


@conjunct_of("membership")
def v4_the_newest_is_in_force(s: W, i: Server) -> bool:
    """A server goes by the newest configuration of its log."""
    log, x = s[i].log, s[i].configured
    return known(s, log, x) & none_between(s, log, x, log.length)


@conjunct_of("membership")
def v5_leaders_were_elected_by_the_newest(s: W, t: Term) -> bool:
    """A leader was elected by the newest configuration of the log that it had then."""
    log, x, length = s.past.logs[t], s.past.elected[t], s.past.began[t]
    newest = known(s, log, x) & none_between(s, log, x, length)
    return newest & (x <= length) & (length <= log.length)  # type: ignore[no-any-return]


@conjunct_of("membership")
def v6_leaders_add_entries_of_their_term(s: W, t: Term, n: Index) -> bool:
    """What a leader added to its log is of its term, and nothing else is."""
    log = s.past.logs[t]
    return implies((n > 0) & (n <= log.length), (n > s.past.began[t]) == (log.at(n).term == t))


@conjunct_of("membership")
def p1_parents_are_next(s: W, t: Term, x: Index) -> bool:
    """The configuration that was in force when another was made is the one before it."""
    log = s.past.logs[t]
    p = s.past.parent[log.at(x).value]
    return implies(changes(s, log, x), (p < x) & known(s, log, p) & none_between(s, log, p, x - 1))


@conjunct_of("membership")
def p2_joint_ones_hold_the_one_before(s: W, t: Term, x: Index) -> bool:
    """The old servers of a joint configuration are those who voted before, and not in a joint one."""
    log = s.past.logs[t]
    v = log.at(x).value
    p = s.past.parent[v]
    before, old = votes(s, Holder(log), p), s.past.outgoing[v]
    holds = no(joint(s, log, p)) & every(old.has(j) == before(j) for j in s.servers)
    return implies(changes(s, log, x) & joint(s, log, x), holds)


@conjunct_of("membership")
def p6_what_ends_a_joint_one_is_its_new_part(s: W, t: Term, x: Index) -> bool:
    """After a joint configuration come its new servers."""
    log = s.past.logs[t]
    v = log.at(x).value
    p = s.past.parent[v]
    before, new = votes(s, Holder(log), p), s.past.voters[v]
    same = every(new.has(j) == before(j) for j in s.servers)
    return implies(changes(s, log, x) & joint(s, log, p), same)


@conjunct_of("membership")
def p7_other_changes_are_of_one_server(s: W, t: Term, x: Index) -> bool:
    """If neither is joint, a configuration differs in one server from the one before."""
    log = s.past.logs[t]
    v = log.at(x).value
    p = s.past.parent[v]
    before, new = votes(s, Holder(log), p), s.past.voters[v]
    single = changes(s, log, x) & no(joint(s, log, x)) & no(joint(s, log, p))
    return implies(single, count(new.has(j) != before(j) for j in s.servers) <= 1)


@conjunct_of("membership")
def p3_single_changes_are_secured(s: W, t: Term, x: Index) -> bool:
    """Who adds or removes one server has committed an entry of its term before."""
    log = s.past.logs[t]
    v = log.at(x).value
    unsecured = s.past.secured[v] == 0
    return implies(changes(s, log, x) & unsecured, joint(s, log, x) | joint(s, log, s.past.parent[v]))


@conjunct_of("membership")
def p4_secured_entries_were_decided(s: W, t: Term, x: Index) -> bool:
    """What was committed then was so by the configuration in force, and is not before it."""
    log = s.past.logs[t]
    v, d = log.at(x).value, log.at(x).term
    p, n = s.past.parent[v], s.past.secured[v]
    own = (p <= n) & (n < x) & (log.at(n).term == d)
    w = log.at(n).value
    return implies(changes(s, log, x) & (n > 0), own & s.past.decided[w] & (s.past.by[w] == p))


@conjunct_of("membership")
def p5_parents_were_committed(s: W, t: Term, x: Index) -> bool:
    """If no such entry was, the configuration before was committed by an earlier leader."""
    log = s.past.logs[t]
    v, d = log.at(x).value, log.at(x).term
    p = s.past.parent[v]
    by = exists(d, lambda u: (u < d) & (p <= s.past.commits[u]) & s.past.logs[u].agrees(log, p))
    return implies(changes(s, log, x) & (s.past.secured[v] == 0), (p == 0) | by)


# --- quorums ------------------------------------------------------------------------


@conjunct_of("membership")
def b1_leaders_have_a_quorum(s: W, t: Term, i: Server) -> bool:
    """Who was elected for a term had votes of a majority of the configuration that it went by."""
    by = majority(s, s.past.logs[t], s.past.elected[t], s.past.ballots[t].has)
    return implies(s.past.leaders[t] == i, by)


@conjunct_of("membership")
def b6_counted_votes_were_given(s: W, t: Term, c: Server, i: Server) -> bool:
    """The votes that a leader had counted were given to it."""
    counted = (s.past.leaders[t] == c) & s.past.ballots[t].has(i)
    return implies(counted, s[i].voted[t].has(c))


@conjunct_of("membership")
def b7_candidates_have_older_entries(s: W, i: Server, n: Index) -> bool:
    """A candidate's entries are of terms before the one that it stands in."""
    return implies(stands(s, i), s[i].log.at(n).term < s[i].current_term)


@conjunct_of("membership")
def c1_acknowledged_entries_are_kept(s: W, i: Server, t: Term, n: Index) -> bool:
    """An entry is still there at a server that acknowledged it, unless a later leader has another one."""
    me = s[i]
    kept = (me.log.at(n).term == t) | overwritten(s, t, n, me.current_term)
    return implies(acknowledged(s, i, t, n) & has_own(s, t, n), kept)


@conjunct_of("membership")
def c3_voters_pass_entries_on(s: W, i: Server, c: Server, t: Term, n: Index) -> bool:
    """Who gets a vote from a server that acknowledged an entry has a log that reaches it, but for that."""
    term, log = s[c].current_term, s[c].log
    given = stands(s, c) & s[i].voted[term].has(c) & (t < term)
    passed = reaches(log, log.length, t, n) | overwritten(s, t, n, term)
    return implies(given & acknowledged(s, i, t, n) & has_own(s, t, n), passed)


@conjunct_of("membership")
def c4_leaders_were_passed_entries(s: W, i: Server, t: Term, u: Term, n: Index) -> bool:
    """Who was elected with such a vote had such a log."""
    given = started(s, u) & s.past.ballots[u].has(i) & (t < u)
    passed = reaches(s.past.logs[u], s.past.began[u], t, n) | overwritten(s, t, n, u - 1)
    return implies(given & acknowledged(s, i, t, n) & has_own(s, t, n), passed)


@conjunct_of("membership")
def d2_decided_entries_were_acknowledged(s: W, t: Term, n: Index) -> bool:
    """A majority of the configuration in force acknowledged what its leader committed."""
    log = s.past.logs[t]
    v = log.at(n).value
    x = s.past.by[v]
    counts = (n <= log.length) & known(s, log, x) & none_between(s, log, x, n)
    by = majority(s, log, x, lambda j: acknowledged(s, j, t, n))
    return implies(has_own(s, t, n) & s.past.decided[v], counts & by)


@conjunct_of("membership")
def d8_commits_were_decided(s: W, t: Term) -> bool:
    """The last entry that a leader committed itself was decided by a configuration."""
    n = s.past.commits[t]
    return implies(n > 0, s.past.decided[s.past.logs[t].at(n).value])


@conjunct_of("membership")
def d9_leaders_decide_by_the_newest(s: W, i: Server) -> bool:
    """If who leads committed the newest configuration, then by its majority."""
    t, x = s[i].current_term, s[i].configured
    n = s.past.commits[t]
    return implies(leads(s, i) & (n > 0) & (x <= n), s.past.by[s.past.logs[t].at(n).value] == x)


@conjunct_of("membership")
def d10_decided_entries_are_committed(s: W, t: Term, n: Index) -> bool:
    """What a leader decided is not after what it committed last."""
    decided = has_own(s, t, n) & s.past.decided[s.past.logs[t].at(n).value]
    return implies(decided, n <= s.past.commits[t])


# --- what leaders went by ------------------------------------------------------------


def went_by(name: str, me: Any, v: Any, n: Any, past: Any) -> Any:
    """What is written down about an action: who was elected by what, what was changed, what decided."""
    more: dict[str, Any] = {}
    if name == "become_leader":
        term = me.current_term
        more["elected"] = past.elected.set(term, me.configured)
        more["ballots"] = past.ballots.set(term, me.votes)
        more["began"] = past.began.set(term, me.log.length)
    if v is not None:
        more["made"] = past.made.set(v, me.current_term)
    if name in ("change_voters", "enter_joint"):
        more["configures"] = past.configures.set(v, True)
        more["joins"] = past.joins.set(v, name == "enter_joint")
        last = me.commit_index
        own = (last > 0) & (me.log.at(last).term == me.current_term)
        more["parent"] = past.parent.set(v, me.configured)
        more["secured"] = past.secured.set(v, ite(own, last, 0))
    if name == "advance_commit_index":
        more["decided"] = past.decided.set(me.log.at(n).value, True)
        more["by"] = past.by.set(me.log.at(n).value, me.configured)
    return past.but(**more)

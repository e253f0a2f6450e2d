"""Why Raft's promises hold: an invariant that every step keeps, in conjuncts small enough to be read.

Each is a claim about any state and any servers, terms, indices or messages. Together they are inductive: a
state that satisfies all of them, reachable or not, is followed by such states only, and the promises of
`raftspec.properties` follow. Some speak of what no server remembers: for whom it voted in past terms, what
it acknowledged to past leaders, what a leader's log was. `with_witnesses` keeps that beside the
protocol's own variables; no rule reads it.

    i, j, c  servers    t, u  terms, u the later one    n, k  indices    m  a message
    choosable (t, n)  the entry n of term t's leader is committed, or may still come to be
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftspec.extensions import joined
from raftspec.properties import raft
from raftspec.raft import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    NOBODY,
    AppendEntries,
    AppendEntriesReply,
    Entry,
    History,
    RequestVote,
    RequestVoteReply,
    ServerVariables,
    is_quorum,
)
from raftspec.spec import Action, OnlyIf, Property, Spec, State, Step, when
from raftspec.types import Index, Message, Server, Term, Type, type_of, zero
from raftspec.values import Map, Seq, ServerSet, count, exists, forall, implies, ite, no, some

# --- witnesses ---------------------------------------------------------------


class Witnesses(ServerVariables):
    """What a server has told others, for good: a message once sent is not taken back."""

    voted: Map[Term, ServerSet] = Map(default=ServerSet())  # for whom it said to vote
    acked: Map[Term, Index] = Map(default=0)  # up to where it said to store what the leader has


class Chronicle(History):
    """What leaders had."""

    logs: Map[Term, Seq[Entry]] = Map(default=Seq((), zero(type_of(Entry))))  # as of their last own step


W = State[Witnesses, Chronicle]


def _sent(step: Step, kind: type[Message]) -> list[tuple[Any, Any]]:
    """The messages of a kind that a step sends, each with its condition."""
    pairs = [(x.condition, x.message) if isinstance(x, OnlyIf) else (True, x) for x in step.sends]
    return [(condition, m) for condition, m in pairs if isinstance(m, kind)]


def _own_vote(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    term = step.then.current_term  # type: ignore[union-attr]
    return {"voted": me.voted.set(term, me.voted[term].add(i))}


def _vote(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    voted = me.voted
    for condition, m in _sent(step, RequestVoteReply):
        voted = ite(condition & m.granted, voted.set(m.term, voted[m.term].add(m.target)), voted)
    return {"voted": voted}


def _further(acked: Any, condition: Any, term: Any, n: Any) -> Any:
    return ite(condition & (n > acked[term]), acked.set(term, n), acked)


def _acknowledgement(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    acked = me.acked
    for condition, m in _sent(step, AppendEntriesReply):
        acked = _further(acked, condition & m.success, m.term, m.match_index)
    return {"acked": acked}


def _own_entries(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    """A leader counts itself among those that store what it has."""
    now: Any = step.then
    return {"acked": _further(me.acked, True, now.current_term, now.log.length)}


_TOLD: dict[str, Callable[..., dict[str, Any]]] = {
    "timeout": _own_vote,
    "handle_request_vote": _vote,
    "handle_append_entries": _acknowledgement,
    "handle_install_snapshot": _acknowledgement,
}
_BY_LEADERS = (
    "become_leader", "client_request", "register_client", "session_request", "expire_sessions",
    "change_voters", "enter_joint",
)  # fmt: skip
_TOLD |= dict.fromkeys(_BY_LEADERS, _own_entries)


def _recorded(
    name: str, original: Callable[..., Step], taken: Mapping[str, Type], spec: Spec
) -> Callable[..., Step]:
    """An action that also keeps the witnesses."""
    witnesses = joined(Witnesses, spec.server)
    configured = "membership" in spec.extensions

    def changed(s: Any, *params: Any) -> Step:
        step = original(s, *params)
        me = s[step.server]
        then, history = step.then, step.history
        if then is not None:
            protocol = {name: getattr(then, name) for name in spec.server.types()}
            told = _TOLD[name](s, step.server, me, step) if name in _TOLD else {}
            then = witnesses(**protocol, **{"voted": me.voted, "acked": me.acked, **told})
        if name in _BY_LEADERS:
            log, term = then.log, then.current_term  # type: ignore[union-attr]
            history = history.but(logs=s.past.logs.set(term, log))  # type: ignore[union-attr]
        guards = step.guards
        if configured:
            given = dict(zip(taken, params, strict=True))
            v, n = given.get("v"), given.get("n")
            history = went_by(name, me, v, n, s.past if history is None else history)
            if v is not None:
                guards = (*guards, when("v is new", s.past.place[v] == 0))
        return Step(step.server, *guards, then=then, send=step.sends, history=history)

    return changed


def with_witnesses(spec: Spec = raft) -> Spec:
    """Raft, or a mutant of it, that keeps witnesses, and has the conjuncts as properties."""
    actions = {
        name: Action(name, _recorded(name, a.function, a.params, spec), a.params)
        for name, a in spec.actions.items()
    }
    properties = {**conjuncts(spec), **lemmas(spec), **spec.properties}
    chronicle = Elections if "membership" in spec.extensions else Chronicle
    kinds = joined(Witnesses, spec.server), joined(chronicle, spec.history)
    return Spec(*kinds, spec.rules, actions, properties, extensions=spec.extensions)


# --- what the conjuncts speak of ----------------------------------------------


def leads(s: W, i: Server) -> bool:
    return s[i].role == LEADER


def stands(s: W, i: Server) -> bool:
    return s[i].role == CANDIDATE


def started(s: W, t: Term) -> bool:
    """Somebody was elected for term t."""
    return s.past.leaders[t] != NOBODY


def has_own(s: W, t: Term, n: Index) -> bool:
    """Entry n of the leader of term t is one of term t."""
    return (t > 0) & (s.past.logs[t].at(n).term == t)


def acknowledged(s: W, i: Server, t: Term, n: Index) -> bool:
    """Server i told the leader of term t that it stores entry n, or is that leader."""
    return n <= s[i].acked[t]


def choosable(s: W, t: Term, n: Index) -> bool:
    """A quorum has acknowledged entry n to the leader of term t, or still can."""
    return is_quorum(s, count(acknowledged(s, j, t, n) | (s[j].current_term <= t) for j in s.servers))


CONJUNCTS: dict[str, Property] = {}
# With an extension others take the place of these; one of the same name does so by itself.
REPLACED: dict[str, frozenset[str]] = {
    "membership": frozenset(
        {
            "c1_choosable_entries_are_kept",
            "c2_later_leaders_have_choosable_entries",
            "c3_voters_pass_choosable_entries_on",
            "d2_commits_were_acknowledged",
            "l3_leaders_have_what_earlier_ones_committed",
        }
    )
}
OF_EXTENSIONS: dict[str, dict[str, Property]] = {}  # what else holds with an extension


def conjuncts(spec: Spec) -> dict[str, Property]:
    """The invariant of Raft with its extensions."""
    names = sorted(spec.extensions)
    more = (OF_EXTENSIONS.get(name, {}) for name in names)
    replaced = {old for name in names for old in REPLACED.get(name, ())}
    kept = {name: p for name, p in CONJUNCTS.items() if name not in replaced}
    return {name: p for claims in (kept, *more) for name, p in claims.items()}


LEMMAS: dict[str, dict[str, Property]] = {}  # by extension, what follows from the conjuncts


def lemmas(spec: Spec) -> dict[str, Property]:
    """What follows from the invariant of Raft with its extensions, and helps to prove that it is kept."""
    replaced = {old for name in spec.extensions for old in REPLACED.get(name, ())}
    names = ("", *sorted(spec.extensions))
    return {n: p for name in names for n, p in LEMMAS.get(name, {}).items() if n not in replaced}


# By lemma, what its proof goes by: parameters and numbers, compared in this order with those of others.
RANKS: dict[str, tuple[str | int, ...]] = {}


def lemma_of(extension: str = "", *rank: str | int) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Declare what follows from the invariant of Raft with an extension, and from earlier lemmas.

    It may be proved from lemmas with ranks of the same length, itself among them, where theirs are smaller.
    """

    def declare(claim: Callable[..., bool]) -> Callable[..., bool]:
        LEMMAS.setdefault(extension, {})[claim.__name__] = Property.of(claim, states=1)
        RANKS[claim.__name__] = rank
        return claim

    return declare


def conjunct_of(extension: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Declare a claim about every state of Raft with an extension."""

    def declare(claim: Callable[..., bool]) -> Callable[..., bool]:
        OF_EXTENSIONS.setdefault(extension, {})[claim.__name__] = Property.of(claim, states=1)
        return claim

    return declare


def conjunct(claim: Callable[..., bool]) -> Callable[..., bool]:
    """Declare a claim about every state and every value of its parameters."""
    CONJUNCTS[claim.__name__] = Property.of(claim, states=1)
    return claim


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


import raftspec.invariant_extended  # noqa: E402  (declares what else holds with extensions)
import raftspec.membership_lemmas  # noqa: E402, F401
from raftspec.invariant_membership import Elections, went_by  # noqa: E402

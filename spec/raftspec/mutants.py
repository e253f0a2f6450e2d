"""Real bugs of real Raft servers, each as a small change to the specification.

Each is told in the thread that its `source` names. Here it is rules that are not followed, or
actions that do something else; of Raft with the `extensions` in which they have a place. Left out are
leases that outlive an election timeout (sofastack/sofa-jraft#34), since no clock is specified: `raftd` can
be made to have those, and what its clients see gives them away; of snapshots S06 (etcd-io/raft#124), which is
about when a leader goes on with entries: a test of raftd's core is about that; and S08 (jgroups-raft#301), a
state machine that isn't replaced but added to: the simulator sees it by the states that servers save; and of
membership M07 (etcd-io/etcd#349), acknowledgements of a server that lost its log: here a server keeps it;
and L06 (etcd-io/etcd#15247), a deposed leader that goes on ending leases, its proposals being forwarded to
the new one: here nothing is forwarded, and a leader may end a session whenever it likes, so there is nothing
to deviate from. Its client is told that the session has ended.

    s  the state before a step     me  the acting server's variables     m  a message
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raftspec.configurations import has_left, in_force, is_joint, votes
from raftspec.extensions import WHOLE
from raftspec.raft import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    NO_VOTES,
    NOBODY,
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    S,
    raft,
)
from raftspec.spec import OnlyIf, Spec, Step, when
from raftspec.types import Index, Record, Server, Value
from raftspec.values import Map, ServerSet, count, forall, ite, no


@dataclass(frozen=True)
class Mutant:
    """A wrong Raft. `breaks` names the property that fails first; else `harmless` says why none does."""

    name: str
    source: str
    story: str
    breaks: str | None = None
    harmless: str = ""
    without: frozenset[str] = frozenset()
    actions: Mapping[str, Callable[..., Step]] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()  # what Raft must have for the bug to have a place

    def apply(self, spec: Spec) -> Spec:
        """The specification with the bug's actions. Its rules are taken away when it is compiled."""
        return spec.but(self.actions) if self.actions else spec


class _Ignoring:
    """A state in which some rules are not followed, whoever else follows them."""

    def __init__(self, s: S, rules: Mapping[str, bool]) -> None:
        self._s = s
        self._rules = rules

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s, name)

    def __getitem__(self, i: str) -> Any:
        return self._s[i]

    def rule(self, name: str, condition: bool, without: bool = True) -> bool:
        return self._rules[name] if name in self._rules else self._s.rule(name, condition, without)

    def follows(self, name: str) -> bool:
        return self._rules[name] if name in self._rules else self._s.follows(name)


def ignoring(action: str, **rules: bool) -> dict[str, Callable[..., Step]]:
    """An action in which some rules always say the same. Their names are written with `__` for the dot."""
    original = WHOLE.actions[action].function
    answers = {name.replace("__", "."): answer for name, answer in rules.items()}

    def changed(s: S, *params: Any) -> Step:
        return original(_Ignoring(s, answers), *params)

    return {action: changed}


def then(
    actions: tuple[str, ...], change: Callable[[S, Step], Record | None]
) -> dict[str, Callable[..., Step]]:
    """Actions that end otherwise: `change` says with which variables."""

    def altered(original: Callable[..., Step]) -> Callable[..., Step]:
        def changed(s: S, *params: Any) -> Step:
            step = original(s, *params)
            return Step(
                step.server, *step.guards, then=change(s, step), send=step.sends, history=step.history
            )

        return changed

    return {name: altered(WHOLE.actions[name].function) for name in actions}


HANDLERS = tuple(name for name, action in raft.actions.items() if action.message)

# --- what the changed actions do ---------------------------------------------


def _term_not_yet_on_disk(s: S, step: Step) -> Any:
    """A candidate that crashes finds the term before its own."""
    me, now = s[step.server], step.then
    unwritten = me.role == CANDIDATE
    return now.but(  # type: ignore[union-attr]
        current_term=ite(unwritten, me.current_term - 1, me.current_term),
        voted_for=ite(unwritten, NOBODY, me.voted_for),
    )


def _rolls_back(s: S, step: Step) -> Any:
    """A leader that steps down keeps only what it knows to be committed."""
    me, now = s[step.server], step.then
    deposed = (me.role == LEADER) & (now.role == FOLLOWER)  # type: ignore[union-attr]
    return now.but(log=ite(deposed, now.log.prefix(me.commit_index), now.log))  # type: ignore[union-attr]


def _own_term_only(s: S, i: Server, n: Index) -> Step:
    """The loop over uncommitted entries stops at the first of an older term."""
    step = raft.actions["advance_commit_index"].function(s, i, n)
    me = s[i]
    own = forall(n, lambda k: (k <= me.commit_index) | (me.log.at(k).term == me.current_term))
    return Step(
        i,
        *step.guards,
        when("no entry on the way is of an older term", own),
        then=step.then,
        history=step.history,
    )


def _refusal_with_probe(s: S, m: AppendEntries) -> Step:
    """A refusal says where the leader had looked."""
    step = raft.actions["handle_append_entries"].function(s, m)
    sends = [x.message if isinstance(x, OnlyIf) else x for x in step.sends]
    replies = [
        x.but(match_index=ite(x.success, x.match_index, m.prev_log_index))
        for x in sends
        if isinstance(x, AppendEntriesReply)
    ]
    return Step(step.server, then=step.then, send=replies)


def _previous_unreadable(s: S, i: Server, j: Server, prev: Index, size: Index, commit: Index) -> Step:
    """The entry before those that are sent can't be read, and counts as the empty log's end."""
    step = raft.actions["append_entries"].function(s, i, j, prev, size, commit)
    (sent,) = step.sends
    assert isinstance(sent, AppendEntries)
    return Step(i, *step.guards, send=sent.but(prev_log_index=0, prev_log_term=0))


def _reads_unasked(s: S, i: Server) -> Step:
    """A leader asks nobody whether it still leads."""
    step = WHOLE.actions["begin_read"].function(s, i)
    return Step(i, *step.guards, then=step.then, history=step.history)


def _refuses_old_leader(s: S, m: Any) -> Step:
    """Whoever knows a leader gives no pre-vote, not even to that leader, which leads no more."""
    step = WHOLE.actions["handle_pre_vote"].function(s, m)
    knows = s[m.target].hears == m.source
    sends = [OnlyIf(c, reply.but(granted=reply.granted & no(knows))) for c, reply in step.sends]
    return Step(step.server, then=step.then, send=sends)


def _hears_who_asks(s: S, step: Step) -> Any:
    """Giving a pre-vote counts as hearing a leader."""
    ((_, reply),) = step.sends
    return step.then.but(hears=ite(reply.granted, reply.target, step.then.hears))  # type: ignore[union-attr]


def _term_of_snapshot(s: S, step: Step) -> Any:
    """A server that loads a snapshot is back in the term of its last entry."""
    now: Any = step.then
    loads = now.snapshot_index > 0
    return now.but(current_term=ite(loads, now.log.at(now.snapshot_index).term, now.current_term))


def _compacted_term_unknown(s: S, i: Server, j: Server, prev: Index, size: Index, commit: Index) -> Step:
    """The entry before those that are sent is the last that is compacted, and its term is forgotten."""
    step = WHOLE.actions["append_entries"].function(s, i, j, prev, size, commit)
    me: Any = s[i]
    (sent,) = step.sends
    assert isinstance(sent, AppendEntries)
    return Step(
        i, *step.guards, send=sent.but(prev_log_term=ite(prev > me.snapshot_index, sent.prev_log_term, 0))
    )


def _votes_of_union(s: S, i: Server) -> Step:
    """A candidate in a joint configuration counts old and new servers together, as if they were one set."""
    step = WHOLE.actions["become_leader"].function(_Ignoring(s, {"election.majority": True}), i)
    me = s[i]
    n = in_force(s, me)
    both = [no(has_left(s, me, n, j)) for j in s.servers]
    yes = count(c & me.votes.has(j) for j, c in zip(s.servers, both, strict=True))
    guard = when("a majority of all voted for i", yes + yes > count(both))
    return Step(i, *step.guards, guard, then=step.then, history=step.history)


def _commits_alone(s: S, i: Server, n: Index) -> Step:
    """Where there is one voter, a leader takes itself for it, and commits at once."""
    me = s[i]
    now = votes(s, me, in_force(s, me))
    step = WHOLE.actions["advance_commit_index"].function(s, i, n)
    alone = count(now(j) for j in s.servers) == 1
    guards = [
        when(g.text, g.condition | (alone if g.text == "a quorum stores n" else False)) for g in step.guards
    ]
    return Step(i, *guards, then=step.then, history=step.history)


def _leaves_only_its_own(s: S, i: Server, v: Value, voters: ServerSet) -> Step:
    """Only who began a joint configuration leaves it."""
    step = WHOLE.actions["change_voters"].function(s, i, v, voters)
    me: Any = s[i]
    own = me.log.at(me.configured).term == me.current_term
    guard = when("i began the change", no(is_joint(s, me, in_force(s, me))) | own)
    return Step(i, *step.guards, guard, then=step.then, history=step.history)


def _learner_refuses(s: S, m: RequestVote) -> Step:
    """Who doesn't know that it was promoted doesn't answer."""
    step = WHOLE.actions["handle_request_vote"].function(s, m)
    i = m.target
    voter = when("i knows that it votes", no(has_left(s, s[i], in_force(s, s[i]), i)))
    return Step(i, voter, then=step.then, send=step.sends)


def _no_vote_for_itself(s: S, step: Step) -> Any:
    """Who is not in the new configuration of a joint one doesn't count its own vote."""
    me, now = s[step.server], step.then
    counts = votes(s, me, in_force(s, me))(step.server)
    return now.but(votes=ite(counts, now.votes, NO_VOTES))  # type: ignore[union-attr]


def _forgets_responses(s: S, step: Step) -> Any:
    """Who becomes leader knows nothing of what its predecessor answered."""
    now: Any = step.then
    return now.but(responses=Map(default=0))


def _table_not_in_snapshot(s: S, step: Step) -> Any:
    """What a snapshot stands for is applied, and nobody knows which clients there were."""
    now: Any = step.then
    return now.but(
        last_applied=ite(now.last_applied < now.snapshot_index, now.snapshot_index, now.last_applied)
    )


# --- the table ---------------------------------------------------------------


def _table(*mutants: Mutant) -> dict[str, Mutant]:
    return {m.name: m for m in mutants}


MUTANTS = _table(
    Mutant(
        "E01", "xnnyygn/xraft#33",
        "A candidate counts every vote it gets, also those that answer an election it has given up.",
        breaks="one_leader_per_term", without=frozenset({"vote.count_current_term"}),
    ),
    Mutant(
        "E02", "hashicorp/raft#661",
        "Term and vote are two writes, and a crash came between: the server is in the term, free to vote.",
        breaks="vote_is_kept", without=frozenset({"restart.keep_vote"}),
    ),
    Mutant(
        "E03", "bakwc/PySyncObj#84",
        "The vote is sent and written nowhere, so the next candidate of the term gets one too.",
        breaks="one_leader_per_term", without=frozenset({"vote.recorded"}),
    ),
    Mutant(
        "E04", "bakwc/PySyncObj#201",
        "Only the log is a file; a server that starts again is back in term 0 and has voted for nobody.",
        breaks="terms_never_fall", without=frozenset({"restart.keep_term", "restart.keep_vote"}),
    ),
    Mutant(
        "E06", "canonical/raft#196",
        "A server that only asks who would vote for it forgets whom it has voted for.",
        breaks="vote_is_kept", without=frozenset({"pre_vote.keep_vote"}), extensions=("pre_vote",),
    ),
    Mutant(
        "E07", "canonical/raft#196, a comment",
        "A candidate takes the answer to its question for a vote.",
        breaks="one_leader_per_term", without=frozenset({"pre_vote.no_vote"}), extensions=("pre_vote",),
    ),
    Mutant(
        "E10", "sofastack/sofa-jraft#1241",
        "A candidate asks for votes before its own is on disk; after a crash it starts the same term again.",
        breaks="terms_never_fall", actions=then(("restart",), _term_not_yet_on_disk),
    ),
    Mutant(
        "E11", "sofastack/sofa-jraft, found by model checking",
        "The file with term and vote is gone, and the server starts without a word as if it were new.",
        breaks="terms_never_fall", without=frozenset({"restart.keep_term", "restart.keep_vote"}),
    ),
    Mutant(
        "E13", "hashicorp/raft#606",
        "A server that knows a leader gives no pre-vote, even to that leader, who asks as it leads no more.",
        harmless="Elections only take longer, until the voters' own timeouts.",
        actions={"handle_pre_vote": _refuses_old_leader}, extensions=("pre_vote",),
    ),
    Mutant(
        "E14", "hashicorp/raft#609",
        "Giving a pre-vote counts as hearing a leader, so the server doesn't ask for itself.",
        harmless="Who asks and can't be elected only keeps those waiting who could.",
        actions=then(("handle_pre_vote",), _hears_who_asks), extensions=("pre_vote",),
    ),
    Mutant(
        "E15", "etcd-io/etcd#8243",
        "A question of an older term gets no answer, so who asks never learns the newer one.",
        harmless="Nobody is elected, if one server has the newer term and another the newer log.",
        without=frozenset({"pre_vote.refuse"}), extensions=("pre_vote",),
    ),
    Mutant(
        "E16", "hashicorp/raft#695",
        "A heartbeat raises a leader's term behind its back; it goes on, in a term it wasn't elected for.",
        breaks="election_safety",
        actions=ignoring("handle_append_entries", term__step_down=False, append__candidate_steps_down=False),
    ),
    Mutant(
        "R01", "logcabin/logcabin#44",
        "A leader counts who stores an entry of an older term, and calls it committed (Figure 8).",
        breaks="leader_completeness", without=frozenset({"commit.current_term"}),
    ),
    Mutant(
        "R02", "bakwc/PySyncObj#166",
        "A follower takes the commit index of whatever message it read last, also if that is an old one.",
        breaks="commit_never_falls", without=frozenset({"commit.never_back"}),
    ),
    Mutant(
        "R03", "bakwc/PySyncObj#167",
        "After an acknowledgement the leader notes what is stored, and sends it again all the same.",
        breaks="next_index_after_match", without=frozenset({"replicate.next_after_match"}),
    ),
    Mutant(
        "R04", "zhebrak/raftos#25",
        "An acknowledgement that comes late makes the leader forget newer ones.",
        breaks="match_index_never_falls", without=frozenset({"commit.match_monotone"}),
    ),
    Mutant(
        "R05", "zhebrak/raftos#26",
        "A follower cuts its log where a message's entries end, also if they agree: a late heartbeat erases.",
        breaks="match_index_is_true", without=frozenset({"append.truncate_only_conflict"}),
    ),
    Mutant(
        "R06", "zhebrak/raftos#30",
        "A leader looks for entries to commit one by one, and stops at the first that is of an older term.",
        harmless="It only commits less than it may: what a leader inherits holds up all that comes after it.",
        actions={"advance_commit_index": _own_term_only},
    ),
    Mutant(
        "R08", "microsoft/CCF#5325",
        "A refusal says where the leader had looked, and the leader takes that for what is stored.",
        breaks="match_index_is_true", without=frozenset({"replicate.ack_success"}),
        actions={"handle_append_entries": _refusal_with_probe},
    ),
    Mutant(
        "R11", "microsoft/CCF#5674",
        "A leader that steps down drops what it doesn't know to be committed; others may have counted it.",
        breaks="committed_on_quorum", actions=then(HANDLERS, _rolls_back),
    ),
    Mutant(
        "R12", "microsoft/CCF#2803",
        "A refusal names the wrong entry to go back to, so the leader tries the same one again.",
        harmless="A wrong entry is never stored; but the follower never gets the right one either.",
        without=frozenset({"replicate.back_off"}),
    ),
    Mutant(
        "R14", "hashicorp/raft#666",
        "A leader doesn't look at the term of what answers its heartbeats, and takes it for a sign of life.",
        harmless="It goes on in its old term, where nobody commits; check quorum, and a lease, never end.",
        actions=ignoring(
            "handle_append_entries_reply",
            term__step_down=False, term__adopt_newer=False, term__fresh_vote=False,
        ),
        extensions=("check_quorum",),
    ),
    Mutant(
        "R15", "deventlab/d-engine#329",
        "A follower acknowledges an entry that is not on its disk yet, and dies.",
        breaks="match_index_is_true", without=frozenset({"restart.keep_log"}),
    ),
    Mutant(
        "R16", "databendlabs/openraft#1795",
        "A leader can't read the entry before those it sends, and says that there is none.",
        breaks="log_matching", actions={"append_entries": _previous_unreadable},
    ),
    Mutant(
        "L01", "etcd-io/etcd#741",
        "A leader reads what it has, without a word to anybody; another one may have taken its place.",
        breaks="reads_see_what_was_committed", without=frozenset({"reads.majority"}),
        actions={"begin_read": _reads_unasked}, extensions=("reads",),
    ),
    Mutant(
        "L02", "deventlab/d-engine#381",
        "A leader asks whether it still leads, and reads before the answers are there.",
        breaks="reads_see_what_was_committed", without=frozenset({"reads.majority"}), extensions=("reads",),
    ),
    Mutant(
        "L07", "CurvineIO/curvine#676",
        "Only the leader remembers which requests were answered, and the next one executes them again.",
        breaks="exactly_once", actions=then(("become_leader",), _forgets_responses), extensions=("sessions",),
    ),
    Mutant(
        "L08", "atomix/atomix#1101",
        "A snapshot lacks the sessions, so a server that starts from one refuses what the others execute.",
        breaks="replicas_answer_alike",
        actions=then(("restart", "handle_install_snapshot"), _table_not_in_snapshot),
        extensions=("sessions", "snapshots"),
    ),
    Mutant(
        "L09", "openziti/ziti#4088",
        "What ends by time ends by the clock of each server, as it applies an entry, and not by the log.",
        breaks="replicas_answer_alike", without=frozenset({"session.expiry_from_log"}),
        extensions=("sessions",),
    ),
    Mutant(
        "L10", "apache/ratis#915",
        "A response is forgotten while its client still tries again, and the request is executed once more.",
        breaks="exactly_once", without=frozenset({"session.not_forgotten"}), extensions=("sessions",),
    ),
    Mutant(
        "L11", "fluree/db#1839",
        "What was asked and not answered is asked again as something new, though it had been executed.",
        breaks="exactly_once", without=frozenset({"session.once"}), extensions=("sessions",),
    ),
    Mutant(
        "S01", "willemt/raft#118",
        "What a follower needs is compacted, and it is sent what comes after the snapshot instead.",
        breaks="log_matching", without=frozenset({"snapshot.send_kept"}), extensions=("snapshots",),
    ),
    Mutant(
        "S02", "willemt/raft#118",
        "Loading a snapshot takes the server back to the term of the snapshot's last entry.",
        breaks="terms_never_fall", actions=then(("restart",), _term_of_snapshot), extensions=("snapshots",),
    ),
    Mutant(
        "S04", "hashicorp/raft#704",
        "A snapshot is installed, and what conflicts in the log stays: entries that are not the leader's.",
        breaks="log_matching", without=frozenset({"snapshot.discard_conflict"}), extensions=("snapshots",),
    ),
    Mutant(
        "S05", "etcd-io/raft, commit 76f1249",
        "A leader says of the last compacted entry that its term is 0.",
        harmless="No log joins there, so nothing wrong is stored; but the follower never gets what follows.",
        actions={"append_entries": _compacted_term_unknown}, extensions=("snapshots",),
    ),
    Mutant(
        "S07", "lni/dragonboat#409",
        "Writing a snapshot fails without a word, and what it was to stand for is acknowledged all the same.",
        breaks="committed_never_changes", without=frozenset({"restart.keep_snapshot"}),
        extensions=("snapshots",),
    ),
    Mutant(
        "M01", "the Raft developers' list, 2015",
        "A new leader changes the voters while a change of an older term that it lacks may come back.",
        breaks="leader_completeness", without=frozenset({"membership.own_term_first"}),
        extensions=("membership",),
    ),
    Mutant(
        "M02", "microsoft/CCF#3948",
        "In a joint configuration votes are counted over all servers together, and not of each part.",
        breaks="leader_completeness", actions={"become_leader": _votes_of_union}, extensions=("membership",),
    ),
    Mutant(
        "M03", "redpanda-data/redpanda#17675",
        "A second change begins before the first is committed.",
        breaks="leader_completeness", without=frozenset({"membership.one_at_a_time"}),
        extensions=("membership",),
    ),
    Mutant(
        "M05", "etcd-io/etcd#12136",
        "A joint configuration is left by the leader that entered it, and by no other.",
        harmless="Old and new servers decide together for longer than they need to.",
        actions={"change_voters": _leaves_only_its_own}, extensions=("membership",),
    ),
    Mutant(
        "M06", "etcd-io/etcd#10998",
        "A learner that doesn't know yet that it was promoted refuses its vote.",
        harmless="Votes that are not given elect nobody; an election that needs this one fails.",
        actions={"handle_request_vote": _learner_refuses}, extensions=("membership",),
    ),
    Mutant(
        "M09", "scylladb/scylladb#10618",
        "A candidate that is in the old part of a joint configuration alone doesn't vote for itself.",
        harmless="A vote that isn't counted elects nobody; an election that needs this one fails.",
        actions=then(("timeout",), _no_vote_for_itself), extensions=("membership",),
    ),
    Mutant(
        "R17", "RedisLabs/raft#13",
        "A leader that has no vote any more takes the one voter for itself, and commits at once.",
        breaks="leader_completeness", actions={"advance_commit_index": _commits_alone},
        extensions=("membership",),
    ),
)  # fmt: skip

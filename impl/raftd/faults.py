"""Servers with one rule broken, so that tests can see the rule missed. Never for use.

Each fault is a `Core` with one small method replaced, named after the rule it breaks.
Many are bugs that real servers have had. A broken server doesn't check its own steps:
it is for others to notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from raftd.configurations import Configuration
from raftd.core import Config, Core, Persist, Persistent, Role, Variables
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    Snapshot,
    TimeoutNow,
)
from raftd.sessions import Ask, Result, Session, Sessions

BREAKS: dict[str, type[Core]] = {}


def make_core(
    server: str,
    servers: tuple[str, ...],
    rng: random.Random,
    config: Config | None = None,
    persistent: Persistent | None = None,
    broken: str | None = None,
    *,
    traced: bool = True,
) -> Core:
    """A server that keeps every rule, or all but one."""
    if broken is not None and broken not in BREAKS:
        raise ValueError(f"no fault is called {broken!r}: choose one of {', '.join(sorted(BREAKS))}")
    kind = BREAKS[broken] if broken is not None else Core
    return kind(server, servers, rng, config, persistent, traced)


def breaks(rule: str) -> Callable[[type[Core]], type[Core]]:
    """The class that follows breaks this rule."""

    def note(core: type[Core]) -> type[Core]:
        assert rule not in BREAKS
        BREAKS[rule] = core
        return core

    return note


class Broken(Core):
    """A server that breaks a rule, and checks none."""

    def _check_message(self, m: Message) -> None:
        """Nothing is found."""

    def _check_step(self, before: Variables, after: Variables) -> None:
        """Nothing is found."""


# Votes. Sections 5.1, 5.2, 5.4.1.


@breaks("vote.once_per_term")
class VotesAgain(Broken):
    """A server votes for whoever asks, however often."""

    def _may_vote(self, m: RequestVote) -> bool:
        return True


@breaks("vote.up_to_date")
class VotesForAnyLog(Broken):
    """A server votes for candidates whose logs lack what its own has."""

    def _is_up_to_date(self, m: RequestVote | PreVote) -> bool:
        return True


@breaks("vote.current_term")
class VotesForOldCandidates(Broken):
    """A server votes for a candidate of an older term."""

    def _is_current_candidate(self, m: RequestVote) -> bool:
        return True


@breaks("vote.count_current_term")
class CountsOldVotes(Broken):
    """A candidate counts votes that it was given in an earlier term."""

    def _counts_vote(self, m: RequestVoteReply) -> bool:
        return self.role is Role.CANDIDATE


# Elections. Section 5.2.


@breaks("election.majority")
class WinsWithoutMajority(Broken):
    """A candidate leads with one vote too few."""

    def _has_majority(self) -> bool:
        return len(self.votes) >= len(self.servers) // 2


@breaks("election.vote_for_self")
class KeepsItsVote(Broken):
    """A candidate counts itself and still votes for another."""

    def _vote_for_itself(self) -> None:
        self.voted_for = None
        self.votes = {self.server}


@breaks("term.step_down")
class StaysLeader(Broken):
    """A leader or candidate takes its role along into a newer term."""

    def _adopt_term(self, term: int) -> None:
        self.current_term = term
        self.voted_for = None


@breaks("vote.persist")
class VotesInMemory(Broken):
    """A server answers before its term and vote are on disk: only a log that changes is written."""

    def _persist(self, before: Variables, after: Variables) -> Persist | None:
        return super()._persist(before, after) if self._log_changed(before, after) else None


# Restarts. Section 5.1 and Figure 2, State.


@breaks("restart.keep_vote")
class ForgetsVote(Broken):
    """A restarted server may vote again in the term in which it has voted."""

    def _recover(self) -> None:
        self.voted_for = None


@breaks("restart.keep_term")
class ForgetsTerm(Broken):
    """A restarted server begins again in term 0, with its log."""

    def _recover(self) -> None:
        self.current_term = 0
        self.voted_for = None


@breaks("restart.keep_log")
class ForgetsEntry(Broken):
    """A restarted server has lost the last entry of its log."""

    def _recover(self) -> None:
        self._truncate(max(self.log.snapshot_index, self.log.last_index - 1))


# Replication. Section 5.3.


@breaks("append.current_term")
class FollowsOldLeaders(Broken):
    """A server stores what a leader of an older term sends."""

    def _is_current_leader(self, m: AppendEntries) -> bool:
        return True


@breaks("append.previous_entry")
class JoinsAnywhere(Broken):
    """A follower looks whether it has a preceding entry, and not at its term."""

    def _joins(self, m: AppendEntries) -> bool:
        return m.prev_log_index <= self.log.last_index


@breaks("append.truncate_only_conflict")
class TruncatesAlways(Broken):
    """A follower cuts its log after the preceding entry, even if what follows is the leader's."""

    def _store(self, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        self._truncate(prev_log_index)
        self.log.append(entries)


@breaks("append.truncate_conflict")
class KeepsConflicts(Broken):
    """A follower takes what goes beyond its log, and keeps what conflicts."""

    def _store(self, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        self.log.append(entries[self.log.last_index - prev_log_index :])


@breaks("append.acknowledge_matched")
class AcknowledgesAll(Broken):
    """A follower acknowledges its whole log, whatever the leader has sent."""

    def _matched(self, m: AppendEntries) -> int:
        return self.log.last_index


@breaks("append.count_current_term")
class CountsOldAcknowledgements(Broken):
    """A leader counts what was acknowledged to it in an earlier term."""

    def _counts_acknowledgement(self, m: AppendEntriesReply) -> bool:
        return self.role is Role.LEADER


@breaks("append.refusal_matches_nothing")
class MatchesRefusals(Broken):
    """A leader takes the index at which it will try next for one that matches."""

    def _next_to_try(self, m: AppendEntriesReply) -> int:
        self.match_index[m.source] = max(self.match_index[m.source], m.hint)
        return self.match_index[m.source] + 1


@breaks("append.keep_log")
class RollsBack(Broken):
    """A leader that steps down drops what it doesn't know to be committed."""

    def _step_down(self) -> None:
        if self.role is Role.LEADER:
            self._truncate(self.commit_index)
        super()._step_down()


@breaks("append.read_previous")
class SaysNothingPrecedes(Broken):
    """A leader can't read the entry before those that it sends, and says that there is none."""

    def _send_append_entries(self, peer: str, count: int) -> None:
        super()._send_append_entries(peer, count)
        self._sends[-1] = replace(self._sends[-1], prev_log_index=0, prev_log_term=0)


# Commitment. Sections 5.3 and 5.4.


@breaks("commit.majority")
class CommitsWithoutMajority(Broken):
    """A leader commits with one server too few."""

    def _quorum_index(self) -> int:
        stored = sorted([*self.match_index.values(), self.log.last_index], reverse=True)
        return stored[max(0, len(self.servers) // 2 - 1)]


@breaks("commit.current_term")
class CommitsOldTerms(Broken):
    """A leader counts replicas for entries of older terms. Figure 8."""

    def _may_commit(self, n: int) -> bool:
        return n > self.commit_index


@breaks("commit.follower_limit")
class CommitsUnmatched(Broken):
    """A follower commits up to its log's end, beyond what it knows to be the leader's."""

    def _follower_commit_index(self, m: AppendEntries, match_index: int) -> int:
        return max(self.commit_index, min(m.leader_commit, self.log.last_index))


@breaks("commit.never_back")
class CommitsBack(Broken):
    """A follower takes over an older commit index from a late message."""

    def _follower_commit_index(self, m: AppendEntries, match_index: int) -> int:
        return min(m.leader_commit, match_index)


@breaks("commit.match_monotone")
class MatchesBack(Broken):
    """A leader lets a late reply take back what a follower is known to store."""

    def _note_match(self, m: AppendEntriesReply) -> None:
        self.match_index[m.source] = m.match_index
        self.next_index[m.source] = max(self.next_index[m.source], m.match_index + 1)


# Before an election. Dissertation, sections 9.6, 4.2.3 and 3.10; of use where a server asks at all.


@breaks("pre_vote.majority")
class StandsUnasked(Broken):
    """A server stands as soon as it has heard no leader for too long."""

    def _may_stand(self) -> bool:
        return True


@breaks("pre_vote.keep_term")
class AsksInNewTerm(Broken):
    """A server begins a term each time it asks."""

    def _ask_itself(self) -> None:
        self.current_term += 1
        self.pre_votes = {self.server}


@breaks("pre_vote.keep_vote")
class AsksWithoutVote(Broken):
    """A server that asks takes back its vote of the term."""

    def _ask_itself(self) -> None:
        self.voted_for = None
        self.pre_votes = {self.server}


@breaks("pre_vote.not_adopted")
class AdoptsQuestions(Broken):
    """A server takes over a newer term also from who only asks."""

    def _adopts(self, m: Message) -> bool:
        return m.term > self.current_term


@breaks("pre_vote.current_term")
class PreVotesForOldTerms(Broken):
    """A server gives pre-votes for terms that have begun already."""

    def _asks_for_new_term(self, m: PreVote) -> bool:
        return True


@breaks("pre_vote.leader_heard")
class PreVotesAgainstLeader(Broken):
    """A server gives pre-votes though it hears a leader."""

    def _hears_no_other(self, m: PreVote) -> bool:
        return True


@breaks("pre_vote.leader_asks")
class RefusesOldLeader(Broken):
    """A server refuses as long as it knows a leader, even if that asks, until its own timeout."""

    def _hears_no_other(self, m: PreVote) -> bool:
        return self.leader is None


@breaks("pre_vote.keep_timer")
class WaitsForAsking(Broken):
    """A server that gives a pre-vote takes it for having heard a leader, and waits with its own question."""

    def _answer_pre_vote(self, m: PreVote, granted: bool) -> None:
        if granted:
            self.leader, self._leader_heard = m.source, self._now
            self._restart_election_timer()
        super()._answer_pre_vote(m, granted)


@breaks("pre_vote.refuse")
class RefusesInSilence(Broken):
    """A server that refuses a pre-vote doesn't answer, so that nobody learns its term."""

    def _answer_pre_vote(self, m: PreVote, granted: bool) -> None:
        if granted:
            super()._answer_pre_vote(m, granted)


@breaks("pre_vote.count_asked")
class CountsOldPreVotes(Broken):
    """A server counts pre-votes that it was given in an older term, or has no use for any more."""

    def _counts_pre_vote(self, m: PreVoteReply) -> bool:
        return True


@breaks("pre_vote.no_vote")
class CountsPreVotesAsVotes(Broken):
    """A candidate takes a pre-vote for a vote."""

    def _note_pre_vote(self, m: PreVoteReply) -> None:
        self.pre_votes.add(m.source)
        self.votes.add(m.source)


@breaks("pre_vote.leader_found")
class AsksOn(Broken):
    """A server goes on asking though its leader is there."""

    def _stop_asking(self) -> None:
        """Nothing stops."""


@breaks("transfer.caught_up")
class HandsOverToAnybody(Broken):
    """A leader hands over to servers that lack entries of its log."""

    def _is_caught_up(self, peer: str) -> bool:
        return True


@breaks("transfer.current_term")
class ObeysOldLeaders(Broken):
    """A server stands because the leader of an older term wanted it to."""

    def _is_told_by_leader(self, m: TimeoutNow) -> bool:
        return self.role is not Role.LEADER


@breaks("check_quorum.current_term")
class HearsAnyTerm(Broken):
    """A leader takes any answer to a heartbeat for a sign of life, also one that knows of a newer term."""

    def _adopts(self, m: Message) -> bool:
        if isinstance(m, AppendEntriesReply) and self.role is Role.LEADER:
            self._heard[m.source] = self._now
            return False
        return super()._adopts(m)


@breaks("check_quorum.follow")
class LeadsAlone(Broken):
    """A leader goes on though nobody answers."""

    def _has_lost_quorum(self, now: float) -> bool:
        return False


# Membership. Dissertation, chapter 4; only where `Config.membership` is on.


@breaks("membership.majority_of_both")
class AsksTheNewOnly(Broken):
    """In a joint configuration the new voters decide alone."""

    def _deciding(self) -> list[tuple[str, ...]]:
        return [self.configuration.voters]


@breaks("membership.votes_of_each")
class CountsTheUnion(Broken):
    """A candidate in a joint configuration counts old and new voters together, as if they were one set."""

    def _has_majority(self) -> bool:
        voters = {*self.configuration.voters, *self.configuration.outgoing}
        return 2 * len(self.votes & voters) > len(voters)


@breaks("membership.leader_without_vote")
class CommitsAlone(Broken):
    """Where there is one voter a leader takes itself for it, and commits at once."""

    def _stored_by_most(self, voters: tuple[str, ...]) -> int:
        return self.log.last_index if len(voters) == 1 else super()._stored_by_most(voters)


@breaks("membership.in_force_when_stored")
class WaitsForCommitment(Broken):
    """A server goes by a configuration only when it knows that it is committed."""

    @property
    def configuration(self) -> Configuration:
        return [c for n, c in self._configurations if n <= self.commit_index][-1]


@breaks("membership.count_voters")
class CountsItselfAlways(Broken):
    """A leader that was removed counts what it stores itself."""

    def _stored_by_most(self, voters: tuple[str, ...]) -> int:
        own = {**self.match_index, self.server: self.log.last_index}
        return sorted((own.get(i, 0) for i in {*voters, self.server}), reverse=True)[len(voters) // 2]


@breaks("membership.one_server")
class SwitchesDirectly(Broken):
    """A leader goes over to any other voters at once."""

    def _changes_one(self, changed: set[str]) -> bool:
        return True


@breaks("membership.one_at_a_time")
class ChangesTwice(Broken):
    """A leader begins a change while another is under way."""

    def _last_is_committed(self) -> bool:
        return True


@breaks("membership.own_term_first")
class ChangesTooSoon(Broken):
    """A leader changes the voters before an entry of its own term is committed: the bug of 2015."""

    def _own_term_is_committed(self) -> bool:
        return True


@breaks("membership.removed_leader_steps_down")
class LeadsOn(Broken):
    """A leader leads on though it is committed that it is no member."""

    def _is_removed(self) -> bool:
        return False


# Reads. Dissertation, section 6.4.


@breaks("reads.leader_only")
class ReadsAsAnybody(Broken):
    """A follower reads for clients, though its leader knows more."""

    def _may_read(self) -> bool:
        return True


@breaks("reads.own_term")
class ReadsTooSoon(Broken):
    """A new leader reads before it knows what its predecessors committed."""

    def _knows_what_is_committed(self) -> bool:
        return True


@breaks("reads.majority")
class ReadsUnconfirmed(Broken):
    """A leader reads without waiting for the answers to its question."""

    def _is_confirmed(self) -> bool:
        return True


@breaks("reads.current_round")
class CountsAnswersToEarlierRounds(Broken):
    """A leader counts what answers an earlier question of the same term."""

    def _counts_for_read(self, m: ReadIndexReply) -> bool:
        return m.term == self.current_term


@breaks("reads.ack_current_term")
class CountsAnswersOfOlderTerms(Broken):
    """A leader counts what answers a question of an earlier leadership."""

    def _counts_for_read(self, m: ReadIndexReply) -> bool:
        return m.round == self.read_round


@breaks("reads.give_up")
class ReadsOnWhenDeposed(Broken):
    """A leader that is deposed goes on asking, and finds a majority in the newer term."""

    def _give_up_reads(self) -> None:
        """Nothing is given up."""


# Leases, which no trace shows. Dissertation, section 6.4.1.


@breaks("lease.ends")
class OverstaysLease(Broken):
    """A leader reads by a lease that outlives the promises it rests on."""

    def _lease(self) -> float:
        return 10 * super()._lease()


@breaks("lease.promise")
class VotesDespitePromise(Broken):
    """A server promises to vote for nobody, and votes."""

    def _promise(self) -> float:
        return self.config.election_timeout


# Sessions. Dissertation, section 6.3; only where `Config.sessions` is on.


class _ExecutesAgain(Sessions):
    def _is_repeated(self, kept: tuple[int, bytes | None]) -> bool:
        return False


class _AnswersAnew(Sessions):
    def _response(self, index: int, kept: tuple[int, bytes | None], asked: Ask) -> Result:
        return Result(index, None, asked=True)


class _ExecutesLateCopies(Sessions):
    def _is_forgotten(self, number: int, lowest: int) -> bool:
        return False


class _ServesAnybody(Sessions):
    def _without_session(self, index: int, asked: Ask) -> Result:
        return Result(index, self.machine.apply(asked.command), asked=True)


class _GoesByItsClock(Sessions):
    def _session(self, k: int) -> Session | None:
        now = self._local_clock()
        self._heard: dict[int, float] = getattr(self, "_heard", {})
        silent = now - self._heard.get(k, now)
        self._heard[k] = now
        if silent > self.timeout:
            self.sessions.pop(k, None)
        return self.sessions.get(k)


@breaks("session.once")
class ExecutesAgain(Broken):
    """What is tried again is executed again."""

    _SESSIONS = _ExecutesAgain


@breaks("session.kept_response")
class AnswersAnew(Broken):
    """Who asks again is told something else."""

    _SESSIONS = _AnswersAnew


@breaks("session.not_forgotten")
class ExecutesLateCopies(Broken):
    """A late copy of a request is executed if its response is forgotten."""

    _SESSIONS = _ExecutesLateCopies


@breaks("session.registered")
class ServesAnybody(Broken):
    """A request whose session has ended is executed."""

    _SESSIONS = _ServesAnybody


@breaks("session.expiry_from_log")
class GoesByItsClock(Broken):
    """A server ends sessions when its own clock says so."""

    _SESSIONS = _GoesByItsClock


class _SavesNoSessions(Sessions):
    def _saved_sessions(self) -> dict[int, Session]:
        return {}


@breaks("session.in_snapshot")
class SavesNoSessions(Broken):
    """A server's snapshot has the state machine's state, and not the sessions."""

    _SESSIONS = _SavesNoSessions


@breaks("session.kept_by_all")
class ForgetsAsLeader(Broken):
    """Whoever becomes leader knows nothing of what its predecessor answered."""

    def _become_leader(self) -> None:
        if self.session_table is not None:
            for session in self.session_table.sessions.values():
                session.responses.clear()
        super()._become_leader()


# Snapshots. Dissertation, chapter 5.


@breaks("membership.in_snapshot")
class ForgetsMembers(Broken):
    """A server's snapshot doesn't say who is in the cluster, and the entry that did is compacted."""

    def _configuration_at(self, n: int) -> tuple[int, bytes]:
        return 0, b""


@breaks("snapshot.applied_only")
class CompactsUncommitted(Broken):
    """A server puts all of its log into a snapshot, whether it is committed or not."""

    def _snapshot_end(self) -> int:
        return self.log.last_index


@breaks("snapshot.current_term")
class InstallsOldLeaders(Broken):
    """A server takes over the snapshot of a leader of an older term."""

    def _is_current_snapshot(self, m: InstallSnapshot) -> bool:
        return True


@breaks("snapshot.keep_newer")
class DiscardsAlways(Broken):
    """A follower's log is what the snapshot holds, even if it had gone on from there."""

    def _keeps_newer(self, snapshot: Snapshot) -> bool:
        return False


@breaks("snapshot.discard_conflict")
class KeepsConflictingLog(Broken):
    """A follower keeps what its log has after the snapshot, though it went another way before."""

    def _keeps_newer(self, snapshot: Snapshot) -> bool:
        return True


@breaks("snapshot.keep_term")
class BackInTermOfSnapshot(Broken):
    """A server that starts from a snapshot is in the term of its last entry."""

    def _recover(self) -> None:
        if self.snapshot is not None:
            self.current_term = self.snapshot.last_included_term


@breaks("snapshot.replace_state")
class KeepsItsState(Broken):
    """A follower takes over a snapshot's place in the log, and not the state of the state machine."""

    def _state_to_install(self, snapshot: Snapshot) -> Snapshot | None:
        return None

"""Servers that break a rule of what precedes an election: pre-vote, check quorum, leadership transfer.

Dissertation, sections 9.6, 4.2.3 and 3.10; of use where a server asks at all.
"""

from __future__ import annotations

from raftd.core import Role
from raftd.faults.breaking import Broken, breaks
from raftd.messages import AppendEntriesReply, Message, PreVote, PreVoteReply, TimeoutNow


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

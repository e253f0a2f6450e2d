"""Servers that break a rule of reads without the log, or of leases. Dissertation, section 6.4."""

from __future__ import annotations

from raftd.faults.breaking import Broken, breaks
from raftd.messages import ReadIndex, ReadIndexReply


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


@breaks("reads.ask_current_term")
class AnswersEarlierLeaderships(Broken):
    """A server's answer to a question of an older term passes for one to a question of its own term."""

    def _asks_now(self, m: ReadIndex) -> bool:
        return True


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

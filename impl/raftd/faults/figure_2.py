"""Servers that break a rule of Figure 2, in the order of its parts."""

from __future__ import annotations

from msgspec.structs import replace

from raftd.core import Persist, Role, Variables
from raftd.faults.breaking import Broken, breaks
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    PreVote,
    RequestVote,
    RequestVoteReply,
)

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

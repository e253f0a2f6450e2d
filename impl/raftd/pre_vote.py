"""Pre-vote: a server asks whether it would be elected before it begins a term. Dissertation, section 9.6.

So whoever was cut off doesn't come back with a newer term, and doesn't depose a leader that others hear.
Asking changes no term and no vote, neither here nor there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftd.messages import AppendEntries, InstallSnapshot, Message, PreVote, PreVoteReply
from raftd.reads import Reads
from raftd.state import Batch, Role


class PreVoting(Reads):
    """What a server does before it stands for election, and when others ask it."""

    _leader_heard = 0.0  # when the leader was last heard from

    def _restore_extended(self, variables: Mapping[str, Any]) -> None:
        super()._restore_extended(variables)
        self.pre_votes = set(variables.get("pre_votes", ()))
        self.leader = self.leader or variables.get("hears")

    def start_pre_vote(self, now: float) -> Batch:
        """A server that has heard no leader for too long asks who would vote for it."""
        assert self.role is not Role.LEADER, f"{self.server} already leads term {self.current_term}"
        self._begin(now)
        self.leader = None
        self._ask_itself()
        self._restart_election_timer()
        for peer in self.peers:
            log = self.log
            self._send(PreVote(self.server, peer, self.current_term, log.last_index, log.last_term))
        self._stand_soon()
        return self._finish("start_pre_vote")

    def _on_pre_vote(self, m: PreVote) -> None:
        """A server says whether it would vote; it doesn't note that it did, and may say so to many."""
        self._answer_pre_vote(m, self._would_vote(m))

    def _on_pre_vote_reply(self, m: PreVoteReply) -> None:
        """Whoever has a majority's pre-votes stands."""
        if m.granted and self._counts_pre_vote(m):
            self._note_pre_vote(m)
            self._stand_soon()

    def _stand_soon(self) -> None:
        """The election is a step of its own, due at once."""
        if self._may_stand():
            self.deadline = self._now

    def _follow(self, m: AppendEntries | InstallSnapshot) -> None:
        """Whoever hears its leader asks no more."""
        super()._follow(m)
        self._leader_heard = self._now
        self._stop_asking()

    # Rules.

    def _may_stand(self) -> bool:
        """Only with the pre-votes of a majority, unless the leader itself wants the election."""
        expected = len(self.pre_votes) > len(self.servers) // 2
        return not self.config.pre_vote or self.told_to_stand or expected

    def _ask_itself(self) -> None:
        """Asking begins no term, and takes no vote back."""
        self.pre_votes = {self.server}

    def _stop_asking(self) -> None:
        """Late answers to a question that was given up lead to no election."""
        self.pre_votes.clear()

    def _adopts(self, m: Message) -> bool:
        """A newer term is adopted, but not from a question: who asks may have been cut off."""
        return m.term > self.current_term and not isinstance(m, PreVote)

    def _would_vote(self, m: PreVote) -> bool:
        """All that a vote in the term after m's would need, and that no leader is there."""
        return self._asks_for_new_term(m) and self._is_up_to_date(m) and self._hears_no_other(m)

    def _asks_for_new_term(self, m: PreVote) -> bool:
        """Who asks in an older term would stand in one that has begun already."""
        return m.term >= self.current_term

    def _hears_no_other(self, m: PreVote) -> bool:
        """Who has heard a leader within an election timeout refuses, unless that leader itself asks."""
        if self.role is Role.LEADER:
            return False
        silent = self._now - self._leader_heard >= self.config.election_timeout
        return self.leader in (None, m.source) or silent

    def _answer_pre_vote(self, m: PreVote, granted: bool) -> None:
        """A refusal is sent, too: with its term the other can catch up, and ask again."""
        self._send(PreVoteReply(self.server, m.source, self.current_term, granted, m.term))

    def _counts_pre_vote(self, m: PreVoteReply) -> bool:
        """An answer counts in the term of the question, as long as this server asks."""
        return m.asked_term == self.current_term and self.server in self.pre_votes

    def _note_pre_vote(self, m: PreVoteReply) -> None:
        """A pre-vote is no vote."""
        self.pre_votes.add(m.source)

"""Elections: terms, votes, and who leads. Sections 5.1, 5.2 and 5.4.1."""

from __future__ import annotations

from raftd.messages import Entry, PreVote, RequestVote, RequestVoteReply
from raftd.replication import Replication
from raftd.state import NO_OP, Batch, Role


class Elections(Replication):
    """What a server does as a candidate and as a voter."""

    def start_election(self, now: float) -> Batch:
        """A server without a leader increments its term and asks for votes. Section 5.2."""
        assert self.role is not Role.LEADER, f"{self.server} already leads term {self.current_term}"
        self._begin(now)
        self._unprepare()
        self.role = Role.CANDIDATE
        self.current_term += 1
        self.leader = None
        self._vote_for_itself()
        self._restart_election_timer()
        for peer in self.peers:
            self._send(
                RequestVote(
                    source=self.server,
                    target=peer,
                    term=self.current_term,
                    last_log_index=self.log.last_index,
                    last_log_term=self.log.last_term,
                )
            )
        if self._has_majority():
            self._become_leader()
        return self._finish("timeout")

    def _become_leader(self) -> None:
        """A candidate that has won leads, and says so. Section 5.2.

        Its no-op is an entry of its own term, with which older ones are committed
        even if no client ever asks for anything (section 8).
        """
        assert self.role is Role.CANDIDATE
        self._unprepare()
        self.role = Role.LEADER
        self.leader = self.server
        self.next_index = dict.fromkeys(self.peers, self.log.last_index + 1)
        self.match_index = dict.fromkeys(self.peers, 0)
        self._probing = set(self.peers)
        self._heard = dict.fromkeys(self.peers, self._now)
        self._sending = {}
        self._append([Entry(self.current_term, NO_OP)])
        self.deadline = self._now + self.config.heartbeat_interval
        for peer in self.peers:
            self._send_append_entries(peer, self._sendable(peer))
        self._advance_commit_index()

    def _on_request_vote(self, m: RequestVote) -> None:
        """A voter answers a candidate. Figure 2, RequestVote RPC, receiver steps 1 and 2."""
        granted = self._is_current_candidate(m) and self._may_vote(m) and self._is_up_to_date(m)
        if granted:
            self.voted_for = m.source
            self._restart_election_timer()
        self._send(RequestVoteReply(self.server, m.source, self.current_term, granted))

    def _on_request_vote_reply(self, m: RequestVoteReply) -> None:
        """A candidate counts a vote, and leads once it has a majority. Section 5.2."""
        if not (m.granted and self._counts_vote(m)):
            return
        assert self.role is Role.CANDIDATE
        self.votes.add(m.source)
        if self._has_majority():
            self._become_leader()

    # Rules.

    def _adopt_term(self, term: int) -> None:
        """A newer term makes anyone a follower who hasn't voted. Section 5.1."""
        assert term > self.current_term
        self.current_term = term
        self.voted_for = None
        self.leader = None
        self._unprepare()
        self._step_down()

    def _vote_for_itself(self) -> None:
        """A candidate's own vote is its vote of the term. Section 5.2."""
        self.voted_for = self.server
        self.votes = {self.server}

    def _has_majority(self) -> bool:
        """A candidate wins with the votes of a majority of the full cluster. Section 5.2."""
        return len(self.votes) > len(self.servers) // 2

    def _is_current_candidate(self, m: RequestVote) -> bool:
        """A candidate of an older term gets no vote. Figure 2, RequestVote RPC, step 1."""
        return m.term == self.current_term

    def _may_vote(self, m: RequestVote) -> bool:
        """A server votes for one candidate in a term. Figure 2, RequestVote RPC, step 2."""
        return self.voted_for in (None, m.source)

    def _is_up_to_date(self, m: RequestVote | PreVote) -> bool:
        """A voter denies its vote if its own log is more complete. Section 5.4.1."""
        return (m.last_log_term, m.last_log_index) >= (self.log.last_term, self.log.last_index)

    def _counts_vote(self, m: RequestVoteReply) -> bool:
        """A vote counts in the term it was given in. Section 5.1."""
        return m.term == self.current_term and self.role is Role.CANDIDATE

"""Reads that are not in the log: a leader makes sure that it still leads. Dissertation, section 6.4.

A round asks all servers whether they know of a newer term. When a majority has answered that it doesn't, what
was committed when the round began can be read: nobody has committed anything else meanwhile. One round serves
all who asked before it began.

A lease makes one round do for a while. Whoever answers promises to vote for nobody for an election timeout,
by its own clock; so no other leader is elected before the leader's clock has run that long, divided by how
much faster than another a clock may run. That is the only promise of this server that rests on clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftd.elections import Elections
from raftd.messages import ReadIndex, ReadIndexReply, RequestVote
from raftd.state import Batch, NotLeader, Role

NEVER = float("-inf")


class Reads(Elections):
    """What a server does so that its leader can read."""

    read_index = 0  # leader: what must be applied before this round's readers are answered
    read_round = 0  # leader: how many rounds it has begun in its term
    read_acks: frozenset[str] = frozenset()  # leader: who acknowledged the round under way, if one is

    _round_began = NEVER
    _promises: tuple[float, ...] = ()  # of those who acknowledged the round
    _lease_until = NEVER
    _hands_over = False  # the term's lease is given up: its successor may be elected at any time
    _promised_until = NEVER

    def begin_read(self, now: float) -> Batch | None:
        """A leader asks whether it still leads, for all readers who wait. Dissertation, section 6.4.

        None as long as a round is under way, or as it doesn't know what earlier leaders committed.
        """
        if not self._may_read():
            raise NotLeader(self.server, self.leader)
        if self.read_acks or not self._knows_what_is_committed():
            return None
        self._begin(now)
        self.read_index = self.commit_index
        self.read_round += 1
        self.read_acks = frozenset({self.server})
        self._round_began, self._promises = now, ()
        self._ask_again()
        return self._finish("begin_read")

    def serve_read(self, now: float) -> Batch | None:
        """The readers of the round under way can be answered, from what has been applied; None if not yet."""
        if not self.read_acks or not self._is_confirmed() or self.last_applied < self.read_index:
            return None
        self._begin(now)
        self.read_acks, self.read_index = frozenset(), 0
        if self.config.lease_drift is not None:
            self._lease_until = self._round_began + self._lease()
        return self._finish("serve_read")

    def has_lease(self, now: float) -> bool:
        """Whether a leader may read now without asking anybody, if clocks are what they are taken for."""
        return (
            self.role is Role.LEADER
            and not self._hands_over
            and self._knows_what_is_committed()
            and self._round_began <= now < self._lease_until
        )

    # Handlers: `receive` has adopted any newer term.

    def _on_read_index(self, m: ReadIndex) -> None:
        """A server says which term it is in, and waits with its own election for who leads it."""
        promise = 0.0
        if m.term == self.current_term and self.role is not Role.LEADER:
            self._restart_election_timer()
            promise = self._promise()
        answered = m.round if self._asks_now(m) else 0
        self._send(ReadIndexReply(self.server, m.source, self.current_term, answered, promise))

    def _on_read_index_reply(self, m: ReadIndexReply) -> None:
        """A leader counts who knows of no newer term."""
        if self.read_acks and self._counts_for_read(m):
            self.read_acks |= {m.source}
            self._promises += (m.promise,)

    # Rules.

    def _may_read(self) -> bool:
        """Only a leader knows all that is committed. Dissertation, section 6.4."""
        return self.role is Role.LEADER

    def _knows_what_is_committed(self) -> bool:
        """A leader knows what earlier ones committed once an entry of its own term is. Section 8."""
        return self.log.term_at(self.commit_index) == self.current_term

    def _asks_now(self, m: ReadIndex) -> bool:
        """A question of an older term is of an earlier leadership: rounds are numbered anew in each."""
        return m.term == self.current_term

    def _counts_for_read(self, m: ReadIndexReply) -> bool:
        """An acknowledgement counts for the round, and in the term, that it answers."""
        return m.term == self.current_term and m.round == self.read_round

    def _is_confirmed(self) -> bool:
        """A majority knew of no newer term after the round had begun, so there was no newer leader."""
        return len(self.read_acks) > len(self.servers) // 2

    def _give_up_reads(self) -> None:
        """Who leads no more answers none of the readers who wait."""
        self.read_index, self.read_round, self.read_acks = 0, 0, frozenset()

    def _lease(self) -> float:
        """For how long from a round's beginning no other leader can be elected, by this server's clock."""
        assert self.config.lease_drift is not None
        return min(self._promises, default=self.config.election_timeout) / self.config.lease_drift

    def _promise(self) -> float:
        """With leases a server votes for nobody for an election timeout from now on."""
        if self.config.lease_drift is None:
            return 0.0
        self._promised_until = self._now + self.config.election_timeout
        return self.config.election_timeout

    def _may_vote(self, m: RequestVote) -> bool:
        return self._now >= self._promised_until and super()._may_vote(m)

    # The small parts.

    def _ask_again(self) -> None:
        """Whoever has not acknowledged the round under way is asked, as the question may have got lost."""
        for peer in self.peers if self.read_acks else ():
            if peer not in self.read_acks:
                self._send(ReadIndex(self.server, peer, self.current_term, self.read_round))

    def _step_down(self) -> None:
        super()._step_down()
        self._give_up_reads()
        self._lease_until, self._hands_over = NEVER, False

    def _restore_extended(self, variables: Mapping[str, Any]) -> None:
        """Take up the variables of extensions, for tests and lockstep."""
        self.read_index = variables.get("read_index", 0)
        self.read_round = variables.get("read_round", 0)
        self.read_acks = frozenset(variables.get("read_acks", ()))

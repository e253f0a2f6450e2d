"""Check quorum: a leader that hears from no majority stops leading. Dissertation, section 6.2.

It can't commit anything, and its clients had better look for another leader.
"""

from __future__ import annotations

from raftd.pre_vote import PreVoting
from raftd.state import Batch, Role


class CheckingQuorum(PreVoting):
    """What a leader does when nobody answers."""

    def lose_quorum(self, now: float) -> Batch:
        """A leader gives up its leadership, and stays in its term."""
        assert self.role is Role.LEADER, f"{self.server} does not lead term {self.current_term}"
        self._begin(now)
        self.leader = None
        self._step_down()
        return self._finish("lose_quorum")

    def _may_resign(self) -> bool:
        return self._has_lost_quorum(self._now)

    def _has_lost_quorum(self, now: float) -> bool:
        """For an election timeout, fewer than a majority have answered, the leader included."""
        since = now - self.config.election_timeout
        answering = 1 + sum(heard > since for heard in self._heard.values())
        return self.config.check_quorum and answering <= len(self.servers) // 2

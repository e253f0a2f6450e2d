"""Leadership transfer: a leader that wants to go tells a follower to stand. Dissertation, section 3.10.

The follower must have all of the leader's log, or it might not be elected. It stands at once, without asking
who would vote for it: the others still hear a leader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftd.check_quorum import CheckingQuorum
from raftd.messages import TimeoutNow
from raftd.state import Batch, Role


class Transferring(CheckingQuorum):
    """What a leader does that hands over, and whoever takes over."""

    _handing_over_until = float("-inf")

    def _restore_extended(self, variables: Mapping[str, Any]) -> None:
        super()._restore_extended(variables)
        self.told_to_stand = variables.get("told_to_stand", False)

    def hand_over(self, now: float, successor: str | None = None) -> Batch | None:
        """A leader tells a follower to stand; if no other is named, one that was heard from last.

        None as long as none has caught up.
        """
        assert self.role is Role.LEADER, f"{self.server} does not lead term {self.current_term}"
        ready = [peer for peer in self.peers if self._is_caught_up(peer) and successor in (None, peer)]
        if not ready:
            return None
        self._begin(now)
        self._hands_over = True
        self._handing_over_until = now + self.config.election_timeout
        target = max(ready, key=self._heard.__getitem__)
        self._send(TimeoutNow(self.server, target, self.current_term))
        return self._finish("transfer_leadership")

    def _on_timeout_now(self, m: TimeoutNow) -> None:
        """A follower's timeout comes early because its leader says so; the election is the next step."""
        if self._is_told_by_leader(m):
            self.told_to_stand = True
            self.deadline = self._now

    def _step_down(self) -> None:
        super()._step_down()
        self._handing_over_until = float("-inf")

    # Rules.

    def _is_handing_over(self, now: float) -> bool:
        """Meanwhile a leader takes no commands, or its successor would lack entries."""
        return now < self._handing_over_until

    def _is_caught_up(self, peer: str) -> bool:
        """Who lacks an entry may not be elected."""
        return self.match_index[peer] == self.log.last_index

    def _is_told_by_leader(self, m: TimeoutNow) -> bool:
        """What an older leader wanted doesn't count any more."""
        return m.term == self.current_term and self.role is not Role.LEADER

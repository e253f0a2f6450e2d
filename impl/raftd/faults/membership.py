"""Servers that break a rule of membership. Dissertation, chapter 4; only where `Config.membership` is on."""

from __future__ import annotations

from raftd.configurations import Configuration
from raftd.faults.breaking import Broken, breaks


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

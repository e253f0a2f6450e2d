"""Membership: servers join, learn, vote and leave while the cluster runs. Dissertation, chapter 4.

A configuration is in force from when its entry is in the log, committed or not, and goes back where the
log is cut. Voters are changed one at a time, or any number through a joint configuration.

    n     the index of a configuration entry, 0 for the first configuration
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from raftd.configurations import Configuration, configuration_in, encode_configuration
from raftd.leadership_transfer import Transferring
from raftd.messages import AppendEntriesReply, Entry, InstallSnapshot, Message
from raftd.sessions import Result
from raftd.state import Batch, Config, NotLeader, Persistent, Role


class CannotChange(Exception):  # noqa: N818  (an answer to the operator, not a failure)
    """A leader takes no such change, or not now. The text says why, and what to do."""


class Membership(Transferring):
    """What a server knows of who is in the cluster."""

    def __init__(
        self,
        server: str,
        servers: tuple[str, ...],
        rng: random.Random,
        config: Config | None = None,
        persistent: Persistent | None = None,
        traced: bool = True,
    ) -> None:
        """`servers` are the first configuration. Who isn't in it joins, and learns the rest from the log."""
        super().__init__(server, servers, rng, config, persistent, traced)
        self._left = False  # in this step a leader that isn't a member any more has stopped leading
        self._configurations = [(0, Configuration(voters=tuple(sorted(servers))))]
        self._learn_again()

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the newest in the log. Dissertation, section 4.1."""
        return self._configurations[-1][1]

    @property
    def configured(self) -> int:
        """Its index in the log."""
        return self._configurations[-1][0]

    # Changes.

    def change(self, now: float, wanted: Configuration) -> Batch:
        """A leader appends a configuration, which is in force at once.

        Raises:
            NotLeader, CannotChange
        """
        if self.role is not Role.LEADER:
            raise NotLeader(self.server, self.leader)
        if reason := self._why_not(wanted):
            raise CannotChange(reason)
        self._begin(now)
        self._append([Entry(self.current_term, encode_configuration(wanted))])
        for peer in self.peers:
            if peer not in self._probing:
                self._send_entries(peer)
        self._advance_commit_index()
        return self._finish("enter_joint" if wanted.outgoing else "change_voters")

    def with_learner(self, server: str, address: str | None = None, promoted: bool = True) -> Configuration:
        """The configuration in force with a server that learns, and votes when it has caught up."""
        now = self.configuration
        return now.but(
            now.voters,
            outgoing=now.outgoing,
            learners=(*now.learners, server),
            promoted=(*now.promoted, *([server] if promoted else [])),
            addresses={server: address} if address else None,
        )

    def with_voter(self, server: str) -> Configuration:
        """The configuration in force with one more voter."""
        now = self.configuration
        return now.but((*now.voters, server), learners=now.learners, promoted=now.promoted)

    def without(self, server: str) -> Configuration:
        """The configuration in force without a server, voter or learner."""
        now = self.configuration
        kept = [i for i in now.voters if i != server]
        return now.but(kept, learners=set(now.learners) - {server}, promoted=set(now.promoted) - {server})

    def joint_with(self, voters: tuple[str, ...]) -> Configuration:
        """Old and new voters together, on the way to any other configuration. Section 6."""
        now = self.configuration
        return now.but(voters, outgoing=now.voters, learners=now.learners, promoted=now.promoted)

    def change_due(self) -> Configuration | None:
        """What a leader does by itself: it leaves a joint configuration, and lets learners vote.

        Any leader does, so that a change is not stuck when the one that began it is gone.
        """
        if not self.config.membership or self.role is not Role.LEADER:
            return None
        now = self.configuration
        if now.outgoing:
            wanted = now.but(now.voters, learners=now.learners, promoted=now.promoted)
        elif ready := [i for i in now.promoted if self._has_caught_up(i)]:
            wanted = self.with_voter(ready[0])
        else:
            return None
        return wanted if self._why_not(wanted) is None else None

    # Rules: what may be changed, and who counts.

    def _why_not(self, wanted: Configuration) -> str | None:
        """Why a change has to wait or is none; None if it may be made."""
        now = self.configuration
        if not wanted.voters:
            return "a cluster without voters decides nothing: leave one"
        if not self._last_is_committed():
            return "another change is under way: try again when it is committed"
        if wanted.outgoing and now.outgoing:
            return "the cluster is in a joint configuration: try again when that is over"
        if wanted.outgoing:
            return None
        changed = set(wanted.voters) ^ set(now.voters)
        if now.outgoing and changed:
            return "the cluster is in a joint configuration: try again when that is over"
        if not self._changes_one(changed):
            return "only one voter can be added or removed at a time: change several by a joint configuration"
        if not now.outgoing and not self._own_term_is_committed():
            return "the leader has not committed an entry of its term yet: try again in a moment"
        behind = [i for i in set(wanted.voters) - set(now.voters) if not self._has_caught_up(i)]
        return f"{behind[0]} has not caught up yet: add it as a learner first" if behind else None

    def _last_is_committed(self) -> bool:
        """One change at a time: the last is committed before the next begins. Dissertation, section 4.1."""
        return self.configured <= self.commit_index

    def _changes_one(self, changed: set[str]) -> bool:
        """Configurations that differ by one server have no majorities apart. Dissertation, section 4.1."""
        return len(changed) <= 1

    def _own_term_is_committed(self) -> bool:
        """After that no change of an older term can come back: the correction of 2015."""
        return self.log.term_at(self.commit_index) == self.current_term

    def _has_caught_up(self, server: str) -> bool:
        """A learner that has all that is committed holds nothing up. Dissertation, section 4.2.1."""
        return server == self.server or self.match_index.get(server, 0) >= self.commit_index

    def _counts_acknowledgement(self, m: AppendEntriesReply) -> bool:
        """Who was sent nothing in this term acknowledges nothing of it."""
        return m.source in self.match_index and super()._counts_acknowledgement(m)

    def _has_majority(self) -> bool:
        return self._decides(self.votes) if self.config.membership else super()._has_majority()

    def _is_confirmed(self) -> bool:
        return self._decides(self.read_acks) if self.config.membership else super()._is_confirmed()

    def _decides(self, servers: set[str] | frozenset[str]) -> bool:
        """Whether these servers are a majority of all that have to agree."""
        return all(2 * sum(i in servers for i in voters) > len(voters) for voters in self._deciding())

    def _deciding(self) -> list[tuple[str, ...]]:
        """In a joint configuration the old voters and the new ones have to agree. Section 6."""
        now = self.configuration
        return [now.voters, now.outgoing] if now.outgoing else [now.voters]

    def _may_stand(self) -> bool:
        if not (self.config.membership and self.config.pre_vote):
            return super()._may_stand()
        return self.told_to_stand or self._decides(self.pre_votes)

    def _has_lost_quorum(self, now: float) -> bool:
        if not (self.config.membership and self.config.check_quorum):
            return super()._has_lost_quorum(now)
        since = now - self.config.election_timeout
        return not self._decides({self.server} | {i for i, heard in self._heard.items() if heard > since})

    def _is_caught_up(self, peer: str) -> bool:
        return super()._is_caught_up(peer) and self.configuration.has_vote(peer)

    def _may_resign(self) -> bool:
        """Whoever leaves stops leading within its term."""
        return self._left or super()._may_resign()

    def _quorum_index(self) -> int:
        """The last entry that a majority stores, of both parts of a joint configuration."""
        if not self.config.membership:
            return super()._quorum_index()
        return min(map(self._stored_by_most, self._deciding()))

    def _stored_by_most(self, voters: tuple[str, ...]) -> int:
        """A leader that isn't a voter doesn't count itself. Dissertation, section 4.2.2."""
        own = {**self.match_index, self.server: self.log.last_index}
        stored = sorted((own.get(i, 0) for i in voters), reverse=True)
        return stored[len(voters) // 2]

    def _stands(self) -> bool:
        """Who votes may stand for election; who is being removed may be needed until that is committed.

        Dissertation, section 4.2.2. A learner, and who has been removed, would only disturb.
        """
        if not self.config.membership or self.role is Role.LEADER or self.configuration.has_vote(self.server):
            return True
        before = [c for _, c in self._configurations[:-1]][-1:]
        return self.configured > self.commit_index and any(c.has_vote(self.server) for c in before)

    def _wait(self, now: float) -> None:
        """Whoever doesn't stand for election looks again an election timeout later. This is no step."""
        self._now = now
        self._restart_election_timer()

    def _is_removed(self) -> bool:
        """Whether it is committed that this server doesn't vote."""
        return self.configured <= self.commit_index and not self.configuration.has_vote(self.server)

    def _advance_commit_index(self) -> None:
        """A leader that isn't a voter any more leads until that is committed. Dissertation, section 4.2.2."""
        committed = self.commit_index
        super()._advance_commit_index()
        if self.config.membership and self.commit_index > committed and self._is_removed():
            self._left = True
            self.leader = None
            self._step_down()

    # The log and the configurations in it.

    def _restore_extended(self, variables: Mapping[str, Any]) -> None:
        super()._restore_extended(variables)
        self._learn_again()

    def _append(self, entries: Any) -> None:
        first = self.log.last_index + 1
        super()._append(entries)
        self._learn(first)

    def _store(self, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        super()._store(prev_log_index, entries)
        self._learn(max(self._kept, self.configured) + 1)

    def _truncate(self, length: int) -> None:
        super()._truncate(length)
        if self.configured > length:
            self._configurations = [(n, c) for n, c in self._configurations if n <= length]
            self._regroup()

    def _configuration_at(self, n: int) -> tuple[int, bytes]:
        """What a snapshot of entries up to n says of members: the log won't tell any more. Section 4.1."""
        at, configuration = next(known for known in reversed(self._configurations) if known[0] <= n)
        return at, encode_configuration(configuration) if at else b""

    def _install(self, m: InstallSnapshot) -> None:
        super()._install(m)
        self._learn_again()

    def _learn_again(self) -> None:
        """All over: the first configuration, that of the snapshot, and those in the log after it."""
        if not self.config.membership:
            return
        del self._configurations[1:]
        if self.snapshot is not None and self.snapshot.configured:
            included = configuration_in(self.snapshot.configuration)
            assert included is not None, "a snapshot says who the members are"
            self._configurations.append((self.snapshot.configured, included))
        self._learn(self.log.snapshot_index + 1)

    def _learn(self, first: int) -> None:
        """Configurations among the entries from `first` on are in force from now on."""
        if not self.config.membership:
            return
        for n, entry in enumerate(self.log.entries(first), first):
            if (configuration := configuration_in(entry.command)) is not None:
                self._configurations.append((n, configuration))
        self._regroup()

    def _regroup(self) -> None:
        """Peers are all others of the configuration in force; what is known of earlier ones stays known."""
        self.peers = tuple(i for i in self.configuration.members if i != self.server)
        for peer in self.peers:
            if peer not in self.match_index:
                self.match_index[peer] = 0
                self.next_index[peer] = self.log.last_index + 1
                self._heard[peer] = self._now
                self._probing.add(peer)

    def _begin(self, now: float) -> None:
        super()._begin(now)
        self._left = False

    # In the trace.

    def _event(self, name: str, message: Message | None, results: tuple[Result, ...]) -> dict[str, Any]:
        event = super()._event(name, message, results)
        shown = name in ("change_voters", "enter_joint") or (name == "restart" and self.configured)
        if shown and self.config.membership:
            newest = self._configurations[-1][1]
            event["joint" if newest.outgoing else "voters"] = sorted(newest.voters)
        return event

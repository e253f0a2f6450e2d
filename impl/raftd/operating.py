"""What operators see of a server, and what they may ask of a leader."""

from __future__ import annotations

from raftd.addresses import parse_addresses
from raftd.codec import Faults, FollowerStatus, Members, MembersRequest, Status
from raftd.configurations import Configuration
from raftd.core import CannotChange, Core, NotLeader, Role


def status_of(core: Core, now: float, id: int, start: int, faults: Faults) -> Status:
    """A server as it sees itself; a leader's followers, too."""
    followers = {
        peer: FollowerStatus(match, core.log.last_index - match, round(core.heard(peer, now), 3))
        for peer, match in core.match_index.items()
        if core.role is Role.LEADER and peer in core.peers
    }
    in_force = core.configuration
    committed = core.configured <= core.commit_index
    members = Members(in_force.voters, in_force.outgoing, in_force.learners, committed, in_force.addresses)
    return Status(
        id,
        server=core.server,
        role=str(core.role),
        leader=core.leader,
        current_term=core.current_term,
        log_length=core.log.last_index,
        commit_index=core.commit_index,
        last_applied=core.last_applied,
        snapshot_index=core.log.snapshot_index,
        start=start,
        followers=followers,
        faults=faults,
        members=members if core.config.membership else None,
    )


def wanted_by(request: MembersRequest, core: Core) -> Configuration:
    """The configuration that an operator asks a leader for.

    Raises:
        NotLeader, CannotChange, ValueError: the address is none.
    """
    server = request.server
    if core.role is not Role.LEADER:
        raise NotLeader(core.server, core.leader)
    now = core.configuration
    match request.action:
        case "add":
            parse_addresses(f"{server}={request.address}")
            if server in now.members:
                raise CannotChange(f"{server} is a member already")
            return core.with_learner(server, request.address, request.promoted)
        case "promote" | "remove" if server not in now.members:
            raise CannotChange(f"{server} is no member; there are {', '.join(now.members)}")
        case "promote":
            if server in now.voters:
                raise CannotChange(f"{server} votes already")
            return core.with_voter(server)
        case "remove":
            return core.without(server)
        case "set":
            if strangers := sorted(set(request.voters) - set(now.members)):
                raise CannotChange(f"{strangers[0]} is no member: add it as a learner first")
            return core.joint_with(request.voters)

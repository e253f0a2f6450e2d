"""Servers join, learn, vote and leave: what a core does, step by step. Dissertation, chapter 4."""

from __future__ import annotations

import random

import pytest

from raftd.configurations import Configuration, configuration_in, encode_configuration, for_state_machine
from raftd.core import CannotChange, Config, Core, Persistent, Role
from raftd.faults import make_core
from raftd.log import Log
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteReply,
    Snapshot,
)

CONFIG = Config(membership=True)
ASKING = Config(membership=True, pre_vote=True)
FIRST = ("n1", "n2", "n3")


def make(server: str = "n1", first: tuple[str, ...] = FIRST, log: Log | None = None) -> Core:
    core = Core(server, first, random.Random(1), CONFIG, Persistent(1, None, log or Log()))
    core.start(0)
    return core


def leader(committed: bool = True) -> Core:
    """n1 leads term 2 of three servers, and has committed its no-op with n2."""
    core = make()
    core.start_election(1)
    core.receive(1, RequestVoteReply("n2", "n1", 2, True))
    assert core.role is Role.LEADER
    if committed:
        acknowledge(core, "n2")
    return core


def acknowledge(core: Core, *servers: str) -> None:
    """Servers store all of the leader's log, and say so."""
    for server in servers:
        core.receive(2, AppendEntriesReply(server, "n1", core.current_term, True, core.log.last_index))


def test_a_configuration_is_told_from_commands_of_clients() -> None:
    command = encode_configuration(Configuration(voters=FIRST, addresses={"n3": "127.0.0.1:7003"}))
    found = configuration_in(command)
    assert found is not None
    assert (found.voters, found.addresses) == (FIRST, {"n3": "127.0.0.1:7003"})
    assert not for_state_machine(command)
    assert not for_state_machine(b"")
    assert for_state_machine(b"x")


def test_a_server_that_is_added_learns_first_and_votes_when_it_has_caught_up() -> None:
    """Section 4.2.1: until then it would only hold up what is to be committed."""
    core = leader()
    batch = core.change(2, core.with_learner("n4", "127.0.0.1:7004"))
    assert batch.event["event"] == "change_voters"
    assert batch.event["voters"] == list(FIRST)
    acknowledge(core, "n2")  # commits, with n4 not counted
    assert core.commit_index == core.log.last_index
    assert core.change_due() is None
    with pytest.raises(CannotChange, match="n4 has not caught up"):
        core.change(2, core.with_voter("n4"))
    acknowledge(core, "n4")
    wanted = core.change_due()
    assert wanted is not None
    core.change(2, wanted)
    assert core.configuration.voters == ("n1", "n2", "n3", "n4")
    acknowledge(core, "n2")
    assert core.commit_index < core.log.last_index, "two of four are no majority"
    acknowledge(core, "n4")
    assert core.commit_index == core.log.last_index


def test_one_change_at_a_time() -> None:
    core = leader()
    core.change(2, core.without("n3"))
    with pytest.raises(CannotChange, match="another change is under way"):
        core.change(2, core.without("n2"))
    acknowledge(core, "n2")
    core.change(2, core.without("n2"))
    assert core.commit_index == core.log.last_index, "alone, n1 commits at once"


def test_no_change_before_an_entry_of_the_leaders_own_term_is_committed() -> None:
    """The correction of 2015."""
    core = leader(committed=False)
    with pytest.raises(CannotChange, match="has not committed an entry of its term"):
        core.change(2, core.without("n3"))


def test_no_direct_switch() -> None:
    core = leader()
    with pytest.raises(CannotChange, match="only one voter can be added or removed"):
        core.change(2, core.configuration.but(("n1",)))


def test_a_joint_configuration_needs_both_majorities_and_is_left_when_it_is_committed() -> None:
    """Section 6. n4 and n5 shall take the place of n2 and n3."""
    core = leader()
    batch = core.change(2, core.joint_with(("n1", "n4", "n5")))
    assert batch.event["event"] == "enter_joint"
    assert batch.event["joint"] == ["n1", "n4", "n5"]
    acknowledge(core, "n4", "n5")
    assert core.change_due() is None, "no majority of the old ones has it"
    acknowledge(core, "n2")
    wanted = core.change_due()
    assert wanted is not None
    core.change(2, wanted)
    assert core.configuration.voters == ("n1", "n4", "n5")
    assert not core.configuration.outgoing
    acknowledge(core, "n4")
    assert core.commit_index == core.log.last_index


def test_a_leader_that_is_removed_leads_until_that_is_committed_and_counts_without_itself() -> None:
    """Section 4.2.2."""
    core = leader()
    core.change(2, core.without("n1"))
    acknowledge(core, "n2")
    assert core.role.value == "leader", "n2 alone is no majority of n2 and n3"
    acknowledge(core, "n3")
    assert core.commit_index == core.log.last_index
    assert core.role.value == "follower"
    assert core.current_term == 2
    assert core.tick(core.deadline) is None, "who was removed disturbs nobody"


def test_a_configuration_goes_back_where_the_log_is_cut() -> None:
    core = leader()
    core.change(2, core.without("n3"))
    assert core.configured == 2
    core.receive(3, AppendEntries("n3", "n1", 3, 1, 2, (Entry(3, b""),), 0))
    assert core.configuration.voters == FIRST


def test_a_restarted_server_finds_its_configuration_in_the_log() -> None:
    command = encode_configuration(Configuration(voters=("n1", "n2")))
    core = make(log=Log([Entry(1, b""), Entry(1, command), Entry(1, b"x")]))
    assert (core.configuration.voters, core.configured) == (("n1", "n2"), 2)


def test_a_learner_stands_for_no_election_and_gives_its_vote() -> None:
    """It may not know yet that it was promoted, and the others may need its vote."""
    core = make("n4")
    assert core.tick(core.deadline) is None
    batch = core.receive(5, RequestVote("n2", "n4", 3, 9, 2))
    assert batch.send == (RequestVoteReply("n4", "n2", 3, True),)


def test_who_is_being_removed_stands_until_that_is_committed() -> None:
    """Section 4.2.2, figure 4.6: its log may be the only one that can win."""
    core = make(log=Log([Entry(1, encode_configuration(Configuration(voters=("n2",))))]))
    batch = core.tick(core.deadline)
    assert batch is not None
    core.receive(5, RequestVoteReply("n2", "n1", core.current_term, True))
    assert core.role is Role.LEADER, "by n2's vote, its own not counted"


def test_its_own_vote_alone_elects_no_server_that_is_not_a_voter() -> None:
    core = make(log=Log([Entry(1, encode_configuration(Configuration(voters=("n2",))))]))
    core.tick(core.deadline)
    assert core.role is Role.CANDIDATE


def test_a_server_named_twice_votes_once() -> None:
    assert Configuration(voters=("n1", "n2")).but(("n2", "n2", "n3")).voters == ("n2", "n3")


# Compacted configurations. Dissertation, sections 4.1 and 5.1.


def compacted() -> tuple[Core, Configuration]:
    """n1 leads, n4 has learned its way in, and a snapshot stands for the entry that says so."""
    core = leader()
    core.change(2, core.with_learner("n4", "127.0.0.1:7004", promoted=False))
    acknowledge(core, "n2", "n4")
    core.change(2, core.with_voter("n4"))
    acknowledge(core, "n2", "n4")
    core.propose(2, [b"x"])
    acknowledge(core, "n2", "n4")
    wanted = core.configuration
    assert wanted.voters == (*FIRST, "n4")
    core.take_snapshot(3, b"state")
    assert core.log.snapshot_index > core.configured == 3
    return core, wanted


def test_a_server_that_starts_from_its_snapshot_knows_the_members() -> None:
    core, wanted = compacted()
    again = Core("n1", FIRST, random.Random(1), CONFIG, Persistent(2, "n1", core.log, core.snapshot))
    batch = again.start(0)
    assert (again.configured, again.configuration) == (3, wanted)
    assert again.peers == ("n2", "n3", "n4")
    assert batch.event["state"]["configured"] == 3
    assert batch.event["voters"] == [*FIRST, "n4"]


def test_a_snapshot_that_is_installed_says_who_the_members_are() -> None:
    core, wanted = compacted()
    assert core.snapshot is not None
    other = make("n3")
    batch = other.receive(4, InstallSnapshot("n1", "n3", 2, core.snapshot))
    assert (other.configured, other.configuration) == (3, wanted)
    assert batch.event["state"]["configured"] == 3
    assert batch.persist is not None
    assert batch.persist.snapshot == core.snapshot


def test_a_snapshot_holds_no_configuration_after_its_end() -> None:
    """The newest may not be committed yet. Where it is cut, the snapshot's is in force again."""
    core, wanted = compacted()
    core.change(4, core.without("n2"))
    assert core.configured == 5
    n1 = Core("n1", FIRST, random.Random(1), CONFIG, Persistent(2, "n1", core.log, core.snapshot))
    n1.start(0)
    assert n1.configured == 5
    n1.receive(1, AppendEntries("n2", "n1", 3, 4, 2, (Entry(3, b""),), 4))
    assert (n1.configured, n1.configuration) == (3, wanted)


def test_entries_after_a_snapshot_keep_their_configuration() -> None:
    """They stay if they are the leader's; in another log, what followed is gone. Figure 5.3."""
    core, wanted = compacted()
    assert core.snapshot is not None
    newer = encode_configuration(Configuration(voters=FIRST))
    before = [Entry(2, b""), Entry(2, b"a"), Entry(2, encode_configuration(wanted))]
    for term, configured in ((2, 5), (1, 3)):
        log = Log([*before, Entry(term, b"x"), Entry(term, newer)])
        follower = Core("n3", FIRST, random.Random(1), CONFIG, Persistent(2, None, log))
        follower.start(0)
        assert follower.configured == 5
        follower.receive(1, InstallSnapshot("n1", "n3", 2, core.snapshot))
        assert follower.configured == configured


def test_the_first_configuration_needs_no_entry() -> None:
    core = leader()
    core.take_snapshot(3, b"state")
    assert core.snapshot == Snapshot(1, 2, b"state")
    again = Core("n1", FIRST, random.Random(1), CONFIG, Persistent(2, "n1", core.log, core.snapshot))
    assert (again.configured, again.configuration.voters) == (0, FIRST)


@pytest.mark.parametrize(
    ("config", "broken", "deposed"),
    [(ASKING, None, False), (ASKING, "pre_vote.leader_heard", True), (CONFIG, None, True)],
    ids=["pre-vote", "pre-vote of servers that hear a leader", "no pre-vote"],
)
def test_a_removed_server_disturbs_nobody(config: Config, broken: str | None, deposed: bool) -> None:
    """Dissertation, section 4.2.3: it doesn't know that it was removed, and its log is as long as most."""
    cores = {i: make_core(i, (*FIRST, "n4"), random.Random(1), config, broken=broken) for i in (*FIRST, "n4")}

    def deliver(sends: tuple[Message, ...], now: float) -> None:
        waiting = [*sends]
        while waiting:
            m = waiting.pop(0)
            waiting += cores[m.target].receive(now, m).send

    for core in cores.values():
        core.start(0.0)
    n1, n4 = cores["n1"], cores["n4"]
    deliver(n1.start_election(1.0).send, 1.0)
    assert n1.commit_index == n4.log.last_index == 1
    n1.change(1.0, n1.without("n4"))  # and nobody has got that yet
    term = n1.current_term
    for _ in range(5):
        now = n4.deadline
        for i in ("n2", "n3") if n1.role is Role.LEADER else ():
            cores[i].receive(now - 0.01, AppendEntries("n1", i, term, 1, term, (), 1))
        while (batch := n4.tick(now)) is not None:
            deliver(batch.send, now)
            if n4.role is Role.LEADER:
                break
    assert (n1.role is not Role.LEADER) == deposed
    assert (max(core.current_term for core in cores.values()) > term) == deposed

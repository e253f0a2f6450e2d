"""Pre-vote, check quorum and leadership transfer: who stands for election, and who stops leading.

Dissertation, sections 9.6, 6.2 and 3.10; each claim on both sides of its line, then in a simulated cluster.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from raftd.core import Batch, Config, Core, NotLeader, Persistent, Role
from raftd.log import Log
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Aside,
    Entry,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.simulated_faults import Faults
from raftd.simulated_network import Network
from raftd.simulator import EXTENDED, SIMULATED, Simulation, server_names
from raftd.timing import _Crashing

THREE = server_names(3)
ON = Config(pre_vote=True, check_quorum=True, leadership_transfer=True)
T = ON.election_timeout


def make(
    role: Role = Role.FOLLOWER, log_terms: Sequence[int] = (1, 2), config: Config = ON, **variables: Any
) -> Core:
    """Server n1 of three, in term 2."""
    core = Core("n1", THREE, random.Random(1), config)
    log = [Entry(term, b"%d" % n) for n, term in enumerate(log_terms)]
    voted_for = None if role is Role.FOLLOWER else "n1"
    state = {"current_term": 2, "voted_for": voted_for, "log": log, "commit_index": 0, **variables}
    core.restore(0.0, role=role, **state)
    return core


def asks(source: str = "n2", term: int = 2, last: tuple[int, int] = (2, 2)) -> PreVote:
    """`last` is the term and the index of the asking server's last entry."""
    return PreVote(source, "n1", term, last_log_index=last[1], last_log_term=last[0])


def heartbeat(source: str = "n2", term: int = 2) -> AppendEntries:
    return AppendEntries(source, "n1", term, 0, 0, (), 0)


def granted(batch: Batch) -> bool:
    (reply,) = batch.send
    assert isinstance(reply, PreVoteReply)
    return reply.granted


def ticked(core: Core, now: float | None = None) -> Batch:
    batch = core.tick(core.deadline if now is None else now)
    assert batch is not None
    return batch


# --- pre-vote ---------------------------------------------------------------------------


def test_a_timeout_asks_first_and_changes_no_term_and_no_vote() -> None:
    core = make(voted_for="n3")
    batch = ticked(core)
    assert (batch.event["event"], batch.persist) == ("start_pre_vote", None)
    assert batch.send == tuple(PreVote("n1", peer, 2, 2, 2) for peer in ("n2", "n3"))
    assert (core.role, core.current_term, core.voted_for) == (Role.FOLLOWER, 2, "n3")


def test_a_majority_of_pre_votes_leads_to_an_election_at_once() -> None:
    core = make()
    ticked(core)
    now = core.deadline - 0.01
    core.receive(now, PreVoteReply("n2", "n1", 1, True, asked_term=2))
    batch = ticked(core, now)
    assert batch.event["event"] == "timeout"
    assert (core.role, core.current_term, core.pre_votes) == (Role.CANDIDATE, 3, set())
    assert [type(m) for m in batch.send] == [RequestVote, RequestVote]


@pytest.mark.parametrize(
    "answer",
    [
        PreVoteReply("n2", "n1", 2, False, asked_term=2),
        PreVoteReply("n2", "n1", 1, True, asked_term=1),
        RequestVoteReply("n2", "n1", 2, True),
    ],
    ids=["refused", "of an older term", "a vote"],
)
def test_what_is_no_pre_vote_leads_to_no_election(answer: Message) -> None:
    core = make()
    ticked(core)
    core.receive(0.2, answer)
    assert ticked(core).event["event"] == "start_pre_vote"


def test_who_found_a_leader_asks_no_more() -> None:
    core = make()
    ticked(core)
    core.receive(0.2, heartbeat())
    core.receive(0.21, PreVoteReply("n3", "n1", 2, True, asked_term=2))
    assert ticked(core).event["event"] == "start_pre_vote"


def test_a_refusal_brings_a_newer_term() -> None:
    """Or a server that alone has the newest entries, and an older term, would never be elected."""
    core = make()
    ticked(core)
    core.receive(0.2, PreVoteReply("n2", "n1", 7, False, asked_term=2))
    assert core.current_term == 7


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (asks(), True),
        (asks(term=1), False),
        (asks(term=9), True),
        (asks(last=(2, 1)), False),
        (asks(last=(1, 5)), False),
        (asks(last=(3, 1)), True),
    ],
)
def test_pre_votes_are_for_who_could_win_and_change_nothing(asked: PreVote, answer: bool) -> None:
    core = make(voted_for="n3")
    deadline = core.deadline
    batch = core.receive(0.1, asked)
    assert granted(batch) is answer
    assert batch.send[0].term == core.current_term == 2
    assert (core.voted_for, core.deadline, batch.persist) == ("n3", deadline, None)


@pytest.mark.parametrize(
    ("source", "later", "answer"), [("n3", 0.99, False), ("n3", 1.01, True), ("n2", 0.1, True)]
)
def test_who_hears_a_leader_gives_pre_votes_to_that_leader_only(
    source: str, later: float, answer: bool
) -> None:
    """Section 4.2.3: within an election timeout of hearing it; the leader asks only if it leads no more."""
    core = make()
    core.receive(1.0, heartbeat("n2"))
    assert granted(core.receive(1.0 + later * T, asks(source))) is answer


def test_a_leader_gives_no_pre_vote() -> None:
    assert not granted(make(Role.LEADER).receive(0.1, asks()))


def test_a_lone_server_elects_itself() -> None:
    core = Core("n1", ("n1",), random.Random(1), ON)
    core.start(0.0)
    assert [ticked(core).event["event"] for _ in range(2)] == ["start_pre_vote", "timeout"]
    assert core.role is Role.LEADER


# --- check quorum -----------------------------------------------------------------------


def test_a_leader_without_a_majority_stops_in_its_term() -> None:
    core = make(Role.LEADER)
    answer = AppendEntriesReply("n3", "n1", 2, True, 0)
    core.receive(0.5 * T, answer)
    assert ticked(core, 1.4 * T).event["event"] == "append_entries"
    batch = ticked(core, 1.6 * T)
    assert batch.event["event"] == "lose_quorum"
    assert (batch.persist, batch.send) == (None, ())
    assert (core.role, core.current_term, core.voted_for, core.leader) == (Role.FOLLOWER, 2, "n1", None)


@pytest.mark.parametrize("config", [Config(), replace(ON, check_quorum=False)])
def test_otherwise_it_leads_on(config: Config) -> None:
    core = make(Role.LEADER, config=config)
    assert ticked(core, 9 * T).event["event"] == "append_entries"


def test_answers_of_another_term_are_not_heard() -> None:
    """A follower of an older leadership doesn't say that this one is heard."""
    core = make(Role.LEADER)
    core.receive(T, AppendEntriesReply("n3", "n1", 1, True, 0))
    assert ticked(core, 1.5 * T).event["event"] == "lose_quorum"


# --- leadership transfer ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("match_index", "successor", "target"),
    [
        ({"n2": 1, "n3": 1}, None, None),
        ({"n2": 1, "n3": 2}, None, "n3"),
        ({"n2": 1, "n3": 2}, "n2", None),
        ({"n2": 2, "n3": 2}, "n2", "n2"),
    ],
)
def test_a_leader_hands_over_to_who_has_its_log(
    match_index: dict[str, int], successor: str | None, target: str | None
) -> None:
    batch = make(Role.LEADER, match_index=match_index).hand_over(0.1, successor)
    sent = None if batch is None else batch.send
    assert sent == (None if target is None else (TimeoutNow("n1", target, 2),))


def test_a_leader_that_hands_over_takes_no_commands_for_an_election_timeout() -> None:
    """Or its successor would lack entries, and not be elected."""
    core = make(Role.LEADER, match_index={"n2": 2})
    core.propose(0.0, [b"before"])
    core.receive(0.05, AppendEntriesReply("n2", "n1", 2, True, 3))
    assert core.hand_over(0.1) is not None
    with pytest.raises(NotLeader):
        core.propose(0.1, [b"while it hands over"])
    core.receive(0.1 + T, AppendEntriesReply("n2", "n1", 2, True, 3))
    core.propose(0.1 + T, [b"as nobody took over"])


def test_who_is_told_stands_at_once_and_asks_nobody() -> None:
    core = make()
    core.receive(0.01, heartbeat())
    core.receive(0.02, TimeoutNow("n2", "n1", 2))
    assert core.told_to_stand
    batch = ticked(core, 0.02)
    assert (batch.event["event"], core.current_term, core.told_to_stand) == ("timeout", 3, False)


@pytest.mark.parametrize(("role", "term"), [(Role.FOLLOWER, 1), (Role.LEADER, 2)])
def test_only_the_leader_of_the_term_can_tell(role: Role, term: int) -> None:
    core = make(role)
    core.receive(0.02, TimeoutNow("n2", "n1", term))
    assert not core.told_to_stand


# --- in a cluster -----------------------------------------------------------------------


class Stage(Simulation):
    """A simulated cluster whose network a test cuts, and that runs until something has happened."""

    def cut_off(self, *names: str) -> None:
        """These servers and the others don't hear each other."""
        others = [i for i in self.servers if i not in names]
        self.network.blocked = {link for a in names for b in others for link in ((a, b), (b, a))}

    def wait(self, timeouts: float) -> None:
        """Let so many election timeouts pass."""
        until = self.now + timeouts * self.config.election_timeout
        while self.now < until:
            self.run(self.summary.steps + 1)

    def core(self, name: str) -> Core:
        core = self.servers[name].core
        assert core is not None
        return core

    def leader(self) -> str:
        return max(self.servers, key=lambda i: (self.core(i).role is Role.LEADER, self.core(i).current_term))


def staged(config: Config, seed: int = 1, broken: str | None = None) -> Stage:
    """A cluster with a leader in term 1, or a little later."""
    stage = Stage(seed, THREE, Faults(), config=config, broken=broken)
    stage.wait(10)
    assert stage.core(stage.leader()).role is Role.LEADER
    return stage


def terms_of_a_cut_off_follower(stage: Stage) -> tuple[int, int]:
    """How far its term grew while it was cut off, and how far the cluster's did when it was back."""
    leader = stage.leader()
    follower = next(i for i in stage.servers if i != leader)
    before = stage.core(leader).current_term
    stage.cut_off(follower)
    stage.wait(20)
    alone = stage.core(follower).current_term
    stage.cut_off()
    stage.wait(10)
    return alone - before, stage.core(stage.leader()).current_term - before


def test_a_follower_that_was_cut_off_raises_no_term_and_disturbs_nobody() -> None:
    """Section 9.6: without pre-vote its term grows, and the leader is deposed when it comes back."""
    assert terms_of_a_cut_off_follower(staged(replace(EXTENDED, check_quorum=False))) == (0, 0)
    alone, together = terms_of_a_cut_off_follower(staged(SIMULATED))
    assert alone > 5
    assert together > 5


def test_a_leader_that_was_cut_off_stops_and_another_leads() -> None:
    """Section 6.2; Figure 2's leader goes on for ever, and takes commands that nobody will commit."""
    for config, role in ((EXTENDED, Role.FOLLOWER), (SIMULATED, Role.LEADER)):
        stage = staged(config)
        old = stage.leader()
        stage.cut_off(old)
        stage.wait(10)
        assert stage.core(old).role is role
        assert stage.leader() != old


def test_a_leader_hands_over_within_an_election_timeout() -> None:
    stage = staged(EXTENDED)
    old = stage.leader()
    server = stage.servers[old]
    while stage.summary.elections == 1:
        if stage.core(old).role is Role.LEADER:
            stage._step(server, stage.core(old).hand_over)  # if somebody has all of its log
        stage.wait(0.05)
    stage.wait(1)
    assert stage.leader() != old
    assert stage.summary.elections == stage.summary.leaders == 2


# --- what goes wrong without a rule, though nothing wrong is agreed on ----------------------


def time_to_elect_another(broken: str | None) -> float:
    """The mean time without a leader, in election timeouts, if each leader is crashed after a while."""
    simulation = _Crashing(1, THREE, EXTENDED)
    simulation.broken = dict.fromkeys(THREE, broken) if broken else {}
    return fmean(simulation.measure(60)) / T


def time_to_elect_beside_the_deaf(broken: str | None) -> float:
    """The mean time until there is a first leader, in election timeouts; n1 hears nobody, and asks on."""

    def time_of(seed: int) -> float:
        stage = Stage(seed, THREE, Faults(), config=EXTENDED, broken=broken)
        stage.network.blocked = {("n2", "n1"), ("n3", "n1")}
        while not stage.summary.leaders:
            stage.run(stage.summary.steps + 1)
        return stage.now / T

    return fmean(map(time_of, range(40)))


def test_elections_take_longer_if_voters_wait_for_their_own_timeout() -> None:
    """They refuse whoever asks as long as they know a leader, even that leader: hashicorp/raft#606."""
    assert time_to_elect_another("pre_vote.leader_asks") > 1.1 * time_to_elect_another(None)


def test_elections_take_longer_if_a_pre_vote_counts_as_hearing_a_leader() -> None:
    """Who can't be elected keeps the others from asking: hashicorp/raft#609."""
    assert time_to_elect_beside_the_deaf("pre_vote.keep_timer") > 1.3 * time_to_elect_beside_the_deaf(None)


class Deafness(Network):
    """A network in which nobody but who answers it reaches `deaf`."""

    deaf = ""

    def carry(self, m: Message | Aside) -> None:
        if m.target != self.deaf or isinstance(m, AppendEntriesReply):
            super().carry(m)


def test_a_leader_that_hears_answers_of_any_term_leads_on_in_an_old_one() -> None:
    """hashicorp/raft#666: its followers have another leader by now, and tell it so with each answer."""
    for broken, role in ((None, Role.FOLLOWER), ("check_quorum.current_term", Role.LEADER)):
        stage = Stage(1, THREE, Faults(), config=EXTENDED, broken=broken)
        stage.network = network = Deafness(stage, None)
        stage.wait(10)
        old = network.deaf = stage.leader()
        while len(stage._leader_of) == 1:
            stage._step(stage.servers[old], stage.core(old).hand_over)
            stage.wait(0.2)
        stage.wait(20)
        assert stage.core(old).role is role
        assert stage.leader() != old
        assert (stage.core(old).current_term == 1) is (broken is not None)


def test_without_a_refusal_an_older_term_and_a_newer_log_elect_nobody() -> None:
    """etcd#8243: n1 has the log, and n2 the term; the third is down."""
    for broken, elected in ((None, True), ("pre_vote.refuse", False)):
        stage = Stage(1, THREE, Faults(), config=EXTENDED, broken=broken)
        stage.servers["n1"].disk = Persistent(1, None, Log([Entry(1, b"x")]))
        stage.servers["n2"].disk = Persistent(5, None, Log())
        stage.cut_off("n3")
        stage.wait(50)
        assert bool(stage.summary.leaders) is elected

"""The core reads what was committed when it was asked, on both sides of each line. Dissertation, 6.4."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from raftd.codec import Done, Redirect, Reply
from raftd.core import Batch, Config, Core, NotLeader, Role
from raftd.messages import AppendEntries, Entry, ReadIndex, ReadIndexReply, RequestVote, RequestVoteReply
from raftd.readers import Reader, Readers

FIVE = ("n1", "n2", "n3", "n4", "n5")
T = Config().election_timeout
READS = Config(reads=True)
LEASES = Config(reads=True, lease_drift=1.5)


def make(role: Role, log_terms: Sequence[int] = (1, 2), config: Config = READS, **variables: Any) -> Core:
    """Server n1 of five, in term 2, with all of its log committed."""
    core = Core("n1", FIVE, random.Random(1), config)
    log = [Entry(term, b"%d" % n) for n, term in enumerate(log_terms)]
    state = {"current_term": 2, "voted_for": "n1", "log": log, "commit_index": len(log), **variables}
    core.restore(0.0, role=role, **state)
    return core


def leader(log_terms: Sequence[int] = (1, 2), config: Config = READS, **variables: Any) -> Core:
    return make(Role.LEADER, log_terms, config, **variables)


def acknowledge(
    core: Core, *sources: str, term: int = 2, round: int = 1, promise: float = 0.0, now: float = 0.01
) -> None:
    for source in sources:
        core.receive(now, ReadIndexReply(source, "n1", term, round, promise))


def begun(core: Core, now: float = 0.0) -> Batch:
    batch = core.begin_read(now)
    assert batch is not None
    return batch


def test_a_majority_must_acknowledge_the_round() -> None:
    core = leader()
    assert {m.target for m in begun(core).send} == set(core.peers)
    acknowledge(core, "n2")
    acknowledge(core, "n2")
    assert core.serve_read(0.02) is None
    acknowledge(core, "n3")
    assert core.serve_read(0.02) is not None
    assert core.serve_read(0.03) is None, "a round is answered once"


def test_a_lone_server_reads_at_once() -> None:
    core = Core("n1", ("n1",), random.Random(1), READS)
    core.start(0.0)
    core.start_election(1.0)
    begun(core, 1.0)
    assert core.serve_read(1.0) is not None


def test_only_leaders_read() -> None:
    with pytest.raises(NotLeader):
        make(Role.FOLLOWER).begin_read(0.0)


def test_a_new_leader_reads_once_an_entry_of_its_term_is_committed() -> None:
    """Until then it doesn't know what its predecessors committed. Section 8."""
    core = leader([1, 1, 2], commit_index=2)
    assert core.begin_read(0.0) is None
    assert leader([1, 1, 2], commit_index=3).begin_read(0.0) is not None


@pytest.mark.parametrize("answer", [{"round": 0}, {"round": 2}, {"term": 1}])
def test_answers_to_another_round_or_of_an_older_term_do_not_count(answer: dict[str, int]) -> None:
    core = leader()
    begun(core)
    acknowledge(core, "n2", "n3", "n4", "n5", **answer)
    assert core.serve_read(0.02) is None


def test_one_round_is_under_way_at_a_time_and_later_readers_get_the_next() -> None:
    core = leader()
    begun(core)
    assert core.begin_read(0.0) is None
    acknowledge(core, "n2", "n3")
    core.serve_read(0.02)
    begun(core, 0.02)
    acknowledge(core, "n2", "n3", "n4")
    assert core.serve_read(0.03) is None, "these answered the round before"


def test_a_leader_that_hears_of_a_newer_term_answers_nobody() -> None:
    core = leader()
    begun(core)
    acknowledge(core, "n2", term=3)
    assert core.role is Role.FOLLOWER
    acknowledge(core, "n2", "n3", "n4", "n5", term=3)
    assert core.serve_read(0.02) is None


def test_the_question_is_asked_again_with_the_heartbeats_until_it_is_answered() -> None:
    core = leader()
    begun(core)
    acknowledge(core, "n2")
    asked = {m.target for m in core.send_heartbeats(0.03).send if isinstance(m, ReadIndex)}
    assert asked == {"n3", "n4", "n5"}


def test_who_is_asked_says_its_term_and_waits_with_its_own_election() -> None:
    core = make(Role.FOLLOWER)
    (reply,) = core.receive(T, ReadIndex("n2", "n1", 2, 7)).send
    assert reply == ReadIndexReply("n1", "n2", 2, 7)
    assert core.deadline >= 2 * T
    (reply,) = core.receive(T, ReadIndex("n2", "n1", 1, 7)).send
    assert reply == ReadIndexReply("n1", "n2", 2, 0), "n2 may lead this term by now, and begin its round 7"


def test_a_trace_shows_what_is_read_only_if_reads_are_switched_on() -> None:
    assert begun(leader()).event["state"] == {"read_index": 2, "read_round": 1, "read_acks": ["n1"]}
    assert begun(leader(config=Config())).event["state"] == {}
    assert Config().extensions == ()


# --- leases ------------------------------------------------------------------


def leased(promise: float = T, config: Config = LEASES) -> Core:
    core = leader(config=config)
    begun(core, 1.0)
    acknowledge(core, "n2", "n3", promise=promise, now=1.05)
    assert core.serve_read(1.06) is not None
    return core


def test_a_lease_lasts_an_election_timeout_from_the_rounds_beginning_by_the_fastest_clock() -> None:
    core = leased()
    assert core.has_lease(1.0 + T / 1.5 - 0.001)
    assert not core.has_lease(1.0 + T / 1.5)
    assert not core.has_lease(0.99), "the clock went back"


def test_without_the_option_there_is_no_lease() -> None:
    assert not leased(config=READS).has_lease(1.06)


def test_there_is_no_lease_from_a_server_that_promises_nothing() -> None:
    assert not leased(promise=0.0).has_lease(1.06)


def test_a_lease_ends_with_the_leadership() -> None:
    core = leased()
    core.receive(1.07, AppendEntries("n2", "n1", 3, 0, 0, (), 0))
    assert not core.has_lease(1.07)


def test_a_leader_that_hands_over_has_no_lease_any_more() -> None:
    """Its successor need not wait."""
    core = leased()
    core.match_index["n2"] = core.log.last_index
    assert core.hand_over(1.07) is not None
    assert not core.has_lease(1.07)


def voted(core: Core, now: float) -> bool:
    (reply,) = core.receive(now, RequestVote("n3", "n1", 9, 9, 9)).send
    assert isinstance(reply, RequestVoteReply)
    return reply.granted


@pytest.mark.parametrize(("config", "granted"), [(LEASES, False), (READS, True)])
def test_who_acknowledged_a_lease_votes_for_nobody_meanwhile(config: Config, granted: bool) -> None:
    asked = make(Role.FOLLOWER, config=config)
    (reply,) = asked.receive(1.0, ReadIndex("n2", "n1", 2, 1)).send
    assert isinstance(reply, ReadIndexReply)
    assert reply.promise == (0.0 if granted else T)
    assert voted(asked, 1.0 + T - 0.001) is granted


def test_a_promise_ends() -> None:
    asked = make(Role.FOLLOWER, config=LEASES)
    asked.receive(1.0, ReadIndex("n2", "n1", 2, 1))
    assert voted(asked, 1.0 + T)


@pytest.mark.parametrize(("config", "granted"), [(LEASES, False), (READS, True)])
def test_a_server_that_starts_may_have_promised_something_before(config: Config, granted: bool) -> None:
    core = Core("n1", FIVE, random.Random(1), config)
    core.start(1.0)
    assert voted(core, 1.0 + T - 0.001) is granted
    later = Core("n1", FIVE, random.Random(1), config)
    later.start(1.0)
    assert voted(later, 1.0 + T)


# --- the driver --------------------------------------------------------------


class Bench:
    """Readers at a server n1 of three, whose messages go nowhere."""

    def __init__(self, config: Config = READS) -> None:
        self.core = Core("n1", ("n1", "n2", "n3"), random.Random(1), config)
        self.core.restore(0.0, role=Role.LEADER, current_term=2, voted_for="n1", log=LOG, commit_index=1)
        self.values = {"k": b"old"}
        self.readers = Readers(self.core, self.values.get, lambda id: Redirect(id, "n2", None))
        self.replies: list[Reply] = []
        self.now = 0.0

    def ask(self, id: int) -> None:
        self.readers.add(Reader(id, "k", self.replies.append))
        self.serve()

    def acknowledge(self, promise: float = 0.0, term: int = 2) -> None:
        self.core.receive(self.now, ReadIndexReply("n2", "n1", term, self.core.read_round, promise))
        self.serve()

    def serve(self) -> None:
        self.readers.serve(self.now, lambda batch: None)


LOG = [Entry(2, b"")]


def test_readers_who_come_during_a_round_wait_for_the_next() -> None:
    """Between the round's beginning and their question another leader may have committed something."""
    bench = Bench()
    bench.ask(1)
    bench.ask(2)
    bench.ask(3)
    bench.acknowledge()
    assert bench.replies == [Done(1, b"old")]
    bench.values["k"] = b"new"
    bench.acknowledge()
    assert bench.replies[1:] == [Done(2, b"new"), Done(3, b"new")]
    assert bench.readers.rounds == 2


def test_readers_of_a_leader_no_more_ask_elsewhere() -> None:
    bench = Bench()
    bench.ask(1)
    bench.ask(2)
    bench.acknowledge(term=3)
    assert bench.replies == [Redirect(1, "n2", None), Redirect(2, "n2", None)]
    bench.ask(3)
    assert bench.replies[2:] == [Redirect(3, "n2", None)]


def test_readers_wait_for_a_leaders_first_entry() -> None:
    bench = Bench()
    bench.core.commit_index = 0
    bench.ask(1)
    assert not bench.replies
    bench.core.commit_index = bench.core.last_applied = 1
    bench.serve()
    bench.acknowledge()
    assert bench.replies == [Done(1, b"old")]


def test_with_a_lease_readers_are_answered_without_a_round() -> None:
    bench = Bench(LEASES)
    bench.ask(1)
    bench.acknowledge(promise=T)
    bench.ask(2)
    assert bench.replies == [Done(1, b"old"), Done(2, b"old")]
    assert bench.readers.rounds == 1
    bench.now = T
    bench.ask(3)
    assert len(bench.replies) == 2

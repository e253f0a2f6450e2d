"""The core keeps Figure 2's rules, on both sides of each line.

Servers are put into a state and given one input. Log entries are written as their
terms: `log_terms=[1, 1, 2]` is a log of three entries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from raftd.core import NO_OP, Batch, Config, Core, NotLeader, Persist, Persistent, Role
from raftd.log import Log
from raftd.messages import (
    AppendEntries,
    AppendEntriesReply,
    Entry,
    Message,
    RequestVote,
    RequestVoteReply,
)

THREE = ("n1", "n2", "n3")
FIVE = ("n1", "n2", "n3", "n4", "n5")


def log_of(terms: Sequence[int], name: str = "x") -> list[Entry]:
    return [Entry(term, f"{name}{n}".encode()) for n, term in enumerate(terms, 1)]


def make(
    server: str = "n1",
    role: Role = Role.FOLLOWER,
    current_term: int = 1,
    log_terms: Sequence[int] = (),
    servers: tuple[str, ...] = THREE,
    config: Config | None = None,
    **variables: Any,
) -> Core:
    core = Core(server, servers, random.Random(1), config or Config(), None)
    voted_for = variables.pop("voted_for", None if role is Role.FOLLOWER else server)
    votes = variables.pop("votes", () if role is Role.FOLLOWER else (server,))
    state = {"commit_index": 0, "log": log_of(log_terms), **variables}
    core.restore(0.0, role=role, current_term=current_term, voted_for=voted_for, votes=votes, **state)
    return core


def make_leader(server: str = "n1", **state: Any) -> Core:
    return make(server, Role.LEADER, **state)


def terms(core: Core) -> list[int]:
    return [entry.term for entry in core.log]


def vote_request(source: str, target: str, term: int, last: tuple[int, int] = (0, 0)) -> RequestVote:
    """`last` is the term and the index of the candidate's last entry."""
    return RequestVote(source, target, term, last_log_index=last[1], last_log_term=last[0])


def entries_from(
    source: str, target: str, term: int, prev: tuple[int, int], new: Sequence[int] = (), commit: int = 0
) -> AppendEntries:
    """`prev` is the index and the term of the preceding entry."""
    entries = tuple(Entry(t, f"x{n}".encode()) for n, t in enumerate(new, prev[0] + 1))
    return AppendEntries(source, target, term, prev[0], prev[1], entries, commit)


def stored(source: str, match_index: int, term: int, target: str = "n1") -> AppendEntriesReply:
    return AppendEntriesReply(source, target, term, True, match_index)


def refused(source: str, hint: int, term: int, target: str = "n1") -> AppendEntriesReply:
    return AppendEntriesReply(source, target, term, False, 0, hint)


def granted(batch: Batch) -> bool:
    (reply,) = batch.send
    assert isinstance(reply, RequestVoteReply)
    return reply.granted


def accepted(batch: Batch) -> bool:
    (reply,) = batch.send
    assert isinstance(reply, AppendEntriesReply)
    return reply.success


def settle(cores: dict[str, Core], messages: Sequence[Message], now: float = 1.0, steps: int = 1000) -> None:
    """Deliver messages, and those they give rise to, until there are none."""
    waiting = list(messages)
    while waiting:
        m = waiting.pop(0)
        steps -= 1
        assert steps, "the servers don't stop talking"
        if m.target in cores:
            waiting += cores[m.target].receive(now, m).send


# Elections. Section 5.2.


def test_election_starts_when_the_timeout_has_passed_and_no_earlier() -> None:
    """Section 5.2: a timeout is random in [T, 2T]."""
    core = Core("n1", THREE, random.Random(1), Config(election_timeout=0.1), None)
    core.start(5.0)
    assert 5.1 <= core.deadline <= 5.2

    assert core.tick(core.deadline - 0.001) is None
    batch = core.tick(core.deadline)
    assert batch is not None
    assert batch.event["event"] == "timeout"


def test_candidate_votes_for_itself_and_asks_all_others_in_a_newer_term() -> None:
    """Section 5.2."""
    core = make(current_term=4, log_terms=[1, 3])
    batch = core.start_election(1.0)

    assert (core.role, core.current_term, core.voted_for, core.votes) == (Role.CANDIDATE, 5, "n1", {"n1"})
    assert batch.persist == Persist(5, "n1", keep=2, entries=())
    assert batch.send == (vote_request("n1", "n2", 5, (3, 2)), vote_request("n1", "n3", 5, (3, 2)))


def test_candidate_leads_with_a_majority_of_votes_and_no_fewer() -> None:
    """Section 5.2: of the full cluster, not of those that answer."""
    core = make(role=Role.CANDIDATE, current_term=2, servers=FIVE)
    core.receive(0.0, RequestVoteReply("n2", "n1", 2, granted=True))
    core.receive(0.0, RequestVoteReply("n2", "n1", 2, granted=True))
    core.receive(0.0, RequestVoteReply("n3", "n1", 2, granted=False))
    assert core.role is Role.CANDIDATE

    batch = core.receive(0.0, RequestVoteReply("n4", "n1", 2, granted=True))
    assert batch.event["state"]["role"] == "leader"
    assert core.votes == {"n1", "n2", "n4"}


def test_votes_of_an_earlier_term_do_not_count() -> None:
    """Section 5.1: a late answer is to an election that is over."""
    core = make(role=Role.CANDIDATE, current_term=3)
    core.receive(0.0, RequestVoteReply("n2", "n1", 2, granted=True))
    assert core.votes == {"n1"}
    batch = core.receive(0.0, RequestVoteReply("n2", "n1", 3, granted=True))
    assert batch.event["state"]["role"] == "leader"


def test_votes_after_the_election_change_nothing() -> None:
    """Section 5.2: a leader leads already, a follower has given up."""
    for role in (Role.LEADER, Role.FOLLOWER):
        core = make(role=role, current_term=3, voted_for="n1")
        batch = core.receive(0.0, RequestVoteReply("n2", "n1", 3, granted=True))
        assert batch.event["state"] == {}
        assert batch.persist is None
        assert (batch.send, batch.apply) == ((), ())


def test_new_leader_appends_a_no_op_of_its_term_and_sends_it_to_all() -> None:
    """Section 8: with it, older entries can be committed."""
    core = make(role=Role.CANDIDATE, current_term=3, log_terms=[1, 2])
    batch = core.receive(0.0, RequestVoteReply("n2", "n1", 3, granted=True))

    assert core.log.entry(core.log.last_index) == Entry(3, NO_OP)
    assert batch.persist == Persist(3, "n1", keep=2, entries=(Entry(3, NO_OP),))
    assert [m.target for m in batch.send] == ["n2", "n3"]
    for m in batch.send:
        assert isinstance(m, AppendEntries)
        assert (m.prev_log_index, m.prev_log_term, m.entries) == (2, 2, (Entry(3, NO_OP),))
    assert batch.event["event"] == "handle_request_vote_reply"
    assert batch.event["state"]["role"] == "leader"


def test_lone_server_elects_itself_and_commits_at_once() -> None:
    """Section 5.2: it is its own majority."""
    core = make(servers=("n1",))
    batch = core.start_election(1.0)
    assert core.role is Role.LEADER
    assert batch.apply == ((1, Entry(2, NO_OP)),)
    assert core.propose(1.0, [b"a", b"b"]).apply == ((2, Entry(2, b"a")), (3, Entry(2, b"b")))


def test_only_what_answers_nobody_goes_out_before_the_disk_has_it() -> None:
    """Dissertation, section 10.2.1. What a leader says of its commit index rests on no entry of this step."""
    leader = make_leader(current_term=2, log_terms=[2], commit_index=1)
    batch = leader.propose(0.0, [b"a"])
    assert batch.early
    assert len(batch.send) == 2
    for m in batch.send:
        assert isinstance(m, AppendEntries)
        assert m.leader_commit == 1
    follower = make("n2", current_term=1)
    for message in (batch.send[0], vote_request("n3", "n2", 3)):
        answered = follower.receive(0.0, message)
        assert answered.persist
        assert answered.send
        assert not answered.early
    assert not make().start_election(0.0).early


# Votes. Figure 2, RequestVote RPC.


def test_server_votes_once_in_a_term() -> None:
    """Figure 2, RequestVote RPC, step 2; again for the same candidate, whose answer may be lost."""
    core = make("n3", current_term=2)
    assert granted(core.receive(0.0, vote_request("n1", "n3", 2)))
    assert granted(core.receive(0.0, vote_request("n1", "n3", 2)))
    assert not granted(core.receive(0.0, vote_request("n2", "n3", 2)))
    assert granted(core.receive(0.0, vote_request("n2", "n3", 3)))


def test_vote_is_persisted_before_it_is_sent() -> None:
    """Figure 2, State: `voted_for` is persistent."""
    core = make("n3", current_term=2)
    assert core.receive(0.0, vote_request("n1", "n3", 2)).persist == Persist(2, "n1", 0, ())
    assert core.receive(0.0, vote_request("n1", "n3", 2)).persist is None


@pytest.mark.parametrize(
    ("last", "is_granted"),
    [((3, 1), True), ((2, 3), True), ((2, 4), True), ((2, 2), False), ((1, 9), False), ((0, 0), False)],
)
def test_vote_goes_only_to_logs_that_lack_nothing(last: tuple[int, int], is_granted: bool) -> None:
    """Section 5.4.1: the last term decides, then the length."""
    core = make("n3", current_term=3, log_terms=[1, 2, 2])
    assert granted(core.receive(0.0, vote_request("n1", "n3", 4, last))) == is_granted


def test_candidate_of_an_older_term_is_told_the_newer_one() -> None:
    """Figure 2, RequestVote RPC, step 1."""
    core = make("n3", current_term=5)
    batch = core.receive(0.0, vote_request("n1", "n3", 4))
    assert batch.send == (RequestVoteReply("n3", "n1", 5, granted=False),)
    assert core.voted_for is None


def test_only_a_granted_vote_delays_the_voters_own_election() -> None:
    """Figure 2, Followers: a refused candidate must not keep better ones from trying."""
    core = make("n3", current_term=2, log_terms=[2])
    deadline = core.deadline
    core.receive(0.1, vote_request("n1", "n3", 3))
    assert core.deadline == deadline
    core.receive(0.1, vote_request("n2", "n3", 3, (2, 1)))
    assert core.deadline >= 0.1 + core.config.election_timeout


# Terms. Section 5.1.


@pytest.mark.parametrize("role", list(Role))
def test_newer_term_in_any_message_makes_a_follower(role: Role) -> None:
    """Section 5.1; the vote of the older term is forgotten with it."""
    newer: list[Message] = [
        vote_request("n2", "n1", 7),
        RequestVoteReply("n2", "n1", 7, granted=False),
        entries_from("n2", "n1", 7, (0, 0)),
        AppendEntriesReply("n2", "n1", 7, False, 0),
    ]
    for m in newer:
        core = make(role=role, current_term=6, voted_for="n1", log_terms=[6])
        core.receive(0.0, m)
        assert (core.role, core.current_term, core.voted_for) == (Role.FOLLOWER, 7, None)


def test_deposed_leader_waits_for_a_whole_timeout() -> None:
    """Section 5.2: its next heartbeat is no election timeout."""
    core = make_leader(current_term=6)
    core.receive(1.0, RequestVoteReply("n2", "n1", 7, granted=False))
    assert core.deadline >= 1.0 + core.config.election_timeout
    with pytest.raises(NotLeader):
        core.propose(1.0, [b"a"])


def test_stale_leader_is_refused_and_learns_the_term() -> None:
    """Figure 2, AppendEntries RPC, step 1. Nobody follows it, nothing is stored."""
    core = make("n3", current_term=5)
    batch = core.receive(0.0, entries_from("n1", "n3", 4, (0, 0), [4], commit=1))
    assert batch.send == (AppendEntriesReply("n3", "n1", 5, False, 0),)
    assert (core.log, core.leader, core.commit_index) == (Log(), None, 0)


def test_candidate_follows_the_leader_of_its_term() -> None:
    """Section 5.2: another server has won."""
    core = make("n3", role=Role.CANDIDATE, current_term=5)
    core.receive(0.0, entries_from("n1", "n3", 5, (0, 0)))
    assert (core.role, core.leader, core.voted_for) == (Role.FOLLOWER, "n1", "n3")


def test_second_leader_of_a_term_is_a_bug_that_stops_the_server() -> None:
    """Section 5.2, Election Safety."""
    core = make_leader(current_term=5)
    with pytest.raises(AssertionError, match="n1 and n2 both lead term 5"):
        core.receive(0.0, entries_from("n2", "n1", 5, (0, 0)))


def test_acknowledgement_of_what_was_never_sent_stops_the_leader() -> None:
    """Section 5.3: a follower of this term has its entries from this leader."""
    core = make_leader(current_term=5, log_terms=[1, 5])
    with pytest.raises(AssertionError, match="n2 acknowledges entry 3, n1 has 2"):
        core.receive(0.0, stored("n2", 3, term=5))
    core.receive(0.0, stored("n2", 3, term=4))


# Replication. Section 5.3.


@pytest.mark.parametrize(
    ("prev", "joins"),
    [((0, 0), True), ((2, 1), True), ((3, 2), True), ((3, 3), False), ((2, 2), False), ((4, 2), False)],
)
def test_entries_join_only_behind_the_same_entry(prev: tuple[int, int], joins: bool) -> None:
    """Figure 2, AppendEntries RPC, step 2: the same index and the same term."""
    core = make("n3", current_term=3, log_terms=[1, 1, 2])
    batch = core.receive(0.0, entries_from("n1", "n3", 3, prev, [3]))
    assert accepted(batch) == joins
    assert (core.log.last_term == 3) == joins


def test_log_is_cut_at_a_conflict_with_all_that_follows() -> None:
    """Figure 2, AppendEntries RPC, step 3."""
    core = make("n3", current_term=4, log_terms=[1, 2, 2, 2])
    batch = core.receive(0.0, entries_from("n1", "n3", 4, (1, 1), [2, 3]))
    assert terms(core) == [1, 2, 3]
    assert batch.persist == Persist(4, None, keep=2, entries=(Entry(3, b"x3"),))
    assert batch.event["state"] == {"log_length": 3, "last_log_term": 3}


def test_log_is_not_cut_without_a_conflict() -> None:
    """Section 5.3: a late copy of an old request must not undo newer entries."""
    core = make("n3", current_term=4, log_terms=[1, 2, 4, 4])
    for late in ([2], [2, 4], []):
        batch = core.receive(0.0, entries_from("n1", "n3", 4, (1, 1), late))
        assert terms(core) == [1, 2, 4, 4]
        assert batch.persist is None
        assert batch.send == (stored("n3", 1 + len(late), 4, target="n1"),)


def test_same_length_and_last_term_still_count_as_a_changed_log() -> None:
    """Figure 2, State: the log is persistent, whatever of it changes."""
    core = make("n3", current_term=4, log_terms=[1, 3, 4])
    core.log = Log([*core.log.entries(1, 1), Entry(2, b"?"), Entry(4, b"?")])
    batch = core.receive(0.0, entries_from("n1", "n3", 4, (1, 1), [3, 4]))
    assert batch.event["state"] == {"log_length": 3, "last_log_term": 4}
    assert batch.persist is not None
    assert batch.persist.keep == 1


def test_follower_acknowledges_only_what_it_was_sent() -> None:
    """Figure 2, AppendEntries RPC: the rest of its log may be another leader's."""
    core = make("n3", current_term=4, log_terms=[1, 2, 2, 2])
    (reply,) = core.receive(0.0, entries_from("n1", "n3", 4, (1, 1), [2])).send
    assert isinstance(reply, AppendEntriesReply)
    assert reply.match_index == 2


def test_refusal_hints_before_the_conflicting_term_or_at_the_logs_end() -> None:
    """Section 5.3, end."""
    core = make("n3", current_term=5, log_terms=[1, 2, 2, 2])
    (beyond,) = core.receive(0.0, entries_from("n1", "n3", 5, (9, 4))).send
    (conflict,) = core.receive(0.0, entries_from("n1", "n3", 5, (4, 4))).send
    assert beyond == AppendEntriesReply("n3", "n1", 5, False, 0, hint=4)
    assert conflict == AppendEntriesReply("n3", "n1", 5, False, 0, hint=1)


def test_leader_tries_further_back_after_each_refusal() -> None:
    """Section 5.3: but not for a late copy of a refusal."""
    leader = make_leader(current_term=5, log_terms=[1, 2, 3, 4, 5])
    (retry,) = leader.receive(0.0, refused("n2", 3, 5)).send
    assert isinstance(retry, AppendEntries)
    assert (retry.prev_log_index, retry.prev_log_term, len(retry.entries)) == (3, 3, 2)
    assert leader.receive(0.0, refused("n2", 3, 5)).send == ()
    (retry,) = leader.receive(0.0, refused("n2", 0, 5)).send
    assert isinstance(retry, AppendEntries)
    assert (retry.prev_log_index, len(retry.entries)) == (0, 5)


def test_leader_never_tries_before_what_is_known_to_match() -> None:
    """Section 5.3: an old refusal is no news."""
    leader = make_leader(current_term=5, log_terms=[5, 5, 5], match_index={"n2": 2})
    (retry,) = leader.receive(0.0, refused("n2", 0, 5)).send
    assert isinstance(retry, AppendEntries)
    assert retry.prev_log_index == 2


def test_leader_sends_ahead_of_acknowledgements_up_to_a_bound() -> None:
    """Section 5.3 leaves the pace open; memory and network do not."""
    config = Config(max_entries=2, max_in_flight=3)
    leader = make_leader(servers=("n1", "n2"), config=config)
    sent = [len(m.entries) for m in leader.propose(0.0, [b"a"] * 5).send if isinstance(m, AppendEntries)]
    assert sent == [2, 1]
    assert leader.propose(0.0, [b"b"]).send == ()

    more = leader.receive(0.0, stored("n2", 2, 1)).send
    assert [(m.prev_log_index, len(m.entries)) for m in more if isinstance(m, AppendEntries)] == [(3, 2)]


def test_silent_follower_is_asked_again_from_what_it_acknowledged() -> None:
    """Section 5.3: AppendEntries are retried indefinitely."""
    leader = make_leader(servers=("n1", "n2"), log_terms=[1], match_index={"n2": 1})
    leader.propose(0.01, [b"a", b"b"])
    assert leader.next_index["n2"] == 4

    leader.receive(0.02, stored("n2", 1, 1))
    leader.send_heartbeats(0.03)
    assert leader.next_index["n2"] == 4, "it has answered within the interval"

    (probe,) = leader.send_heartbeats(0.06).send
    assert probe == AppendEntries("n1", "n2", 1, 1, 1, (), leader_commit=1)
    (again,) = leader.receive(0.07, stored("n2", 1, 1)).send
    assert isinstance(again, AppendEntries)
    assert [entry.command for entry in again.entries] == [b"a", b"b"]


def test_leader_sends_heartbeats_when_due() -> None:
    """Section 5.2."""
    leader = make_leader()
    assert leader.tick(0.02) is None
    batch = leader.tick(0.03)
    assert batch is not None
    assert batch.event["event"] == "append_entries"
    assert [m.target for m in batch.send] == ["n2", "n3"]
    assert leader.deadline == pytest.approx(0.06)


# Commitment. Sections 5.3 and 5.4.


def test_entry_is_committed_by_a_majority_and_no_fewer() -> None:
    """Section 5.3: the leader is one of them."""
    leader = make_leader(servers=FIVE, current_term=2, log_terms=[2, 2])
    assert leader.receive(0.0, stored("n2", 2, 2)).apply == ()
    batch = leader.receive(0.0, stored("n3", 1, 2))
    assert batch.apply == ((1, leader.log.entry(1)),)
    assert batch.event["state"] == {"commit_index": 1, "last_applied": 1, "match_index": {"n3": 1}}
    assert leader.receive(0.0, stored("n4", 2, 2)).apply == ((2, leader.log.entry(2)),)


def test_old_entry_on_a_quorum_is_committed_only_by_a_newer_one() -> None:
    """Section 5.4.2, Figure 8: a leader counts replicas only for its own term."""
    leader = make_leader(current_term=4, log_terms=[1, 2, 4])

    leader.receive(0.0, stored("n2", 2, term=4))
    leader.receive(0.0, stored("n3", 2, term=4))
    assert leader.commit_index == 0

    leader.receive(0.0, stored("n2", 3, term=4))
    assert leader.commit_index == 3


def test_late_acknowledgement_takes_nothing_back() -> None:
    """Figure 2, Leaders: match_index increases monotonically."""
    leader = make_leader(current_term=2, log_terms=[2, 2, 2])
    leader.receive(0.0, stored("n2", 3, 2))
    batch = leader.receive(0.0, stored("n2", 1, 2))
    assert leader.match_index == {"n2": 3, "n3": 0}
    assert batch.event["state"] == {}


def test_acknowledgement_of_an_earlier_term_does_not_count() -> None:
    """Section 5.1: what was stored then may have been overwritten since."""
    leader = make_leader(current_term=4, log_terms=[2, 4])
    leader.receive(0.0, stored("n2", 2, term=2))
    assert leader.match_index["n2"] == leader.commit_index == 0


@pytest.mark.parametrize(("leader_commit", "commit_index"), [(1, 1), (2, 2), (3, 2), (9, 2)])
def test_follower_commits_what_is_committed_and_known_to_match(leader_commit: int, commit_index: int) -> None:
    """Figure 2, AppendEntries RPC, step 5: entry 3 may be an older leader's."""
    core = make("n3", current_term=3, log_terms=[1, 1, 2])
    batch = core.receive(0.0, entries_from("n1", "n3", 3, (1, 1), [1], leader_commit))
    assert core.commit_index == core.last_applied == commit_index
    assert [n for n, _ in batch.apply] == list(range(1, commit_index + 1))


def test_commit_index_never_goes_back() -> None:
    """Figure 2, State: an old heartbeat arrives late."""
    core = make("n3", current_term=3, log_terms=[1, 1, 2], commit_index=3)
    batch = core.receive(0.0, entries_from("n1", "n3", 3, (1, 1), [1], commit=1))
    assert core.commit_index == 3
    assert batch.apply == ()


def test_removing_a_committed_entry_is_a_bug_that_stops_the_server() -> None:
    """Section 5.4: no leader can ask for it."""
    core = make("n3", current_term=3, log_terms=[1, 1, 2], commit_index=3)
    with pytest.raises(AssertionError, match="never removed"):
        core.receive(0.0, entries_from("n1", "n3", 3, (2, 1), [3]))


# Clients and restarts.


def test_command_goes_to_all_followers_at_once() -> None:
    """Section 5.3; several commands are one step and one write."""
    leader = make_leader(current_term=2, log_terms=[1])
    batch = leader.propose(0.0, [b"a", b"b"])
    new = (Entry(2, b"a"), Entry(2, b"b"))
    assert batch.persist == Persist(2, "n1", keep=1, entries=new)
    assert batch.send == tuple(AppendEntries("n1", peer, 2, 1, 1, new, 0) for peer in ("n2", "n3"))
    assert [term for term, _ in batch.event["entries"]] == [2, 2]


def test_client_is_sent_to_the_leader() -> None:
    """Section 8."""
    core = make("n3", current_term=1)
    with pytest.raises(NotLeader) as unknown:
        core.propose(0.0, [b"a"])
    assert unknown.value.leader is None

    core.receive(0.0, entries_from("n2", "n3", 1, (0, 0)))
    with pytest.raises(NotLeader) as known:
        core.propose(0.0, [b"a"])
    assert known.value.leader == "n2"


def test_restart_keeps_what_is_persistent_and_nothing_else() -> None:
    """Figure 2, State."""
    disk = Persistent(7, "n2", Log(log_of([1, 3, 7])))
    core = Core("n1", THREE, random.Random(1), Config(), disk)
    batch = core.start(10.0)

    assert (core.current_term, core.voted_for, terms(core)) == (7, "n2", [1, 3, 7])
    assert (core.role, core.commit_index, core.last_applied) == (Role.FOLLOWER, 0, 0)
    assert batch.persist is None
    assert (batch.send, batch.apply) == ((), ())
    assert batch.event["event"] == "restart"
    assert batch.event["state"] == {
        "role": "follower",
        "current_term": 7,
        "voted_for": "n2",
        "commit_index": 0,
        "last_applied": 0,
        "log_length": 3,
        "last_log_term": 7,
    }
    assert [term for term, _ in batch.event["entries"]] == [1, 3, 7]
    assert batch.event["after"] == 0
    assert not granted(core.receive(10.0, vote_request("n3", "n1", 7, (7, 3))))


def test_restart_shows_only_the_end_of_a_long_log() -> None:
    """docs/traces.md, Crashes: a restart line is bounded."""
    core = Core("n1", THREE, random.Random(1), Config(), Persistent(1, None, Log(log_of([1] * 20))))
    event = core.start(0.0).event
    assert (event["after"], len(event["entries"]), event["state"]["log_length"]) == (4, 16, 20)


def test_input_that_changes_nothing_is_still_an_event() -> None:
    """docs/traces.md: the message was received."""
    core = make(current_term=3)
    m = RequestVoteReply("n2", "n1", 2, granted=True)
    event = core.receive(1.5, m).event
    assert event == {
        "server": "n1",
        "event": "handle_request_vote_reply",
        "time": 1.5,
        "message": {"kind": "request_vote_reply", "source": "n2", "target": "n1", "term": 2, "granted": True},
        "state": {},
        "sends": [],
    }


# The paper's figures.

FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("max_entries", [1, 3, 512])
def test_leader_of_figure_7_brings_every_follower_to_its_log(max_entries: int) -> None:
    """Section 5.3, Figure 7: missing entries, extraneous ones, both."""
    names = ("leader", *FIGURE_7)
    config = Config(max_entries=max_entries, max_in_flight=2 * max_entries)
    cores = {
        name: make(name, current_term=7, log_terms=log, servers=names, config=config)
        for name, log in FIGURE_7.items()
    }
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    leader = make("leader", current_term=7, log_terms=leader_log, servers=names, config=config)
    cores["leader"] = leader

    settle(cores, leader.start_election(1.0).send)
    assert leader.role is Role.LEADER
    assert leader.commit_index == len(leader_log) + 1
    for name in FIGURE_7:
        assert cores[name].log == leader.log, name


def test_votes_of_figure_7_go_to_the_leader_from_all_but_the_more_complete() -> None:
    """Section 5.4.1: only (d) has a newer last entry, only (c) a longer log of the same term."""
    names = ("leader", *FIGURE_7)
    voters = set()
    for name, log in FIGURE_7.items():
        core = make(name, current_term=7, log_terms=log, servers=names)
        if granted(core.receive(0.0, vote_request("leader", name, 8, (6, 10)))):
            voters.add(name)
    assert voters == {"a", "b", "e", "f"}


def figure_8_c() -> dict[str, Core]:
    """S1 leads term 4, and has sent its old entry of term 2 to S2 and S3. S5 has one of term 3."""
    logs = {"n1": [1, 2], "n2": [1, 2], "n3": [1], "n4": [1], "n5": [1, 3]}
    cores = {
        name: make(name, current_term=3, log_terms=log, servers=FIVE, config=Config(max_entries=1))
        for name, log in logs.items()
    }
    for core in cores.values():
        own = [Entry(entry.term, b"t%d" % entry.term) for entry in core.log.entries(2)]
        core.log = Log([*core.log.entries(1, 1), *own])
    leader = cores["n1"]
    votes = [m for m in leader.start_election(1.0).send if m.target in ("n2", "n3", "n4")]
    replies = [reply for m in votes for reply in cores[m.target].receive(1.0, m).send]
    for reply in replies:
        leader.receive(1.0, reply)
    assert leader.role is Role.LEADER
    # Entry 2 reaches n3; the no-op behind it stays with the leader.
    (retry,) = leader.receive(1.0, refused("n3", 1, 4)).send
    (reply,) = cores["n3"].receive(1.0, retry).send
    leader.receive(1.0, reply)
    leader.receive(1.0, stored("n2", 2, 4))
    return cores


def test_figure_8_d_entry_of_term_2_is_on_a_majority_and_overwritten() -> None:
    """Section 5.4.2, Figure 8 (c), (d): it wasn't committed, so nothing is lost."""
    cores = figure_8_c()
    assert [terms(cores[name])[:2] for name in ("n1", "n2", "n3")] == [[1, 2]] * 3
    assert cores["n1"].commit_index == 0

    rest = {name: core for name, core in cores.items() if name != "n1"}
    settle(rest, rest["n5"].start_election(2.0).send, 2.0)
    # Its first attempt is in term 4, in which the others have voted for n1.
    settle(rest, rest["n5"].start_election(3.0).send, 3.0)
    assert rest["n5"].role is Role.LEADER
    assert all(core.log == rest["n5"].log for core in rest.values())
    assert terms(rest["n2"]) == [1, 3, 5]


def test_figure_8_e_entry_of_term_4_on_a_majority_keeps_term_3_out() -> None:
    """Section 5.4.2, Figure 8 (e): n5 can't win any more."""
    cores = figure_8_c()
    leader = cores["n1"]
    connected = {name: cores[name] for name in ("n1", "n2", "n3")}
    settle(connected, leader.send_heartbeats(1.1).send, 1.1)
    settle(connected, leader.send_heartbeats(1.2).send, 1.2)
    assert leader.commit_index == 3

    for _ in range(3):
        settle(cores, cores["n5"].start_election(2.0).send, 2.0)
        assert cores["n5"].role is Role.CANDIDATE
    assert terms(cores["n2"])[:3] == [1, 2, 4]


def test_returning_leader_of_an_older_term_commits_nothing_and_follows() -> None:
    """Section 5.1: the lecture's neutralised leader."""
    cores = {name: make(name, current_term=0) for name in THREE}
    settle(cores, cores["n1"].start_election(1.0).send)
    apart = {name: cores[name] for name in ("n2", "n3")}
    stale = cores["n1"].propose(2.0, [b"lost"])
    settle(apart, cores["n2"].start_election(2.0).send, 2.0)
    settle(apart, cores["n2"].propose(2.1, [b"kept"]).send, 2.1)

    settle(cores, stale.send, 3.0)
    assert (cores["n1"].role, cores["n1"].current_term) == (Role.FOLLOWER, 2)
    assert cores["n1"].commit_index == 1
    settle(cores, cores["n2"].send_heartbeats(3.1).send, 3.1)
    settle(cores, cores["n2"].send_heartbeats(3.2).send, 3.2)
    assert [entry.command for entry in cores["n1"].log] == [NO_OP, NO_OP, b"kept"]
    assert cores["n1"].commit_index == 3


# Any schedule at all.


def adversary(rng: random.Random, servers: tuple[str, ...], steps: int) -> dict[str, Core]:
    """Messages arrive in any order, again and again, or never; timers fire and servers restart at will.

    Nothing is timed, so that this reaches what the simulator's plausible network doesn't.
    The cores check each of their own steps; what they apply is compared here.
    """
    config = Config(max_entries=2, max_in_flight=3)
    cores = {name: make(name, current_term=0, servers=servers, config=config) for name in servers}
    sent: list[Message] = []
    applied: list[Entry] = []
    for step in range(steps):
        core = cores[rng.choice(servers)]
        act = rng.random()
        if act < 0.75 and sent:
            # Mostly news, sometimes anything that was ever sent.
            m = sent[-1 - min(int(rng.expovariate(0.1)), len(sent) - 1)] if act < 0.6 else rng.choice(sent)
            batch = cores[m.target].receive(float(step), m)
        elif act < 0.76:
            disk = Persistent(core.current_term, core.voted_for, core.log)
            cores[core.server] = Core(core.server, servers, rng, config, disk)
            batch = cores[core.server].start(float(step))
        elif core.role is Role.LEADER:
            batch = core.propose(step, [b"%d" % step]) if act < 0.9 else core.send_heartbeats(step)
        elif act < 0.775:
            batch = core.start_election(step)
        else:
            continue
        sent += batch.send
        for n, entry in batch.apply:
            if n > len(applied):
                applied.append(entry)
            assert applied[n - 1] == entry, f"{batch.event['server']} applies another entry {n}"
    return cores


@pytest.mark.parametrize("servers", [("n1", "n2"), THREE, FIVE])
def test_any_schedule_keeps_safety(servers: tuple[str, ...]) -> None:
    """Section 5.4.3, Figure 3: without any assumption on time."""
    reached, terms_seen = 0, 0
    for seed in range(40):
        cores = adversary(random.Random(seed), servers, 600)
        reached = max(reached, *(core.commit_index for core in cores.values()))
        terms_seen = max(terms_seen, *(core.current_term for core in cores.values()))
    assert reached > 3, "something is committed"
    assert terms_seen > 3, "leaders change"


def test_a_server_that_nobody_traces_takes_the_same_steps() -> None:
    """Only what a step says of itself differs, so a measurement without traces is one of the same server."""
    servers = ("n1", "n2", "n3")
    traced, untraced = (Core("n1", servers, random.Random(1), traced=traced) for traced in (True, False))
    reply = RequestVoteReply("n2", "n1", 1, granted=True)
    for core in (traced, untraced):
        core.start(0.0)
    pairs = [[core.start_election(1.0), core.receive(1.0, reply)] for core in (traced, untraced)]
    for a, b in zip(*pairs, strict=True):
        assert a[1:] == b[1:]
        assert b.event.keys() == {"server", "event"}
        assert a.event.keys() > b.event.keys()

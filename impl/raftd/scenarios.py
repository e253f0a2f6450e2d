"""The recorded traces: figures of the paper, accidents, and for each rule a server that breaks it.

`python -m raftd.scenarios traces` writes them. Each scenario drives real cores and asserts, as it goes
along, that it shows what it is called after. A wrong trace ends with its wrong event: of a broken core
where `raftd.faults` has one, otherwise a claim, an event that no core here would write.

    c  the cluster
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from msgspec.structs import replace

from raftd.core import Config, Role
from raftd.messages import AppendEntries, AppendEntriesReply, Entry, Message, RequestVote, RequestVoteReply
from raftd.scenario import Cluster
from raftd.trace import digest, header, traced_message

THREE = ("n1", "n2", "n3")
FIVE = ("n1", "n2", "n3", "n4", "n5")
ONE_BY_ONE = Config(max_entries=1)

GOOD: dict[str, Callable[[], Cluster]] = {}
BAD: dict[str, Callable[[], Cluster]] = {}
RULES: dict[str, Callable[[], Cluster]] = {}


def recorded(table: dict[str, Callable[[], Cluster]], name: str = "") -> Callable[..., Callable[[], Cluster]]:
    """The scenario that follows is recorded, under its own name or another."""

    def note(scenario: Callable[[], Cluster]) -> Callable[[], Cluster]:
        table[name or scenario.__name__] = scenario
        return scenario

    return note


# --- figures of the paper ------------------------------------------------------


@recorded(GOOD)
def figure_7() -> Cluster:
    """The leader of term 8 and its possible followers: missing entries, extraneous ones, and both.

    Figure 7; a to f as there, and l the leader. The first entry of each leader is its no-op.
    """
    c = Cluster("l", "a", "b", "c", "d", "e", "f")

    def lead(leader: str, voters: str, commands: int, *reaches: str) -> None:
        """A term: `reaches` says which servers get each of its entries, the no-op first."""
        if c.cores[leader].role is Role.LEADER:
            c.crash(leader)
            c.start(leader)
        c.elect(leader, *voters)
        c.settle(leader, *reaches[0])
        c.drop()
        for n, followers in enumerate(reaches[1:], 1):
            c.propose(leader, f"term {c.cores[leader].current_term} command {n}")
            c.settle(leader, *followers)
            c.drop()
        if rest := commands + 1 - len(reaches):
            c.propose(leader, *(f"lost {n}" for n in range(rest)))
            c.drop()

    lead("l", "abc", 2, "abcdef", "abcdef", "abcdef")
    lead("f", "abc", 2, "")
    lead("f", "abe", 4, "")
    lead("e", "acd", 3, "labcd", "lacd")
    lead("c", "lad", 1, "lad", "lad")
    lead("c", "lad", 3, "lad", "lad", "ld")
    lead("d", "lab", 1, "")
    figure = {
        "l": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
        "b": [1, 1, 1, 4],
        "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        "e": [1, 1, 1, 4, 4, 4, 4],
        "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    }
    assert {server: c.terms(server) for server in c.servers} == figure

    c.crash("l")
    c.start("l")
    c.elect("l", "a", "b", "e", "f")
    c.settle()
    c.heartbeat("l")
    c.settle()
    assert all(c.terms(server) == [*figure["l"], 8] for server in c.servers)
    assert all(core.commit_index == 11 for core in c.cores.values())
    return c


def figure_8_c(broken: Mapping[str, str] | None = None) -> Cluster:
    """Figure 8 (a) to (c): an entry of term 2 on a majority, whose leader is now that of term 4."""
    c = Cluster("s1", "s2", "s3", "s4", "s5", config=ONE_BY_ONE, broken=broken)
    c.elect("s1", "s2", "s3")
    c.settle()
    c.heartbeat("s1")
    c.settle()
    c.crash("s1")
    c.start("s1")
    c.elect("s1", "s2", "s3")
    c.deliver("s1", "s2")  # (a) the entry of term 2
    c.drop()

    c.crash("s1")  # (b)
    c.elect("s5", "s3", "s4")
    c.drop()

    c.crash("s5")  # (c)
    c.start("s1")
    c.elect("s1", "s2", "s3")
    c.drop()  # the entry of term 4
    c.heartbeat("s1")
    c.deliver("s1", "s2")
    c.deliver("s2", "s1")  # s2 has the entry of term 2
    c.deliver("s1", "s3")
    c.deliver("s3", "s1")  # s3 has not
    c.deliver("s1", "s3")
    assert c.terms("s1") == [1, 2, 4]
    assert c.terms("s2") == c.terms("s3") == [1, 2]
    c.deliver("s3", "s1")
    return c


@recorded(GOOD)
def figure_8() -> Cluster:
    """Figure 8 (a) to (d): the entry of term 2 is on a majority, not committed, and overwritten."""
    c = figure_8_c()
    assert c.cores["s1"].match_index == {"s2": 2, "s3": 2, "s4": 0, "s5": 0}
    assert c.cores["s1"].commit_index == 0, "it has been started since it last knew more"
    c.drop()
    c.crash("s1")  # (d)
    c.start("s5")
    c.elect("s5", "s2", "s3", "s4")
    c.settle()
    c.start("s1")
    c.heartbeat("s5")
    c.settle()
    assert all(c.terms(server) == [1, 3, 5] for server in c.servers)
    return c


@recorded(GOOD)
def figure_8_safe() -> Cluster:
    """Figure 8 (e): once an entry of term 4 is on a majority all before it is committed, and s5 can't win."""
    c = figure_8_c()
    c.settle("s1", "s2", "s3")
    assert c.cores["s1"].commit_index == 3
    c.crash("s1")
    c.start("s5")
    c.timeout("s5", "s5")
    for voter in ("s2", "s3", "s4"):
        c.deliver("s5", voter)
        c.deliver("s5", voter)
    c.settle()
    assert c.cores["s5"].role is Role.CANDIDATE
    c.elect("s2", "s3", "s5")
    c.start("s1")
    c.settle()
    c.heartbeat("s2")
    c.settle()
    assert all(c.terms(server)[:3] == [1, 2, 4] for server in c.servers)
    return c


@recorded(GOOD)
def commit_from_current_term() -> Cluster:
    """Section 5.3: an entry of the leader's own term is committed once a majority stores it."""
    c = Cluster(*FIVE)
    c.elect("n1", "n2", "n3")
    c.settle()
    c.crash("n1")
    c.start("n1")
    c.elect("n1", "n2", "n3")
    c.settle("n1", "n2", "n3")
    c.drop()
    c.propose("n1", "set x 1")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    assert c.cores["n1"].commit_index == 2
    c.deliver("n1", "n3")
    c.deliver("n3", "n1")
    assert c.cores["n1"].commit_index == 3
    c.heartbeat("n1")
    c.settle()
    return c


# --- elections and failures ------------------------------------------------------


@recorded(GOOD)
def split_vote() -> Cluster:
    """Section 5.2: a term without a leader, then one with."""
    c = Cluster("n1", "n2", "n3", "n4")
    c.timeout("n1", "n2")
    c.deliver("n1", "n3")
    c.deliver("n2", "n4")
    c.settle()
    assert not [s for s in c.servers if c.cores[s].role is Role.LEADER]
    c.elect("n3", "n1", "n4")
    c.settle()
    c.propose("n3", "set x 1")
    c.settle()
    return c


@recorded(GOOD)
def deposed_leader_returns() -> Cluster:
    """Section 5.1: cut off, a leader goes on in its old term; back, it steps down and repairs its log."""
    c = Cluster(*FIVE)
    c.elect("n1", "n2", "n3")
    c.settle()
    c.drop()
    c.propose("n1", "seen by n2 only")
    c.settle("n1", "n2")
    c.drop()
    assert c.cores["n1"].commit_index == 1
    c.elect("n3", "n4", "n5")
    c.propose("n3", "seen by the rest")
    c.settle("n3", "n4", "n5")
    c.drop()
    assert [s for s in c.servers if c.cores[s].role is Role.LEADER] == ["n1", "n3"]

    c.heartbeat("n1")
    c.deliver("n1", "n4")
    c.deliver("n4", "n1")  # a refusal with the newer term
    assert [s for s in c.servers if c.cores[s].role is Role.LEADER] == ["n3"]
    c.drop()
    c.heartbeat("n3")
    c.settle()
    c.heartbeat("n3")
    c.settle()
    assert all(c.terms(server) == c.terms("n3") for server in c.servers)
    return c


@recorded(GOOD)
def leader_killed_before_commit() -> Cluster:
    """Section 5.3: a command that its leader alone stores is lost with it."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    c.settle()
    c.propose("n1", "lost")
    c.drop()
    c.crash("n1")
    c.elect("n2", "n3")
    c.settle()
    c.propose("n2", "kept")
    c.settle()
    c.start("n1")
    c.heartbeat("n2")
    c.settle()
    assert all(c.terms(server) == [1, 2, 2] for server in c.servers)
    return c


@recorded(GOOD)
def leader_killed_after_commit() -> Cluster:
    """Section 5.4: what a majority stores outlives its leader, though nobody else knew it was committed."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    c.settle()
    c.propose("n1", "kept")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    c.drop()
    assert c.cores["n1"].commit_index == 2
    c.crash("n1")
    c.timeout("n3", "n3")
    c.settle("n2", "n3")  # n2 has more than n3, and refuses
    assert c.cores["n3"].role is Role.CANDIDATE
    c.elect("n2", "n3")
    c.settle("n2", "n3")
    c.heartbeat("n2")
    c.settle("n2", "n3")
    assert c.cores["n3"].commit_index == 3
    c.start("n1")
    c.heartbeat("n2")
    c.settle()
    return c


@recorded(GOOD)
def stale_leader_slow() -> Cluster:
    """Section 5.2: a slow leader is taken for dead. All it sent arrives late, and nothing comes of it."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    c.settle()
    c.propose("n1", "committed")
    c.settle()
    c.heartbeat("n1")
    c.settle()
    c.propose("n1", "too late")  # in flight while n3 gives up waiting
    c.timeout("n3")
    c.deliver("n3", "n2")
    c.deliver("n2", "n3")
    assert [c.cores[s].role for s in ("n1", "n3")] == [Role.LEADER, Role.LEADER]
    c.deliver("n1", "n2")
    c.deliver("n1", "n3")
    assert c.terms("n2") == [1, 1]
    c.settle()
    c.propose("n3", "in time")
    c.settle()
    assert all(c.terms(server) == [1, 1, 2, 2] for server in c.servers)
    return c


@recorded(GOOD)
def repair_of_long_log() -> Cluster:
    """Section 5.3: hundreds of a dead leader's entries go, one refusal a term, batch by batch."""
    c = Cluster(*THREE, config=Config(max_entries=64, max_in_flight=128))
    c.elect("n1", "n2")
    c.settle()
    for term in range(3):
        c.propose("n1", *(f"lost {term} {n}" for n in range(120)))
        c.drop()
        c.crash("n1")
        c.start("n1")
        c.elect("n1", "n2")
        c.drop()
    c.propose("n1", *(f"lost {n}" for n in range(40)))
    c.drop()
    c.crash("n1")
    c.elect("n3", "n2")
    c.settle("n2", "n3")
    c.propose("n3", *(f"kept {n}" for n in range(200)))
    c.settle("n2", "n3")
    c.start("n1")
    assert len(c.terms("n1")) == 404
    c.drop()
    c.heartbeat("n3")
    c.settle()
    c.heartbeat("n3")
    c.settle()
    assert c.terms("n1") == c.terms("n2") == c.terms("n3") == [1] + [5] * 201
    return c


def kills() -> Cluster:
    """Section 5.1: servers die at their worst moments, and start again with what their disks hold."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    c.settle()
    c.crash_in_next_step("n2", "traced")  # the entry is in its trace, and not on its disk
    c.propose("n1", "first")
    c.deliver("n1", "n2")
    c.start("n2")
    c.crash_in_next_step("n3", "persisted")  # the entry is on its disk, and not in its trace
    c.deliver("n1", "n3")
    c.start("n3")
    assert [c.terms(server) for server in THREE] == [[1, 1], [1], [1, 1]]
    c.heartbeat("n1")
    c.settle()
    c.heartbeat("n1")
    c.settle()
    c.crash_in_next_step("n1", "persisted")  # the leader's own entry, the same way
    c.propose("n1", "second")
    c.start("n1")
    c.crash_in_next_step("n3", "persisted")  # a vote for itself
    c.timeout("n3")
    c.start("n3")
    c.crash_in_next_step("n2", "traced")  # and one that isn't kept
    c.timeout("n2")
    c.start("n2")
    c.elect("n1", "n2", "n3")
    c.settle()
    c.crash(*THREE)
    for server in THREE:
        c.start(server)
    c.elect("n2", "n1", "n3")
    c.settle()
    assert c.terms("n1") == c.terms("n2") == c.terms("n3") == [1, 1, 1, 3, 4]
    return c


# --- one wrong step for each rule ------------------------------------------------


def elected(*servers: str, **options: Any) -> Cluster:
    """The first server leads term 1, and all have its no-op."""
    c = Cluster(*(servers or THREE), **options)
    c.elect(c.servers[0], *c.servers[1 : len(c.servers) // 2 + 1])
    c.settle()
    return c


def reports(message: Message) -> dict[str, Any]:
    """The field of an event that says what arrived."""
    return {"message": traced_message(message)}


@recorded(RULES, "term.adopt_newer")
def stays_in_its_term() -> Cluster:
    """A server doesn't take on a newer term."""
    c = Cluster(*THREE)
    c.timeout("n1")
    m = c.in_flight[0]
    c.claim("n2", "handle_request_vote", **reports(m), state={"current_term": 0}, sends=[])
    return c


@recorded(RULES, "term.step_down")
def leads_on() -> Cluster:
    c = elected(broken={"n1": "term.step_down"})
    c.timeout("n3")
    c.deliver("n3", "n1")
    return c


@recorded(RULES, "term.fresh_vote")
def keeps_its_vote() -> Cluster:
    """A server takes its vote along into a newer term."""
    c = elected()
    c.timeout("n3")
    m = c.in_flight[1]
    reply = traced_message(RequestVoteReply("n2", "n3", 2, granted=False))
    c.claim(
        "n2", "handle_request_vote", **reports(m), state={"current_term": 2, "voted_for": "n1"}, sends=[reply]
    )
    return c


@recorded(RULES, "election.new_term")
def same_term_again() -> Cluster:
    """A follower stands for election in the term in which it has voted."""
    c = elected()
    requests = [traced_message(RequestVote("n3", target, 1, 1, 1)) for target in ("n1", "n2")]
    state = {"role": "candidate", "current_term": 1, "voted_for": "n3"}
    c.claim("n3", "timeout", state=state, sends=requests)
    return c


@recorded(RULES, "election.vote_for_self")
def no_vote_for_itself() -> Cluster:
    c = elected(broken={"n3": "election.vote_for_self"})
    c.timeout("n3")
    return c


@recorded(RULES, "election.candidate_only")
def gave_up_and_leads() -> Cluster:
    """A candidate that has lost to the term's leader leads nevertheless."""
    c = Cluster(*THREE)
    c.timeout("n3")
    c.elect("n1", "n2")
    c.settle("n1", "n3")
    c.claim("n3", "become_leader", state={"role": "leader", "current_term": 1})
    return c


@recorded(RULES, "election.majority")
def leads_with_two_of_five() -> Cluster:
    c = Cluster(*FIVE, broken={"n1": "election.majority"})
    c.timeout("n1")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "vote.current_term")
def votes_for_an_old_candidate() -> Cluster:
    c = Cluster(*THREE, broken={"n3": "vote.current_term"})
    c.timeout("n1")
    late = next(m for m in c.in_flight if m.target == "n3")
    c.elect("n2", "n1")
    c.drop()
    c.heartbeat("n2")
    c.deliver("n2", "n3")  # from which it knows of term 2
    c.arrive(late)
    return c


@recorded(RULES, "vote.up_to_date")
def votes_for_a_shorter_log() -> Cluster:
    c = elected(broken={"n2": "vote.up_to_date"})
    c.propose("n1", "committed")
    c.settle("n1", "n2")
    c.drop()
    c.timeout("n3")
    c.deliver("n3", "n2")
    return c


@recorded(RULES, "vote.once_per_term")
def votes_twice() -> Cluster:
    c = Cluster(*THREE, broken={"n3": "vote.once_per_term"})
    c.timeout("n1", "n2")
    c.deliver("n1", "n3")
    c.deliver("n2", "n3")
    return c


@recorded(RULES, "vote.recorded")
def vote_not_written_down() -> Cluster:
    """A server votes, and has voted for nobody."""
    c = Cluster(*THREE)
    c.timeout("n1")
    reply = traced_message(RequestVoteReply("n2", "n1", 1, granted=True))
    state = {"current_term": 1, "voted_for": None}
    c.claim("n2", "handle_request_vote", **reports(c.in_flight[0]), state=state, sends=[reply])
    return c


@recorded(RULES, "vote.count_current_term")
def counts_a_late_vote() -> Cluster:
    c = Cluster(*THREE, broken={"n1": "vote.count_current_term"})
    c.timeout("n1")
    c.deliver("n1", "n2")
    c.timeout("n1")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "vote.count_granted")
def counts_a_refusal() -> Cluster:
    """A candidate leads with the refusal of another candidate."""
    c = Cluster(*THREE)
    c.timeout("n1", "n2")
    c.deliver("n1", "n2")
    m = c.in_flight[-1]
    state = {"role": "leader", "votes": ["n1", "n2"], "log_length": 1}
    c.claim(
        "n1", "handle_request_vote_reply", **reports(m), state=state, entries=[[1, digest(b"")]], sends=[]
    )
    return c


@recorded(RULES, "leader.reset_match_index")
def remembers_another_term() -> Cluster:
    """A leader elected again still believes what followers stored when it led before."""
    c = elected()
    c.timeout("n3")
    c.deliver("n3", "n1")
    c.drop()
    c.timeout("n1")
    c.deliver("n1", "n2")
    m = c.in_flight[-1]
    state = {"role": "leader", "match_index": {"n2": 1, "n3": 1}}
    c.claim("n1", "handle_request_vote_reply", **reports(m), state=state, sends=[])
    return c


@recorded(RULES, "append.leader_only")
def follower_appends() -> Cluster:
    """A follower takes a client's command into its log."""
    c = elected()
    c.claim("n2", "client_request", entries=[[1, digest(b"x")]], state={"log_length": 2})
    return c


@recorded(RULES, "append.own_term")
def appends_in_an_old_term() -> Cluster:
    """A leader marks an entry with the term of the one before."""
    c = elected()
    c.elect("n2", "n3")
    c.settle()
    c.crash("n2")
    c.start("n2")
    c.timeout("n2")
    c.deliver("n2", "n3")
    m = c.in_flight[-1]
    state = {"role": "leader", "log_length": 3, "last_log_term": 2}
    c.claim(
        "n2", "handle_request_vote_reply", **reports(m), state=state, entries=[[2, digest(b"")]], sends=[]
    )
    return c


@recorded(RULES, "replicate.leader_only")
def follower_sends_entries() -> Cluster:
    """A follower sends what only a leader may."""
    c = elected()
    m = AppendEntries("n2", "n3", 1, 1, 1, (), 1)
    c.claim("n2", "append_entries", state={}, sends=[traced_message(m)])
    return c


@recorded(RULES, "replicate.commit_index")
def promises_too_much() -> Cluster:
    """A leader tells a follower of a commit that hasn't happened."""
    c = elected()
    c.propose("n1", "x")
    m = AppendEntries("n1", "n2", 1, 2, 1, (), 2)
    c.claim("n1", "append_entries", state={}, sends=[traced_message(m)])
    return c


@recorded(RULES, "append.current_term")
def follows_an_old_leader() -> Cluster:
    c = elected(broken={"n3": "append.current_term"})
    c.propose("n1", "too late")
    c.elect("n2", "n3")
    c.deliver("n1", "n3", AppendEntries)
    return c


@recorded(RULES, "append.previous_entry")
def joins_anywhere() -> Cluster:
    c = elected(broken={"n1": "append.previous_entry"})
    c.propose("n1", "lost")
    c.drop()
    c.elect("n2", "n3")
    c.settle("n2", "n3")
    c.drop()
    c.crash("n2")
    c.start("n2")
    c.elect("n2", "n3")
    c.deliver("n2", "n1")  # an entry of term 3, after one of term 2
    return c


@recorded(RULES, "append.no_gap")
def leaves_a_hole() -> Cluster:
    """A follower stores entries beyond its log's end."""
    c = elected()
    c.propose("n1", "first")
    c.drop()
    c.propose("n1", "second")
    m = c.in_flight[0]
    reply = AppendEntriesReply("n2", "n1", 1, success=True, match_index=3)
    sends = [traced_message(reply)]
    c.claim("n2", "handle_append_entries", **reports(m), state={"log_length": 2}, sends=sends)
    return c


@recorded(RULES, "append.truncate_only_conflict")
def late_copy_erases() -> Cluster:
    c = elected(broken={"n2": "append.truncate_only_conflict"})
    c.propose("n1", "first")
    c.propose("n1", "second")
    copy = c.deliver("n1", "n2")
    c.deliver("n1", "n2")
    c.arrive(copy)
    return c


@recorded(RULES, "append.truncate_conflict")
def keeps_what_conflicts() -> Cluster:
    """A follower acknowledges an entry, and still has another in its place."""
    c = elected()
    c.propose("n1", "lost", "lost, too")
    c.drop()
    c.elect("n2", "n3")
    m = next(m for m in c.in_flight if m.target == "n1")
    reply = traced_message(AppendEntriesReply("n1", "n2", 2, success=True, match_index=2))
    state = {"role": "follower", "current_term": 2, "log_length": 3, "last_log_term": 1}
    c.claim("n1", "handle_append_entries", **reports(m), state=state, sends=[reply])
    return c


@recorded(RULES, "append.acknowledge_matched")
def acknowledges_its_whole_log() -> Cluster:
    """A heartbeat joins on before entries that the leader never had."""
    c = elected(broken={"n1": "append.acknowledge_matched"})
    c.propose("n1", "lost", "lost, too")
    c.drop()
    c.elect("n2", "n3")
    c.drop()
    c.heartbeat("n2")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "commit.follower_limit")
def commits_unmatched() -> Cluster:
    """A heartbeat that joins on early commits what comes after it, which isn't the leader's."""
    c = elected(broken={"n1": "commit.follower_limit"})
    c.propose("n1", "lost")
    c.drop()
    c.elect("n2", "n3")
    c.settle("n2", "n3")
    assert c.cores["n2"].commit_index == 2
    c.drop()
    c.heartbeat("n2")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "commit.never_back")
def takes_a_commit_back() -> Cluster:
    c = elected(broken={"n2": "commit.never_back"})
    c.heartbeat("n1")
    late = c.deliver("n1", "n2")
    c.settle()
    c.propose("n1", "x")
    c.settle()
    c.heartbeat("n1")
    c.settle()
    c.arrive(late)
    return c


@recorded(RULES, "replicate.ack_current_term")
def counts_a_late_acknowledgement() -> Cluster:
    c = Cluster(*FIVE, broken={"n1": "append.count_current_term"})
    c.elect("n1", "n2", "n3")
    c.deliver("n1", "n2", AppendEntries)
    late = c.in_flight[-1]
    c.drop()
    c.elect("n3", "n4", "n5")
    c.deliver("n3", "n1", AppendEntries)
    c.drop()
    c.elect("n1", "n2", "n3")
    c.arrive(late)
    return c


@recorded(RULES, "replicate.ack_success")
def takes_a_refusal_for_success() -> Cluster:
    c = elected(broken={"n1": "append.refusal_matches_nothing"})
    c.propose("n1", "first")
    c.drop()
    c.propose("n1", "second")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    c.crash("n2")
    c.start("n2")
    c.drop()
    c.crash("n1")
    c.start("n1")
    c.elect("n1", "n3")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "commit.match_monotone")
def late_reply_takes_back() -> Cluster:
    c = elected(broken={"n1": "commit.match_monotone"})
    c.propose("n1", "first")
    c.deliver("n1", "n2")
    late = c.deliver("n2", "n1")
    c.propose("n1", "second")
    c.settle("n1", "n2")
    c.arrive(late)
    return c


@recorded(RULES, "commit.leader_only")
def follower_commits() -> Cluster:
    """A follower counts for itself what is committed."""
    c = elected()
    c.claim("n2", "advance_commit_index", state={"commit_index": 1})
    return c


@recorded(RULES, "commit.in_log")
def commits_what_does_not_exist() -> Cluster:
    """A leader commits the entry after its last one."""
    c = elected()
    c.claim("n1", "advance_commit_index", state={"commit_index": 2})
    return c


@recorded(RULES, "commit.majority")
def commits_without_majority() -> Cluster:
    c = Cluster(*FIVE, broken={"n1": "commit.majority"})
    c.elect("n1", "n2", "n3")
    c.deliver("n1", "n2")
    c.deliver("n2", "n1")
    return c


@recorded(RULES, "commit.current_term")
def commits_an_old_term() -> Cluster:
    """Figure 8 (c), with a leader that counts replicas of an older term's entry."""
    return figure_8_c(broken={"s1": "commit.current_term"})


@recorded(RULES, "append.candidate_steps_down")
def candidate_goes_on() -> Cluster:
    """A candidate stores the entries of its term's leader, and is still a candidate."""
    c = Cluster(*THREE)
    c.timeout("n3")
    c.elect("n1", "n2")
    m = next(m for m in c.in_flight if m.target == "n3" and isinstance(m, AppendEntries))
    reply = traced_message(AppendEntriesReply("n3", "n1", 1, success=True, match_index=1))
    state = {"role": "candidate", "log_length": 1, "last_log_term": 1}
    c.claim("n3", "handle_append_entries", **reports(m), state=state, sends=[reply])
    return c


@recorded(RULES, "apply.committed_only")
def applies_too_early() -> Cluster:
    """A server applies an entry that isn't known to be committed."""
    c = elected()
    c.propose("n1", "x")
    c.claim("n1", "apply_entries", state={"last_applied": 2})
    return c


def started_again(broken: str) -> Cluster:
    """A server has voted and stored an entry, and comes back without something."""
    c = elected(broken={"n2": broken})
    c.heartbeat("n1")
    c.settle()
    c.crash("n2")
    c.start("n2")
    return c


for _rule in ("restart.keep_term", "restart.keep_vote", "restart.keep_log"):
    RULES[_rule] = partial(started_again, _rule)


# --- other wrong traces ------------------------------------------------------------


@recorded(BAD)
def never_sent() -> Cluster:
    """A server receives a vote that was never given, so never sent."""
    c = Cluster(*THREE)
    c.timeout("n1")
    c.arrive(RequestVoteReply("n3", "n1", 1, granted=True))
    return c


@recorded(BAD)
def changed_on_the_way() -> Cluster:
    """A command is another one when it arrives: a fault that Raft does not tolerate, but a trace shows."""
    c = elected()
    c.propose("n1", "pay 10")
    m = c.in_flight[0]
    assert isinstance(m, AppendEntries)
    c.arrive(replace(m, entries=(Entry(1, b"pay 10000"),)))
    return c


@recorded(BAD)
def for_another_server() -> Cluster:
    """A server handles a message that is addressed to another."""
    c = Cluster(*THREE)
    c.timeout("n1")
    c.claim("n3", "handle_request_vote", **reports(c.in_flight[0]), state={"current_term": 1})
    return c


@recorded(BAD)
def from_a_stranger() -> Cluster:
    """A message comes from a server that isn't of the cluster."""
    c = Cluster(*THREE)
    m = RequestVote("n4", "n1", 1, 0, 0)
    c.claim("n1", "handle_request_vote", **reports(m), state={"current_term": 1, "voted_for": "n4"}, sends=[])
    return c


@recorded(BAD)
def two_votes_sent() -> Cluster:
    """A server's state says that it voted once in a term; its messages, that it voted twice."""
    c = Cluster(*THREE)
    c.timeout("n1", "n2")
    c.deliver("n1", "n3")
    m = next(m for m in c.in_flight if (m.source, m.target) == ("n2", "n3"))
    vote = traced_message(RequestVoteReply("n3", "n2", 1, granted=True))
    c.claim("n3", "handle_request_vote", **reports(m), state={"voted_for": "n1"}, sends=[vote])
    return c


@recorded(BAD)
def leader_counts_unsent_vote() -> Cluster:
    """Each server's lines make sense, but each would have had to act after the other."""
    c = Cluster(*THREE)
    vote = RequestVoteReply("n2", "n1", 1, granted=True)
    c.claim("n1", "handle_request_vote_reply", **reports(vote), state={}, sends=[])
    c.timeout("n1")
    c.deliver("n1", "n2")
    return c


@recorded(BAD)
def second_leader_of_a_term() -> Cluster:
    """A server gets entries of the term that it leads itself."""
    c = elected()
    m = AppendEntries("n2", "n1", 1, 1, 1, (), 1)
    c.claim("n1", "handle_append_entries", **reports(m), state={"role": "follower"}, sends=[])
    return c


@recorded(BAD)
def late_log_in_a_new_term() -> Cluster:
    """A leader commits an older term's entry in the same step in which it wins."""
    c = elected()
    c.propose("n1", "x")
    c.settle("n1", "n2")
    c.drop()
    c.crash("n1")
    c.timeout("n2")
    c.deliver("n2", "n3")
    m = c.in_flight[-1]
    state = {"role": "leader", "log_length": 3, "last_log_term": 2, "commit_index": 2}
    c.claim(
        "n2", "handle_request_vote_reply", **reports(m), state=state, entries=[[2, digest(b"")]], sends=[]
    )
    return c


@recorded(BAD)
def reply_from_nowhere() -> Cluster:
    """A voter grants its vote to another server than the one that asked."""
    c = Cluster(*THREE)
    c.timeout("n1")
    vote = traced_message(RequestVoteReply("n2", "n3", 1, granted=True))
    state = {"current_term": 1, "voted_for": "n1"}
    c.claim("n2", "handle_request_vote", **reports(c.in_flight[0]), state=state, sends=[vote])
    return c


@recorded(BAD)
def received_but_not_on_disk() -> Cluster:
    """Section 5.1: a vote left the server before it was on disk, and a crash took it back."""
    c = Cluster(*THREE)
    c.timeout("n1")
    vote = RequestVoteReply("n2", "n1", 1, granted=True)
    c.crash_in_next_step("n2", "traced")
    c.deliver("n1", "n2")
    c.arrive(vote)
    c.start("n2")
    return c


@recorded(BAD)
def acknowledged_but_not_on_disk() -> Cluster:
    """Section 5.1: an acknowledgement left the server, and the entry was never on disk."""
    c = elected()
    c.propose("n1", "x")
    c.crash_in_next_step("n2", "traced")
    c.deliver("n1", "n2")
    c.arrive(AppendEntriesReply("n2", "n1", 1, success=True, match_index=2))
    c.start("n2")
    return c


@recorded(BAD)
def disk_of_another_server() -> Cluster:
    """A server starts with entries that nobody ever had."""
    c = elected()
    c.crash("n3")
    c.disks["n3"].log[0] = Entry(1, b"?")
    c.start("n3")
    return c


@recorded(BAD)
def entry_from_the_future() -> Cluster:
    """A leader appends an entry of a term that it isn't in."""
    c = elected()
    state = {"log_length": 2, "last_log_term": 2}
    c.claim("n1", "client_request", entries=[[2, digest(b"x")]], state=state)
    return c


@recorded(BAD)
def wrong_entries_sent() -> Cluster:
    """A leader sends another command than the one in its log."""
    c = elected()
    c.propose("n1", "x")
    m = AppendEntries("n1", "n2", 1, 1, 1, (Entry(1, b"y"),), 1)
    c.claim("n1", "append_entries", state={}, sends=[traced_message(m)])
    return c


# --- what isn't a trace, or only half of one -------------------------------------------


def unusable() -> dict[str, bytes]:
    """Files that replay can't use, by name. Their whole trace is that of an election."""
    first, *lines = elected().trace().splitlines(keepends=True)

    def changed(n: int, **fields: Any) -> bytes:
        """The trace up to event n, which says something else."""
        event = msgspec.json.decode(lines[n]) | fields
        event = {name: value for name, value in event.items() if value is not None}
        return first + b"".join(lines[:n]) + msgspec.json.encode(event) + b"\n"

    reply = traced_message(RequestVoteReply("n1", "n2", 1, granted=True))
    return {
        "empty": b"",
        "only_a_header": first,
        "no_header": b"".join(lines),
        "unknown_version": first.replace(b'"raftworthy":1', b'"raftworthy":2') + b"".join(lines),
        "server_named_twice": header(("n1", "n2", "n1")) + b"".join(lines),
        "last_line_cut_off": first + b"".join(lines[:5]) + lines[5][:40],
        "not_json": first + lines[0] + b"n2 restarts\n" + b"".join(lines[1:]),
        "blank_line": first + lines[0] + b"\n" + b"".join(lines[1:]),
        "unknown_event": changed(3, event="election"),
        "wrong_type": changed(3, state={"current_term": "one"}),
        "negative_term": changed(3, state={"current_term": -1}),
        "unknown_server": changed(3, server="n4"),
        "gap_in_seq": first + b"".join(lines[:3] + lines[4:]),
        "repeated_seq": first + b"".join(lines[:4]) + lines[3],
        "no_message": changed(4, message=None),
        "message_of_another_kind": changed(4, message=reply),
        "command_without_entries": changed(3, event="client_request"),
        "start_missing": changed(6, event="restart", server="n2", seq=1, start=3, message=None, sends=None),
    }


MINIMAL = {
    "restart": ("current_term", "voted_for", "log_length"),
    "timeout": ("current_term", "voted_for"),
    "handle_request_vote": ("current_term", "voted_for"),
    "become_leader": ("current_term", "voted_for", "commit_index", "log_length"),
    "client_request": ("current_term", "voted_for", "commit_index", "log_length"),
    "handle_append_entries": ("current_term", "voted_for", "commit_index", "log_length"),
}


def minimal(c: Cluster) -> bytes:
    """The same run as a server tells it that logs the least that is useful."""
    first, *lines = c.trace().splitlines(keepends=True)
    known: dict[str, dict[str, Any]] = {server: {} for server in c.servers}
    kept = [first]
    for event in map(msgspec.json.decode, lines):
        variables = known[event["server"]]
        variables |= event["state"]
        name = event["event"]
        if name == "handle_request_vote_reply" and event["state"].get("role") == "leader":
            name = "become_leader"
        if name in MINIMAL:
            told = {"server": event["server"], "event": name}
            told |= {field: event[field] for field in ("start", "entries", "after") if field in event}
            if name.startswith("handle_"):
                told["message"] = event["message"]
            told["state"] = {variable: variables[variable] for variable in MINIMAL[name]}
            kept.append(msgspec.json.encode(told) + b"\n")
    return b"".join(kept)


# --- files ---------------------------------------------------------------------------


def files() -> dict[str, bytes]:
    """All recorded traces, unpacked, by their names in the folder."""
    made = {f"{name}.ndjson": scenario().trace() for name, scenario in GOOD.items()}
    made |= {f"bad/{name}.ndjson": scenario().trace() for name, scenario in BAD.items()}
    made |= {f"rules/{rule}.ndjson": scenario().trace() for rule, scenario in RULES.items()}
    made |= {f"unusable/{name}.ndjson": data for name, data in unusable().items()}
    made |= {f"kills/{name}": data for name, data in kills().traces().items()}
    made["minimal.ndjson"] = minimal(deposed_leader_returns())
    made["packed_gzip.ndjson.gz"] = made["packed_zstandard.ndjson.zst"] = made["figure_8.ndjson"]
    return made


def unpacked(path: Path) -> bytes:
    """What a file holds. Packers differ, so packed files are compared by this."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.decompress(data) if path.suffix == ".zst" else data


def packed(path: Path, data: bytes) -> bytes:
    """A file's bytes, as its name asks for."""
    if path.suffix == ".gz":
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if path.suffix == ".zst" else data


def write(folder: Path) -> list[Path]:
    """Bring the files of a folder up to date; which ones were not."""
    changed = []
    for name, data in files().items():
        path = folder / name
        if not path.exists() or unpacked(path) != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed(path, data))
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m raftd.scenarios FOLDER")
    for written in write(Path(sys.argv[1])):
        print(written)

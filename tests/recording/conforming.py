"""Runs of right servers: figures of the paper, elections and failures."""

from __future__ import annotations

from collections.abc import Mapping

from tests.recording.cluster import FIVE, GOOD, ONE_BY_ONE, THREE, Cluster, recorded

from raftd.core import Config, Role

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
def extraneous_entries() -> Cluster:
    """Section 5.3: leader after leader dies with entries that nobody else has. A leader's log is the truth.

    Each of three comes back, and what it alone had goes.
    """
    c = Cluster(*FIVE)

    def dies_with_an_entry_of_its_own(leader: str) -> None:
        c.propose(leader, f"{leader} alone")
        c.drop()
        c.crash(leader)
        c.start(leader)

    c.elect("n1", "n2", "n3")
    c.settle()
    c.propose("n1", "committed")
    c.settle()
    dies_with_an_entry_of_its_own("n1")
    c.elect("n2", "n3", "n4")
    c.drop()
    dies_with_an_entry_of_its_own("n2")
    assert [c.terms(server) for server in FIVE] == [[1, 1, 1], [1, 1, 2, 2], [1, 1], [1, 1], [1, 1]]

    c.elect("n3", "n4", "n5")
    c.settle()
    assert all(c.terms(server) == [1, 1, 3] for server in FIVE)
    dies_with_an_entry_of_its_own("n3")
    c.elect("n4", "n1", "n5")
    c.settle()
    c.propose("n4", "kept")
    c.settle()
    c.heartbeat("n4")
    c.settle()
    assert all(c.terms(server) == [1, 1, 3, 4, 4] for server in FIVE)
    assert all(core.commit_index == 5 for core in c.cores.values())
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

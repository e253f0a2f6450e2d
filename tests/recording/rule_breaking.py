"""One wrong step for each rule, by a server that breaks it or by a line that claims it."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.recording.cluster import FIVE, RULES, THREE, Cluster, recorded
from tests.recording.conforming import figure_8_c

from raftd.messages import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raftd.trace import digest, traced_message

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
    """A server stores a newer term's entries and doesn't take on the term."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    m = next(m for m in c.in_flight if m.target == "n3" and isinstance(m, AppendEntries))
    reply = traced_message(AppendEntriesReply("n3", "n1", 1, success=True, match_index=1))
    state = {"current_term": 0, "log_length": 1}
    c.claim("n3", "handle_append_entries", **reports(m), state=state, sends=[reply])
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

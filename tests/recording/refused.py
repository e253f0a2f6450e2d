"""Other wrong traces, and what isn't a trace at all, or only half of one."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace
from tests.recording.cluster import BAD, THREE, Cluster, recorded
from tests.recording.rule_breaking import elected, reports

from raftd.log import Log
from raftd.messages import AppendEntries, AppendEntriesReply, Entry, RequestVote, RequestVoteReply
from raftd.trace import digest, header, traced_message

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
    c.disks["n3"].log = Log([Entry(1, b"?"), *c.disks["n3"].log.entries(2)])
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


@recorded(BAD)
def commits_more_than_told() -> Cluster:
    """A follower takes one entry more for committed than the leader said."""
    c = elected()
    c.propose("n1", "x")
    m = c.in_flight[0]
    reply = traced_message(AppendEntriesReply("n2", "n1", 1, success=True, match_index=2))
    state = {"log_length": 2, "commit_index": 2}
    c.claim("n2", "handle_append_entries", **reports(m), state=state, sends=[reply])
    return c


@recorded(BAD)
def acknowledges_what_it_does_not_store() -> Cluster:
    """A follower's reply says that it stores an entry, and its log is as long as before."""
    c = elected()
    c.propose("n1", "x")
    m = c.in_flight[0]
    reply = traced_message(AppendEntriesReply("n2", "n1", 1, success=True, match_index=2))
    c.claim("n2", "handle_append_entries", **reports(m), state={"log_length": 1}, sends=[reply])
    return c


@recorded(BAD)
def first_entry_of_another_term() -> Cluster:
    """A candidate wins, and marks its first entry with a term that it isn't in."""
    c = Cluster(*THREE)
    c.timeout("n1")
    c.deliver("n1", "n2")
    state = {"role": "leader", "log_length": 1, "last_log_term": 2}
    c.claim(
        "n1", "handle_request_vote_reply", **reports(c.in_flight[-1]), state=state,
        entries=[[2, digest(b"")]], sends=[],
    )  # fmt: skip
    return c


@recorded(BAD)
def sends_from_beyond_its_log() -> Cluster:
    """A leader sends a heartbeat for an index that its log doesn't have."""
    c = elected()
    m = AppendEntries("n1", "n2", 1, 2, 1, (), 1)
    c.claim("n1", "append_entries", state={}, sends=[traced_message(m)])
    return c


@recorded(BAD)
def asks_for_votes_as_leader() -> Cluster:
    """A leader asks for a vote, with the log that it has by now."""
    c = elected()
    m = RequestVote("n1", "n2", 1, 1, 1)
    c.claim("n1", "append_entries", state={}, sends=[traced_message(m)])
    return c


@recorded(BAD)
def commits_nothing() -> Cluster:
    """A leader's commit index moves to where it is."""
    c = Cluster(*THREE)
    c.elect("n1", "n2")
    c.claim("n1", "advance_commit_index", state={"commit_index": 0})
    return c


@recorded(BAD)
def leads_unheard() -> Cluster:
    """A candidate leads, and nobody can have voted for it: one server refused, the other wasn't asked."""
    c = Cluster(*THREE)
    c.claim("n1", "timeout", state={"current_term": 1, "voted_for": "n1"})
    m = RequestVote("n1", "n2", 1, 0, 0)
    c.claim("n2", "handle_request_vote", **reports(m), state={"current_term": 1, "voted_for": None})
    c.claim("n1", "become_leader", state={"current_term": 1, "voted_for": "n1"})
    return c


@recorded(BAD)
def commits_unstored() -> Cluster:
    """No sends are logged, and a leader commits what no other server can have stored by then."""
    c = Cluster(*THREE)
    c.claim("n1", "timeout", state={"current_term": 1, "voted_for": "n1"})
    m = RequestVote("n1", "n2", 1, 0, 0)
    c.claim("n2", "handle_request_vote", **reports(m), state={"current_term": 1, "voted_for": "n1"})
    c.claim("n1", "become_leader", state={"current_term": 1, "voted_for": "n1"})
    c.claim("n1", "client_request", entries=[[1, digest(b"x")]], state={"commit_index": 1, "log_length": 1})
    m2 = AppendEntries("n1", "n2", 1, 0, 0, (Entry(1, b"x"),), 1)
    c.claim("n2", "handle_append_entries", **reports(m2), state={"commit_index": 1, "log_length": 1})
    return c


@recorded(BAD)
def heard_more_than_could_be_told() -> Cluster:
    """No sends are logged, and a follower heard of a commit that its leader can't know of."""
    c = Cluster(*THREE)
    c.claim("n1", "timeout", state={"current_term": 1, "voted_for": "n1"})
    m = RequestVote("n1", "n2", 1, 0, 0)
    c.claim("n2", "handle_request_vote", **reports(m), state={"current_term": 1, "voted_for": "n1"})
    c.claim("n1", "become_leader", state={"current_term": 1, "voted_for": "n1"})
    c.claim("n1", "client_request", entries=[[1, digest(b"x")]], state={"commit_index": 0, "log_length": 1})
    m2 = AppendEntries("n1", "n2", 1, 0, 0, (Entry(1, b"x"),), 1)
    c.claim("n2", "handle_append_entries", **reports(m2), state={"commit_index": 1, "log_length": 1})
    c.claim("n1", "client_request", entries=[[1, digest(b"y")]], state={"commit_index": 1, "log_length": 2})
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

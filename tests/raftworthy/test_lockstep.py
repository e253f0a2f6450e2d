"""raftd's core and the specification take the same steps, and every broken core is seen to differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from raftd.core import Batch, Core, Persist
from raftd.faults import BREAKS
from raftd.log import Log
from raftd.messages import AppendEntriesReply, InstallSnapshot, Snapshot
from raftspec.extensions import EXTENSIONS
from raftworthy.cli import app
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.lockstep import AGREES, DIFFERS, UNUSABLE, Disagreement, lockstep, render
from raftworthy.lockstep.run import faults_seen

SMALL = Bounds(servers=3, max_term=2, max_log=1, commands=2, crashes=1, max_messages=6)
CONFLICTS = Bounds(servers=3, max_term=2, max_log=1, commands=2, crashes=0, max_messages=7)
TWO_TERMS = Bounds(servers=3, max_term=2, max_log=1, commands=1, crashes=1, max_messages=8)

# For each fault: where it shows, the rule that is named, and the variables and messages that differ.
FOUND: dict[str, tuple[Bounds, str | None, set[str]]] = {
    "vote.once_per_term": (SMALL, "vote.once_per_term", {"voted_for", "sends"}),
    "vote.up_to_date": (SMALL, "vote.up_to_date", {"voted_for", "sends"}),
    "vote.current_term": (SMALL, "vote.current_term", {"sends"}),
    "vote.count_current_term": (
        SMALL,
        "vote.count_current_term",
        {"role", "log", "votes", "match_index", "sends"},
    ),
    "election.majority": (SMALL, "election.majority", {"role", "log", "votes", "match_index", "sends"}),
    "election.vote_for_self": (SMALL, "election.vote_for_self", {"voted_for"}),
    "term.step_down": (SMALL, "term.step_down", {"role", "votes"}),
    # The specification's steps are on disk at once, so no rule of it says this.
    "vote.persist": (SMALL, None, {"current_term on disk", "voted_for on disk"}),
    "restart.keep_vote": (SMALL, "restart.keep_vote", {"voted_for"}),
    "restart.keep_term": (SMALL, "restart.keep_term", {"current_term", "voted_for"}),
    "restart.keep_log": (SMALL, "restart.keep_log", {"log"}),
    "append.current_term": (SMALL, "append.current_term", {"role", "votes", "sends"}),
    "append.previous_entry": (CONFLICTS, "append.previous_entry", {"sends"}),
    "append.truncate_only_conflict": (SMALL, "append.truncate_only_conflict", {"log"}),
    "append.truncate_conflict": (CONFLICTS, "append.truncate_conflict", {"log"}),
    "append.acknowledge_matched": (SMALL, "append.acknowledge_matched", {"sends"}),
    "append.count_current_term": (TWO_TERMS, "replicate.ack_current_term", {"match_index"}),
    # A hint is raftd's own, so taking it for more than advice breaks no rule by name.
    "append.refusal_matches_nothing": (SMALL, None, {"match_index"}),
    "append.keep_log": (SMALL, "vote.up_to_date", {"log", "voted_for", "sends"}),
    "append.read_previous": (SMALL, None, {"sends"}),
    "commit.majority": (SMALL, "commit.majority", {"commit_index", "last_applied"}),
    "commit.current_term": (TWO_TERMS, "commit.current_term", {"commit_index", "last_applied"}),
    "commit.follower_limit": (SMALL, "commit.follower_limit", {"commit_index", "last_applied"}),
    "commit.never_back": (SMALL, "commit.never_back", {"commit_index"}),
    "commit.match_monotone": (CONFLICTS, "commit.match_monotone", {"match_index"}),
}
# Faults that no step within affordable bounds shows, and why.
NOT_FOUND: dict[str, str] = {
    "reads.ack_current_term": "needs a leader of two terms, three in all; the explorer and replay find it",
    "session.kept_by_all": "needs a follower that has applied a request, and is elected; the others find it",
    "snapshot.discard_conflict": "needs three servers, two terms and 9 messages: 25 s",
}


ASKING = Bounds(max_log=0, max_messages=8, extensions=("pre_vote",))
ASKING_BESIDE_A_LEADER = Bounds(servers=2, max_messages=8, extensions=("pre_vote",))
CHECKING = Bounds(servers=2, max_messages=4, extensions=("check_quorum",))
HANDING_OVER = Bounds(servers=2, max_messages=6, extensions=("leadership_transfer",))
READING = Bounds(servers=2, max_term=1, max_messages=8, reads=2, extensions=("reads",))
READING_TWO_TERMS = Bounds(servers=2, max_log=2, max_messages=9, reads=2, extensions=("reads",))
COMPACTING = Bounds(servers=2, max_term=1, max_log=2, max_messages=7, extensions=("snapshots",))
COMPACTING_ONCE = Bounds(servers=2, max_term=1, crashes=1, max_messages=6, extensions=("snapshots",))
COMPACTING_TWO_TERMS = Bounds(servers=2, max_messages=7, extensions=("snapshots",))
ASKING_AGAIN = Bounds(servers=1, max_term=1, max_log=2, requests=2, extensions=("sessions",))
SAVING = Bounds(servers=1, max_term=1, extensions=("sessions", "snapshots"))
EXPIRING = Bounds(servers=1, max_term=1, max_log=2, max_time=2, extensions=("sessions",))
ANSWERING = Bounds(servers=2, max_term=1, max_messages=6, extensions=("sessions",))
# The same of extensions. Where no rule is named, the specification has none that says it so.
OF_EXTENSIONS: list[tuple[str, Bounds, str | None, set[str]]] = [
    ("pre_vote.majority", ASKING, None, {"event"}),
    ("pre_vote.keep_term", ASKING, "pre_vote.keep_term", {"sends", "current_term"}),
    ("pre_vote.keep_vote", ASKING, "pre_vote.keep_vote", {"voted_for"}),
    ("pre_vote.not_adopted", ASKING, "pre_vote.not_adopted", {"sends", "current_term"}),
    ("pre_vote.current_term", ASKING, "pre_vote.current_term", {"sends"}),
    ("pre_vote.leader_heard", ASKING, "pre_vote.leader_heard", {"sends"}),
    ("pre_vote.leader_asks", ASKING_BESIDE_A_LEADER, "pre_vote.current_term", {"sends"}),
    ("pre_vote.keep_timer", ASKING, None, {"hears"}),
    ("pre_vote.refuse", ASKING, "pre_vote.refuse", {"sends"}),
    ("pre_vote.count_asked", ASKING, "pre_vote.count_asked", {"pre_votes"}),
    ("pre_vote.no_vote", ASKING, None, {"votes"}),
    ("pre_vote.leader_found", ASKING_BESIDE_A_LEADER, "pre_vote.leader_found", {"pre_votes"}),
    (
        "check_quorum.current_term",
        Bounds(servers=2, max_messages=6, extensions=("check_quorum",)),
        "term.adopt_newer",
        {"current_term", "match_index", "voted_for", "role"},
    ),
    ("check_quorum.follow", CHECKING, None, {"event"}),
    ("transfer.caught_up", HANDING_OVER, "transfer.caught_up", {"answer"}),
    ("transfer.current_term", HANDING_OVER, "transfer.current_term", {"told_to_stand"}),
    ("reads.leader_only", READING, "reads.leader_only", {"answer"}),
    ("reads.majority", READING, "reads.majority", {"answer"}),
    ("reads.current_round", READING, "reads.current_round", {"read_acks"}),
    ("reads.ask_current_term", READING_TWO_TERMS, "reads.ask_current_term", {"sends"}),
    ("reads.own_term", READING_TWO_TERMS, "reads.own_term", {"answer"}),
    ("reads.give_up", READING_TWO_TERMS, "reads.give_up", {"read_index", "read_round", "read_acks"}),
    # What the core puts into a snapshot it takes for committed, so it commits without a majority.
    (
        "snapshot.applied_only",
        COMPACTING,
        "commit.majority",
        {"commit_index", "last_applied", "log", "snapshot_index"},
    ),
    (
        "snapshot.current_term",
        COMPACTING_TWO_TERMS,
        "snapshot.current_term",
        {
            "role",
            "log",
            "commit_index",
            "last_applied",
            "votes",
            "snapshot_index",
            "snapshot_term",
            "sends",
        },
    ),
    ("snapshot.keep_term", COMPACTING_TWO_TERMS, None, {"current_term"}),
    ("snapshot.keep_newer", COMPACTING, "snapshot.keep_newer", {"log"}),
    # The specification's state machine is the log up to last_applied, so no rule of it says this.
    ("snapshot.replace_state", COMPACTING, None, {"state machine"}),
    ("session.once", ASKING_AGAIN, "session.once", {"responses", "executed", "answers"}),
    ("session.kept_response", ASKING_AGAIN, "session.kept_response", {"answers"}),
    ("session.not_forgotten", ASKING_AGAIN, "session.not_forgotten", {"executed", "answers"}),
    ("session.registered", ASKING_AGAIN, "session.registered", {"executed", "answers"}),
    # With sessions the specification makes the state of a snapshot again, so no rule says this.
    ("session.in_snapshot", SAVING, None, {"snapshot: active", "snapshot: lowest"}),
    (
        "session.expiry_from_log",
        ASKING_AGAIN,
        "session.expiry_from_log",
        {"active", "lowest", "responses", "answers"},
    ),
]


@pytest.mark.parametrize(
    ("fault", "bounds", "rule", "names"), OF_EXTENSIONS, ids=[fault for fault, *_ in OF_EXTENSIONS]
)
def test_core_that_breaks_an_extension_differs(
    fault: str, bounds: Bounds, rule: str | None, names: set[str]
) -> None:
    found = seen(bounds).get(fault)

    assert found is not None
    assert {d.name for d in found.differences} == names
    assert found.rule == rule


@pytest.mark.parametrize("bounds", [ASKING, ASKING_BESIDE_A_LEADER, CHECKING, HANDING_OVER, READING], ids=str)
def test_core_and_specification_agree_on_an_extension(bounds: Bounds) -> None:
    """Every action of the extension was taken, but those of time alone."""
    result = lockstep(bounds)

    assert result.agrees, render(result)
    assert result.inputs > 200
    assert EXTENSIONS[bounds.extensions[0]].actions.keys() - {"silence"} <= result.agreed.keys()


def test_core_and_specification_agree_where_logs_are_compacted() -> None:
    """Dissertation, chapter 5: one snapshot, taken and sent, in one term and in two; pinned, too."""
    longer, later = lockstep(COMPACTING), lockstep(COMPACTING_TWO_TERMS)

    assert longer.agrees, render(longer)
    assert later.agrees, render(later)
    assert (longer.explored.distinct, longer.inputs) == (3172, 591)
    assert (later.explored.distinct, later.inputs) == (2042, 849)
    told = ("take_snapshot", "handle_install_snapshot")
    assert [longer.agreed[e] for e in told] == [18, 12]
    assert [later.agreed[e] for e in told] == [20, 18]
    both_ways = {"snapshot.compacted_joins", "snapshot.current_term", "snapshot.never_back"}
    assert both_ways <= {*later.exercised}


def test_core_and_specification_agree_on_what_clients_are_answered() -> None:
    """Dissertation, section 6.3: tables, executions and answers of every entry that is applied; pinned."""
    alone, together = lockstep(EXPIRING), lockstep(ANSWERING)

    assert alone.agrees, render(alone)
    assert together.agrees, render(together)
    assert (alone.explored.distinct, alone.inputs) == (318, 1441)
    assert (together.explored.distinct, together.inputs) == (526, 648)
    assert "session.registered" in alone.exercised


# All seven extensions at once, and logs in which clients and members stand, compacted and sent.
ALL = Bounds(servers=2, max_term=1, max_log=2, max_messages=5, extensions=tuple(EXTENSIONS))
SENT = Bounds(
    servers=2, max_term=1, max_messages=5, extensions=("membership", "sessions", "snapshots")
)  # fmt: skip
# The faults that show there, with the rule that is named; others need a second term, or more messages.
IN_ALL: dict[str, str | None] = {
    "vote.persist": None,
    "pre_vote.majority": None,
    "pre_vote.keep_timer": None,
    "check_quorum.follow": None,
    "membership.majority_of_both": "commit.majority",
} | {
    rule: rule
    for rule in (
        "election.majority", "election.vote_for_self", "term.step_down", "restart.keep_vote",
        "restart.keep_term", "restart.keep_log", "commit.majority", "pre_vote.keep_term",
        "pre_vote.keep_vote", "pre_vote.current_term", "pre_vote.refuse", "pre_vote.count_asked",
        "transfer.caught_up", "membership.one_at_a_time", "membership.own_term_first",
        "reads.leader_only", "reads.own_term",
    )
}  # fmt: skip
IN_SENT: dict[str, str | None] = {
    "membership.in_snapshot": None,
    "snapshot.replace_state": "apply.committed_only",
    "session.registered": "session.registered",
    "membership.in_force_when_stored": "membership.in_force_when_stored",
}


@pytest.mark.parametrize(
    ("bounds", "faults"), [(ALL, IN_ALL), (SENT, IN_SENT)], ids=["all", "those that change the log"]
)
def test_faults_show_where_extensions_are_on_together(bounds: Bounds, faults: dict[str, str | None]) -> None:
    """And nothing else does: None is the core as it is."""
    found = faults_seen(bounds, [None, *faults])

    assert {fault: d.rule for fault, d in found.items()} == faults


def test_core_and_specification_agree() -> None:
    """Sections 5.1 to 5.4: every step within the bounds, pinned, so that none is lost unnoticed."""
    result = lockstep(SMALL)

    assert result.agrees, render(result)
    assert result.explored.distinct == 866
    assert dict(result.agreed) == {
        "timeout": 33,
        "handle_request_vote": 72,
        "handle_request_vote_reply": 110,
        "client_request": 110,
        "append_entries": 44,
        "handle_append_entries": 57,
        "handle_append_entries_reply": 32,
        "restart": 46,
    }


def test_single_server_leads_and_commits_alone() -> None:
    """Section 5.3: a majority of one is one; all of it follows from a single timeout."""
    result = lockstep(Bounds(servers=1, max_term=3, max_log=3, crashes=2))

    assert result.agrees, render(result)
    assert result.agreed["client_request"] > 20


def test_longer_logs_and_larger_messages_agree() -> None:
    """Section 5.3: two entries in a message, and a follower that is two behind."""
    result = lockstep(
        Bounds(servers=2, max_term=2, max_log=2, commands=2, crashes=1, entries=2, max_messages=6)
    )

    assert result.agrees, render(result)
    assert result.agreed["handle_append_entries_reply"] > 50


def test_every_fault_is_in_a_table() -> None:
    elsewhere = {f for f in BREAKS if f.startswith(("membership.", "lease."))}
    tables = FOUND.keys() | NOT_FOUND.keys() | {fault for fault, *_ in OF_EXTENSIONS}
    assert tables | elsewhere == BREAKS.keys()
    assert not FOUND.keys() & NOT_FOUND.keys()


@pytest.mark.parametrize("fault", FOUND)
def test_broken_core_differs(fault: str) -> None:
    """A core without one rule takes a step that the specification doesn't; the rule is named."""
    bounds, rule, names = FOUND[fault]

    found = seen(bounds).get(fault)

    assert found is not None, f"{fault} was not seen within {bounds}"
    assert {d.name for d in found.differences} == names
    assert found.rule == rule


@cache
def seen(bounds: Bounds) -> Mapping[str | None, Disagreement]:
    """All faults that show within the same bounds, in one run."""
    of_extensions = {fault: where for fault, where, *_ in OF_EXTENSIONS}
    tables = {fault: where for fault, (where, *_) in FOUND.items()} | of_extensions
    return faults_seen(bounds, [fault for fault, where in tables.items() if where == bounds])


# --- a core that does less, or says something else ------------------------------------------


class NeverVotes(Core):
    def _is_up_to_date(self, m: Any) -> bool:
        return False


class NeverCommits(Core):
    def _may_commit(self, n: int) -> bool:
        return False


class IgnoresAcknowledgements(Core):
    def _counts_acknowledgement(self, m: AppendEntriesReply) -> bool:
        return False


class HidesItsVote(Core):
    def _finish(self, *args: Any) -> Batch:
        batch = super()._finish(*args)
        batch.event["state"].pop("voted_for", None)
        return batch


class HidesItsMessages(Core):
    def _finish(self, *args: Any) -> Batch:
        batch = super()._finish(*args)
        batch.event["sends"] = []
        return batch


class SaysAnotherTerm(Core):
    def _send_snapshot(self, peer: str) -> None:
        assert self.snapshot is not None
        n, term, state = self.snapshot.last_included_index, self.current_term + 1, self.snapshot.state
        self._send(InstallSnapshot(self.server, peer, self.current_term, Snapshot(n, term, state)))


class LeavesItInMemory(Core):
    def _persist(self, *args: Any) -> Persist | None:
        change = super()._persist(*args)
        return change and change._replace(snapshot=None)


class ForgetsItsSnapshot(Core):
    """What `_check_step` sees itself: its commit index falls."""

    def _recover(self) -> None:
        self.snapshot, self.log = None, Log(self.log)  # what is not compacted
        self.commit_index = self.last_applied = 0


@pytest.mark.parametrize(
    ("core", "bounds", "name"),
    [
        (SaysAnotherTerm, COMPACTING_TWO_TERMS, "sends"),
        (LeavesItInMemory, COMPACTING_ONCE, "snapshot on disk"),
        (ForgetsItsSnapshot, COMPACTING_ONCE, "assertion"),
    ],
)
def test_core_that_handles_snapshots_badly_differs(
    monkeypatch: pytest.MonkeyPatch, core: type[Core], bounds: Bounds, name: str
) -> None:
    """What goes out, what is on disk and what comes back from there are compared, too."""
    monkeypatch.setitem(BREAKS, "test", core)

    found = lockstep(bounds, broken="test").disagreement

    assert found is not None
    assert name in {d.name for d in found.differences}


@pytest.mark.parametrize(
    ("core", "name"),
    [
        (NeverVotes, "voted_for"),
        (NeverCommits, "commit_index"),
        (IgnoresAcknowledgements, "match_index"),
        (HidesItsVote, "trace: voted_for"),
        (HidesItsMessages, "trace: sends"),
    ],
)
def test_core_that_does_or_says_less_differs(
    monkeypatch: pytest.MonkeyPatch, core: type[Core], name: str
) -> None:
    """A server that is merely useless breaks no safety rule, and still isn't what Figure 2 says."""
    monkeypatch.setitem(BREAKS, "test", core)

    found = lockstep(SMALL, broken="test").disagreement

    assert found is not None
    assert name in {d.name for d in found.differences}


# --- the command -----------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(["lockstep", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_difference_is_told_with_its_rule_and_the_way_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--messages", "4", "--break", "vote.once_per_term") == DIFFERS

    assert capsys.readouterr().out.splitlines()[:9] == [
        "error: raftd's core, with vote.once_per_term broken, takes a step otherwise than the specification",
        "    1 timeout(n1)",
        "    2 timeout(n2)",
        "  n1 is role = candidate, current_term = 1, voted_for = n1, log = [], commit_index = 0, "
        "last_applied = 0, votes = [n1]",
        "  given handle_request_vote(request_vote n2→n1 term=1, last_log_index=0, last_log_term=0)",
        "  voted_for: expected n1, got n2",
        "  sends: expected request_vote_reply n1→n2 term=1, granted=False, got nothing",
        "  sends: expected nothing, got request_vote_reply n1→n2 term=1, granted=True",
        "because: rule vote.once_per_term (section 5.2): Two votes of one server in a term can give "
        "the term two leaders.",
    ]


def test_agreement_is_told_with_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--messages", "4", "--json") == AGREES
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "agrees"
    assert told["disagreement"] is None
    assert told["inputs"] == sum(told["agreed"].values()) > 80

    assert run("--messages", "4") == AGREES
    text = capsys.readouterr().out
    assert text.startswith("agrees: raftd's core and the specification, on ")
    assert "bounded by 3 servers, terms up to 2, logs up to 1" in text


def test_unknown_fault_or_bound_is_unusable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnusableError, match="no fault"):
        lockstep(SMALL, broken="vote.twice")
    assert run("--break", "vote.twice") == UNUSABLE
    assert run("--servers", "0") == UNUSABLE
    assert "no fault is called 'vote.twice'" in capsys.readouterr().err

"""Paths as traces that replay reads, and as diagrams that people read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path as FilePath

import pytest

from raftspec.raft import raft
from raftspec.rules import RULES
from raftworthy.diagram import Labels, explain, lay_out
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import BEGINNINGS, RULE_CASES, Case, Walk
from raftworthy.explore.export import TRACE_CASES, deviation, trace_events, write_rule_traces, write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path
from raftworthy.explore.reference import explore
from raftworthy.replay.replay import Violation, replay_files


@cache
def walked(name: str) -> Path:
    return BEGINNINGS[name](Walk(Model(raft, Bounds(max_term=4, commands=2, crashes=1)))).path


@pytest.mark.parametrize("name", [name for name in BEGINNINGS if name != "initial"])
def test_a_behaviour_of_raft_replays(name: str, tmp_path: FilePath) -> None:
    path = walked(name)
    write_trace(path, tmp_path / "path.ndjson")
    assert replay_files([tmp_path / "path.ndjson"]).number == len(path) + 3


def test_a_restart_counts_starts_and_tells_what_the_disk_holds(tmp_path: FilePath) -> None:
    w = BEGINNINGS["committed"](Walk(Model(raft, Bounds(crashes=1)))).do("restart", "n2")
    *_, last = trace_events(w.path)
    assert last == {
        "server": "n2", "seq": 1, "event": "restart", "start": 2,
        "state": {"current_term": 1, "voted_for": "n1", "log_length": 1, "last_log_term": 1},
        "after": 0, "entries": [[1, "c1"]],
    }  # fmt: skip
    write_trace(w.path, tmp_path / "path.ndjson")
    replay_files([tmp_path / "path.ndjson"])


def test_a_trace_has_a_line_for_each_step() -> None:
    path = walked("stored")
    header, *events = json.loads(json.dumps(list(trace_events(path))))
    assert header == {"raftworthy": 1, "servers": ["n1", "n2", "n3"]}
    assert [e["event"] for e in events] == ["restart"] * 3 + [m.action for m in path.moves]
    ask = next(e for e in events if e["event"] == "client_request")
    assert ask["entries"] == [[1, "c1"]]
    assert [e["seq"] for e in events if e["server"] == "n2"] == [1, 2, 3]


def test_a_path_from_the_middle_is_no_trace() -> None:
    led = walked("led")
    with pytest.raises(ValueError, match="begins in the middle of n1's life"):
        list(trace_events(Path(led.world)))


@pytest.mark.parametrize(
    "rule", sorted(r for r in {**RULE_CASES, **TRACE_CASES} if RULES[r].kind == "safety")
)
def test_replay_sees_a_rule_broken(rule: str, tmp_path: FilePath) -> None:
    """The shortest trace with a step that the rule forbids violates the specification at its last line."""
    assert write_rule_traces(tmp_path, [rule]) == [rule]
    file = tmp_path / f"{rule}.ndjson"
    with pytest.raises(Violation) as violation:
        replay_files([file])
    assert violation.value.place is not None
    assert violation.value.place.line == len(file.read_bytes().splitlines())


def test_what_a_rule_forbids_is_seen_at_the_first_step_that_matters() -> None:
    """Not where a variable differs that nobody can see, but where it comes to be used."""
    path = deviation(RULE_CASES["leader.reset_match_index"], "leader.reset_match_index")
    assert path is not None
    assert path.moves[-1].action == "become_leader"


def test_a_policy_is_no_rule_to_break() -> None:
    """Choosing otherwise than Figure 2 is not wrong, so nothing can be seen to be."""
    assert deviation(Case(Bounds(servers=2, max_term=1)), "replicate.next_index") is None


# --- diagrams ----------------------------------------------------------------

COMMITTED = """\
    n1                              n2
 1  timeout                         │
      role candidate,               │
        current_term 1,             │
        voted_for n1, votes {n1}    │
    ①→n2 request_vote               │
 2  │                               ① request_vote from n1
    │                                 term 1, last_log_index 0,
    │                                   last_log_term 0
    │                                 current_term 1, voted_for n1
    │                               ②→n1 request_vote_reply
 3  ② request_vote_reply from n2    │
      term 1, granted true          │
      votes {n1, n2}                │
 4  become_leader                   │
      role leader,                  │
        next_index {n1: 1, n2: 1}   │
 5  client_request                  │
      v c1                          │
      log [1]                       │
 6  advance_commit_index            │
      n 1                           │
      commit_index 1                │

  n1  role leader, current_term 1, voted_for n1, log [1],
      commit_index 1, next_index {n1: 1, n2: 1}
  n2  role follower, current_term 1, voted_for n1, log []
past  leaders {1: n1}, committed [1], commits {1: 1}, commands 1

violated: committed_on_quorum
  What was committed stays in the logs of a quorum: it is durable.
  Section 5.4.
without: commit.majority (section 5.3)
  Every later leader is elected by a majority, which shares a server
  with this one.
"""


def test_a_diagram_shows_who_did_what_and_what_broke() -> None:
    violation = (
        RULE_CASES["commit.majority"].explore(raft, without={"commit.majority"}, symmetry=False).violation
    )
    assert violation is not None
    shown = explain(violation.path, raft.properties[violation.property], ["commit.majority"], width=68)
    assert shown.plain == COMMITTED


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_diagram_keeps_to_its_width(width: int) -> None:
    for name in BEGINNINGS:
        assert max(map(len, lay_out(walked(name), width).plain.splitlines())) <= width


def test_a_path_from_the_middle_begins_with_what_was_there() -> None:
    find = explore(raft, Bounds(), start=walked("led").world, find=lambda s: bool(s.variables["n1"].log))
    assert find.witness is not None
    first = lay_out(find.witness).plain.splitlines()[1:3]
    assert first[0].split() == ["at", "first"] * 3
    assert "role leader" in first[1]


def test_every_message_has_a_sign_of_its_own() -> None:
    labels = Labels()
    signs = [labels[k] for k in range(60)]
    assert len(set(signs)) == 60
    assert (signs[0], signs[19], signs[20], signs[49], signs[50]) == ("①", "⑳", "㉑", "㊿", "(51)")
    assert labels[0] == "①"

"""Traces with holes are explained if something explains them, and refuted by lines that can't all be true.

Traces come from raftd's simulator; fields are left out, a server's lines are, or a contradiction is put in.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raftd.simulator import EXTENDED, SIMULATED
from raftd.state import Config
from raftworthy.cli import app
from raftworthy.holes.alone import contradiction
from raftworthy.holes.lines import Line, Lines, known, read_lines
from raftworthy.holes.refute import Refuter
from raftworthy.holes.verdict import Completed, complete, write
from raftworthy.measure_holes import Setting, holes_in, simulated, with_holes, written
from raftworthy.replay.verdict import check

pytest.importorskip("z3")
Event = dict[str, Any]


def holes(
    seed: int, share: float, faults: str = "none", lose: bool = False, steps: int = 200,
    config: Config = SIMULATED,
) -> list[Event]:  # fmt: skip
    """A simulation's trace with fields left out, or without one of its servers."""
    rng = random.Random(seed)
    lines = simulated(seed, steps, faults, config=config)
    return with_holes(lines, rng, share, [rng.choice(lines[0]["servers"])] if lose else [])


def told_by(told: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a whole event, or message, is as the known fields say."""
    for f, x in told.items():
        y = whole.get(f)
        if f in ("message", "state"):
            if not told_by(x, y or {}):
                return False
        elif f == "sends":
            ways = itertools.permutations(y or (), len(x))
            if not any(all(map(told_by, x, way)) for way in ways):
                return False
        elif f == "votes":
            if y is not None and set(x) != set(y):
                return False
        elif f == "match_index" and isinstance(x, dict):
            if whole["role"] == "leader" and any((y or {}).get(j, 0) != n for j, n in x.items()):
                return False
        elif f not in ("seq", "time", "after", "start") and x is not None and x != y:
            return False
    return True


def assert_explained(done: Completed, lines: Sequence[Event], path: Path) -> None:
    """It is explained by a behaviour that replay takes, and that has what every line says, in order."""
    assert done.verdict == "explained", done
    whole = path.with_name("whole.ndjson")
    write(done.behaviour, whole)
    assert check([whole]).verdict == "conforms"
    by_line = {e["line"]: e for e in done.behaviour if "line" in e}
    for number, e in enumerate(lines[1:], 2):
        assert told_by({k: x for k, x in e.items() if x is not None}, by_line[f"{path}:{number}"]), (
            number,
            e,
        )
    for i in lines[0]["servers"]:
        order = [
            int(e["line"].rpartition(":")[2]) for e in done.behaviour[1:] if e["server"] == i and "line" in e
        ]
        assert order == sorted(order)


# --- explained -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 3, 4, 5, 6, 7, 8, 9, 10, 12])
def test_hidden_fields_are_filled_in(seed: int, tmp_path: Path) -> None:
    lines = holes(seed, 0.3)
    path = written(lines, tmp_path / "holes.ndjson")
    assert_explained(complete([path]), lines, path)


def test_what_a_leader_stores_itself_is_no_missing_acknowledgement(tmp_path: Path) -> None:
    """A leader commits with one follower, of whom there are no lines. Right servers did that."""
    path = written(holes(45, 0, "all", lose=True, steps=400), tmp_path / "holes.ndjson")
    assert complete([path], 4_000).verdict != "violates"


@pytest.mark.parametrize("seed", range(40, 51))
def test_a_server_without_lines_is_supplied_with_steps(seed: int, tmp_path: Path) -> None:
    """Under every fault: losses, delays, partitions, crashes."""
    lines = holes(seed, 0, "all", lose=True, steps=400)
    path = written(lines, tmp_path / "holes.ndjson")
    done = complete([path])
    assert_explained(done, lines, path)
    assert len(done.lost) == 1
    assert done.supplied


@pytest.mark.parametrize(
    ("seed", "faults"),
    [(7, "none"), (9, "none"), (20, "none"), (8, "all"), (13, "all"), (14, "all"), (15, "all")],
)
def test_a_server_without_lines_is_supplied_with_steps_where_other_lines_have_holes(
    seed: int, faults: str, tmp_path: Path
) -> None:
    """Whom a message was for, what it acknowledged, in which term: what the lines hide shows elsewhere."""
    lines = holes_in(Setting(200, 0.1, "any", faults), seed)
    path = written(lines, tmp_path / "holes.ndjson")
    assert_explained(complete([path], 6_000), lines, path)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("config", [SIMULATED, EXTENDED], ids=["figure_2", "usual"])
def test_what_happened_is_not_refuted(seed: int, lose: bool, config: Config, tmp_path: Path) -> None:
    """Whether or not a behaviour is found: there is one."""
    path = written(holes(seed, 0.2, "all", lose, config=config), tmp_path / "holes.ndjson")
    lines = read_lines([path])
    assert Refuter(lines).refute() is None
    assert contradiction(lines) is None


@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize(("share", "lose"), [(0.2, False), (0, True)])
def test_servers_with_more_than_figure_2_are_explained(
    seed: int, share: float, lose: bool, tmp_path: Path
) -> None:
    """With all that raftd has by itself: pre-vote, check quorum, leadership transfer. Under every fault."""
    lines = holes(seed, share, "all", lose, 400 if lose else 150, EXTENDED)
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")]), lines, path)


def test_a_lost_server_asks_for_pre_votes_leads_and_hands_over(tmp_path: Path) -> None:
    """Of the leader, who tells another to stand, there are no lines."""
    lines = simulated(4, 300, "transfer=0.05", config=EXTENDED)
    leader = next(e["server"] for e in lines if e.get("event") == "transfer_leadership")
    path = written(with_holes(lines, random.Random(4), 0, [leader]), tmp_path / "holes.ndjson")
    done = complete([path])
    assert done.verdict == "explained"
    supplied = {e["event"] for e in done.behaviour[1:] if e["server"] == leader}
    assert {"start_pre_vote", "handle_pre_vote_reply", "timeout", "transfer_leadership"} <= supplied


def test_a_message_may_be_missing_altogether(tmp_path: Path) -> None:
    lines = simulated(3, 60)
    rng = random.Random(3)
    for e in lines[1:]:
        if rng.random() < 0.3:
            e.pop("message", None)
    path = written(lines, tmp_path / "holes.ndjson")
    assert_explained(complete([path]), lines, path)


def test_entries_that_reached_a_disk_unlogged_came_from_the_server_without_lines(tmp_path: Path) -> None:
    """A follower was killed between disk and trace, and only its disk shows what the leader had sent."""
    lines = simulated(1, 60)
    stored: set[str] = set()
    for number, e in enumerate(lines):
        if e.get("event") == "handle_append_entries" and not stored.issuperset(
            new := {command for _, command in e["message"]["entries"]}
        ):
            kill, stored = number, stored | new  # nobody else has received them before
    m, follower, state = lines[kill]["message"], lines[kill]["server"], lines[kill]["state"]
    disk = {"current_term": m["term"], "voted_for": m["source"], "log_length": state["log_length"],
            "last_log_term": state["last_log_term"]}  # fmt: skip
    restart = {"server": follower, "seq": 1, "event": "restart", "start": 2, "after": m["prev_log_index"],
               "entries": m["entries"], "state": disk, "sends": []}  # fmt: skip
    path = written(
        with_holes([*lines[:kill], restart], random.Random(1), 0, [m["source"]]), tmp_path / "holes.ndjson"
    )
    done = complete([path])
    assert done.verdict == "explained", done.tried


@pytest.mark.parametrize("voted", [True, False])
def test_a_term_that_reached_a_disk_unlogged_came_from_the_server_without_lines(
    voted: bool, tmp_path: Path
) -> None:
    """A server was killed between disk and trace, when the first candidate had asked for its vote."""
    start = {"event": "restart", "entries": [], "after": 0, "sends": []}
    disk = {"current_term": 0, "voted_for": None, "log_length": 0, "last_log_term": 0}
    later = disk | {"current_term": 3, "voted_for": "n1" if voted else None}
    lines = [
        {"raftworthy": 1, "servers": ["n1", "n2", "n3"]},
        {"server": "n2", "seq": 1, **start, "state": disk, "start": 1},
        {"server": "n2", "seq": 1, **start, "state": later, "start": 2},
        {"server": "n3", "seq": 1, **start, "state": disk, "start": 1},
    ]
    done = complete([written(lines, tmp_path / "holes.ndjson")])
    assert done.verdict == "explained", done.tried


def test_a_step_that_a_kill_undid_refutes_nothing(tmp_path: Path) -> None:
    """The first vote was logged, and was never on the disk: after the restart another may be given."""
    servers = ["n1", "n2", "n3"]

    def vote(candidate: str) -> Event:
        m = {"kind": "request_vote", "source": candidate, "target": "n1", "term": 1,
             "last_log_index": 0, "last_log_term": 0}  # fmt: skip
        state = {"current_term": 1, "voted_for": candidate}
        return {"server": "n1", "event": "handle_request_vote", "message": m, "state": state}

    disk = {"current_term": 0, "voted_for": None, "log_length": 0}
    started = {"server": "n1", "event": "restart", "state": disk, "entries": [], "sends": []}
    lines: list[Event] = [{"raftworthy": 1, "servers": servers}, started, vote("n2"), started, vote("n3")]
    path = written(lines, tmp_path / "undone.ndjson")
    assert_explained(complete([path]), lines, path)
    assert Refuter(read_lines([path])).refute() is None
    without_restart = [*lines[:3], lines[4]]
    assert complete([written(without_restart, path)]).verdict == "violates"


# --- refuted ---------------------------------------------------------------------------


def unnumbered(lines: Sequence[Event]) -> list[Event]:
    return [{k: x for k, x in e.items() if k not in ("seq", "start")} for e in json.loads(json.dumps(lines))]


def two_votes(lines: list[Event], rng: random.Random) -> list[int]:
    """A server votes for another candidate in the same term, too."""
    k = rng.choice([k for k, e in enumerate(lines) if any(m.get("granted") for m in e.get("sends", ()))])
    again = json.loads(json.dumps(lines[k]))
    candidate = again["message"]["source"]
    other = next(j for j in lines[0]["servers"] if j not in (candidate, again["server"]))
    again["message"]["source"] = again["state"]["voted_for"] = again["sends"][0]["target"] = other
    lines.insert(k + 1, again)
    return [k, k + 1]


def two_leaders(lines: list[Event], rng: random.Random) -> list[int]:
    """A second server leads a term."""
    k = rng.choice([k for k, e in enumerate(lines) if e.get("state", {}).get("role") == "leader"])
    i = lines[k]["server"]
    terms = [e["state"]["current_term"] for e in lines[1 : k + 1]
             if e["server"] == i and "current_term" in e.get("state", {})]  # fmt: skip
    lines[k]["state"]["current_term"] = terms[-1]
    other = next(j for j in lines[0]["servers"] if j != i)
    state = {"role": "leader", "current_term": terms[-1]}
    lines.insert(k + 1, {"server": other, "event": "become_leader", "state": state})
    return [k, k + 1]


def overwritten(lines: list[Event], rng: random.Random) -> list[int]:
    """An entry that a follower has acknowledged is gone from its log in the same term."""
    k = rng.choice(
        [k for k, e in enumerate(lines) if any(m.get("match_index", 0) > 1 for m in e.get("sends", ()))]
    )
    e, (reply,) = lines[k], lines[k]["sends"]
    m = {**e["message"], "entries": [], "prev_log_index": 0, "prev_log_term": 0}
    state = {"current_term": reply["term"], "log_length": reply["match_index"] - 1}
    lines.insert(
        k + 1, {"server": e["server"], "event": "handle_append_entries", "message": m, "state": state}
    )
    return [k, k + 1]


PLANTED = {"vote.once_per_term": two_votes, "election.majority": two_leaders, "restart.keep_log": overwritten}


@pytest.mark.parametrize("rule", PLANTED)
@pytest.mark.parametrize("share", [0, 0.3])
@pytest.mark.parametrize("seed", [1, 2])
def test_lines_that_cannot_both_be_true_are_named(rule: str, share: float, seed: int, tmp_path: Path) -> None:
    """Fields of all other lines are hidden, too. The set is minimal, and suffices by itself."""
    rng = random.Random(seed)
    lines = unnumbered(simulated(seed, 120, "none" if share == 0 else "all"))
    planted = PLANTED[rule](lines, rng)
    kept = {k: lines[k] for k in planted}
    lines = [kept.get(k, e) for k, e in enumerate(with_holes(lines, rng, share))]
    path = written(lines, tmp_path / "bad.ndjson")
    done = complete([path])
    assert done.verdict == "violates"
    assert rule in {t.rule for t in done.ties}
    named = {int(c.place.rpartition(":")[2]) for c in done.refuted}
    assert named & {k + 1 for k in planted}
    assert len(named) <= 3
    read = read_lines([path])
    core = [line for line in read.all() if line.place.line in named]
    assert Refuter(only(read, core)).refute() is not None
    for line in core:
        assert Refuter(only(read, [x for x in core if x is not line])).refute() is None


def only(read: Lines, lines: Sequence[Line]) -> Lines:
    return read.keep({i: [x for x in own if x in lines] for i, own in read.of.items()})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_commit_without_a_majority_is_named(seed: int, tmp_path: Path) -> None:
    """The leader's own lines tell whose acknowledgements it had. Another server's lines are lost."""
    rng = random.Random(seed)
    lines = unnumbered(simulated(seed, 120))
    k = rng.choice([k for k, e in enumerate(lines) if e.get("event") == "client_request"][1:])
    lines[k]["state"] |= {"commit_index": lines[k]["state"]["log_length"], "role": "leader"}
    lost = rng.choice([j for j in lines[0]["servers"] if j != lines[k]["server"]])
    rest = [e for e in lines if e.get("server") != lost]
    path = written(rest, tmp_path / "bad.ndjson")
    done = complete([path])
    assert done.verdict == "violates"
    assert f"{path}:{rest.index(lines[k]) + 1}" in {c.place for c in done.refuted}
    # Without the claim of this one line the rest can be.
    del lines[k]["state"]["commit_index"]
    assert contradiction(read_lines([written(rest, path)])) is None


# --- the command -------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = app([*map(str, arguments)], exit_on_error=False, result_action="return_value")
    return code, capsys.readouterr().out


def test_replay_hands_over_where_a_server_has_no_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(holes(1, 0, lose=True), tmp_path / "lost.ndjson"), tmp_path / "whole.ndjson"
    code, text = run(capsys, "replay", path, "--out", out)
    assert code == 0
    assert text.startswith("note: there are no lines of n1; ")
    assert "explained: " in text
    assert check([out]).verdict == "conforms"
    code, text = run(capsys, "replay", path, "--no-complete")
    assert code == 1
    assert "explained" not in text


def test_replay_hands_over_where_messages_lack_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(holes(3, 0.1), tmp_path / "hidden.ndjson")
    code, text = run(capsys, "replay", path, "--json")
    assert code == 0
    assert json.loads(text)["verdict"] == "explained"
    code, text = run(capsys, "replay", path, "--no-complete")
    assert code == 2
    assert "unusable" in text


def test_no_more_steps_is_undecided_not_explained_and_not_refuted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(holes(2, 0.3), tmp_path / "hidden.ndjson")
    code, text = run(capsys, "replay", path, "--complete", "--limit-steps", 1)
    assert code == 2
    assert text.startswith("undecided: not explained, and not refuted")
    assert "tried: " in text


def test_a_gap_in_a_servers_lines_is_refused(tmp_path: Path) -> None:
    lines = simulated(1, 40)
    del lines[9]
    done = complete([written(lines, tmp_path / "gap.ndjson")])
    assert done.verdict == "unusable"
    assert "lines are missing here" in str(done.error)


def test_what_is_not_known_may_be_null(tmp_path: Path) -> None:
    lines = simulated(1, 30)
    for e in lines[1:]:
        if "message" in e:
            e["message"]["term"] = None
    path = written(lines, tmp_path / "null.ndjson")
    assert all("term" not in known(x.e.message) for x in read_lines([path]).all() if x.receives)
    assert complete([path]).verdict == "explained"


def test_replay_hands_over_where_servers_that_can_join_have_no_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ordinary replay blames the servers of which there are lines."""
    lines = simulated(1, 100, config=SIMULATED.having(("membership",)), servers=5)
    lost = lines[0]["voters"][0]
    path = written([e for e in lines if e.get("server") != lost], tmp_path / "lost.ndjson")
    assert check([path]).verdict == "violates"
    code, text = run(capsys, "replay", path)
    assert code == 0
    assert text.startswith(f"note: there are no lines of {lost}; ")
    assert "\nexplained: a behaviour of the specification has these" in text

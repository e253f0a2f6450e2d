"""Holes in traces of servers that compact their logs, keep sessions, or change who belongs to them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.raftworthy.test_holes import PLANTED, Event, assert_explained, unnumbered

from raftspec.extensions import EXTENSIONS
from raftworthy.holes.alone import contradiction
from raftworthy.holes.lines import read_lines
from raftworthy.holes.missing import information_missing
from raftworthy.holes.refute import RULE_OF, Refuter
from raftworthy.holes.verdict import complete
from raftworthy.measure_holes import Setting, having, holes_in, simulated, with_holes, written
from raftworthy.replay.reading import TraceFile
from raftworthy.replay.verdict import check

pytest.importorskip("z3")
EACH = ("snapshots", "sessions", "membership")
SETTINGS = (
    Setting(200, 0.15, faults="all"), Setting(300, 0, "follower", "all"), Setting(300, 0, "leader"),
)  # fmt: skip


@pytest.fixture(params=EACH)
def extension(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", [2, 3])
def test_what_is_missing_is_supplied(extension: str, setting: Setting, seed: int, tmp_path: Path) -> None:
    lines = holes_in(setting, seed, having([extension]))
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")]), lines, path)


def without(lines: list[Event], event: str, *names: str) -> list[Event]:
    """The same lines; those of one kind of event don't tell everything."""
    return [
        {k: x for k, x in e.items() if k not in names} | dict.fromkeys({"entries"} & {*names})
        if e.get("event") == event
        else e
        for e in lines
    ]


def test_a_snapshot_may_be_of_anything_that_is_applied(tmp_path: Path) -> None:
    """Neither how far it goes is told, nor what was applied before."""
    lines = simulated(1, 150, config=having(["snapshots"]))
    told = without(lines, "take_snapshot", "state")
    for e in told[1:]:
        e.get("state", {}).pop("last_applied", None)
    assert len(told) - sum(e == x for e, x in zip(told, lines, strict=True)) > 3
    assert_explained(complete([path := written(told, tmp_path / "holes.ndjson")]), told, path)


@pytest.mark.parametrize("hidden", ["sends", "last_included_index"])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_snapshot_that_nobody_says_was_sent_was(hidden: str, seed: int, tmp_path: Path) -> None:
    """A leader doesn't tell of it, or nobody which one it was."""
    told = simulated(seed, 250, "all", config=having(["snapshots"]))
    found = 0
    for e in told[1:]:
        for m in (e.get("message", {}), *e.get("sends", ())):
            found += m.get("kind") == "install_snapshot" and m.pop(hidden, None) is not None
        if hidden in e and any(m.get("kind") == "install_snapshot" for m in e["sends"]):
            found += e.pop(hidden) is not None
    assert found
    assert_explained(complete([path := written(told, tmp_path / "holes.ndjson")]), told, path)


@pytest.mark.parametrize("event", ["change_voters", "enter_joint"])
@pytest.mark.parametrize("names", [("voters", "joint"), ("voters", "joint", "entries")])
def test_who_may_vote_is_guessed(event: str, names: tuple[str, ...], tmp_path: Path) -> None:
    lines = simulated(4, 120, servers=4, config=having(["membership"]))
    told = without(lines, event, *names)
    assert told != lines
    assert_explained(complete([path := written(told, tmp_path / "holes.ndjson")]), told, path)


def test_who_asked_for_an_entry_is_guessed_from_what_was_answered(tmp_path: Path) -> None:
    """A registration, and a request that is tried again later."""
    lines = simulated(3, 300, "all", config=having(["sessions"]))
    told = [
        {**e, "entries": [entry[:2] for entry in e["entries"]]}
        if any(len(entry) > 2 and "registered" in entry[2] for entry in e.get("entries") or ())
        else e
        for e in lines
    ]
    assert told != lines
    path = written(told, tmp_path / "holes.ndjson")
    assert check([path]).verdict == "violates"  # replay takes it for a command of no session
    assert complete([path]).verdict == "explained"


@pytest.mark.parametrize("rule", ["vote.once_per_term", "election.majority"])
def test_lines_that_cannot_both_be_true_are_named(extension: str, rule: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    lines = unnumbered(simulated(1, 120, config=having([extension])))
    planted = PLANTED[rule](lines, rng)
    kept = {k: lines[k] for k in planted}
    lines = [kept.get(k, e) for k, e in enumerate(with_holes(lines, rng, 0.2))]
    done = complete([written(lines, tmp_path / "bad.ndjson")])
    assert done.verdict == "violates"
    assert rule in {t.rule for t in done.ties}


@pytest.mark.parametrize("lost", ["n1", "n2"])
def test_a_snapshot_of_what_is_not_applied_is_refuted(lost: str, tmp_path: Path) -> None:
    """The server that took it has lines, another has none."""
    lines = simulated(1, 200, config=having(["snapshots"]))
    k = next(k for k, e in enumerate(lines) if e.get("event") == "take_snapshot" and e["server"] == "n3")
    lines[k]["state"]["snapshot_index"] += 1
    lines = [e for e in lines[: k + 1] if e.get("server") != lost]
    path = written(lines, tmp_path / "bad.ndjson")
    done = complete([path], 1_500)
    assert done.verdict == "violates", done
    assert [t.rule for t in done.ties] == ["snapshot.applied_only"]
    assert done.refuted[0].place == f"{path}:{len(lines)}"


@pytest.mark.parametrize("seed", [104, 105])
def test_a_table_of_sessions_is_made_again_from_a_snapshot(seed: int, tmp_path: Path) -> None:
    """A server that starts again has applied what its snapshot stands for: no line contradicts that."""
    lines = holes_in(Setting(250, 0, "any", "all"), seed, having(["snapshots", "sessions"]))
    path = written(lines, tmp_path / "holes.ndjson")
    assert contradiction(read_lines([path])) is None
    assert_explained(complete([path], 6_000), lines, path)


def test_where_membership_changes_no_majority_is_held_against_lines(tmp_path: Path) -> None:
    """Whose majority it was, lines may not tell. All other claims are the same, and are used."""
    path = written(simulated(2, 120, "all", config=having(["membership"])), tmp_path / "right.ndjson")
    used = Refuter(read_lines([path])).nodes.keys()
    assert RULE_OF.keys() - used == {"b1_leaders_have_a_quorum", "d2_commits_were_acknowledged"}


def test_a_server_that_joined_later_may_be_unknown_to_older_files(tmp_path: Path) -> None:
    """That the lines of another are lost is held against nobody."""
    header, *events = simulated(4, 250, servers=4, config=having(["membership"]))
    lost, *rest = header["servers"]
    paths = []
    for i in rest:
        known = header["servers"] if i not in header["voters"] else header["voters"]
        lines = [{**header, "servers": known}, *(e for e in events if e["server"] == i)]
        paths.append(written(lines, tmp_path / f"{i}.ndjson"))
    assert len({len(TraceFile.headed(path).servers) for path in paths}) == 2
    assert read_lines(paths).servers == tuple(header["voters"] + rest[-1:])
    assert information_missing(check(paths), paths) == f"there are no lines of {lost}"


@pytest.mark.parametrize("seed", [3, 9])
def test_servers_with_every_extension_are_completed(seed: int, tmp_path: Path) -> None:
    """A read is served of what no line says was applied, among others."""
    lines = holes_in(Setting(200, 0.1, faults="all"), seed, having(EXTENSIONS))
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")]), lines, path)


@pytest.mark.parametrize("kind", ["request_vote", "append_entries"])
def test_to_whom_a_message_was_sent_is_left_open(kind: str, tmp_path: Path) -> None:
    """It may be for one server of three, as the others don't vote, and another receives more."""
    told = simulated(10, 250, config=having(["membership"]))
    hidden = [m for e in told[1:] for m in e.get("sends", ()) if m["kind"] == kind and m.pop("target", None)]
    for m in hidden:
        m.pop("prev_log_index", None)
        m.pop("entries", None)
    assert hidden
    assert_explained(complete([path := written(told, tmp_path / "holes.ndjson")]), told, path)


def test_how_much_was_appended_is_told_by_where_later_entries_stand(tmp_path: Path) -> None:
    lines = holes_in(Setting(420, 0.3), 14, having(["membership"]))
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")], 20_000), lines, path)


LOST = {
    ("snapshots", 6): Setting(
        200, 0.1, "any", "all"
    ),  # what its acknowledgement is of, the leader's line says
    ("snapshots", 8): Setting(200, 0.1, "any", "all"),
    ("all", 5): Setting(200, 0.1, "any", "all"),  # a pre-vote of which little is told is no vote
    ("all", 19): Setting(200, 0.1, "any", "all"),  # a reply told the server of a newer term
    ("all", 3): Setting(400, 0, "any", "all"),  # a change of voters is committed before the next
    ("all", 10): Setting(200, 0.1, "any", "all"),  # a line says how much the log held before it
}


@pytest.mark.parametrize(("extensions", "seed"), LOST)
def test_what_a_lost_server_did_follows_from_what_others_say(
    extensions: str, seed: int, tmp_path: Path
) -> None:
    config = having(EXTENSIONS if extensions == "all" else [extensions])
    lines = holes_in(LOST[extensions, seed], seed, config)
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")], 6_000), lines, path)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_wrong_answer_is_refuted_where_lines_tell_what_entries_mean(seed: int, tmp_path: Path) -> None:
    """What other lines lack doesn't matter. Where a request's meaning isn't told, the answer may be right."""
    lines = simulated(seed, 200, "all", config=having(["sessions"]))
    hidden = with_holes(lines, random.Random(seed), 0.2)
    answered = next(e for e in lines[1:] if 0 not in e.get("answers", {"": 0}).values())
    own = answered["server"]
    holes = [
        e
        if e.get("server", own) == own or e["event"] == "client_request"
        else {**h, "entries": e.get("entries", [])}
        for e, h in zip(lines, hidden, strict=True)
    ]
    path = written(holes, tmp_path / "holes.ndjson")
    assert contradiction(read_lines([path])) is None
    n = max(answered["answers"], key=int)
    answered["answers"] = {**answered["answers"], n: 0}
    wrong = contradiction(read_lines([written(holes, path)]))
    assert wrong is not None
    assert f"answers[{n}]" in wrong.claim
    asked = next(e for e in holes if e.get("event") == "client_request" and len(e["entries"][0]) > 2)
    del asked["entries"][0][2]
    assert contradiction(read_lines([written(holes, path)])) is None


def test_no_other_entry_is_taken_for_a_request_that_lines_tell(tmp_path: Path) -> None:
    """An answer in vain needs a newer request before it: one that stands elsewhere is not guessed again."""
    lines = holes_in(Setting(200, 0.1, faults="all"), 4, having(["sessions"]))
    assert_explained(complete([path := written(lines, tmp_path / "holes.ndjson")], 6_000), lines, path)

"""The end of a trace as a picture: the wrong event is its last row, and words stay whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from raftworthy.cli import app
from raftworthy.files import Unusable
from raftworthy.replay.showing import Window
from raftworthy.replay.verdict import check

TRACES = Path(__file__).parent.parent.parent / "traces"
WRONG = sorted([*TRACES.glob("rules/*.ndjson"), *TRACES.glob("bad/*.ndjson")])
RIGHT = sorted(TRACES.glob("*.ndjson"))

COMMIT = """\
    s1  s2  s3  s4  s5
    ●   │   │   │   │   at first
    │   │   │   │   │     role leader, current_term 4, voted_for s1,
    │   │   │   │   │       log [1 2 4], match_index {s2: 2}
    │   ●   │   │   │   at first
    │   │   │   │   │     role follower, current_term 4, voted_for s1,
    │   │   │   │   │       log [1 2], commit_index 1, last_applied 1
    │   │   ●   │   │   at first
    │   │   │   │   │     role follower, current_term 4, voted_for s1, log [1],
    │   │   │   │   │       commit_index 1, last_applied 1
    │   │   │   ●   │   at first
    │   │   │   │   │     role follower, current_term 3, voted_for s5, log [1],
    │   │   │   │   │       commit_index 1, last_applied 1
    │   │   │   │   ●   at first
    │   │   │   │   │     role leader, current_term 3, voted_for s5, log [1 3],
    │   │   │   │   │       commit_index 1, last_applied 1
53  ●←──┼───○   │   │   ① append_entries_reply from s3
    │   │   │   │   │     term 4, success false, match_index 0
    │   │   │   │   │   ②→s3 append_entries
54  ○───┼──→●   │   │   ② append_entries from s1
    │   │   │   │   │     term 4, prev_log_index 1, prev_log_term 1,
    │   │   │   │   │       entries [2], leader_commit 0
    │   │   │   │   │     log [1 2]
    │   │   │   │   │   ③→s1 append_entries_reply
55  ✗←──┼───○   │   │   ✗ ③ append_entries_reply from s3
    │   │   │   │   │     term 4, success true, match_index 2
    │   │   │   │   │     commit_index 2, last_applied 2, match_index {s3: 2}
    │   │   │   │   │   ④→s3 append_entries
    │   │   │   │   │     term 4, prev_log_index 2, prev_log_term 2,
    │   │   │   │   │       entries [4], leader_commit 2
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return int(end.value.code or 0)


def test_the_wrong_event_is_the_last_row_with_what_it_says() -> None:
    """Figure 8: the commit that isn't allowed is seen, not only told."""
    window = Window.open([TRACES / "rules/commit.current_term.ndjson"], None, 3)
    assert window.text(80).plain == COMMIT


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_every_wrong_event_is_drawn_once_marked_and_last(path: Path) -> None:
    explanation = check([path]).explanation
    assert explanation is not None
    for width in (80, 200):
        window = Window.open([path], str(explanation.line), 4)
        numbered = re.findall(r"^ *(\d+)  .*", window.text(width).plain, re.M)
        marked = re.findall(r"^ *(\d+)  .*✗", window.text(width).plain, re.M)
        assert marked == [str(explanation.line)]
        assert numbered[-1:] == marked
        assert len(numbered) <= 4


@pytest.mark.parametrize("path", [*WRONG, *RIGHT], ids=lambda path: path.stem)
def test_no_word_is_broken_and_no_line_too_long(path: Path) -> None:
    """With three servers and five, at the widths that terminals have."""
    window = Window.open([path], last=25)
    words = set(re.findall(r"[\w:{}\[\]]+", window.text(1000).plain))
    for width in (80, 120, 160):
        text = window.text(width).plain
        assert set(re.findall(r"[\w:{}\[\]]+", text)) == words
        assert max(map(len, text.splitlines())) <= width


def test_a_right_event_is_not_marked_even_if_a_later_one_is_wrong() -> None:
    path = TRACES / "rules/commit.current_term.ndjson"
    window = Window.open([path], "54", 2)
    assert window.wrong is None
    assert "✗" not in window.text(80).plain
    assert [place.line for place, _ in window.events] == [53, 54]


@pytest.mark.parametrize("width", [80, 200])
def test_only_the_wrong_event_is_red_and_nothing_takes_over_a_style(width: int) -> None:
    """On a terminal with colours: details are dim, changes green, and the rest of a line is neither."""
    text = Window.open([TRACES / "rules/commit.current_term.ndjson"], None, 3).text(width)
    at = {word: text.plain.rindex(word) for word in ("✗ ③", "commit_index 2", "leader_commit 2")}
    styles = {word: {str(s.style) for s in text.spans if s.start <= n < s.end} for word, n in at.items()}
    assert text.style == ""
    assert styles == {"✗ ③": {"bold red"}, "commit_index 2": {"green"}, "leader_commit 2": {"dim"}}


def test_servers_without_an_event_make_room_where_there_is_little(tmp_path: Path) -> None:
    servers = [f"server-{n}" for n in range(9)]
    trace = tmp_path / "trace.ndjson"
    event = {"server": "server-3", "event": "timeout", "state": {"current_term": 1}}
    trace.write_text(json.dumps({"raftworthy": 1, "servers": servers}) + "\n" + json.dumps(event) + "\n")
    assert Window.open([trace]).text(80).plain.splitlines()[:2] == [
        "    server-3",
        "    no events here: server-0, server-1, server-2, server-4, server-5, server-6, server-7, server-8",
    ]
    assert Window.open([trace]).text(300).plain.splitlines()[0].split() == servers


@pytest.mark.parametrize("last", [0, -4])
def test_showing_nothing_is_refused(last: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", str(TRACES / "figure_8.ndjson"), "--last", str(last)) == 2
    assert capsys.readouterr().err == f"error: --last {last}: shows nothing; give 1 or more events\n"


@pytest.mark.parametrize("until", ["", "x", "-1", "none.ndjson:3", "²"])
def test_a_place_that_names_no_event_is_refused(until: str) -> None:
    with pytest.raises(Unusable, match="names no event; give LINE or FILE:LINE, for instance"):
        Window.open([TRACES / "figure_8.ndjson"], until)


@pytest.mark.parametrize("until", ["0", "1", "999"])
def test_a_line_without_an_event_is_refused(until: str) -> None:
    with pytest.raises(Unusable, match="no event stands there"):
        Window.open([TRACES / "figure_8.ndjson"], until)


def test_of_several_files_one_is_named_in_short() -> None:
    paths = sorted((TRACES / "kills").glob("*.ndjson"))
    window = Window.open(paths, f"{paths[0].stem}:5", 3)
    assert window.events[-1][0] == (str(paths[0]), 5)
    assert f"{paths[0].stem}:5  " in window.text(100).plain


def test_a_counterexample_that_was_saved_is_drawn_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What explore writes, show reads, and both end with the step that must not be."""
    saved = tmp_path / "vote.ndjson"
    bounds = ("--servers", "2", "--max-term", "1", "--crashes", "1")
    assert run("explore", "--without", "restart.keep_vote", *bounds, "--save", str(saved)) == 1
    capsys.readouterr()
    assert run("show", str(saved), "--json") == 1
    data = json.loads(capsys.readouterr().out)
    *steps, wrong = data["events"]
    assert not any(step["wrong"] for step in steps)
    assert wrong["wrong"]
    assert wrong["line"] == data["explanation"]["line"]
    assert data["explanation"]["rule"] == "restart.keep_vote"


def test_data_is_what_the_picture_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", str(TRACES / "rules/commit.current_term.ndjson"), "--last", "2", "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "violates"
    assert data["before"]["s3"]["log_length"] == 1
    before, wrong = data["events"]
    assert (before["line"], before["event"]["server"], before["changed"]) == (
        54, "s3", {"log_length": 2, "last_log_term": 2},
    )  # fmt: skip
    assert wrong["changed"] == {"commit_index": 2, "last_applied": 2, "match_index": {"s3": 2}}
    assert run("show", str(TRACES / "nothing.ndjson"), "--json") == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "unusable"

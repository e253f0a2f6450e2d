"""Whatever is typed, the answer is a verdict or one line that says what to do, never a traceback."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raftworthy.cli import HOMES, app

ROOT = Path(__file__).parent.parent.parent
TRACES = ROOT / "traces"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("spec", "impl", "checker")),
}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("replay {tmp}", "Is a directory"),
        ("replay {tmp}/none", "No such file"),
        ("show {tmp}", "Is a directory"),
        ("show {tmp}/none --last 3", "No such file"),
        ("explore --servers 30", "servers is 30; the most that can be explored is 7"),
        ("explore --max-log 1000000000", "the most that can be explored is 100"),
        ("explore --limit-states 0", "explores nothing"),
        ("explore --find 1", "not to True or False"),
        ("explore --save {tmp}/none/x.ndjson", "there is no folder"),
        ("explore --save {tmp}", "is a folder; name a file in it"),
        ("explore --save {tmp}/x.zst", "would not be packed"),
        ("lockstep --servers 50", "the most that can be explored is 7"),
        ("lockstep --break nothing", "no fault is called"),
        ("simulate --steps 0", "there must be one of each"),
        ("simulate --faults loss=nan", "is no rate for loss"),
        ("simulate --out {tmp}/none/x.ndjson", "there is no folder"),
        ("simulate --out {tmp}", "is a folder; name a file in it"),
        ("simulate --out {tmp}/x.gz", "would not be packed"),
        ("serve --server ../n1 --cluster ../n1=17001 --data {tmp}/d", "is no server's name"),
        ("put k v --cluster n1=1 --timeout 0.2", "it was not executed"),
        ("put k v --cluster n1=1 --timeout nan", "is no time to wait"),
        ("get k --cluster garbage", "is no address"),
        ("status --cluster n1=1 --timeout 0.2", "no server answered"),
        ("demo --keep {tmp}/file", "is no folder"),
        ("bench replay --events 0", "nothing is measured"),
        ("bench replay {tmp}/none", "No such file"),
        ("bench conformance --servers 0", "nothing is measured"),
        ("bench byzantine --times 0", "nothing is measured"),
        ("campaign --seeds 0", "nothing is checked"),
        ("campaign --break nothing", "no fault nothing"),
        ("campaign --results {tmp}", "is a folder; name a file in it"),
        ("simulate --byzantine append_entries.x", "no message has a field"),
        ("bench detection --file {tmp}", "Is a directory"),
        ("bench explore --limit-states 0", "nothing is measured"),
        ("bench explore --max-messages -1", "the least is 0"),
        ("nonsense", "Unknown command"),
        ("replay", "requires an argument"),
        ("explore --nope [red]", "Unknown option: --nope"),
    ],
)
def test_unusable_input_is_answered_in_words(
    arguments: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        app(arguments.format(tmp=tmp_path).split())
    told = capsys.readouterr()
    assert end.value.code == 2
    assert why in " ".join((told.out + told.err).split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"], "something was made before it was refused"


@pytest.mark.parametrize("arguments", ["explore --engine native", "bench explore"])
def test_what_is_not_installed_is_named(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The native engine is an extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        app(arguments.split())
    assert end.value.code == 2
    assert "pip install llvmlite numpy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("explore --help", 0),
        ("nonsense", 2),
        ("show traces/rules/vote.up_to_date.ndjson", 1),
        ("explore --servers 2 --max-term 1 --without commit.majority", 1),
    ],
)
def test_a_terminal_without_unicode_or_width_gets_what_it_can_show(arguments: str, code: int) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "raftworthy", *arguments.split()],
        cwd=ROOT, env=ENVIRONMENT | ascii_only, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert max(map(len, (done.stdout + done.stderr).splitlines())) > 40


def test_a_name_that_is_no_text_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    """File names are bytes; JSON is text."""
    path = os.fsencode(tmp_path) + b"/\xff.ndjson"
    Path(os.fsdecode(path)).touch()
    done = subprocess.run(
        [sys.executable, "-m", "raftworthy", "replay", "--json", path],
        env=ENVIRONMENT, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"the file is empty" in done.stdout


@pytest.mark.parametrize(
    "arguments", ["explore --max-messages 12 --engine python", "simulate --steps 900000"]
)
def test_stopped_by_ctrl_c_is_a_code_of_its_own(arguments: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "raftworthy", *arguments.split()],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that are run in the background of a shell ignore it, and so would the process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in error


def test_each_command_is_found_in_the_module_that_is_loaded_for_it() -> None:
    """`bench` has commands in several, so that for it all are loaded."""
    names = {name for name in app if not name.startswith("-")} - {"bench"}
    assert {name for commands in HOMES.values() for name in commands} == names
    for home, commands in HOMES.items():
        for name in commands:
            if made := app[name].default_command:
                assert made.__module__ == f"raftworthy.cli.{home}"

"""The demo, with the real thing: processes, disks, sockets, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raftworthy.linearize.reading import read_history

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("spec", "impl", "checker"))


def demo(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """A demo whose temporary files go to a folder that can be looked at."""
    env = {**os.environ, "PYTHONPATH": PATHS, "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-m", "raftworthy", "demo", *options],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests that are run in the background of a shell ignore it, and so would the demo.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def servers_in(folder: Path) -> list[str]:
    """The commands of processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "raftd.serve" in command and str(folder) in command:
            found.append(command)
    return found


def test_all_scenes_come_out_as_expected_and_leave_nothing_behind(tmp_path: Path) -> None:
    kept, temporary = tmp_path / "kept", tmp_path / "temporary"
    temporary.mkdir()
    start = time.monotonic()
    process = demo(temporary, "--json", "--keep", str(kept))
    out, error = process.communicate(timeout=120)
    seconds = time.monotonic() - start

    assert process.returncode == 0, out + error
    data: dict[str, Any] = json.loads(out)
    right, wrong, specification, without = data["scenes"]
    assert data["as_expected"]
    assert [scene["verdict"] for scene in data["scenes"]] == [
        "conforms", "violates", "holds within bounds", "violates",
    ]  # fmt: skip

    report = right["details"]["report"]
    assert report["committed"] >= 400
    assert report["restarts"] >= 4
    assert len(report["leaders"]) >= 2
    history = right["details"]["history"]
    assert history["verdict"] == "linearizable"
    assert history["operations"] >= 1000
    assert len(read_history([kept / "1" / "history.ndjson"]).operations) == history["operations"]
    clients = right["details"]["clients"]
    assert clients["verdict"] == "linearizable"
    assert clients["counts"]["entries"] + clients["counts"]["looks"] >= 1000
    assert clients["without_log"] is None
    promise = wrong["details"]["history"]["explanation"]
    assert [op["operation"] for op in promise["core"]] == ["put kept", "get -> nothing"]
    explanation = wrong["details"]["explanation"]
    assert (explanation["server"], explanation["rule"]) == ("n1", "commit.majority")
    assert specification["details"]["distinct"] > 1000
    assert without["details"]["property"] == "leader_completeness"

    assert list(temporary.iterdir()) == []
    assert len(list(kept.glob("1/traces/*.ndjson"))) == 4
    assert not servers_in(kept)
    assert seconds < 60, f"the demo took {seconds:.0f} s"


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """Servers would go on from the disks of another run."""
    (tmp_path / "file").touch()
    process = demo(tmp_path, "--keep", str(tmp_path))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{tmp_path} is not empty" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = demo(tmp_path)
    deadline = time.monotonic() + 20
    while len(servers_in(tmp_path)) < 3:
        assert time.monotonic() < deadline, "no servers came up"
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    while servers_in(tmp_path):
        assert time.monotonic() < deadline, "servers live on"
        time.sleep(0.05)

"""A trace line is written whole, once, and outlives its writer. docs/traces.md."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import raftd
from raftd.messages import AppendEntries, AppendEntriesReply, Entry, Message, RequestVote, RequestVoteReply
from raftd.trace import TraceFile, digest, traced_message

SERVERS = ("n1", "n2")


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"server": "n1", "event": name, "state": {}, **fields}


def test_each_start_of_a_server_has_its_own_file(tmp_path: Path) -> None:
    for start in (1, 2, 3):
        trace = TraceFile(tmp_path, "n1", SERVERS)
        trace.write(event("restart"))
        trace.write(event("timeout"))
        trace.close()
        assert trace.path.name == f"n1.{start}.ndjson"
        lines = [msgspec.json.decode(line) for line in trace.path.read_bytes().splitlines()]
        assert lines[0] == {"raftworthy": 1, "servers": ["n1", "n2"]}
        assert [(line["seq"], line.get("start")) for line in lines[1:]] == [(1, start), (2, None)]


def test_server_that_died_before_its_first_line_has_not_started(tmp_path: Path) -> None:
    """A file without events would be one start too many."""
    TraceFile(tmp_path, "n1", SERVERS).close()
    assert list(tmp_path.iterdir()) == []
    assert TraceFile(tmp_path, "n1", SERVERS).start == 1


def test_start_whose_file_was_deleted_still_counts(tmp_path: Path) -> None:
    """Otherwise the next start would take its number, and be taken for one that lost its disk."""
    noted: list[int] = []
    for start in (1, 2, 3):
        trace = TraceFile(tmp_path, "n1", SERVERS, max(noted, default=0), noted.append)
        assert noted == list(range(1, start)), "a start is noted once it has a line, not before"
        trace.write(event("restart"))
        trace.write(event("timeout"))
        trace.close()
        trace.path.unlink()
        assert noted[-1] == start
    (tmp_path / "n1.7.ndjson").touch()  # killed between its first line and the note
    assert TraceFile(tmp_path, "n1", SERVERS, 3).start == 8


def test_starts_of_other_servers_do_not_count(tmp_path: Path) -> None:
    for name in ("n2.7.ndjson", "xn1.5.ndjson", "n1.x.ndjson", "n1.4.ndjson.gz"):
        (tmp_path / name).touch()
    assert TraceFile(tmp_path, "n1", SERVERS).start == 1
    (tmp_path / "n1.10.ndjson").touch()
    (tmp_path / "n1.9.ndjson").touch()
    assert TraceFile(tmp_path, "n1", SERVERS).start == 11


def test_line_is_one_write_to_a_file_opened_for_appending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/traces.md, An event."""
    writes: list[bytes] = []
    flags: list[int] = []
    os_open, os_write = os.open, os.write

    def noted_open(path: Any, flag: int, mode: int = 0o777) -> int:
        flags.append(flag)
        return os_open(path, flag, mode)

    def noted_write(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return os_write(descriptor, data)

    monkeypatch.setattr("raftd.trace.os.open", noted_open)
    monkeypatch.setattr("raftd.trace.os.write", noted_write)
    trace = TraceFile(tmp_path, "n1", SERVERS)
    trace.write(event("restart"))
    trace.write(event("timeout"))
    trace.close()
    assert len(flags) == 1
    assert flags[0] & os.O_APPEND
    assert len(writes) == 2
    assert all(data.endswith(b"}\n") for data in writes)


def test_line_outlives_a_killed_process(tmp_path: Path) -> None:
    """docs/traces.md, Crashes: what was written is there, though nothing was closed."""
    program = (
        "import os, signal; from raftd.trace import TraceFile;"
        f"trace = TraceFile({str(tmp_path)!r}, 'n1', ('n1',));"
        "trace.write({'server': 'n1', 'event': 'restart'});"
        "trace.write({'server': 'n1', 'event': 'timeout'});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(raftd.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "n1.1.ndjson").read_bytes().splitlines()) == 3


def test_full_disk_stops_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line with another behind it would be unreadable."""
    trace = TraceFile(tmp_path, "n1", SERVERS)
    monkeypatch.setattr("raftd.trace.os.write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(OSError, match="is the disk full"):
        trace.write(event("restart"))
    monkeypatch.undo()
    trace.close()


def test_messages_look_as_documented() -> None:
    """docs/traces.md, Messages."""
    entry = Entry(2, b"a")
    messages: list[Message] = [
        RequestVote("n1", "n2", 3, 4, 2),
        RequestVoteReply("n2", "n1", 3, True),
        AppendEntries("n1", "n2", 3, 4, 2, (entry,), 1),
        AppendEntriesReply("n2", "n1", 3, False, 0, hint=7),
    ]
    head = {"source": "n1", "target": "n2", "term": 3}
    back = {"source": "n2", "target": "n1", "term": 3}
    assert [traced_message(m) for m in messages] == [
        {"kind": "request_vote", **head, "last_log_index": 4, "last_log_term": 2},
        {"kind": "request_vote_reply", **back, "granted": True},
        {
            "kind": "append_entries",
            **head,
            "prev_log_index": 4,
            "prev_log_term": 2,
            "entries": [[2, digest(b"a")]],
            "leader_commit": 1,
        },
        {"kind": "append_entries_reply", **back, "success": False, "match_index": 0},
    ]


def test_digest_is_short_and_stable() -> None:
    """Traces of different versions are compared."""
    assert digest(b"") == "e4a6a0577479b2b4"
    assert digest(b"a") == digest(b"a") != digest(b"b")
    assert len(digest(b"x" * 1_000_000)) == 16

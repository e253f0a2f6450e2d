"""History files: what is read from them, what is refused, what is recorded, and what the command says."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from raftworthy.cli import app
from raftworthy.files import Unusable
from raftworthy.linearize.checking import check
from raftworthy.linearize.history import Effect
from raftworthy.linearize.measure import _file_of, _stated_verdicts, compare
from raftworthy.linearize.reading import read_history
from raftworthy.linearize.recording import Recorder
from raftworthy.linearize.simulate import simulate

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted(ROOT.glob("traces/histories/*.ndjson"))


def written(path: Path, *lines: str | dict[str, Any]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


HEADER = {"raftworthy": 1}
PUT = {"client": "a", "seq": 1, "event": "invoke", "operation": "put", "key": "x", "value": "1"}
OK = {"client": "a", "seq": 1, "event": "return"}
GET = {"client": "b", "seq": 1, "event": "invoke", "operation": "get", "key": "x"}
GOT = {"client": "b", "seq": 1, "event": "return", "value": "1"}


# --- the native format ---------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_judged_as_they_are_meant(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app(["linearize", str(path.relative_to(ROOT))])
    said = re.sub(r" in [0-9.]+ s$", " in TIME", capsys.readouterr().out, flags=re.MULTILINE)
    assert said == Path(f"{path}.expect").read_text()
    assert end.value.code == (1 if "error:" in said else 0)


def test_every_example_has_an_expectation() -> None:
    assert len(EXAMPLES) >= 6
    expectations = {str(path) for path in ROOT.glob("traces/histories/*.expect")}
    assert {f"{path}.expect" for path in EXAMPLES} == expectations


@pytest.mark.parametrize(
    ("lines", "place", "why"),
    [
        ([], "", "the file is empty"),
        (["hello"], ":1", "no format that is known"),
        ([{"servers": ["n1"]}], ":1", 'should read {"raftworthy":1}'),
        ([{"raftworthy": 9}], ":1", "version 9 is not known"),
        ([HEADER, PUT, "{", OK], ":3", "not JSON"),
        ([HEADER, PUT, "", OK], ":3", "a blank line"),
        ([HEADER, {"event": "invoke"}], ":2", "neither client nor server"),
        ([HEADER, PUT, PUT], ":3", "a has invoked seq 1 before"),
        ([HEADER, PUT, OK, PUT], ":4", "a has invoked seq 1 before"),
        ([HEADER, OK], ":2", "seq 1 of a was not invoked before"),
        ([HEADER, PUT, OK, OK], ":4", "seq 1 of a has returned before"),
        ([HEADER, {**PUT, "event": "called"}], ":2", 'is "invoke" or "return", not "called"'),
        ([HEADER, {**PUT, "operation": "push"}], ":2", "not an event"),
        ([HEADER, {**PUT, "value": 1.5}], ":2", "not an event"),
        ([HEADER, {"client": "a", "event": "invoke", "operation": "put", "key": "x"}], ":2", "needs a value"),
        ([HEADER, {**PUT, "operation": "cas"}], ":2", "needs expected"),
        ([HEADER, {**PUT, "operation": "append", "value": 3}], ":2", "text is appended, not 3"),
        ([HEADER, {"client": "a", "event": "invoke"}], ":2", "needs operation and key"),
        ([HEADER, GET, {**OK, "client": "b"}], ":3", "needs the value found"),
        ([HEADER, {**PUT, "operation": "cas", "expected": None}, OK], ":3", "needs swapped"),
        ([HEADER, {**PUT, "time": 1.0}, OK], ":3", "no time, and other events have one"),
        ([HEADER, {**PUT, "time": 2.0}, {**OK, "time": 1.0}], ":3", "was not invoked before"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(
    tmp_path: Path, lines: Sequence[Any], place: str, why: str
) -> None:
    path = written(tmp_path / "h.ndjson", *lines)
    with pytest.raises(Unusable) as refused:
        read_history([path])
    assert str(refused.value).startswith(f"{path}{place}: ")
    assert why in str(refused.value)


def test_a_last_line_that_is_cut_off_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    """A client was killed while it wrote: a request not yet sent, or an answer that nobody knows."""
    path = written(tmp_path / "h.ndjson", HEADER, PUT, OK)
    path.write_bytes(path.read_bytes()[:-9])
    assert [op.returned for op in read_history([path]).operations] == [None]


def test_an_operation_is_what_was_asked_and_what_was_told(tmp_path: Path) -> None:
    def pair(seq: int, asked: dict[str, Any], told: dict[str, Any]) -> list[dict[str, Any]]:
        who = {"client": "a", "seq": seq}
        return [{**who, "event": "invoke", "key": "x", **asked}, {**who, "event": "return", **told}]

    cas = {"operation": "cas", "expected": 1, "value": "2"}
    told = [
        pair(1, {"operation": "get"}, {"value": None}),
        pair(2, {"operation": "put", "value": 7}, {}),
        pair(3, cas, {"swapped": True}),
        pair(4, cas, {"swapped": False}),
        pair(5, {"operation": "append", "value": "z"}, {}),
        pair(6, {"operation": "delete"}, {"value": "2z"}),
        pair(7, {"operation": "delete"}, {}),
        pair(8, cas, {"outcome": "unknown"}),
        pair(9, {"operation": "put", "value": "no"}, {"outcome": "not_executed"}),
        pair(10, {"operation": "get"}, {"outcome": "unknown"}),
    ]
    path = written(tmp_path / "h.ndjson", HEADER, *(event for both in told for event in both))
    history = read_history([path])
    assert [op.effect for op in history.operations] == [
        Effect("read", None), Effect("write", None, 7), Effect("swap", 1, "2"), Effect("differs", 1),
        Effect("append", None, "z"), Effect("swap", "2z", None), Effect("write", None, None),
        Effect("swap", 1, "2"),
    ]  # fmt: skip
    assert [op.lines for op in history.operations][:2] == ["lines 2-3", "lines 4-5"]
    assert [op.returned is None for op in history.operations] == [False] * 7 + [True]
    assert history.left_out == 2


def test_clients_events_are_read_from_among_those_of_servers(tmp_path: Path) -> None:
    """They can stand in a trace."""
    server = {"server": "n1", "seq": 1, "event": "restart", "start": 1, "state": {"current_term": 0}}
    path = written(tmp_path / "h.ndjson", {"raftworthy": 1, "servers": ["n1"]}, server, PUT, server, OK)
    history = read_history([path])
    assert (len(history.operations), history.skipped) == (1, 2)


def test_a_trace_of_servers_alone_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="no operation of a client"):
        read_history([ROOT / "traces" / "figure_8.ndjson"])


def test_files_of_several_clients_are_put_in_order_by_time(tmp_path: Path) -> None:
    """Without the times of both, the get would be stale or not, as one likes."""
    a = written(tmp_path / "a.ndjson", HEADER, {**PUT, "time": 1.0}, {**OK, "time": 2.0})
    late = written(tmp_path / "b.ndjson", HEADER, {**GET, "time": 3}, {**GOT, "value": None, "time": 4})
    result = check(read_history([a, late]))
    assert result.explanation is not None
    assert {op.file for op in result.explanation.core} == {str(a), str(late)}

    same = written(tmp_path / "b.ndjson", HEADER, {**GET, "time": 2.0}, {**GOT, "value": None, "time": 4})
    assert check(read_history([a, same])).verdict == "linearizable", "what touches is concurrent"

    with pytest.raises(Unusable, match="only by times of one clock"):
        read_history([written(tmp_path / "a.ndjson", HEADER, PUT, OK), written(late, HEADER, GET, GOT)])


def test_a_packed_history_is_read(tmp_path: Path) -> None:
    path = tmp_path / "h.ndjson.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(e).encode() + b"\n" for e in (HEADER, PUT, OK))))
    assert len(read_history([path]).operations) == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Unusable, match="can't be read"):
        read_history([path])


def test_what_a_key_holds_at_first_is_in_the_header(tmp_path: Path) -> None:
    path = written(tmp_path / "h.ndjson", {**HEADER, "initial": "1"}, GET, GOT)
    assert check(read_history([path])).verdict == "linearizable"
    assert check(read_history([written(path, HEADER, GET, GOT)])).verdict == "not linearizable"


# --- other formats -------------------------------------------------------------


def kv(process: int, kind: str, f: str, value: str) -> str:
    return f'{{:process {process}, :type :{kind}, :f :{f}, :key "k", :value {value}}}'


def test_a_log_of_a_key_value_store_is_read(tmp_path: Path) -> None:
    good = [
        kv(0, "invoke", "append", '"x 0 0 y"'), kv(1, "invoke", "get", "nil"), kv(1, "ok", "get", '""'),
        kv(0, "ok", "append", '"x 0 0 y"'), kv(1, "invoke", "put", '"p"'),
    ]  # fmt: skip
    path = written(tmp_path / "kv.txt", *good)
    history = read_history([path])
    assert [op.effect for op in history.operations] == [
        Effect("append", None, "x 0 0 y"), Effect("read", ""), Effect("write", None, "p"),
    ]  # fmt: skip
    assert check(history).verdict == "linearizable"
    stale = [*good, kv(2, "invoke", "get", "nil"), kv(2, "ok", "get", '""')]
    x = check(read_history([written(path, *stale)])).explanation
    assert x is not None
    assert (x.culprit.first, x.culprit.last, x.core[0].first) == (6, 7, 1)
    with pytest.raises(Unusable, match=":2: process 0 has another operation under way"):
        read_history([written(path, good[0], good[0])])
    with pytest.raises(Unusable, match=":1: process 1 has no get under way"):
        read_history([written(path, good[2])])
    with pytest.raises(Unusable, match=":1: not an event"):
        read_history([written(path, "{:process 1}")])


def etcd(process: int, kind: str, f: str, value: str) -> str:
    return f"INFO  jepsen.util - {process}\t:{kind}\t:{f}\t{value}"


def test_a_log_of_jepsen_with_etcd_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "etcd.log",
        etcd(0, "invoke", "write", "3"), etcd(1, "invoke", "cas", "[3 4]"), "INFO  jepsen.core - hi",
        etcd(0, "ok", "write", "3"), etcd(1, "fail", "cas", "[3 4]"), etcd(2, "invoke", "cas", "[0 1]"),
        etcd(2, "info", "cas", ":timed-out"), etcd(3, "invoke", "read", "nil"),
        etcd(3, "fail", "read", ":timed-out"),
        etcd(4, "invoke", "read", "nil"), etcd(4, "ok", "read", "nil"),
    )  # fmt: skip
    history = read_history([path])
    assert [op.effect for op in history.operations] == [
        Effect("write", None, 3), Effect("differs", 3), Effect("swap", 0, 1), Effect("read", None),
    ]  # fmt: skip
    assert (history.left_out, history.skipped, history.operations[2].returned) == (1, 1, None)
    x = check(history).explanation
    assert x is not None
    assert x.reason.startswith("get of 4 (lines 10-11) returned nothing, but put 3 of 0 (lines 1-4)")
    with pytest.raises(Unusable, match=r":1: a cas is of two numbers, \[old new\], not 3"):
        read_history([written(path, etcd(0, "invoke", "cas", "3"))])
    with pytest.raises(Unusable, match=":1: :push is no read, write or cas"):
        read_history([written(path, etcd(0, "invoke", "push", "3"))])
    with pytest.raises(Unusable, match="no operation of a client"):
        read_history([written(path, "INFO  jepsen.core - nothing")])


# --- recording -----------------------------------------------------------------


class Unreachable(Exception):  # noqa: N818
    may_have_executed = False


class FakeStore:
    """A store that answers late, loses answers, and forgets some writes if it is told to."""

    def __init__(self, random: Random, forgets: str = "nothing") -> None:
        self.random = random
        self.values: dict[str, bytes] = {}
        self.forgets = forgets.encode()

    async def _wait(self) -> None:
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    async def put(self, key: str, value: bytes) -> None:
        if self.random.random() < 0.1:
            raise Unreachable
        await self._wait()
        if not value.startswith(self.forgets):
            self.values[key] = value
        await self._wait()
        if self.random.random() < 0.1:
            raise TimeoutError

    async def get(self, key: str) -> bytes | None:
        await self._wait()
        found = self.values.get(key)
        await self._wait()
        return found


@pytest.mark.parametrize(
    ("forgets", "verdict"), [("nothing", "linearizable"), ("c1's 4", "not linearizable")]
)
def test_what_clients_saw_is_recorded(tmp_path: Path, forgets: str, verdict: str) -> None:
    recorder = Recorder(tmp_path / "h.ndjson")
    store = FakeStore(Random(2), forgets)

    async def work(client: Any) -> None:
        for i in range(50):
            try:
                await client.put(f"k{i % 2}", f"{client.name}'s {i}".encode())
                await client.get(f"k{i % 2}")
            except (Unreachable, TimeoutError):
                pass

    async def run() -> None:
        await asyncio.gather(*(work(recorder.client(store)) for _ in range(4)))
        await recorder.client(store).get("k1")

    asyncio.run(run())
    recorder.close()
    history = read_history([recorder.path])
    assert 0 < sum(op.returned is None for op in history.operations) < 40
    assert history.left_out > 0
    assert check(history).verdict == verdict


# --- the commands --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("linearize {tmp}", "Is a directory"),
        ("linearize {tmp}/none", "No such file"),
        ("linearize {tmp}/file", "the file is empty"),
        ("linearize {tmp}/h --seconds 0", "is no time to search in"),
        ("linearize {tmp}/h --format nonsense", "Invalid value"),
        ("linearize {tmp}/h --format jepsen-etcd", "no operation of a client"),
        ("bench linearize --operations 0", "nothing is measured"),
        ("bench linearize --histories {tmp}/none", "is no folder"),
        ("bench linearize --histories {tmp}", "no histories in"),
        ("bench linearize --porcupine {tmp}", "test_data is no folder"),
    ],
)
def test_unusable_input_is_answered_in_words(
    arguments: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    written(tmp_path / "h", HEADER, PUT, OK)
    with pytest.raises(SystemExit) as end:
        app(arguments.format(tmp=tmp_path).split())
    told = capsys.readouterr()
    assert end.value.code == 2
    assert why in " ".join((told.out + told.err).split())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("linearize {tmp}/good.ndjson --json", 0),
        ("linearize {tmp}/bad.ndjson --json", 1),
        ("linearize {tmp}/none --json", 2),
        ("bench linearize --operations 200 --json", 0),
        ("bench linearize --histories {tmp} --json", 0),
    ],
)
def test_data_for_machines_is_json(
    arguments: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "good.ndjson", HEADER, PUT, OK, GET, GOT)
    written(tmp_path / "bad.ndjson", HEADER, PUT, OK, GET, {**GOT, "value": "2"})
    with pytest.raises(SystemExit) as end:
        app(arguments.format(tmp=tmp_path).split())
    data = json.loads(capsys.readouterr().out)
    assert end.value.code == code
    if "bad" in arguments:
        assert data["explanation"]["core"] == [
            {"client": "b", "operation": 'get -> "2"', "file": f"{tmp_path}/bad.ndjson", "lines": [4, 5]}
        ]
    if "--histories" in arguments:
        assert {row["name"]: row["linearizable"] for row in data["rows"]} == {
            "good.ndjson": True, "bad.ndjson": False,
        }  # fmt: skip


def test_one_seed_gives_one_history() -> None:
    assert list(simulate(Random(3), 50)) == list(simulate(Random(3), 50))
    assert list(simulate(Random(3), 50)) != list(simulate(Random(4), 50))


def test_porcupines_verdicts_and_figures_are_matched_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict that differs is told."""
    source = """
        checkJepsen(t, 7, true)
        checkKv(t, "c01-ok", true, true)
        checkKv(t, "c01-ok", true, false)
        checkKv(t, "c10-bad", false, true)
    """
    verdicts = _stated_verdicts(source)
    assert verdicts == {"jepsen/etcd_007.log": True, "kv/c01-ok.txt": True, "kv/c10-bad.txt": False}
    names = ["EtcdJepsen007", "Kv1ClientOk", "Kv10ClientsBad"]
    assert [_file_of(name) for name in names] == list(verdicts)

    (tmp_path / "kv").mkdir()
    written(tmp_path / "kv" / "c10-bad.txt", kv(0, "invoke", "get", "nil"), kv(0, "ok", "get", '""'))
    monkeypatch.setattr(
        "raftworthy.linearize.measure._porcupine", lambda checkout, progress: {"kv/c10-bad.txt": (1.0, False)}
    )
    found = compare(tmp_path, tmp_path, "a machine", lambda done, total: None)
    assert found.differ == ["kv/c10-bad.txt"]
    assert "same verdict in 0 of 1 histories; not in kv/c10-bad.txt" in str(found)


def test_a_recorded_put_says_which_entry_is_its(tmp_path: Path) -> None:
    """By the digest that traces have, or by the request's number in its client's session."""
    recorder = Recorder(tmp_path / "h.ndjson", lambda key, value: f"{key}:{len(value)}")

    async def run() -> None:
        store = FakeStore(Random(1))
        for client in (recorder.client(store), recorder.client(store, session=7)):
            for key in ("a", "b"):
                with suppress(Unreachable, TimeoutError):
                    await client.put(key, b"value")
                with suppress(Unreachable, TimeoutError):
                    await client.get(key)

    asyncio.run(run())
    recorder.close()
    lines = [json.loads(line) for line in recorder.path.read_text().splitlines()]
    puts = [line for line in lines if line.get("operation") == "put"]
    assert [line.get("digest") for line in puts] == ["a:5", "b:5", None, None]
    assert [(line.get("session"), line.get("sequence")) for line in puts[2:]] == [(7, 1), (7, 2)]
    assert not any("digest" in line or "session" in line for line in lines if line.get("operation") == "get")

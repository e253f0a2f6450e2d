"""Clients' operations against the committed log: no false alarm, nothing overlooked, each fault found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.core import Batch, Role
from raftd.kv import Get, Put, encode_command
from raftd.messages import Entry as LogEntry
from raftd.simulated_clients import Clients, Driver, Request
from raftd.simulated_faults import ALL_FAULTS
from raftd.simulated_servers import Server
from raftd.simulator import Simulation, server_names
from raftspec.raft import Entry as RaftEntry
from raftworthy.cli import app
from raftworthy.files import Place
from raftworthy.linearize.checking import check
from raftworthy.linearize.reading import LINE, Line, assemble, read_history
from raftworthy.measure import minimal
from raftworthy.replay.order import Replay
from raftworthy.replay.verdict import check as check_traces
from raftworthy.witness.checking import Refuted, Witness
from raftworthy.witness.links import Links, NoWitness
from raftworthy.witness.reading import client_events
from raftworthy.witness.verdict import links


class Entry(NamedTuple):
    term: int
    value: str


def events(lines: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int, Line]]:
    for number, line in enumerate(lines, 2):
        yield "history", number, LINE.decode(msgspec.json.encode(line))


def refuted(lines: Sequence[dict[str, Any]], log: Sequence[str]) -> str | None:
    """What the witness finds wrong."""
    witness = Witness(Links([Entry(1, digest) for digest in log]))
    try:
        witness.take(events(lines))
    except Refuted as wrong:
        return wrong.kind
    witness.finish()
    return None


def put(client: str, value: str, **more: Any) -> dict[str, Any]:
    digest = f"d{value}"
    return {"client": client, "seq": 1, "event": "invoke", "operation": "put", "key": "x", "value": value,
            "digest": digest, **more}  # fmt: skip


def get(client: str) -> dict[str, Any]:
    return {"client": client, "seq": 1, "event": "invoke", "operation": "get", "key": "x"}


def told(client: str, **answer: Any) -> dict[str, Any]:
    return {"client": client, "seq": 1, "event": "return", **answer}


# --- against plain search ------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to five operations on two keys, in any order of their invokes and returns, with any answers."""
    count = draw(st.integers(1, 5))
    ends = draw(st.permutations([n for n in range(count) for _ in range(2)]))
    asked: dict[int, str] = {}
    lines: list[dict[str, Any]] = []
    values = st.sampled_from([None, "v0", "v1", "v2"])
    for n in ends:
        who = {"client": f"c{n}", "seq": 1}
        if n not in asked:
            kind = draw(st.sampled_from(["get", "put"] * 3 + ["append", "cas", "delete"]))
            invoke: dict[str, Any] = {
                "operation": kind,
                "key": draw(st.sampled_from("xxxy")),
                "digest": f"d{n}",
            }
            if kind in ("put", "cas"):
                invoke["value"] = f"v{n % 3}"
            if kind == "append":
                invoke["value"] = f"v{n % 3}"
            if kind == "cas":
                invoke["expected"] = draw(values)
            asked[n] = kind
            lines.append({**who, "event": "invoke", **invoke})
            continue
        told: dict[str, Any] = {}
        if asked[n] in ("get", "delete"):
            told["value"] = draw(values)
        if asked[n] == "cas":
            told["swapped"] = draw(st.booleans())
        outcome = draw(st.sampled_from(["done"] * 5 + ["unknown", "not_executed", None]))
        if outcome is not None:
            lines.append({**who, "event": "return", **told, "outcome": outcome})
    return lines


def linearizable(lines: Sequence[dict[str, Any]]) -> bool:
    """What the search says that knows of no log."""
    history = assemble([(Place(file, number), line) for file, number, line in events(lines)], None)
    return check(history).verdict == "linearizable"


class Asked(NamedTuple):
    """An operation of a history."""

    invoke: dict[str, Any]
    told: dict[str, Any]
    invoked: int
    returned: float

    @property
    def outcome(self) -> str:
        return str(self.told.get("outcome", "unknown"))

    @property
    def digest(self) -> str:
        return str(self.invoke["digest"])


def asked(lines: Sequence[dict[str, Any]]) -> list[Asked]:
    ends = {line["client"]: (n, line) for n, line in enumerate(lines) if line["event"] == "return"}
    return [
        Asked(line, *((told, n, end) if told.get("outcome") != "unknown" else ({}, n, float("inf"))))
        for n, line in enumerate(lines)
        if line["event"] == "invoke"
        for end, told in [ends.get(line["client"], (float("inf"), {}))]
    ]


def changes(lines: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The operations that may have entries, and those that must."""
    may: list[str] = []
    must: list[str] = []
    for op in asked(lines):
        refused = op.told.get("swapped") is False
        if op.invoke["operation"] == "get" or op.outcome == "not_executed":
            continue
        (may if refused or op.outcome == "unknown" else must).append(op.digest)
    return may, must


def possible_logs(lines: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Every order of entries that the operations may have."""
    may, must = changes(lines)
    for count in range(len(may) + 1):
        for chosen in combinations(may, count):
            yield from permutations([*must, *chosen])


def executed(op: Asked, store: dict[str, Any]) -> bool:
    """Let an operation take effect in a map; whether that is what it was told."""
    key, found = op.invoke["key"], store.get(op.invoke["key"])
    match op.invoke["operation"]:
        case "put":
            store[key] = op.invoke["value"]
        case "append":
            store[key] = (found or "") + op.invoke["value"]
        case "delete":
            store[key] = None
        case "cas" if found == op.invoke["expected"]:
            store[key] = op.invoke["value"]
    known = op.outcome == "done"
    if known and "swapped" in op.told:
        return bool(op.told["swapped"] is (found == op.invoke["expected"]))
    return not known or "value" not in op.told or bool(op.told["value"] == found)


def explained(lines: Sequence[dict[str, Any]], log: Sequence[str]) -> bool:
    """Whether any order at all has the log's operations in the log's order, and gives what was told."""
    first = list(dict.fromkeys(log))
    ops = asked(lines)
    for op in ops:
        changes = op.invoke["operation"] != "get" and op.told.get("swapped") is not False
        if (op.outcome == "not_executed" and op.digest in first) or (
            op.outcome == "done" and changes and op.digest not in first
        ):
            return False
    placed = [op for op in ops if op.outcome == "done" or op.digest in first]
    for order in permutations(placed):
        store: dict[str, Any] = {}
        if (
            [op.digest for op in order if op.digest in first] == first
            and all(a.invoked < b.returned for n, b in enumerate(order) for a in order[:n])
            and all(executed(op, store) for op in order)
        ):
            return True
    return False


@given(histories())
@settings(deadline=None, max_examples=250)
def test_some_log_explains_a_history_exactly_if_it_is_linearizable(lines: list[dict[str, Any]]) -> None:
    """The search needs no log; the witness needs no search."""
    assert linearizable(lines) is any(refuted(lines, log) is None for log in possible_logs(lines))


@given(histories(), st.data())
@settings(deadline=None, max_examples=400)
def test_a_log_is_held_against_a_history_as_if_all_orders_were_tried(
    lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Herlihy and Wing (1990), with the order of what is in the log given. Entries may come twice."""
    may, must = changes(lines)
    chosen: list[str] = data.draw(st.lists(st.sampled_from(may), unique=True)) if may else []
    log: list[str] = list(data.draw(st.permutations([*must, *chosen])))
    overwritten: bool = data.draw(st.booleans())
    if log and overwritten:  # an entry is missing, and another there twice
        log[data.draw(st.integers(0, len(log) - 1))] = data.draw(st.sampled_from(log))
    assert (refuted(lines, log) is None) is explained(lines, log)


# --- each fault by its name --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "log", "wrong"),
    [
        ([put("a", "1"), told("a")], ["d1"], None),
        ([put("a", "1"), told("a")], [], "lost"),
        ([put("a", "1")], [], None),
        ([put("a", "1"), told("a", outcome="unknown"), get("b"), told("b", value="1")], ["d1"], None),
        ([put("a", "1"), told("a", outcome="not_executed")], ["d1"], "executed"),
        ([put("a", "1"), told("a", index=2)], ["d1"], "index"),
        ([put("a", "1"), told("a"), put("b", "2"), told("b")], ["d2", "d1"], "order"),
        ([put("a", "1"), put("b", "2"), told("a"), told("b")], ["d2", "d1"], None),
        ([put("a", "1"), told("a"), get("b"), told("b", value=None)], ["d1"], "look"),
        ([put("a", "1"), told("a"), get("b"), told("b", value="1", index=1)], ["d1", "other"], None),
        ([put("a", "1"), told("a"), get("b"), told("b", value="1", index=0)], ["d1"], "index"),
        ([put("a", "1"), told("a"), get("b"), told("b", value="2", index=1)], ["d1"], "look"),
        ([put("a", "1"), get("b"), told("b", value="1"), get("c"), told("c", value=None)], ["d1"], "look"),
        # Executed twice, the first write would be there again.
        ([put("a", "1"), told("a"), put("b", "2"), told("b"), get("c"), told("c", value="1")],
         ["d1", "d2", "d1"], "look"),
        # A look saw the second write, so a write that is invoked later can't come before it.
        ([put("b", "2"), get("c"), told("c", value="2"), put("a", "1")], ["d1", "d2"], "order"),
    ],
)  # fmt: skip
def test_each_fault_is_found_for_what_it_is(
    lines: list[dict[str, Any]], log: list[str], wrong: str | None
) -> None:
    assert refuted(lines, log) == wrong


class AnswersTooSoon(Clients):
    """A leader says yes when it has appended."""

    def _propose(self, server: Server, driver: Driver) -> None:
        requests = list(driver.arrived)
        super()._propose(server, driver)
        if server.core is not None and server.core.role is Role.LEADER:
            for request in requests:
                if isinstance(request.command, Put):
                    self._told(request, None)


class ReadsAnywhere(Clients):
    """Any server answers a get from what it has applied."""

    def _send(self, request: Request) -> None:
        if isinstance(request.command, Get) and not request.over:
            self._carry(self._read, self.rng.choice(list(self.world.servers)), request)
        else:
            super()._send(request)

    def _read(self, server: str, request: Request) -> None:
        if server in self.drivers:
            found = self.drivers[server].machine.apply(encode_command(request.command))
            self._carry(self._told, request, found)


class SendsTwice(Clients):
    """Requests are sent once more, and nobody notices that they have been executed."""

    def _send(self, request: Request) -> None:
        super()._send(request)
        if self.rng.random() < 0.3:
            later = self.world.now + self.rng.uniform(0, 0.3)
            self.world.at(later, super()._carry, self._arrive, self._leader or "n1", request)


class AnswersOthers(Clients):
    """A get is told another value than the state machine has."""

    def _told(self, request: Request, value: bytes | None) -> None:
        super()._told(request, b"nobody's" if self.rng.random() < 0.01 else value)


class ForgetsCommands(Clients):
    """The state machine leaves out what it should do."""

    def applied(self, server: Server, batch: Batch) -> None:
        look = encode_command(Get("k0"))
        left = tuple((n, entry if n % 40 else LogEntry(entry.term, look)) for n, entry in batch.apply)
        super().applied(server, batch._replace(apply=left))


def simulated(path: Path, seed: int, kind: type[Clients] = Clients, steps: int = 4000) -> Path:
    with path.open("wb") as out:
        world = Simulation(seed, server_names(3), ALL_FAULTS, out, clients=6)
        world.clients = kind(world, 6, seed)
        world.run(steps)
    return path


@pytest.mark.parametrize("seed", range(1, 6))
def test_clients_of_right_servers_conform(seed: int, tmp_path: Path) -> None:
    """Under every fault that Raft tolerates, from the file alone."""
    path = simulated(tmp_path / "trace.ndjson", seed)
    verdict = check_traces([path])
    assert verdict.verdict == "conforms", f"seed {seed}: {verdict}"
    assert verdict.clients is not None
    assert verdict.clients.counts is not None
    assert verdict.clients.counts.entries > 50
    assert verdict.clients.counts.looks > 50
    assert check(read_history([path])).verdict == "linearizable"


@pytest.mark.parametrize("kind", [AnswersTooSoon, ReadsAnywhere, SendsTwice, AnswersOthers, ForgetsCommands])
def test_servers_that_serve_clients_wrong_are_found(kind: type[Clients], tmp_path: Path) -> None:
    """What the servers do among themselves conforms."""
    found: list[str] = []
    for seed in range(1, 9):
        path = simulated(tmp_path / f"{seed}.ndjson", seed, kind)
        verdict = check_traces([path])
        assert verdict.report is not None, f"seed {seed}: {verdict.explanation or verdict.error}"
        assert verdict.clients is not None
        if verdict.clients.refutation is not None:
            found.append(verdict.clients.refutation.kind)
        if len(found) == 2:
            return
    raise AssertionError(f"of 8 seeds {len(found)} show it")


# --- files -------------------------------------------------------------------------------------


def apart(path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A trace without its clients' events, and these."""
    header, *lines = path.read_bytes().splitlines(keepends=True)
    servers = path.with_name("servers.ndjson")
    servers.write_bytes(b"".join([header, *(line for line in lines if b'"server"' in line)]))
    return servers, [msgspec.json.decode(line) for line in lines if b'"server"' not in line]


def written(path: Path, lines: Sequence[dict[str, Any]], **header: Any) -> Path:
    texts = [msgspec.json.encode(line) for line in ({"raftworthy": 1, **header}, *lines)]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


def counts(paths: Sequence[Path]) -> Any:
    verdict = check_traces(paths)
    assert verdict.verdict == "conforms", verdict
    assert verdict.clients is not None
    return verdict.clients.counts


def test_clients_in_files_of_their_own_are_checked_alike(tmp_path: Path) -> None:
    whole = simulated(tmp_path / "whole.ndjson", 3)
    servers, lines = apart(whole)
    timed = [{**line, "time": n / 10} for n, line in enumerate(lines)]
    odd = [line for line in timed if line["client"] in ("c1", "c3", "c5")]
    even = [line for line in timed if line not in odd]
    expected = counts([whole])
    assert expected.operations > 100
    assert counts([servers, written(tmp_path / "history.ndjson", lines)]) == expected
    both = [written(tmp_path / "odd.ndjson", odd), written(tmp_path / "even.ndjson", even)]
    assert counts([*both, servers]) == expected
    header, *rest = servers.read_bytes().splitlines(keepends=True)
    each = [tmp_path / f"{name}.ndjson" for name in server_names(3)]
    for path in each:
        own = f'"server":"{path.stem}"'.encode()
        path.write_bytes(b"".join([header, *(line for line in rest if own in line)]))
    assert counts([both[0], *each, both[1]]) == expected


def test_an_invoke_at_the_time_of_a_return_comes_before_it(tmp_path: Path) -> None:
    """As `linearize` has it: an interval that is too long accuses nobody."""
    lines = [{**line, "time": 1.0} for line in (put("a", "1"), told("a"), get("b"), told("b", value=None))]
    path = written(tmp_path / "history.ndjson", lines)
    witness = Witness(Links([Entry(1, "d1")]))
    witness.take(client_events([path]))
    assert witness.finish().looks == 1


def test_without_digests_the_history_is_checked_by_itself(tmp_path: Path) -> None:
    servers, lines = apart(simulated(tmp_path / "whole.ndjson", 3))
    for line in lines:
        line.pop("digest", None)
    verdict = check_traces([servers, written(tmp_path / "history.ndjson", lines)])
    assert verdict.verdict == "conforms"
    assert verdict.clients is not None
    assert "neither a session nor a digest" in str(verdict.clients.without_log)
    assert verdict.clients.searched is not None
    lines.append({**get("late"), "key": "k0"})
    lines.append(told("late", value="nobody's"))
    verdict = check_traces([servers, written(tmp_path / "history.ndjson", lines)])
    assert (verdict.verdict, verdict.exit_code) == ("violates", 1)


def test_operations_that_are_called_alike_are_not_told_apart() -> None:
    same = [put("a", "1"), told("a"), {**put("b", "2"), "digest": "d1"}, told("b")]
    with pytest.raises(NoWitness, match="as an earlier one, d1"):
        refuted(same, ["d1", "d1"])


def test_requests_of_sessions_are_told_apart_by_session_and_number() -> None:
    """Refused entries have no effect; of others the first has."""
    lines: list[dict[str, Any]] = []
    for n, (session, sequence) in enumerate([(1, 1), (1, 2), (2, 1)]):
        who = {"client": f"c{session}", "seq": sequence, "session": session}
        lines += [{**put("", str(n)), **who}, {"client": who["client"], "seq": sequence, "event": "return"}]
    lines += [get("r"), told("r", value="2")]
    log = [Entry(1, f"e{n}") for n in range(6)]
    requests = {1: (1, 1), 2: (1, 1), 3: (1, 2), 4: (1, 1), 6: (2, 1)}

    def judge(not_executed: frozenset[int]) -> Any:
        witness = Witness(Links(log, None, requests, not_executed))
        witness.take(events(lines))
        return witness.finish()

    found = judge(frozenset({2, 4}))
    assert (found.entries, found.repeated, found.unnamed) == (3, 2, 1)
    with pytest.raises(Refuted, match="lost"):
        judge(frozenset({2, 4, 6}))


@pytest.mark.parametrize(
    ("lines", "place", "why"),
    [
        ([{**put("a", "1"), "seq": 2}, put("a", "2")], ":3", "a has invoked seq 2 before"),
        ([told("a")], ":2", "seq 1 of a was not invoked before"),
        ([get("a"), told("a", value=None), told("a", value=None)], ":4", "seq 1 of a has returned before"),
        ([get("a"), told("a")], ":3", "needs the value found"),
        ([{**get("a"), "operation": "push"}], ":2", "not an event"),
        ([put("a", "1"), {"event": "return"}], ":3", "neither client nor server"),
        ([put("a", "1"), {**told("a"), "event": "back"}], ":3", 'not "back"'),
        ([put("a", "1"), {**told("a"), "time": 1}], ":3", "give all or none"),
        ([{**put("a", "1"), "time": 2}, {**told("a"), "time": 1}], ":3", "time goes back"),
    ],
)
def test_events_that_make_no_sense_are_refused(
    lines: list[dict[str, Any]], place: str, why: str, tmp_path: Path
) -> None:
    servers, _ = apart(simulated(tmp_path / "whole.ndjson", 3, steps=20))
    history = written(tmp_path / "history.ndjson", lines)
    verdict = check_traces([servers, history])
    assert verdict.verdict == "unusable", verdict
    assert f"{history}{place}" in str(verdict.error)
    assert why in str(verdict.error)


def test_a_history_alone_is_for_linearize(tmp_path: Path) -> None:
    verdict = check_traces([written(tmp_path / "history.ndjson", [put("a", "1")])])
    assert verdict.verdict == "unusable"
    assert "raftworthy linearize" in str(verdict.error)


def test_what_a_kill_leaves_of_a_last_line_does_no_harm(tmp_path: Path) -> None:
    whole = simulated(tmp_path / "whole.ndjson", 3)
    servers, lines = apart(whole)
    history = written(tmp_path / "history.ndjson", lines)
    history.write_bytes(history.read_bytes() + b'{"client":"c1","seq":9')
    assert counts([servers, history]) == counts([whole])
    whole.write_bytes(whole.read_bytes() + b'{"client":"c9","seq":1,"event":"return","val')
    assert counts([whole]) == counts([servers, history])


def test_a_cluster_that_never_says_what_it_committed_last_is_not_accused(tmp_path: Path) -> None:
    """docs/traces.md: the least that is useful has a commit index in a leader's next event."""
    whole = simulated(tmp_path / "whole.ndjson", 3)
    servers, lines = apart(whole)
    least = servers.with_name("least.ndjson")
    least.write_bytes(b"\n".join([*minimal(servers.read_bytes().splitlines()), b""]))
    history = written(tmp_path / "history.ndjson", lines)
    assert counts([least, history]).operations == counts([whole]).operations


@pytest.mark.parametrize("name", ["lost_write", "stale_read", "executed_twice"])
def test_the_command_says_what_is_wrong(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / f"traces/clients/{name}.ndjson"
    with pytest.raises(SystemExit) as end:
        app(["replay", str(path)])
    said = capsys.readouterr().out
    assert end.value.code == 1
    assert said.splitlines()[-1] == "violates: the servers' traces conform, what clients saw doesn't"
    with pytest.raises(SystemExit) as end:
        app(["replay", "--json", str(path)])
    data = msgspec.json.decode(capsys.readouterr().out)
    assert end.value.code == 1
    assert data["verdict"] == "violates"
    assert data["report"]["committed"] > 1
    assert data["clients"]["refutation"]["line"] == int(said.split(f"{path}:")[1].split(":")[0])


def test_where_servers_lines_are_lost_clients_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers, lines = apart(simulated(tmp_path / "whole.ndjson", 3, steps=60))
    kept = [line for line in servers.read_bytes().splitlines() if b'"server":"n3"' not in line]
    servers.write_bytes(b"\n".join([*kept, b""]))
    history = written(tmp_path / "history.ndjson", lines)
    with pytest.raises(SystemExit) as end:
        app(["replay", str(servers), str(history), "--out", str(tmp_path / "found.ndjson")])
    said = capsys.readouterr().out
    assert f"not checked: {len(lines)} events of clients" in said, said
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("log", "balance", "wrong"),
    [
        (["deposit", "interest"], 110, None),
        (["interest", "deposit"], 110, "answer"),
        (["deposit", "interest"], 100, "look"),
        (["deposit", "interest", "interest"], 121, "look"),
    ],
)
def test_a_bank_is_held_to_the_order_of_its_log(log: list[str], balance: int, wrong: str | None) -> None:
    """Replicas that don't agree on the order of a deposit and interest leave different balances."""
    asks = {"event": "invoke", "key": "account", "seq": 1}
    lines = [
        {**asks, "client": "a", "operation": "deposit", "value": 100, "digest": "deposit"},
        {**asks, "client": "b", "operation": "interest", "value": 10, "digest": "interest"},
        told("b", value=110),
        told("a", value=100),
        {**get("c"), "key": "account"},
        told("c", value=balance),
    ]
    assert refuted(lines, log) == wrong


def test_the_specification_says_which_requests_of_sessions_are_executed() -> None:
    """A second try isn't, nor is who has no session; also where no line says what was applied."""
    replay = Replay(server_names(3), None, frozenset({"sessions"}))
    entry = replay.generated.structs[RaftEntry]
    log = [entry(1, value) for value in ("registers", "asks", "no-op", "asks again", "a stranger asks")]
    past, leader = replay.world.past, replay.world.variables["n1"]
    past.committed[:] = leader.log[:] = log
    leader.commit_index = len(log)
    past.registered["registers"] = 1
    for value, client in (("asks", 1), ("asks again", 1), ("a stranger asks", 3)):
        past.client[value], past.sequence[value], past.lowest[value], past.time[value] = client, 1, 1, 1
    for _ in range(2):
        found = links(replay)
        invoke = {**put("a", "1"), "session": 1}
        (_, _, line), (_, _, other) = events([invoke, {**invoke, "session": 3}])
        assert found.find(line, "", 1) == 2
        assert found.without_effect(line) == [4]
        assert found.find(other, "", 1) == 0
        assert found.without_effect(other) == [5]

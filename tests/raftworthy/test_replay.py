"""Replay accepts what the specification allows, in any form and order of files, and nothing else.

Traces come from raftd's simulator, whole, split, cut off or changed, and from a few lines by hand.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftd.simulated_faults import Faults
from raftd.simulator import server_names, simulate
from raftworthy.files import Unusable
from raftworthy.measure import change_line, fault_mixes, minimal
from raftworthy.replay import ledger, order
from raftworthy.replay.format import trace_format
from raftworthy.replay.ledger import Violation
from raftworthy.replay.order import Replay
from raftworthy.replay.reading import TraceFile
from raftworthy.replay.replay import replay_files
from raftworthy.replay.verdict import Verdict, check

Event = dict[str, Any]
N1, N2, N3 = server_names(3)


# --- traces ------------------------------------------------------------------------


@cache
def simulated(seed: int, faults: str = "all", steps: int = 600, servers: int = 3) -> bytes:
    """A simulation's trace."""
    import io

    out = io.BytesIO()
    simulate(seed, server_names(servers), steps, Faults.parse(faults), out)
    return out.getvalue()


def events_of(trace: bytes) -> list[Event]:
    return [json.loads(line) for line in trace.splitlines()[1:]]


def text_of(events: Sequence[Event], servers: Sequence[str] = (N1, N2, N3)) -> bytes:
    lines = [{"raftworthy": 1, "servers": list(servers)}, *events]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def unnumbered(events: Sequence[Event]) -> list[Event]:
    return [{k: v for k, v in e.items() if k not in ("seq", "start")} for e in events]


class Traces:
    """Checks traces that it first writes into files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, *traces: bytes, name: str = "trace{}.ndjson") -> Verdict:
        paths = [self.folder / name.format(k) for k in range(len(traces))]
        for path, trace in zip(paths, traces, strict=True):
            path.write_bytes(trace)
        return check(paths)

    def conforms(self, *traces: bytes) -> bool:
        verdict = self.check(*traces)
        assert verdict.error is None, verdict.error
        return verdict.verdict == "conforms"

    def refusal(self, *events: Event) -> str:
        """What is said of a trace that can't be used."""
        verdict = self.check(text_of(events))
        assert verdict.verdict == "unusable", verdict
        return str(verdict.error)


@pytest.fixture
def traces(tmp_path: Path) -> Traces:
    return Traces(tmp_path)


def request_vote(source: str, target: str, term: int = 1) -> Event:
    head = {"kind": "request_vote", "source": source, "target": target, "term": term}
    return head | {"last_log_index": 0, "last_log_term": 0}


def timeout(i: str = N1, term: int = 1) -> Event:
    """A first election, of a server whose log is empty."""
    state = {"role": "candidate", "current_term": term, "voted_for": i}
    sends = [request_vote(i, j, term) for j in (N1, N2, N3) if j != i]
    return {"server": i, "event": "timeout", "state": state, "sends": sends}


def vote(i: str = N2, candidate: str = N1, term: int = 1) -> Event:
    reply = {"kind": "request_vote_reply", "source": i, "target": candidate, "term": term, "granted": True}
    state = {"current_term": term, "voted_for": candidate}
    received = request_vote(candidate, i, term)
    return {
        "server": i,
        "event": "handle_request_vote",
        "message": received,
        "state": state,
        "sends": [reply],
    }


def without_sends(e: Event) -> Event:
    return {k: v for k, v in e.items() if k != "sends"}


def restart(i: str = N1, term: int = 0, voted_for: str | None = None, log: Sequence[Any] = ()) -> Event:
    last = log[-1][0] if log else 0
    state = {"current_term": term, "voted_for": voted_for, "log_length": len(log), "last_log_term": last}
    return {"server": i, "event": "restart", "state": state, "entries": list(log), "after": 0, "sends": []}


# --- conforming traces ---------------------------------------------------------------


@pytest.mark.parametrize("faults", fault_mixes())
@pytest.mark.parametrize("seed", [1, 2])
def test_simulations_conform_under_every_fault(faults: str, seed: int, traces: Traces) -> None:
    assert traces.conforms(simulated(seed, faults, servers=3 + 2 * (seed % 2)))


def split(trace: bytes, key: Callable[[Event], Any]) -> list[bytes]:
    """A trace in several files, by what `key` says of an event."""
    header, *lines = trace.splitlines(keepends=True)
    parts: dict[Any, list[bytes]] = {}
    for line in lines:
        parts.setdefault(key(json.loads(line)), [header]).append(line)
    return [b"".join(part) for part in parts.values()]


@pytest.mark.parametrize("seed", range(4))
def test_one_file_for_each_server_conforms_in_any_order(seed: int, traces: Traces) -> None:
    parts = split(simulated(seed, servers=5), lambda e: e["server"])
    for _ in range(3):
        random.Random(seed).shuffle(parts)
        assert traces.conforms(*parts)
        assert traces.conforms(*parts[::-1])


@pytest.mark.parametrize("seed", range(4))
def test_one_file_for_each_server_and_start_conforms(seed: int, traces: Traces) -> None:
    starts: dict[str, int] = {}

    def key(e: Event) -> tuple[str, int]:
        starts[e["server"]] = starts.get(e["server"], 0) + (e["event"] == "restart")
        return e["server"], starts[e["server"]]

    parts = split(simulated(seed, "crash=0.02,restart=0.1"), key)
    assert len(parts) > 3, "no server was started again"
    random.Random(seed).shuffle(parts)
    assert traces.conforms(*parts)


def test_a_server_waits_for_those_whose_events_come_later(traces: Traces) -> None:
    assert traces.conforms(text_of([vote(), timeout()]))
    assert traces.conforms(text_of([vote()]), text_of([timeout()]))
    assert not traces.conforms(text_of([vote()]), text_of([timeout(N3)]))


@pytest.mark.parametrize("pack", [gzip.compress, "zst"])
def test_packed_traces_are_read(pack: Any, traces: Traces) -> None:
    if pack == "zst":
        zstandard = pytest.importorskip("zstandard")
        verdict = traces.check(zstandard.compress(simulated(1)), name="{}.ndjson.zst")
    else:
        verdict = traces.check(pack(simulated(1)), name="{}.ndjson.gz")
    assert verdict.verdict == "conforms"
    assert verdict.report is not None
    assert verdict.report.events == len(simulated(1).splitlines()) - 1


# --- minimal traces --------------------------------------------------------------------


def persistent(v: Any) -> tuple[int, str | None, list[list[Any]]]:
    return v.current_term, v.voted_for, [[x.term, x.value] for x in v.log]


def replayed(events: Sequence[Event], servers: Sequence[str] = (N1, N2, N3)) -> Iterator[tuple[Event, Any]]:
    """Each event with its server's variables after it."""
    replay = Replay(tuple(servers))
    decode = trace_format(tuple(servers)).decode.decode
    for k, e in enumerate(events):
        replay.feed([decode(json.dumps(e))], "test", [k + 2])
        assert not replay.parked
        yield e, replay.world.variables[e["server"]]


def least(trace: bytes) -> bytes:
    """The same, as a server writes it that logs as little as docs/traces.md asks for."""
    return b"\n".join([*minimal(trace.splitlines()), b""])


@pytest.mark.parametrize("faults", ["loss,delay,duplication", "all"])
@pytest.mark.parametrize("seed", [0, 3, 10, 24])
def test_minimal_events_conform_and_the_report_says_what_they_leave_open(
    seed: int, faults: str, traces: Traces
) -> None:
    """What replies that aren't logged did has to be found: votes, commits, newer terms."""
    verdict = traces.check(least(simulated(seed, faults, 800, servers=3 + 2 * (seed % 2))))
    assert verdict.verdict == "conforms", verdict.explanation or verdict.error
    assert verdict.report is not None
    assert any("taken for sent" in what for what in verdict.report.unchecked)


def test_minimal_events_with_a_wrong_commit_violate(traces: Traces) -> None:
    events = events_of(least(simulated(1, "none")))
    k = next(
        k
        for k, e in enumerate(events)
        if e["event"] == "handle_append_entries" and e["state"]["commit_index"]
    )
    events[k]["state"]["commit_index"] += 1
    assert not traces.conforms(text_of(events))


def test_a_term_that_no_reply_can_have_told_violates(traces: Traces) -> None:
    """Server n1 may have heard of term 4 from n3 in a reply that isn't logged; of term 5 from nobody."""
    start = [
        without_sends(e) for e in (timeout(), timeout(N3), timeout(N3, 2), timeout(N3, 3), timeout(N3, 4))
    ]
    assert traces.conforms(text_of([*start, without_sends(timeout(N1, 5))]))
    assert not traces.conforms(text_of([*start, without_sends(timeout(N1, 6))]))


# --- less than Figure 2 says -----------------------------------------------------------------


def refusal(i: str = N2, candidate: str = N1, term: int = 1, adopted: bool = True) -> Event:
    """A vote that could be given is refused; the newer term is adopted, or not even that."""
    e = vote(i, candidate, term)
    e["state"] = {"current_term": term if adopted else 0, "voted_for": None}
    e["sends"][0] |= {"granted": False, "term": term if adopted else 0}
    return e


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("form", ["full", "no sends", "silent", "sends only"])
def test_a_vote_may_be_refused_that_could_be_given(form: str, adopted: bool, traces: Traces) -> None:
    """Section 6: servers that still hear from a leader disregard candidates. That is safe, so it conforms."""
    e = refusal(adopted=adopted)
    if form == "no sends":
        e = without_sends(e)
    elif form == "silent":
        e["sends"] = []
    elif form == "sends only":
        del e["state"]
    report = traces.check(text_of([timeout(), e, vote(N3)])).report
    assert report is not None
    assert report.leeway == ["1 votes were refused that could have been given"]
    plain = traces.check(text_of([timeout(), vote(), vote(N3)])).report
    assert plain is not None
    assert not plain.leeway


def test_a_refused_vote_does_not_count(traces: Traces) -> None:
    wins = {"server": N1, "event": "become_leader", "state": {"current_term": 1, "role": "leader"}}
    assert traces.conforms(text_of([without_sends(e) for e in (timeout(), vote(), wins)]))
    assert not traces.conforms(text_of([without_sends(e) for e in (timeout(), refusal(), wins)]))


def test_a_vote_both_given_and_refused_violates(traces: Traces) -> None:
    for said in ({"state": {"voted_for": N1}}, {"sends": vote()["sends"]}):
        assert not traces.conforms(text_of([timeout(), refusal() | said]))
    assert not traces.conforms(text_of([timeout(), vote(), timeout(N3), vote(N2, N3)]))


def heard(n: int, leader_commit: int, commit_index: int) -> Event:
    """Follower n2 stores n entries of term 1 and says what it takes for committed."""
    entries = [[1, str(k)] for k in range(n)]
    message = {"kind": "append_entries", "source": N1, "target": N2, "term": 1}
    message |= {"prev_log_index": 0, "prev_log_term": 0, "entries": entries, "leader_commit": leader_commit}
    state = {"commit_index": commit_index, "log_length": 2}
    return {"server": N2, "event": "handle_append_entries", "message": message, "state": state}


def test_a_follower_may_commit_later(traces: Traces) -> None:
    """It is as if the leader had told less; but no more than it told, and nothing back."""
    entries = [[1, "0"], [1, "1"]]
    led = [without_sends(e) for e in (timeout(), vote())]
    led += [
        {"server": N1, "event": "become_leader"},
        {"server": N1, "event": "client_request", "entries": entries},
    ]
    led.append(heard(2, 0, 0))
    told = traces.check(text_of([*led, heard(2, 2, 1)])).report
    assert told is not None
    assert told.leeway == ["1 times a follower committed less than it could"]
    assert traces.conforms(text_of([*led, heard(2, 2, 0), heard(2, 2, 2)]))
    late = {"server": N2, "event": "timeout", "state": {"current_term": 2, "commit_index": 2}}
    for later in (heard(0, 0, 2), late):
        assert traces.conforms(text_of([*led, heard(2, 2, 1), later]))
        assert not traces.conforms(text_of([*led, heard(2, 1, 1), later]))
    again = restart(N2, 1, N1, entries)
    assert not traces.conforms(text_of([*led, heard(2, 2, 1), again, late]))
    assert not traces.conforms(text_of([*led, heard(2, 1, 2)]))
    assert not traces.conforms(text_of([*led, heard(2, 2, 2), heard(2, 2, 1)]))


# --- the crash window --------------------------------------------------------------------


def crash_points() -> Iterator[tuple[list[Event], Event, Any, Any]]:
    """Every event of a trace: those before, itself, and its server's disk before and after it."""
    events = unnumbered(events_of(simulated(3, "loss,delay", steps=150)))
    disks = {i: persistent(Replay((N1, N2, N3)).world.variables[i]) for i in (N1, N2, N3)}
    for k, (e, v) in enumerate(replayed(events)):
        before, disks[e["server"]] = disks[e["server"]], persistent(v)
        yield events[:k], e, before, disks[e["server"]]


def test_a_lost_or_hidden_step_is_accepted_at_every_point(traces: Traces) -> None:
    """Trace first: the last logged step may be lost. Disk first: one more may be on the disk."""
    seen = set()
    for earlier, e, before, after in crash_points():
        again = restart(e["server"], *before), restart(e["server"], *after)
        assert traces.conforms(text_of([*earlier, e, again[0]])), f"lost: {e}"
        assert traces.conforms(text_of([*earlier, e, again[1]])), f"kept: {e}"
        if e["event"] != "restart":
            verdict = traces.check(text_of([*earlier, again[1]]))
            assert verdict.verdict == "conforms", f"hidden: {e}"
            assert verdict.report is not None
            assert verdict.report.hidden_steps == (before != after)
        seen.add((e["event"], before != after))
    assert {("timeout", True), ("handle_append_entries", True), ("client_request", True)} <= seen


def test_a_disk_that_differs_is_refused_at_every_point(traces: Traces) -> None:
    for earlier, e, _, (term, voted_for, log) in crash_points():
        for other in [(term + 2, voted_for, log), (term, voted_for, [*log, [term + 1, "x"]])]:
            verdict = traces.check(text_of([*earlier, e, restart(e["server"], *other)]))
            assert verdict.verdict == "violates", f"{e} then {other}"
            assert verdict.explanation is not None
            assert verdict.explanation.line == len(earlier) + 3


def test_two_hidden_steps_are_refused(traces: Traces) -> None:
    assert traces.conforms(text_of([restart(N1, 1, N1)]), text_of([timeout(N3)])) is False
    assert traces.conforms(text_of([restart(), restart(N1, 1, N1)]))
    assert not traces.conforms(text_of([restart(), restart(N1, 2, N1)]))


def test_a_hidden_election_may_follow_a_newer_term_of_a_reply_that_is_not_logged(traces: Traces) -> None:
    """The least that is useful has no replies: then that one step more is on the disk, but not alone."""
    ahead = [without_sends(e) for e in (timeout(N2), timeout(N2, 2), restart(), timeout())]
    assert traces.conforms(text_of([*ahead, restart(N1, 3, N1)]))
    assert not traces.conforms(text_of([*ahead, restart(N1, 4, N1)]))
    logged = [timeout(N2), timeout(N2, 2), restart(), timeout()]
    assert not traces.conforms(text_of([*logged, restart(N1, 3, N1)]))


def test_a_cluster_of_one_may_be_killed_between_disk_and_trace_of_its_election(traces: Traces) -> None:
    """It wins in the step in which it stands, and its log has an entry more."""
    first = restart(), restart(N1, 1, N1, [[1, "no-op"]])
    assert traces.conforms(text_of(first, (N1,)))
    assert not traces.conforms(text_of(first))
    assert not traces.conforms(text_of([first[0], restart(N1, 1, N1, [[1, "no-op"], [1, "x"]])], (N1,)))


def test_what_a_cluster_of_one_lost_was_not_committed(traces: Traces) -> None:
    """It commits in the step in which it appends: of a step that is not on the disk nothing is left."""

    def leads(term: int, n: int) -> Event:
        state = {"role": "leader", "current_term": term, "voted_for": N1, "commit_index": n, "log_length": n}
        return {
            "server": N1,
            "event": "timeout",
            "state": state,
            "entries": [[term, f"no-op {term}"]],
            "sends": [],
        }

    def appends(n: int, term: int, digest: str) -> Event:
        state = {"commit_index": n, "last_applied": n, "log_length": n}
        entries = [[term, digest]]
        return {"server": N1, "event": "client_request", "state": state, "entries": entries, "sends": []}

    def client(name: str, event: str, **more: Any) -> Event:
        return {"client": name, "seq": 1, "event": event, **more}

    lost = [restart(), leads(1, 1), client("a", "invoke", operation="put", key="k", value="1", digest="x")]
    lost += [appends(2, 1, "x"), restart(N1, 1, N1, [[1, "no-op 1"]]), leads(2, 2)]
    later = [client("b", "invoke", operation="put", key="l", value="2", digest="y"), appends(3, 2, "y")]
    later += [client("b", "return"), client("c", "invoke", operation="get", key="k")]
    assert traces.conforms(text_of([*lost, *later, client("c", "return", value=None)], (N1,)))
    assert not traces.conforms(text_of([*lost, *later, client("c", "return", value="1")], (N1,)))


def test_a_lost_step_whose_message_was_received_is_refused(traces: Traces) -> None:
    """Unless the server sends the same message again: then that one may have been received."""
    received = [restart(), timeout(), vote(), restart()]
    assert not traces.conforms(text_of(received))
    assert traces.conforms(text_of([*received, timeout()]))
    assert not traces.conforms(text_of([*received, timeout(term=2)]))
    assert traces.conforms(text_of([restart(), timeout(), restart()]))


def test_a_lost_step_whose_message_was_received_later_in_the_file_is_refused(traces: Traces) -> None:
    assert not traces.conforms(text_of([restart(), timeout(), restart(), vote()]))
    assert traces.conforms(text_of([restart(), timeout(), restart(), vote(), timeout()]))


def test_two_lost_steps_are_refused(traces: Traces) -> None:
    assert not traces.conforms(text_of([restart(), timeout(), timeout(term=2), restart()]))
    assert traces.conforms(text_of([restart(), timeout(), timeout(term=2), restart(N1, 1, N1)]))


# --- input that can't be used --------------------------------------------------------------


def test_numbers_without_gaps_and_repeats_are_asked_for(traces: Traces) -> None:
    first = restart() | {"seq": 1}
    assert traces.conforms(text_of([first, timeout() | {"seq": 2}]))
    assert "leaves a gap" in traces.refusal(first, timeout() | {"seq": 3})
    assert "repeats" in traces.refusal(first, timeout() | {"seq": 2}, timeout(term=2) | {"seq": 2})
    assert traces.conforms(text_of([first, timeout() | {"seq": 2}, restart(N1, 1, N1) | {"seq": 1}]))


def test_files_with_events_of_one_server_need_numbers(traces: Traces) -> None:
    """Otherwise nothing says which come first, and any order would accuse a server of something."""
    events = unnumbered(events_of(simulated(1, "none", steps=120)))
    whole, half = text_of(events), text_of(events[:60])
    for parts in ((whole, half), (text_of(events[:60]), text_of(events[60:])), (text_of(events[60:]), half)):
        verdict = traces.check(*parts)
        assert verdict.verdict == "unusable", verdict.explanation
        assert "nothing says which come first" in str(verdict.error)
    numbered = events_of(simulated(1, "none", steps=120))
    assert "given twice" in str(traces.check(text_of(numbered), text_of(numbered[:60])).error)


@pytest.mark.parametrize("name", ["match_index", "next_index"])
@pytest.mark.parametrize("n", [0, 1])
def test_servers_that_the_header_does_not_list_are_refused_as_keys(name: str, n: int, traces: Traces) -> None:
    said = traces.refusal(timeout() | {"state": {name: {N1: 0, "n9": n}}})
    assert f"state.{name} has n9" in said
    e = vote()
    e["state"] |= {name: {"n9": n}}
    assert f"state.{name} has n9" in traces.refusal(timeout(), e)


def test_missing_start_is_noticed(traces: Traces) -> None:
    assert "start 2" in traces.refusal(restart() | {"start": 1}, restart() | {"start": 3})


def test_events_lacking_what_they_need_are_refused(traces: Traces) -> None:
    assert "not in the header's list" in traces.refusal(timeout("n9"))
    assert "needs its message" in traces.refusal({"server": N1, "event": "handle_request_vote"})
    other = {"server": N2, "event": "handle_append_entries", "message": request_vote(N1, N2)}
    assert "not request_vote" in traces.refusal(other)
    assert "needs entries" in traces.refusal({"server": N1, "event": "client_request"})
    assert "needs state.commit_index" in traces.refusal({"server": N1, "event": "advance_commit_index"})


def test_messages_that_nobody_sent_violate(traces: Traces) -> None:
    assert not traces.conforms(text_of([vote()]))
    assert not traces.conforms(text_of([timeout(), vote(candidate="n9")]))
    assert not traces.conforms(text_of([timeout(), vote() | {"server": N3}]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the file is empty"),
        (b"{}\n", "not a trace header"),
        (b"\xff\xfe\n", "byte order mark"),
        (b'\xef\xbb\xbf{"raftworthy":1,"servers":["n1"]}\n', "byte order mark"),
        (b"\xff\n", "not a trace header"),
        (b'{"raftworthy":1,"servers":["\xff"]}\n', "not a trace header"),
        (b'{"raftworthy":2,"servers":["n1"]}\n', "version 2"),
        (b'{"raftworthy":1,"servers":[]}\n', "distinct names"),
        (b'{"raftworthy":1,"servers":["n1","n1"]}\n', "distinct names"),
        (b'{"raftworthy":1,"servers":["n1"]}\n', "no events"),
        (b'{"raftworthy":1,"servers":["n1"]}\n\n{"server":"n1","event":"timeout"}\n', "blank line"),
        (b'{"raftworthy":1,"servers":["n1"]}\n{"server":"n1"}\n', "not an event"),
        (b'{"raftworthy":1,"servers":["n1"]}\n{"server":\n', "not JSON"),
        (b'{"raftworthy":1,"servers":["n1"]}\n{"server":"n1","event":"wait"}\n', "not an event"),
    ],
)
def test_files_that_are_no_traces_are_refused(text: bytes, said: str, traces: Traces) -> None:
    verdict = traces.check(text)
    assert verdict.verdict == "unusable"
    assert said in str(verdict.error)


def test_an_event_is_one_line_and_a_line_one_event(traces: Traces) -> None:
    header, event = text_of([timeout()]).splitlines(keepends=True)
    split, joined = event.replace(b",", b",\n", 1), event.rstrip() + b" " + event
    for lines, at in (
        (header + split, ":2"),
        (header + event + joined, ":3"),
        (header + split + event, ":2"),
    ):
        verdict = traces.check(lines)
        assert verdict.verdict == "unusable"
        assert at in str(verdict.error)
        assert "not JSON" in str(verdict.error)


def test_files_of_different_clusters_are_refused(traces: Traces) -> None:
    verdict = traces.check(text_of([timeout()]), text_of([timeout()], ["n1", "n2"]))
    assert "differ from those" in str(verdict.error)


def test_half_a_last_line_is_dropped_only_before_a_later_start(traces: Traces) -> None:
    first = text_of([restart() | {"start": 1}, timeout()])
    half = first[: len(first) - 40]
    assert "cut off" in str(traces.check(half).error)
    assert traces.conforms(half, text_of([restart() | {"start": 2}]))
    assert traces.conforms(half, text_of([restart(term=1, voted_for=N1) | {"start": 2}]))
    assert not traces.conforms(half, text_of([restart(term=2, voted_for=N1) | {"start": 2}]))


def test_packed_files_that_break_off_are_refused(traces: Traces) -> None:
    packed = gzip.compress(simulated(1))
    for data in (packed[:-10], packed[: len(packed) // 2], b"no gzip at all", b""):
        assert traces.check(data, name="{}.ndjson.gz").verdict == "unusable"


def test_missing_files_are_refused(tmp_path: Path) -> None:
    assert check([tmp_path / "missing.ndjson"]).verdict == "unusable"
    assert check([tmp_path]).verdict == "unusable"


# --- damaged traces get a verdict ------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=4,
)
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in an event something could be changed."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, x in inside:
        yield (*path, key)
        yield from places(x, (*path, key))


@QUICK
@given(data=st.data())
def test_any_bytes_in_a_line_get_a_verdict(data: st.DataObject, traces: Traces) -> None:
    lines = simulated(5, steps=80).splitlines(keepends=True)
    k = data.draw(st.integers(0, len(lines) - 1))
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(lines[k]))] * 2)))
    lines[k] = lines[k][:a] + data.draw(st.binary(max_size=6)) + lines[k][b:]
    assert traces.check(b"".join(lines)).verdict in ("conforms", "violates", "unusable")


@QUICK
@given(data=st.data())
def test_any_json_in_an_event_gets_a_verdict(data: st.DataObject, traces: Traces) -> None:
    events = events_of(simulated(6, steps=80))
    for _ in range(data.draw(st.integers(1, 3))):
        e = events[data.draw(st.integers(0, len(events) - 1))]
        *path, key = data.draw(st.sampled_from(list(places(e))))
        for step in path:
            e = e[step]
        if data.draw(st.booleans()):
            e[key] = data.draw(JSON | st.sampled_from([N1, N2, N3, "leader"]) | st.integers(0, 5))
        else:
            del e[key]
    assert traces.check(text_of(events)).verdict in ("conforms", "violates", "unusable")


@QUICK
@given(data=st.data())
def test_events_left_out_or_repeated_get_a_verdict(data: st.DataObject, traces: Traces) -> None:
    whole = simulated(7, steps=80)
    events = events_of(least(whole) if data.draw(st.booleans()) else whole)
    if data.draw(st.booleans()):
        events = unnumbered(events)
    for _ in range(data.draw(st.integers(1, 3))):
        k, n = data.draw(st.tuples(*[st.integers(0, len(events) - 1)] * 2))
        events[k : k + 1] = [events[n]] * data.draw(st.integers(0, 2))
    verdict = traces.check(text_of(events))
    assert verdict.verdict in ("conforms", "violates", "unusable")


# --- the fast path -----------------------------------------------------------------------------


def outcome(path: Path, fast: bool) -> Any:
    """How a replay ends: where and why, or with which state."""
    file = TraceFile.open(path)
    replay = Replay(file.servers)
    if fast:
        replay.hurry()
    try:
        for lines, events in file.events():
            replay.feed(events, "", lines)
        replay.finish()
    except Violation as v:
        return v.kind, v.action, v.place, v.number, v.guard, v.mismatches
    except Unusable as u:
        return str(u)
    servers = [(s.seq, s.before, list(s.news), s.logs_sends, len(s.ended)) for s in replay.state.values()]
    return replay.world, servers, replay.number, replay.kinds, replay.sent.recent, replay.lost_steps


@pytest.mark.parametrize("seed", range(3))
def test_fast_path_ends_as_the_plain_one_does(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.ndjson"
    for faults in ("none", "all"):
        path.write_bytes(simulated(seed, faults, steps=1500, servers=5))
        plain = outcome(path, fast=False)
        assert plain[2] == len(simulated(seed, faults, steps=1500, servers=5).splitlines()) - 1
        assert outcome(path, fast=True) == plain


def test_fast_path_leaves_what_is_less_than_figure_2_to_the_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "refused.ndjson"
    for e in (refusal(), refusal(adopted=False), vote()):
        path.write_bytes(text_of([timeout(), e, vote(N3)]))
        assert outcome(path, fast=True) == outcome(path, fast=False)
        assert len(outcome(path, fast=True)) > 3, "a violation"


def test_fast_path_finds_the_same_violations(tmp_path: Path) -> None:
    """One value of an event changed, wherever it stands."""
    path = tmp_path / "changed.ndjson"
    lines = simulated(9, steps=400).splitlines()
    found = 0
    for seed in range(250):
        k, _, text = change_line(lines, random.Random(seed))
        path.write_bytes(b"\n".join([*lines[:k], text, *lines[k + 1 :], b""]))
        plain = outcome(path, fast=False)
        assert outcome(path, fast=True) == plain, f"seed {seed}, line {k + 1}: {text!r}"
        found += len(plain) == 6 and isinstance(plain[0], str)
    assert found > 200


def test_a_line_that_names_a_stranger_is_read_like_the_others(traces: Traces) -> None:
    """Names that the header hasn't are read in another way, which is no other trace."""
    lines = simulated(7, steps=300).splitlines()
    changed = 0
    for k, line in enumerate(lines):
        e = json.loads(line)
        if e.get("event") == "handle_append_entries" and e["message"]["entries"]:
            e["sends"][0]["target"] = "n9"
            verdict = traces.check(b"\n".join([*lines[:k], json.dumps(e).encode(), *lines[k + 1 :], b""]))
            assert verdict.explanation is not None
            assert verdict.explanation.line == k + 1
            assert verdict.explanation.claim.startswith(f"{e['server']} sends in handle_append_entries")
            changed += 1
    assert changed > 5


def test_rules_that_another_trace_exercised_do_not_count(traces: Traces) -> None:
    full, little = traces.check(simulated(1)).report, traces.check(text_of([timeout(), vote()])).report
    assert full is not None
    assert little is not None
    assert "replicate.ack_success" in full.exercised
    assert set(little.exercised) < set(full.exercised)
    assert "replicate.ack_success" in little.not_exercised


# --- memory --------------------------------------------------------------------------------------


def test_a_window_of_messages_is_remembered_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A receive whose send is forgotten isn't checked, which is not the same as wrong."""
    path = tmp_path / "trace.ndjson"
    path.write_bytes(simulated(4, "delay,pause,partition", steps=3000))
    assert not replay_files([path]).unchecked
    monkeypatch.setattr(ledger, "WINDOW", 40)
    monkeypatch.setattr(order, "PORTION", 20)
    replay = replay_files([path])
    assert replay.sent.forgot
    assert sum(map(len, (replay.sent.recent, *replay.sent.older))) < 1000
    assert any("older than the window" in what for what in replay.report([str(path)]).unchecked)

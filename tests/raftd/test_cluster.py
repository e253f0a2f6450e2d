"""Three real processes: killed, cut off, frozen and started again. What was answered stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import raftd
from raftd.client import Client, RequestError, status
from raftd.cluster import Cluster, ask
from raftd.codec import Done, GetRequest, PutRequest, Redirect, Status
from raftd.killing import KILL_POINTS
from raftd.state import USUAL
from raftd.storage import DATABASE, STORE
from raftworthy.replay.verdict import check


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for tests that leave it whole."""
    with Cluster(folder=tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def put_all(
    cluster: Cluster, values: dict[str, bytes], servers: list[str] | None = None, timeout: float = 10.0
) -> None:
    async def run() -> None:
        known = {server: cluster.addresses[server] for server in servers or cluster.servers}
        async with Client(known, timeout) as client:
            await asyncio.gather(*(client.put(key, value) for key, value in values.items()))

    asyncio.run(run())


def get_all(cluster: Cluster, keys: list[str], timeout: float = 10.0) -> dict[str, bytes | None]:
    async def run() -> list[bytes | None]:
        async with cluster.client(timeout) as client:
            return await asyncio.gather(*map(client.get, keys))

    return dict(zip(keys, asyncio.run(run()), strict=True))


def numbered(first: int, count: int) -> dict[str, bytes]:
    return {f"key {n}": b"value %d" % n for n in range(first, first + count)}


def converge(cluster: Cluster) -> None:
    """Wait until all servers have applied the same, and all of it."""

    def same() -> bool:
        seen = [cluster.status(server) for server in cluster.servers]
        states = {(s.current_term, s.log_length, s.last_applied) if s else None for s in seen}
        return len(states) == 1 and all(s is not None and s.last_applied == s.log_length for s in seen)

    cluster.wait_until(same, "all servers have the same log")


# --- clients ------------------------------------------------------------------------------------------


def test_values_are_put_read_and_removed(shared: Cluster) -> None:
    async def run() -> None:
        async with shared.client() as client:
            assert await client.get("colour") is None
            await client.put("colour", b"green")
            assert await client.get("colour") == b"green"
            assert await client.delete("colour") == b"green"
            assert await client.get("colour") is None
            seen = await status(client)
        assert [s.role for s in seen.values() if s].count("leader") == 1

    asyncio.run(run())


def test_a_client_finds_the_leader_from_any_server(shared: Cluster) -> None:
    """Section 8: a client's first choice is random, and it is sent on from there."""
    leader = shared.leader()

    async def run(server: str) -> bytes | None:
        async with Client({server: shared.addresses[server]}) as client:
            await client.put(server, server.encode())
            return await client.get(server)

    for server in shared.servers:
        assert asyncio.run(run(server)) == server.encode()
        reply = ask(shared.addresses[server], PutRequest(1, "x", b"y"))
        if server == leader:
            assert reply == Done(1)
        else:
            assert reply == Redirect(1, leader, shared.addresses[leader])


def test_a_value_of_full_size_and_one_too_large(shared: Cluster) -> None:
    async def run() -> None:
        async with shared.client() as client:
            await client.put("large", bytes(65_000))
            assert await client.get("large") == bytes(65_000)
            with pytest.raises(RequestError) as failure:
                await client.put("large", bytes(70_000))
            assert not failure.value.may_have_executed
            assert await client.get("large") == bytes(65_000)

    asyncio.run(run())


# --- faults -------------------------------------------------------------------------------------------


def test_what_was_answered_survives_the_death_of_leaders() -> None:
    """Section 5.4.3, leader completeness, with kill -9 and real disks."""
    with Cluster() as cluster:
        expected: dict[str, bytes] = {}
        for round in range(3):
            new = numbered(100 * round, 50)
            put_all(cluster, new)
            expected |= new
            leader = cluster.leader()
            cluster.kill(leader)
            cluster.leader()
            more = numbered(100 * round + 50, 50)
            put_all(cluster, more)
            expected |= more
            cluster.restart(leader)
        converge(cluster)
        assert get_all(cluster, list(expected)) == expected

        for server in cluster.servers:
            cluster.kill(server)
        for server in cluster.servers:
            cluster.restart(server)
        cluster.leader()
        assert get_all(cluster, list(expected)) == expected


def test_a_leader_that_is_cut_off_commits_nothing_and_follows_when_it_is_back() -> None:
    """Section 5.1, and neutralising old leaders: one that hears no majority can't commit."""
    with Cluster() as cluster:
        old = cluster.leader()
        put_all(cluster, {"a": b"before"})
        cluster.partition({old})

        async def ask_the_old_leader() -> RequestError:
            async with Client({old: cluster.addresses[old]}) as client:
                with pytest.raises(RequestError) as failure:
                    await client.put("a", b"lost", timeout=0.5)
                return failure.value

        assert asyncio.run(ask_the_old_leader()).may_have_executed

        def successor() -> str | None:
            leader = cluster.leader()
            return leader if leader != old else None

        new = cluster.wait_until(successor, "another server leads")
        put_all(cluster, {"a": b"after"}, [new])
        still = cluster.status(old)
        assert still is not None
        assert still.faults.mute == tuple(s for s in cluster.servers if s != old)

        cluster.heal()
        converge(cluster)
        assert cluster.leader() != old
        assert get_all(cluster, ["a"]) == {"a": b"after"}


def test_without_a_majority_nothing_is_answered() -> None:
    with Cluster() as cluster:
        leader = cluster.leader()
        followers = [server for server in cluster.servers if server != leader]
        for server in followers:
            cluster.kill(server)
        with pytest.raises(RequestError):
            put_all(cluster, {"a": b"1"}, timeout=0.5)
        cluster.restart(followers[0])
        cluster.leader()
        put_all(cluster, {"a": b"2"})
        assert get_all(cluster, ["a"]) == {"a": b"2"}


def test_a_leader_that_was_frozen_is_replaced_and_comes_back() -> None:
    """Not every leader that is slow is dead: section 5.1's terms tell the old one so."""
    with Cluster() as cluster:
        put_all(cluster, {"a": b"1"})
        frozen = cluster.leader()
        with cluster.paused(frozen):
            others = [server for server in cluster.servers if server != frozen]

            def leader_among_others() -> bool:
                seen = [cluster.status(server) for server in others]
                return any(s is not None and s.role == "leader" for s in seen)

            cluster.wait_until(leader_among_others, "another server leads")
            put_all(cluster, {"a": b"2"}, others)
        assert get_all(cluster, ["a"]) == {"a": b"2"}
        converge(cluster)


@pytest.mark.parametrize(
    "order",
    [("--snapshot-after", "40"), ("--trace-after-persist",)],
    ids=["trace first, with snapshots", "persist first"],
)
def test_a_server_killed_at_any_point_of_a_step_starts_again_and_loses_nothing(
    order: tuple[str, ...],
) -> None:
    """Section 5.1: servers "crash; they may later recover from state on stable storage and rejoin"."""
    with Cluster(options=order) as cluster:
        expected = numbered(0, 5)
        put_all(cluster, expected)
        for number, point in enumerate(KILL_POINTS):
            victim = cluster.servers[number % 3]
            assert cluster.stop(victim) == 0
            cluster.start(victim, "--kill-at", f"{point}:2")
            cluster.leader()
            deadline = time.monotonic() + 10
            while cluster.is_alive(victim):
                assert time.monotonic() < deadline, f"{victim} survives {point}"
                new = numbered(len(expected), 1)
                try:
                    put_all(cluster, new)
                except RequestError:  # it may be there or not: nobody promised anything
                    continue
                expected |= new
            assert cluster.wait_for_exit(victim) == -signal.SIGKILL, cluster.log(victim)
            cluster.restart(victim)
        converge(cluster)
        assert get_all(cluster, list(expected)) == expected


def test_a_server_that_was_down_for_long_is_brought_up_by_a_snapshot() -> None:
    """Dissertation, section 5.3. Nobody has the entries any more that it lacks."""
    with Cluster(options=("--snapshot-after", "2000")) as cluster:
        put_all(cluster, numbered(0, 10))
        away = next(server for server in cluster.servers if server != cluster.leader())
        cluster.kill(away)
        lacking = cluster.status(cluster.leader())
        assert lacking is not None
        # Many chunks, and a state machine that is larger than any of them.
        large = {f"large {n}": bytes([n]) * 60_000 for n in range(20)}
        for key, value in large.items():
            put_all(cluster, {key: value})
        put_all(cluster, numbered(0, 10))
        leader = cluster.status(cluster.leader())
        assert leader is not None
        assert leader.snapshot_index > lacking.log_length
        cluster.restart(away)
        converge(cluster)
        back = cluster.status(away)
        assert back is not None
        assert back.snapshot_index > lacking.log_length
        # It has what it did not get entry by entry, and keeps it.
        for server in cluster.servers:
            cluster.kill(server)
        for server in cluster.servers:
            cluster.restart(server)
        expected = large | numbered(0, 10)
        assert get_all(cluster, list(expected)) == expected


# --- traces -------------------------------------------------------------------------------------------


def test_each_start_leaves_a_trace_that_begins_with_what_the_disk_held(shared: Cluster) -> None:
    """docs/traces.md, Crashes."""
    put_all(shared, numbered(0, 10))
    server = next(server for server in shared.servers if server != shared.leader())
    shared.kill(server)
    shared.restart(server)
    converge(shared)
    first, second = (shared.traces / f"{server}.{start}.ndjson" for start in (1, 2))
    lines = [json.loads(line) for line in second.read_text().splitlines()]
    head = {"raftworthy": 1, "servers": list(shared.servers), "extensions": list(USUAL)}
    assert lines[0] == head
    assert (lines[1]["event"], lines[1]["start"]) == ("restart", 2)
    assert [line["seq"] for line in lines[1:]] == list(range(1, len(lines)))
    ends = [
        json.loads(line).get("state", {}).get("log_length") for line in first.read_text().splitlines()[1:]
    ]
    assert lines[1]["state"]["log_length"] == [length for length in ends if length is not None][-1]


# --- starting and stopping ----------------------------------------------------------------------------


def test_a_damaged_store_is_refused_with_exit_code_2(shared: Cluster) -> None:
    server = next(server for server in shared.servers if server != shared.leader())
    assert shared.stop(server) == 0
    database = shared.data(server) / STORE / DATABASE
    content = database.read_bytes()
    database.write_bytes(content[:4096])
    shared.start(server)
    assert shared.wait_for_exit(server) == 2
    assert f"{database}: error: " in shared.log(server)
    assert "help: " in shared.log(server)
    assert "Traceback" not in shared.log(server)
    database.write_bytes(content)
    shared.restart(server)


def serve(*options: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(Path(raftd.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "raftd.serve", *options],
        env=env,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_port_that_is_taken_is_exit_code_2(shared: Cluster, tmp_path: Path) -> None:
    process = serve("--server", "n1", "--cluster", f"n1={shared.addresses['n1']}", "--data", str(tmp_path))
    _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert b"address already in use" in error


def test_a_server_of_one_stops_after_its_time(tmp_path: Path) -> None:
    """A cluster of one elects itself; and `--for` ends it."""
    with Cluster(1, folder=tmp_path, options=("--for", "1.5")) as cluster:
        put_all(cluster, {"a": b"1"})
        assert get_all(cluster, ["a"]) == {"a": b"1"}
        assert isinstance(cluster.status("n1"), Status)
        assert ask(cluster.addresses["n1"], GetRequest(1, "a")) == Done(1, b"1")
        assert cluster.wait_for_exit("n1") == 0


def test_a_lost_trace_is_missed_and_no_fault_of_the_server(tmp_path: Path) -> None:
    """Starts are counted on the disk, so what happened in a start that nobody sees is not held against it."""
    with Cluster(1, folder=tmp_path) as cluster:
        put_all(cluster, {"a": b"1"})
        cluster.kill("n1")
        cluster.restart("n1")
        put_all(cluster, {"b": b"2"})
        cluster.kill("n1")
        (cluster.traces / "n1.2.ndjson").unlink()
        cluster.restart("n1")
        put_all(cluster, {"c": b"3"})
        files = sorted(cluster.traces.glob("*.ndjson"))
    assert [file.name for file in files] == ["n1.1.ndjson", "n1.3.ndjson"]
    verdict = check(files)
    assert verdict.verdict == "unusable", verdict
    assert "start" in str(verdict.error)


def test_no_server_outlives_the_process_that_started_the_cluster(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from raftd.cluster import Cluster\n"
        f"cluster = Cluster(2, Path({str(tmp_path)!r}))\n"
        "cluster.__enter__()\n"
        "print(*[process.pid for process in cluster._processes.values()], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(raftd.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 5
    for pid in map(int, done.stdout.split()):
        while is_running(pid):
            assert time.monotonic() < deadline, f"process {pid} lives on"
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Dead and not yet waited for, where nobody adopts orphans.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()

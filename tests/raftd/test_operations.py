"""What operators see of a server, and how it goes."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from raftd.cluster import Cluster, free_addresses
from raftd.codec import Status
from raftworthy.cli import app
from raftworthy.replay.verdict import check


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def put(cluster: Cluster, count: int) -> None:
    async def run() -> None:
        async with cluster.client(10.0) as client:
            for number in range(count):
                await client.put("a", b"%d" % number)

    asyncio.run(run())


def test_a_server_tells_prometheus_and_whoever_asks_how_it_is(tmp_path: Path) -> None:
    watched = dict(zip(("n1", "n2", "n3"), free_addresses(3), strict=True))
    own = {server: ("--watch", str(address), "--log-format", "json") for server, address in watched.items()}
    with Cluster(folder=tmp_path, own_options=own) as cluster:
        put(cluster, 3)
        leader = cluster.leader()
        code, text = fetch(f"http://{watched[leader]}/metrics")
        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert code == 200
        assert figures['raftd_role{role="leader"}'] == "1.0"
        assert float(figures["raftd_commands_total"]) == 3
        assert float(figures["raftd_commit_index"]) >= 4
        followers = [server for server in cluster.servers if server != leader]
        assert all(f'raftd_follower_lag_entries{{follower="{server}"}}' in figures for server in followers)
        assert float(figures["raftd_disk_writes_total"]) >= 4
        assert fetch(f"http://{watched[leader]}/health") == (200, f"{leader} is leader, follows {leader}\n")
        status = json.loads(fetch(f"http://{watched[followers[0]]}/status")[1])
        assert (status["server"], status["role"], status["followers"]) == (followers[0], "follower", {})
        assert fetch(f"http://{watched[leader]}/nothing")[0] == 404

        lines = [json.loads(line) for line in cluster.log(leader).splitlines()]
        led = [line for line in lines if line["message"].startswith(f"{leader} is leader in term")]
        assert led[0]["role"] == "leader"
        assert led[0]["term"] >= 1


def test_a_server_that_knows_no_leader_is_not_healthy(tmp_path: Path) -> None:
    (watched,) = free_addresses(1)
    cluster = Cluster(folder=tmp_path, own_options={"n1": ("--watch", str(watched))})
    cluster.start("n1")
    try:
        cluster.wait_until(lambda: cluster.status("n1"), "n1 answers")
        assert fetch(f"http://{watched}/health")[0] == 503
    finally:
        cluster.close()


def test_a_leader_knows_what_its_followers_lack(tmp_path: Path) -> None:
    with Cluster(folder=tmp_path) as cluster:
        leader = cluster.leader()
        away = next(server for server in cluster.servers if server != leader)
        cluster.kill(away)
        put(cluster, 5)

        def seen() -> Status | None:
            status = cluster.status(leader)
            return status if status and status.followers and status.followers[away].silent > 0.2 else None

        status = cluster.wait_until(seen, "the leader misses its follower")
        assert status.followers[away].lag >= 5
        assert all(follower.lag == 0 for peer, follower in status.followers.items() if peer != away)


def test_a_leader_that_is_stopped_hands_over_before_it_goes(tmp_path: Path) -> None:
    """With timeouts of ten seconds nobody would lead for a long time otherwise."""
    with Cluster(folder=tmp_path) as cluster:
        put(cluster, 3)
        leader = cluster.leader()
        before = cluster.status(leader)
        assert before is not None
        for server in cluster.servers:
            if server != leader:
                cluster.kill(server)
                cluster.start(server, "--election-timeout", "10", "--heartbeat-interval", "0.03")
        cluster.wait_until(
            lambda: all(
                (status := cluster.status(server)) and status.leader == leader for server in cluster.servers
            ),
            "all follow",
        )
        began = time.monotonic()
        assert cluster.stop(leader) == 0
        new = cluster.leader(5.0)
        assert time.monotonic() - began < 5
        after = cluster.status(new)
        assert after is not None
        assert after.current_term > before.current_term
        assert f"{leader} hands over to {new}" in cluster.log(leader)
        put(cluster, 1)
        cluster.close()
        verdict = check(sorted(cluster.traces.iterdir()))
        assert verdict.verdict == "conforms", verdict


def test_an_operator_moves_the_leadership(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Cluster(folder=tmp_path) as cluster:
        put(cluster, 3)
        addresses = ",".join(f"{server}={address}" for server, address in cluster.addresses.items())

        def transfer(*options: str) -> int:
            with pytest.raises(SystemExit) as end:
                app(["transfer", "--cluster", addresses, *options])
            return int(end.value.code or 0)

        for server in cluster.servers:
            assert transfer("--to", server, "--json") == 0
            assert json.loads(capsys.readouterr().out) == {"verdict": "done", "leader": server}
            assert cluster.leader() == server
        assert transfer() == 0
        away = next(server for server in cluster.servers if server != cluster.leader())
        cluster.kill(away)
        assert transfer("--to", away) == 2
        assert f"{away} has not taken over in time" in capsys.readouterr().err
        assert transfer("--to", "n9") == 2
        put(cluster, 1)
        cluster.close()
        verdict = check(sorted(cluster.traces.iterdir()))
        assert verdict.verdict == "conforms", verdict


def test_a_leader_alone_does_not_wait_for_a_successor(tmp_path: Path) -> None:
    with Cluster(folder=tmp_path) as cluster:
        leader = cluster.leader()
        for server in cluster.servers:
            if server != leader:
                cluster.kill(server)
        began = time.monotonic()
        assert cluster.stop(leader) == 0
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("text", ["x", "7001:", "1.2.3.4:99999"])
def test_a_bad_address_to_watch_at_is_refused(text: str, tmp_path: Path) -> None:
    from raftd.serve import main

    with pytest.raises(SystemExit) as refused:
        main(["--server", "n1", "--cluster", "n1=7001", "--data", str(tmp_path), "--watch", text])
    assert refused.value.code == 2

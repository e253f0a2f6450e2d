"""Members of a real cluster come and go, from the command line; the traces conform."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from raftd.addresses import format_addresses
from raftd.client import Client
from raftd.cluster import Cluster
from raftworthy.replay.verdict import check

OPTIONS = [x for name in ("membership", "pre_vote", "check_quorum") for x in ("--with", name)]


def members(*words: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", "raftworthy", "members", *words, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.returncode, json.loads(result.stdout)


def test_members_come_and_go() -> None:
    """A server joins, is killed, and takes the place of the first ones."""
    with Cluster(3, options=["--election-timeout", "0.5", *OPTIONS]) as cluster:
        first = format_addresses(cluster.addresses)
        here = ("--cluster", first)
        assert members("list", *here)[1]["members"]["voters"] == ["n1", "n2", "n3"]
        server = cluster.join()
        code, answer = members("add", f"{server}={cluster.addresses[server]}", *here)
        assert (code, answer["members"]["voters"]) == (0, ["n1", "n2", "n3", "n4"])
        code, answer = members("promote", "n9", *here)
        assert code == 2
        assert "n9 is no member" in answer["error"]
        cluster.kill(server)
        cluster.restart(server)
        code, answer = members("set", "n2,n4", *here)
        assert (code, answer["members"]["voters"]) == (0, ["n2", "n4"])
        code, answer = members("remove", "n4", *here)
        assert (code, answer["members"]["voters"]) == (0, ["n2"])
        files = sorted(cluster.traces.glob("*.ndjson"))
        for i in cluster.servers:
            cluster.stop(i)
        verdict = check(files)
        assert verdict.verdict == "conforms", verdict.explanation or verdict.error


def test_members_are_known_when_the_entries_that_say_so_are_compacted() -> None:
    """All servers start again from snapshots, one of them from another's."""
    options = ["--election-timeout", "0.5", *OPTIONS, "--snapshot-after", "300"]
    with Cluster(3, options=options) as cluster:
        here = ("--cluster", format_addresses(cluster.addresses))
        server = cluster.join()
        added = members("add", f"{server}={cluster.addresses[server]}", *here)[1]["members"]
        away = next(i for i in cluster.servers if i not in (server, cluster.leader()))
        cluster.kill(away)
        put_some(cluster)
        cluster.restart(away)

        def compacted() -> bool:
            seen = [cluster.status(i) for i in cluster.servers]
            return all(s is not None and s.snapshot_index > 10 for s in seen)

        cluster.wait_until(compacted, "all servers have a snapshot")
        for i in cluster.servers:
            cluster.kill(i)
        for i in cluster.servers:
            cluster.restart(i)
        put_some(cluster)
        for i in cluster.servers:
            status = cluster.status(i)
            assert status is not None
            assert status.members is not None
            assert list(status.members.voters) == added["voters"] == ["n1", "n2", "n3", "n4"]
            assert status.members.addresses == added["addresses"]
        for i in cluster.servers:
            cluster.stop(i)
        files = sorted(cluster.traces.glob("*.ndjson"))
        starts = [json.loads(f.read_text().splitlines()[1])["state"] for f in files]
        assert sum(0 < s["configured"] <= s["snapshot_index"] for s in starts) >= 4
        verdict = check(files)
        assert verdict.verdict == "conforms", verdict.explanation or verdict.error


def test_who_was_away_answers_servers_that_joined_meanwhile() -> None:
    """Where they are is in the part of the log that it hasn't got yet: they say so themselves."""
    with Cluster(3, options=["--election-timeout", "0.5", *OPTIONS]) as cluster:
        here = ("--cluster", format_addresses(cluster.addresses))
        cluster.kill("n3")
        for server in (cluster.join(), cluster.join()):
            assert members("add", f"{server}={cluster.addresses[server]}", *here)[0] == 0
        newer = ("--cluster", format_addresses({i: cluster.addresses[i] for i in ("n4", "n5")}))
        assert members("set", "n4,n5", *here)[0] == 0
        cluster.kill("n1")
        cluster.kill("n2")
        cluster.restart("n3")
        code, answer = members("add", f"n3={cluster.addresses['n3']}", *newer)
        assert (code, answer.get("error")) == (0, None)
        assert answer["members"]["voters"] == ["n3", "n4", "n5"]


def put_some(cluster: Cluster) -> None:
    async def run() -> None:
        async with Client(cluster.addresses, 10.0) as client:
            for n in range(40):
                await client.put(f"key {n % 5}", b"value %d" % n)

    asyncio.run(run())


def test_members_that_are_fixed_say_so() -> None:
    with Cluster(1, options=["--election-timeout", "0.5"]) as cluster:
        code, answer = members("remove", "n1", "--cluster", format_addresses(cluster.addresses))
        assert code == 2
        assert "--with membership" in answer["error"]

"""Members of a real cluster come and go, from the command line; the traces conform."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from raftd.addresses import format_addresses
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


def test_members_that_are_fixed_say_so() -> None:
    with Cluster(1, options=["--election-timeout", "0.5"]) as cluster:
        code, answer = members("remove", "n1", "--cluster", format_addresses(cluster.addresses))
        assert code == 2
        assert "--with membership" in answer["error"]

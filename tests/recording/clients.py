"""Clients beside servers that keep all rules: what they are told is right, or can't be, given the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.recording.cluster import THREE, Cluster, recorded

from raftd.kv import Put, encode_command
from raftd.trace import digest_of_put

CLIENTS: dict[str, Callable[[], Cluster]] = {}


class Client:
    """A client who says what it asks for and is told."""

    def __init__(self, c: Cluster, name: str) -> None:
        self.c = c
        self.who: dict[str, Any] = {"client": name, "seq": 0}

    def asks_to_put(self, key: str, value: str) -> bytes:
        """It asks; the command that a leader should append."""
        digest = digest_of_put(key, value.encode())
        self._asks({"operation": "put", "key": key, "value": value, "digest": digest})
        return encode_command(Put(key, value.encode()))

    def asks_to_get(self, key: str) -> None:
        self._asks({"operation": "get", "key": key})

    def is_told(self, **answer: Any) -> None:
        self.c.note({**self.who, "event": "return", **answer})

    def puts(self, leader: str, key: str, value: str) -> None:
        """It asks, the leader replicates, commits and answers."""
        command = self.asks_to_put(key, value)
        self.c.propose(leader, command)
        self.c.settle()
        self.is_told()

    def gets(self, key: str, value: str | None) -> None:
        self.asks_to_get(key)
        self.is_told(value=value)

    def _asks(self, what: dict[str, Any]) -> None:
        self.who["seq"] += 1
        self.c.note({**self.who, "event": "invoke", **what})


def cluster() -> tuple[Cluster, Client, Client, Client]:
    """Three servers that n1 leads, and three clients."""
    c = Cluster(*THREE)
    c.elect("n1", "n2", "n3")
    c.settle()
    return c, Client(c, "c1"), Client(c, "c2"), Client(c, "c3")


@recorded(CLIENTS)
def reads_and_writes() -> Cluster:
    """Two writes at a time, a read while they are under way, and one whose client gives up."""
    c, c1, c2, c3 = cluster()
    green, blue = c1.asks_to_put("x", "green"), c2.asks_to_put("x", "blue")
    c3.asks_to_get("x")
    c.propose("n1", blue, green)
    c.settle()
    c3.is_told(value="blue")
    c1.is_told()
    c2.is_told()
    c3.gets("x", "green")
    c.propose("n1", c1.asks_to_put("x", "red"))
    c.drop()
    c1.is_told(outcome="unknown")
    c3.gets("x", "green")
    return c


@recorded(CLIENTS)
def lost_write() -> Cluster:
    """A leader answers before a majority stores the entry, and its successor never had it."""
    c, c1, c2, _ = cluster()
    c1.puts("n1", "x", "green")
    c.propose("n1", c1.asks_to_put("x", "blue"))
    c1.is_told()
    c.drop()
    c.crash("n1")
    c.elect("n2", "n3")
    c.settle()
    c2.gets("x", "green")
    return c


@recorded(CLIENTS)
def stale_read() -> Cluster:
    """A server that was cut off reads from what it has, after another has acknowledged a write."""
    c, c1, c2, c3 = cluster()
    c1.puts("n1", "x", "green")
    c2.puts("n1", "x", "blue")
    c3.gets("x", "green")
    return c


@recorded(CLIENTS)
def executed_twice() -> Cluster:
    """A request is sent again, as its answer was lost, and executed again after what another client wrote."""
    c, c1, c2, c3 = cluster()
    green = c1.asks_to_put("x", "green")
    c.propose("n1", green)
    c.settle()
    c2.puts("n1", "x", "blue")
    c.propose("n1", green)
    c.settle()
    c1.is_told()
    c3.gets("x", "green")
    return c


@recorded(CLIENTS)
def committed_before_it_was_asked_for() -> Cluster:
    """An entry is in the log that its client asks for later: so it wasn't its client who asked."""
    c, c1, c2, _ = cluster()
    c.propose("n1", encode_command(Put("x", b"green")))
    c.settle()
    c2.puts("n1", "x", "blue")
    c1.asks_to_put("x", "green")
    c1.is_told()
    return c


# --- with sessions: an entry says whose request it is --------------------------------------


class Session(Client):
    """A client with a session, whose entries say which of its requests they are for."""

    def __init__(self, c: Cluster, name: str, leader: str) -> None:
        super().__init__(c, name)
        self.leader = leader
        self.id = self._append({"registered": 1}, f"{name} registers")
        c.settle()

    def asks_to_put(self, key: str, value: str) -> bytes:
        self._asks({"operation": "put", "key": key, "value": value, "session": self.id})
        return b""

    def is_appended(self, time: int = 1) -> int:
        """The leader appends the request, perhaps once more, and it is committed."""
        seq = self.who["seq"]
        meaning = {"client": self.id, "sequence": seq, "lowest": seq, "time": time}
        index = self._append(meaning, f"{self.who} {self.c.cores[self.leader].log.last_index}")
        self.c.settle()
        return index

    def _append(self, meaning: dict[str, int], command: str) -> int:
        self.c.mean(command, meaning)
        self.c.propose(self.leader, command)
        return self.c.cores[self.leader].log.last_index


def with_sessions() -> tuple[Cluster, Session, Session, Client]:
    """Three servers that n1 leads, two clients with sessions, and one who only reads."""
    c = Cluster(*THREE, extensions=("sessions",))
    c.elect("n1", "n2", "n3")
    c.settle()
    return c, Session(c, "c1", "n1"), Session(c, "c2", "n1"), Client(c, "c3")


def asked_again() -> tuple[Cluster, Session, Session, Client]:
    """A request is tried again after what another client wrote, and has two entries."""
    c, c1, c2, c3 = with_sessions()
    c1.asks_to_put("x", "green")
    c1.is_appended()
    c2.asks_to_put("x", "blue")
    c2.is_appended()
    c2.is_told()
    c1.is_appended()
    c1.is_told()
    return c, c1, c2, c3


@recorded(CLIENTS)
def session_asked_again() -> Cluster:
    """The second entry has no effect."""
    c, _, _, c3 = asked_again()
    c3.gets("x", "blue")
    return c


@recorded(CLIENTS)
def session_executed_twice() -> Cluster:
    """The state machine executes the second entry, too."""
    c, _, _, c3 = asked_again()
    c3.gets("x", "green")
    return c


@recorded(CLIENTS)
def session_acknowledged_after_its_end() -> Cluster:
    """A session ends, and a request that comes later is acknowledged, though it isn't executed."""
    c, c1, c2, c3 = with_sessions()
    c2.asks_to_put("x", "blue")
    c2.is_appended(time=9)
    c2.is_told()
    c.mean("sessions end", {"expired": 5})
    c.propose("n1", "sessions end")
    c1.asks_to_put("x", "green")
    c1.is_appended()
    c1.is_told()
    c3.gets("x", "blue")
    return c

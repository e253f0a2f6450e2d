"""Who uses a cluster while it is tortured: clients with sessions, and an operator who changes its members."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from msgspec.structs import replace

from raftd.client import Client, RequestError, SessionLostError
from raftd.client_session import Session
from raftd.cluster import Cluster
from raftd.codec import Members, SessionRequest, Status
from raftd.kv import Put, encode_command
from raftworthy.linearize.recording import RecordedClient, Recorder
from raftworthy.torture.faults import PATIENCE

CLIENTS = 6
KEY_LASTS = (
    60  # so many writes, then clients go on with another key: long histories of a key are hard to judge
)
PAUSE = 0.01  # seconds between a client's requests
TIMEOUT = 3.0  # seconds in which a client asks again and again
CHANGING = 1.0  # mean seconds between two changes of the members
FEWEST = 2  # voters
COPIED = 10  # of so many puts of a session one is brought again, late


class Load:
    """Clients at work until the end of the `with`: each puts a new value, then gets one, of the same key.

    Their puts are requests of sessions, so they are tried again until somebody answers. Each value is put
    once only: executed twice it would take the place of a newer one, and the history would show it. Now and
    then the network brings another copy of one that was answered long ago, as real ones do.
    """

    def __init__(self, cluster: Cluster, recorder: Recorder, seed: int) -> None:
        self.acknowledged = 0
        self.copies = 0  # that came late
        self.failed = 0
        self.sessions = 0  # opened by clients that work
        self.operator = Operator(cluster, random.Random(f"{seed}/members"))
        self._cluster = cluster
        self._recorder = recorder
        self._written = 0
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.operator.stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as failure:
            self._failure = failure

    async def _run(self) -> None:
        async with self._cluster.client(timeout=TIMEOUT) as client:
            await asyncio.gather(self.operator.work(client), *(self._ask(client) for _ in range(CLIENTS)))

    async def _ask(self, client: Client) -> None:
        recorded: RecordedClient | None = None
        number = 0
        while not self._stopping.is_set():
            number += 1
            key = f"key {self._written // KEY_LASTS}"
            try:
                recorded = recorded or await self._open(client)
                if number % 2:
                    self._written += 1
                    await recorded.put(key, f"{recorded.name}'s {number}".encode())
                    self.acknowledged += 1
                else:
                    await recorded.get(key)
            except RequestError as error:
                self.failed += 1  # it is in the history
                if isinstance(error, SessionLostError):
                    recorded = None
            await asyncio.sleep(PAUSE)

    async def _open(self, client: Client) -> RecordedClient:
        session = await client.open_session()
        self.sessions += 1
        return self._recorder.client(InSession(client, session, self._note_copy), session.id)

    def _note_copy(self) -> None:
        self.copies += 1

    def read_all(self) -> None:
        """Read every key once more: what was acknowledged must be there."""

        async def run() -> None:
            async with self._cluster.client(timeout=PATIENCE) as client:
                reader = self._recorder.client(client)
                for number in range(self._written // KEY_LASTS + 1):
                    await reader.get(f"key {number}")

        asyncio.run(run())


class InSession:
    """A store whose puts are a session's requests; of some, a late copy follows upon the next put.

    By then the session has the answer, and says so with the next request. So the copy is refused.
    """

    def __init__(self, client: Client, session: Session, note_copy: Callable[[], None]) -> None:
        self.get = client.get
        self._client = client
        self._session = session
        self._note_copy = note_copy
        self._last = 0  # request of the session
        self._old: SessionRequest | None = None

    async def put(self, key: str, value: bytes) -> None:
        """Set a key, once."""
        self._last += 1
        await self._session.put(key, value)
        if self._old is not None:
            copy, self._old = self._old, None
            with suppress(RequestError):
                await self._client.ask_in_session(lambda id: replace(copy, id=id), None)
            self._note_copy()
        if self._last % COPIED == 0:
            command = encode_command(Put(key, value))
            self._old = SessionRequest(0, self._session.id, self._last, self._last, command)


class Operator:
    """Changes who is a member, again and again: servers learn, vote, leave, and take others' places.

    And who leads.
    """

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.counts: Counter[str] = (
            Counter()
        )  # what was committed, by kind; and what was not, as far as it knows
        self.stopping = threading.Event()
        self._cluster = cluster
        self._rng = rng

    async def work(self, client: Client) -> None:
        """Until it is to stop."""
        while not self.stopping.is_set():
            await asyncio.sleep(min(self._rng.expovariate(1 / CHANGING), 3.0))
            leader = await self._leader(client)
            if leader is None or leader.members is None:
                continue
            kind = self._rng.choice(sorted(self._possible(leader.members)))
            try:
                await self._change(client, kind, leader, leader.members)
                self.counts[kind] += 1
            except RequestError as error:
                self.counts["in doubt" if error.may_have_executed else "refused"] += 1

    async def _leader(self, client: Client) -> Status | None:
        """Who leads the newest term, and knows the members best."""
        found: list[Status] = []
        for server in self._cluster.servers:
            with suppress(RequestError):
                found.append(await client.status(server, timeout=0.5))
        return max((s for s in found if s.role == "leader"), key=lambda s: s.current_term, default=None)

    def _possible(self, now: Members) -> Iterator[str]:
        if self._strangers(now):
            yield from ("add", "add as learner", "replace")
        if now.learners:
            yield from ("promote", "remove learner")
        if len(now.voters) > FEWEST:
            yield from ("remove", "remove leader")
        yield "transfer"

    def _strangers(self, now: Members) -> list[str]:
        return [i for i in self._cluster.servers if i not in (*now.voters, *now.outgoing, *now.learners)]

    async def _change(self, client: Client, kind: str, leader: Status, now: Members) -> None:
        rng = self._rng
        match kind:
            case "add":
                await self._add(client, rng.choice(self._strangers(now)), promoted=True)
            case "add as learner":
                await self._add(client, rng.choice(self._strangers(now)), promoted=False)
            case "promote":
                await client.change_members("promote", rng.choice(now.learners))
            case "remove learner":
                await client.change_members("remove", rng.choice(now.learners))
            case "remove":
                others = [i for i in now.voters if i != leader.server]
                await client.change_members("remove", rng.choice(others))
            case "remove leader":
                await client.change_members("remove", leader.server)
            case "transfer":
                others = [i for i in now.voters if i != leader.server]
                await client.transfer(rng.choice(others))
            case "replace":  # through a joint configuration
                newcomer = rng.choice(self._strangers(now))
                await self._add(client, newcomer, promoted=False)
                kept = rng.sample(now.voters, len(now.voters) - 1)
                await client.change_members("set", voters=(*kept, newcomer))

    async def _add(self, client: Client, server: str, promoted: bool) -> None:
        address = str(self._cluster.addresses[server])
        await client.change_members("add", server, address=address, promoted=promoted)

"""The main job on real input: real servers, killed and cut off, and what their traces say.

Four scenes. Three processes that keep all rules: their traces conform, and what clients saw is linearizable.
Three of which one breaks a rule, and the trace shows where, whatever the servers themselves believe. The
specification within small bounds, where nothing goes wrong. The same without one rule, and a shortest way
to disaster.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from raftd.client import Client, RequestError
from raftd.cluster import Cluster, ClusterError
from raftd.trace import digest_of_put
from raftspec.properties import raft
from raftworthy.diagram import explain
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import RULE_CASES
from raftworthy.explore.paths import Progress, Result
from raftworthy.explore.reference import explore
from raftworthy.linearize.checking import Result as Linearized
from raftworthy.linearize.checking import check as check_history
from raftworthy.linearize.reading import read_history
from raftworthy.linearize.recording import RecordedClient, Recorder
from raftworthy.replay.explain import render
from raftworthy.replay.verdict import Verdict, check, summary

EXPECTED, UNEXPECTED = 0, 1

BROKEN_SERVER, BROKEN_RULE = "n1", "commit.majority"
MISSING_RULE = "vote.up_to_date"
BOUNDS = Bounds(max_messages=8)

HISTORY = "history.ndjson"
WIDTH = 100  # where there is no terminal

WRITERS = 4  # clients of which each writes keys of its own
RIVALS = 4  # clients that write and read the same few keys
SHARED = 3  # so many
PAUSE = 0.005  # seconds between two commands of a writer: a few hundred a second are enough to see
RIVALS_PAUSE = 0.02
# So n1 stands for election long before the others think of it.
PATIENT = ("--election-timeout", "1.0")
HASTY = ("--election-timeout", "0.15")


@dataclass(frozen=True)
class Outcome:
    """One scene: what was asked of it, and what came out."""

    name: str
    expected: str
    verdict: str
    numbers: str
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        return self.verdict == self.expected


def run_demo(console: Console | None = None, *, as_json: bool = False, keep: Path | None = None) -> int:
    """Play all scenes and print a summary. 0 if all came out as expected, otherwise 1.

    Args:
        console: where to print.
        as_json: print only data.
        keep: a folder for the servers' data, logs and traces; otherwise they are removed.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH
    teller = Teller(Console(stderr=True, quiet=True) if as_json else console)
    outcomes: list[Outcome] = []
    began = time.perf_counter()
    with _terminated_politely(), _folder(keep) as folder:
        for number, (scene, name, expected) in enumerate(SCENES, 1):
            teller.scene(number, name)
            start = time.perf_counter()
            try:
                verdict, numbers, details = scene(teller, folder / str(number))
            except (ClusterError, RequestError, OSError) as error:
                teller.say(str(error))
                verdict, numbers, details = (
                    "failed",
                    "the servers didn't do their part",
                    {"error": str(error)},
                )
            outcomes.append(Outcome(name, expected, verdict, numbers, time.perf_counter() - start, details))
    total = time.perf_counter() - began
    good = all(outcome.as_expected for outcome in outcomes)
    if as_json:
        _print_json(outcomes, total, good)
    else:
        _print_summary(console, outcomes, total, good, keep)
    return EXPECTED if good else UNEXPECTED


# --- scenes: each returns a verdict, its numbers in a line, and more for machines ------------


Scene = tuple[str, str, dict[str, Any]]


def right_servers(teller: Teller, folder: Path) -> Scene:
    """Everything that Raft tolerates happens to servers that keep all rules."""
    teller.say("three processes on this machine, each with its own data on disk; clients write all the time.")
    teller.say(
        "each server logs its steps; whether they were steps of Raft is judged from these traces alone"
    )
    with (
        Cluster(3, folder) as cluster,
        closing(Recorder(folder / HISTORY, digest_of_put)) as recorder,
        Load(cluster, recorder) as load,
    ):
        leader = cluster.leader()
        load.wait_for(100)
        teller.step(f"{leader} leads; kill -9: what it has acknowledged must survive it")
        cluster.kill(leader)
        successor = cluster.leader()
        load.wait_for(100)
        teller.step(f"{successor} leads now; {leader} starts again with what its disk holds")
        cluster.restart(leader)
        load.wait_for(50)
        leader = cluster.leader()
        follower = next(server for server in cluster.servers if server != leader)
        teller.step(f"{follower} is cut off from the others, which go on without it")
        cluster.partition({follower})
        load.wait_for(100)
        teller.step(f"{follower} is connected again, and must get what it has missed")
        cluster.heal()
        load.wait_for(50)
        load.stop()
        _converge(cluster)
        missing = _missing(cluster, load.acknowledged, recorder)
        teller.step(
            f"{len(load.acknowledged):,} writes were acknowledged ({load.failed} not, while nobody led): "
            f"{f'{len(missing)} are lost' if missing else 'all can be read, which goes through the log, too'}"
        )
    linearized = _check_history(teller, recorder.path)
    verdict = _check(teller, cluster, recorder.path)
    details = verdict.as_data() | {"history": linearized.as_data()}
    if verdict.report is None or missing:
        return "failed" if missing else verdict.verdict, "see above", details
    if linearized.verdict != "linearizable":
        return linearized.verdict, "see above", details
    r = verdict.report
    rules = len(r.exercised) + len(r.not_exercised)
    numbers = (
        f"{linearized.operations:,} linearizable operations, {r.events:,} events, {r.elections} elections, "
        f"{r.terms} terms, {r.committed:,} entries committed, {len(r.exercised)} of {rules} rules exercised"
    )
    return verdict.verdict, numbers, details


def wrong_server(teller: Teller, folder: Path) -> Scene:
    """A leader that commits without a majority answers a client, and the answer turns out wrong."""
    broken, rule = BROKEN_SERVER, BROKEN_RULE
    teller.say(f"{broken} has one line of Figure 2 wrong, {rule}: it commits what it alone stores")
    options = dict.fromkeys(("n2", "n3"), PATIENT) | {broken: (*HASTY, "--break", rule)}
    with (
        Cluster(3, folder, own_options=options) as cluster,
        closing(Recorder(folder / HISTORY, digest_of_put)) as recorder,
    ):
        _elect(cluster, broken)
        asyncio.run(_put(cluster, broken, "colour", b"green", recorder))
        if _missing(cluster, ["colour"], recorder):
            return "failed", f"{broken} lost a write before anything happened", {}
        teller.step(f"{broken} leads, and seems to do well: what is written can be read")
        cluster.partition({broken})
        asyncio.run(_put(cluster, broken, "promise", b"kept", recorder))
        teller.step(f"cut off, {broken} still says yes to a client: nobody else has the entry")
        successor = cluster.wait_until(
            lambda: server if (server := cluster.leader()) != broken else None, "another server leads"
        )
        cluster.heal()
        _converge(cluster)
        missing = _missing(cluster, ["promise"], recorder)
        teller.step(
            f"{successor} leads, the network is whole, and the acknowledged write is "
            f"{'gone; no server complains' if missing else 'still there'}"
        )
    linearized = _check_history(teller, recorder.path)
    verdict = _check(teller, cluster, recorder.path)
    details = verdict.as_data() | {"history": linearized.as_data()}
    if verdict.explanation is None:
        return verdict.verdict, "nothing found", details
    x = verdict.explanation
    teller.say(f"the first wrong step is {broken}'s first commit, long before any harm was seen")
    return (
        verdict.verdict,
        f"{Path(x.file).name}:{x.line}, {x.event} of {x.server}: rule {x.rule}",
        details,
    )


def specification(teller: Teller, folder: Path) -> Scene:
    """The specification itself keeps its promises, as far as one can see in a few seconds."""
    teller.say("what traces are compared with has to be right itself, so all that it allows is looked at:")
    teller.say(str(BOUNDS))
    with teller.progress() as progress:
        result = explore(raft, BOUNDS, progress=progress)
    if result.violation:
        teller.say(explain(result.violation.path, raft.properties[result.violation.property]).plain)
        return "violates", result.violation.property, _as_data(result)
    teller.step(
        f"{result.distinct:,} different states, and {len(raft.properties)} properties hold in all of them"
    )
    verdict = "holds within bounds" if result.exhausted else "undecided"
    return verdict, f"{result.distinct:,} states, {result.depth} steps deep", _as_data(result)


def without_a_rule(teller: Teller, folder: Path) -> Scene:
    """Why a line of Figure 2 is there: what happens without it."""
    rule = raft.rules[MISSING_RULE]
    teller.say(
        f"{MISSING_RULE} (section {rule.section}) is taken away: servers vote for any candidate's log."
    )
    teller.say("what goes wrong then, in as few steps as possible, says why the rule is there")
    with teller.progress() as progress:
        result = RULE_CASES[MISSING_RULE].explore(raft, without=[MISSING_RULE], progress=progress)
    if result.violation is None:
        return "holds within bounds", f"{result.distinct:,} states", _as_data(result)
    violation = result.violation
    width = min(teller.console.width - 2, WIDTH)
    picture = explain(violation.path, raft.properties[violation.property], [MISSING_RULE], width)
    teller.console.print()
    teller.console.print(picture, soft_wrap=True)
    numbers = f"{violation.property} after {len(violation.path)} steps, {result.distinct:,} states"
    return "violates", numbers, _as_data(result)


SCENES: tuple[tuple[Callable[[Teller, Path], Scene], str, str], ...]


# --- what happens to a cluster ---------------------------------------------------------------


class Load:
    """Clients at work until stopped: some write one new key after another, some write and read the same keys.

    What they see is recorded. A failed write of a new key is counted; nothing is repeated.
    """

    def __init__(self, cluster: Cluster, recorder: Recorder) -> None:
        self.acknowledged: list[str] = []  # keys
        self.failed = 0
        self._cluster = cluster
        self._recorder = recorder
        self._count = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let the writes under way end."""
        self._stopping.set()
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more writes are acknowledged."""
        enough = len(self.acknowledged) + more
        claim = f"{more} more writes are acknowledged"
        self._cluster.wait_until(lambda: len(self.acknowledged) >= enough, claim, 20.0)

    async def _run(self) -> None:
        async with self._cluster.client(timeout=2.0) as client:
            clients = [self._recorder.client(client) for _ in range(WRITERS + RIVALS)]
            await asyncio.gather(*map(self._write, clients[:WRITERS]), *map(self._rival, clients[WRITERS:]))

    async def _write(self, client: RecordedClient) -> None:
        while not self._stopping.is_set():
            self._count += 1
            key = f"key {self._count}"
            try:
                await client.put(key, key.encode())
                self.acknowledged.append(key)
            except RequestError:
                self.failed += 1
            await asyncio.sleep(PAUSE)

    async def _rival(self, client: RecordedClient) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            key = f"shared {count % SHARED}"
            with suppress(RequestError):  # it is in the history
                await client.put(key, f"{client.name}'s {count}".encode())
                await client.get(key)
            await asyncio.sleep(RIVALS_PAUSE)


async def _put(cluster: Cluster, server: str, key: str, value: bytes, recorder: Recorder) -> None:
    """Write through one server only."""
    async with Client({server: cluster.addresses[server]}, 10.0) as client:
        await recorder.client(client).put(key, value)


def _elect(cluster: Cluster, server: str) -> None:
    """Wait until a server leads; whoever else does meanwhile is cut off until the next leader."""
    while (leader := cluster.leader()) != server:
        cluster.partition({leader})
        cluster.wait_until(lambda old=leader: cluster.leader() != old, "another server leads")  # type: ignore[misc]
        cluster.heal()
        _converge(cluster)


def _converge(cluster: Cluster) -> None:
    """Wait until all servers have the same log."""

    def same() -> bool:
        seen = [cluster.status(server) for server in cluster.servers]
        return (
            len({(s.current_term, s.log_length, s.leader) if s else None for s in seen}) == 1
            and None not in seen
        )

    cluster.wait_until(same, "all servers have the same log", 20.0)


def _missing(cluster: Cluster, keys: list[str], recorder: Recorder) -> list[str]:
    """Those of the keys that can't be read."""

    async def run() -> list[str]:
        async with cluster.client(timeout=20.0) as client:
            values = await asyncio.gather(*map(recorder.client(client).get, keys))
        return [key for key, value in zip(keys, values, strict=True) if value is None]

    return asyncio.run(run())


def _check_history(teller: Teller, path: Path) -> Linearized:
    """Look for one order of all that clients did that explains what they were told."""
    teller.step(f"raftworthy linearize {path.name}")
    result = check_history(read_history([path]))
    teller.say(str(result).replace(f"{path.parent}{os.sep}", ""))
    return result


def _check(teller: Teller, cluster: Cluster, history: Path) -> Verdict:
    """Replay the traces of all starts of all servers, and hold what clients saw to their log."""
    files = [*sorted(cluster.traces.glob("*.ndjson")), history]
    teller.step(f"raftworthy replay {' '.join(file.name for file in files)}")
    verdict = check(files)
    if verdict.report is not None:
        text = summary(verdict.report, verdict.seconds)
        text += f"\n{verdict.clients}" if verdict.clients is not None else ""
    elif verdict.explanation is not None:
        text = render(verdict.explanation) + "\nviolates"
    else:
        text = f"{verdict.error}\nunusable"
    text = text.replace(f"{cluster.traces}{os.sep}", "").replace(f"{history.parent}{os.sep}", "")
    # Its advice is for files that stay; how to keep them, the summary says.
    teller.say("\n".join(line for line in text.splitlines() if not line.startswith("help:")))
    return verdict


SCENES = (
    (right_servers, "servers that keep all rules, killed and cut off", "conforms"),
    (wrong_server, "servers of which one breaks a rule", "violates"),
    (specification, "the specification, explored", "holds within bounds"),
    (without_a_rule, "the specification without one rule", "violates"),
)


# --- telling it ------------------------------------------------------------------------------


class Teller:
    """Says what happens, line by line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.perf_counter()

    def scene(self, number: int, name: str) -> None:
        self._print(f"\n{number}. {name}", "bold")

    def step(self, text: str) -> None:
        """Something happens; with the seconds since the beginning."""
        self._print(f"{time.perf_counter() - self._began:5.1f} s  {text}")

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self._print(f"         {line}", "dim")

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """States explored so far, on a terminal only."""
        if not self.console.is_terminal:
            yield lambda so_far: None
            return
        with self.console.status("exploring") as status:
            yield lambda p: status.update(f"exploring: {p.distinct:,} states, {p.depth} steps deep")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_summary(
    console: Console, outcomes: list[Outcome], seconds: float, good: bool, keep: Path | None
) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("what", overflow="fold")
    table.add_column("verdict")
    table.add_column("numbers", overflow="fold")
    table.add_column("s", justify="right")
    for outcome in outcomes:
        style = "green" if outcome.as_expected else "bold red"
        verdict = outcome.verdict if outcome.as_expected else f"{outcome.verdict}, not {outcome.expected}"
        table.add_row(outcome.name, f"[{style}]{verdict}", outcome.numbers, f"{outcome.seconds:.1f}")
    console.print()
    console.print(table)
    ending = "all as expected" if good else "not as expected"
    console.print(f"\n{ending}, in {seconds:.0f} s", style="bold" if good else "bold red", highlight=False)
    where = (
        f"raftworthy show {keep}/2/traces/*.ndjson draws the wrong step"
        if keep is not None
        else "to look closer, keep the traces: raftworthy demo --keep FOLDER"
    )
    console.print(where, highlight=False, markup=False, soft_wrap=True)


def _print_json(outcomes: list[Outcome], seconds: float, good: bool) -> None:
    import msgspec

    scenes = [{**msgspec.to_builtins(outcome), "as_expected": outcome.as_expected} for outcome in outcomes]
    data = {"as_expected": good, "seconds": round(seconds, 3), "scenes": scenes}
    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def _as_data(result: Result) -> dict[str, Any]:
    from raftworthy.explore.running import as_data

    return as_data(result)


# --- leaving nothing behind ------------------------------------------------------------------


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists() and not keep.is_dir():
            raise NotADirectoryError(f"{keep} is no folder: name a new one")
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            # A server that finds another run's disk would go on from there.
            raise FileExistsError(f"{keep} is not empty: name a new folder")
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="raftworthy-") as folder:
        yield Path(folder)


@contextmanager
def _terminated_politely() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that servers and folders go, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

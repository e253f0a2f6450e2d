"""The verdict on what clients saw beside traces of the servers, as text and as data."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raftworthy.linearize.checking import Result, check
from raftworthy.linearize.reading import read_history
from raftworthy.replay.meanings import requests_of
from raftworthy.replay.order import Replay
from raftworthy.witness.checking import Counts, Refuted, Witness
from raftworthy.witness.links import Links, NoWitness
from raftworthy.witness.reading import Event, client_events, initial_value
from raftworthy.witness.telling import Refutation, refutation

Progress = Callable[[int], None]
EVENTS_AT_ONCE = 8192  # between two calls of it


@dataclass(frozen=True)
class Clients:
    """What came of clients' operations: with the log as the witness, or, if it can't be, searched for."""

    verdict: Literal["linearizable", "not linearizable", "undecided"]
    files: list[str]
    counts: Counts | None = None
    refutation: Refutation | None = None
    without_log: str | None = None  # why the log isn't the witness
    searched: Result | None = None
    seconds: float = 0.0
    cpu: float = 0.0  # seconds of this process

    def as_data(self) -> dict[str, Any]:
        searched = None if self.searched is None else self.searched.as_data()
        return {**vars(self), "searched": searched}

    def __str__(self) -> str:
        if self.searched is not None:
            found = str(self.searched).replace("\n", "\n    ")
            return f"clients: checked without the servers' log: {self.without_log}\n    {found}"
        if self.refutation is not None:
            return str(self.refutation)
        assert self.counts is not None
        c = self.counts
        lines = [
            f"clients: {_count(c.operations, 'operation')} of {_count(c.clients, 'client')}, linearizable in "
            f"the order of the log ({self.seconds:.2f} s)",
            f"  {_count(c.entries, 'entry', 'entries')} of the log and {_count(c.looks, 'read')} "
            f"without one; {c.unknown:,} of unknown outcome, {c.without_effect:,} of them not in the log",
        ]
        if c.repeated:
            lines.append(
                f"  {_count(c.repeated, 'entry', 'entries')} asked once more for the same, without effect"
            )
        if c.unnamed:
            what = "a leader's no-ops, reads, and what others did, taken to change nothing"
            lines.append(f"  not checked: {_count(c.unnamed, 'entry', 'entries')} of no client's: {what}")
        if c.unsure:
            lines.append(
                f"  not checked: whether {c.unsure:,} of the entries were committed, which no line says"
            )
        return "\n".join(lines)


def _count(number: int, thing: str, things: str = "") -> str:
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def check_clients(
    files: Sequence[Path],
    replay: Replay,
    traces: Sequence[Path],
    progress: Progress = lambda done: None,
    seconds: float = 60.0,
) -> Clients:
    """Check the events of clients in some files against the log that a replay of the traces came to.

    `progress` is called with the number of events so far, those of the replay included.

    Raises:
        Unusable: they make no sense.
    """
    start, cpu = time.perf_counter(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and looking for them takes a third of the time
    try:
        found = _check(files, replay, traces, progress, seconds)
    finally:
        if collecting:
            gc.enable()
    return replace(found, seconds=time.perf_counter() - start, cpu=time.process_time() - cpu)


def _check(
    files: Sequence[Path], replay: Replay, traces: Sequence[Path], progress: Progress, seconds: float
) -> Clients:
    names = [str(path) for path in files]
    initial = initial_value(files)
    witness = Witness(links(replay), initial)
    try:
        witness.take(_counted(client_events(files), replay.number, progress))
    except Refuted as refuted:
        told = refutation(refuted, client_events(files), links(replay), initial, traces)
        return Clients("not linearizable", names, refutation=told)
    except NoWitness as no:
        result = check(read_history(files), seconds)
        return Clients(result.verdict, names, without_log=str(no), searched=result)
    return Clients("linearizable", names, witness.finish())


def _counted(events: Iterable[Event], before: int, progress: Progress) -> Iterator[Event]:
    for number, event in enumerate(events, before):
        if not number % EVENTS_AT_ONCE:
            progress(number)
        yield event


def links(replay: Replay) -> Links:
    """The log that a replay found committed, and what its last leader may have committed without a line.

    That leader may have told followers of it, and may have been started again since.
    """
    servers = list(replay.state.values())
    ahead = max((s.me for s in servers), key=lambda me: me.commit_index)
    committed = list(replay.world.past.committed)
    committed += ahead.log[len(committed) : ahead.commit_index]
    last = max(servers, key=lambda s: _led(s.me))
    unlogged = [] if last.logs_sends else last.me.log[len(committed) :]
    entries = [*committed, *unlogged]
    sessions = "sessions" in replay.extensions
    if sessions:
        _apply_all(replay)
    requests, refused = requests_of(replay.world.past, entries) if sessions else ({}, frozenset())
    return Links(entries, len(committed), requests, refused)


def _led(me: Any) -> tuple[bool, int]:
    """Whether a server leads, and in which term it does, or may have."""
    leads = me.role == "leader"
    return leads, me.current_term if leads else me.log[-1].term if me.log else 0


def _apply_all(replay: Replay) -> None:
    """Let whoever knows most apply the rest, as no line says so: the specification tells what is executed."""
    i, me = max(replay.world.variables.items(), key=lambda item: item[1].commit_index)
    while me.last_applied < me.commit_index:
        failed = replay.actions["apply_entries"](replay.world, i, me.last_applied + 1, None)
        assert not failed, f"{i} can't apply entry {me.last_applied + 1}: {failed}"

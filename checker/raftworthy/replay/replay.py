"""Replaying trace files: is what the servers did a behaviour of the specification?

Each event is explained as a short sequence of the specification's steps, run by the generated
Python back end in place. Order comes from causality alone: a server's own order, and a
receive after its send. So there is no search, one pass, and memory for the logs and a window of messages.

Here files become streams of events, merged as causality lets them. `steps` replays one
event, `restarts` knows what a crash may leave behind, `order` lets servers wait for each other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET

from raftworthy.files import Unusable
from raftworthy.replay.ledger import (
    NOT_ASKED,
    Log,
    Mismatch,
    Report,
    Stopped,
    Violation,
    differences,
    replay_actions,
)
from raftworthy.replay.order import Observer, Replay
from raftworthy.replay.reading import TraceFile, agreed


class Stream:
    """The events of one server's files, start by start, or of one file for several servers."""

    def __init__(self, files: list[TraceFile]) -> None:
        self.files = files
        self.ended = False
        self._server = files[0].first.server if files[0].first is not None else None  # if it is the only one
        self.servers: set[str] = set()  # whose events it has had so far
        self.unnumbered: set[str] = set()  # and of whom some without seq
        self._chunks = self._read()
        self._file, self._lines, self._events, self._next = "", (), [], 0  # type: tuple[str, Sequence[int], list[Any], int]

    def _read(self) -> Iterator[tuple[str, Sequence[int], list[Any]]]:
        for number, file in enumerate(self.files):
            for lines, events in file.events(lenient=number + 1 < len(self.files)):
                yield str(file.path), lines, events

    def feed(self, replay: Replay, patient: bool) -> None:
        """Replay events up to the end of a chunk, or until the stream's one server has to wait.

        A patient stream reads on, and keeps what has to wait.
        """
        only = self._server if not patient else None
        self._next = replay.feed(self._events, self._file, self._lines, self._next, only)
        if self._next == len(self._events):
            self._file, self._lines, self._events = next(self._chunks, ("", (), []))
            self._next = 0
            self.ended = not self._events
            self.servers.update(e.server for e in self._events)
            self.unnumbered.update(e.server for e in self._events if e.seq is UNSET)
            if self._server is not None and any(e.server != self._server for e in self._events):
                self._server = None


def replay_files(
    paths: Iterable[Path],
    progress: Callable[[int], None] | None = None,
    observer: Observer | None = None,
    stop_at: int | None = None,
) -> Replay:
    """Replay trace files, merging those of several servers by causality.

    Args:
        paths: one file for all servers, one per server, or one per server and start.
        progress: called now and then with the number of events replayed.
        observer: called after every event with the event, its place and the state.
        stop_at: stop before the event of this number, counted from 0 in the order of the replay.

    Raises:
        Violation: an event is not a behaviour of the specification.
        Unusable: the input can't be used.
    """
    files = [TraceFile.open(p) for p in paths]
    if not files:
        raise Unusable("replay", "no files given")
    servers, extensions, voters = agreed(files)
    replay = Replay(servers, observer, extensions, voters)
    replay.stop_at = stop_at
    replay.hurry()
    replay.generated.exercised.clear()  # of earlier replays
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and looking for them takes a third of the time
    try:
        _merge(replay, [Stream(chain) for chain in _chains(files)], progress)
        replay.finish()
    except Violation as v:
        v.servers, v.extensions, v.voters = servers, extensions, voters
        raise
    except Stopped:
        return replay
    finally:
        if collecting:
            gc.enable()
    replay.with_clients = [file.path for file in files if file.has_clients]
    if not replay.number:
        raise Unusable(", ".join(str(f.path) for f in files), "no events, so nothing was checked")
    return replay


def _merge(replay: Replay, streams: list[Stream], progress: Callable[[int], None] | None) -> None:
    """Read the streams in turn, each as far as causality lets it go."""
    several = streams if len(streams) > 1 else []
    while streams:
        before = replay.number
        for stream in streams:
            stream.feed(replay, patient=False)
            _refuse_overlaps(stream, several)
            if progress is not None:
                progress(replay.number)
        if replay.number == before and not replay.retry():
            for stream in streams:
                stream.feed(replay, patient=True)
        streams = [s for s in streams if not s.ended]


def _refuse_overlaps(stream: Stream, others: list[Stream]) -> None:
    """Events of one server in two files need numbers that say which come first.

    Raises:
        Unusable
    """
    for other in others:
        both = stream.servers & other.servers if other is not stream else set()
        for i in sorted(both & (stream.unnumbered | other.unnumbered)):
            raise Unusable(
                str(stream.files[0].path),
                f"it has events of {i}, and so has {other.files[0].path}, and nothing says which come first; "
                "number them (seq), or begin a file at each start of a server (restart, with start)",
            )


def _chains(files: list[TraceFile]) -> list[list[TraceFile]]:
    """Files that begin with starts of the same server belong together, in the order of the starts."""
    chains: dict[Any, list[TraceFile]] = {}
    for file in files:
        first = file.first
        starts = first is not None and first.event == "restart" and first.start is not UNSET
        chains.setdefault(first.server if starts else file.path, []).append(file)
    return [sorted(chain, key=lambda f: f.first.start if len(chain) > 1 else 0) for chain in chains.values()]


__all__ = [
    "NOT_ASKED", "Log", "Mismatch", "Replay", "Report", "Violation", "differences", "replay_actions",
    "replay_files",
]  # fmt: skip

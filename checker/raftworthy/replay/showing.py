"""The end of a trace as a space-time diagram in text, the event that went wrong last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import msgspec
from msgspec import UNSET
from rich.text import Text

from raftworthy.diagram import Event, lay_out
from raftworthy.explore.paths import Move, Path
from raftworthy.files import Place, Unusable
from raftworthy.generated import Variables, World
from raftworthy.replay.explain import Explanation, explain
from raftworthy.replay.reading import TraceFile
from raftworthy.replay.replay import Violation, replay_actions, replay_files


class _Before:
    """Watches a replay up to a place: counts the events first, keeps the last of them the second time."""

    def __init__(self, until: Place | None, skip: int | None = None) -> None:
        self.until = until
        self.skip = skip  # how many events not to keep; None keeps none
        self.number = 0
        self.found = False
        self.start: World | None = None
        self.rows: list[tuple[Place, Any, Move]] = []

    def __call__(self, e: Any, place: Place, world: World) -> None:
        if self.found or (
            self.until is not None and place.file == self.until.file and place.line > self.until.line
        ):
            return
        self.number += 1
        self.found = place == self.until
        if self.skip is None or self.number < self.skip:
            return
        before = self.rows[-1][2].world if self.rows else self.start
        if before is None:  # the last event that isn't shown
            copies = {i: v.copy() for i, v in world.variables.items()}
            self.start = World(copies, world.past)
            return
        after = World({**before.variables, e.server: world.variables[e.server].copy()}, world.past)
        params = (e.server,) if e.message is UNSET else (e.message,)
        self.rows.append((place, e, Move(e.event, params, () if e.sends is UNSET else e.sends, after)))


@dataclass(frozen=True)
class Window:
    """A part of a trace: its events with their places, the steps that they are, and how it ends.

    If it ends with a wrong event, that has no step.
    """

    paths: Sequence[FilePath]
    events: tuple[tuple[Place, Any], ...]
    path: Path
    wrong: Violation | None

    @classmethod
    def open(
        cls,
        paths: Sequence[FilePath],
        until: str | None = None,
        last: int = 12,
        progress: Callable[[int], None] | None = None,
    ) -> Window:
        """The last events up to `until` (FILE:LINE, or LINE of the only file), or to the first wrong one.

        Raises:
            Unusable: a file can't be used, or there is no such place.
        """
        if last < 1:
            raise Unusable(f"--last {last}", "shows nothing; give 1 or more events")
        place = _place(until, paths)

        def replay(observer: _Before) -> Violation | None:
            try:
                replay_files(paths, progress, observer)
            except Violation as v:
                return v
            return None

        violation = replay(counted := _Before(place))
        if violation is not None and not counted.found:
            place = violation.place
            replay(counted := _Before(place))
        wrong = violation if violation is not None and violation.place == place else None
        if place is not None and not counted.found and wrong is None:
            raise Unusable(str(place), f"no event stands there; {counted.number} events come before")
        # A wrong event may have been taken for a step at first; if it couldn't be, it has not been counted.
        uncounted = wrong is not None and not counted.found
        rows = _Before(place, counted.number + uncounted - last)
        if rows.skip is not None and rows.skip <= 0:
            rows.start = _start(paths[0])
        replay(rows)
        steps = [row for row in rows.rows if wrong is None or row[0] != place]
        events = [(at, e) for at, e, _ in steps]
        if wrong is not None and place is not None:
            events.append((place, wrong.event))
        if rows.start is None:  # only the wrong event, and no step before it
            rows.start = _start(paths[0])
        return cls(paths, tuple(events), Path(rows.start, tuple(move for _, _, move in steps)), wrong)

    def text(self, width: int) -> Text:
        """The diagram."""
        several = len(self.paths) > 1
        numbers = [f"{_short(p.file)}:{p.line}" if several else str(p.line) for p, _ in self.events]
        event = None
        if self.wrong is not None:
            e = self.wrong.event
            message, sent = (None if x is UNSET else x for x in (e.message, e.sends))
            event = Event(e.server, e.event, message, self._told(), sent or ())
        return lay_out(self.path, width, numbers, event)

    @cached_property
    def explanation(self) -> Explanation | None:
        """Why the last event is wrong, if it is."""
        return explain(self.wrong, self.paths) if self.wrong else None

    def _told(self) -> dict[str, Any]:
        """What the wrong event says of its server's variables, where they weren't so or shouldn't be."""
        assert self.wrong is not None
        state = self.wrong.event.state
        if state is UNSET:
            return {}
        before = _as_told(self.path.world.variables[self.wrong.event.server])
        mismatched = {m.name for m in self.wrong.mismatches}
        told = {}
        for name in state.__struct_fields__:
            value = getattr(state, name)
            if isinstance(value, dict):  # says only what changed
                value = {j: n for j, n in value.items() if before[name].get(j, 0) != n or name in mismatched}
                if not value:
                    continue
            if value is not UNSET and (value != before[name] or name in mismatched):
                told[name] = value
        return told

    def as_data(self) -> dict[str, Any]:
        """For machines: variables before the first event, the events as logged, what each changed."""
        return {
            "verdict": "violates" if self.wrong else "shown",
            "before": {i: _plain(_as_told(v)) for i, v in self.path.start.variables.items()},
            "events": list(self._events()),
            "explanation": self.explanation.as_data() if self.explanation else None,
        }

    def _events(self) -> Iterator[dict[str, Any]]:
        now = {i: _as_told(v) for i, v in self.path.start.variables.items()}
        for number, (place, e) in enumerate(self.events):
            if number < len(self.path):
                after = _as_told(self.path.moves[number].world.variables[e.server])
                changed = {name: value for name, value in after.items() if value != now[e.server][name]}
                now[e.server] = after
            else:
                changed = self._told()
            yield {
                "file": place.file,
                "line": place.line,
                "wrong": number == len(self.path),
                "event": msgspec.to_builtins(e),
                "changed": _plain(changed),
            }


def _as_told(v: Variables) -> dict[str, Any]:
    """A server's variables as traces tell them: a log by its length and its last entry's term."""
    told: dict[str, Any] = {}
    for name in v.__slots__:
        value = getattr(v, name)
        if isinstance(value, list):
            told |= {f"{name}_length": len(value), f"last_{name}_term": value[-1].term if value else 0}
        else:
            told[name] = value
    return told


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(x) if isinstance(x, frozenset) else x for name, x in values.items()}


def _short(file: str) -> str:
    """A file's name without its folder and endings."""
    return FilePath(file).name.partition(".ndjson")[0]


def _start(path: FilePath) -> World:
    """The state in which the servers of a trace start for the first time."""
    file = TraceFile.open(path)
    return replay_actions(file.servers, file.extensions).initial()


def _place(until: str | None, paths: Sequence[FilePath]) -> Place | None:
    if until is None:
        return None
    file, _, line = until.rpartition(":")
    named = [str(p) for p in paths if not file or file in (str(p), p.name, _short(str(p)))]
    if not (line.isascii() and line.isdigit()) or len(named) != 1:
        raise Unusable(
            f"--until {until}", f"names no event; give LINE or FILE:LINE, for instance {paths[0]}:2"
        )
    return Place(named[0], int(line))

"""The end of a trace as a space-time diagram in text, up to the event that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from msgspec import UNSET
from rich.console import Console
from rich.text import Text

from raftworthy.diagram import lay_out
from raftworthy.explore.reference import Move, Path
from raftworthy.generated import World
from raftworthy.replay.explain import explain, render
from raftworthy.replay.reading import Place, TraceFile, Unusable
from raftworthy.replay.replay import Violation, replay_actions, replay_files


class _Before:
    """Watches a replay up to a place: counts the events first, keeps the last of them the second time."""

    def __init__(self, until: Place | None, skip: int | None = None) -> None:
        self.until = until
        self.skip = skip  # how many events not to keep; None keeps none
        self.number = 0
        self.found = False
        self.start: World | None = None
        self.rows: list[tuple[Place, Move]] = []

    def __call__(self, e: Any, place: Place, world: World) -> None:
        if self.until is not None and place.file == self.until.file and place.line > self.until.line:
            return
        self.number += 1
        self.found = self.found or place == self.until
        if self.skip is None or self.number < self.skip:
            return
        before = self.rows[-1][1].world if self.rows else self.start
        if before is None:  # the last event that isn't shown
            copies = {i: v.copy() for i, v in world.variables.items()}
            self.start = World(copies, world.past)
            return
        after = World({**before.variables, e.server: world.variables[e.server].copy()}, world.past)
        params = (e.server,) if e.message is UNSET else (e.message,)
        self.rows.append((place, Move(e.event, params, () if e.sends is UNSET else e.sends, after)))


def run_show(paths: Sequence[FilePath], until: str | None, last: int, width: int | None = None) -> int:
    """Print the last events up to `until` (FILE:LINE, or LINE of the only file), or to the first wrong one.

    Returns the exit code: 0 shown, 1 there is a wrong event at the end, 2 unusable.
    """
    console = Console(width=width)
    try:
        place = _place(until, paths)
        wrong = _replay(paths, counted := _Before(place))
        if wrong is not None and (place is None or not counted.found):
            place = wrong.place
            _replay(paths, counted := _Before(place))
        if place is not None and not counted.found and (wrong is None or wrong.place != place):
            raise Unusable(str(place), f"no event stands there; {counted.number} events come before")
        rows = _Before(place, counted.number - last)
        if rows.skip is not None and rows.skip <= 0:
            rows.start = replay_actions(TraceFile.open(paths[0]).servers).initial()
        _replay(paths, rows)
    except Unusable as error:
        console.print(f"error: {error}", markup=False, highlight=False)
        return 2
    if rows.rows and rows.start is not None:
        path = Path(rows.start, tuple(move for _, move in rows.rows))
        several = len(paths) > 1
        numbers = [f"{FilePath(p.file).name}:{p.line}" if several else str(p.line) for p, _ in rows.rows]
        console.print(lay_out(path, console.width, numbers), soft_wrap=True)
    if wrong is not None and wrong.place == place:
        console.print(Text(render(explain(wrong, paths))), soft_wrap=True)
        return 1
    return 0


def _place(until: str | None, paths: Sequence[FilePath]) -> Place | None:
    if until is None:
        return None
    file, _, line = until.rpartition(":")
    if not line.isdigit() or (not file and len(paths) > 1):
        raise Unusable(until, "--until needs a place: FILE:LINE, or LINE where there is one file")
    return Place(file or str(paths[0]), int(line))


def _replay(paths: Sequence[FilePath], observer: _Before) -> Violation | None:
    try:
        replay_files(paths, observer=observer)
    except Violation as v:
        return v
    return None

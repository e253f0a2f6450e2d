"""What the commands share: the app they belong to, exit codes, progress, data for machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

CONFORMS, VIOLATES, UNUSABLE = 0, 1, 2

app = App(
    name="raftworthy",
    help="Is this Raft implementation right? Replay its traces, explore the specification, run a server.",
    help_format="plaintext",
    version_flags=["--version"],
)
bench = App(name="bench", help="Measure, on this machine.", help_format="plaintext")
app.command(bench)

Files = Annotated[list[Path], Parameter(name="files", help="trace files, plain, .gz or .zst")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="print data for machines")]


@contextmanager
def progress_bar(doing: str, things: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, shown when the work takes longer than two seconds."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    start = time.monotonic()
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(things),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=time.monotonic() - start > 2)

        yield update


def print_json(data: Any) -> None:
    """Data on one line a value, for machines."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def fail(message: str, json: bool = False) -> int:
    """Say why the input can't be used, for machines too if they are to read the answer."""
    if json:
        print_json({"verdict": "unusable", "error": message})
    else:
        print(f"error: {message}", file=sys.stderr)
    return UNUSABLE

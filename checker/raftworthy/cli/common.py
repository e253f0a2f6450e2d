"""What the commands share: the app they belong to, exit codes, progress, data for machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

CONFORMS, VIOLATES, UNUSABLE = 0, 1, 2


def wrong_usage(error: CycloptsError) -> Any:
    """Why a command can't be understood, and where to read on; as `Text`, for [brackets] are no style."""
    from rich.text import Text

    command = " ".join(["raftworthy", *(error.command_chain or ())])
    told = str(error).rstrip(". ,").replace(", ...", "")
    return Text(f"error: {told}; try: {command} --help")


app = App(
    name="raftworthy",
    help="Is this Raft implementation right? Replay its traces, explore the specification, run a server.",
    help_epilogue="Exit code: 0 conforms or done, 1 violates, 2 undecided or unusable, 130 Ctrl-C.",
    error_formatter=wrong_usage,
    help_format="plaintext",
    version_flags=["--version"],
)
bench = App(name="bench", help="Measure, on this machine.", help_format="plaintext")
app.command(bench)

Files = Annotated[list[Path], Parameter(name="files", help="trace files, plain, .gz or .zst")]
With = Annotated[
    list[str] | None,
    Parameter(name="--with", help="extensions: check_quorum, …, or all", negative=""),
]
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
    import json

    import msgspec

    # Not by msgspec, which refuses names of files that aren't UTF-8.
    print(json.dumps(msgspec.to_builtins(data, str_keys=True), indent=2, ensure_ascii=False))


class UnwritableError(ValueError):
    """A file that can't be written: why, and what to do."""


def check_writable(path: Path) -> None:
    """Refuse a file that can't be written, before any work is done for it.

    Raises:
        UnwritableError: it can't be.
    """
    if path.suffix in (".gz", ".zst"):
        raise UnwritableError(f"{path} would not be packed; write {path.with_suffix('')}, then pack it")
    if path.is_dir():
        raise UnwritableError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UnwritableError(f"{path} can't be written: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UnwritableError(f"{path} can't be written: this user may not write there")


def reason(error: OSError) -> str:
    """What the system refused, in words."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def fail(message: str, json: bool = False) -> int:
    """Say why the input can't be used, for machines too if they are to read the answer."""
    if json:
        print_json({"verdict": "unusable", "error": message})
    else:
        print(f"error: {message}", file=sys.stderr)
    return UNUSABLE

"""Commands for whoever has only what clients saw: histories, checked without any server's trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from raftworthy.cli.common import Json, app, fail, print_json, progress_bar

Histories = Annotated[list[Path], Parameter(name="files", help="history files, plain, .gz or .zst")]
Form = Annotated[
    Literal["native", "porcupine-kv", "jepsen-etcd"] | None,
    Parameter(name="--format", help="the files' format; told by the first line otherwise"),
]


@app.command
def linearize(files: Histories, /, *, format: Form = None, seconds: float = 60.0, json: Json = False) -> int:
    """Check what clients of a key-value store saw: is there one order of operations that explains it?

    Each operation must take effect at one moment between its invoke and its return. One without
    an answer may have happened at any time after its invoke, or never. What has no order is reduced to a few operations.
    Several files are one history, if their events have times. The format is in docs/linearize.md.
    Exit code: 0 linearizable, 1 not, 2 undecided within --seconds, or unusable.

    Args:
        seconds: how long to look for an order

    Examples:
        raftworthy linearize traces/histories/stale_read.ndjson
        raftworthy linearize etcd_000.log --format jepsen-etcd --json
    """
    from raftworthy.linearize.checking import check
    from raftworthy.linearize.reading import read_history
    from raftworthy.replay.reading import Unusable

    if not seconds > 0:
        return fail(f"--seconds {seconds:g} is no time to search in; give more than 0", json)
    try:
        history = read_history(files, format)
    except Unusable as error:
        return fail(str(error), json)
    with progress_bar("looking for an order", "returns") as progress:
        result = check(history, seconds, progress)
    print_json(result.as_data()) if json else print(result)
    return result.exit_code

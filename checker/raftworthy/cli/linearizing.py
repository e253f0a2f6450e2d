"""Commands for whoever has only what clients saw: histories, checked without any server's trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from raftworthy.cli.common import CONFORMS, VIOLATES, Json, app, bench, fail, print_json, progress_bar

Histories = Annotated[list[Path], Parameter(name="files", help="history files, plain, .gz or .zst")]
Form = Annotated[
    Literal["native", "porcupine-kv", "jepsen-etcd"] | None,
    Parameter(name="--format", help="the files' format; told by the first line otherwise"),
]


@app.command
def linearize(files: Histories, /, *, format: Form = None, seconds: float = 60.0, json: Json = False) -> int:
    """Check what clients of a key-value store saw: is there one order of operations that explains it?

    Each operation must take effect at one moment between its invoke and its return. One without
    an answer may have happened at any time after its invoke, or never. What has no order is reduced to
    a few operations.
    Several files are one history, if their events have times. The format is in docs/linearize.md.
    Exit code: 0 linearizable, 1 not, 2 undecided within --seconds, or unusable.

    Args:
        seconds: how long to look for an order

    Examples:
        raftworthy linearize traces/histories/stale_read.ndjson
        raftworthy linearize etcd_000.log --format jepsen-etcd --json
    """
    import gc

    from raftworthy.files import Unusable
    from raftworthy.linearize.checking import check
    from raftworthy.linearize.reading import read_history

    if not seconds > 0:
        return fail(f"--seconds {seconds:g} is no time to search in; give more than 0", json)
    gc.disable()  # nothing here makes cycles, and looking for them takes half of the time
    try:
        history = read_history(files, format)
        with progress_bar("looking for an order", "operations") as progress:
            result = check(history, seconds, progress)
    except Unusable as error:
        return fail(str(error), json)
    finally:
        gc.enable()
    print_json(result.as_data()) if json else print(result)
    return result.exit_code


@bench.command(name="linearize")
def bench_linearize(
    *,
    histories: Annotated[Path | None, Parameter(help="a folder of histories to decide")] = None,
    porcupine: Annotated[
        Path | None, Parameter(help="a checkout of anishathalye/porcupine, to compare with; needs go")
    ] = None,
    operations: int = 100_000,
    clients: int = 5,
    keys: int = 10,
    seed: int = 1,
    json: Json = False,
) -> int:
    """Measure how long histories take: a simulated one, or those of a folder.

    With --porcupine, decide the histories in its test_data, and run its benchmarks of them in the same run,
    each with one processor. Times are the processor's.
    Exit code: 0 measured, 1 a verdict differs from Porcupine's, 2 unusable.

    Examples:
        raftworthy bench linearize --operations 100000 --clients 50
        raftworthy bench linearize --histories porcupine/test_data
        raftworthy bench linearize --porcupine porcupine --json
    """
    from raftworthy.files import Unusable
    from raftworthy.linearize.measure import compare, measure
    from raftworthy.measure import machine

    if porcupine is not None and histories is None:
        histories = porcupine / "test_data"
    if min(operations, clients, keys) < 1:
        return fail("at least one operation, client and key, or nothing is measured", json)
    if histories is None:
        speed = measure(operations, clients, keys, seed, ("get", "put"), machine())
        print_json(speed) if json else print(speed)
        return CONFORMS
    if not histories.is_dir():
        return fail(f"{histories} is no folder; name one with histories in it", json)
    try:
        with progress_bar("looking for orders", "histories") as progress:
            found = compare(histories, porcupine, machine(), progress)
    except (Unusable, OSError) as error:
        return fail(str(error), json)
    if not found.rows:
        return fail(
            f"no histories in {histories} ({', '.join(found.unusable) or 'no .log, .txt or .ndjson'})", json
        )
    print_json({**vars(found), "differ": found.differ}) if json else print(found)
    return VIOLATES if found.differ else CONFORMS

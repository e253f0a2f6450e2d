"""The table of actions and conjuncts, filled while the proof runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raftworthy.prove.unbounded.solving import Proof

MARKS = {"proved": "[green]✓[/]", "unknown": "[red]?[/]"}


@contextmanager
def live_table() -> Iterator[Callable[[Proof, int, int], None]]:
    """A table on stderr, if that is a terminal: a row for each action, a mark for each claim."""
    if not sys.stderr.isatty():
        yield lambda proof, done, total: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    marks: dict[str, list[str]] = {}

    def table(done: int, total: int) -> Table:
        out = Table(title=f"{done} of {total} questions", title_justify="left", box=None)
        out.add_column("action")
        out.add_column("✓ proved, ? not proved, a mark for each conjunct and promise")
        for action, row in marks.items():
            out.add_row(action, "".join(row))
        return out

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=8) as live:

        def told(proof: Proof, done: int, total: int) -> None:
            marks.setdefault(proof.question.action, []).append(MARKS[proof.verdict])
            live.update(table(done, total))

        yield told

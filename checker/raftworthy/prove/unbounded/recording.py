"""What fails first without each rule and with each known bug, for the record that `why` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from raftspec.extensions import WHOLE
from raftspec.mutants import MUTANTS
from raftworthy.explore.broken_steps import Counterexample
from raftworthy.explore.unkept import extensions_of, record
from raftworthy.prove.unbounded.cores import recorded
from raftworthy.prove.unbounded.induction import Unbounded
from raftworthy.prove.unbounded.running import failing
from raftworthy.prove.unbounded.solving import Prover

NAMES = (*WHOLE.rules, *MUTANTS)


def first_broken(name: str) -> Counterexample | None:
    """The smallest step that breaks the first claim that fails without a rule or with a bug, if any does."""
    mutant = MUTANTS.get(name)
    try:
        induction = Unbounded([] if mutant else [name], mutant, extensions_of(name))
    except TypeError:  # it names a server, and can't be asked for any number of them
        return None
    prover = Prover(induction, recorded(induction.extensions))
    return failing(induction, prover, mutant).example


def record_failures(progress: Callable[[int, int], None] = lambda done, of: None) -> Path:
    """Ask about all of them, and write what is found into the package."""

    def found() -> Iterator[tuple[str, Counterexample]]:
        for k, name in enumerate(NAMES):
            progress(k, len(NAMES))
            example = first_broken(name)
            if example is not None:
                yield name, example

    return record(found())

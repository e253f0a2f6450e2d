"""Asking Z3 what may be left out of questions that are often asked, for the record that the package has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftspec.rules import RULES
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.identity import key
from raftworthy.explore.model import Model
from raftworthy.explore.natively import is_enough_to_look
from raftworthy.reduce.permits import Permits
from raftworthy.reduce.recorded import write

CHANGES = ("", *RULES, *(name for name, mutant in MUTANTS.items() if not mutant.extensions))
USUAL = (Bounds(), Bounds(crashes=1), Bounds(max_term=4, commands=2))
OF_RAFT = (Bounds(max_term=3), Bounds(max_term=6, max_log=3))  # beside these


def changed(change: str, bounds: Bounds) -> Model:
    """Raft without a rule, or with a bug; Raft, if there is no name."""
    rule = change in RULES
    return Model(raft, bounds, [change] if rule else [], None if rule or not change else MUTANTS[change])


def questions() -> list[tuple[str, Bounds]]:
    """What is asked: of each change within some bounds, and of Raft within more."""
    return [*((c, b) for b in USUAL for c in CHANGES), *(("", b) for b in OF_RAFT)]


def asked(change: str, bounds: Bounds) -> Permits:
    """What Z3 permits, now."""
    from raftworthy.reduce.proving import derive  # imports Z3

    model = changed(change, bounds)
    return derive(model, model.properties(), frozenset())


def record(progress: Callable[[int, int], None] = lambda done, of: None) -> Path:
    """Ask about each question that nothing proved isn't enough for, and write the record."""
    todo = questions()

    def answers() -> Iterator[tuple[str, Bounds, str, Permits]]:
        for k, (change, bounds) in enumerate(todo):
            progress(k, len(todo))
            model = changed(change, bounds)
            if not is_enough_to_look(model):
                yield change, bounds, key(model, model.properties()), asked(change, bounds)

    return write(version("z3-solver"), answers())

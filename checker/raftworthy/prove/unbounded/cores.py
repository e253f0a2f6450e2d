"""Which hypotheses each question needs, as recorded: where to begin, and what a promise rests on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from raftworthy.explore.broken_steps import Question
from raftworthy.prove.unbounded.induction import Unbounded
from raftworthy.prove.unbounded.solving import Proof

FILE = "cores.json"
Cores = Mapping[Question, frozenset[str]]


def recorded() -> Cores:
    """The record in the package; empty if there is none."""
    source = files("raftworthy.prove.unbounded") / FILE
    if not source.is_file():
        return {}
    rows = json.loads(source.read_text())
    return {Question(action, claim): frozenset(names) for action, claim, names in rows}


def record(proofs: Iterable[Proof]) -> Path:
    """Write what the proofs used into the package."""
    path = Path(str(files("raftworthy.prove.unbounded") / FILE))
    rows = [[p.question.action, p.question.claim, sorted(p.used)] for p in proofs]
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[\n{lines}\n]\n")
    return path


def needed(claim: str, cores: Cores, induction: Unbounded) -> list[str]:
    """The conjuncts that a promise rests on: those its proof uses, those that their proofs use, and so on."""
    todo, found = [claim], set[str]()
    while todo:
        name = todo.pop()
        used = {n for q, names in cores.items() if q.claim == name for n in names}
        new = {n for n in used if n in induction.conjuncts or n in induction.lemmas} - found
        found |= new
        todo += new
    return [n for n in induction.conjuncts if n in found]

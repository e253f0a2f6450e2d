"""Which hypotheses each question needs, as recorded: where to begin, and what a promise rests on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from raftworthy.explore.broken_steps import Question
from raftworthy.prove.unbounded.induction import Unbounded
from raftworthy.prove.unbounded.solving import Proof

# What extensions' actions do to logs as one of Figure 2 does: what that one needs is likely to do for them.
ALIKE = {"client_request": ("register_client", "session_request", "expire_sessions")}
Cores = Mapping[Question, frozenset[str]]


def _file(extension: str = "") -> Path:
    name = f"cores_{extension}.json" if extension else "cores.json"
    return Path(str(files("raftworthy.prove.unbounded") / name))


def _rows(extension: str = "") -> Cores:
    path = _file(extension)
    rows = json.loads(path.read_text()) if path.is_file() else []
    return {Question(action, claim): frozenset(names) for action, claim, names in rows}


def recorded(extensions: Iterable[str] = ()) -> Cores:
    """The record in the package: of Figure 2, and what is otherwise with extensions that have their own."""
    return {
        Question(like, q.claim): names
        for of in ("", *extensions)
        for q, names in _rows(of).items()
        for like in (q.action, *ALIKE.get(q.action, ()))
    }


def record(proofs: Iterable[Proof], extension: str = "") -> Path:
    """Write what the proofs used into the package; of an extension, what is otherwise than without."""
    usual = _rows() if extension else {}
    rows = [[*p.question, sorted(p.used)] for p in proofs if usual.get(p.question) != p.used]
    lines = ",\n".join(json.dumps(row) for row in rows)
    path = _file(extension)
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

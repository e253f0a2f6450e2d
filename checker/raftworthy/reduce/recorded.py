"""What Z3 permitted where it is often asked, recorded with the package, so that it needn't be asked again.

A question is found by a hash of all that the answer follows from: the expressions of the very specification
that is explored, its bounds, and the properties that are checked. Where any of it differs, the hash does, and
Z3 is asked. The record counts as long as the conditions are those by which it was made. Tests ask Z3 anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from raftworthy.explore.bounds import Bounds
from raftworthy.explore.identity import key
from raftworthy.explore.model import Model
from raftworthy.reduce.permits import Permits

PLACE = Path(__file__).with_name("permits.json")
# What is in this package beside the conditions that Z3 is asked about for `proving.derive`.
NO_CONDITIONS = frozenset({"__init__.py", "recorded.py", "deriving.py", "choices.py", "keeping.py"})
Known = Mapping[str, Mapping[str, Permits]]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A question for people, the missing rule or bug and the bounds; its hash; which answer it has."""

    change: str
    bounds: str
    key: str
    answer: int

    def within(self) -> Bounds:
        """The bounds as such."""
        return bounds_of(self.bounds)


class Record(msgspec.Struct, frozen=True):
    """The record in the package; `answers` are those that differ."""

    conditions: str
    z3: str
    answers: tuple[Permits, ...]
    rows: tuple[Row, ...]

    def known(self) -> Known:
        """What was permitted, by the bounds and the question's hash."""
        found: dict[str, dict[str, Permits]] = {}
        for row in self.rows:
            found.setdefault(row.bounds, {})[row.key] = replace(self.answers[row.answer], recorded=True)
        return found


def bounds_of(options: str) -> Bounds:
    """Bounds from the options that ask for them, such as `--max-term 4 --commands 2`."""
    words = options.split()
    named = zip(words[::2], words[1::2], strict=True)
    values: dict[str, Any] = {name.removeprefix("--").replace("-", "_"): int(n) for name, n in named}
    return Bounds(**values)


def conditions() -> str:
    """A hash of the conditions that Z3 is asked about."""
    sources = [file for file in sorted(PLACE.parent.glob("*.py")) if file.name not in NO_CONDITIONS]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sources)).hexdigest()[:32]


def read() -> Record:
    """The record."""
    return msgspec.json.decode(PLACE.read_bytes(), type=Record)


@cache
def _known() -> Known:
    if not PLACE.exists():
        return {}
    record = read()
    return record.known() if record.conditions == conditions() else {}


def recorded(model: Model, properties: Iterable[str]) -> Permits | None:
    """What a search of this model may leave out, if that is recorded."""
    within = _known().get(" ".join(model.bounds.options()))
    return within.get(key(model, properties)) if within else None


def write(z3: str, found: Iterable[tuple[str, Bounds, str, Permits]]) -> Path:
    """Record what Z3 of this version permitted: the change, the bounds, the question's hash, the answer."""
    answers: dict[str, int] = {}
    rows = []
    for change, bounds, hashed, permits in found:
        answer = json.dumps(msgspec.to_builtins(replace(permits, seconds=0.0, questions=0)))
        number = answers.setdefault(answer, len(answers))
        rows.append(json.dumps([change, " ".join(bounds.options()), hashed, number]))
    head = f'"conditions": "{conditions()}",\n"z3": "{z3}"'
    inside = ",\n".join(answers), ",\n".join(rows)
    PLACE.write_text(f'{{{head},\n"answers": [\n{inside[0]}\n],\n"rows": [\n{inside[1]}\n]}}\n')
    return PLACE

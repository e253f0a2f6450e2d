"""Which reductions are permitted for a question: derived by Z3 from its specification, and kept on disk.

What is kept is found by a hash of all that it follows from: the expressions of the very specification that is
explored, its bounds, the properties that are checked, the sources of the proofs, and Z3's version.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path as FilePath

import msgspec

from raftworthy.explore.identity import facts
from raftworthy.explore.model import Model
from raftworthy.kept import folder, hash_of, keep_if_possible, sources
from raftworthy.kept import kept as kept_on_disk
from raftworthy.reduce.permits import Permits, nothing

NO_Z3 = "nothing was proved: it needs Z3; try: pip install 'raftworthy[prove]'"


def permits_for(model: Model, properties: Iterable[str], unwanted: Iterable[str] = ()) -> Permits:
    """What a search of this model, begun in the initial state, may leave out, other than what is unwanted."""
    names, unwanted = list(properties), frozenset(unwanted)
    if model.bounds.max_messages is not None:
        return nothing("the number of messages is bounded, and they are not counted then")
    if find_spec("z3") is None:
        return nothing(NO_Z3)
    parts = [*_parts(model, names), *sorted(unwanted)]
    place = _place(parts)
    if place is not None and (text := kept_on_disk(place)) is not None:
        return msgspec.json.decode(text, type=Permits)
    began = time.process_time()
    from raftworthy.reduce.proving import derive  # imports Z3

    found = derive(model, names, unwanted)
    found = replace(found, seconds=time.process_time() - began)
    if place is not None:
        keep_if_possible(place, msgspec.json.encode(found))
    return found


def kept_by_steps(model: Model, kept: list[str], others: list[str]) -> str:
    """Why not every step keeps these properties where the others hold; empty if it does."""
    if find_spec("z3") is None:
        return NO_Z3
    place = _place(["kept by steps", repr(kept), *_parts(model, [*kept, *others])])
    if place is not None and (text := kept_on_disk(place)) is not None:
        return text.decode()
    from raftworthy.reduce.keeping import broken  # imports Z3

    why = broken(model, kept, others)
    if place is not None:
        keep_if_possible(place, why.encode())
    return why


def _parts(model: Model, properties: list[str]) -> Iterator[str]:
    """Everything that the answer follows from, other than sources."""
    from importlib.metadata import version  # takes longer to import than the rest of this package

    yield f"z3 {version('z3-solver')}"
    yield from facts(model, properties)


def _place(parts: Iterable[str]) -> FilePath | None:
    where = folder()
    return where / f"{hash_of([*parts, _sources()])}.proof" if where is not None else None


@cache
def _sources() -> str:
    above = FilePath(__file__).parent.parent
    return sources(*(str(above / name / "__init__.py") for name in ("reduce", "prove")))

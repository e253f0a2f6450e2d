"""The native back end: a specification compiled to machine code, and a breadth-first search over it.

`layout` says how values lie in words, `lowering` how operations become instructions, `actions` builds what
takes steps, `successors` what becomes of them, `fingerprints` and `symmetry` by what states are known,
`program` what searches among them; `compiling` compiles it, or finds it on disk by what `identity` writes
down. `search` has a `team` of threads search, each in its `shard`, or a `cluster` of processes; `checkpoint`
keeps it for later, and `engine` answers.
Whoever imports only this module needs neither llvmlite nor numpy.
"""

from __future__ import annotations

import importlib.util

from raftworthy.explore.bounds import UnusableError

NEEDS = "it needs llvmlite and numpy: pip install llvmlite numpy"


class NoPlaceError(UnusableError):
    """A value that the native back end has no bits for; the text says which. Python can hold it."""


def available() -> bool:
    """Whether the packages that the native back end needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("llvmlite", "numpy"))

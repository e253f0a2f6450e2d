"""Fingerprints that memory had no room for: sorted runs on disk.

When a thread's tables are full and may not grow, all they hold becomes a run, and they are empty again. From
then on a state that isn't in a table may still have been seen. That question is put off: at the end of the
level, or before the next run is written, the level's fingerprints are sorted and looked up in all runs, in
order; a state found there is dead. Only large searches come to that, so numpy is imported then.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raftworthy.native.storage import Disk, Words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_RUNS = 8  # before they are merged into one
MERGED_AT_ONCE = 1 << 20  # fingerprints


class Runs:
    """One thread's runs."""

    def __init__(self, disk: Disk, owner: int) -> None:
        self.disk, self.owner = disk, owner
        self.names: list[str] = []
        self.number = 0
        self._open: dict[str, npt.NDArray[np.uint64]] = {}

    def __bool__(self) -> bool:
        return bool(self.names)

    def add(self, *tables: Words) -> None:
        """Write a run of all fingerprints in these tables, in any order; 0 is a free place."""
        import numpy as np

        taken = [table[table != 0] for table in map(np.asarray, tables)]
        keys = np.sort(np.concatenate(taken), kind="stable")  # tables are nearly in order
        with self._new().open("wb") as file:
            file.write(keys.data)
        self.disk.written += keys.nbytes
        if len(self.names) > MOST_RUNS:
            self._merge()

    def contain(self, keys: Words) -> npt.NDArray[np.bool_]:
        """Which of these fingerprints are in a run."""
        import numpy as np

        ascending = np.asarray(keys)
        order, hits = np.argsort(ascending), np.zeros(len(keys), np.bool_)
        ascending = ascending[order]
        for name in self.names:
            run = self._run(name)
            places = np.searchsorted(run, ascending)
            inside = places < len(run)
            hits[inside] |= run[places[inside]] == ascending[inside]
        out = np.empty(len(keys), np.bool_)
        out[order] = hits
        return out

    def _new(self) -> Path:
        self.number += 1
        self.names.append(f"run-{self.owner}-{self.number}")
        return self.disk.path(self.names[-1])

    def _run(self, name: str) -> npt.NDArray[np.uint64]:
        import numpy as np

        if name not in self._open:
            self._open[name] = np.memmap(self.disk.path(name), np.uint64, "r")
        return self._open[name]

    def _merge(self) -> None:
        """Make one run of all, a part of the range of fingerprints at a time."""
        import numpy as np

        old = list(self.names)
        runs = [self._run(name) for name in old]
        parts = sum(map(len, runs)) // MERGED_AT_ONCE + 1
        low = [min(int(r[0]) for r in runs), max(int(r[-1]) for r in runs) + 1]
        edges = [low[0] + (low[1] - low[0]) * k // parts for k in range(1, parts)]
        starts = [0] * len(runs)
        path = self._new()
        with path.open("wb") as file:
            for edge in [*edges, None]:
                ends = [len(r) if edge is None else int(np.searchsorted(r, np.uint64(edge))) for r in runs]
                merged = np.unique(
                    np.concatenate([r[a:b] for r, a, b in zip(runs, starts, ends, strict=True)])
                )
                file.write(merged.data)
                self.disk.written += merged.nbytes
                starts = ends
        self.names = self.names[-1:]
        for name in old:
            del self._open[name]
            self.disk.discard(name)

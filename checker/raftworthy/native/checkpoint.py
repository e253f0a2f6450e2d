"""Checkpoints: a search's state on disk, from which it goes on as if nothing had happened.

A checkpoint is a small file that says how long other files were when it was made; those only grow, and
what it needs isn't removed before there is a newer one. It is written beside the old one, made durable, and
put in its place at once, so a kill at any moment leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raftworthy.explore.bounds import UnusableError
from raftworthy.generated import World
from raftworthy.native.search import LostError, Search
from raftworthy.native.storage import Disk
from raftworthy.native.team import make_durable

FILE = "checkpoint.json"
LOCK = "lock"
FORMAT = 3
MOST_LOSSES = 3


class Checkpoints:
    """The checkpoints of a search, made every so many seconds, if at all."""

    def __init__(
        self,
        search: Search,
        disk: Disk,
        start: World,
        every: float | None,
        asked: Mapping[str, Any] | None = None,
        crew: str = "threads",
    ) -> None:
        """`asked` are the options of the command that goes on with it, `crew` says who searches."""
        self.search, self.disk, self.start, self.every, self.asked = search, disk, start, every, asked
        self.number = 0
        self.made: dict[str, Any] | None = None  # the last one
        self.losses = self.replaced = 0  # of workers, since then and in all
        self.last = time.perf_counter()
        self._lock: int | None = None
        program, lay = search.program, search.program.layout
        first = f"{lay.pack(start)} {sorted(map(lay.pack_message, start.messages))}"
        # What can be said of a question in words, and all of it as a hash.
        self.question: dict[str, Any] = {
            "bounds": str(lay.bounds),
            "without": sorted(program.model.without),
            "mutant": program.model.mutant.name if program.model.mutant else None,
            "properties": [*program.invariants, *program.step_properties],
            "symmetry": program.symmetry,
            crew: search.crew.size,
            "beginning": hashlib.sha256(first.encode()).hexdigest(),
            "program": program.key,
        }

    def due(self, now: float) -> bool:
        """Whether it is time for another."""
        return self.every is not None and now - self.last >= self.every

    def refuse_another(self) -> None:
        """Make sure that no checkpoint is overwritten by another search.

        Raises:
            UnusableError: there is one, or another process uses the folder.
        """
        folder = self.disk.given
        if folder is None:
            return
        self._take(folder)
        if (folder / FILE).exists():
            raise UnusableError(
                f"{folder} holds a checkpoint; go on with: raftworthy explore --resume {folder}, or remove it"
            )

    def _take(self, folder: Path) -> None:
        """Keep other processes out of the folder."""
        folder = self.disk.folder
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnusableError(f"another process explores in {folder}") from error

    def finish(self) -> None:
        """Remove what there is nothing to go on from any more, but not the folder."""
        if self._lock is not None:
            for name in (FILE, LOCK):
                self.disk.path(name).unlink(missing_ok=True)
            with contextlib.suppress(LostError):  # whoever is lost leaves its files behind
                self.search.crew.clear()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, seconds: float) -> None:
        """Make a checkpoint, after so many seconds of searching."""
        search, disk = self.search, self.disk
        self.number += 1
        shards = search.crew.save(self.number)
        data = {
            "format": FORMAT, "question": self.question, "asked": self.asked, "number": self.number,
            "depth": search.depth, "frontier": search.frontier, "seconds": seconds, "shards": shards,
        }  # fmt: skip
        new = disk.path(FILE + ".new")
        with new.open("w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(disk.path(FILE))
        make_durable(disk.folder)
        self.made, self.losses = data, 0
        search.crew.keep(shards)
        self.last = time.perf_counter()

    def resume(self) -> float:
        """Take up the checkpoint; how many seconds it had taken.

        Raises:
            UnusableError: there is none, or it is of another question.
        """
        folder = self.disk.given
        assert folder is not None
        data = read(folder)
        ours, theirs = self.question, data["question"]
        for name, mine in ours.items():
            if theirs.get(name) != mine:
                was = "" if name in ("beginning", "program") else f": {theirs.get(name)}, not {mine}"
                raise UnusableError(f"the checkpoint in {folder} is of another {NAMES.get(name, name)}{was}")
        self._take(folder)
        self._go_on(data)
        return float(data["seconds"])

    def go_back(self) -> None:
        """Do again what was done since the last checkpoint, or all: somebody was lost since.

        Raises:
            UnusableError: that happened too often since it was made.
        """
        while True:
            self.losses += 1
            self.replaced += 1
            if self.losses > MOST_LOSSES:
                raise UnusableError(
                    f"workers died {self.losses} times since the last checkpoint; more memory?"
                )
            with contextlib.suppress(LostError):
                self.search.crew.recover()
                if self.made is None:
                    self.search.begin(self.start)
                else:
                    self._go_on(self.made)
                return

    def _go_on(self, data: dict[str, Any]) -> None:
        search = self.search
        try:
            search.tallies = search.crew.load(data["shards"])
        except (OSError, KeyError) as error:
            raise UnusableError(f"the checkpoint in {self.disk.folder} is damaged: {error}") from error
        search.depth, search.frontier = data["depth"], data["frontier"]
        self.number, self.made = data["number"], data


NAMES = {
    "program": "specification or version of raftworthy", "without": "set of rules taken away",
    "threads": "number of threads", "workers": "number of workers", "beginning": "first state",
    "bounds": "size",
}  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """The checkpoint in a folder.

    Raises:
        UnusableError: there is none that can be read.
    """
    try:
        data: dict[str, Any] = json.loads((folder / FILE).read_text())
        if data["format"] == FORMAT:
            return data
    except FileNotFoundError as error:
        raise UnusableError(f"there is no checkpoint in {folder}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableError(f"the checkpoint in {folder} can't be read: {error}") from error
    raise UnusableError(f"the checkpoint in {folder} is of another version of raftworthy")

"""What an exploration may use: threads, memory, a folder on disk; and how it goes on after a stop."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raftworthy.explore.bounds import UnusableError
from raftworthy.native import available

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
CHECKPOINT_MINUTES = 5.0
LEAST_MEMORY = 8 << 20  # bytes, for each thread
FALSE = "something false was found so"


@dataclass(frozen=True)
class Workers:
    """Processes of a cluster that search together: how many, and its address unless it is started here."""

    number: int | None = None  # None: as many as it has cores
    address: str | None = None


@dataclass(frozen=True)
class Means:
    """What the native engine may use. None of it changes what is found, only how long it takes."""

    threads: int | None = None  # None: as many as the machine lets this process use
    memory: str | None = None  # as 4G; what is more goes to disk
    disk: Path | None = None
    resume: bool = False
    exact: bool = False
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    asked: Mapping[str, Any] | None = None  # the question, for whoever goes on from a checkpoint
    workers: Workers | None = None  # instead of threads

    @property
    def asked_for(self) -> bool:
        """Whether anything was chosen that only the native engine knows."""
        return replace(self, asked=None) != Means()

    def keeping(self, question: Mapping[str, Any]) -> Means:
        """With the question to be kept in checkpoints; how many threads there are belongs to it."""
        if self.workers is not None:
            return replace(self, asked=dict(question))
        threads = question["threads"] or self.options()["threads"]
        return replace(
            self, threads=threads if self.asked_for else None, asked={**question, "threads": threads}
        )

    def options(self) -> dict[str, Any]:
        """The arguments for `explore_native`.

        Raises:
            UnusableError: the memory isn't a size, or there can't be so many threads.
        """
        if self.threads is not None and self.threads < 1:
            raise UnusableError(f"threads is {self.threads}; the least is 1")
        if self.workers is not None and (self.threads is not None or self.exact):
            raise UnusableError(
                "--engine ray has workers with a thread each; leave out --threads and --exact"
            )
        if self.workers is not None and self.workers.number is not None and self.workers.number < 1:
            raise UnusableError(f"workers is {self.workers.number}; the least is 1")
        if self.checkpoint_minutes < 0:
            raise UnusableError(f"checkpoint_minutes is {self.checkpoint_minutes}; the least is 0")
        threads = 1 if self.exact and self.threads is None else self.threads or usable_cores()
        sharing, what = threads, "threads"
        if self.workers is not None:
            threads, sharing, what = 1, self.workers.number or 1, "workers"
        memory = None if self.memory is None else size_of(self.memory)
        if memory is not None and memory < sharing * LEAST_MEMORY:
            least = f"the least is {sharing * LEAST_MEMORY >> 20}M for {sharing} {what}"
            raise UnusableError(f"{self.memory} of memory is too little; {least}")
        return {
            "threads": threads,
            "limit_memory": memory,
            "disk": self.disk,
            "resume": self.resume,
            "exact": self.exact,
            "checkpoint_every": self.checkpoint_minutes * 60,
            "asked": self.asked,
            "workers": self.workers,
        }


def refuted(asked: Mapping[str, Any] | None, reduction: str) -> Mapping[str, Any] | None:
    """A question after a reduction led to something false: whoever goes on does without it, too."""
    return asked and {**asked, "unwanted": sorted({*asked["unwanted"], reduction})}


def usable_cores() -> int:
    """How many processors this process may run on; at most 64."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 64)


def size_of(text: str) -> int:
    """A number of bytes, from a text such as 4G.

    Raises:
        UnusableError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UnusableError(f"{text} is no size of memory; write for instance 500M or 4G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def resumed(folder: Path, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The question of the checkpoint in a folder. Whatever was given beside it must be in it.

    `usual` are the bounds if none are given.

    Raises:
        UnusableError: there is no checkpoint, or it is of another question.
    """
    if not available():
        raise UnusableError("to go on, the native engine is needed: pip install 'raftworthy[native]'")
    from raftworthy.native.checkpoint import read  # imports llvmlite

    asked = read(folder)["asked"]
    if asked is None:
        raise UnusableError(f"the checkpoint in {folder} doesn't say what was asked; go on from Python")
    plain: dict[str, Any] = {
        "mutant": None,
        "without": [],
        "any_policy": False,
        "properties": None,
        "symmetry": True,
        "unwanted": [],
    }
    usual = {
        **plain,
        "start": "initial",
        "threads": None,
        "find": None,
        "engine": "auto",
        "workers": None,
        **usual,
    }
    for name, value, was in [
        *((name, value, asked["bounds"][name]) for name, value in given["bounds"].items()),
        *((name, value, asked[name]) for name, value in given.items() if name != "bounds"),
    ]:
        if value not in (usual[name], was):
            option = name.replace("_", " ")
            raise UnusableError(f"the checkpoint in {folder} is of a search with {option} {was}, not {value}")
    return dict(asked)

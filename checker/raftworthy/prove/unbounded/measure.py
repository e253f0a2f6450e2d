"""How long the unbounded proof takes, with the record and without, for several of Z3's seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from raftworthy.prove.unbounded.cores import recorded
from raftworthy.prove.unbounded.induction import Unbounded
from raftworthy.prove.unbounded.solving import Prover


class Run(NamedTuple):
    """One run: `retried` questions were not proved from the first set of hypotheses."""

    seed: int
    cores: bool
    proved: int
    unknown: int
    retried: int
    slowest: float
    cpu_seconds: float


def measure_prove(seeds: int, cores: bool, progress: Callable[[int, int | None], None]) -> list[Run]:
    """Prove all for each seed, in a process of its own: what Z3 was asked before changes its ways.

    The seconds are the whole process's: start, reading the specification and making the questions included.
    """
    alone = get_context("spawn")
    with ProcessPoolExecutor(1, alone, max_tasks_per_child=1) as pool:
        out = []
        for run in pool.map(_run, range(seeds), [cores] * seeds):
            out.append(run)
            progress(len(out), seeds)
    return out


def _run(seed: int, cores: bool) -> Run:
    induction = Unbounded()
    prover = Prover(induction, recorded() if cores else {}, seed)
    proofs = [prover.prove(q) for q in induction.questions()]
    proved = sum(p.verdict == "proved" for p in proofs)
    return Run(
        seed,
        cores,
        proved,
        len(proofs) - proved,
        sum(p.tries > 1 for p in proofs),
        round(max(p.seconds for p in proofs), 2),
        round(time.process_time(), 2),
    )


def table(runs: list[Run]) -> str:
    """The runs, and the range of their seconds."""
    lines = [f"{'seed':>4} {'proved':>7} {'unknown':>8} {'retried':>8} {'slowest':>8} {'CPU s':>6}"]
    lines += [
        f"{r.seed:4} {r.proved:7} {r.unknown:8} {r.retried:8} {r.slowest:8.2f} {r.cpu_seconds:6.2f}"
        for r in runs
    ]
    seconds = sorted(r.cpu_seconds for r in runs)
    lines.append(
        f"{len(runs)} seeds, {sum(r.unknown for r in runs)} unknown; CPU seconds: least {seconds[0]}, "
        f"median {seconds[len(seconds) // 2]}, most {seconds[-1]}"
    )
    return "\n".join(lines)

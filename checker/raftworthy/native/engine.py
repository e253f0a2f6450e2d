"""Exploring natively: what was asked, searched by threads, and a result that Python has checked.

Finds what the reference explorer finds, within the same bounds, and gives the same results. A
counterexample is rebuilt from the steps that were written down for each new state, and taken again
by the Python back end before anybody sees it.

Memory: at most 15 bytes a state for the fingerprints, and the two levels at hand. How states were reached, 16
bytes for each, goes to disk, and the rest does when there is too much of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from threading import Event
from typing import Any

from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.means import FALSE, Workers, refuted
from raftworthy.explore.model import Model
from raftworthy.explore.paths import EXHAUSTED, VIOLATED, Path, Progress, Result, Violation
from raftworthy.explore.reference import PROGRESS_EVERY
from raftworthy.generated import World
from raftworthy.native.checkpoint import Checkpoints
from raftworthy.native.context import Stop
from raftworthy.native.expanding import SpuriousError, genuine
from raftworthy.native.program import Program
from raftworthy.native.search import Crew, LostError, Search, interrupts, refuse, successors
from raftworthy.native.storage import Disk, memory_to_use
from raftworthy.native.team import Team, Work
from raftworthy.reduce.permits import Permits

__all__ = ["NativeResult", "explore_native", "retrace", "successors"]

MOST_THREADS = 64

HOPELESS = "stopped, as there seemed to be many more states"

# Seconds of a search after which better code for the rest of it pays, without reductions and with them: then
# there is more to compile.
LONG = (0.3, 2.0)


@dataclass(frozen=True)
class NativeResult(Result):
    """What a native search found, and what it took."""

    memory: int = 0  # bytes, at most
    table_memory: int = 0  # bytes, for the fingerprints in the end
    disk: int = 0  # bytes written
    threads: int = 1  # or workers
    work: tuple[Work, ...] = ()  # of each worker, if it was by a cluster
    replaced: int = 0  # workers that were lost
    exact: bool = False
    cpu: float = 0.0  # seconds of all threads
    prepared: float = 0.0  # seconds to compile
    cached: bool = False  # whether the code was on disk
    permits: Permits | None = None  # what was left out, if anything could be


def retrace(model: Model, program: Program, start: World, steps: Iterable[tuple[int, int]]) -> Path:
    """The path that these choices make, taken by the Python back end."""
    path, sent = Path(start), sorted(start.messages, key=repr)
    for number, ordinal in steps:
        t = program.transitions[number]
        if t.action.message:
            params = (sent[ordinal],)
        else:
            params = program.params(t, ordinal, f"c{path.world.past.commands + 1}")
        move = model.take(path.world, t.name, params)
        if move is None:
            raise AssertionError(f"the two back ends disagree: {t.name}{params} is not possible")
        path = path.then(move)
        sent += [m for m in dict.fromkeys(move.sent) if m not in sent]
    return path


def explore_native(
    model: Model,
    *,
    properties: Iterable[str] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    limit_memory: int | None = None,
    start: Path | World | None = None,
    threads: int = 1,
    exact: bool = False,
    disk: FilePath | None = None,
    resume: bool = False,
    checkpoint_every: float = 300.0,
    asked: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
    permits: Permits | None = None,
    hopeless: Callable[[int, int], bool] | None = None,
    interrupted: Event | None = None,
) -> NativeResult:
    """As `explore.explore_model`, by the native engine.

    Args:
        model: what to explore.
        properties: what to check; all, if it is None.
        symmetry: take states that differ in servers' names only for one.
        progress: told now and then how far it is.
        limit_states: stop at about this number of distinct states.
        limit_memory: bytes; what is more goes to disk.
        start: where to begin.
        threads: how many; each owns a range of fingerprints.
        exact: compare whole states, in memory, by one thread.
        disk: a folder for what memory has no room for, and for checkpoints; else a temporary one.
        resume: go on from the checkpoint in that folder.
        checkpoint_every: seconds between checkpoints, if there is a folder.
        asked: the options of a command, which a checkpoint keeps for whoever goes on with it.
        workers: search by processes of a cluster instead of threads, and keep checkpoints anyway.
        permits: what may be left out; proved of this model, these properties and the initial state.
        hopeless: a search that is only tried asks this after each level: how many states there are, and how
            many of them are new. It leaves no checkpoint, and is given up when it is interrupted.
        interrupted: set when Ctrl-C or SIGTERM ask to stop, if the caller has them noted.

    Raises:
        NoPlaceError: a value of the model has no place in this engine's words.
        UnusableError: a property is not known, or a checkpoint is of something else.
    """
    spec, bounds, mutant = model.spec, model.bounds, model.mutant
    wanted = model.properties(properties)
    if exact and (disk is not None or threads > 1 or workers is not None):
        raise UnusableError("an exact search keeps all in memory, and has one thread and no checkpoints")
    if not 0 < threads <= MOST_THREADS:
        raise UnusableError(f"{threads} threads: from 1 to {MOST_THREADS} are possible")
    prefix = start if isinstance(start, Path) else Path(start or model.generated.initial())
    compiling = time.perf_counter()
    reduced = permits is not None and permits.any
    # Most searches are over before better code would be compiled.
    level = 0 if workers is None else 2
    program = Program(model, wanted, symmetry, level, exact=exact, permits=permits if reduced else None)
    prepared = time.perf_counter() - compiling
    memory = limit_memory if limit_memory is not None else memory_to_use()
    files = Disk(disk)
    crew: Crew
    if workers is None:
        crew = Team(program.functions, range(threads), threads, memory, files)
        every = checkpoint_every if disk is not None else None
    else:
        from raftworthy.native.cluster import Cluster  # imports Ray

        crew, every = Cluster(program.functions, workers, limit_memory, files), checkpoint_every
        asked = {**asked, "workers": crew.size} if asked is not None else None
    search = Search(program, crew)
    checkpoints = Checkpoints(search, files, prefix.world, every, asked, "workers" if workers else "threads")
    began, cpu = time.perf_counter(), time.process_time()
    earlier = 0.0  # seconds

    def result(stopped: str, violation: Violation | None = None) -> NativeResult:
        distinct = search.distinct
        return NativeResult(
            bounds, model.without, mutant.name if mutant else None, symmetry, search.steps, distinct,
            search.depth, earlier + time.perf_counter() - began, stopped, violation,
            collision=0.0 if exact else distinct**2 / 2 ** (64 if symmetry else 65),
            memory=search.peak_memory, table_memory=search.table_bytes, disk=crew.written(),
            threads=crew.size, work=crew.work(),
            replaced=checkpoints.replaced, exact=exact, cpu=time.process_time() - cpu, prepared=prepared,
            cached=program.cached, permits=permits,
        )  # fmt: skip

    def broken(name: str, steps: list[tuple[int, int]]) -> NativeResult:
        if reduced:
            again = genuine(model, program, prefix.world, steps, name)
        else:
            again = retrace(model, program, prefix.world, steps)
        claim = model.generated.properties[name]
        states = again.worlds()[-spec.properties[name].states :]
        assert not claim(*states), f"the two back ends disagree: {name} holds"
        return result(VIOLATED, Violation(name, spec.properties[name].doc, prefix.then(*again.moves)))

    shown, limit = began, limit_states if limit_states is not None else 1 << 62

    def advance(stopped: Event) -> NativeResult | None:
        """Do a round; what came of it all, if it is the last one."""
        nonlocal shown, prepared, cpu
        found = search.round(limit)
        now = time.perf_counter()
        if found and found.why is Stop.VIOLATED:
            name = [*program.invariants, *program.step_properties][found.property - 1]
            steps = [*search.steps_to(found.shard, found.parent), found.move]
            search.depth += 1
            checkpoints.finish()
            return broken(name, steps)
        if found:
            raise refuse(found, program)
        if search.distinct >= limit:
            return result(f"stopped at the limit of {limit_states} states")
        if progress and now - shown > PROGRESS_EVERY:
            shown = now
            progress(Progress(search.steps, search.distinct, search.depth, search.frontier, now - began))
        if program.level == 0 and now - began > LONG[reduced]:
            used, took = time.process_time(), time.perf_counter()
            program.compile(2)
            cpu, prepared = cpu + time.process_time() - used, prepared + time.perf_counter() - took
        if search.level_done:
            search.descend()
            search.depth += bool(search.frontier)
            if hopeless and hopeless(search.distinct, search.frontier):
                return result(HOPELESS)
        if stopped.is_set() and search.frontier:
            if hopeless:
                return result(HOPELESS)
            if exact:
                return result("interrupted; an exact search leaves no checkpoint")
            checkpoints.save(earlier + now - began)
            files.stays = True
            return result(f"interrupted; go on with: raftworthy explore --resume {files.folder}")
        if checkpoints.due(now):
            checkpoints.save(earlier + now - began)
        return None

    try:
        if resume:
            earlier = checkpoints.resume()
        else:
            checkpoints.refuse_another()
            try:
                search.begin(prefix.world)
            except LostError:
                checkpoints.go_back()
            for name in program.invariants:
                if not model.generated.properties[name](prefix.world):
                    return broken(name, [])
        noted = interrupted or (Event() if hopeless else None)
        with nullcontext(noted) if noted else interrupts() as stopped:
            while search.frontier:
                try:
                    if (outcome := advance(stopped)) is not None:
                        return outcome
                except LostError:
                    checkpoints.go_back()
        checkpoints.finish()
        return result(EXHAUSTED)
    except MemoryError:
        return result(f"stopped at the limit of {memory / 1e9:.1f} GB of memory")
    except OSError as error:
        raise UnusableError(f"what memory has no room for can't be kept on disk: {error}") from error
    except SpuriousError:
        if permits is None or not permits.assumed:
            raise
        less = replace(permits, assumed=False, off={**permits.off, "assumed": FALSE})
        asked = refuted(asked, "assumed")
    finally:
        checkpoints.close()
        crew.close()
    return explore_native(
        model, properties=properties, symmetry=symmetry, progress=progress, limit_states=limit_states,
        limit_memory=limit_memory, start=start, threads=threads, disk=disk, asked=asked, permits=less,
        checkpoint_every=checkpoint_every, workers=workers, hopeless=hopeless, interrupted=interrupted,
    )  # fmt: skip

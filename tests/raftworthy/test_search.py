"""The native search: the same counts with any number of threads, any memory, and after any interruption."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")

import numpy as np
from llvmlite import ir

from raftspec.properties import raft
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.means import Means, size_of
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Result
from raftworthy.explore.reference import explore_model
from raftworthy.native import engine, runs, team
from raftworthy.native.compiling import key_of, machine_code
from raftworthy.native.context import At, Table
from raftworthy.native.engine import NativeResult, explore_native
from raftworthy.native.program import Program
from raftworthy.native.storage import Disk, Stream, address_of, zero_words
from raftworthy.native.table import Tables
from raftworthy.native.words import Code

BOUNDS = Bounds(max_messages=8)
LARGE = Bounds(max_messages=10)
TINY = {1: 1_800_000, 2: 2_600_000}  # bytes for so many threads: too few for the large one's fingerprints


def counts(result: Result) -> tuple[Any, ...]:
    return (result.stopped, result.states, result.distinct, result.depth)


@pytest.fixture(scope="module")
def expected() -> tuple[Any, ...]:
    """What the reference says of BOUNDS without symmetry."""
    return counts(explore_model(Model(raft, BOUNDS), symmetry=False))


@pytest.fixture(scope="module")
def large() -> tuple[Any, ...]:
    """What one thread in memory says of LARGE without symmetry."""
    result = explore_native(Model(raft, LARGE), symmetry=False)
    assert result.exhausted
    return counts(result)


# --- threads -----------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_counts_are_those_of_the_reference_with_any_number_of_threads(
    threads: int, expected: tuple[Any, ...], large: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "FEW", 0)
    result = explore_native(Model(raft, BOUNDS), symmetry=False, threads=threads)
    assert counts(result) == expected
    assert result.threads == threads
    assert counts(explore_native(Model(raft, LARGE), symmetry=False, threads=threads)) == large


@pytest.mark.parametrize("few", [0, team.FEW])
def test_threads_find_a_shortest_counterexample(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same that one thread finds, if levels are small."""
    monkeypatch.setattr(team, "FEW", few)
    model = Model(raft, Bounds(max_term=3, max_messages=7), ["commit.majority"])
    expected = explore_native(model, symmetry=False).violation
    assert expected is not None
    for threads in (2, 3):
        found = explore_native(model, symmetry=False, threads=threads).violation
        assert found is not None
        assert len(found.path) == len(expected.path)
        assert few == 0 or found == expected


def test_a_fingerprint_is_put_in_once_whoever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looked it up and found a free place, and others have come between."""
    monkeypatch.setenv("RAFTWORTHY_CACHE", "off")
    tables, module = Tables(exact=False), ir.Module("put")
    code = Code(module, "put", 4, 1, inside=False)
    context, g, place, key = code.args
    table = tables.described(code, context, g)
    code.leave(tables.put(code, context, table, place, key).number())
    assert "cmpxchg" in str(module)  # what the processor does in one step
    compiled = machine_code(key_of(["put"]), lambda: module, 0)
    put = compiled.function("put", ctypes.c_void_p, *[ctypes.c_int64] * 3)
    places, words, described = zero_words(4), zero_words(At.SCRATCH), zero_words(Table.WORDS)
    described[Table.ADDRESS], described[Table.SIZE] = address_of(places), len(places)
    described[Table.LIMIT] = 3
    words[At.TABLES] = address_of(described)
    assert [put(address_of(words), 0, 2, x) for x in (7, 7, 8, 9, 9, 8)] == [1, 0, 1, 1, 0, 0]
    assert places.tolist() == [9, 0, 7, 8]
    assert (described[Table.USED], words[At.FULL]) == (3, 1)


def test_rows_that_are_left_when_a_thread_stops_would_be_missed(
    monkeypatch: pytest.MonkeyPatch, expected: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(team, "ROUND", 50)
    assert counts(explore_native(Model(raft, BOUNDS), symmetry=False, threads=2)) == expected
    monkeypatch.setattr(Stream, "put_back", lambda self, piece: None)
    assert counts(explore_native(Model(raft, BOUNDS), symmetry=False, threads=2)) != expected


# --- memory ------------------------------------------------------------------


def test_a_state_takes_at_most_16_bytes_of_memory(large: tuple[Any, ...]) -> None:
    result = explore_native(Model(raft, LARGE), symmetry=False)
    assert result.table_memory <= 16 * result.distinct


@pytest.mark.parametrize("threads", [1, 2])
def test_what_memory_has_no_room_for_goes_to_disk(
    threads: int, large: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The counts are the same; states come back that only the runs on disk know of."""
    known: list[int] = []
    contain = runs.Runs.contain

    def counting(self: runs.Runs, keys: Any) -> Any:
        hits = contain(self, keys)
        known.append(int(hits.sum()))
        return hits

    monkeypatch.setattr(runs.Runs, "contain", counting)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = explore_native(Model(raft, LARGE), symmetry=False, threads=threads, limit_memory=TINY[threads])
    assert counts(result) == large
    assert result.memory <= TINY[threads]
    assert result.disk > 0
    assert sum(known) > 0
    assert list(tmp_path.iterdir()) == []  # the temporary folder is gone


def test_a_state_that_is_only_on_disk_would_be_missed_without_the_runs(
    large: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.Runs, "contain", lambda self, keys: np.zeros(len(keys), bool))
    result = explore_native(Model(raft, LARGE), symmetry=False, limit_memory=TINY[1], limit_states=300_000)
    assert counts(result) != large


def test_runs_are_merged_and_still_hold_everything(tmp_path: Path) -> None:
    kept = runs.Runs(Disk(tmp_path), 0)
    rng = np.random.default_rng(1)
    keys = rng.integers(1, 1 << 63, 20_000, dtype=np.uint64)
    for part in np.array_split(keys, 2 * runs.MOST_RUNS + 3):
        kept.add(part.data)
    assert 0 < len(kept.names) <= runs.MOST_RUNS + 1
    assert kept.contain(keys.data).all()
    assert not kept.contain((keys + np.uint64(1 << 63)).data).any()
    assert len(list(tmp_path.iterdir())) == len(kept.names)


def test_a_counterexample_is_found_with_little_memory() -> None:
    model = Model(raft, Bounds(max_term=3, max_messages=9), ["commit.majority"])
    expected = explore_native(model, symmetry=False).violation
    found = explore_native(model, symmetry=False, limit_memory=TINY[1]).violation
    assert expected is not None
    assert found is not None
    assert len(found.path) == len(expected.path)


# --- checkpoints -------------------------------------------------------------


def interrupted(
    tmp_path: Path, model: Model, signum: int = signal.SIGINT, states: int = 30_000, **more: Any
) -> NativeResult:
    """A search that gets a signal as soon as it has found so many states."""
    sent: list[int] = []

    def tell(p: Any) -> None:
        if not sent and p.distinct >= states:
            sent.append(signum)
            os.kill(os.getpid(), signum)

    return explore_native(model, symmetry=False, disk=tmp_path, progress=tell, **more)


@pytest.fixture
def told_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PROGRESS_EVERY", 0.0)
    monkeypatch.setattr(team, "ROUND", 500)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_to_go_on_from(
    signum: int, tmp_path: Path, told_often: None, large: tuple[Any, ...]
) -> None:
    before = signal.getsignal(signum)
    result = interrupted(tmp_path, Model(raft, LARGE), signum)
    assert result.stopped == f"interrupted; go on with: raftworthy explore --resume {tmp_path}"
    assert signal.getsignal(signum) == before
    assert counts(explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path, resume=True)) == large
    assert list(tmp_path.iterdir()) == []  # nothing is left to go on from


def test_checkpoints_with_little_memory_and_threads(
    tmp_path: Path, told_often: None, large: tuple[Any, ...]
) -> None:
    """Each time it goes on it is interrupted again, in the middle of levels and of runs."""
    means: dict[str, Any] = {"threads": 2, "limit_memory": TINY[2]}
    result = interrupted(tmp_path, Model(raft, LARGE), **means)
    times = 0
    while not result.exhausted:
        times += 1
        more = result.distinct + 20_000
        result = interrupted(tmp_path, Model(raft, LARGE), resume=True, states=more, **means)
        assert result.exhausted or result.stopped.startswith("interrupted")
    assert times > 3
    assert counts(result) == large


COMMAND = [sys.executable, "-m", "raftworthy", "explore", "--no-symmetry", "--max-messages", "10", "--json"]
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_after_kill_9_at_any_moment_the_counts_are_the_same(tmp_path: Path, large: tuple[Any, ...]) -> None:
    """A process is killed again and again, and goes on each time with what it left on disk."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    folder, killed, longest = tmp_path / "states", 0, 0.4
    for _ in range(60):
        going_on = (folder / "checkpoint.json").exists()
        how = ["--resume", str(folder)] if going_on else ["--disk", str(folder), "--threads", "2"]
        # Whoever is killed often enough is allowed to finish.
        often = ["--checkpoint-minutes", "0"] if killed < 4 else []
        process = subprocess.Popen([*COMMAND, *how, *often], stdout=subprocess.PIPE, env=HERE)
        try:
            if killed < 4:
                deadline = time.monotonic() + 20
                while not (folder / "checkpoint.json").exists() and time.monotonic() < deadline:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0.0, longest))
                if process.poll() is None:
                    process.kill()
                    killed += 1
            out, _ = process.communicate()
        finally:
            process.kill()
        if process.returncode == 0 and killed:
            break
        if process.returncode == 0:  # it was too fast: once more
            longest /= 2
            continue
        assert process.returncode == -signal.SIGKILL, (seed, out)
    data = json.loads(out)
    assert killed > 0, seed
    assert (data["stopped"], data["states"], data["distinct"], data["depth"]) == large, seed


def test_a_checkpoint_is_of_one_question(tmp_path: Path, told_often: None) -> None:
    """Bounds, rules, properties, symmetry, threads and the specification have to be the same."""
    interrupted(tmp_path, Model(raft, LARGE))

    def resume(model: Model, **more: Any) -> None:
        explore_native(model, disk=tmp_path, resume=True, **{"symmetry": False, **more})

    with pytest.raises(UnusableError, match=r"of another size: .*10 messages.*, not .*9 messages"):
        resume(Model(raft, Bounds(max_messages=9)))
    with pytest.raises(UnusableError, match=r"rules taken away: \[\], not \['vote.once_per_term'\]"):
        resume(Model(raft, LARGE, ["vote.once_per_term"]))
    with pytest.raises(UnusableError, match="another symmetry: False, not True"):
        resume(Model(raft, LARGE), symmetry=True)
    with pytest.raises(UnusableError, match="another number of threads: 1, not 2"):
        resume(Model(raft, LARGE), threads=2)
    with pytest.raises(UnusableError, match="another properties"):
        resume(Model(raft, LARGE), properties=["election_safety"])
    with pytest.raises(UnusableError, match="holds a checkpoint; go on with"):
        explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path)
    data = json.loads((tmp_path / "checkpoint.json").read_text())
    data["question"]["program"] = "another"
    (tmp_path / "checkpoint.json").write_text(json.dumps(data))
    with pytest.raises(UnusableError, match="another specification or version"):
        resume(Model(raft, LARGE))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, told_often: None) -> None:
    with pytest.raises(UnusableError, match="there is no checkpoint in"):
        explore_native(Model(raft, LARGE), disk=tmp_path, resume=True)
    interrupted(tmp_path, Model(raft, LARGE))
    os.truncate(tmp_path / "steps-0", 10_000)
    with pytest.raises(UnusableError, match="damaged"):
        explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path, resume=True)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(UnusableError, match="can't be read"):
        explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path, resume=True)


def test_two_searches_do_not_share_a_folder(tmp_path: Path, told_often: None) -> None:
    errors: list[Any] = []

    def second(p: Any) -> None:
        if not errors:
            with pytest.raises(UnusableError, match="another process explores in") as error:
                explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path)
            errors.append(error)

    explore_native(Model(raft, LARGE), symmetry=False, disk=tmp_path, progress=second)
    assert errors


# --- exactness and symmetry --------------------------------------------------


def weak(bits: int, exact: bool, monkeypatch: pytest.MonkeyPatch) -> NativeResult:
    """An exploration with fingerprints of a few bits."""

    def program(*args: Any, **more: Any) -> Program:
        return Program(*args, **{**more, "key_bits": bits})

    monkeypatch.setattr(engine, "Program", program)
    return explore_native(Model(raft, BOUNDS), symmetry=False, exact=exact)


def test_an_exact_search_tells_states_with_equal_fingerprints_apart(
    monkeypatch: pytest.MonkeyPatch, expected: tuple[Any, ...]
) -> None:
    assert counts(weak(14, False, monkeypatch)) != expected
    assert counts(weak(14, True, monkeypatch)) == expected


SYMMETRIC = [
    Bounds(servers=3, max_messages=7, crashes=1),
    Bounds(servers=4, max_term=1, max_messages=6),
    Bounds(servers=5, max_term=1, max_log=0, max_messages=6),
]


@pytest.mark.parametrize("bounds", SYMMETRIC, ids=str)
def test_servers_sorted_by_signature_are_those_of_all_renamings(bounds: Bounds) -> None:
    """The reference tries every renaming of every state; exactly or not, the counts are the same."""
    model = Model(raft, bounds)
    expected = counts(explore_model(model))
    assert counts(explore_native(model, threads=2)) == expected
    assert counts(explore_native(model, exact=True)) == expected


def test_a_signature_that_depends_on_names_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers in the order of their names: too many states."""
    monkeypatch.setattr("raftworthy.native.symmetry.Symmetric._canonical", _by_name)
    monkeypatch.setenv("RAFTWORTHY_CACHE", "off")
    model = Model(raft, SYMMETRIC[1])
    assert explore_native(model).distinct > explore_model(model).distinct


def _by_name(self: Any, module: Any) -> Any:
    from raftworthy.native.symmetry import NAME_BITS
    from raftworthy.native.words import Code

    code = Code(module, "canonical", 2, 2)
    code.leave(sum(k << NAME_BITS * k for k in range(self.servers)))
    return code


# --- what may be used --------------------------------------------------------


def test_sizes_of_memory() -> None:
    assert size_of("4G") == 4 << 30
    assert size_of("500M") == size_of("500 MiB") == 500 << 20
    for wrong in ("much", "-1G", ""):
        with pytest.raises(UnusableError, match="no size of memory"):
            size_of(wrong)
    with pytest.raises(UnusableError, match="15M of memory is too little; the least is 16M for 2 threads"):
        Means(threads=2, memory="15M").options()
    assert Means(threads=2, memory="16M").options()["limit_memory"] == 16 << 20


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnusableError, match="threads is 0"):
        Means(threads=0).options()
    with pytest.raises(UnusableError, match="checkpoint_minutes is -1"):
        Means(checkpoint_minutes=-1).options()
    with pytest.raises(UnusableError, match="an exact search keeps all in memory"):
        explore_native(Model(raft, BOUNDS), exact=True, threads=2)
    with pytest.raises(UnusableError, match="65 threads"):
        explore_native(Model(raft, BOUNDS), threads=65)

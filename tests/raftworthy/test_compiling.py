"""Machine code is kept on disk: found again by whoever asks the same, and by nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")

from raftspec.mutants import MUTANTS
from raftspec.raft import raft
from raftspec.rules import RULES
from raftspec.spec import Spec
from raftworthy import kept as on_disk
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Result
from raftworthy.native import compiling, program
from raftworthy.native.engine import explore_native
from raftworthy.native.program import Program
from raftworthy.native.starting import measure_starts

SMALL = Bounds(servers=2, max_term=1, max_log=0)
ALL = tuple(raft.properties)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv(on_disk.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(folder: Path) -> list[Path]:
    """Machine code, and what is no file of ours."""
    return sorted(f for f in folder.iterdir() if f.suffix != ".graph") if folder.exists() else []


def key(
    monkeypatch: pytest.MonkeyPatch,
    model: Model,
    properties: Iterable[str] = ALL,
    symmetry: bool = True,
    level: int = 2,
) -> str:
    """The name under which a question's code is kept. Nothing is built to find it out."""
    found = []

    def stop(key: str, build: Callable[[], Any], level: int) -> Any:
        found.append(f"{key} {level}")
        raise StopIteration

    with monkeypatch.context() as patch:
        patch.setattr(program, "machine_code", stop)
        with pytest.raises(StopIteration):
            Program(model, properties, symmetry, level)
    return found[0]


# --- the key -----------------------------------------------------------------


def test_every_change_of_the_question_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule taken away, every mutant, every bound, every property, every option."""
    keys = {
        "as it is": key(monkeypatch, Model(raft, SMALL)),
        "no symmetry": key(monkeypatch, Model(raft, SMALL), symmetry=False),
        "another level": key(monkeypatch, Model(raft, SMALL), level=1),
        "the properties in another order": key(monkeypatch, Model(raft, SMALL), ALL[::-1]),
        "any policy": key(monkeypatch, Model(raft, SMALL, any_policy=True)),
    }
    for name in ALL:
        keys[f"without property {name}"] = key(monkeypatch, Model(raft, SMALL), [p for p in ALL if p != name])
    for name in RULES:
        keys[f"without {name}"] = key(monkeypatch, Model(raft, SMALL, [name]))
    for name, mutant in MUTANTS.items():
        if mutant.actions and not mutant.extensions:
            keys[name] = key(monkeypatch, Model(raft, SMALL, mutant=mutant))
    for bounds in (
        Bounds(servers=3, max_term=1, max_log=0), Bounds(servers=2, max_log=0), Bounds(servers=2, max_term=1),
        Bounds(servers=2, max_term=1, max_log=0, max_messages=4),
        Bounds(servers=2, max_term=1, max_log=0, crashes=1),
        Bounds(servers=2, max_term=1, max_log=0, commands=1),
        Bounds(servers=2, max_term=1, max_log=0, entries=2),
        Bounds(servers=2, max_term=1, max_log=0, applies=True),
    ):  # fmt: skip
        keys[str(bounds)] = key(monkeypatch, Model(raft, bounds))
    alike = {a: b for a in keys for b in keys if a < b and keys[a] == keys[b]}
    assert not alike


def test_a_property_that_says_something_else_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its name counts, but what it claims."""

    def claiming(size: int) -> Model:
        spec = Spec(raft.server, raft.history, raft.rules, dict(raft.actions))

        @spec.invariant
        def short(s: Any) -> bool:
            """No log is long."""
            return s["n1"].log.length <= size  # type: ignore[no-any-return]

        return Model(spec, SMALL)

    assert key(monkeypatch, claiming(1), ["short"]) != key(monkeypatch, claiming(2), ["short"])
    assert key(monkeypatch, claiming(1), ["short"]) == key(monkeypatch, claiming(1), ["short"])


def test_another_machine_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    here = compiling.key_of(["x"])
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "an older one")
    assert compiling.key_of(["x"]) != here


def test_every_process_finds_the_same_key(kept: Path) -> None:
    """However Python orders its sets; so the second one compiles nothing."""
    explore = "raftworthy.native.engine.explore_native(Model(raft, Bounds(servers=2, max_term=1)))"
    text = (
        "import raftworthy.native.engine\nfrom raftspec.properties import raft\n"
        f"from raftworthy.explore.reference import Bounds, Model\nprint({explore}.cached)"
    )
    answers = []
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment)
        answers.append(ran.stdout.strip() or ran.stderr)
    assert answers == ["False", "True"]
    assert len(files(kept)) == 1


def test_a_start_is_measured_without_its_code_and_with_it(kept: Path) -> None:
    """In a cache of its own."""
    starts = measure_starts(runs=1)
    assert 0 < starts.warm_cpu < starts.cold_cpu
    assert "cold" in str(starts)
    assert not files(kept)


# --- the folder --------------------------------------------------------------


def outline(result: Result) -> tuple[Any, ...]:
    return (result.stopped, result.states, result.distinct, result.depth)


def test_code_from_the_disk_does_the_same(kept: Path) -> None:
    model = Model(raft, SMALL)
    first, second = explore_native(model), explore_native(model)
    assert (first.cached, second.cached) == (False, True)
    assert outline(first) == outline(second)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_compiled_again(kept: Path, damage: str) -> None:
    model = Model(raft, SMALL)
    expected = outline(explore_native(model))
    (file,) = files(kept)
    content = file.read_bytes()
    half = len(content) // 2
    changed = bytes([content[half] ^ 1])
    file.write_bytes(
        {"cut": content[:half], "changed": content[:half] + changed + content[half + 1 :], "empty": b""}[
            damage
        ]
    )
    again = explore_native(model)
    assert (again.cached, outline(again)) == (False, expected)
    assert explore_native(model).cached


def test_it_can_be_switched_off(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(on_disk.FOLDER, "off")
    assert on_disk.folder() is None
    assert not explore_native(Model(raft, SMALL)).cached
    assert not explore_native(Model(raft, SMALL)).cached
    assert not files(kept)


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(on_disk.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert on_disk.folder() == tmp_path / "raftworthy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert on_disk.folder() == tmp_path / ".cache" / "raftworthy"


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv(on_disk.FOLDER, str(tmp_path / "a file" / "cache"))
    assert explore_native(Model(raft, SMALL)).exhausted


def test_processes_that_start_together_leave_one_whole_file(kept: Path) -> None:
    text = (
        "import sys; from pathlib import Path; from raftworthy.kept import keep, kept\n"
        "place, code = Path(sys.argv[1]), sys.argv[2].encode() * 200_000\n"
        "for _ in range(50):\n"
        "    keep(place, code)\n"
        "    assert len(set(kept(place))) == 1"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", text, str(kept / "a.o"), letter], env=environment)
        for letter in "abc"
    ]
    assert [p.wait() for p in running] == [0, 0, 0]
    assert [f.name for f in files(kept)] == ["a.o"]


def test_the_oldest_go_when_there_is_too_much(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was only half written long ago."""
    monkeypatch.setattr(on_disk, "LARGEST", 3 * (1000 + on_disk.DIGEST))
    kept.mkdir()
    for age, name in enumerate(["new.part", "c.o", "b.o", "a.o", "old.part"]):
        if name.endswith(".o"):
            on_disk.keep(kept / name, bytes(1000))
        else:
            (kept / name).write_bytes(b"")
        now = (kept / name).stat().st_mtime
        os.utime(kept / name, (now, now - 1800 * age))
    assert on_disk.kept(kept / "a.o") is not None  # used again, so it is the newest
    on_disk.keep(kept / "d.o", bytes(1000))
    assert [f.name for f in files(kept)] == ["a.o", "c.o", "d.o", "new.part"]

"""Machine code, compiled once for each question and machine, and kept on disk, as is what was proved.

What is kept is found by a key: a hash of all that the code is made from. So nothing is ever out of date, and
what nobody asks for any more is removed when there is too much. Several processes may start at once: a file
appears whole or not at all, and one that is damaged is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
from llvmlite import binding as llvm

if TYPE_CHECKING:
    from llvmlite import ir

# Where machine code is kept, if not in the user's cache folder; `off` keeps none.
FOLDER = "RAFTWORTHY_CACHE"
LARGEST = 64 << 20  # bytes in the folder; the oldest go first
OURS = frozenset({".o", ".proof"})  # machine code, and what was proved
ABANDONED = 3600  # seconds after which a half-written file is nobody's any more
DIGEST = hashlib.sha256().digest_size


class MachineCode:
    """Compiled functions. They can be called as long as this object is there."""

    def __init__(self, code: bytes, cached: bool) -> None:
        self.content, self.cached = code, cached
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(0))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def function(self, name: str, *arguments: Any) -> Callable[..., int]:
        """The function of a name, which returns a word."""
        address = self._engine.get_function_address(name)
        assert address, f"there is no function {name}"
        made: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(address)
        return made


def machine_code(parts: Iterable[str], build: Callable[[], ir.Module], level: int) -> MachineCode:
    """The code of a module that is made from `parts` alone; it is only built if its code isn't kept."""
    place = _place(key_of([*parts, str(level)]))
    if place is not None and (code := kept(place)) is not None:
        return MachineCode(code, cached=True)
    code = _compile(build(), level)
    if place is not None:
        with contextlib.suppress(OSError):  # a full or read-only disk costs time, nothing else
            keep(place, code)
    return MachineCode(code, cached=False)


def is_kept(parts: Iterable[str], level: int) -> bool:
    """Whether code of these parts is on disk."""
    place = _place(key_of([*parts, str(level)]))
    return place is not None and place.exists()


def _machine(level: int) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        opt=level, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), jit=True
    )


def _compile(module: ir.Module, level: int) -> bytes:
    machine = _machine(level)
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
    builder.getModulePassManager().run(compiled, builder)
    code: bytes = machine.emit_object(compiled)
    return code


# --- the key -----------------------------------------------------------------


def key_of(parts: Iterable[str]) -> str:
    """A name for code that is made from these parts, by these sources, for this machine."""
    found = hashlib.sha256()
    machine = (llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    versions = (llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)))
    for part in (*machine, *versions, *parts):
        found.update(part.encode())
        found.update(b"\0")
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


# --- the folder --------------------------------------------------------------


def folder() -> Path | None:
    """Where machine code is kept; None if it isn't to be."""
    chosen = os.environ.get(FOLDER)
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raftworthy"
    except RuntimeError:  # nobody's home
        return None


def _place(key: str) -> Path | None:
    where = folder()
    return where / f"{key}.o" if where is not None else None


def kept(place: Path) -> bytes | None:
    """What is in a file, if it is there, ours and whole."""
    try:
        if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
            return None
        content = place.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            return None
        os.utime(place)
    except OSError:
        return None
    return content[DIGEST:]


def keep(place: Path, code: bytes) -> None:
    """Write a file that appears whole or not at all, and make room for it."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(".part", dir=place.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(name).replace(place)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    _tidy(place.parent)


def _tidy(where: Path) -> None:
    """Remove what was used longest ago, as long as there is too much."""
    files = []
    for file in where.iterdir():
        with contextlib.suppress(OSError):  # somebody else tidies, too
            found = file.stat()
            if file.suffix in OURS:
                files.append((found.st_mtime, found.st_size, file))
            elif file.suffix == ".part" and found.st_mtime < time.time() - ABANDONED:
                file.unlink()
    size = sum(size for _, size, _ in files)
    for _, used, file in sorted(files):
        if size <= LARGEST:
            break
        file.unlink(missing_ok=True)
        size -= used

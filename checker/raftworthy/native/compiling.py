"""Machine code, compiled once for each question and machine, and kept on disk."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
from llvmlite import binding as llvm

from raftworthy.kept import folder, hash_of, keep_if_possible, kept, sources
from raftworthy.native import __file__ as package

if TYPE_CHECKING:
    from llvmlite import ir

SOURCES = sources(package)  # as they are when they are imported


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


def machine_code(key: str, build: Callable[[], ir.Module], level: int) -> MachineCode:
    """The code of a module that is made from what `key` is of; it is only built if its code isn't kept."""
    place = _place(key, level)
    if place is not None and (code := kept(place)) is not None:
        return MachineCode(code, cached=True)
    with _no_collection():
        text = str(build())
    code = _compile(text, level)
    if place is not None:
        keep_if_possible(place, code)
    return MachineCode(code, cached=False)


def is_kept(key: str, level: int) -> bool:
    """Whether this code is on disk."""
    place = _place(key, level)
    return place is not None and place.exists()


def _place(key: str, level: int) -> Path | None:
    where = folder()
    return where / f"{key}-{level}.o" if where is not None else None


def _machine(level: int) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        opt=level, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), jit=True
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """What is built stays until it is text; to look for garbage in it takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _compile(module: str, level: int) -> bytes:
    machine = _machine(level)
    compiled = llvm.parse_assembly(module)
    compiled.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    # Loops are short, and a row's words gathered into vectors come slower than one by one.
    options.loop_vectorization = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(compiled, builder)
    code: bytes = machine.emit_object(compiled)
    return code


def key_of(parts: Iterable[str]) -> str:
    """A name for code that is made from these parts, by these sources, for this machine."""
    machine = (llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    versions = (llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)))
    return hash_of([*machine, *versions, SOURCES, *parts])

"""What takes time to make is kept on disk: expressions, machine code, and what was proved.

What is kept is found by a key: a hash of all that it is made from. So nothing is ever out of date, and what
nobody asks for any more is removed when there is too much. Several processes may start at once: a file
appears whole or not at all, and one that is damaged is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

# Where it is kept, if not in the user's cache folder; `off` keeps nothing.
FOLDER = "RAFTWORTHY_CACHE"
LARGEST = 64 << 20  # bytes in the folder; the oldest go first
OURS = frozenset({".o", ".proof", ".graph"})  # machine code, what was proved, and expressions
ABANDONED = 3600  # seconds after which a half-written file is nobody's any more
DIGEST = hashlib.sha256().digest_size


def hash_of(parts: Iterable[str | bytes]) -> str:
    """A name for what is made from these parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.encode())
        found.update(b"\0")
    return found.hexdigest()


def sources(*files: str | None) -> str:
    """A hash of modules' files, and of all that is beside a package's `__init__.py`; as they are now."""
    places = [Path(file) for file in files if file is not None]
    return hash_of(
        file.read_bytes()
        for place in places
        for file in (sorted(place.parent.glob("*.py")) if place.name == "__init__.py" else [place])
    )


def folder() -> Path | None:
    """Where things are kept; None if they aren't to be."""
    chosen = os.environ.get(FOLDER)
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raftworthy"
    except RuntimeError:  # nobody's home
        return None


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
    import tempfile  # takes longer to import than this module

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


def keep_if_possible(place: Path, code: bytes) -> None:
    """As `keep`; a full or read-only disk costs time, nothing else."""
    with contextlib.suppress(OSError):
        keep(place, code)


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

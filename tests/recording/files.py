"""The recorded traces as files: `python -m tests.recording.files traces` writes them anew.

Each scenario drives real cores and asserts, as it goes along, that it shows what it is called after. A
wrong trace ends with its wrong event: of a broken core where `raftd.faults` has one, otherwise a claim,
an event that no core here would write.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import zstandard
from tests.recording.clients import CLIENTS
from tests.recording.cluster import BAD, GOOD, RULES, Cluster
from tests.recording.conforming import deposed_leader_returns, kills
from tests.recording.refused import unusable

from raftworthy import measure


def minimal(c: Cluster) -> bytes:
    """The same run as a server tells it that logs the least that is useful."""
    return b"\n".join([*measure.minimal(c.trace().splitlines()), b""])


# --- files ---------------------------------------------------------------------------


def files() -> dict[str, bytes]:
    """All recorded traces, unpacked, by their names in the folder."""
    made = {f"{name}.ndjson": scenario().trace() for name, scenario in GOOD.items()}
    made |= {f"bad/{name}.ndjson": scenario().trace() for name, scenario in BAD.items()}
    made |= {f"rules/{rule}.ndjson": scenario().trace() for rule, scenario in RULES.items()}
    made |= {f"clients/{name}.ndjson": scenario().trace() for name, scenario in CLIENTS.items()}
    made |= {f"unusable/{name}.ndjson": data for name, data in unusable().items()}
    made |= {f"kills/{name}": data for name, data in kills().traces().items()}
    made["minimal.ndjson"] = minimal(deposed_leader_returns())
    made["packed_gzip.ndjson.gz"] = made["packed_zstandard.ndjson.zst"] = made["figure_8.ndjson"]
    return made


def unpacked(path: Path) -> bytes:
    """What a file holds. Packers differ, so packed files are compared by this."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.decompress(data) if path.suffix == ".zst" else data


def packed(path: Path, data: bytes) -> bytes:
    """A file's bytes, as its name asks for."""
    if path.suffix == ".gz":
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if path.suffix == ".zst" else data


def write(folder: Path) -> list[Path]:
    """Bring the files of a folder up to date; which ones were not."""
    changed = []
    for name, data in files().items():
        path = folder / name
        if not path.exists() or unpacked(path) != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed(path, data))
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.recording.files FOLDER")
    for written in write(Path(sys.argv[1])):
        print(written)

"""The store gives back what was written, or refuses: never less, never something else.

Figure 2, State: term, vote and log are "updated on stable storage before responding to RPCs". A server that
forgets them can vote twice in a term (section 5.2) or take back an acknowledgement (section 5.3).
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raftd
from raftd.core import Persist, Persistent
from raftd.log import Log
from raftd.messages import Entry
from raftd.storage import DATABASE, LOCK, STORE, WRITES, Storage, StorageError, _writes_record

SERVERS = ("n1", "n2", "n3")
PAGE = 4096
WAL = DATABASE + "-wal"


def open_store(folder: Path) -> Storage:
    return Storage(folder, "n1", SERVERS)


def contents(folder: Path) -> Persistent:
    with open_store(folder) as storage:
        return storage.persistent


def test_starts_are_counted_on_the_disk(tmp_path: Path) -> None:
    """An opening is no start: the server may have died before it did anything."""
    with open_store(tmp_path) as storage:
        assert storage.started == 0
    with open_store(tmp_path) as storage:
        storage.note_started(1)
        storage.write(Persist(3, "n1", 0, ()))
    with open_store(tmp_path) as storage:
        assert (storage.start, storage.started) == (3, 1)
        assert storage.persistent.current_term == 3


# --- what was written is there ------------------------------------------------------------------------

entries = st.builds(Entry, st.integers(1, 9), st.binary(max_size=40))


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2**40),
            st.sampled_from([None, *SERVERS]),
            st.floats(0, 1),
            st.lists(entries, max_size=5),
        ),
        max_size=8,
    ),
    ends=st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_a_store_holds_what_was_written_last_after_a_stop_and_after_a_kill(
    steps: list[tuple[int, str | None, float, list[Entry]]], ends: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "0"
        expected = Persistent()
        storage = open_store(folder)
        for number, (term, vote, part, new) in enumerate(steps, start=1):
            change = Persist(term, vote, round(part * expected.log.last_index), tuple(new))
            storage.write(change)
            expected.write(change)
            if ends.random() < 0.5:
                if ends.random() < 0.5:
                    storage.close()
                else:  # what a kill leaves behind is what the files hold now
                    shutil.copytree(folder, folder.with_name(str(number)))
                    storage.close()
                    folder = folder.with_name(str(number))
                storage = open_store(folder)
                assert storage.persistent == expected
        storage.close()
        assert contents(folder) == expected


def test_a_new_store_is_empty_and_counts_its_starts(tmp_path: Path) -> None:
    for start in (1, 2, 3):
        with open_store(tmp_path / "n1") as storage:
            assert storage.persistent == Persistent()
            assert storage.start == start


def test_one_step_is_one_transaction(tmp_path: Path) -> None:
    """A conflict is cut off and its replacement stored together: no crash shows one without the other."""
    with open_store(tmp_path) as storage:
        storage.write(Persist(1, "n1", 0, (Entry(1, b"a"), Entry(1, b"b"))))
        before = storage._meta.writes
        storage.write(Persist(2, None, 1, (Entry(2, b"c"), Entry(2, b"d"))))
        assert storage._meta.writes == before + 1
    assert contents(tmp_path).log == Log([Entry(1, b"a"), Entry(2, b"c"), Entry(2, b"d")])


def test_an_interrupted_first_start_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / (STORE + ".new")).mkdir()
    (tmp_path / (STORE + ".new") / DATABASE).write_bytes(b"half")
    assert contents(tmp_path) == Persistent()


# --- who may open it ----------------------------------------------------------------------------------


def test_a_store_is_opened_once_at_a_time(tmp_path: Path) -> None:
    with open_store(tmp_path), pytest.raises(StorageError, match="another process has this store open"):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from raftd.storage import Storage\n"
        f"Storage(Path({str(tmp_path)!r}), 'n1', {SERVERS}).close()"
    )

    def run() -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(Path(raftd.__file__).parent.parent)}
        return subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30, check=False
        )

    with open_store(tmp_path):
        refused = run()
    assert refused.returncode != 0
    assert "another process has this store open" in refused.stderr
    assert run().returncode == 0


@pytest.mark.parametrize(("server", "servers"), [("n2", SERVERS), ("n1", ("n1", "n2", "n4"))])
def test_the_store_of_another_server_or_cluster_is_refused(
    tmp_path: Path, server: str, servers: tuple[str, ...]
) -> None:
    """Two servers with one memory are one server with two votes."""
    open_store(tmp_path).close()
    with pytest.raises(StorageError, match="this is the store of n1"):
        Storage(tmp_path, server, servers)


def test_the_order_of_the_servers_does_not_matter(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    Storage(tmp_path, "n1", tuple(reversed(SERVERS))).close()


def test_a_failed_write_ends_the_store(tmp_path: Path) -> None:
    """Nothing is known about the disk then."""
    with open_store(tmp_path) as storage:
        storage.fill()
        with pytest.raises(StorageError, match="a write failed: database or disk is full"):
            storage.write(Persist(1, "n1", 0, (Entry(1, bytes(100_000)),)))
        with pytest.raises(AssertionError, match="a write has failed before"):
            storage.write(Persist(1, "n1", 0, ()))


def test_a_failed_fsync_ends_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it the pages may be marked clean and be lost: trying again proves nothing."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_store(tmp_path) as storage:
        storage.write(Persist(1, "n1", 0, ()))
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", fail)
            with pytest.raises(StorageError, match=r"a write failed: .*Input/output error"):
                storage.sync()
        with pytest.raises(AssertionError, match="a write has failed before"):
            storage.write(Persist(2, None, 0, ()))


def test_the_number_of_writes_is_never_ahead_of_what_is_durable(tmp_path: Path) -> None:
    """A power cut before an fsync may leave any file as it was: that is no damage."""
    with open_store(tmp_path / "n1") as storage:
        storage.write(Persist(1, "n1", 0, (Entry(1, b"a"),)))
        storage.sync()
        shutil.copytree(tmp_path / "n1", tmp_path / "cut")
        storage.write(Persist(1, "n1", 1, (Entry(1, b"b"),)))
        shutil.copy(tmp_path / "n1" / STORE / WRITES, tmp_path / "cut" / STORE / WRITES)
    with open_store(tmp_path / "cut") as storage:
        assert [entry.command for entry in storage.persistent.log] == [b"a"]


# --- damage -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A store and what it holds."""

    folder: Path
    holds: Persistent

    def files(self) -> list[Path]:
        store = Path(STORE)
        return [store / file.name for file in sorted((self.folder / STORE).iterdir())]


def fill(storage: Storage, first: int, count: int) -> None:
    for n in range(first, first + count):
        storage.write(Persist(n, SERVERS[n % 3], n - 1, (Entry(n, b"command %d " % n * 20),)))
        storage.sync()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    """One store that was closed, one that was killed with most of it in the WAL, one with some."""
    folder = tmp_path_factory.mktemp("samples")
    storage = open_store(folder / "open")
    fill(storage, 1, 40)
    shutil.copytree(folder / "open", folder / "killed early")
    early = Persistent(40, SERVERS[40 % 3], Log(Entry(n, b"command %d " % n * 20) for n in range(1, 41)))
    assert storage._connection is not None
    storage._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    fill(storage, 41, 10)
    # A restarted WAL: new frames at its beginning, old ones behind them.
    late = Persistent(50, SERVERS[50 % 3], Log(Entry(n, b"command %d " % n * 20) for n in range(1, 51)))
    shutil.copytree(folder / "open", folder / "killed")
    storage.close()
    (folder / "open").rename(folder / "closed")
    found = {
        "closed": Sample(folder / "closed", late),
        "killed": Sample(folder / "killed", late),
        "killed early": Sample(folder / "killed early", early),
    }
    assert not (folder / "closed" / STORE / WAL).exists()
    assert (folder / "killed" / STORE / WAL).stat().st_size > PAGE
    return found


def refused_or_whole(sample: Sample, damage: Callable[[Path], None]) -> bool:
    """Whether the damaged store is refused; if it is not, it holds everything, and goes on to."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "n1"
        shutil.copytree(sample.folder, copy)
        damage(copy)
        try:
            with open_store(copy) as storage:
                assert storage.persistent == sample.holds
                more = Entry(99, b"one more")
                storage.write(Persist(99, "n2", sample.holds.log.last_index, (more,)))
            assert contents(copy) == Persistent(99, "n2", Log([*sample.holds.log, more]))
        except StorageError as error:
            refusal = str(error)
        else:
            return False
    assert refusal.startswith(str(copy))
    assert "help: " in refusal
    return True


KINDS = ("closed", "killed", "killed early")


@pytest.mark.parametrize("kind", KINDS)
def test_the_undamaged_store_opens(samples: dict[str, Sample], kind: str) -> None:
    assert not refused_or_whole(samples[kind], lambda folder: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_refused(samples: dict[str, Sample], kind: str) -> None:
    """Also a missing WAL, without which SQLite opens the database as it was at the last checkpoint."""
    sample = samples[kind]
    for file in sample.files():
        assert refused_or_whole(sample, remove(file)), file
    assert refused_or_whole(sample, lambda folder: shutil.rmtree(folder / STORE))


def test_a_missing_lock_is_no_loss(samples: dict[str, Sample]) -> None:
    assert not refused_or_whole(samples["closed"], lambda folder: (folder / LOCK).unlink())


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_or_had_nothing_in_its_end(samples: dict[str, Sample], kind: str) -> None:
    sample = samples[kind]
    refused = 0
    rng = random.Random(kind)
    for file, size in sizes(sample):
        ends = {*range(0, size, PAGE), *(rng.randrange(size) for _ in range(8))}
        for end in ends:
            refused += refused_or_whole(sample, truncate(file, end))
    assert refused > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_database_cut_to_nothing_is_not_a_new_one(samples: dict[str, Sample], kind: str) -> None:
    for end in (0, PAGE):
        assert refused_or_whole(samples["closed"], truncate(Path(STORE) / DATABASE, end))


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_flipped_bytes_are_found_or_were_not_in_use(samples: dict[str, Sample], data: st.DataObject) -> None:
    sample = samples[data.draw(st.sampled_from(KINDS))]
    file, size = data.draw(st.sampled_from(sizes(sample)))
    flips = data.draw(st.dictionaries(st.integers(0, size - 1), st.integers(1, 255), min_size=1, max_size=4))
    refused_or_whole(sample, flip(file, flips))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_page_that_went_elsewhere_is_found(samples: dict[str, Sample], data: st.DataObject) -> None:
    """A disk may write a page to the wrong place, or lose a write: a whole page, with its own checksums."""
    sample = samples[data.draw(st.sampled_from(KINDS))]
    file, size = data.draw(st.sampled_from([(file, size) for file, size in sizes(sample) if size > PAGE]))
    pages = st.integers(0, size // PAGE - 1)
    source, target = data.draw(pages), data.draw(pages)

    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[target * PAGE : (target + 1) * PAGE] = content[source * PAGE : (source + 1) * PAGE]
        (folder / file).write_bytes(content)

    refused_or_whole(sample, damage)


def test_any_flip_of_term_and_vote_or_of_a_command_is_refused(samples: dict[str, Sample]) -> None:
    """Counterpart of the tests above: damage to what is in use isn't accepted by chance."""
    sample = samples["closed"]
    content = (sample.folder / STORE / DATABASE).read_bytes()
    for needle in (b"command 7 command 7", b"n1\x93\xa2n1"):
        at = content.index(needle)
        for offset in range(len(needle)):
            assert refused_or_whole(sample, flip(Path(STORE) / DATABASE, {at + offset: 1})), (needle, offset)


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("DELETE FROM meta", "table meta has 0 rows"),
        ("DELETE FROM log WHERE n = 7", "log entry 7 is missing"),
        ("DELETE FROM log WHERE n = 50", "the log has 49 entries where 50 were written"),
        ("DELETE FROM log", "the log has 0 entries where 50 were written"),
        ("UPDATE log SET term = 8 WHERE n = 7", "the checksum of log entry 7 is wrong"),
        ("UPDATE log SET command = x'00' WHERE n = 7", "the checksum of log entry 7 is wrong"),
        ("UPDATE meta SET content = x'00'", "the checksum of term and vote is wrong"),
        ("DROP TABLE log", "no such table: log"),
        ("DROP TABLE meta", "no such table: meta"),
    ],
)
def test_missing_and_changed_rows_are_named(
    samples: dict[str, Sample], statement: str, wrong: str, tmp_path: Path
) -> None:
    shutil.copytree(samples["closed"].folder, tmp_path / "n1")
    storage = open_store(tmp_path / "n1")
    assert storage._connection is not None
    storage._connection.execute(statement)
    storage.close()
    with pytest.raises(StorageError, match=wrong):
        open_store(tmp_path / "n1")


def test_a_lost_end_of_the_wal_is_named(samples: dict[str, Sample], tmp_path: Path) -> None:
    """The case that SQLite itself takes for a crash before the commit."""
    shutil.copytree(samples["killed early"].folder, tmp_path / "n1")
    wal = tmp_path / "n1" / STORE / WAL
    truncate(Path(STORE) / WAL, wal.stat().st_size - 1)(tmp_path / "n1")
    with pytest.raises(StorageError, match="1 of 41 writes are missing"):
        open_store(tmp_path / "n1")


def test_a_number_of_writes_that_lags_is_what_a_power_cut_leaves(samples: dict[str, Sample]) -> None:
    """It has no fsync of its own, so the disk may hold an older one: that alone is no damage."""
    old = samples["killed early"].folder / STORE / WRITES

    def damage(folder: Path) -> None:
        shutil.copy(old, folder / STORE / WRITES)

    assert not refused_or_whole(samples["killed"], damage)


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_kill_between_the_number_of_writes_and_its_checksum_is_no_damage(
    samples: dict[str, Sample], behind: int
) -> None:
    """They are stored one after the other. A checksum that is older still is of another number."""

    def damage(folder: Path) -> None:
        path = folder / STORE / WRITES
        record = path.read_bytes()
        number = int.from_bytes(record[:8], "big")
        path.write_bytes(record[:8] + _writes_record(number - behind)[8:])

    assert refused_or_whole(samples["killed"], damage) == (behind > 1)


def sizes(sample: Sample) -> list[tuple[Path, int]]:
    return [(file, (sample.folder / file).stat().st_size) for file in sample.files()]


def remove(file: Path) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def truncate(file: Path, end: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / file).open("r+b") as opened:
            opened.truncate(end)

    return damage


def flip(file: Path, flips: dict[int, int]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        for offset, bits in flips.items():
            content[offset] ^= bits
        (folder / file).write_bytes(content)

    return damage

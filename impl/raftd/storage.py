"""Term, vote and log on disk. Figure 2, State: "updated on stable storage before responding to RPCs".

One SQLite database in WAL mode; one transaction and one fsync per step of the core. A store that
cannot be shown to be whole is refused: a server that has forgotten its vote can elect a second leader of
one term, so starting over with term 0 is never the way out of a damaged disk.

    folder/lock            held while the store is open; says "initialised" once there has been a store
    folder/store/raft.db   one row of table `meta`, one of table `log` per entry, and one of table
                           `snapshot` if that stands for entries which are no more
    folder/store/writes    the number of the last write, without an fsync of its own

What finds which damage:

    page out of order, index broken       PRAGMA quick_check
    changed, stale or swapped row         a checksum over content, index and the row before (`crc`)
    missing rows                          length and checksum of the log in `meta`
    a WAL cut short, changed or deleted   `writes`: SQLite takes a broken WAL for one that ends early, and
                                          would go back in time without a word
    another server's folder               name, members and cluster in `meta`

`writes` follows each fsync, so it is never ahead of what is durable: it refuses no store that only
suffered a crash, of the process or of the machine. It is memory shared with the system: storing there
survives the process, and costs no call. Not found: a whole folder put back from an older copy;
and, after a crash of the machine, a last write that the disk lost although it had confirmed it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from raftd.core import Persist, Persistent
from raftd.log import Log
from raftd.messages import Entry, Snapshot

LOCK: Final = "lock"
STORE: Final = "store"
DATABASE: Final = "raft.db"
WAL: Final = DATABASE + "-wal"
WRITES: Final = "writes"

INITIALISED: Final = b"initialised\n"

SCHEMA: Final = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    content BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE log (
    n INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    command BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
"""

SNAPSHOTS: Final = """
CREATE TABLE IF NOT EXISTS snapshot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state BLOB NOT NULL
) STRICT;
"""

ANOTHER_MEMBER: Final = (
    "restore the folder from the same disk, or take this server out of the cluster for good; "
    "do not start it with an empty folder: it would vote twice"
)


class StorageError(Exception):
    """The store cannot be used: where it is, what is wrong, what to do."""

    def __init__(self, path: Path, wrong: str, help: str) -> None:
        super().__init__(f"{path}: error: {wrong}\nhelp: {help}")
        self.path = path
        self.wrong = wrong
        self.help = help


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """All that is durable beside the log, and what tells that the log is whole."""

    server: str
    servers: tuple[str, ...]
    start: int  # how often the store has been opened
    writes: int  # how many transactions it has seen
    current_term: int
    voted_for: str | None
    log_length: int
    log_crc: int
    started: int = 0  # the number of the last start that went as far as its trace's first event
    cluster: str = ""  # what the cluster is called, if it has a name
    snapshot_index: int = 0  # entries up to this one are gone: table `snapshot` stands for them
    snapshot_term: int = 0
    base_crc: int = 0  # the checksum that the log's goes on from
    state_crc: int = 0  # and that of the snapshot's state
    configured: int = 0  # what the snapshot has of the newest configuration among the entries that are gone
    configuration: bytes = b""


Row = tuple[int, int, bytes, int]  # an entry: its number, term and command, and the checksum up to it

# A server's name, the cluster's members, and what the cluster is called if it has a name.
Identity = tuple[str, tuple[str, ...], str]


def _in_words(identity: Identity) -> str:
    server, servers, cluster = identity
    return f"{server} in the cluster {f'{cluster!r} of ' if cluster else ''}{', '.join(servers)}"


class Storage:
    """An open store. `persistent` is what it held when it was opened, `start` counts the openings from 1."""

    def __init__(self, folder: Path, server: str, servers: Iterable[str], cluster: str | None = None) -> None:
        self.folder = folder
        self._lock = _take_lock(folder)
        self._connection: sqlite3.Connection | None = None
        self._writes: mmap.mmap | None = None
        self._wal = -1
        self._failed = False
        self.delay = 0.0  # for tests: how many seconds longer each write takes
        identity = (server, tuple(sorted(servers)), cluster or "")
        try:
            if _is_new(folder, self._lock):
                _initialise(folder, *identity)
            _set_initialised(self._lock)
            self._open(identity)
        except BaseException:
            self._release()
            raise

    def _open(self, identity: Identity) -> None:
        database = self.folder / STORE / DATABASE
        if not database.is_file():
            raise StorageError(
                database, "this folder held a store and its database is missing", ANOTHER_MEMBER
            )
        self._writes, writes = _open_writes(self.folder / STORE / WRITES)
        try:
            self._connection = _connect(database)
            self._meta, log, snapshot = _load(self._connection, database)
        except (sqlite3.Error, UnicodeError) as error:
            raise StorageError(database, f"the database is damaged: {error}", ANOTHER_MEMBER) from error
        if self._meta.writes < writes:
            lost = f"{writes - self._meta.writes} of {writes} writes are missing"
            raise StorageError(database, f"{lost}: the database or its -wal file is damaged", ANOTHER_MEMBER)
        found = (self._meta.server, self._meta.servers, self._meta.cluster)
        if found != identity:
            raise StorageError(
                self.folder,
                f"this is the store of {_in_words(found)}, not of {_in_words(identity)}",
                "give each server its own folder, and keep the cluster's members as they were",
            )
        self.persistent = Persistent(self._meta.current_term, self._meta.voted_for, log, snapshot)
        again = msgspec.structs.replace(self._meta, start=self._meta.start + 1)
        self._commit(again, keep=log.last_index, rows=[])
        self._wal = os.open(self.folder / STORE / WAL, os.O_RDONLY | os.O_CLOEXEC)
        self.sync()

    @property
    def start(self) -> int:
        """How often this server has been started, now included."""
        return self._meta.start

    @property
    def started(self) -> int:
        """The number of this server's last start, as its trace counts: those that did something."""
        return self._meta.started

    def note_started(self, number: int) -> None:
        """Make durable that this start happened, so that its trace is missed if it gets lost."""
        assert number > self._meta.started, (number, self._meta.started)
        changed = msgspec.structs.replace(self._meta, started=number)
        self._commit(changed, keep=self._meta.log_length, rows=[])
        self.sync()

    def write(self, persist: Persist) -> None:
        """Write a step's term, vote and log, whole or not at all; `sync` makes them durable.

        Before that they survive the death of this process, and not that of the machine.
        """
        meta = self._meta
        assert 0 <= persist.keep <= meta.log_length, (persist.keep, meta.log_length)
        crc = meta.log_crc if persist.keep == meta.log_length else self._crc_at(persist.keep)
        rows: list[Row] = []
        for n, entry in enumerate(persist.entries, start=persist.keep + 1):
            crc = _entry_crc(n, entry, crc)
            rows.append((n, entry.term, entry.command, crc))
        changed = msgspec.structs.replace(
            meta,
            current_term=persist.current_term,
            voted_for=persist.voted_for,
            log_length=persist.keep + len(rows),
            log_crc=crc,
        )
        if persist.snapshot is not None:
            changed = self._compacted(changed, persist.snapshot, rows)
        self._commit(changed, persist.keep, rows, persist.snapshot)

    def _compacted(self, meta: Meta, snapshot: Snapshot, rows: list[Row]) -> Meta:
        """What is durable beside the log once a snapshot stands for its beginning, or for all of it."""
        n = snapshot.last_included_index
        state_crc = zlib.crc32(snapshot.state)
        if n <= meta.log_length:
            new = {row[0]: row[3] for row in rows}
            base_crc = new[n] if n in new else self._crc_at(n)
        else:
            base_crc = _entry_crc(n, Entry(snapshot.last_included_term, b""), state_crc)
            meta = msgspec.structs.replace(meta, log_length=n, log_crc=base_crc)
        return msgspec.structs.replace(
            meta,
            snapshot_index=n,
            snapshot_term=snapshot.last_included_term,
            base_crc=base_crc,
            state_crc=state_crc,
            configured=snapshot.configured,
            configuration=snapshot.configuration,
        )

    def _commit(self, meta: Meta, keep: int, rows: list[Row], snapshot: Snapshot | None = None) -> None:
        assert self._connection is not None
        assert self._writes is not None
        assert not self._failed, "a write has failed before: the state of the disk is unknown"
        execute = self._connection.execute
        meta = msgspec.structs.replace(meta, writes=self._meta.writes + 1)
        content = msgspec.msgpack.encode(meta)
        try:
            execute("BEGIN IMMEDIATE")
            if keep < self._meta.log_length:
                execute("DELETE FROM log WHERE n > ?", (keep,))
            if rows:
                self._connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
            if snapshot is not None:
                execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?)", (snapshot.state,))
                execute("DELETE FROM log WHERE n <= ?", (meta.snapshot_index,))
            execute("UPDATE meta SET content = ?, crc = ? WHERE id = 1", (content, zlib.crc32(content)))
            execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._fails(error) from error
        self._meta = meta

    def sync(self) -> None:
        """Make durable what has been written: when this returns it survives a crash of the machine.

        After a failure nothing is known about the disk (a second fsync may report success for pages
        that the first one lost), so the store refuses all further use and the server has to stop.
        """
        assert self._writes is not None
        assert not self._failed, "a write has failed before: the state of the disk is unknown"
        if self.delay:
            time.sleep(self.delay)
        try:
            os.fdatasync(self._wal)
        except OSError as error:
            raise self._fails(error) from error
        _set_writes(self._writes, self._meta.writes)

    def _fails(self, error: Exception) -> StorageError:
        self._failed = True
        return StorageError(
            self.folder / STORE / DATABASE,
            f"a write failed: {error}",
            "look at the disk (full? failing?), then start the server again",
        )

    def fill(self) -> None:
        """For tests: the disk has no room for one page more, until the store is opened again."""
        assert self._connection is not None
        self._connection.execute("PRAGMA max_page_count = 1")  # which SQLite takes for as few as there are

    def _crc_at(self, n: int) -> int:
        """The checksum of the log up to entry n."""
        if n == self._meta.snapshot_index:
            return self._meta.base_crc
        assert self._connection is not None
        (crc,) = self._connection.execute("SELECT crc FROM log WHERE n = ?", (n,)).fetchone()
        assert isinstance(crc, int)
        return crc

    def close(self) -> None:
        """Leave the store, and let another process have it."""
        if self._writes is not None and not self._failed:
            self._writes.flush()
        self._release()

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        if self._writes is not None:
            self._writes.close()
            self._writes = None
        if self._lock >= 0:
            os.close(self._lock)  # and with it goes the lock
            self._lock = -1

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _take_lock(folder: Path) -> int:
    """Only one process at a time has the store open; the lock goes when the process does."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        wrong = f"cannot use this folder: {error.strerror}"
        raise StorageError(folder, wrong, "name a folder that this user may write to") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        wrong = "another process has this store open"
        raise StorageError(path, wrong, "stop that server, or give this one a folder of its own") from error
    return lock


def _is_new(folder: Path, lock: int) -> bool:
    """Whether there has never been a store here. One that is gone is not new."""
    if (folder / STORE).exists():
        return False
    if os.pread(lock, len(INITIALISED), 0) == b"":
        return True
    raise StorageError(folder / STORE, "this folder held a store and it is missing", ANOTHER_MEMBER)


def _set_initialised(lock: int) -> None:
    if os.pread(lock, len(INITIALISED), 0) != INITIALISED:
        os.pwrite(lock, INITIALISED, 0)
        os.fsync(lock)


def _initialise(folder: Path, server: str, servers: tuple[str, ...], cluster: str) -> None:
    """Make an empty store under another name and rename it: there is all of it or nothing."""
    unfinished = folder / (STORE + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    meta = Meta(
        server,
        servers,
        start=0,
        writes=0,
        current_term=0,
        voted_for=None,
        log_length=0,
        log_crc=0,
        cluster=cluster,
    )
    content = msgspec.msgpack.encode(meta)
    connection = sqlite3.connect(unfinished / DATABASE, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        connection.execute(SNAPSHOTS)
        connection.execute("INSERT INTO meta VALUES (1, ?, ?)", (content, zlib.crc32(content)))
    finally:
        connection.close()
    (unfinished / WRITES).write_bytes(_writes_record(0))
    for path in (unfinished / DATABASE, unfinished / WRITES, unfinished):
        _fsync(path)
    unfinished.rename(folder / STORE)
    _fsync(folder)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(database: Path) -> sqlite3.Connection:
    # mode=rw: SQLite would otherwise make a missing database anew.
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        # Exclusive locking keeps the WAL's index in memory, not in a file that could be damaged too.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA trusted_schema = OFF")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.DatabaseError(f"journal mode is {mode}, not wal")
        # SQLite syncs what a checkpoint needs, and `sync` the rest: of each write, when its step says so.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(SNAPSHOTS)  # which older stores lack
    except BaseException:
        connection.close()
        raise
    return connection


def _load(connection: sqlite3.Connection, path: Path) -> tuple[Meta, Log, Snapshot | None]:
    """Read and verify everything."""

    def refuse(wrong: str) -> StorageError:
        return StorageError(path, wrong, ANOTHER_MEMBER)

    problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        raise refuse(f"the database is damaged: {'; '.join(problems)}")
    rows = connection.execute("SELECT id, content, crc FROM meta").fetchall()
    if len(rows) != 1:
        raise refuse(f"table meta has {len(rows)} rows, not 1: term and vote are unknown")
    _, content, crc = rows[0]
    if not isinstance(content, bytes) or zlib.crc32(content) != crc:
        raise refuse("the checksum of term and vote is wrong")
    try:
        meta = msgspec.msgpack.decode(content, type=Meta)
    except msgspec.DecodeError as error:
        raise refuse(f"the row of term and vote has another format: {error}") from error

    snapshot = None
    if meta.snapshot_index:
        states = connection.execute("SELECT state FROM snapshot").fetchall()
        if len(states) != 1 or not isinstance(states[0][0], bytes):
            raise refuse(f"the snapshot of entries 1 to {meta.snapshot_index} is missing")
        if zlib.crc32(states[0][0]) != meta.state_crc:
            raise refuse("the checksum of the snapshot is wrong")
        configuration = meta.configured, meta.configuration
        snapshot = Snapshot(meta.snapshot_index, meta.snapshot_term, states[0][0], *configuration)
    log = Log((), meta.snapshot_index, meta.snapshot_term)
    crc = meta.base_crc
    for n, term, command, row_crc in connection.execute("SELECT n, term, command, crc FROM log ORDER BY n"):
        if n != log.last_index + 1:
            raise refuse(f"log entry {log.last_index + 1} is missing: entry {n} follows {log.last_index}")
        if not isinstance(term, int) or not isinstance(command, bytes):
            raise refuse(f"log entry {n} is not a term and a command")
        entry = Entry(term, command)
        crc = _entry_crc(n, entry, crc)
        if crc != row_crc:
            raise refuse(f"the checksum of log entry {n} is wrong")
        log.append([entry])
    if (log.last_index, crc) != (meta.log_length, meta.log_crc):
        raise refuse(
            f"the log has {log.last_index} entries where {meta.log_length} were written, or other ones"
        )
    return meta, log, snapshot


def _entry_crc(n: int, entry: Entry, before: int) -> int:
    """The checksum of the log up to entry n. With the one before in it, a stale row is found too."""
    try:
        head = struct.pack(">QQ", n, entry.term)
    except struct.error:  # a negative term, from a damaged row
        return -1
    return zlib.crc32(entry.command, zlib.crc32(head, before))


def _writes_record(writes: int) -> bytes:
    number = writes.to_bytes(8, "big")
    return number + zlib.crc32(number).to_bytes(4, "big")


def _set_writes(shared: mmap.mmap, writes: int) -> None:
    """Each part is stored at once, being a word of the machine's; a kill may come between them."""
    record = _writes_record(writes)
    shared[:8] = record[:8]
    shared[8:] = record[8:]


def _open_writes(path: Path) -> tuple[mmap.mmap, int]:
    """The number of writes, and where it is kept from now on."""
    try:
        with path.open("r+b") as file:
            record = file.read(64)
            writes = int.from_bytes(record[:8], "big")
            # After a kill between number and checksum, that is still the one of the number before.
            before = record[:8] + _writes_record(max(0, writes - 1))[8:]
            if record in (_writes_record(writes), before):
                return mmap.mmap(file.fileno(), len(record)), writes
    except OSError as error:
        raise StorageError(
            path, f"this part of the store is missing: {error.strerror}", ANOTHER_MEMBER
        ) from error
    raise StorageError(path, "the number of writes is damaged", ANOTHER_MEMBER)

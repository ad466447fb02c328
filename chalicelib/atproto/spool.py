"""Where a snapshot keeps what it can't hold in memory: blocks in a temporary file, and where they are in a private database.

The file is itself a CAR: records that were found and blocks that may still be needed, in the order in which they came.
A few records take neither file nor database; millions take their bytes on disk and a fixed amount of memory. What is
on disk has no name there, so it is gone with the process, however that ends.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Final, NamedTuple

from chalicelib.atproto.car import CarLimits, CarReader, car_header
from chalicelib.atproto.cid import CID_LENGTH
from chalicelib.atproto.errors import BudgetExceeded
from chalicelib.atproto.node import Gap

_BYTES_IN_MEMORY: Final = 4_000_000
_ROWS_IN_MEMORY: Final = 20_000
_CHUNK: Final = 65_536
_TABLES: Final = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;
    CREATE TABLE record (path TEXT, cid BLOB, offset INTEGER, size INTEGER, problem TEXT);
    CREATE TABLE block (cid BLOB, offset INTEGER, size INTEGER);
    CREATE TABLE passed (part BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE deferred (cid BLOB, path TEXT, low BLOB, high BLOB, layer INTEGER);
"""


class StoredRecord(NamedTuple):
    """A record's key and CID, and where its block is in the spool; or, with neither, why it has no value."""

    path: str
    cid: bytes
    offset: int
    size: int
    problem: str | None = None


class Spool:
    """Raises BudgetExceeded where more than ``max_bytes`` of blocks are to be kept, or there is no more room for them."""

    def __init__(self, root: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._file = SpooledTemporaryFile(_BYTES_IN_MEMORY)  # noqa: SIM115  closed by close()
        self._unwritten = [car_header(root)]
        self._written = 0
        self._end = len(self._unwritten[0])
        self._rows: list[StoredRecord] = []
        self._database: sqlite3.Connection | None = None

    def close(self) -> None:
        self._file.close()
        if self._database:
            self._database.close()

    def add(self, section: bytes) -> int:
        """Keep a section of a CAR. Returns the offset at which it ends."""
        self._unwritten.append(section)
        self._end += len(section)
        if self._end - self._written > _CHUNK:
            self._write()
        return self._end

    def read(self, offset: int, size: int) -> bytes:
        """The block that starts at ``offset``."""
        self._write()
        self._file.seek(offset)
        return self._file.read(size)

    def add_record(self, record: StoredRecord) -> None:
        self._rows.append(record)
        if len(self._rows) >= _ROWS_IN_MEMORY:
            self._write_rows()

    def records(self) -> Iterator[StoredRecord]:
        """All records in order of path."""
        if not self._database:
            yield from sorted(self._rows)
            return
        self._write_rows()
        with _room():
            yield from map(StoredRecord._make, self._database.execute("SELECT * FROM record ORDER BY path"))

    def defer(self, cid: bytes, *, path: str | None = None, gap: Gap | None = None) -> None:
        """Note that a block is needed, a record's or a node's, for when all blocks have come."""
        low, high, layer = gap or (None, None, None)
        with _room():
            self._tables.execute("INSERT INTO deferred VALUES (?, ?, ?, ?, ?)", (cid, path, low, high, layer))

    def deferred(self) -> Iterator[tuple[bytes, str | Gap]]:
        with _room():
            for cid, path, low, high, layer in self._tables.execute("SELECT * FROM deferred"):
                yield cid, path if path is not None else Gap(low, high, layer)

    def index(self) -> None:
        """Make all blocks that were added findable."""
        self._write()
        self._file.seek(0)
        limits = CarLimits(max_bytes=self._end, max_block=self._end, max_blocks=self._end)
        with _room():
            self._tables.executemany("INSERT INTO block VALUES (?, ?, ?)", self._blocks(limits))
            self._tables.execute("CREATE INDEX block_by_cid ON block (cid)")

    def find(self, cid: bytes) -> tuple[int, int] | None:
        """Offset and size of the first block that came under a CID, once there is an index."""
        found: tuple[int, int] | None = self._tables.execute(
            "SELECT offset, size FROM block WHERE cid = ? ORDER BY rowid LIMIT 1", (cid,)
        ).fetchone()
        return found

    def was_passed(self, cid: bytes, passed: bytearray) -> bool:
        """Whether eight bytes of the CID's hash are among those in ``passed``, which is emptied into an index."""
        if passed:
            parts = ((bytes(passed[at : at + 8]),) for at in range(0, len(passed), 8))
            with _room():
                self._tables.executemany("INSERT OR IGNORE INTO passed VALUES (?)", parts)
            passed.clear()
        return self._tables.execute("SELECT 1 FROM passed WHERE part = ?", (cid[4:12],)).fetchone() is not None

    def _blocks(self, limits: CarLimits) -> Iterable[tuple[bytes, int, int]]:
        reader = CarReader(iter(lambda: self._file.read(_CHUNK), b""), limits)
        for buffer, _, start, stop in reader.sections():
            block = start + CID_LENGTH
            yield buffer[start:block], reader.bytes_read - len(buffer) + block, stop - block

    def _write(self) -> None:
        if not self._unwritten:
            return
        if self._end > self._max_bytes:
            raise BudgetExceeded(f"more than {self._max_bytes} bytes would have to be kept")
        with _room():
            self._file.seek(self._written)
            self._file.write(b"".join(self._unwritten))
        self._unwritten.clear()
        self._written = self._end

    def _write_rows(self) -> None:
        with _room():
            self._tables.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", self._rows)
        self._rows.clear()

    @property
    def _tables(self) -> sqlite3.Connection:
        if self._database is None:
            # An empty name is SQLite's private database: in memory first, then in a file without a name.
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.executescript(_TABLES)
        return self._database


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise BudgetExceeded("no room left for temporary files") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BudgetExceeded("no room left for temporary files") from error

"""Where a snapshot keeps what it can't hold in memory: blocks, and rows about them.

A small snapshot stays in memory. A large one takes a fixed amount of it, and the rest on disk, in files without a name:
they are gone with the process, however that ends. What takes memory all the same is an index, which is made only where
blocks came in a bad order: about 20 bytes for each block that was kept.
"""

from __future__ import annotations

import errno
import heapq
import marshal
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple

from chalicelib.atproto.car import CarLimits, CarReader, car_header
from chalicelib.atproto.errors import BudgetExceeded
from chalicelib.atproto.node import Gap

_BYTES_IN_MEMORY: Final = 4_000_000
_BYTES_IN_WRITE: Final = 262_144  # once there is a file: larger blocks of memory would be new ones each time
_PARTS_IN_WRITE: Final = 1_000  # what the system takes at a time is 1,024
_ROWS_IN_MEMORY: Final = 20_000
_ROWS_IN_BATCH: Final = 200
_CHUNK: Final = 65_536


class StoredRecord(NamedTuple):
    """A record's key and CID, and where its block is in the spool; or, with neither, why it has no value."""

    path: str
    cid: bytes
    offset: int
    size: int
    problem: str | None = None


class Spool:
    """Blocks and records of one snapshot.

    Raises BudgetExceeded where more than ``max_bytes`` of blocks are to be kept, or there is no more room on disk.
    """

    def __init__(self, root: bytes, max_bytes: int) -> None:
        # The blocks are kept as a CAR, so that what reads one reads the other.
        self._blocks = _Tape(max_bytes)
        self._blocks.append(car_header(root))
        self._rows: list[StoredRecord] = []
        self._runs = _Batches(max_bytes)
        self._needs: list[tuple[Any, ...]] = []
        self._deferred = _Batches(max_bytes)
        self._index: FingerprintIndex | None = None

    def close(self) -> None:
        """Give back what is on disk."""
        for tape in (self._blocks, self._runs.tape, self._deferred.tape):
            tape.close()

    def add(self, sections: bytes | memoryview) -> int:
        """Keep sections of a CAR. Returns the offset at which they end."""
        return self._blocks.append(sections)

    def read(self, offset: int, size: int) -> bytes:
        """The block that lies at ``offset``."""
        return self._blocks.read(offset, size)

    def add_record(self, record: StoredRecord) -> None:
        """Keep a row. No two have the same path."""
        self._rows.append(record)
        if len(self._rows) >= _ROWS_IN_MEMORY:
            self._runs.write(sorted(self._rows))
            self._rows.clear()

    def records(self) -> Iterator[StoredRecord]:
        """All rows in order of path: the sorted runs on disk and the last one in memory, merged."""
        runs = map(self._runs.read, self._runs.runs)
        return map(StoredRecord._make, heapq.merge(*runs, sorted(self._rows)))

    def defer(self, cid: bytes, need: str | Gap) -> None:
        """Note that the record of a path, or the node of a gap, is needed once all blocks have come."""
        self._needs.append((cid, *need) if isinstance(need, Gap) else (cid, need))
        if len(self._needs) >= _ROWS_IN_BATCH:
            self._deferred.write(self._needs)
            self._needs.clear()

    def deferred(self) -> Iterator[tuple[bytes, str | Gap]]:
        """What was noted, in order."""
        runs = map(self._deferred.read, self._deferred.runs)
        for cid, *need in chain(chain.from_iterable(runs), self._needs):
            yield cid, need[0] if len(need) == 1 else Gap(*need)

    def find(self, cid: bytes) -> tuple[int, int] | None:
        """Offset and size of the first block that was kept under a CID. Call it when all blocks are there."""
        if self._index is None:
            self._index = FingerprintIndex()
            limits = CarLimits(max_bytes=self._blocks.end, max_block=self._blocks.end, max_blocks=self._blocks.end)
            reader = CarReader(self._blocks.chunks(), limits)
            for buffer, bounds, blocks in reader.batches():
                before = reader.bytes_read - len(buffer)
                for block, stop in zip(blocks, bounds[1:], strict=True):
                    self._index.add(buffer[block - 32 : block - 22], (before + block) << 28 | stop - block)
        found = self._index.find(cid[4:14])
        return None if found is None else (found >> 28, found & 0xFFFFFFF)


class FingerprintIndex:
    """From ten bytes of a hash to a number of eight bytes, at 18 bytes of memory each: the first number counts.

    Ten bytes are not the whole hash, so what is found by them has to be hashed. Buckets are chosen by Python's keyed hash,
    so nobody can fill one on purpose.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}

    def add(self, fingerprint: bytes, number: int) -> None:
        bucket = hash(fingerprint) & 0xFFFF
        entry = fingerprint + number.to_bytes(8, "big")
        if bucket in self._buckets:
            self._buckets[bucket] += entry
        else:
            self._buckets[bucket] = bytearray(entry)

    def find(self, fingerprint: bytes) -> int | None:
        bucket = self._buckets.get(hash(fingerprint) & 0xFFFF, b"")
        at = bucket.find(fingerprint)
        while at > 0 and at % 18:
            at = bucket.find(fingerprint, at + 1)
        return None if at < 0 else int.from_bytes(bucket[at + 10 : at + 18], "big")


class _Tape:
    """Bytes that are appended and read at any place: the latest in memory, all before them in a file."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._file: Any = None
        self._written = 0
        self._latest: list[bytes | memoryview] = []
        self.end = 0

    def close(self) -> None:
        if self._file:
            self._file.close()

    def append(self, data: bytes | memoryview) -> int:
        self._latest.append(data)
        self.end += len(data)
        if self.end > self._max_bytes:
            raise BudgetExceeded(f"more than {self._max_bytes} bytes would have to be kept")
        if self.end - self._written > (_BYTES_IN_WRITE if self._file else _BYTES_IN_MEMORY):
            self._write()
        return self.end

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._written:
            return os.pread(self._file.fileno(), size, offset)
        begin = offset - self._written
        return self._join()[begin : begin + size]

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        offset = 0
        while offset < self.end:
            chunk = self.read(offset, size)
            yield chunk
            offset += len(chunk)

    def _write(self) -> None:
        size = self.end - self._written
        try:
            if self._file is None:
                self._file = TemporaryFile(buffering=0)  # noqa: SIM115  closed by close()
            file = self._file.fileno()
            done = os.writev(file, self._latest if len(self._latest) <= _PARTS_IN_WRITE else [self._join()])
            while done < size:  # a disk that is nearly full takes some, and says so the next time
                done += os.write(file, self._join()[done:])
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise BudgetExceeded("no room left for temporary files") from error
        self._latest.clear()
        self._written = self.end

    def _join(self) -> bytes:
        joined = b"".join(self._latest)
        self._latest = [joined]
        return joined


class _Batches:
    """Runs of rows on a tape, read one batch at a time."""

    def __init__(self, max_bytes: int) -> None:
        self.tape = _Tape(max_bytes)
        self.runs: list[list[tuple[int, int]]] = []
        """Of each run: where its batches lie, and their sizes."""

    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        run = []
        for at in range(0, len(rows), _ROWS_IN_BATCH):
            batch = marshal.dumps([tuple(row) for row in rows[at : at + _ROWS_IN_BATCH]])
            run.append((self.tape.append(batch) - len(batch), len(batch)))
        self.runs.append(run)

    def read(self, run: Iterable[tuple[int, int]]) -> Iterator[tuple[Any, ...]]:
        for offset, size in run:
            yield from marshal.loads(self.tape.read(offset, size))  # noqa: S302  bytes of our own

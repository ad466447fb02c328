"""The wanted records of a repo, read from its CAR in one pass, and proven complete under the root of its commit.

Blocks come in any order, once or more often, among blocks that belong to nothing. Nothing is believed for being in the
file: the walk starts at the root and asks for one block after another. A block is taken when it is asked for, hashed and
read; a block that nobody has asked for yet is laid aside if it may still be asked for, first in a small memory, then in a
temporary file; all others are passed over unread. As soon as nothing is asked for any more, the range is proven complete
and no further byte is taken. Servers write parents before children, so this is mostly long before the end of the file.

What is wrong decides what comes of it:

- the file is cut off or malformed (MalformedCar), or larger than allowed (BudgetExceeded): nothing is known;
- something that was asked for is missing or false (VerificationFailed): all of it is rejected;
- a record is not what it should be: it is kept without a value, with its problem; one without a valid path is counted;
- whatever was not asked for: ignored.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import Final, Self

from chalicelib.atproto.aside import Aside, Sections, Sieve
from chalicelib.atproto.car import CarLimits, CarReader
from chalicelib.atproto.cid import CID_LENGTH, cid_of
from chalicelib.atproto.commit import Commit, parse_commit
from chalicelib.atproto.errors import BudgetExceeded, InvalidSyntax, PassedOver, VerificationFailed
from chalicelib.atproto.mst import RangeWalk
from chalicelib.atproto.node import ROOT_GAP, Gap, NodeLimits
from chalicelib.atproto.record import Record, is_record_cid, read_record
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.spool import Spool, StoredRecord
from chalicelib.atproto.syntax import Did, canonical_did, parse_nsid, parse_record_key

_LONG_KEYS: Final = 2_000  # of the two keys around a node: twice the longest valid path is less


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLimits(CarLimits):
    """What a snapshot may cost. Each bound is itself allowed; bytes, unless it says otherwise."""

    max_records: int = 5_000_000
    """Wanted keys of the tree."""
    max_values: int = 2_000_000_000
    """All wanted records together. One block under many keys counts once for each."""
    max_spool: int = 2_000_000_000
    """Blocks on disk: the records that were found, and what was laid aside."""
    max_node_entries: int = 1_000
    max_layer: int = 20
    lookahead: int = 524_288
    """Bytes of the file that came with blocks laid aside in memory, before these go to disk. Of a file that is not larger all
    blocks are."""
    pending: int = 50_000
    """CIDs asked for in memory, before they go to disk."""


class Snapshot:
    """The wanted records of a repo as of one commit, whose signature is for the caller to check. Close it when done."""

    def __init__(self, commit: Commit, spool: Spool) -> None:
        self.commit = commit
        self._spool = spool
        self.record_count = 0
        """Records that ``records`` yields."""
        self.skipped = 0
        """Keys in the wanted ranges that are no valid path."""
        self.first_skipped: str | None = None
        """Why the first of them is none."""
        self.bytes_read = 0
        """Bytes taken from the chunks."""

    def records(self) -> Iterator[Record]:
        """The wanted records in order of their keys. It can be called again; a record is decoded when it is yielded."""
        for path, cid, offset, size, problem in self._spool.records():
            if problem is None:
                yield read_record(path, cid, self._spool.read(offset, size))
            else:
                yield Record(path, cid, None, problem)

    def close(self) -> None:
        """Let go of what is on disk."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_snapshot(
    chunks: Iterable[bytes],
    *,
    did: Did,
    scope: Scope,
    limits: SnapshotLimits | None = None,
    now: float | None = None,
    keep_all: bool = False,
) -> Snapshot:
    """Read the records of ``scope`` from a repo's CAR, as far as needed. ``now`` is seconds since 1970.

    Of a file that is not small, blocks that name no wanted collection are passed over. Where a wanted record was in none of the
    others, this raises PassedOver, and a second reading, with ``keep_all``, tells a record without a proper ``$type`` from one
    that is missing.

    Raises EmptyCar for zero bytes, MalformedCar, BudgetExceeded, PassedOver; VerificationFailed with the reason
    ``missing-block``, ``wrong-hash``, ``bad-commit``, ``wrong-did``, ``future-rev`` or ``bad-node``; and what ``chunks`` raises.
    """
    limits = limits or SnapshotLimits()
    reader = CarReader(chunks, limits)
    spool = Spool(reader.root, limits.max_spool)
    try:
        return _Reading(reader, spool, scope, limits, keep_all).run(did, now)
    except BaseException:
        spool.close()
        raise


class _Reading:
    """One pass over a CAR: what is asked for, and what is laid aside until somebody asks."""

    def __init__(self, reader: CarReader, spool: Spool, scope: Scope, limits: SnapshotLimits, keep_all: bool) -> None:
        self._reader = reader
        self._answers: Generator[tuple[bytes, bytes]] = self._asked_for()
        self._spool = spool
        self._scope = scope
        self._limits = limits
        self._aside = Aside(spool, limits.lookahead)
        self._keep_all = keep_all
        self._passed_over = False  # whether any block was
        # What a record of the scope has in it, in its $type: a collection's needle without the slash of its keys.
        self._needles = [needle.removesuffix(b"/") for needle in scope.needles]
        self._sieve = Sieve([*self._needles, reader.root])
        self._nodes: dict[bytes, Gap] = {reader.root: ROOT_GAP}  # asked for: the commit, and then what the walk wants
        self._records: dict[bytes, list[str]] = {}  # asked for: the paths of each
        self._stored: dict[bytes, tuple[int, int]] = {}  # found: where each is, in case it is under other keys as well
        self._asked = 0  # the number of those paths
        self._deferred = False  # whether more is asked for than fits in memory
        self._at_end = False
        self._values = 0
        self._is_wanted = lru_cache(1_000)(partial(_is_wanted, scope))

    def run(self, did: Did, now: float | None) -> Snapshot:
        commit = self._read_commit()
        if canonical_did(commit.did) != canonical_did(did):
            raise VerificationFailed("wrong-did", f"the commit is that of {commit.did:.100}")
        commit.check_rev(now)
        self._snapshot = snapshot = Snapshot(commit, self._spool)
        limits = NodeLimits(self._limits.max_node_entries, self._limits.max_layer)
        self._walk = RangeWalk(commit.data, self._scope.key_ranges, limits)
        self._nodes = self._walk.want
        if root := self._aside.take(commit.data):
            self._take_node(commit.data, _block(root, commit.data))
        if not self._complete:
            self._stream()
        self._answers.close()
        if not self._complete:
            self._settle()
        snapshot.bytes_read = self._reader.bytes_read
        return snapshot

    @property
    def _complete(self) -> bool:
        return not (self._walk.want or self._records or self._deferred)

    def _read_commit(self) -> Commit:
        root = self._reader.root
        for cid, section in self._answers:
            block = _block(section, cid)
            if cid_of(block) != root:
                raise VerificationFailed("wrong-hash", "the commit's bytes are not those of its CID")
            self._sieve = Sieve(self._needles)
            return parse_commit(block)
        raise VerificationFailed("missing-block", "the commit is not in the file")

    def _stream(self) -> None:
        """Take blocks as they come, until nothing is asked for any more or the file ends."""
        nodes, records = self._nodes, self._records
        for cid, section in self._answers:
            if cid in nodes:
                self._take_node(cid, _block(section, cid))
            else:
                self._take_record(cid, section, records.pop(cid))
            if not nodes and not records and not self._deferred:
                return

    def _asked_for(self) -> Generator[tuple[bytes, bytes]]:
        """``(CID, section)`` of what is asked for by then, as it comes. What may be asked for later on is laid aside.

        This sees every block of a file, so it is written for speed: what can be neither a node nor a record with a proper
        ``$type`` is passed over with a few calls for many blocks, unless the file is small.
        """
        aside, records = self._aside, self._records
        for batch in self._reader.batches():
            count = len(batch.blocks)
            keep_all = self._keep_all or self._reader.bytes_read <= self._limits.lookahead
            chosen = range(count) if keep_all else self._sieve(batch)
            self._passed_over |= len(chosen) < count
            sections = Sections(batch, chosen)
            if self._nodes or self._deferred:
                aside.put(sections)
            cids = sections.numbers.keys()
            # What these ask for in turn is aside, if it has come.
            for cid in sorted(self._nodes.keys() & cids | records.keys() & cids, key=sections.numbers.__getitem__):
                if cid in self._nodes or cid in records:
                    yield cid, aside.take(cid) or sections[cid]

    def _settle(self) -> None:
        """The file has ended: what is still asked for was laid aside and is on disk, or is not there."""
        self._at_end = True
        self._aside.spill()
        self._settle_nodes()
        for cid, paths in self._records.items():
            for path in paths:
                self._settle_record(cid, path)
        for cid, need in self._spool.deferred():
            if isinstance(need, Gap):
                self._walk.want[cid] = need
                self._settle_nodes()
            else:
                self._settle_record(cid, need)

    def _settle_nodes(self) -> None:
        want = self._walk.want
        while want:
            cid = next(reversed(want))  # depth first, so that little is asked for at a time
            found = self._spool.find(cid)
            if not found:
                raise VerificationFailed("missing-block", "a node of the tree is not in the file")
            self._take_node(cid, self._spool.read(*found))

    def _settle_record(self, cid: bytes, path: str) -> None:
        found = self._spool.find(cid)
        if found:
            if cid_of(self._spool.read(*found)) != cid:
                raise VerificationFailed("wrong-hash", f"the bytes of {path} are not those of its CID")
            self._add(StoredRecord(path, cid, *found))
        elif self._passed_over:
            raise PassedOver(f"the record {path} was passed over, or is not in the file")
        else:
            raise VerificationFailed("missing-block", f"the record {path} is not in the file")

    def _take_node(self, cid: bytes, block: bytes) -> None:
        """Read a node that is asked for, and what it asks for in turn as far as that was laid aside in memory."""
        ready = [(cid, block)]
        while ready:
            children, leaves = self._walk.visit(*ready.pop())
            for key, value in leaves:
                self._ask_for_record(key, value)
            for child in children:
                if child in self._records:
                    raise VerificationFailed("bad-node", "a block is both a node and a record")
                if section := self._aside.take(child):
                    ready.append((child, _block(section, child)))
                elif not self._at_end and self._is_full(self._walk.want[child]):
                    self._spool.defer(child, self._walk.want.pop(child))

    def _ask_for_record(self, key: bytes, cid: bytes) -> None:
        path = self._wanted_path(key)
        if path is None:
            return
        if not is_record_cid(cid):
            self._add(StoredRecord(path, cid, 0, 0, "its CID is not one of DAG-CBOR and SHA-256"))
        elif self._at_end:
            self._settle_record(cid, path)
        elif cid in self._walk.want:
            raise VerificationFailed("bad-node", "a block is both a node and a record")
        elif cid not in self._records and (section := self._aside.take(cid)):
            self._asked += 1
            self._take_record(cid, section, [path])
        elif stored := self._stored.get(cid):
            self._add(StoredRecord(path, cid, *stored))
        elif self._is_full():
            self._spool.defer(cid, path)
        else:
            self._records.setdefault(cid, []).append(path)
            self._asked += 1

    def _wanted_path(self, key: bytes) -> str | None:
        try:
            path = key.decode("ascii")
            collection, _, rkey = path.partition("/")
            parse_record_key(rkey)
            return path if self._is_wanted(collection) else None
        except (UnicodeDecodeError, InvalidSyntax) as error:
            self._snapshot.skipped += 1
            if self._snapshot.first_skipped is None:
                self._snapshot.first_skipped = str(error)
            return None

    def _take_record(self, cid: bytes, section: bytes, paths: list[str]) -> None:
        block = _block(section, cid)
        if cid_of(block) != cid:
            raise VerificationFailed("wrong-hash", f"the bytes of {paths[0]} are not those of its CID")
        self._asked -= len(paths)
        size = len(block)
        offset = self._spool.add(section) - size
        if len(self._stored) < self._limits.pending:
            self._stored[cid] = offset, size
        for path in paths:
            self._add(StoredRecord(path, cid, offset, size))

    def _add(self, record: StoredRecord) -> None:
        self._snapshot.record_count += 1
        self._values += record.size
        if self._snapshot.record_count > self._limits.max_records:
            raise BudgetExceeded(f"more than {self._limits.max_records} records")
        if self._values > self._limits.max_values:
            raise BudgetExceeded(f"more than {self._limits.max_values} bytes of records")
        self._spool.add_record(record)

    def _is_full(self, gap: Gap = ROOT_GAP) -> bool:
        """Whether what is asked for next has to go to disk: from the first time on all of it does."""
        asked = self._asked + len(self._walk.want)
        if asked > self._limits.pending or len(gap.low) + len(gap.high or b"") > _LONG_KEYS:
            self._deferred = True
        return self._deferred


def _is_wanted(scope: Scope, collection: str) -> bool:
    return scope.wants(parse_nsid(collection))


def _block(section: bytes, cid: bytes) -> bytes:
    return section[section.index(cid) + CID_LENGTH :]

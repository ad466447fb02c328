"""A signed repo with its history: every block that it ever had (atproto.com/specs/repository)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import mst
from .car import Block, Car
from .cbor import Link, Value, cid_of, decode, encode, to_json
from .clock import Clock
from .keys import SigningKey

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Write:
    """A wish: ``value`` is a record, or its raw bytes where it should be a bad one; None for a delete."""

    action: Action
    path: str
    value: Value = None


@dataclass(frozen=True, slots=True)
class Op:
    """What a commit did to one path, as its event tells it."""

    action: Action
    path: str
    cid: bytes | None
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class Record:
    """A live record: ``value`` in JSON form, None where it was written as raw bytes."""

    path: str
    cid: bytes
    value: Any


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, and what its event carries: ``blocks`` are itself, nodes that are new or prove its ops, new records."""

    did: str
    rev: str
    since: str | None
    cid: bytes
    block: bytes
    data: bytes
    prev_data: bytes | None
    ops: tuple[Op, ...]
    blocks: tuple[Block, ...]

    @property
    def car(self) -> Car:
        return Car((self.cid,), self.blocks)

    @property
    def sync_car(self) -> Car:
        """The commit alone, as ``#sync`` carries it."""
        return Car((self.cid,), ((self.cid, self.block),))


class Repo:
    """The repo of one account.

    ``head`` is its newest commit and ``tree`` the MST under it; ``blocks`` has every block ever written and ``log`` the
    CIDs of each revision, oldest first. Records given at the start are one commit, built in bulk.
    """

    def __init__(self, did: str, key: SigningKey, clock: Clock, records: Iterable[tuple[str, Value]] = ()) -> None:
        self.did = did
        self.key = key
        self._clock = clock
        self.blocks: dict[bytes, bytes] = {}
        self._raw: set[bytes] = set()
        self.log: list[tuple[str, tuple[bytes, ...]]] = []
        leaves = {path.encode(): self._store(value) for path, value in records}
        self.tree = mst.build(leaves.items())
        self.head = self._commit((), None, leaves.values())

    def __len__(self) -> int:
        return sum(1 for _ in mst.items(self.tree))

    @property
    def rev(self) -> str:
        return self.head.rev

    def apply(self, writes: Sequence[Write]) -> Commit:
        """One commit with all of ``writes``; with none, the same tree signed anew under a higher rev.

        ``KeyError`` where a path to create is there, or another is not; ``ValueError`` for a path named twice.
        """
        if len({write.path for write in writes}) < len(writes):
            raise ValueError("a commit names a path at most once")
        tree, ops, leaves = self.tree, [], []
        for write in writes:
            path = write.path.encode()
            prev = mst.get(tree, path)
            if (prev is None) != (write.action == "create"):
                raise KeyError(write.path)
            cid = None
            if write.action == "delete":
                tree = mst.delete(tree, path)
            else:
                cid = self._store(write.value)
                leaves.append(cid)
                tree = mst.put(tree, path, cid)
            ops.append(Op(write.action, write.path, cid, prev))
        before, self.tree = self.head, tree
        self.head = self._commit(ops, before, leaves)
        return self.head

    def put(self, path: str, value: Value) -> Write:
        """The write that gives ``path`` this value: an update where it is there, else a create."""
        return Write("create" if self.get(path) is None else "update", path, value)

    def get(self, path: str) -> bytes | None:
        """The CID of a live record."""
        return mst.get(self.tree, path.encode())

    def record(self, path: str) -> Record | None:
        cid = self.get(path)
        return self._record(path, cid) if cid else None

    def records(self) -> dict[str, Record]:
        """All live records by path, in order of keys."""
        return {path.decode(): self._record(path.decode(), cid) for path, cid in mst.items(self.tree)}

    def paths(self, collection: str = "") -> Iterator[str]:
        """The paths of all live records, or of those in a collection, in order of keys."""
        start = f"{collection}/".encode() if collection else b""
        for path, _ in mst.items(self.tree, start):
            if not path.startswith(start):
                break
            yield path.decode()

    def proof(self, path: str) -> Car:
        """What ``com.atproto.sync.getRecord`` answers: commit and nodes that show the record, or that there is none."""
        blocks = {node.cid: node.block for node in mst.covering(self.tree, path.encode())}
        cid = self.get(path)
        if cid:
            blocks[cid] = self.blocks[cid]
        return Car((self.head.cid,), ((self.head.cid, self.head.block), *blocks.items()))

    def copy(self) -> Repo:
        """The repo as it stands, to go its own way from here: a backup, or the other end of a migration."""
        other = object.__new__(Repo)
        other.__dict__ |= self.__dict__ | {"log": self.log.copy(), "blocks": self.blocks.copy()}
        return other

    def sign(self, **fields: Value) -> Block:
        """A commit block with these ``fields``, honest or not, signed by the repo's key."""
        unsigned: dict[str, Any] = {"did": self.did, "version": 3, "prev": None, **fields}
        block = encode({"sig": self.key.sign(encode(unsigned)), **unsigned})
        return cid_of(block), block

    def _commit(self, ops: Sequence[Op], before: Commit | None, leaves: Iterable[bytes]) -> Commit:
        nodes = {node.cid: node.block for node in mst.new_nodes(self.tree)}
        covering = [self.tree, *(node for op in ops for node in mst.covering(self.tree, op.path.encode()))]
        proof = {node.cid: node.block for node in covering}
        rev = self._clock.tid()
        cid, block = self.sign(rev=rev, data=Link(self.tree.cid))
        records = {leaf: self.blocks[leaf] for leaf in leaves}
        self.blocks |= {cid: block} | nodes
        self.log.append((rev, (cid, *nodes, *records)))
        return Commit(
            did=self.did,
            rev=rev,
            since=before.rev if before else None,
            cid=cid,
            block=block,
            data=self.tree.cid,
            prev_data=before.data if before else None,
            ops=tuple(ops),
            blocks=((cid, block), *(nodes | proof).items(), *records.items()),
        )

    def _store(self, value: Value) -> bytes:
        block = value if isinstance(value, bytes) else encode(value)
        cid = cid_of(block)
        if isinstance(value, bytes):
            self._raw.add(cid)
        self.blocks[cid] = block
        return cid

    def _record(self, path: str, cid: bytes) -> Record:
        return Record(path, cid, None if cid in self._raw else to_json(decode(self.blocks[cid])))

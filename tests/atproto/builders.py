"""Repos, trees and CARs for tests, down to the bytes: what is well formed comes from ``simulator``, the rest from here."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did
from simulator import mst
from simulator.cbor import Link, cid_of, encode
from simulator.clock import Clock
from simulator.keys import SigningKey
from simulator.repo import Repo, Write

DID = Did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
SIGNER = SigningKey.generate(random.Random(7))
KEY = parse_did_key(SIGNER.did_key)
SCOPE = Scope.parse("io.atcr.*")
REV = "3maaaaaaaaa2a"

Entry = tuple[bytes, bytes, bytes | None]
"""Key, value and the subtree after it."""


def record(collection: str = "io.atcr.hold.crew", **fields: Any) -> dict[str, Any]:
    return {"$type": collection, **fields}


def repo(*paths: str, key: SigningKey = SIGNER, **records: Any) -> Repo:
    """A repo with a record of the right type under each path."""
    values = {path: record(path.partition("/")[0], n=n) for n, path in enumerate(paths)}
    return Repo(DID, key, Clock(), {**values, **records}.items())


def write(repo: Repo, path: str, **fields: Any) -> Write:
    return repo.put(path, record(path.partition("/")[0], **fields))


class Blocks(dict[bytes, bytes]):
    """Blocks by CID, to be filled one by one and made into a CAR, in the order in which they came."""

    def add(self, value: Any) -> bytes:
        """Store a value, or raw bytes as they are; returns the CID."""
        block = value if isinstance(value, bytes) else encode(value)
        cid = cid_of(block)
        self[cid] = block
        return cid

    def node(self, entries: Iterable[Entry] = (), left: bytes | None = None, **fields: Any) -> bytes:
        """A tree node with these entries, in this order, whether or not they belong together."""
        return self.add(node(entries, left) | fields)

    def tree(self, entries: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A healthy tree of ``(key, value)``."""
        root = mst.build(entries)
        for each in mst.nodes(root):
            self[each.cid] = each.block
        return root.cid

    def commit(self, root: bytes, key: SigningKey = SIGNER, **fields: Any) -> bytes:
        """A commit over a tree, rightly signed. A field that is ``...`` is left out."""
        unsigned = {"did": DID, "rev": REV, "data": Link(root), "prev": None, "version": 3} | fields
        signed = {name: value for name, value in unsigned.items() if value is not ... and name != "sig"}
        sig = fields.get("sig", key.sign(encode(signed)))
        return self.add(signed if sig is ... else {**signed, "sig": sig})

    def car(self, root: bytes | None = None) -> bytes:
        """All blocks, behind a header with this root or the last block."""
        return car(root or list(self)[-1], self.items())


def node(entries: Iterable[Entry] = (), left: bytes | None = None) -> dict[str, Any]:
    """The fields of a node, its keys compressed as they have to be."""
    fields = []
    previous = b""
    for key, value, right in entries:
        shared = 0
        while shared < min(len(previous), len(key)) and previous[shared] == key[shared]:
            shared += 1
        fields.append({"k": key[shared:], "p": shared, "t": link(right), "v": Link(value)})
        previous = key
    return {"e": fields, "l": link(left)}


def link(cid: bytes | None) -> Link | None:
    return Link(cid) if cid else None


def key_of_layer(layer: int, start: bytes = b"io.atcr.hold.crew/") -> bytes:
    """The first key after ``start`` with a number that has this layer."""
    return next(keys_of_layer(layer, start))


def keys_of_layer(layer: int, start: bytes = b"io.atcr.hold.crew/") -> Iterator[bytes]:
    """Such keys, in order."""
    return (key for n in range(10**6) if mst.layer_of(key := start + b"%06d" % n) == layer)


def car(root: bytes, blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    return header(root) + b"".join(section(cid, block) for cid, block in blocks)


def header(*roots: bytes, **fields: Any) -> bytes:
    return sized(encode({"version": 1, "roots": [Link(root) for root in roots]} | fields))


def section(cid: bytes, block: bytes) -> bytes:
    return sized(cid + block)


def sized(data: bytes) -> bytes:
    """Bytes behind their length."""
    length = len(data)
    prefix = bytearray()
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes((*prefix, length)) + data


def in_chunks(data: bytes, size: int = 1_000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))

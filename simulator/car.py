"""CAR v1 files (ipld.io/specs/transport/car/carv1): a header with the roots, then blocks with length and CID."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .cbor import Link, encode

Block = tuple[bytes, bytes]
"""A CID and the bytes that it names (or, in a forgery, does not)."""


class Car(NamedTuple):
    """What a CAR says: its roots, and its blocks in file order."""

    roots: tuple[bytes, ...]
    blocks: Iterable[Block]

    def encode(self) -> bytes:
        """The whole file."""
        return b"".join(self.chunks())

    def chunks(self, size: int = 65_536) -> Iterator[bytes]:
        """The file piece by piece, in pieces of about ``size`` bytes."""
        parts = [section(encode({"version": 1, "roots": [Link(root) for root in self.roots]}))]
        waiting = len(parts[0])
        for cid, block in self.blocks:
            parts += (varint(len(cid) + len(block)), cid, block)
            waiting += len(cid) + len(block)
            if waiting >= size:
                yield b"".join(parts)
                parts, waiting = [], 0
        if parts:
            yield b"".join(parts)


def section(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return varint(len(data)) + data


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

"""Blocks that nobody has asked for yet, while a CAR is read: those that may still be asked for, and traces of the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from chalicelib.atproto.car import Batch
from chalicelib.atproto.cid import CID_LENGTH
from chalicelib.atproto.spool import FingerprintIndex, Spool

_MAP_OF_TWO: Final = 0xA2  # as every node is, and few records are


class Aside:
    """Sections by CID, the latest in memory, older ones in the spool.

    In memory they are in two generations of at most ``capacity`` bytes, and what came at once with the last of them: when
    the younger is full, the older goes to the spool.
    """

    def __init__(self, spool: Spool, capacity: int) -> None:
        self._passed_index: FingerprintIndex | None = None
        self._spool = spool
        self._capacity = capacity
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._size = 0

    def put(self, sections: dict[bytes, bytes]) -> None:
        """Lay sections aside, by CID. Of several with one CID the first counts."""
        for kept in (self._young, self._old):
            if not kept.keys().isdisjoint(sections):
                sections = {cid: section for cid, section in sections.items() if cid not in kept}
        self._young.update(sections)
        self._size += sum(map(len, sections.values()))
        if self._size > self._capacity:
            self._turn()

    def take(self, cid: bytes) -> bytes | None:
        """The section, if it is in memory; it is not kept any longer."""
        if section := self._young.pop(cid, None):
            self._size -= len(section)
            return section
        return self._old.pop(cid, None)

    def spill(self) -> None:
        """Send everything to the spool."""
        self._turn()
        self._turn()

    def was_passed(self, cid: bytes) -> bool:
        """Whether a block of this CID was in the file. Call it when all blocks have come."""
        if self._passed_index is None:
            self._passed_index = FingerprintIndex()
            for cids in self._spool.passed():
                for at in range(4, len(cids), CID_LENGTH):
                    self._passed_index.add(cids[at : at + 10], 0)
        return self._passed_index.find(cid[4:14]) is not None

    def _turn(self) -> None:
        if self._old:
            self._spool.add(b"".join(self._old.values()))
        self._young, self._old, self._size = {}, self._young, 0


class Sieve:
    """Finds what may still be asked for: nodes, and records that name a wanted collection, by one of ``needles``."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles

    def __call__(self, batch: Batch) -> set[int]:
        """The numbers of the sections in a batch. Nodes are known by their first byte; only what lies between is searched."""
        buffer, bounds, blocks = batch
        found = {number for number, block in enumerate(blocks) if buffer[block] == _MAP_OF_TWO}
        for needle in self._needles:
            number = 0
            while True:
                while number in found:
                    number += 1
                at = buffer.find(needle, bounds[number], bounds[-1])
                if at < 0:
                    break
                number = bisect_right(bounds, at) - 1
                found.add(number)
        return found

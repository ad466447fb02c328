"""Blocks that nobody has asked for yet, while a CAR is read: those that may still be asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from chalicelib.atproto.car import Batch
from chalicelib.atproto.spool import Spool

_MAP_OF_TWO: Final = 0xA2  # as every node is, and few records are


class Aside:
    """Sections by CID, the latest in memory, older ones in the spool.

    In memory they are in two generations of at most ``capacity`` bytes, and what came at once with the last of them: when
    the younger is full, the older goes to the spool.
    """

    def __init__(self, spool: Spool, capacity: int) -> None:
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

    def _turn(self) -> None:
        if self._old:
            self._spool.add(b"".join(self._old.values()))
        self._young, self._old, self._size = {}, self._young, 0


class Sieve:
    """Finds what may still be asked for: nodes, and records that name a wanted collection, by one of ``needles``."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles

    def __call__(self, batch: Batch) -> Sequence[int]:
        """The numbers of the sections in a batch, in order. Nodes are known by their first byte; where there are many names all
        are taken, for that is quicker than to look where each of them is."""
        buffer, bounds, blocks = batch
        names = sum(map(buffer.count, self._needles))
        if names > len(blocks) // 2:
            return range(len(blocks))
        nodes = [number for number, block in enumerate(blocks) if buffer[block] == _MAP_OF_TWO]
        return sorted(self._named(buffer, bounds).union(nodes)) if names else nodes

    def _named(self, buffer: bytes, bounds: list[int]) -> set[int]:
        found = set()
        for needle in self._needles:
            at = buffer.find(needle, 0, bounds[-1])
            while at >= 0:
                number = bisect_right(bounds, at) - 1
                found.add(number)
                at = buffer.find(needle, bounds[number + 1], bounds[-1])
        return found

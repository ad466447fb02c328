"""Blocks that nobody has asked for yet, while a CAR is read: those that may still be asked for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from chalicelib.atproto.car import Batch
from chalicelib.atproto.cid import CID_LENGTH
from chalicelib.atproto.spool import Spool

_MAP_OF_TWO: Final = 0xA2  # as every node is, and few records are
_SAMPLE: Final = 4_096  # bytes of a batch by which it is told whether it has many names


class Sections:
    """Some sections of a batch, by CID. Of several with one CID the first counts."""

    __slots__ = ("batch", "numbers")

    def __init__(self, batch: Batch, chosen: Sequence[int]) -> None:
        self.batch = batch
        buffer, _, blocks = batch
        if len(chosen) < len(blocks):
            blocks = [blocks[number] for number in chosen]
        cids = [buffer[block - CID_LENGTH : block] for block in blocks]
        self.numbers = dict(zip(reversed(cids), reversed(chosen), strict=True))
        """By CID, the number of its section in the batch; the last of them comes first."""

    def __getitem__(self, cid: bytes) -> bytes:
        buffer, bounds, _ = self.batch
        number = self.numbers[cid]
        return buffer[bounds[number] : bounds[number + 1]]


class Aside:
    """Sections by CID, the latest in memory, older ones in the spool.

    In memory they stay in the batches that they came in, two generations of them: when those of the younger have more than
    ``capacity`` bytes, what nobody has taken of the older goes to the spool.
    """

    def __init__(self, spool: Spool, capacity: int) -> None:
        self._spool = spool
        self._capacity = capacity
        self._young: dict[bytes, Sections] = {}
        self._old: dict[bytes, Sections] = {}
        self._size = 0

    def put(self, sections: Sections) -> None:
        """Lay sections aside. Of several with one CID the first counts."""
        young, cids = self._young, sections.numbers.keys()
        if young.keys().isdisjoint(cids):
            young.update(dict.fromkeys(cids, sections))
        else:
            for cid in cids:
                young.setdefault(cid, sections)
        self._size += sections.batch.bounds[-1]
        if self._size > self._capacity:
            self._turn()

    def take(self, cid: bytes) -> bytes | None:
        """The section, if it is in memory; it is not kept any longer."""
        sections = self._old.pop(cid, None) or self._young.pop(cid, None)
        return sections[cid] if sections else None

    def spill(self) -> None:
        """Send everything to the spool."""
        self._turn()
        self._turn()

    def _turn(self) -> None:
        old = self._old
        for sections, left in Counter(old.values()).items():
            buffer, bounds, blocks = sections.batch
            if left > len(blocks) // 2:  # to write all is quicker than to pick most
                self._spool.add(memoryview(buffer)[: bounds[-1]])
            else:
                numbers: Collection[int] = sections.numbers.values()
                if left < len(numbers):
                    numbers = [number for cid, number in sections.numbers.items() if cid in old]
                picked = [buffer[bounds[number] : bounds[number + 1]] for number in reversed([*numbers])]
                self._spool.add(b"".join(picked))
        self._young, self._old, self._size = {}, self._young, 0


class Sieve:
    """Finds what may still be asked for: nodes, and records that name a wanted collection, by one of ``needles``."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles

    def __call__(self, batch: Batch) -> Sequence[int]:
        """The numbers of the sections in a batch, in order. Nodes are known by their first byte; where there are many names all
        are taken, for that is quicker than to look where each of them is."""
        buffer, bounds, blocks = batch
        sampled = bisect_left(bounds, _SAMPLE)
        if sum(buffer.count(needle, 0, _SAMPLE) for needle in self._needles) > sampled // 2:
            return range(len(blocks))
        nodes = [number for number, block in enumerate(blocks) if buffer[block] == _MAP_OF_TWO]
        named = self._named(buffer, bounds)
        return sorted(named.union(nodes)) if named else nodes

    def _named(self, buffer: bytes, bounds: list[int]) -> set[int]:
        found = set()
        for needle in self._needles:
            at = buffer.find(needle, 0, bounds[-1])
            while at >= 0:
                number = bisect_right(bounds, at) - 1
                found.add(number)
                at = buffer.find(needle, bounds[number + 1], bounds[-1])
        return found

"""Blocks that nobody has asked for yet, while a CAR is read: those that may still be asked for, and traces of the others."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.atproto.spool import FingerprintIndex, Spool


class Aside:
    """Sections by CID, the latest in memory, older ones in the spool.

    In memory they are in two generations of at most ``capacity`` bytes (and one section): when the younger is full, the
    older goes to the spool at once. ``passed`` takes ten bytes of the hash, ``cid[4:14]``, of each block that is not kept.
    """

    def __init__(self, spool: Spool, capacity: int) -> None:
        self.passed = bytearray()
        self._passed_index: FingerprintIndex | None = None
        self._spool = spool
        self._capacity = capacity
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._size = 0

    def put(self, cid: bytes, section: bytes) -> None:
        """Lay a section aside. Of several with one CID the first counts."""
        if cid in self._young or cid in self._old:
            return
        self._young[cid] = section
        self._size += len(section)
        if self._size > self._capacity:
            self._turn()

    def take(self, cid: bytes) -> bytes | None:
        """The section, if it is in memory; it is not kept any longer."""
        return self._young.pop(cid, None) or self._old.pop(cid, None)

    def spill(self) -> None:
        """Send everything to the spool."""
        self._turn()
        self._turn()

    def was_passed(self, cid: bytes) -> bool:
        """Whether a block of this CID was not kept. Call it when all blocks have come."""
        if self._passed_index is None:
            self._passed_index = FingerprintIndex()
            for at in range(0, len(self.passed), 10):
                self._passed_index.add(bytes(self.passed[at : at + 10]), at)
            self.passed.clear()
        return self._passed_index.find(cid[4:14]) is not None

    def _turn(self) -> None:
        for section in self._old.values():
            self._spool.add(section)
        self._young, self._old, self._size = {}, self._young, 0


class Needles:
    """Where the next of some byte strings is in a buffer: each is sought from where it was found last."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles
        self._buffer = b""
        self._found: list[int] = []

    def find(self, buffer: bytes, start: int) -> int:
        """The first place from ``start`` on, the end of the buffer if there is none. Starts only rise within a buffer."""
        if buffer is not self._buffer:
            self._buffer, self._found = buffer, [-1] * len(self._needles)
        for index, needle in enumerate(self._needles):
            if self._found[index] < start:
                at = buffer.find(needle, start)
                self._found[index] = at if at >= 0 else len(buffer)
        return min(self._found)

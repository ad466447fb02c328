"""CAR v1, read as a stream: a header, then sections of ``length, CID, block``, in any order and as often as they please.

    varint  header                       {"roots": [CID], "version": 1}
    varint  CID (36 bytes)  block
    varint  CID (36 bytes)  block        ...

What is wrong with the file as a file ends in MalformedCar, what is too large in BudgetExceeded. Whether a block has the
bytes that its CID promises is for whoever uses the block: most blocks of a large file are never looked at.

Specifications: https://atproto.com/specs/repository#car-file-serialization, https://dasl.ing/car.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from chalicelib.atproto import drisl
from chalicelib.atproto.cid import CID_LENGTH, DAG_CBOR
from chalicelib.atproto.errors import BudgetExceeded, EmptyCar, MalformedCar, MalformedCbor

_LONGEST_VARINT: Final = 9
# The header that all but exotic servers write, around its one root: it needs no decoder.
_HEADER_START: Final = b"\xa2eroots\x81\xd8*X%\x00"
_HEADER_END: Final = b"gversion\x01"
_HEADER_LENGTH: Final = len(_HEADER_START) + CID_LENGTH + len(_HEADER_END)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarLimits:
    """How large a CAR may be, in bytes and in blocks. Each bound is itself allowed."""

    max_bytes: int = 2_000_000_000
    max_header: int = 10_000
    max_block: int = 2_000_000
    max_blocks: int = 10_000_000


class Batch(NamedTuple):
    """Sections that lie in one buffer, one after the other, so that what is not needed is not copied.

    Section ``n`` is ``buffer[bounds[n]:bounds[n + 1]]``; its block starts at ``blocks[n]``, after a CID of 36 bytes that
    may be of some other kind than DAG-CBOR. It has one byte at least.
    """

    buffer: bytes
    bounds: list[int]
    blocks: list[int]


class CarReader:
    """A CAR whose chunks are taken one at a time, and only as far as the reader is read.

    ``root`` is the first root of the header, which is read at once; further roots have no meaning. Raises EmptyCar where
    there are no bytes at all, MalformedCar, BudgetExceeded.
    """

    def __init__(self, chunks: Iterable[bytes], limits: CarLimits | None = None) -> None:
        self._chunks = iter(chunks)
        self._limits = limits or CarLimits()
        self.bytes_read = 0
        """Bytes taken from the chunks so far."""
        self._ended = False
        self._buffer = self._filled(b"", 0, _LONGEST_VARINT)
        if not self._buffer:
            raise EmptyCar("an empty file")
        self.root = self._read_header()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """``(CID, block)`` of each DAG-CBOR section, unverified."""
        for buffer, bounds, blocks in self.batches():
            for block, stop in zip(blocks, bounds[1:], strict=True):
                cid = buffer[block - CID_LENGTH : block]
                if cid.startswith(DAG_CBOR):
                    yield cid, buffer[block:stop]

    def batches(self) -> Iterator[Batch]:
        """The sections, as many at a time as there are in what has come. One that is wrong ends them after those before it.

        The buffer ends at offset ``bytes_read`` of the file.
        """
        steps = _steps(self._limits.max_block)
        after_two = 2 + CID_LENGTH
        blocks_left = self._limits.max_blocks
        buffer = self._buffer
        while True:
            at, end, need = 0, len(buffer), _LONGEST_VARINT
            # A length that starts before is all there, or the file is cut off.
            whole = end - 1 if self._ended else end - _LONGEST_VARINT + 1
            bounds = [0]
            others: list[tuple[int, int]] = []  # the blocks after a length of one byte or more than two
            fault: MalformedCar | BudgetExceeded | None = None
            while at < whole:
                if (step := steps[buffer[at + 1]]) and (low := buffer[at]) > 127:
                    at += low + step
                else:
                    try:
                        length, start = _varint(buffer, at)
                        _check_length(length, self._limits)
                    except (MalformedCar, BudgetExceeded) as error:
                        fault = error
                        break
                    others.append((len(bounds) - 1, start + CID_LENGTH))
                    at = start + length
                bounds.append(at)
            blocks = [begin + after_two for begin in bounds]
            del blocks[-1]
            for number, block in others:
                blocks[number] = block
            if at > end:  # the last one has not come whole
                del blocks[-1], bounds[-1]
                need = at - bounds[-1]
                at = bounds[-1]
            if len(blocks) > blocks_left:
                del blocks[blocks_left:], bounds[blocks_left + 1 :]
                fault = BudgetExceeded(f"more than {self._limits.max_blocks} blocks")
            blocks_left -= len(blocks)
            if blocks:
                yield Batch(buffer, bounds, blocks)
            if fault:
                raise fault
            if self._ended:
                if at < end:
                    raise MalformedCar("the file is cut off inside a block")
                return
            buffer = self._filled(buffer, at, need)

    def _read_header(self) -> bytes:
        start, stop = _header_bounds(self._buffer, self._limits)
        buffer = self._filled(self._buffer, 0, stop) if stop > len(self._buffer) else self._buffer
        if stop > len(buffer):
            raise MalformedCar("the file is cut off inside its header")
        self._buffer = buffer[stop:]
        return _root(buffer[start:stop])

    def _filled(self, buffer: bytes, begin: int, need: int) -> bytes:
        """What the buffer has from ``begin`` on, with chunks added until it is ``need`` bytes long or the file ends."""
        parts = [buffer[begin:]]
        size = len(parts[0])
        while size < need:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            parts.append(chunk)
            size += len(chunk)
            self.bytes_read += len(chunk)
            if self.bytes_read > self._limits.max_bytes:
                raise BudgetExceeded(f"more than {self._limits.max_bytes} bytes")
        return b"".join(parts)


def read_car(car: bytes, limits: CarLimits) -> tuple[bytes, dict[bytes, bytes]]:
    """The root and the blocks of a CAR that is all there, unverified. Of several blocks under one CID the first counts.

    Raises EmptyCar, MalformedCar, BudgetExceeded.
    """
    size = len(car)
    if not size:
        raise EmptyCar("an empty file")
    if size > limits.max_bytes:
        raise BudgetExceeded(f"more than {limits.max_bytes} bytes")
    begin, at = _header_bounds(car, limits)
    if at > size:
        raise MalformedCar("the file is cut off inside its header")
    root = _root(car[begin:at])
    steps = _steps(limits.max_block)
    blocks: dict[bytes, bytes] = {}
    for _ in range(limits.max_blocks):
        if at + 1 < size and (step := steps[car[at + 1]]) and car[at] > 127:
            begin, at = at + 2, at + car[at] + step
        elif at < size:
            length, begin = _varint(car, at)
            _check_length(length, limits)
            at = begin + length
        else:
            break
        cid = car[begin : begin + CID_LENGTH]
        if cid not in blocks:
            blocks[cid] = car[begin + CID_LENGTH : at]
    if at < size:
        raise BudgetExceeded(f"more than {limits.max_blocks} blocks")
    if at > size:
        raise MalformedCar("the file is cut off inside a block")
    return root, blocks


def car_header(root: bytes) -> bytes:
    """The header of a CAR with one root, its length before it."""
    return bytes((_HEADER_LENGTH,)) + _HEADER_START + root + _HEADER_END


def _header_bounds(buffer: bytes, limits: CarLimits) -> tuple[int, int]:
    length, start = _varint(buffer, 0)
    if length > limits.max_header:
        raise BudgetExceeded(f"a header of {length} bytes, at most {limits.max_header} are allowed")
    return start, start + length


def _check_length(length: int, limits: CarLimits) -> None:
    if length <= CID_LENGTH:
        raise MalformedCar(f"a section of {length} bytes: too short for a CID and a block")
    if length > limits.max_block + CID_LENGTH:
        raise BudgetExceeded(f"a block of {length - CID_LENGTH} bytes, at most {limits.max_block} are allowed")


def _root(header: bytes) -> bytes:
    if len(header) == _HEADER_LENGTH and header.startswith(_HEADER_START) and header.endswith(_HEADER_END):
        root = header[len(_HEADER_START) : -len(_HEADER_END)]
    else:
        root = _first_root(header)
    if not root.startswith(DAG_CBOR):
        raise MalformedCar("the root is not the CID of a DAG-CBOR block")
    return root


def _first_root(header: bytes) -> bytes:
    try:
        fields = drisl.decode(header)
    except MalformedCbor as error:
        raise MalformedCar(f"the header is not DAG-CBOR: {error}") from error
    if not isinstance(fields, dict) or type(fields.get("version")) is not int or fields["version"] != 1:
        raise MalformedCar("the header does not say that this is a CAR of version 1")
    roots = fields.get("roots")
    if not isinstance(roots, list) or not roots or not isinstance(roots[0], drisl.Link):
        raise MalformedCar("the header has no root")
    return roots[0].cid


@cache
def _steps(max_block: int) -> list[int]:
    """Nearly all lengths have two bytes. By the second of them: how far it is to the next section, less the first; or 0."""
    steps = [0] * 256
    for high in range(1, min(128, (max_block + CID_LENGTH) >> 7)):
        steps[high] = (high << 7) - 126
    return steps


def _varint(buffer: bytes, offset: int) -> tuple[int, int]:
    """An unsigned LEB128 number in its shortest form, and where the bytes after it start."""
    number = 0
    for index in range(_LONGEST_VARINT):
        if offset + index >= len(buffer):
            raise MalformedCar("the file is cut off inside a length")
        byte = buffer[offset + index]
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            if byte == 0 and index:
                raise MalformedCar("a length is not in its shortest form")
            return number, offset + index + 1
    raise MalformedCar("a length of more than nine bytes")

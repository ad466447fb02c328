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
from typing import Final

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
        self._buffer = self._filled(b"", 0, _LONGEST_VARINT)
        if not self._buffer:
            raise EmptyCar("an empty file")
        self.root = self._read_header()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """``(CID, block)`` of each DAG-CBOR section, unverified."""
        for buffer, _, start, stop in self.sections():
            if buffer.startswith(DAG_CBOR, start):
                yield buffer[start : start + CID_LENGTH], buffer[start + CID_LENGTH : stop]

    def sections(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Where each section lies, so that what is not needed is not copied: ``buffer, begin, start, stop``.

        The section is ``buffer[begin:stop]``, its CID starts at ``start``. The buffer ends at offset ``bytes_read`` of the file.
        A section is at least a CID of DAG-CBOR and one byte long, and it may be that of some other kind of CID.
        """
        max_section = self._limits.max_block + CID_LENGTH
        buffer, begin = self._buffer, 0
        end = len(buffer)
        for _ in range(self._limits.max_blocks):
            if end - begin < _LONGEST_VARINT:
                buffer = self._filled(buffer, begin, _LONGEST_VARINT)
                begin, end = 0, len(buffer)
                if not end:
                    return
            length = buffer[begin]
            start = begin + 1
            if length > 127:
                second = buffer[start] if start < end else 0
                if 0 < second < 128:
                    length += (second - 1) << 7
                    start += 1
                else:
                    length, start = _varint(buffer, begin)
            if length <= CID_LENGTH:
                raise MalformedCar(f"a section of {length} bytes: too short for a CID and a block")
            if length > max_section:
                raise BudgetExceeded(
                    f"a block of {length - CID_LENGTH} bytes, at most {self._limits.max_block} are allowed"
                )
            stop = start + length
            if stop > end:
                buffer = self._filled(buffer, begin, stop - begin)
                start, stop, begin, end = start - begin, stop - begin, 0, len(buffer)
                if stop > end:
                    raise MalformedCar("the file is cut off inside a block")
            yield buffer, begin, start, stop
            begin = stop
        if end > begin or self._filled(b"", 0, 1):
            raise BudgetExceeded(f"more than {self._limits.max_blocks} blocks")

    def _read_header(self) -> bytes:
        length, start = _varint(self._buffer, 0)
        if length > self._limits.max_header:
            raise BudgetExceeded(f"a header of {length} bytes, at most {self._limits.max_header} are allowed")
        stop = start + length
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
                break
            parts.append(chunk)
            size += len(chunk)
            self.bytes_read += len(chunk)
            if self.bytes_read > self._limits.max_bytes:
                raise BudgetExceeded(f"more than {self._limits.max_bytes} bytes")
        return b"".join(parts)


def car_header(root: bytes) -> bytes:
    """The header of a CAR with one root, its length before it."""
    return bytes((_HEADER_LENGTH,)) + _HEADER_START + root + _HEADER_END


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

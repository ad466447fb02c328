"""Undoes the content coding of an HTTP body piece by piece: a few received bytes can't become many at once."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from chalicelib.atproto.errors import BadResponse, BudgetExceeded, Unreachable

PIECE: Final = 64 * 1024
"""Bytes that a chunk has at most after decoding."""
MAX_RATIO: Final = 100
"""Decoded to received bytes, beyond the first MiB. JSON and CARs stay below 20, gzip's own limit is 1,030."""

_RATIO_FROM: Final = 1024 * 1024


def decode(raw: Iterable[bytes], coding: str, max_bytes: int) -> Iterator[bytes]:
    """The content of a body in the coding of its ``Content-Encoding`` header: gzip, or none.

    Raises BudgetExceeded for more than ``max_bytes`` after decoding (or before), or a ratio that only a bomb has,
    BadResponse for what is not in that coding, Unreachable for what was cut off.
    """
    pieces = _gunzip(raw, max_bytes) if (coding := coding.strip().lower()) in ("gzip", "x-gzip") else raw
    if pieces is raw and coding not in ("", "identity"):
        raise BadResponse(f"the answer has the content coding {coding[:40]!r}, which was not asked for")
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise BudgetExceeded(f"the answer is larger than {max_bytes} bytes")
        yield piece


def _gunzip(raw: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    received = decoded = 0
    for chunk in raw:
        received += len(chunk)
        if received > max_bytes + PIECE:  # what doesn't compress grows a little; empty blocks could go on for ever
            raise BudgetExceeded(f"the compressed answer is larger than {max_bytes} bytes")
        rest = chunk
        while True:
            try:
                piece = gzip.decompress(rest, PIECE)
            except zlib.error as error:
                raise BadResponse("the answer is not the gzip that it says it is") from error
            decoded += len(piece)
            if decoded > max(_RATIO_FROM, received * MAX_RATIO):
                raise BudgetExceeded(f"the answer grows more than {MAX_RATIO} times when it is decompressed")
            if piece:
                yield piece
            rest = gzip.unconsumed_tail
            if gzip.eof or (not rest and len(piece) < PIECE):
                break
        if gzip.unused_data:
            raise BadResponse("the answer goes on after the end of its gzip")
    if received and not gzip.eof:
        raise Unreachable("the answer ends before its gzip does")

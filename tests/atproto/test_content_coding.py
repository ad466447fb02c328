from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator

import pytest

from chalicelib.atproto.content_coding import MAX_RATIO, PIECE, decode
from chalicelib.atproto.errors import BadResponse, BudgetExceeded, Unreachable

MIB = 1024 * 1024


def in_chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def decoded(raw: Iterable[bytes], coding: str = "gzip", max_bytes: int = 10 * MIB) -> bytes:
    return b"".join(decode(raw, coding, max_bytes))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
@pytest.mark.parametrize("chunk", [1, 1000, 10 * MIB])
def test_gzip_is_undone_wherever_it_is_cut_into_chunks(size: int, chunk: int) -> None:
    body = (b"io.atcr.hold.layer" + os.urandom(50)) * (size // 68 + 1)
    assert decoded(in_chunks(gzip.compress(body[:size]), chunk)) == body[:size]


def test_a_chunk_that_decodes_to_much_comes_out_in_small_pieces() -> None:
    sizes = [len(piece) for piece in decode([gzip.compress(bytes(MIB))], "gzip", 2 * MIB)]
    assert sum(sizes) == MIB
    assert max(sizes) <= PIECE


def test_a_bomb_is_given_up_at_the_limit() -> None:
    pieces = decode([gzip.compress(bytes(50 * MIB))], "gzip", 100_000)
    assert len(next(pieces)) == PIECE
    with pytest.raises(BudgetExceeded, match="larger than 100000 bytes"):
        next(pieces)


def test_a_bomb_is_given_up_for_its_ratio_where_the_limit_is_far() -> None:
    taken: list[bytes] = []
    with pytest.raises(BudgetExceeded, match=f"grows more than {MAX_RATIO} times"):
        taken.extend(decode(in_chunks(gzip.compress(bytes(50 * MIB))), "gzip", 1024 * MIB))
    assert sum(map(len, taken)) <= 2 * MIB


def test_compressed_bytes_that_never_give_any_content_are_counted() -> None:
    def empty_blocks() -> Iterator[bytes]:
        stream = zlib.compressobj(wbits=31)
        yield stream.compress(b"")
        while True:
            yield b"\0\0\0\xff\xff" * 1000

    with pytest.raises(BudgetExceeded):
        decoded(empty_blocks(), max_bytes=1000)


def test_a_body_without_coding_is_counted_too() -> None:
    assert decoded([b"ab", b"c"], "", 3) == b"abc"
    assert decoded([b"abc"], "Identity", 3) == b"abc"
    with pytest.raises(BudgetExceeded):
        decoded([b"ab", b"cd"], "", 3)


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip", "x" * 1000])
def test_a_coding_that_was_not_asked_for_is_refused(coding: str) -> None:
    with pytest.raises(BadResponse, match="not asked for"):
        decoded([b"abc"], coding)


def test_a_cut_gzip_is_a_connection_that_broke() -> None:
    with pytest.raises(Unreachable, match="ends before"):
        decoded([gzip.compress(b"abc")[:-1]])


def test_what_is_no_gzip_or_goes_on_after_its_end_is_refused() -> None:
    whole = gzip.compress(b"abc")
    for raw in (b"<html>", whole[:-5] + b"x" + whole[-4:], whole + b"x", whole + whole):
        with pytest.raises(BadResponse):
            decoded([raw])

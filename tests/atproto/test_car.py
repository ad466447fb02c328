"""CAR files as files: header, lengths, limits, chunks. Everything that is wrong with them is class A."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.atproto.car import CarLimits, CarReader, car_header, read_car
from chalicelib.atproto.cid import RAW
from chalicelib.atproto.errors import BudgetExceeded, EmptyCar, MalformedCar
from simulator.cbor import Link, cid_of, encode
from tests.atproto.builders import car, header, in_chunks, section, sized

BLOCKS = [(cid_of(block), block) for block in (b"\x80", b"\x81\x01", b"x" * 300, b"y" * 20_000)]
ROOT = BLOCKS[0][0]
FILE = car(ROOT, BLOCKS)

BAD_HEADERS = {
    "a length only": b"\x3a",
    "a length of more than the file": header(ROOT)[:-1],
    "a length in two bytes where one is enough": b"\xba\x00" + header(ROOT)[1:],
    "a length in ten bytes": b"\xff" * 9 + b"\x01" + header(ROOT)[1:],
    "a length that never ends": b"\xff" * 100,
    "a length of nothing": b"\x00" + header(ROOT),
    "not a map": sized(encode([1])),
    "not CBOR": sized(b"\xff\xff"),
    "keys out of order": sized(b"\xa2gversion\x01eroots\x81\xd8*X%\x00" + ROOT),
    "bytes after the map": sized(encode({"version": 1, "roots": [Link(ROOT)]}) + b"\x00"),
    "version 0": header(ROOT, version=0),
    "version 2": header(ROOT, version=2),
    "version true": header(ROOT, version=True),
    "no version": sized(encode({"roots": [Link(ROOT)]})),
    "no list of roots": sized(encode({"version": 1})),
    "no root": header(),
    "a root that is text": header(ROOT, roots=["bafy"]),
    "a root that is bytes": header(ROOT, roots=[ROOT]),
    "a root of raw bytes": header(RAW + ROOT[4:]),
    "a root of another hash": header(b"\x01\x71\x13\x20" + ROOT[4:]),
}


@pytest.mark.parametrize("data", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedCar):
        CarReader([data])


def test_no_bytes_at_all_are_an_empty_car() -> None:
    for chunks in ([], [b""], [b"", b""]):
        with pytest.raises(EmptyCar):
            CarReader(chunks)


def test_of_two_roots_the_first_counts() -> None:
    assert CarReader([header(ROOT, BLOCKS[1][0])]).root == ROOT


def test_a_header_with_more_fields_than_are_known_is_read() -> None:
    assert CarReader([header(ROOT, more="than known")]).root == ROOT


def test_a_header_may_be_as_long_as_the_limit_and_no_longer() -> None:
    long = header(ROOT, more="x" * 1_000)
    size = len(long) - 2
    assert CarReader([long], CarLimits(max_header=size)).root == ROOT
    with pytest.raises(BudgetExceeded):
        CarReader([long], CarLimits(max_header=size - 1))


def test_the_header_that_is_written_is_the_one_that_is_read() -> None:
    assert car_header(ROOT) == header(ROOT)
    assert CarReader([car_header(ROOT)]).root == ROOT


def test_blocks_are_told_in_their_order_and_as_often_as_they_come() -> None:
    twice = [*BLOCKS, *BLOCKS]
    assert list(CarReader([car(ROOT, twice)])) == twice


@given(st.lists(st.integers(0, len(FILE)), max_size=20), st.booleans())
def test_how_a_file_is_cut_into_chunks_does_not_matter(cuts: list[int], tiny: bool) -> None:
    edges = [0, *sorted(cuts), len(FILE)]
    chunks = [FILE[start:stop] for start, stop in pairwise(edges)]
    if tiny:
        chunks[0:1] = [*in_chunks(chunks[0][:500], 1), chunks[0][500:]]
    reader = CarReader(chunks)
    assert list(reader) == BLOCKS
    assert reader.bytes_read == len(FILE)


@pytest.mark.parametrize("left", range(12))
def test_a_chunk_may_end_anywhere_behind_a_block(left: int) -> None:
    at = len(FILE) - len(section(*BLOCKS[-1])) + left
    assert list(CarReader([FILE[:at], FILE[at:]])) == BLOCKS
    at = len(header(ROOT)) + left
    assert list(CarReader([FILE[:at], FILE[at:]])) == BLOCKS


@pytest.mark.parametrize("length", [0, 1, 36])
def test_a_section_too_short_for_a_cid_and_a_block_is_malformed(length: int) -> None:
    with pytest.raises(MalformedCar):
        list(CarReader([header(ROOT) + sized(ROOT[:length]) + section(*BLOCKS[1])]))


def test_a_section_of_one_byte_behind_its_cid_is_read() -> None:
    assert list(CarReader([header(ROOT) + section(ROOT, b"\x80")])) == [(ROOT, b"\x80")]


def test_a_block_may_be_as_large_as_the_limit_and_no_larger() -> None:
    block = b"z" * 2_000_000
    assert list(CarReader([car(ROOT, [(ROOT, block)])])) == [(ROOT, block)]
    with pytest.raises(BudgetExceeded):
        list(CarReader([car(ROOT, [(ROOT, block + b"z")])]))


def test_a_block_beyond_the_limit_is_refused_before_its_bytes_are_awaited() -> None:
    def endless() -> Iterator[bytes]:
        yield header(ROOT) + b"\xff\xff\xff\x7f" + ROOT
        pytest.fail("no more is asked for")

    with pytest.raises(BudgetExceeded):
        list(CarReader(endless()))


@pytest.mark.parametrize("prefix", [b"\x80\x00", b"\xa6\x80\x00", b"\xff" * 9 + b"\x01"])
def test_a_bad_length_of_a_section_is_malformed(prefix: bytes) -> None:
    with pytest.raises(MalformedCar):
        list(CarReader([header(ROOT) + prefix + b"x" * 100]))


def test_a_cut_at_any_byte_of_the_last_block_is_malformed() -> None:
    last = section(*BLOCKS[2])
    whole = header(ROOT) + section(*BLOCKS[0])
    for cut in range(1, len(last)):
        with pytest.raises(MalformedCar):
            list(CarReader(in_chunks(whole + last[:cut], 50)))
    assert list(CarReader([whole])) == BLOCKS[:1]


def test_sections_of_other_cids_are_passed_over() -> None:
    raw = (RAW + ROOT[4:], b"a blob")
    version_0 = (b"\x12\x20" + ROOT[4:], b"an old block")
    other_hash = (b"\x01\x71\x1b\x20" + ROOT[4:], b"keccak")
    assert list(CarReader([car(ROOT, [raw, version_0, BLOCKS[1], other_hash])])) == [BLOCKS[1]]


def test_there_may_be_as_many_blocks_as_the_limit_and_no_more() -> None:
    assert len(list(CarReader([FILE], CarLimits(max_blocks=4)))) == 4
    with pytest.raises(BudgetExceeded):
        list(CarReader([FILE], CarLimits(max_blocks=3)))
    with pytest.raises(BudgetExceeded):
        list(CarReader(in_chunks(FILE), CarLimits(max_blocks=3)))


def test_a_file_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert list(CarReader(in_chunks(FILE), CarLimits(max_bytes=len(FILE)))) == BLOCKS
    with pytest.raises(BudgetExceeded):
        list(CarReader(in_chunks(FILE), CarLimits(max_bytes=len(FILE) - 1)))


def test_no_more_chunks_are_taken_than_the_blocks_that_are_read_need() -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for number, chunk in enumerate(in_chunks(FILE, 100)):
            taken.append(number)
            yield chunk

    blocks = iter(CarReader(chunks()))
    next(blocks)
    assert len(taken) == 1
    next(blocks)
    assert len(taken) == 2


def test_noise_is_never_more_than_malformed_or_too_large() -> None:
    rng = random.Random(3)
    for _ in range(300):
        data = bytearray(FILE[:600])
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(MalformedCar, BudgetExceeded):
            list(CarReader(in_chunks(bytes(data), rng.randrange(1, 300))))


def as_a_stream(data: bytes, limits: CarLimits) -> tuple[bytes, dict[bytes, bytes]]:
    reader = CarReader([data], limits)
    blocks: dict[bytes, bytes] = {}
    for buffer, bounds, begins in reader.batches():
        for begin, stop in zip(begins, bounds[1:], strict=True):
            blocks.setdefault(buffer[begin - 36 : begin], buffer[begin:stop])
    return reader.root, blocks


def what_is_read(read: Callable[[bytes, CarLimits], Any], data: bytes, limits: CarLimits) -> Any:
    try:
        return read(data, limits)
    except (MalformedCar, BudgetExceeded):  # which of the two is told, where both are true, is left open
        return None


@given(
    st.lists(st.tuples(st.integers(0, len(FILE)), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
    st.sampled_from([CarLimits(), CarLimits(max_block=300), CarLimits(max_blocks=4), CarLimits(max_header=57)]),
)
def test_a_car_in_memory_is_read_as_the_same_one_in_a_stream_is(
    damage: list[tuple[int, int, bytes]], limits: CarLimits
) -> None:
    data = car(ROOT, [*BLOCKS, *BLOCKS[:1]])
    for at, gone, more in damage:
        data = data[:at] + more + data[at + gone :]
    assert what_is_read(read_car, data, limits) == what_is_read(as_a_stream, data, limits)


def test_a_car_in_memory_is_bounded_in_bytes_blocks_header_and_block() -> None:
    longest = max(len(block) for _, block in BLOCKS)
    just = {
        "max_bytes": len(FILE),
        "max_blocks": len(BLOCKS),
        "max_header": len(header(ROOT)) - 1,
        "max_block": longest,
    }
    assert read_car(FILE, CarLimits(**just)) == (ROOT, dict(BLOCKS))
    for name, bound in just.items():
        with pytest.raises(BudgetExceeded):
            read_car(FILE, CarLimits(**{name: bound - 1}))


def test_of_several_blocks_under_one_cid_in_memory_the_first_counts() -> None:
    assert read_car(car(ROOT, [*BLOCKS, (ROOT, b"other")]), CarLimits())[1] == dict(BLOCKS)

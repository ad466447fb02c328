"""Strict DAG-CBOR: the one encoding of each value, and nothing else."""

from __future__ import annotations

import base64
import json
import resource
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.atproto.cid import cid_of, cid_to_text
from chalicelib.atproto.drisl import (
    MAX_DEPTH,
    MAX_ITEMS,
    Link,
    Value,
    decode,
    decode_prefix,
    encode,
    from_json,
    to_json,
)
from chalicelib.atproto.errors import MalformedCbor, MalformedData

CID = cid_of(b"a block")
LINK = "d82a582500" + CID.hex()

REFUSED = {
    # Not one whole item
    "nothing": "",
    "a second item": "0000",
    "a byte after a map": "a000",
    "an integer cut off": "19ff",
    "a string cut off": "6261",
    "bytes cut off": "4261",
    "an array cut off": "8201",
    "a map cut off": "a26161016162",
    "a map without its last value": "a16161",
    "a float cut off": "fb3ff80000000000",
    "a link cut off": "d82a",
    "a break alone": "ff",
    "reserved integer length 28": "1c",
    "reserved integer length 30": "1e",
    "reserved string length": "7c61",
    "reserved simple value 28": "fc",
    # Indefinite lengths
    "an indefinite array": "9f01ff",
    "an empty indefinite array": "9fff",
    "an indefinite map": "bf616101ff",
    "an empty indefinite map": "bfff",
    "an indefinite string": "7f6161ff",
    "an empty indefinite string": "7fff",
    "indefinite bytes": "5f4161ff",
    "empty indefinite bytes": "5fff",
    "an indefinite array in a map": "a161619fff",
    # Longer than needed
    "1 in two bytes": "1801",
    "23 in two bytes": "1817",
    "1 in three bytes": "190001",
    "255 in three bytes": "1900ff",
    "1 in five bytes": "1a00000001",
    "65535 in five bytes": "1a0000ffff",
    "1 in nine bytes": "1b0000000000000001",
    "2**32 - 1 in nine bytes": "1b00000000ffffffff",
    "-1 in two bytes": "3800",
    "-1 in three bytes": "390000",
    "-1 in five bytes": "3a00000000",
    "-1 in nine bytes": "3b0000000000000000",
    "the length of bytes in two bytes": "580161",
    "the length of bytes in three bytes": "59000161",
    "the length of bytes in five bytes": "5a0000000161",
    "the length of bytes in nine bytes": "5b000000000000000161",
    "the length of a string in two bytes": "780161",
    "the length of a string in three bytes": "79000161",
    "the length of a string in five bytes": "7a0000000161",
    "the length of a string in nine bytes": "7b000000000000000161",
    "the length of an array in two bytes": "980100",
    "the length of an array in three bytes": "99000100",
    "the length of an array in five bytes": "9a0000000100",
    "the length of an array in nine bytes": "9b000000000000000100",
    "the length of a map in two bytes": "b801616100",
    "the length of a map in three bytes": "b90001616100",
    "the length of a map in five bytes": "ba00000001616100",
    "the length of a map in nine bytes": "bb0000000000000001616100",
    "the length of a key in two bytes": "a178016100",
    "a long tag 42": "d9002a" + LINK[4:],
    "a longer tag 42": "da0000002a" + LINK[4:],
    "the longest tag 42": "db000000000000002a" + LINK[4:],
    "the length of a link in three bytes": "d82a59002500" + CID.hex(),
    # Keys
    "keys out of order": "a2616201616100",
    "a longer key before a shorter": "a262616101616200",
    "keys out of order below an array": "81a2616201616100",
    "the same key twice": "a2616100616101",
    "the same key twice, with one value": "a2616100616100",
    "the same key twice below a map": "a16161a2616100616100",
    "the same empty key twice": "a260016002",
    "an integer for a key": "a10000",
    "a negative integer for a key": "a12000",
    "bytes for a key": "a1416100",
    "true for a key": "a1f500",
    "null for a key": "a1f600",
    "a float for a key": "a1fb3ff800000000000000",
    "an array for a key": "a18000",
    "a map for a key": "a1a000",
    "a link for a key": "a1" + LINK + "00",
    "undefined for a key": "a1f700",
    "a string and an integer for keys": "a20000616100",
    # Tags
    "tag 0: a date": "c074323031332d30332d32315432303a30343a30305a",
    "tag 1: a time": "c11a514b67b0",
    "tag 2: a big integer": "c249010000000000000000",
    "tag 2: a small integer": "c24101",
    "tag 3: a big negative integer": "c349010000000000000000",
    "tag 4: a decimal fraction": "c48221196ab3",
    "tag 4: a decimal fraction of a huge exponent": "c4821b000000ffffffffff01",
    "tag 5: a big float": "c5822003",
    "tag 24: encoded CBOR": "d8184100",
    "tag 25: a string reference": "d81900",
    "tag 28: a shared value": "d81c80",
    "tag 28 and 29: a list within itself": "d81c81d81d00",
    "tag 28 and 29: values that double and double": "d81c82d81c82d81d00d81d00d81d01",
    "tag 30: a fraction": "d81e820102",
    "tag 32: a URI": "d8207368747470733a2f2f6578616d706c652e636f6d",
    "tag 35: a pattern": "d8236161",
    "tag 37: a UUID": "d82550" + "00" * 16,
    "tag 41": "d8294100",
    "tag 43": "d82b" + LINK[4:],
    "tag 256: a string namespace": "d90100826361616100",
    "tag 258: a set": "d9010280",
    "tag 55799: self-described CBOR": "d9d9f700",
    "the largest tag": "dbffffffffffffffff00",
    "an unknown tag around a link": "d863" + LINK,
    # Links
    "a link to no bytes": "d82a40",
    "a link to a zero byte": "d82a4100",
    "a link without the zero byte": "d82a5824" + CID.hex(),
    "a link with another byte for the zero": "d82a582501" + CID.hex(),
    "a link that is a string": "d82a782500" + "61" * 36,
    "a link that is text": "d82a783b" + cid_to_text(CID).encode().hex(),
    "a link that is an integer": "d82a00",
    "a link that is an array of bytes": "d82a81582500" + CID.hex(),
    "a link in a link": "d82a" + LINK,
    "a link to a CID of version 0": "d82a5823001220" + CID[4:].hex(),
    "a link to a CID of version 2": "d82a58250002711220" + CID[4:].hex(),
    "a link to dag-pb": "d82a58250001701220" + CID[4:].hex(),
    "a link of sha-1": "d82a5819000171" + "1114" + "00" * 20,
    "a link of blake3": "d82a58250001711e20" + CID[4:].hex(),
    "a link of an identity hash": "d82a450001550000",
    "a link of an empty hash": "d82a450001551200",
    "a link whose hash is a byte short": "d82a58240001711220" + CID[5:].hex(),
    "a link whose hash is said to be a byte short": "d82a5824000171121f" + CID[5:].hex(),
    "a link whose hash is a byte long": "d82a58260001711220" + CID[4:].hex() + "00",
    "a link whose version is a long varint": "d82a5826008100711220" + CID[4:].hex(),
    # Floats and simple values
    "a half float": "f93e00",
    "a half zero": "f90000",
    "a single float": "fa3fc00000",
    "a half NaN": "f97e00",
    "a single NaN": "fa7fc00000",
    "a double NaN": "fb7ff8000000000000",
    "a NaN with a payload": "fb7ff8000000000001",
    "a signalling half NaN": "f97d00",
    "half infinity": "f97c00",
    "half minus infinity": "f9fc00",
    "single infinity": "fa7f800000",
    "single minus infinity": "faff800000",
    "double infinity": "fb7ff0000000000000",
    "double minus infinity": "fbfff0000000000000",
    "minus zero": "fb8000000000000000",
    "half minus zero": "f98000",
    "undefined": "f7",
    "undefined in a map": "a16161f7",
    "simple value 0": "e0",
    "simple value 19": "f3",
    "simple value 32": "f820",
    "simple value 255": "f8ff",
    "false in two bytes": "f814",
    "null in two bytes": "f816",
    "a break in a map": "a1ff",
    "a break in an array": "81ff",
    # Strings
    "invalid UTF-8": "62c328",
    "UTF-8 cut off": "61c3",
    "a surrogate": "63eda080",
    "an over-long slash": "62c0af",
    "above the last code point": "64f4908080",
    "invalid UTF-8 in a key": "a162c32800",
    "lists that share each other": "d81c82d81c82d81d00d81d00d81d01",
}

ACCEPTED: dict[str, tuple[str, Value]] = {
    "0": ("00", 0),
    "23": ("17", 23),
    "24": ("1818", 24),
    "-1": ("20", -1),
    "the largest safe integer": ("1b001fffffffffffff", 2**53 - 1),
    "beyond the safe integers": ("1b0020000000000001", 2**53 + 1),
    "the largest signed integer": ("1b7fffffffffffffff", 2**63 - 1),
    "the largest integer": ("1bffffffffffffffff", 2**64 - 1),
    "the smallest integer": ("3bffffffffffffffff", -(2**64)),
    "a float": ("fb3ff8000000000000", 1.5),
    "a whole float": ("fb3ff0000000000000", 1.0),
    "zero as a float": ("fb0000000000000000", 0.0),
    "the smallest float": ("fb0000000000000001", 5e-324),
    "booleans and null": ("83f4f5f6", [False, True, None]),
    "empty ones": ("8440608 0a0".replace(" ", ""), [b"", "", [], {}]),
    "keys in order": ("a361610161620262616103", {"a": 1, "b": 2, "aa": 3}),
    "an empty key": ("a16000", {"": 0}),
    "keys in order of their bytes": ("a2617a0062c3a901", {"z": 0, "é": 1}),
    "text that is not normalised": ("6365cc81", "e\u0301"),
    "NUL in text": ("6100", "\0"),
    "a link": (LINK, Link(CID)),
    "bytes that look like a link": ("582500" + CID.hex(), b"\0" + CID),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_not_the_one_encoding_of_a_value_is_refused(data: str) -> None:
    with pytest.raises(MalformedCbor):
        decode(bytes.fromhex(data))
    with pytest.raises(MalformedCbor):
        decode(bytes.fromhex("81" + data))


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_the_one_encoding_of_a_value_is_accepted(data: str, value: Value) -> None:
    decoded = decode(bytes.fromhex(data))
    assert decoded == value
    assert type(decoded) is type(value)
    assert encode(value) == bytes.fromhex(data)


def test_a_link_is_another_value_than_bytes_like_it() -> None:
    assert decode(bytes.fromhex(LINK)) != decode(bytes.fromhex("582500" + CID.hex()))
    assert len({Link(CID), Link(bytes(bytearray(CID))), CID}) == 2


@pytest.mark.parametrize(
    "layer", [b"\x81", b"\xa1\x61a", b"\xa1", b"\xd8\x2a", b"\xc1", b"\x9f", b"\x82\x80"], ids=lambda layer: layer.hex()
)
def test_a_million_levels_are_refused_and_the_interpreter_lives(layer: bytes) -> None:
    with pytest.raises(MalformedCbor):
        decode(layer * 1_000_000 + b"\x00")


def test_nesting_is_bounded() -> None:
    assert encode(decode(b"\x81" * MAX_DEPTH + b"\x00")) == b"\x81" * MAX_DEPTH + b"\x00"
    with pytest.raises(MalformedCbor):
        decode(b"\x81" * (MAX_DEPTH + 1) + b"\x00")


def test_what_is_as_deep_as_allowed_has_a_json_form() -> None:
    assert json.dumps(to_json(decode(b"\x81" * MAX_DEPTH + b"\x00"))) == "[" * MAX_DEPTH + "0" + "]" * MAX_DEPTH


@pytest.mark.parametrize("unit", [b"\x80", b"\xa0", b"\xf6", b"\x61a", b"\x81\x80"], ids=lambda unit: unit.hex())
def test_more_values_than_allowed_are_refused_before_they_take_memory(unit: bytes) -> None:
    most = (MAX_ITEMS - 1) // (2 if unit == b"\x81\x80" else 1)
    just_allowed = encode([None] * most)[:-most] + unit * most
    assert encode(decode(just_allowed)) == just_allowed
    for count in (most + 1, 5_000_000 // len(unit)):
        data = b"\x9a" + struct.pack(">I", count) + unit * count
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(MalformedCbor, match="more than"):
            decode(data)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


def test_a_long_value_of_few_items_is_no_matter_of_their_number() -> None:
    value: Value = {"": "x" * 70_000, "a": b"x" * 700_000, "b": {"c": [1, 300, 70_000, 2**40, 1.5, None, Link(CID)]}}
    assert decode(encode(value)) == value
    for cut in (1, 5, 70_010, 700_000, 770_000):
        with pytest.raises(MalformedCbor):
            decode(encode(value)[:cut])


@pytest.mark.parametrize("head", [0x40, 0x60, 0x80, 0xA0])
@pytest.mark.parametrize("size", [2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_huge_declared_length_takes_no_memory(head: int, size: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedCbor):
        decode(bytes([head | 27]) + struct.pack(">Q", size) + b"\x61a\x00")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


def test_the_published_records_decode_to_their_published_json(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/data-model/data-model-fixtures.json").read_text()):
        data = base64.b64decode(case["cbor_base64"] + "==")
        value = decode(data)
        assert to_json(value) == case["json"]
        assert encode(value) == data
        assert encode(from_json(case["json"])) == data


def test_the_published_valid_values_are_their_own_json(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/data-model/data-model-valid.json").read_text()):
        value = from_json(case["json"])
        assert to_json(decode(encode(value))) == case["json"]


def test_the_published_invalid_values_are_refused(fixtures_dir: Path) -> None:
    for case in json.loads((fixtures_dir / "interop/data-model/data-model-invalid.json").read_text()):
        with pytest.raises(MalformedData):
            from_json(case["json"])


@pytest.mark.parametrize("text", ["a", "!", "YQ==\n", "YQ===x", "é", "Y Q"])
def test_what_is_not_base64_is_no_bytes(text: str) -> None:
    with pytest.raises(MalformedData):
        from_json({"a": {"$bytes": text}})


@pytest.mark.parametrize("text", ["YQ", "YQ=="])
def test_bytes_may_have_their_padding(text: str) -> None:
    assert from_json({"a": {"$bytes": text}}) == {"a": b"a"}


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 0.5, 1e300, 2**63, -(2**63) - 1, 10**400])
def test_a_number_that_is_not_whole_or_too_large_is_refused(number: float) -> None:
    with pytest.raises(MalformedData):
        from_json({"a": number})


def test_json_may_be_as_deep_as_what_is_decoded_and_no_deeper() -> None:
    value: Value = {}
    for _ in range(MAX_DEPTH - 1):
        value = {"a": value}
    assert decode(encode(from_json(to_json(value)))) == value
    for deeper in ({"a": to_json(value)}, json.loads('{"a":' * 900 + "1" + "}" * 900)):
        with pytest.raises(MalformedData):
            from_json(deeper)


def test_the_frames_of_a_real_firehose_are_two_items_each(fixtures_dir: Path) -> None:
    recording = (fixtures_dir / "firehose/frames.bin").read_bytes()
    at = count = 0
    while at < len(recording):
        (size,) = struct.unpack_from("<I", recording, at)
        frame = recording[at + 4 : at + 4 + size]
        header, end = decode_prefix(frame)
        body, end = decode_prefix(frame, end)
        assert end == len(frame)
        assert isinstance(header, dict)
        assert isinstance(body, dict)
        assert encode(header) + encode(body) == frame
        at += 4 + size
        count += 1
    assert count == 75


def test_items_that_follow_each_other_are_read_one_by_one() -> None:
    data = encode({"op": 1, "t": "#info"}) + encode([1, 2]) + b"\xff"
    for given_as in (data, memoryview(data)):
        header, end = decode_prefix(given_as)
        body, end = decode_prefix(given_as, end)
        assert (header, body, end) == ({"op": 1, "t": "#info"}, [1, 2], len(data) - 1)
        with pytest.raises(MalformedCbor):
            decode_prefix(given_as, end)
        with pytest.raises(MalformedCbor):
            decode_prefix(given_as, len(data))


def test_an_item_that_is_not_canonical_is_refused_in_front_of_others_too() -> None:
    with pytest.raises(MalformedCbor):
        decode_prefix(bytes.fromhex("180100"))


def test_json_shows_links_and_bytes_as_the_data_model_says() -> None:
    value: Value = {"link": Link(CID), "bytes": b"\xfb\xff\xfe\x00", "none": b"", "in": [Link(CID), {"b": b"a"}]}
    link = {"$link": cid_to_text(CID)}
    expected = {
        "link": link,
        "bytes": {"$bytes": "+//+AA"},
        "none": {"$bytes": ""},
        "in": [link, {"b": {"$bytes": "YQ"}}],
    }
    assert to_json(value) == expected
    assert json.loads(json.dumps(expected, allow_nan=False)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, "\ud800"])
def test_what_has_no_encoding_is_not_encoded(value: Value) -> None:
    with pytest.raises(MalformedCbor):
        encode(value)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number != 0 or str(number) == "0.0")
    | st.text()
    | st.binary()
    | st.binary(min_size=32, max_size=32).map(lambda digest: Link(b"\x01\x71\x12\x20" + digest))
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_every_value_comes_back_from_its_encoding(value: Value) -> None:
    data = encode(value)
    assert decode(data) == decode(memoryview(data)) == value
    json.dumps(to_json(value), allow_nan=False)


@given(st.dictionaries(st.text(), st.none()))
def test_keys_are_encoded_shortest_first_then_by_their_bytes(value: dict[str, None]) -> None:
    decoded = decode(encode({**value}))
    assert isinstance(decoded, dict)
    encoded = [key.encode() for key in decoded]
    assert encoded == sorted(encoded, key=lambda key: (len(key), key))

"""Ways to damage what strangers send: its bytes, its values, and repos and frames whose hashes and signatures still fit.

Each function takes its randomness and a sound input, and gives another input, most often a bad one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from chalicelib.atproto.car import CarReader
from chalicelib.atproto.drisl import decode_prefix
from simulator.car import Car
from simulator.cbor import Link, cid_of, decode, encode
from simulator.keys import SigningKey

Mutate = Callable[[random.Random, bytes], bytes]

_LENGTHS = [
    b"\x18\x00",
    b"\x19\xff\xff",
    b"\x1a\x7f\xff\xff\xff",
    b"\x1b" + b"\xff" * 8,
    b"\x1b\x7f" + b"\xff" * 7,
    b"\x1f",
]
_CBOR = [
    *(bytes((length[0] | major << 5,)) + length[1:] for major in range(8) for length in _LENGTHS),
    *(b"\x80", b"\xa0", b"\x60", b"\x40", b"\xf6", b"\xf5", b"\xf7", b"\xff", b"\0"),
    *(b"\xf9\x7e\x00", b"\xfb\x7f\xf0" + bytes(6), b"\xfb\x80" + bytes(7), b"\xfb?\xf0" + bytes(6), b"\xfa?\x80\0\0"),
    *(
        b"\xa2\x61b\x00\x61a\x00",
        b"\xa2\x61a\x00\x61a\x01",
        b"\xa1\x00\x00",
        b"\x78\x01a",
        b"\x62\xc3\x28",
        b"\x63\xed\xa0\x80",
    ),
    *(b"\xd8\x2a\x58\x25\x00", b"\xd8\x2a\x40", b"\xd8\x2b\x00", b"\xc2\x49\x01" + bytes(8), b"\xc1\x00"),
    *(b"\x81" * 70 + b"\0", b"\xa1\x61a" * 70 + b"\0", b"\x81" * 5_000, b"\x80" * 5_000),
]
_VARINTS = [
    b"\x24",
    b"\x25",
    b"\x80\x00",
    b"\xff\x7f",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8 + b"\x7f",
    b"\xff" * 9 + b"\x01",
]
_JSON = [
    *(
        b"[" * 5_000,
        b'{"a":' * 3_000,
        b"9" * 5_000,
        b"1e999",
        b"-1e-999",
        b"NaN",
        b"-Infinity",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ),
    *(
        b'"\\ud800"',
        b"\\u0000",
        b"\\udfff",
        b"\0",
        b"null",
        b"true",
        b"-1",
        b"0.5",
        b"{}",
        b"[]",
        b'""',
        b'"',
        b",",
        b"}",
        b"]",
    ),
]
_STRANGE_TEXTS = [
    *(
        "",
        "\0",
        "\ud800",
        "\u0660",
        "é",
        "\n",
        " ",
        "a" * 300,
        "a" * 9_000,
        "a." * 200,
        "%3A",
        "%00",
        "..",
        "//",
        "#",
        "?",
        "@",
    ),
    *(
        "did:web:localhost:2583",
        "did:plc:",
        "at://",
        "https://[::1]/",
        "http://127.0.0.1",
        "xn--",
        "K",
        "-",
        "_",
        "z" + "1" * 400,
    ),
    *(
        "💥",
        "\u202e",
        "1" * 30,
        "-1",
        "9007199254740993",
        "true",
        "3jzfcijpj2z2a",
        "io.atcr.tag",
        "self",
        ":",
        "/",
        "~",
    ),
]
_NAMES = ["", "\0", "a" * 300, "seq", "id", "did", "repo", "rev", "ops", "cid", "prev", "$type", "e", "zz"]
_STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**53,
    2**63,
    2**64 - 1,
    -(2**64),
    [],
    {},
    [[]],
    {"": None},
    *_STRANGE_TEXTS,
]
_STRANGE_JSON = [*_STRANGE, 0.5, 1e300, float("nan"), 10**400, [None] * 2_000, {"$link": 1}, {"$bytes": ""}]
# In a value that is to be encoded, a text of this form stands for bytes that no encoder writes.
_STAND_IN = re.compile(rb"\x67raw:([0-9]{3})")
_STRANGE_CBOR = [*_STRANGE, b"", b"\0", b"x" * 300, Link(bytes(36)), *(f"raw:{n:03}" for n in range(len(_CBOR)))]


# -- bytes and texts


def damaged_cbor(rng: random.Random, data: bytes) -> bytes:
    return _damaged(rng, data, _CBOR)


def damaged_car(rng: random.Random, data: bytes) -> bytes:
    return _damaged(rng, data, _CBOR if rng.random() < 0.5 else _VARINTS)


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    return _damaged(rng, data, _JSON)


def _damaged(rng: random.Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    """The bytes after one to four edits. ``pieces`` are what is put in where a piece with a meaning is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        size = rng.choice((1, 1, 2, 8, 36, 200))
        match rng.randrange(8):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                changed[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])
            case 2:
                piece = rng.choice(pieces)
                changed[at : at + rng.choice((0, 1, len(piece)))] = piece
            case 3:
                changed[at:at] = rng.randbytes(size)
            case 4:
                del changed[at : at + size]
            case 5:
                changed[at:at] = changed[at : at + size] * rng.choice((1, 1, 2, 50))
            case 6:
                source = rng.randrange(len(changed) + 1)
                changed[at : at + size] = changed[source : source + size]
            case 7 if rng.random() < 0.5:
                del changed[at:]
    return bytes(changed)


def changed_text(rng: random.Random, text: str) -> str:
    """A text with a strange part in it, or without some part of it, or in another case."""
    at = rng.randrange(len(text) + 1)
    size = rng.choice((0, 1, 1, 3))
    match rng.randrange(6):
        case 0:
            return rng.choice(_STRANGE_TEXTS)
        case 1:
            return text[:at] + text[at : at + 1].swapcase() + text[at + 1 :]
        case 2:
            return text[:at] + text[at : at + 20] * rng.choice((2, 2, 30)) + text[at + 20 :]
        case 3:
            return text[:at] + chr(rng.randrange(128)) + text[at + size :]
        case _:
            return text[:at] + rng.choice(_STRANGE_TEXTS) + text[at + size :]


# -- values


def changed_json(rng: random.Random, data: bytes) -> bytes:
    """JSON with other values in some places, or other bytes."""
    if rng.random() < 0.25:
        return damaged_json(rng, data)
    value = _json(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(rng, value, _STRANGE_JSON)
    return json.dumps(value, ensure_ascii=rng.random() < 0.8).encode(errors="surrogatepass")


def changed_cbor(rng: random.Random, data: bytes) -> bytes:
    """One DAG-CBOR item with other values in some places, or other bytes."""
    return damaged_cbor(rng, data) if rng.random() < 0.4 else _changed_cbor(rng, decode(data), _STRANGE_CBOR)


def _changed_cbor(rng: random.Random, value: Any, strange: Sequence[Any]) -> bytes:
    for _ in range(rng.choice((1, 1, 2))):
        value = _changed(rng, value, strange)
    return _encoded(value)


def _encoded(value: Any) -> bytes:
    try:
        data = encode(value)
    except UnicodeEncodeError:
        data = encode(_without_surrogates(value))
    except OverflowError:
        data = encode(None)
    return _STAND_IN.sub(lambda found: _CBOR[int(found[1]) % len(_CBOR)], data)


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_without_surrogates(name): _without_surrogates(part) for name, part in value.items()}
        case list():
            return [_without_surrogates(part) for part in value]
    return value


def _changed(rng: random.Random, value: Any, strange: Sequence[Any]) -> Any:
    """The value with one place in it changed; the rest is shared with it."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        changed: Any = value.copy()
        place = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        match rng.randrange(10):
            case 0:
                del changed[place]
            case 1 if isinstance(changed, list):
                changed[place:place] = [value[place]] * rng.choice((1, 2, 300))
            case 1:
                changed[rng.choice(_NAMES)] = changed.pop(place)
            case 2:
                other = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
                changed[place], changed[other] = value[other], value[place]
            case _:
                changed[place] = _changed(rng, value[place], strange)
        return changed
    match rng.randrange(6):
        case 0 | 1 if isinstance(value, str):
            return changed_text(rng, value)
        case 0 | 1 if isinstance(value, bytes):
            return _damaged(rng, value, _VARINTS)
        case 0 if isinstance(value, int):
            return value + rng.choice((-1, 1, 256, -value - 1, 2**32))
        case 1:
            for _ in range(rng.choice((1, 2, 62, 70))):
                value = [value] if rng.random() < 0.5 else {"a": value}
            return value
    return rng.choice(strange)


@cache
def _json(data: bytes) -> Any:
    return json.loads(data)


# -- repos


def changed_car(key: SigningKey) -> Mutate:
    """CARs in another order, with blocks too many or too few, or with another content that ``key`` signs."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        how = rng.random()
        if how < 0.3:
            return damaged_car(rng, data)
        root, blocks = _car(data)
        if how < 0.7:
            blocks, renamed = _forged(rng, root, blocks, key)
            root = renamed.get(root, root)
        file = [*blocks.items()]
        if how > 0.6:
            root = _rearranged(rng, root, file)
        return Car((root,), file).encode()

    return mutate


def _rearranged(rng: random.Random, root: bytes, file: list[tuple[bytes, bytes]]) -> bytes:
    """Change which blocks are where, or named how; returns the root."""
    for _ in range(rng.choice((1, 1, 3))):
        at, other = rng.randrange(len(file)), rng.randrange(len(file))
        match rng.randrange(8):
            case 0:
                rng.shuffle(file)
            case 1 if len(file) > 1:
                del file[at]
            case 2:
                file.insert(other, file[at])
            case 3:
                file[at] = (file[at][0], file[other][1])
            case 4:
                file[at] = (b"\x01\x55\x12\x20" + file[at][0][4:], file[at][1])
            case 5:
                file[at] = (file[at][0], file[at][1][: rng.randrange(len(file[at][1]) + 1)])
            case 6:
                file += [(cid_of(b"%d" % n), b"\xa2ae" + bytes(n)) for n in range(rng.choice((1, 20, 200)))]
            case 7:
                root = file[at][0]
    return root


def _forged(
    rng: random.Random, root: bytes, blocks: Mapping[bytes, bytes], key: SigningKey
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The blocks with another content in one of them, and what leads to it hashed anew, up to the commit, which is signed.

    Returns them under their new CIDs, and the new CIDs by the old ones.
    """
    changed, renamed = dict(blocks), dict[bytes, bytes]()
    cid = root if rng.random() < 0.15 else rng.choice(list(blocks))
    if rng.random() < 0.3:
        changed[cid] = damaged_cbor(rng, blocks[cid])
    else:
        links = [Link(each) for each in rng.sample(list(blocks), min(4, len(blocks)))]
        changed[cid] = _changed_cbor(rng, _value(blocks[cid]), [*_STRANGE_CBOR, *links * 8])
    ready = [cid]
    for _ in range(100):  # a block that links to what leads to it would be hashed for ever
        if not ready:
            break
        cid = ready.pop()
        if cid == root:
            changed[cid] = _signed(changed[cid], key)
        old, new = renamed.get(cid, cid), cid_of(changed[cid])
        renamed[cid] = new
        for parent, block in changed.items():
            if old in block and parent != cid and new != old:
                changed[parent] = block.replace(old, new)
                ready.append(parent)
    return {renamed.get(cid, cid): block for cid, block in changed.items()}, renamed


def _signed(commit: bytes, key: SigningKey) -> bytes:
    try:
        fields = {name: value for name, value in decode(commit).items() if name != "sig"}
        return encode({**fields, "sig": key.sign(encode(fields))})
    except Exception:  # no commit any more, or not even CBOR: whatever it is, it goes without
        return commit


@cache
def _car(data: bytes) -> tuple[bytes, Mapping[bytes, bytes]]:
    reader = CarReader((data,))
    return reader.root, dict(reader)


@cache
def _value(block: bytes) -> Any:
    try:
        return decode(block)
    except ValueError:
        return {}


# -- frames


def changed_frame(key: SigningKey) -> Mutate:
    """Frames with other fields, or with other blocks under a commit that ``key`` signs."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        how = rng.random()
        if how < 0.3:
            return damaged_cbor(rng, data)
        header, body = _frame(data)
        if how < 0.7 and body.get("blocks"):
            root, blocks = _car(body["blocks"])
            forged, renamed = _forged(rng, root, blocks, key)
            body = _relinked(body, renamed) | {"blocks": Car((renamed.get(root, root),), forged.items()).encode()}
        if how > 0.6:
            parts = [header, body]
            which = rng.random() > 0.1
            parts[which] = _changed(rng, parts[which], _STRANGE_CBOR)
            header, body = parts
        return _encoded(header) + _encoded(body)

    return mutate


@cache
def _frame(data: bytes) -> tuple[Any, Any]:
    _, end = decode_prefix(data)
    return decode(data[:end]), decode(data[end:])


def _relinked(value: Any, renamed: Mapping[bytes, bytes]) -> Any:
    match value:
        case Link(cid):
            return Link(renamed.get(cid, cid))
        case dict():
            return {name: _relinked(part, renamed) for name, part in value.items()}
        case list():
            return [_relinked(part, renamed) for part in value]
    return value

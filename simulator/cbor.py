"""The data model: canonical DAG-CBOR out, CIDs, and back to plain JSON values (atproto.com/specs/data-model).

Written apart from ``chalicelib.atproto.drisl`` on purpose: two implementations that agree are worth more than one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cbor2

CID_PREFIX = bytes.fromhex("01711220")
"""CIDv1, codec dag-cbor, sha-256, 32 bytes: every block of a repo is named so."""


@dataclass(frozen=True, slots=True)
class Link:
    """A CID inside a value."""

    cid: bytes


Value = None | bool | int | str | bytes | Link | list[Any] | Mapping[str, Any]


def cid_of(block: bytes) -> bytes:
    """The name of a block: 36 bytes."""
    return CID_PREFIX + hashlib.sha256(block).digest()


def cid_text(cid: bytes) -> str:
    """The base32 form, as it stands in JSON."""
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def encode(value: Value) -> bytes:
    """Canonical DAG-CBOR: shortest heads, map keys sorted by length and then by bytes, links as tag 42."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def decode(block: bytes) -> Any:
    """What a block holds, links as ``Link``. Lenient: it reads what ``encode`` wrote."""
    return cbor2.loads(block, tag_hook=lambda tag, _: Link(tag.value[1:]))


def to_json(value: Any) -> Any:
    """The JSON form of a value: links as ``$link``, byte strings as ``$bytes``."""
    if isinstance(value, Link):
        return {"$link": cid_text(value.cid)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value


def _encode(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, str):
        text = value.encode()
        parts += (_head(3, len(text)), text)
    elif isinstance(value, Link):
        parts += (b"\xd8\x2a\x58\x25\x00", value.cid)
    elif isinstance(value, bytes):
        parts += (_head(2, len(value)), value)
    elif value is None:
        parts.append(b"\xf6")
    elif isinstance(value, bool):
        parts.append(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        parts.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
    elif isinstance(value, Mapping):
        parts.append(_head(5, len(value)))
        for key in sorted(value, key=_key):
            parts.append(_key(key)[1])
            _encode(value[key], parts)
    elif isinstance(value, list | tuple):
        parts.append(_head(4, len(value)))
        for item in value:
            _encode(item, parts)
    else:
        raise TypeError(f"no place in the data model: {type(value).__name__}")


@lru_cache(4096)
def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            return bytes((major << 5 | info,)) + number.to_bytes(size, "big")
    raise OverflowError("an integer of more than 64 bits")


@lru_cache(4096)
def _key(key: str) -> tuple[int, bytes]:
    text = key.encode()
    return len(text), _head(3, len(text)) + text

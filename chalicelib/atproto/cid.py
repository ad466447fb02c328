"""Content identifiers: 36 bytes inside, base32 text at the edges.

atproto allows one shape only: CID version 1, codec dag-cbor or raw, hash sha2-256 of 32 bytes
(https://atproto.com/specs/data-model#link-and-cid-formats).
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Final

from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor

if TYPE_CHECKING:
    from multiformats.multibase import Multibase

DAG_CBOR: Final = b"\x01\x71\x12\x20"
"""What the CID of a DAG-CBOR block starts with: version 1, codec 0x71, sha2-256, 32 bytes."""
RAW: Final = b"\x01\x55\x12\x20"
"""What the CID of a raw block (a blob) starts with: version 1, codec 0x55, sha2-256, 32 bytes."""
CID_PREFIXES: Final = frozenset({DAG_CBOR, RAW})
CID_LENGTH: Final = 36


def cid_of(block: bytes | memoryview, codec: bytes = DAG_CBOR) -> bytes:
    """The CID of a block. ``codec`` is DAG_CBOR or RAW."""
    return codec + hashlib.sha256(block).digest()


def check_cid(cid: bytes) -> None:
    """Raises MalformedCbor where ``cid`` is not 36 bytes of an allowed shape."""
    if len(cid) != CID_LENGTH or cid[:4] not in CID_PREFIXES:
        raise MalformedCbor(f"not a CID of version 1, dag-cbor or raw, sha2-256: {bytes(cid[:8]).hex()}")


def cid_to_text(cid: bytes) -> str:
    """``bafy...``: the base32 text of a CID."""
    return _base32().encode(cid)


def cid_from_text(text: str) -> bytes:
    """The bytes of a CID in base32 text. Raises InvalidSyntax where it is not one that atproto allows."""
    try:
        cid = _base32().decode(text)
        check_cid(cid)
    except (ValueError, KeyError, MalformedCbor) as error:
        raise InvalidSyntax(f"not a CID: {text[:80]!r}") from error
    if cid_to_text(cid) != text:
        raise InvalidSyntax(f"not a CID in lower-case base32: {text[:80]!r}")
    return cid


@cache
def _base32() -> Multibase:
    # Imported when first needed: that takes 0.1 s, and a cold start that reads a listing needs no CID.
    from multiformats import multibase
    from multiformats.multibase import raw

    # Its own arithmetic takes 200 us a CID, and a snapshot has thousands of them.
    raw.register("base32", raw.CustomEncoding(_encode, _decode), overwrite=True)
    return multibase.get("base32")


def _encode(data: bytes | bytearray | memoryview) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _decode(text: str) -> bytes:
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))

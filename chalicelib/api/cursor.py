"""Cursors: where a page ended, as a text that a caller sends back unchanged, to the same method with the same parameters.

    SHA-256 of whose it is and where, 8 bytes | the position as JSON          in base64url without padding

The digest keeps a cursor of one thing from being taken for one of another. It is no secret: who forges a position gets what
is after it, as with any other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from chalicelib.api import xrpc
from chalicelib.api.xrpc import XrpcFailure

_DIGEST = 8
Position = Sequence[str | int]


def encode(scope: str, position: Position) -> str:
    """The cursor for a position in ``scope``, which names the method and the parameters that it belongs to."""
    text = json.dumps(position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(scope, text) + text).rstrip(b"=").decode()


def decode(scope: str, cursor: str, *shape: type) -> Any:
    """The position in a cursor of this scope, whose members have these types. Raises ``XrpcFailure`` for any other text."""
    try:
        content = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = json.loads(content[_DIGEST:])
    except (UnicodeEncodeError, binascii.Error, ValueError, RecursionError):
        raise bad() from None
    if not isinstance(position, list) or tuple(map(type, position)) != shape or encode(scope, position) != cursor:
        raise bad()
    return position


def bad() -> XrpcFailure:
    """What is said of a text that is no cursor."""
    return xrpc.invalid_request(
        "cursor is not one that was given out here: send back the last page's cursor unchanged, with the same parameters, "
        "or none to begin again"
    )


def _digest(scope: str, text: bytes) -> bytes:
    return hashlib.sha256(scope.encode() + b"\0" + text).digest()[:_DIGEST]

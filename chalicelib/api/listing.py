"""com.atproto.sync.listReposByCollection: the DIDs that have records in a collection, in the order of their first listing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import time
from collections.abc import Sequence

from chalice.app import Request, Response

from chalicelib import metrics, process, settings
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import parse_nsid
from chalicelib.index.reader import Position

MAX_COLLECTIONS = 10
MAX_LIMIT = 2000
DEFAULT_LIMIT = 500

_DIGEST = 8
_END = 10**16 - 1
"""What no position reaches: keys of listings begin with 16 digits."""


def list_repos_by_collection(request: Request) -> Response:
    """One page. ``collection`` may be repeated: the union, each DID where it was listed first among the collections.

    Raises ``XrpcFailure``: ``InvalidRequest``, ``CollectionNotIndexed``, ``CollectionIncomplete``.
    """
    parameters = Parameters(request)
    collections = _collections(parameters)
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    # An empty cursor is none: clients in use send it for the first page.
    cursor = parameters.one("cursor")
    after = decode_cursor(cursor, collections) if cursor else {}
    began = time.perf_counter()
    page = process.reader().page(collections, limit=limit, after=after)
    metrics.observe("PageLatency", (time.perf_counter() - began) * 1000, "Milliseconds")
    body: dict[str, object] = {"repos": [{"did": did} for did in page.dids]}
    if page.next is not None:
        body["cursor"] = encode_cursor(page.next, collections)
    return xrpc.answer(body)


def encode_cursor(position: Position, collections: Sequence[str]) -> str:
    """An opaque text for a position in the union of ``collections``:

        8 bytes: whose position it is       8 bytes for each collection, in the order of their names
        SHA-256 of the names, sorted      | first_seen, big-endian; 0 where none was passed

    in base64url without padding.
    """
    names = sorted(set(collections))
    content = _digest(names) + struct.pack(f">{len(names)}Q", *(position.get(name, 0) for name in names))
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(cursor: str, collections: Sequence[str]) -> dict[str, int]:
    """The position in a cursor that was made for just these collections. Raises ``XrpcFailure`` for any other text."""
    names = sorted(set(collections))
    try:
        content = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        numbers = struct.unpack(f">{len(names)}Q", content[_DIGEST:])
    except (UnicodeEncodeError, binascii.Error, struct.error):
        raise _bad_cursor() from None
    position = dict(zip(names, numbers, strict=True))
    if max(numbers) >= _END or encode_cursor(position, names) != cursor:  # the digest is compared as well
        raise _bad_cursor()
    return position


def _collections(parameters: Parameters) -> tuple[str, ...]:
    texts = parameters.many("collection", most=MAX_COLLECTIONS)
    if not texts:
        raise xrpc.invalid_request("collection is missing: give an NSID such as collection=io.atcr.hold.captain")
    return tuple(dict.fromkeys(answered(_nsid(text)) for text in texts))


def answered(collection: str) -> str:
    """The collection, if its listing is answered here. Raises ``XrpcFailure``."""
    now = settings.current()
    if not now.answered.wants(indexed(collection)):
        raise XrpcFailure(
            400,
            "CollectionIncomplete",
            f"{collection} is indexed, but not everyone who has records in it is known here; "
            f"complete: {_listed(now.answered)}",
        )
    return collection


def indexed(collection: str) -> str:
    """The collection, if it is indexed here. Raises ``XrpcFailure``."""
    now = settings.current()
    if not now.collections.wants(collection):
        raise XrpcFailure(
            400, "CollectionNotIndexed", f"{collection} is not indexed here; indexed: {_listed(now.collections)}"
        )
    return collection


def _nsid(text: str) -> str:
    try:
        return parse_nsid(text)
    except InvalidSyntax:
        raise xrpc.invalid_request(
            f"collection must be an NSID such as io.atcr.hold.captain, not {xrpc.shown(text)}"
        ) from None


def _listed(scope: Scope) -> str:
    return ", ".join(scope.patterns)


def _digest(names: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join(names).encode()).digest()[:_DIGEST]


def _bad_cursor() -> XrpcFailure:
    return xrpc.invalid_request(
        "cursor is not one that was given out for these collections: "
        "send back the last page's cursor unchanged, with the same collections, or none to begin again"
    )

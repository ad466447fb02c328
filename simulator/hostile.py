"""What hosts do that mean harm: answers without end, of any size, and names that would be read as other names.

Each is an answer for ``Server.fail``, or a frame. None of them takes memory for what it pretends to have.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from .car import section, varint
from .cbor import Link, Value, cid_of, encode
from .faults import Query, Reply, strangers
from .frames import message
from .repo import Repo

MIB = 1 << 20
SEPARATORS = ("#", "/", "?", "%00", "\x00", "\n", "\r", "\x1b[2J", "\x7f", "\u2028", "\u202e", "|", " ", "\ud800")
"""What a name could use to be read as another, or to write something else into a row, a log or a terminal."""


def listing(*pages: tuple[list[dict[str, Any]], str | None]) -> Callable[[Query], Reply]:
    """listRepos in pages, each with the cursor of the next: a page's cursor is its number."""

    def answer(query: Query) -> Reply:
        repos, cursor = pages[int(query.get("cursor") or 0)]
        return Reply.of({"repos": repos} | ({} if cursor is None else {"cursor": cursor}))

    return answer


def round_trip(length: int) -> Callable[[Query], Reply]:
    """listRepos whose cursors lead round and round through so many pages."""
    return listing(([], "1"), *(([], str(number % length + 1)) for number in range(1, length + 1)))


def empty_pages() -> Callable[[Query], Reply]:
    """listRepos with nothing on its pages and always another cursor."""
    numbers = count(1)
    return lambda query: Reply.of({"repos": [], "cursor": str(next(numbers))})


def named(*dids: str) -> Callable[[Query], Reply]:
    """listRepos with these DIDs, whatever they are."""
    return lambda query: Reply.of(
        {"repos": [strangers(number, 1)[0] | {"did": did} for number, did in enumerate(dids)]}
    )


def bomb(size: int = 1024 * MIB) -> Callable[[Query], Reply]:
    """A thousandth of what it unfolds to."""
    return lambda query: Reply(body=_zipped(size), headers={"Content-Encoding": "gzip"})


def _zipped(size: int) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    blank = b" " * MIB
    for _ in range(size // MIB):
        yield packer.compress(blank)
    yield packer.flush()


def huge_car(repo: Repo, size: int = 2048 * MIB) -> Callable[[Query], Reply]:
    """A CAR of that size: the repo's root and commit, then blocks that belong to nothing, and the tree would come last."""
    junk = encode({"junk": bytes(MIB)})
    block = section(cid_of(junk) + junk)

    def chunks() -> Iterator[bytes]:
        yield section(encode({"version": 1, "roots": [Link(repo.head.cid)]}))
        yield section(repo.head.cid + repo.head.block)
        for _ in range(size // len(block)):
            yield block

    return lambda query: Reply(body=chunks(), content_type="application/vnd.ipld.car")


def tiny_blocks(repo: Repo, size: int = 64 * MIB) -> Callable[[Query], Reply]:
    """A CAR of very many blocks of a few bytes."""
    junk = encode({})
    block = (varint(36 + len(junk)) + cid_of(junk) + junk) * 1000

    def chunks() -> Iterator[bytes]:
        yield section(encode({"version": 1, "roots": [Link(repo.head.cid)]}))
        yield section(repo.head.cid + repo.head.block)
        for _ in range(size // len(block)):
            yield block

    return lambda query: Reply(body=chunks(), content_type="application/vnd.ipld.car")


def huge_json(size: int = 64 * MIB, **fields: Any) -> Callable[[Query], Reply]:
    """An answer with a field that has no end."""

    def chunks() -> Iterator[bytes]:
        yield json.dumps(fields).encode()[:-1] + b', "padding": "'
        for _ in range(size // MIB):
            yield b"x" * MIB
        yield b'"}'

    return lambda query: Reply(body=chunks())


def frame_of(size: int, did: str, seq: int, time: str) -> bytes:
    """An ``#identity`` of exactly so many bytes."""
    fields: dict[str, Value] = {"seq": seq, "did": did, "time": time, "handle": "h.test", "padding": b""}
    for padding in range(max(0, size - 200), size):
        frame = message("#identity", fields | {"padding": bytes(padding)})
        if len(frame) == size:
            return frame
    raise ValueError(size)

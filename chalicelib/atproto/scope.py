"""Which collections are wanted, and where their records lie in a repo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import parse_nsid, parse_record_path


@dataclass(frozen=True)
class Scope:
    """A set of collections: NSIDs, and namespaces such as ``io.atcr.*``: whatever starts with ``io.atcr.``.

    A repo's keys, ``collection/rkey``, are ordered by their bytes. ``/`` comes right after ``.``, so a namespace is one
    unbroken range of keys, and so is a collection, though their order is not that of the NSIDs:

        io.atcr.hold.captain/self  <  io.atcr.hold.crew/3k…  <  io.atcr.hold/x  <  io.atcr/x
        └────────────────────── io.atcr.* ────────────────────┘
    """

    patterns: tuple[str, ...]
    key_ranges: tuple[tuple[bytes, bytes], ...]
    """Half-open, sorted, apart from each other. Each wanted key lies in one; what else lies in one is no valid key."""
    needles: tuple[bytes, ...]
    """Each wanted key has one of these in it: a frame without any of them has no wanted key among its ops."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The scope of NSIDs and namespaces with commas between them. Raises InvalidSyntax."""
        patterns = tuple(dict.fromkeys(pattern.strip() for pattern in text.split(",")))
        prefixes = [_key_prefix(pattern) for pattern in patterns]
        return cls(patterns, _merged_ranges(prefixes), _shortest(prefixes))

    def wants(self, collection: str) -> bool:
        """Whether a collection (a valid NSID) is in the scope."""
        return f"{collection}/".encode().startswith(self.needles)

    def wants_key(self, key: bytes) -> bool:
        """Whether a repo's key is a valid ``collection/rkey`` of a collection in the scope."""
        if not key.startswith(self.needles):
            return False
        try:
            parse_record_path(key.decode("ascii"))
        except (InvalidSyntax, UnicodeDecodeError):
            return False
        return True


def _key_prefix(pattern: str) -> bytes:
    if not pattern:
        raise InvalidSyntax("a collection is empty")
    if pattern.endswith(".*"):
        namespace = pattern.removesuffix("*")
        try:
            parse_nsid(f"{namespace}x")
        except InvalidSyntax:
            raise InvalidSyntax(
                f"not an NSID with * for its last segments, two at least before it: {pattern[:100]!r}"
            ) from None
        return namespace.encode()
    if "*" in pattern:
        raise InvalidSyntax(f"a * may only be the whole of the last segment: {pattern[:100]!r}")
    return f"{parse_nsid(pattern)}/".encode()


def _merged_ranges(prefixes: Iterable[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    merged: list[tuple[bytes, bytes]] = []
    for prefix in sorted(prefixes):
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        if merged and prefix <= merged[-1][1]:
            start, last_end = merged.pop()
            merged.append((start, max(last_end, end)))
        else:
            merged.append((prefix, end))
    return tuple(merged)


def _shortest(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)

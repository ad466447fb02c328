"""The signed commit at the root of a repo.

Specification: https://atproto.com/specs/repository#commit-objects
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from chalicelib.atproto import drisl
from chalicelib.atproto.cid import DAG_CBOR, cid_of
from chalicelib.atproto.crypto import PublicKey
from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor, VerificationFailed
from chalicelib.atproto.syntax import Did, Tid, parse_did, parse_tid, tid_to_microseconds

MAX_CLOCK_DRIFT: Final = 300.0
"""Seconds by which the time in a rev may be ahead of our clock."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit whose signature is still to be checked. ``data`` is the root of the tree, ``cid`` the commit's own CID."""

    did: Did
    rev: Tid
    data: bytes
    cid: bytes
    signature: bytes
    signed_bytes: bytes

    def check_signature(self, key: PublicKey) -> None:
        """Raises BadSignature unless ``key`` signed this commit."""
        key.verify(self.signed_bytes, self.signature)

    def check_rev(self, now: float | None = None) -> None:
        """Raises VerificationFailed (``future-rev``) where the rev is ahead of ``now``, seconds since 1970."""
        ahead = tid_to_microseconds(self.rev) / 1e6 - (time.time() if now is None else now)
        if ahead > MAX_CLOCK_DRIFT:
            raise VerificationFailed("future-rev", f"the rev {self.rev} is {ahead:.0f} seconds ahead")


def parse_commit(block: bytes) -> Commit:
    """The commit in a block. Raises VerificationFailed (``bad-commit``).

    The signature covers every field but itself, so fields that are not known here are let through.
    """
    try:
        fields = drisl.decode(block)
    except MalformedCbor as error:
        raise _bad(f"it is not strict DAG-CBOR: {error}") from error
    if not isinstance(fields, dict):
        raise _bad("it is not a map")
    if type(fields.get("version")) is not int or fields["version"] != 3:
        raise _bad(f"its version is {fields.get('version')!r:.40}, only 3 is known")
    did, rev, data, signature = (fields.get(name) for name in ("did", "rev", "data", "sig"))
    if not isinstance(did, str) or not isinstance(rev, str) or not isinstance(signature, bytes):
        raise _bad("did, rev or sig is missing, or of the wrong type")
    if not isinstance(data, drisl.Link) or not data.cid.startswith(DAG_CBOR):
        raise _bad("data is not a link to a node")
    if not isinstance(fields.get("prev", ...), drisl.Link | None):
        raise _bad("prev is missing, or neither null nor a link")
    try:
        return Commit(
            parse_did(did), parse_tid(rev), data.cid, cid_of(block), signature, _unsigned(block, fields, signature)
        )
    except InvalidSyntax as error:
        raise _bad(str(error)) from error


def _unsigned(block: bytes, fields: dict[str, drisl.Value], signature: bytes) -> bytes:
    """The commit without its signature, encoded: the very bytes of the block, where they can be only in one place."""
    field = b"csigX@" + signature
    if len(signature) == 64 and block.count(field) == 1 and block[0] < 0xB8:
        return bytes((block[0] - 1,)) + block[1:].replace(field, b"")
    return drisl.encode({name: value for name, value in fields.items() if name != "sig"})


def _bad(what: str) -> VerificationFailed:
    return VerificationFailed("bad-commit", f"the commit is malformed: {what}")

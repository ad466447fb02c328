"""The signed commit at the root of a repo.

Specification: https://atproto.com/specs/repository#commit-objects
"""

from __future__ import annotations

import re
import time
from typing import Final, NamedTuple

from chalicelib.atproto import drisl, plain
from chalicelib.atproto.cid import DAG_CBOR, cid_of
from chalicelib.atproto.crypto import PublicKey
from chalicelib.atproto.errors import InvalidSyntax, MalformedCbor, VerificationFailed
from chalicelib.atproto.syntax import Did, Tid, parse_did, parse_tid, tid_to_microseconds

MAX_CLOCK_DRIFT: Final = 300.0
"""Seconds by which the time in a rev may be ahead of our clock."""

_PLAIN: Final = re.compile(
    rb"\xa6cdid%bcrev%b(csigX@(.{64}))ddata%bdprev(?:\xf6|%b)gversion\x03"
    % (plain.TEXT, plain.TID, plain.LINK_TO_NODE, plain.uncaptured(plain.LINK)),
    re.DOTALL,
)


class Commit(NamedTuple):
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
    match = _PLAIN.fullmatch(block)
    if match and plain.is_length(match[1], len(match[2])):
        _, did, rev, _, signature, data = match.groups()
        signed_bytes = b"\xa5" + block[1 : match.start(4)] + block[match.end(4) :]
        return _commit(block, did.decode(), rev.decode(), data, signature, signed_bytes)
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
    unsigned = {name: value for name, value in fields.items() if name != "sig"}
    return _commit(block, did, rev, data.cid, signature, drisl.encode(unsigned))


def _commit(block: bytes, did: str, rev: str, data: bytes, signature: bytes, signed_bytes: bytes) -> Commit:
    try:
        return Commit(parse_did(did), parse_tid(rev), data, cid_of(block), signature, signed_bytes)
    except InvalidSyntax as error:
        raise _bad(str(error)) from error


def _bad(what: str) -> VerificationFailed:
    return VerificationFailed("bad-commit", f"the commit is malformed: {what}")

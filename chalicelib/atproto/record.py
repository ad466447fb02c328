"""One record of a repo, in the JSON form of the data model, or why it has none.

A record that is not what it should be never spoils the repo around it: its key and CID are part of the signed tree all
the same, so they are kept, without a value and with the reason.

Specification: https://atproto.com/specs/record-key, https://atproto.com/specs/data-model
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chalicelib.atproto import drisl
from chalicelib.atproto.cid import CID_LENGTH, DAG_CBOR
from chalicelib.atproto.errors import MalformedCbor

MAX_RECORD: Final = 1_000_000
"""Bytes of a record's block."""


@dataclass(frozen=True, slots=True)
class Record:
    """``path`` is ``collection/rkey``. ``value`` is None where there is a ``problem``, which is for people to read."""

    path: str
    cid: bytes
    value: drisl.Json
    problem: str | None = None


def is_record_cid(cid: bytes) -> bool:
    """Whether a value of the tree can be a record: the tree itself lets other kinds of CID through."""
    return len(cid) == CID_LENGTH and cid.startswith(DAG_CBOR)


def read_record(path: str, cid: bytes, block: bytes) -> Record:
    """The record in a block that has been found to be that of ``cid``."""
    if len(block) > MAX_RECORD:
        return Record(path, cid, None, f"it has {len(block)} bytes, at most {MAX_RECORD} are allowed")
    try:
        value = drisl.decode(block)
    except MalformedCbor as error:
        return Record(path, cid, None, f"it is not strict DAG-CBOR: {error}")
    if not isinstance(value, dict):
        return Record(path, cid, None, "it is not a map")
    type_ = value.get("$type")
    collection = path.partition("/")[0]
    if type_ != collection:
        said = f"is {type_!r:.100}, not {collection}" if "$type" in value else "is missing"
        return Record(path, cid, None, f"its $type {said}")
    return Record(path, cid, drisl.to_json(value))

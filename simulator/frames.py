"""Frames of ``com.atproto.sync.subscribeRepos`` (atproto.com/specs/event-stream): a header and a body in DAG-CBOR.

A commit can be told in several ways; each is a ``Telling``, and a host is asked for another than its usual one by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .car import Car
from .cbor import Link, cid_of, decode, encode
from .repo import Commit

Telling = Callable[[Commit, int, str], bytes]
"""From a commit, its seq and a timestamp to a frame."""


def message(kind: str, body: dict[str, Any]) -> bytes:
    """Any message: ``kind`` with its hash sign."""
    return encode({"op": 1, "t": kind}) + encode(body)


def commit(commit: Commit, seq: int, time: str) -> bytes:
    """As Sync v1.1 has it: with ``prevData``, and ``prev`` on each op that replaces or removes."""
    return message("#commit", _commit(commit, seq, time))


def legacy_commit(commit: Commit, seq: int, time: str) -> bytes:
    """As hosts before Sync v1.1 send it: no ``prevData``, no ``prev``."""
    body = _commit(commit, seq, time)
    body.pop("prevData", None)
    for op in body["ops"]:
        op.pop("prev", None)
    return message("#commit", body)


def too_big_commit(commit: Commit, seq: int, time: str) -> bytes:
    """Marked ``tooBig``: the commit block alone, and no ops."""
    return commit_with(tooBig=True, ops=[], blocks=commit.sync_car.encode())(commit, seq, time)


def commit_block_last(commit: Commit, seq: int, time: str) -> bytes:
    """The same blocks, the commit after all others."""
    return commit_with(blocks=Car((commit.cid,), commit.blocks[::-1]).encode())(commit, seq, time)


def commit_with(**fields: Any) -> Telling:
    """A telling with body fields replaced, and those that are ``...`` left out: how tests forge one."""

    def tell(commit: Commit, seq: int, time: str) -> bytes:
        body = _commit(commit, seq, time) | fields
        return message("#commit", {name: value for name, value in body.items() if value is not ...})

    return tell


def commit_badly_signed(commit: Commit, seq: int, time: str) -> bytes:
    """All is right but one bit of the signature."""
    fields = decode(commit.block)
    block = encode({**fields, "sig": fields["sig"][:-1] + bytes((fields["sig"][-1] ^ 1,))})
    cid = cid_of(block)
    car = Car((cid,), ((cid, block), *commit.blocks[1:]))
    return commit_with(commit=Link(cid), blocks=car.encode())(commit, seq, time)


def sync(commit: Commit, seq: int, time: str) -> bytes:
    body = {"seq": seq, "did": commit.did, "blocks": commit.sync_car.encode(), "rev": commit.rev, "time": time}
    return message("#sync", body)


def identity(did: str, seq: int, time: str, handle: str | None = None) -> bytes:
    body = {"seq": seq, "did": did, "time": time}
    return message("#identity", body if handle is None else {**body, "handle": handle})


def account(did: str, seq: int, time: str, active: bool, status: str | None = None) -> bytes:
    body = {"seq": seq, "did": did, "time": time, "active": active}
    return message("#account", body if status is None else {**body, "status": status})


def info(name: str, text: str | None = None) -> bytes:
    return message("#info", {"name": name} if text is None else {"name": name, "message": text})


def error(name: str, text: str | None = None) -> bytes:
    """The last frame before the server closes."""
    return encode({"op": -1}) + encode({"error": name} if text is None else {"error": name, "message": text})


def _commit(commit: Commit, seq: int, time: str) -> dict[str, Any]:
    ops: list[dict[str, Any]] = []
    for op in commit.ops:
        told = {"action": op.action, "path": op.path, "cid": Link(op.cid) if op.cid else None}
        ops.append(told if op.prev is None else {**told, "prev": Link(op.prev)})
    body: dict[str, Any] = {
        "seq": seq,
        "rebase": False,
        "tooBig": False,
        "repo": commit.did,
        "commit": Link(commit.cid),
        "rev": commit.rev,
        "since": commit.since,
        "blocks": commit.car.encode(),
        "ops": ops,
        "blobs": [],
        "time": time,
    }
    return body if commit.prev_data is None else {**body, "prevData": Link(commit.prev_data)}

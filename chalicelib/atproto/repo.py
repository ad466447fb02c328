"""Verifying what the stream says about a repo. Snapshots, commits and records have files of their own, and are named here.

A commit event is believed for what its signed tree shows, and for nothing else: its fields must be those of the signed
commit, and its ops, undone on the tree, must lead back to the tree before.

Specification: https://atproto.com/specs/sync#message-validation-checklist
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from chalicelib.atproto.car import CarLimits, read_car
from chalicelib.atproto.cid import cid_of
from chalicelib.atproto.commit import Commit, parse_commit
from chalicelib.atproto.crypto import PublicKey
from chalicelib.atproto.errors import BudgetExceeded, InvalidSyntax, MalformedCar, VerificationFailed
from chalicelib.atproto.events import MAX_COMMIT_BLOCKS, CommitEvent, RepoOp, SyncEvent
from chalicelib.atproto.mst import find, invert
from chalicelib.atproto.record import Record, is_record_cid, read_record
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.snapshot import Snapshot, SnapshotLimits, read_snapshot
from chalicelib.atproto.syntax import Did, Tid, parse_record_path

__all__ = [
    "Change",
    "Commit",
    "Record",
    "Snapshot",
    "SnapshotLimits",
    "VerifiedCommit",
    "parse_commit",
    "read_snapshot",
    "verify_commit",
    "verify_sync",
]

_LIMITS: Final = CarLimits(max_bytes=MAX_COMMIT_BLOCKS, max_block=MAX_COMMIT_BLOCKS, max_blocks=20_000)
# Of each action: whether it has a cid, and whether it may have a prev.
_SHAPES: Final = {"create": (True, False), "update": (True, True), "delete": (False, True)}


class Change(NamedTuple):
    """What became of a wanted path: ``cid`` and ``record`` as they are now, both None where it was deleted."""

    path: str
    cid: bytes | None
    record: Record | None


class VerifiedCommit(NamedTuple):
    """A commit whose signature and ops hold. ``changes`` has the wanted paths only.

    ``inverted``: the ops lead back to ``prev_data``, so nothing is left out. Without it, ``changes`` is true, but perhaps
    not all that changed. ``cid`` is the commit's own, ``data`` the root of the tree now. Whether ``since`` and
    ``prev_data`` continue what is stored is for the caller to see.
    """

    did: Did
    rev: Tid
    since: str | None
    cid: bytes
    data: bytes
    prev_data: bytes | None
    changes: tuple[Change, ...]
    inverted: bool


def verify_commit(event: CommitEvent, key: PublicKey, scope: Scope, *, now: float | None = None) -> VerifiedCommit:
    """What a commit event proves, with ``key`` its DID's signing key. ``now`` is seconds since 1970.

    Raises VerificationFailed, the reason one of: ``too-big``; ``malformed-car``; ``missing-block``; ``wrong-hash``;
    ``bad-commit``; ``field-mismatch`` (between the event and the signed commit, or the tree); ``future-rev``;
    ``bad-signature`` (its subclass BadSignature); ``bad-op``; ``bad-node``; ``inversion-mismatch``.
    """
    if event.too_big:
        raise VerificationFailed("too-big", "the commit is beyond a limit of the stream, and not whole")
    root, blocks = _open(event.blocks)
    if root != event.commit:
        raise VerificationFailed("field-mismatch", "the root of the blocks is not the event's commit")
    commit = _signed_commit(root, blocks, event, key)
    commit.check_rev(now)
    wanted = _check_ops(event.ops, scope)
    inverted = event.prev_data is not None and all(op.action == "create" or op.prev for op in event.ops)
    if inverted and invert(commit.data, blocks, event.ops) != event.prev_data:
        raise VerificationFailed("inversion-mismatch", "the ops do not lead back to prevData")
    if not inverted:
        for op, cid in zip(wanted, find(commit.data, blocks, [op.path for op in wanted]), strict=True):
            if cid != op.cid:
                raise VerificationFailed("field-mismatch", f"the tree has another record than the op under {op.path}")
    changes = tuple(Change(op.path, op.cid, _record(op, blocks)) for op in wanted)
    return VerifiedCommit(
        commit.did, commit.rev, event.since, commit.cid, commit.data, event.prev_data, changes, inverted
    )


def verify_sync(event: SyncEvent, key: PublicKey, *, now: float | None = None) -> Commit:
    """The commit that a sync event asserts, its signature checked. Raises as ``verify_commit`` does."""
    if not event.blocks:
        raise VerificationFailed("too-big", "the blocks of the sync are beyond the limit, or missing")
    root, blocks = _open(event.blocks)
    commit = _signed_commit(root, blocks, event, key)
    commit.check_rev(now)
    return commit


def _open(car: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The root and the blocks, unverified."""
    try:
        return read_car(car, _LIMITS)
    except (MalformedCar, BudgetExceeded) as error:
        raise VerificationFailed("malformed-car", f"the blocks are not a CAR: {error}") from error


def _signed_commit(cid: bytes, blocks: dict[bytes, bytes], event: CommitEvent | SyncEvent, key: PublicKey) -> Commit:
    commit = parse_commit(_block(cid, blocks, "the commit"))
    if commit.did != event.did or commit.rev != event.rev:
        raise VerificationFailed("field-mismatch", "the event has another DID or rev than the signed commit")
    commit.check_signature(key)
    return commit


def _block(cid: bytes, blocks: dict[bytes, bytes], what: str) -> bytes:
    block = blocks.get(cid)
    if block is None:
        raise VerificationFailed("missing-block", f"{what} is not among the blocks")
    if cid_of(block) != cid:
        raise VerificationFailed("wrong-hash", f"the bytes of {what} are not those of its CID")
    return block


def _check_ops(ops: Sequence[RepoOp], scope: Scope) -> list[RepoOp]:
    """Those that are wanted; each op must be one that can be."""
    if len({op.path for op in ops}) < len(ops):
        raise VerificationFailed("bad-op", "two ops name the same path")
    wanted = []
    for op in ops:
        has_cid, may_have_prev = _SHAPES.get(op.action, (None, None))
        if (op.cid is not None) != has_cid or (op.prev is not None and not may_have_prev):
            raise VerificationFailed("bad-op", f"an op that can't be: {op.action:.20} with or without cid and prev")
        try:
            collection, _ = parse_record_path(op.path)
        except InvalidSyntax as error:
            raise VerificationFailed("bad-op", str(error)) from error
        if scope.wants(collection):
            wanted.append(op)
    return wanted


def _record(op: RepoOp, blocks: dict[bytes, bytes]) -> Record | None:
    if op.cid is None:
        return None
    if not is_record_cid(op.cid):
        return Record(op.path, op.cid, None, "its CID is not one of DAG-CBOR and SHA-256")
    return read_record(op.path, op.cid, _block(op.cid, blocks, f"the record {op.path}"))

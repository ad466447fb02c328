"""Repos that lie: each forgery makes the CAR that a broken or hostile server would send in place of the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .car import Block, Car
from .cbor import Link, Value, cid_of, decode, encode
from .export import Order
from .repo import Repo

Forgery = Callable[[Repo, Order], Car]


def commit_with(**fields: Value) -> Forgery:
    """Another commit over the same tree, with fields replaced and rightly signed."""

    def forge(repo: Repo, order: Order) -> Car:
        return _with_commit(repo, order, repo.sign(**{"rev": repo.rev, "data": Link(repo.head.data), **fields})[1])

    return forge


def signature(sig: bytes) -> Forgery:
    """The true commit under another signature, of whatever length."""
    return lambda repo, order: _with_commit(repo, order, encode({**decode(repo.head.block), "sig": sig}))


def bad_signature(repo: Repo, order: Order) -> Car:
    """One bit of the signature is wrong."""
    commit = decode(repo.head.block)
    sig = commit["sig"]
    return _with_commit(repo, order, encode({**commit, "sig": sig[:-1] + bytes((sig[-1] ^ 1,))}))


def high_s(repo: Repo, order: Order) -> Car:
    """The signature's malleable twin."""
    commit = decode(repo.head.block)
    del commit["sig"]
    return _with_commit(repo, order, encode({**commit, "sig": repo.key.sign_high_s(encode(commit))}))


def wrong_root(repo: Repo, order: Order) -> Car:
    """The CAR's root is an MST node."""
    return Car((repo.head.data,), _blocks(repo, order))


def missing_root(repo: Repo, order: Order) -> Car:
    """The CAR's root is in no block."""
    return Car((cid_of(b"nowhere"),), _blocks(repo, order))


def missing_block(path: str) -> Forgery:
    """A live record is not there."""
    return lambda repo, order: Car((repo.head.cid,), (b for b in _blocks(repo, order) if b[0] != repo.get(path)))


def altered_block(path: str) -> Forgery:
    """A live record has other bytes than its CID says."""
    return lambda repo, order: Car(
        (repo.head.cid,),
        ((cid, block if cid != repo.get(path) else block[:-1] + b"\0") for cid, block in _blocks(repo, order)),
    )


def _blocks(repo: Repo, order: Order) -> Iterable[Block]:
    return [(cid, repo.blocks[cid]) for cid in order(repo, None)]


def _with_commit(repo: Repo, order: Order, block: bytes) -> Car:
    forged = (cid_of(block), block)
    return Car((forged[0],), (forged if cid == repo.head.cid else (cid, old) for cid, old in _blocks(repo, order)))

"""The orders in which servers write a repo's blocks into a CAR: functions of a repo, and of a rev to start after."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from . import mst
from .car import Car
from .repo import Repo

Order = Callable[[Repo, str | None], list[bytes]]
"""The CIDs to send, in order. Empty: nothing is newer than ``since``."""


def reference(repo: Repo, since: str | None = None) -> list[bytes]:
    """Live blocks only, the newest revision first, parents before children: the reference PDS."""
    written = {cid: rev for rev, cids in repo.log for cid in cids}
    live = [cid for cid in preorder(repo) if since is None or written[cid] > since]
    return sorted(live, key=written.__getitem__, reverse=True)


def carstore(repo: Repo, since: str | None = None) -> list[bytes]:
    """Every block ever written, newest commit first: dead records, old nodes and old commits too, some of them twice.

    The store that holds are built on. It keeps a commit's blocks in a hash map: their order in it means nothing.
    """
    return [cid for rev, cids in reversed(repo.log) if since is None or rev > since for cid in sorted(cids)]


def preorder(repo: Repo, since: str | None = None) -> list[bytes]:
    """Live blocks as a walk from the commit meets them, ``since`` or not."""
    return list(dict.fromkeys((repo.head.cid, *_walk(repo.tree))))


def shuffled(seed: int) -> Order:
    """Live blocks in an order that is random, and the same each time."""

    def order(repo: Repo, since: str | None = None) -> list[bytes]:
        cids = preorder(repo)
        random.Random(seed).shuffle(cids)
        return cids

    return order


def car(repo: Repo, order: Order = reference, since: str | None = None) -> Car:
    """The repo as a CAR, as it stands now: later writes don't show in it, however late it is read."""
    return Car((repo.head.cid,), [(cid, repo.blocks[cid]) for cid in order(repo, since)])


def _walk(node: mst.Node) -> Iterator[bytes]:
    yield node.cid
    for child, value in zip(node.children, (*node.values, None), strict=True):
        if child:
            yield from _walk(child)
        if value:
            yield value

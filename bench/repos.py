"""CARs of large repos, as servers write them. They are built once, in ``bench/.cache``.

A repo is a history of creations, one commit each, most of them likes and posts; ``ours`` of them are records of holds:

    none      ....................      nothing of ours
    recent    .................:::      the last creations of all
    spread    :..:..:..:..:..:..:.      from the first commit on to the last: to know them all takes the whole file

Its CAR has live blocks only, the newest revision first, as the reference PDS sends them: within a revision by CID, which
means in no order. ``shuffled`` is the same file in random order. A hold's repo comes out of its store with all that it
ever held, dead nodes and commits too (see ``simulator.export.carstore``).
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from simulator import export, mst
from simulator.atcr import Author
from simulator.car import Car
from simulator.cbor import Link, cid_of, encode
from simulator.clock import Clock
from simulator.keys import SigningKey
from simulator.repo import Repo, Write

CACHE = Path(__file__).parent / ".cache"
DID = "did:plc:" + "b" * 24
KEY = SigningKey(bytes(range(1, 33)))
_FORMAT = 4  # of the files: part of their names

Where = Literal["none", "recent", "spread"]


@dataclass(frozen=True)
class RepoFile:
    """A CAR on disk and what a reader must find in it: ``ours`` counts the records of ``io.atcr.*``, ``digest`` is over them."""

    name: str
    size: int
    blocks: int
    ours: int
    digest: str

    @property
    def path(self) -> Path:
        return CACHE / f"{self.name}.car"


def digest(records: Iterator[tuple[bytes, bytes]]) -> str:
    """Of paths and CIDs in order: two contenders that give the same have found the same records."""
    hashed = hashlib.sha256()
    for path, cid in records:
        hashed.update(path + b"\0" + cid)
    return hashed.hexdigest()


def account(records: int, ours: int, where: Where, *, shuffled: bool = False) -> RepoFile:
    """An account of the reference PDS with so many records, so many of them ours."""
    return _cached("account", records, ours, where, shuffled)


def hold(records: int, order: Literal["carstore", "reference"]) -> RepoFile:
    """A hold's repo of so many records, each of them in a commit of its own."""
    return _cached("hold", records, order)


def _cached(kind: str, *arguments: Any) -> RepoFile:
    name = "-".join(map(str, (kind, *arguments, _FORMAT)))
    facts = CACHE / f"{name}.json"
    if not facts.exists():
        # In a process of its own: the memory that it takes must not be that of whoever measures.
        command = [sys.executable, "-m", "bench.repos", name, kind, json.dumps(arguments)]
        subprocess.run(command, cwd=CACHE.parent.parent, check=True)
    return RepoFile(**json.loads(facts.read_text()))


def _build(name: str, kind: str, arguments: Sequence[Any]) -> None:
    car, found = {"account": _account, "hold": _hold}[kind](*arguments)
    CACHE.mkdir(exist_ok=True)
    part = CACHE / f"{name}.part"
    with part.open("wb") as file:
        file.writelines(car.chunks())
    made = RepoFile(name, part.stat().st_size, len(list(car.blocks)), len(found), digest(iter(sorted(found.items()))))
    part.replace(made.path)
    (CACHE / f"{name}.json").write_text(json.dumps(asdict(made)))


def _hold(records: int, order: str) -> tuple[Car, dict[bytes, bytes]]:
    clock = Clock()
    entries = Author(DID, clock, random.Random(5)).hold(layers=records)
    repo = Repo(DID, KEY, clock, [next(entries)])
    for path, value in islice(entries, records - 1):
        repo.apply([Write("create", path, value)])
    cids = export.carstore(repo) if order == "carstore" else export.reference(repo)
    return Car((repo.head.cid,), [(cid, repo.blocks[cid]) for cid in cids]), dict(mst.items(repo.tree))


def _account(records: int, ours: int, where: Where, shuffled: bool) -> tuple[Car, dict[bytes, bytes]]:
    clock = Clock()
    rng = random.Random(7)
    author = Author(DID, clock, rng)
    make = {kind: _template(kind, value) for kind, value in _noise()}
    kinds = list(make)
    mine = _places(records, ours, where)
    revs: dict[bytes, int] = {}  # of each path: the number of the commit that made it
    blocks: dict[bytes, bytes] = {}
    found: dict[bytes, bytes] = {}
    leaves = []
    for number in range(records):
        if number in mine:
            path, value = author.layer()
            key, block = path.encode(), encode(value)
        else:
            kind = rng.choices(kinds, (7, 2, 1))[0]
            key, block = make[kind](clock.tid(), rng)
        cid = cid_of(block)
        blocks[cid] = block
        revs[key] = number
        leaves.append((key, cid))
        if number in mine:
            found[key] = cid
    tree = mst.build(leaves)
    order = [(revs[key], cid) for key, cid in leaves]
    order += _node_revs(tree, revs, blocks)[1]
    commit_cid, commit = _commit(tree, clock.tid())
    order.append((records, commit_cid))
    blocks[commit_cid] = commit
    order.sort(reverse=True)
    if shuffled:
        random.Random(3).shuffle(order)
    return Car((commit_cid,), [(cid, blocks[cid]) for _, cid in order]), found


def _places(records: int, ours: int, where: Where) -> frozenset[int]:
    if where == "none" or not ours:
        return frozenset()
    if where == "recent":
        return frozenset(range(records - ours, records))
    return frozenset(round(number * (records - 1) / max(1, ours - 1)) for number in range(ours))


def _node_revs(
    node: mst.Node, revs: dict[bytes, int], blocks: dict[bytes, bytes]
) -> tuple[int, list[tuple[int, bytes]]]:
    """A node is as new as the newest that is in it or below it."""
    newest = max((revs[key] for key in node.keys), default=0)
    order: list[tuple[int, bytes]] = []
    for child in node.children:
        if child:
            rev, below = _node_revs(child, revs, blocks)
            newest = max(newest, rev)
            order += below
    order.append((newest, node.cid))
    blocks[node.cid] = node.block
    return newest, order


def _commit(tree: mst.Node, rev: str) -> tuple[bytes, bytes]:
    unsigned: dict[str, Any] = {"did": DID, "version": 3, "prev": None, "rev": rev, "data": Link(tree.cid)}
    block = encode({"sig": KEY.sign(encode(unsigned)), **unsigned})
    return cid_of(block), block


_MARK = "0" * 16


def _noise() -> Iterator[tuple[str, dict[str, Any]]]:
    now = "2026-01-01T00:00:00.000Z"
    subject = {"uri": f"at://did:plc:{_MARK}{'c' * 8}/app.bsky.feed.post/3kabcdefghij2", "cid": "bafyrei" + "a" * 52}
    yield "app.bsky.feed.like", {"subject": subject, "createdAt": now}
    yield "app.bsky.feed.post", {"text": _MARK + " lorem ipsum dolor" * 19, "langs": ["en"], "createdAt": now}
    yield "app.bsky.graph.follow", {"subject": f"did:plc:{_MARK}{'c' * 8}", "createdAt": now}


def _template(kind: str, value: dict[str, Any]) -> Callable[[str, random.Random], tuple[bytes, bytes]]:
    """Records that differ in sixteen characters: millions of them are made in a minute."""
    before, _, after = encode({"$type": kind, **value}).partition(_MARK.encode())
    folder = f"{kind}/".encode()

    def make(rkey: str, rng: random.Random) -> tuple[bytes, bytes]:
        return folder + rkey.encode(), before + rng.randbytes(8).hex().encode() + after

    return make


if __name__ == "__main__":
    _build(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))

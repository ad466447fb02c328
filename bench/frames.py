"""A firehose: frames as a relay sends them, built once and sent as often as wanted.

Each is a whole, signed commit of one of a few repos, with the proofs that Sync v1.1 asks for. Their sizes are those of the
production firehose: 5.5 KB on average, from 1.5 to 9, which blobs of a record's text fill up to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.repos import DID, KEY
from simulator import frames
from simulator.atcr import Author, Entry
from simulator.clock import Clock
from simulator.repo import Commit, Repo, Write

_SIZES = (
    2_000,
    3_300,
    3_600,
    4_100,
    4_700,
    4_900,
    5_200,
    5_300,
    5_400,
    5_600,
    6_200,
    6_600,
    6_900,
    7_200,
    7_500,
    8_600,
)
"""Of recorded frames, at equal distances of rank."""
FIRST_SEQ = 10_000_000_000


def commits(count: int, *, ours: bool, records: int = 20_000) -> list[Commit]:
    """So many commits of one repo: three creations of four ops, the rest updates and deletions."""
    clock, rng = Clock(), random.Random(11)
    author = Author(DID, clock, rng)
    make = author.layer if ours else author.like
    repo = Repo(DID, KEY, clock, [make() for _ in range(records)])
    paths = list(repo.paths())
    made = []
    for number in range(count):
        path, value = _filled(make(), rng)
        if number % 8 == 3:
            write = Write("update", paths.pop(rng.randrange(len(paths))), value)
        elif number % 8 == 7:
            write = Write("delete", paths.pop(rng.randrange(len(paths))))
        else:
            write = Write("create", path, value)
        made.append(repo.apply([write]))
    return made


def firehose(count: int, ours_every: int) -> Iterator[bytes]:
    """Frames with rising seqs, one in ``ours_every`` of a repo in scope; the others of many repos that are not."""
    foreign = [frames.commit(commit, FIRST_SEQ, _TIME) for commit in commits(64, ours=False)]
    mine = commits(count // ours_every + 1, ours=True)
    for number in range(count):
        seq = FIRST_SEQ + number
        if number % ours_every == ours_every - 1:
            yield frames.commit(mine[number // ours_every], seq, _TIME)
        else:
            other = foreign[number % len(foreign)].replace(_seq(FIRST_SEQ), _seq(seq), 1)
            yield other.replace(DID.encode(), f"did:plc:{number % 50_000:024d}".encode())


def tell(commit: Commit, seq: int) -> bytes:
    """One commit as a frame."""
    return frames.commit(replace(commit), seq, _TIME)


_TIME = "2026-01-01T00:00:00.000Z"


def _seq(seq: int) -> bytes:
    return b"cseq\x1b" + seq.to_bytes(8, "big")


def _filled(entry: Entry, rng: random.Random) -> Entry:
    path, value = entry
    filler: dict[str, Any] = {"note": "x" * max(0, rng.choice(_SIZES) - 3_700)}
    return path, {**value, **filler}

"""A repo, and an index of it."""

from __future__ import annotations

import json
import random
from collections.abc import Set
from typing import Any

from chalicelib.atproto.crypto import parse_multibase
from chalicelib.atproto.events import decode_frame
from chalicelib.atproto.repo import Snapshot, SnapshotLimits, VerifiedCommit, read_snapshot, verify_commit
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did
from chalicelib.index.reader import Reader
from chalicelib.index.tables import Tables
from chalicelib.index.writer import Writer
from simulator import export, frames
from simulator.clock import Clock as TidClock
from simulator.keys import SigningKey
from simulator.repo import Commit, Repo, Write
from tests.conftest import Stack

SCOPE = Scope.parse("io.atcr.*")
DID = Did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
HOST = "pds.example.com"
CAPTAIN = "io.atcr.hold.captain"


class Clock:
    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


class World:
    """A repo, and an index of it."""

    def __init__(self, stack: Stack, did: Did = DID, *, feeds: Set[str] = frozenset()) -> None:
        self.clock = Clock()
        self.tables = Tables(stack.prefix)
        self.writer = Writer(
            self.tables, clock=self.clock, feeds=feeds, jitter=random.Random(1), pause=lambda seconds: None
        )
        self.reader = Reader(stack.dynamodb, stack.prefix)
        self.did = did
        self.key = SigningKey.generate(random.Random(did))
        self.repo = Repo(did, self.key, TidClock())
        self.put("app.bsky.feed.post/first")

    def put(self, *paths: str, number: int = 0) -> Commit:
        values = [(path, {"$type": path.partition("/")[0], "number": number}) for path in paths]
        return self.repo.apply([self.repo.put(path, value) for path, value in values])

    def delete(self, *paths: str) -> Commit:
        return self.repo.apply([Write("delete", path) for path in paths])

    def snapshot(self) -> Snapshot:
        return read_snapshot([export.car(self.repo).encode()], did=self.did, scope=SCOPE, limits=SnapshotLimits())

    def verified(self, commit: Commit) -> VerifiedCommit:
        event = decode_frame(frames.commit(commit, 1, "2026-01-01T00:00:00Z"))
        return verify_commit(event, parse_multibase(self.key.multibase), SCOPE)

    def crawl(self) -> None:
        job = self.writer.claim(self.did, ask=True)
        assert job is not None
        with self.snapshot() as snapshot:
            self.writer.land(job, snapshot, host=HOST, epoch=1)

    @property
    def row(self) -> Any:
        return self.writer.load(self.did)

    def records(self) -> dict[str, int]:
        rows = self.tables.records.query(self.did, consistent_read=True)
        return {row.path: json.loads(row.value)["number"] for row in rows}

    def listing(self, collection: str = CAPTAIN) -> tuple[str, ...]:
        return self.reader.page([collection], limit=100, after={}).dids

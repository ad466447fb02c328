"""Sound inputs to begin with: published ones, and what the simulator makes."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from chalicelib.atproto.crypto import parse_did_key
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Did
from simulator import export
from simulator.cbor import Link
from simulator.clock import Clock
from simulator.keys import SigningKey
from simulator.repo import Commit, Repo, Write

DID = Did("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
SIGNER = SigningKey.generate(random.Random(7))
KEY = parse_did_key(SIGNER.did_key)
SCOPE = Scope.parse("io.atcr.*,app.bsky.*,chat.bsky.*")
TIME = "2026-01-02T03:04:05.678Z"
HEAD = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"
REV = "3jzfcijpj2z2a"
CAPTAIN, CREW = "io.atcr.hold.captain", "io.atcr.hold.crew"


def _record(collection: str, **fields: Any) -> dict[str, Any]:
    return {"$type": collection, **fields}


def repo(size: int) -> Repo:
    collections = [CAPTAIN, "app.bsky.feed.like", CREW, "sh.tangled.star"]
    of = Link(b"\x01\x71\x12\x20" + bytes(32))
    places = []
    for n in range(size):
        collection = collections[n % len(collections)]
        places.append((f"{collection}/{n:04}", _record(collection, n=n, of=of)))
    return Repo(DID, SIGNER, Clock(), places)


@cache
def small() -> Repo:
    """A repo with a history, so that a carstore has stale blocks of it."""
    made = repo(30)
    paths = list(made.paths())
    made.apply([made.put(path, _record(path.partition("/")[0], text="é" * 40, raw=b"\0" * 50)) for path in paths[:6]])
    made.apply([Write("delete", path) for path in paths[3:9]])
    return made


@cache
def history() -> list[Commit]:
    """Commits of every action, one op and several."""
    made = repo(40)
    paths = list(made.paths(CREW))
    return [
        made.apply([made.put(f"{CREW}/new", _record(CREW, n=1))]),
        made.apply(
            [
                made.put(f"{CAPTAIN}/self", _record(CAPTAIN)),
                Write("delete", paths[0]),
                made.put(paths[1], _record(CREW)),
            ]
        ),
        made.apply([Write("delete", path) for path in paths[2:6]]),
        made.apply([]),
    ]


def backwards(repo: Repo, since: str | None = None) -> list[bytes]:
    return export.preorder(repo)[::-1]


def recorded(fixtures: Path) -> list[bytes]:
    data = (fixtures / "firehose/frames.bin").read_bytes()
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        found.append(data[4:end])
        data = data[end:]
    return found


def documents(fixtures: Path) -> dict[str, Any]:
    documents: dict[str, Any] = json.loads((fixtures / "firehose/did_docs.json").read_text())
    return documents


def published(fixtures: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((fixtures / "interop/data-model/data-model-fixtures.json").read_text())
    return cases

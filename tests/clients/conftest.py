"""The service over HTTP in a process of its own, with something of everything, for clients that know only the protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib.atproto.syntax import Did
from infra import provision
from infra.local import engines
from infra.local.engines import Endpoints
from simulator.cbor import Link
from simulator.repo import Write
from tests.conftest import ROOT, Stack
from tests.index.world import World

CAPTAIN, TAG = "io.atcr.hold.captain", "io.atcr.tag"
REPOS, TAGS = 7, 5


@dataclass(frozen=True)
class Running:
    """Where the service is, and what it has."""

    url: str
    dids: tuple[str, ...]
    """Those of which something is indexed; all but the last one are listed."""
    hosts: tuple[str, ...]


@pytest.fixture(scope="session")
def service(engine: Endpoints, _clients: dict[str, Any]) -> Iterator[Running]:
    """Nobody changes it: one for all clients."""
    made = provision.create(f"t-{uuid.uuid4().hex[:12]}", _clients["dynamodb"], _clients["sqs"])
    environment = engine.environment | {
        "DISCOVERY_TABLE_PREFIX": made.prefix,
        "DISCOVERY_QUEUE_URL": made.queue_url,
        "DISCOVERY_ALLOW_PRIVATE_HOSTS": "true",
    }
    stack = Stack(made.prefix, made.queue_url, made.queue_arn, made.dead_letter_url, engine, environment, **_clients)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        dids, hosts = _fill(stack)
    port = engines.free_port()
    command = [sys.executable, "-m", "infra.local.http", "--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DISCOVERY_"))}
    with subprocess.Popen(command, cwd=ROOT, env=inherited | environment) as process:
        try:
            engines.wait_for_port(port, process)
            yield Running(f"http://127.0.0.1:{port}", dids, hosts)
        finally:
            process.kill()


def _fill(stack: Stack) -> tuple[tuple[str, ...], tuple[str, ...]]:
    worlds = [World(stack, Did(f"did:plc:{letter * 24}"), feeds={CAPTAIN}) for letter in "abcdefg"[: REPOS - 2]]
    worlds += [
        World(stack, Did(did), feeds={CAPTAIN}) for did in ("did:web:hold01.atcr.io", "did:web:localhost%3A8080")
    ]
    for number, world in enumerate(worlds):
        world.repo.apply([_captain(world, number), *(_tag(world, tag) for tag in range(TAGS))])
        world.crawl()
    desynchronized, *_, taken_down = worlds
    desynchronized.writer.ask(desynchronized.did, desynchronized="gap")
    job = taken_down.writer.claim(taken_down.did, ask=True)
    assert job is not None
    taken_down.writer.land_status(job, active=False, status="takendown")
    hosts = {
        "hold01.atcr.io": {"status": "active", "cursor": 77, "repo_count": 1},
        "pds.example.com": {"status": "offline", "repo_count": REPOS - 1},
        "paused.example.com": {"status": "paused"},
        "banned.example.com": {"status": "banned"},
        "http://localhost:2583": {"status": "active"},
    }
    tables = taken_down.tables
    for at, (origin, row) in enumerate(hosts.items()):
        tables.hosts(origin, kind="pds", first_seen_at=at, **row).save()
    tables.hosts("new.example.com", kind="pds", first_seen_at=9, status="unconfirmed").save()  # which nobody is shown
    return tuple(world.did for world in worlds), tuple(origin.removeprefix("http://") for origin in hosts)


def _captain(world: World, number: int) -> Write:
    value = {
        "$type": CAPTAIN,
        "owner": world.did,
        "public": True,
        "region": "\N{EARTH GLOBE EUROPE-AFRICA} zürich",
        "deployedAt": "2026-01-01T00:00:00Z",
        "link": Link(world.repo.head.cid),
        "bytes": b"\x00\xff",
        "number": 2**53 - 1 - number,
        "nothing": None,
    }
    return world.repo.put(f"{CAPTAIN}/self", value)


def _tag(world: World, number: int) -> Write:
    return world.repo.put(f"{TAG}/v{number}", {"$type": TAG, "tag": f"v{number}", "of": [{"more": [number]}]})

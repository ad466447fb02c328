"""The parts of the service as processes of their own, to be killed, stopped and continued; and what the tables say of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chalicelib import settings
from chalicelib.atproto.syntax import Did, parse_origin
from chalicelib.crawl.admission import request_crawl
from chalicelib.crawl.context import Context
from chalicelib.index.tables import DUE_SHARD
from infra.local.engines import ROOT, child_command

SUBSCRIBER = ("subscriber",)
CONSUMER = ("infra.local.worker", "--pace", "120")
"""Consumers of the queue, and a sweep each half second."""
QUICK = {
    "CURSOR_SECONDS": "0.2",
    "DISCOVER_SECONDS": "0.1",
    "HEARTBEAT_SECONDS": "0.3",
    "LEASE_SECONDS": "3",
    "JOB_LEASE_SECONDS": "3",
    "RECONNECT_CAP_SECONDS": "0.5",
    "FAILURE_CAP_SECONDS": "2",
    "ANNOUNCE_SECONDS": "0",
    "LOG_FORMAT": "text",
    "STREAM_WORKERS": "6",
}
PATIENCE = float(os.environ.get("PATIENCE", "60"))


class Child:
    """One process. Its logs are in ``log``."""

    def __init__(self, module: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                child_command(*module), cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=out
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self, text: str) -> bool:
        """Whether its log has that text."""
        return text in self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()

    def terminate(self, within: float) -> float:
        """SIGTERM. Returns after how many seconds it has ended, in good order."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        assert self._process.wait(within) == 0
        return time.monotonic() - began


class Installation:
    """The tables and the queue of one test, and the processes at work on them."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._children: list[Child] = []
        self.context = Context(settings.read(environment))

    def start(self, module: tuple[str, ...], **variables: str) -> Child:
        """Start a part, with settings of its own given without their prefix."""
        environment = self._environment | {f"DISCOVERY_{name}": value for name, value in variables.items()}
        child = Child(module, environment, self._folder / f"{len(self._children)}-{module[0]}.log")
        self._children.append(child)
        return child

    def close(self) -> None:
        """End every process that was started, and show what they said (pytest shows it where the test failed)."""
        for child in self._children:
            child.kill()
            lines = child.log.read_text(errors="replace").splitlines()
            print(f"--- {child.log.name}, pid {child.pid}", *lines[-40:], sep="\n")

    def request_crawl(self, host: Any) -> None:
        """What a host's requestCrawl does."""
        request_crawl(self.context, host.hostname)

    # -- what the tables say

    def host(self, host: Any) -> Any:
        """The row of a simulated host."""
        return self.context.hosts.load(parse_origin(host.hostname, allow_private=True))

    def repo(self, did: str) -> Any:
        """The row of a repo."""
        return self.context.writer.load(Did(did))

    def listing(self, collection: str) -> set[str]:
        """The DIDs in a listing, of which none may stand there twice."""
        rows = self.context.tables.listings.query(collection, consistent_read=True)
        dids = [row.did or row.key.partition("#")[2] for row in rows]
        assert len(dids) == len(set(dids)), f"{collection} lists a DID twice: {dids}"
        return set(dids)

    def records(self, did: str) -> dict[str, Any]:
        """Path to value of what is indexed of a repo."""
        rows = self.context.tables.records.query(did, consistent_read=True)
        return {row.path: json.loads(row.value) for row in rows}

    def is_idle(self) -> bool:
        """Whether no repo is due, now or later."""
        return not list(self.context.tables.repos.due.query(DUE_SHARD))

    def differences(self, sim: Any) -> list[str]:
        """In what the index is not the truth."""
        found = []
        collections = set[str]()
        for did in sim.call(lambda: list(sim.net.homes)):
            truth = sim.call(sim.net.records, did)
            wanted = {path: record.value for path, record in truth.items() if path.startswith("io.atcr.")}
            collections |= {path.partition("/")[0] for path in wanted}
            indexed = self.records(did)
            if indexed != wanted:
                paths = sorted(path for path in indexed | wanted if indexed.get(path) != wanted.get(path))
                found.append(f"records of {did}: {paths[:5]} and so on, {len(paths)} in all")
        for collection in sorted(collections | {"io.atcr.hold.captain", "io.atcr.hold.stats", "io.atcr.tag"}):
            truth = set(sim.call(sim.net.truth, collection))
            if self.listing(collection) != truth:
                found.append(f"listing of {collection}: {self.listing(collection) ^ truth}")
        return found


def eventually(holds: Callable[[], Any], what: Callable[[], Any] | None = None, *, within: float = PATIENCE) -> None:
    """Wait until ``holds()`` is true."""
    until = time.monotonic() + within
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"it did not come about in {within:g} s; it is: {what() if what else 'otherwise'}")
        time.sleep(0.05)

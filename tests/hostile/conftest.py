"""A service beside a hostile host and a well-behaved hold, and a book of what the hostile one cost.

``HOSTILE_REPORT=docs/hostile-hosts.md python -m pytest -n0 tests/hostile`` writes the page of what was measured.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib import settings
from chalicelib.atproto.net import Door
from chalicelib.atproto.syntax import parse_origin
from chalicelib.crawl import admission, jobs
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import Queue
from chalicelib.index.tables import HostRow, RepoRow, Tables
from simulator import Host, SimulatorThread
from simulator.clock import Clock
from tests.oracle import engine
from tests.oracle.engine import PREFIX, Call, InProcess
from tests.service import HOLDS, QUICK, Following, eventually

JOBS = 300
"""After so many a case has no end."""
SMALL = {
    "JOB_SECONDS": "2",
    "MAX_REPO_BYTES": "1000000",
    "MAX_HOST_REPOS": "200",
    "MAX_HOST_PAGES": "20",
    "MAX_FRAME_BYTES": "100000",
    "FAILURE_CAP_SECONDS": "3600",
    "CRAWL_CONCURRENCY": "1",
    "CRAWL_RATE": "100000",
}
"""Bounds that a test can reach."""
_WRITES = {"PutItem": 1, "UpdateItem": 1, "DeleteItem": 1}


@dataclass(frozen=True)
class Cost:
    """What one hostile host cost."""

    requests: int
    bytes: int
    """What its server has sent, also what was still on its way when it was hung up on."""
    writes: int
    """Rows of DynamoDB."""


class Beside:
    """The service, the hostile host and the hold. ``settings``: those of a new installation, but for ``SMALL``."""

    def __init__(self, sim: SimulatorThread, tables: Tables, writes: list[int]) -> None:
        self.sim, self.call, self.net = sim, sim.call, sim.net
        self._tables, self._writes = tables, writes
        self.messages: list[str] = []
        self.cost_of_hold = 0
        self.door: Door | None = None
        self.hold: Host = self.call(self.net.add_hold(layers=3))
        self.host: Host = self.call(self.net.add_host())
        self.context = self.make()

    def make(self, **variables: str) -> Context:
        """A process with these settings."""
        given = (
            QUICK
            | SMALL
            | {"PLC_URL": self.net.plc.url, "TABLE_PREFIX": PREFIX, "ALLOW_PRIVATE_HOSTS": "true"}
            | variables
        )
        context = Context(settings.read({f"DISCOVERY_{name}": value for name, value in given.items()}))
        context.tables = self._tables
        context.queue = Queue(SimpleNamespace(send_message=self._send), "queue")
        if self.door is not None:
            context.door = self.door
        self.context = context
        return context

    def _send(self, *, QueueUrl: str, MessageBody: str, DelaySeconds: int = 0) -> None:
        if MessageBody not in self.messages:
            self.messages.append(MessageBody)

    # What happens

    def announce(self, hostname: str, address: str = "192.0.2.1") -> str:
        """What requestCrawl answers somebody at ``address``."""
        try:
            admission.request_crawl(self.context, hostname, address=address)
        except (admission.AdmissionRefused, ValueError) as refused:
            return str(refused)
        return "accepted"

    def crawl(self) -> None:
        """The hostile host and the hold announce themselves, and all jobs are done."""
        self.announce(self.host.hostname)
        self.served()

    def served(self) -> None:
        """The hold announces itself, and is listed when all jobs are done."""
        before = self._writes[0]
        assert self.announce(self.hold.hostname) == "accepted"
        self.cost_of_hold += self._writes[0] - before
        self.work()
        assert self.hold.did in self.listed()

    def work(self) -> None:
        """Do all jobs."""
        for _ in range(JOBS):
            if not self.messages:
                return
            body = self.messages.pop(0)
            before = self._writes[0]
            jobs.work(self.context, body)
            if self.hold.hostname in body or self.hold.did in body:
                self.cost_of_hold += self._writes[0] - before
        raise AssertionError(f"there is no end of jobs: {self.messages}")

    def follow(self) -> Following:
        """A subscriber follows both hosts."""
        following = Following(self.context)
        self.call(self.host.subscribed())
        self.call(self.hold.subscribed())
        return following

    def hear_the_hold(self) -> None:
        """A commit of the hold is applied."""
        commit = self.call(self.hold.put, self.hold.did, "io.atcr.hold.layer/fresh", {"$type": "io.atcr.hold.layer"})
        eventually(lambda: self.repo(self.hold.did).rev == commit.rev)

    # What came of it

    def listed(self, collection: str = HOLDS) -> set[str]:
        return {row["key"].partition("#")[2] for row in engine.rows("listings") if row["collection"] == collection}

    def row(self, host: Host | None = None) -> HostRow:
        row = self.context.hosts.load(parse_origin((host or self.host).hostname, allow_private=True))
        assert row is not None
        return row

    def repo(self, did: str) -> RepoRow:
        found = self.context.writer.load(did)  # type: ignore[arg-type]
        assert found is not None
        return found

    @property
    def cost(self) -> Cost:
        host = self.host
        return Cost(host.requests.total(), host.bytes_sent.total(), self._writes[0] - self.cost_of_hold)


@pytest.fixture(scope="session")
def _tables() -> Iterator[Tables]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("ACCESS_KEY_ID", "local"),
            ("SECRET_ACCESS_KEY", "local"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_REGION", "us-east-1")
        yield Tables(PREFIX)


@pytest.fixture
def beside(_tables: Tables) -> Iterator[Beside]:
    """The two hosts, known to nobody yet."""
    writes, lock = [0], threading.Lock()

    def gate(operation: str, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        with lock:
            if operation == "TransactWriteItems":
                writes[0] += sum("ConditionCheck" not in item for item in parameters["TransactItems"])
            writes[0] += _WRITES.get(operation, 0)
            return call(operation, parameters)

    with InProcess(gate), SimulatorThread(seed=1, clock=Clock.wall()) as sim:
        engine.empty_tables()
        yield Beside(sim, _tables, writes)


@pytest.fixture(scope="session")
def book() -> Iterator[Callable[[str, str, Cost], None]]:
    """Where a case's costs are entered: what it is, what it was refused with, what it cost."""
    entries: list[tuple[str, str, Cost]] = []

    def enter(case: str, refused: str, cost: Cost) -> None:
        assert case not in Counter(entry[0] for entry in entries)
        entries.append((case, refused, cost))

    yield enter
    if path := os.environ.get("HOSTILE_REPORT"):
        Path(path).write_text(_page(entries))


_HEAD = """# What a hostile host costs

Each is played by a simulated host beside a well-behaved hold, which is listed in the same run (`tests/hostile`). Bounds are
set low there; what counts is that no figure grows with what the host pretends to have. Bytes are what its server had sent
when it was hung up on, what was still on its way among them. Writes are rows of DynamoDB, from its announcement on.

This page is written by `HOSTILE_REPORT=docs/hostile-hosts.md python -m pytest -n0 tests/hostile`.

| case | refused with | requests | bytes | writes |
|---|---|---|---|---|
"""


def _page(entries: list[tuple[str, str, Cost]]) -> str:
    rows = [
        f"| {case} | {refused} | {cost.requests} | {_rounded(cost.bytes)} | {cost.writes} |"
        for case, refused, cost in entries
    ]
    return _HEAD + "\n".join(rows) + "\n"


def _rounded(size: int) -> str:
    for unit, scale in (("MB", 1_000_000), ("KB", 1_000)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return str(size)

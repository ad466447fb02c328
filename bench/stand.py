"""The whole service in one process beside a simulated neighbourhood, step by step: nothing runs that was not told to.

The Lambdas are their own handlers, called with a message or an event; the subscriber is a thread. Every request to DynamoDB
is counted where it leaves botocore, with the request units that the engine reports for it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import boto3
from botocore.client import BaseClient

from bench import gateway
from bench.following import PATIENCE, Following
from infra import provision
from infra.local import engines
from simulator.clock import Clock
from simulator.thread import SimulatorThread

READS = frozenset({"GetItem", "Query", "BatchGetItem", "Scan", "TransactGetItems"})


@dataclass
class Cost:
    """What something took of DynamoDB: request units, and requests by operation and table."""

    read_units: float = 0
    write_units: float = 0
    requests: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    """Requests that wrote, by table."""
    refused: int = 0
    """Requests whose condition did not hold; their units are not in the answer."""

    def add(self, operation: str, tables: list[str], units: float) -> None:
        reads = operation in READS
        self.read_units += units * reads
        self.write_units += units * (not reads)
        self.requests[operation] += 1
        if not reads:
            self.writes.update(tables)

    def subtract(self, other: Cost) -> None:
        """Leave out what is known to be something else's."""
        self.read_units -= other.read_units
        self.write_units -= other.write_units
        self.requests -= other.requests
        self.writes -= other.writes


class Meter:
    """Counts while ``counting``: what threads do whose name begins with one of ``threads``, or all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counting: list[tuple[Cost, Callable[[str], bool]]] = []
        self._inner = BaseClient._make_api_call
        self._unseen = threading.local()

    def install(self) -> None:
        meter = self

        def call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
            if client.meta.service_model.service_name != "dynamodb":
                return meter._inner(client, operation, parameters)
            if "ReturnConsumedCapacity" in client.meta.service_model.operation_model(operation).input_shape.members:
                parameters = {**parameters, "ReturnConsumedCapacity": "TOTAL"}
            try:
                answer = meter._inner(client, operation, parameters)
            except client.exceptions.ClientError:
                meter._count(lambda cost: setattr(cost, "refused", cost.refused + 1))
                raise
            used = answer.get("ConsumedCapacity", [])
            parts = used if isinstance(used, list) else [used]
            tables = [part["TableName"].rpartition("-")[2] for part in parts]
            units = sum(part["CapacityUnits"] for part in parts) + _left_out(operation, parameters, answer)
            meter._count(lambda cost: cost.add(operation, tables, units))
            return answer

        BaseClient._make_api_call = call  # type: ignore[method-assign]

    def remove(self) -> None:
        BaseClient._make_api_call = self._inner  # type: ignore[method-assign]

    @contextmanager
    def counting(self, wanted: Callable[[str], bool] = lambda thread: True) -> Iterator[Cost]:
        """Count what the threads do whose names are ``wanted``."""
        entry = (Cost(), wanted)
        with self._lock:
            self._counting.append(entry)
        try:
            yield entry[0]
        finally:
            with self._lock:
                self._counting.remove(entry)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What this thread does here is the bench's own business."""
        self._unseen.now = True
        try:
            yield
        finally:
            self._unseen.now = False

    def _count(self, note: Callable[[Cost], None]) -> None:
        name = threading.current_thread().name
        if getattr(self._unseen, "now", False):
            return
        with self._lock:
            for cost, wanted in self._counting:
                if wanted(name):
                    note(cost)


def _left_out(operation: str, parameters: dict[str, Any], answer: dict[str, Any]) -> float:
    """What AWS charges for looking at what is not there, and the local engine does not report."""
    if operation == "Query" and not answer["ScannedCount"]:
        return 1 if parameters.get("ConsistentRead") else 0.5
    if operation == "BatchGetItem":
        missing = 0.0
        for table, asked in parameters["RequestItems"].items():
            there = len(answer["Responses"].get(table, [])) + len(
                answer["UnprocessedKeys"].get(table, {}).get("Keys", [])
            )
            missing += (len(asked["Keys"]) - there) * (1 if asked.get("ConsistentRead") else 0.5)
        return missing
    return 0


def of_leases(thread: str) -> bool:
    """Threads of the subscriber that keep its leases and look for hosts, whatever happens."""
    return thread.startswith("leases")


def of_work(thread: str) -> bool:
    """All others."""
    return not of_leases(thread)


HIGH = dict.fromkeys(("MAX_ADDRESS_REQUESTS", "MAX_DOMAIN_HOSTS", "MAX_NEW_HOSTS", "MAX_UNREACHED_HOSTS"), "1000000")
"""Budgets that all hosts of a bench, which have one address and one domain, do not use up; what they cost is counted."""


class Stand:
    """A context manager. ``settings`` are the service's, without their prefix."""

    def __init__(self, engine: str = "dynamodb-local", **settings: str) -> None:
        self._engine = engine
        self._settings = settings
        self._parts = ExitStack()
        self._following: Following | None = None
        self.meter = Meter()

    def __enter__(self) -> Stand:
        with ExitStack() as parts:
            engine = parts.enter_context(engines.running(self._engine))
            session = boto3.Session("local", "local", region_name="us-east-1")
            self.dynamodb: Any = session.client("dynamodb", endpoint_url=engine.dynamodb)
            self._sqs: Any = session.client("sqs", endpoint_url=engine.sqs)
            self.prefix = f"bench-{os.getpid()}"
            made = provision.create(self.prefix, self.dynamodb, self._sqs)
            self._queue_url = made.queue_url
            self.sim = parts.enter_context(SimulatorThread(seed=1, clock=Clock.wall(), timeout=1200))
            own = {"TABLE_PREFIX": self.prefix, "QUEUE_URL": made.queue_url, "ALLOW_PRIVATE_HOSTS": "true",
                   "PLC_URL": self.sim.net.plc.url, "LOG_FORMAT": "text"}  # fmt: skip
            for name in [name for name in os.environ if name.startswith(("DISCOVERY_", "AWS_"))]:
                del os.environ[name]
            os.environ.update(engine.environment)
            os.environ.update({f"DISCOVERY_{name}": value for name, value in (own | HIGH | self._settings).items()})
            self._forget()
            parts.callback(self._forget)
            import app

            self.app: Any = app
            self.meter.install()
            parts.callback(self.meter.remove)
            parts.callback(self.unfollow)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    @staticmethod
    def _forget() -> None:
        from chalicelib import process, settings

        for cached in (settings.current, process.context, process.reader):
            cached.cache_clear()

    @property
    def context(self) -> Any:
        from chalicelib import process

        return process.context()

    # -- the Lambdas

    def call(self, method: str, name: str, body: Any = None, **query: str) -> Any:
        """An API call, through the handler that the gateway calls; its decoded body."""
        parameters = {key: [value] for key, value in query.items()}
        answer = self.app.app(gateway.event(method, f"com.atproto.sync.{name}", parameters, body), None)
        assert answer["statusCode"] == 200, answer
        return json.loads(answer["body"]) if answer["body"] else None

    def request_crawl(self, host: Any) -> None:
        self.call("POST", "requestCrawl", {"hostname": host.hostname})

    def listing(self, collection: str) -> list[str]:
        """The DIDs of a listing's first page."""
        return [repo["did"] for repo in self.call("GET", "listReposByCollection", collection=collection)["repos"]]

    def work(self) -> int:
        """Do what is in the queue, and what comes of it. Returns how many messages that were."""
        done = 0
        while messages := self._sqs.receive_message(QueueUrl=self._queue_url, WaitTimeSeconds=0).get("Messages"):
            for message in messages:
                self.app.crawl({"Records": [{"body": message["Body"], "receiptHandle": "", "attributes": {}}]}, None)
                self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
                done += 1
        return done

    def sweep(self) -> None:
        event = {"version": "0", "account": "", "region": "", "detail": {}, "detail-type": "", "source": "aws.events",
                 "time": "", "id": "", "resources": []}  # fmt: skip
        self.app.sweep(event, None)

    # -- the subscriber

    def follow(self) -> None:
        """Start a subscriber."""
        from chalicelib import settings
        from chalicelib.crawl.context import Context

        self._following = Following(Context(settings.current()))

    def unfollow(self) -> None:
        if self._following is not None:
            self._following.stop()
            self._following = None

    @property
    def _connections(self) -> Any:
        assert self._following is not None
        return self._following.supervisor._connections

    def row(self, host: Any) -> Any:
        """A host's row."""
        from chalicelib.atproto.syntax import parse_origin

        with self.meter.unseen():
            return self.context.hosts.load(parse_origin(host.hostname, allow_private=True))

    def settle(self, *hosts: Any) -> None:
        """Wait until the hosts are crawled behind their open streams and nothing waits, doing what the queue asks for."""
        for host in hosts:
            self.until(lambda host=host: self.is_settled(host))

    def is_settled(self, host: Any) -> bool:
        self.work()
        row = self.row(host)
        if row is None or not row.epoch > 0 or row.crawled_epoch != row.epoch or row.origin not in self._connections:
            return False
        assert self._following is not None
        supervisor = self._following.supervisor
        attended = supervisor._attention.get(row.origin, 0) >= row.attention_at and not supervisor._looking
        return bool(attended and self._connections[row.origin][0].is_open and self.is_quiet())

    def is_quiet(self) -> bool:
        """Whether no event waits in the subscriber, and all that was sent has been read."""
        assert self._following is not None
        return not self._following.supervisor._pipeline._lanes

    def wait_for(self, host: Any) -> None:
        """Wait until the subscriber has done all that a host's stream has said."""
        connection, _ = self._connections[self.row(host).origin]
        self.until(lambda: connection._tracker.durable == host.stream.seq)

    def save(self, host: Any) -> None:
        """Have the subscriber save a host's chains and cursor now."""
        connection, _ = self._connections[self.row(host).origin]
        assert self._following is not None
        self._following.run(connection.save())

    @staticmethod
    def until(holds: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise AssertionError("it did not come about")
            time.sleep(0.02)

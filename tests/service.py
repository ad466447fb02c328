"""The whole service in this process, on the tables and the queue of one test: the Lambdas' own handlers, a consumer of the queue,
the sweep, and a subscriber."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.following import PATIENCE, Following
from chalicelib import process, settings
from chalicelib.atproto.syntax import Did, parse_origin
from chalicelib.crawl.context import Context
from chalicelib.crawl.queue import HostJob

HOLDS = "io.atcr.hold.captain"


class Service:
    """What runs in production, driven as it is there."""

    def __init__(self, stack: Any) -> None:
        import app as entry_points

        self._app = entry_points
        self._stack = stack
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="service")
        self._parts = [self._pool.submit(self._consume) for _ in range(2)] + [self._pool.submit(self._sweep)]
        self._subscriber: Following | None = None

    @property
    def context(self) -> Context:
        return process.context()

    # -- parts

    def follow(self) -> None:
        """Start a subscriber."""
        assert self._subscriber is None
        self._subscriber = Following(Context(settings.current()))

    def unfollow(self) -> None:
        """Stop the subscriber, in good order."""
        if self._subscriber is not None:
            self._subscriber.stop()
            self._subscriber = None

    def stop(self) -> None:
        self.unfollow()
        self._stopping.set()
        for part in self._parts:
            part.result(PATIENCE)
        self._pool.shutdown()

    def _consume(self) -> None:
        url = self._stack.queue_url
        while not self._stopping.is_set():
            found = self._stack.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, AttributeNames=["All"])
            for message in found.get("Messages", []):
                self._app.crawl({"Records": [self._record(message)]}, None)
                self._stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": self._stack.queue_arn,
            "awsRegion": "us-east-1",
        }

    def _sweep(self) -> None:
        event = {"version": "0", "account": "", "region": "", "detail": {}, "detail-type": "", "source": "aws.events",
                 "time": "", "id": "", "resources": []}  # fmt: skip
        while not self._stopping.wait(0.5):
            self._app.sweep(event, None)

    # -- the API

    def call(
        self, method: str, path: str, query: dict[str, list[str]] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """Status and decoded body of an API call, through the handler that API Gateway calls."""
        event = {
            "httpMethod": method,
            "path": path,
            "resource": "/xrpc/{nsid}",
            "headers": {"content-type": "application/json"},
            "multiValueQueryStringParameters": query,
            "queryStringParameters": query and {name: values[-1] for name, values in query.items()},
            "pathParameters": {"nsid": path.removeprefix("/xrpc/")},
            "stageVariables": None,
            "isBase64Encoded": False,
            "body": None if body is None else json.dumps(body),
            "requestContext": {
                "httpMethod": method,
                "resourcePath": "/xrpc/{nsid}",
                "identity": {"sourceIp": "127.0.0.1"},
            },
        }
        answer = self._app.app(event, None)
        text = answer["body"]
        return answer["statusCode"], json.loads(text) if text else text

    def request_crawl(self, hostname: str) -> tuple[int, Any]:
        return self.call("POST", "/xrpc/com.atproto.sync.requestCrawl", body={"hostname": hostname})

    def listing(self, *collections: str, limit: int = 2000) -> list[str]:
        """All DIDs of a listing, page by page."""
        dids: list[str] = []
        query = {"collection": list(collections), "limit": [str(limit)]}
        while True:
            status, page = self.call("GET", "/xrpc/com.atproto.sync.listReposByCollection", query)
            assert status == 200, page
            dids += [repo["did"] for repo in page["repos"]]
            if "cursor" not in page:
                return dids
            query["cursor"] = [page["cursor"]]

    # -- what the tables say

    def row(self, did: str) -> Any:
        """The row of a repo."""
        return self.context.writer.load(Did(did))

    def host(self, host: Any) -> Any:
        """The row of a simulated host."""
        return self.context.hosts.load(parse_origin(host.hostname, allow_private=True))

    def follows(self, did: str) -> bool:
        """Whether the subscriber follows the repo's chain."""
        assert self._subscriber is not None
        return self._subscriber.supervisor._pipeline.concerns(did, b"")

    def outcomes(self) -> Counter[str]:
        """What the subscriber made of events so far."""
        assert self._subscriber is not None
        return self._subscriber.supervisor._pipeline.counts

    def events(self) -> int:
        """How many frames the subscriber has read."""
        assert self._subscriber is not None
        return sum(connection.events for connection, _ in self._subscriber.supervisor._connections.values())

    def is_quiet(self) -> bool:
        """Whether no event waits in the subscriber."""
        assert self._subscriber is not None
        return not self._subscriber.supervisor._pipeline._lanes

    def is_idle(self) -> bool:
        """Whether no repo is due."""
        repos = self.context.tables.repos
        return not list(repos.due.query("0"))

    def has_no_jobs(self) -> bool:
        """Whether every message of the queue has been worked on."""
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._stack.sqs.get_queue_attributes(QueueUrl=self._stack.queue_url, AttributeNames=counts)
        return not any(int(number) for number in found["Attributes"].values())

    def crawl_host(self, host: Any) -> None:
        """Put a job for a simulated host into the queue."""
        self.context.queue.send(HostJob(parse_origin(host.hostname, allow_private=True)))

    def records(self, did: str) -> dict[str, Any]:
        """Path to CID and value of what is indexed of a repo."""
        rows = self.context.tables.records.query(did, consistent_read=True)
        return {row.path: (row.cid, json.loads(row.value) if row.value else None) for row in rows}


QUICK = {
    "CURSOR_SECONDS": "0.2",
    "DISCOVER_SECONDS": "0.1",
    "HEARTBEAT_SECONDS": "0.5",
    "LEASE_SECONDS": "10",
    "RECONNECT_CAP_SECONDS": "0.5",
    "FAILURE_CAP_SECONDS": "2",
    "GONE_HOURS": "0",
    "ANNOUNCE_SECONDS": "0",
    "LOG_FORMAT": "text",
}
"""Settings under which what takes minutes takes moments."""


def forget_settings() -> None:
    """What this process knows of its settings is read anew."""
    for cached in (settings.current, process.context, process.reader):
        cached.cache_clear()


def eventually(holds: Callable[[], Any], what: Callable[[], Any] | None = None) -> None:
    """Wait until ``holds()`` is true."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"it did not come about; it is: {what() if what else 'otherwise'}")
        threading.Event().wait(0.03)

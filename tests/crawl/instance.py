"""A service that does what it is sent when it is told to, at a time that passes as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chalicelib.api.listing import decode_cursor, encode_cursor
from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.crawl import jobs
from chalicelib.crawl.context import Context
from chalicelib.crawl.directories import DIRECTORY
from chalicelib.crawl.sweep import sweep
from chalicelib.index.clock import now_ms
from chalicelib.index.reader import Reader
from simulator.scripted import Reply, Request, http

HOUR = 3600 * 1000


def origin_of(server: Any) -> Origin:
    """Of a simulated host, or of whatever else has a ``url``."""
    return parse_origin(server.url, allow_private=True)


class Instance:
    """The jobs and the sweep of one installation."""

    def __init__(self, context: Context, sqs: Any, queue_url: str) -> None:
        self._ahead = 0
        self.context = context
        self.context.clock = self.clock
        self._sqs = sqs
        self._queue_url = queue_url

    def clock(self) -> int:
        """The real time, and what was added to it."""
        return now_ms() + self._ahead

    def pass_hours(self, hours: float) -> None:
        self._ahead += int(hours * HOUR)

    def work(self) -> None:
        """Do all that is due, and all that comes of it."""
        sweep(self.context)
        while (bodies := self._messages()) or sweep(self.context):
            for body in bodies:
                jobs.work(self.context, body)

    def _messages(self) -> list[str]:
        found = self._sqs.receive_message(QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        for message in found.get("Messages", []):
            self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in found.get("Messages", [])]

    def listed(self, collection: str) -> set[str]:
        rows = self.context.tables.listings.query(collection, consistent_read=True)
        return {row.key.partition("#")[2] for row in rows}

    def progress(self, directory: Any) -> dict[str, Any]:
        """What is kept of a directory."""
        row = self.context.state.read(DIRECTORY, str(origin_of(directory)))
        assert row is not None
        return dict(row.content)

    def host(self, host: Any) -> Any:
        return self.context.hosts.load(origin_of(host))

    def answers(self, dynamodb: Any) -> Callable[[Request], Reply]:
        """For a ScriptedServer: its listReposByCollection, two DIDs a page."""
        return partial(_page, Reader(dynamodb, self.context.settings.table_prefix))


def _page(reader: Reader, request: Request) -> Reply:
    query = parse_qs(urlsplit(request.target).query)
    collections = query["collection"]
    after = decode_cursor(query["cursor"][0], collections) if "cursor" in query else {}
    page = reader.page(collections, limit=2, after=after)
    body: dict[str, Any] = {"repos": [{"did": did} for did in page.dids]}
    if page.next is not None:
        body["cursor"] = encode_cursor(page.next, collections)
    return http(200, json.dumps(body).encode(), content_type="application/json")

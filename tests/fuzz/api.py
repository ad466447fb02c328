"""The API as a target: the app as it is deployed, with stand-ins for its tables, its queue and the network."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from chalicelib import process, settings
from chalicelib.api import listing
from chalicelib.atproto.net import Response
from chalicelib.atproto.syntax import Origin, parse_did
from chalicelib.crawl import queue
from chalicelib.crawl.budgets import Budgets
from chalicelib.index.reader import Reader
from tests.api.conftest import Api
from tests.fuzz.mutations import changed_json, changed_text
from tests.fuzz.sound import CAPTAIN, CREW
from tests.fuzz.target import ACCEPTED, Target


def api() -> Target:
    """Requests to the API, through the app: every answer is a sound one or an XRPC error, and none is our own fault."""
    listed, crawl, health = (f"/xrpc/{name}" for name in (_LISTING, "com.atproto.sync.requestCrawl", "_health"))
    cursors = [listing.encode_cursor(dict.fromkeys(names, 5), names) for names in ([CAPTAIN], [CAPTAIN, CREW])]
    queries = [
        [["collection", CAPTAIN]],
        [["collection", CAPTAIN], ["limit", "2"]],
        [["collection", CAPTAIN], ["limit", "1"], ["cursor", cursors[0]]],
        [["collection", CREW], ["collection", CAPTAIN], ["cursor", cursors[1]], ["limit", "2000"]],
    ]
    texts = [
        *(
            "hold01.atcr.io",
            "https://hold01.atcr.io/",
            "xn--bcher-kva.de",
            "höld.example.org",
            "a.io:443",
            "known.atcr.io",
        ),
        *("127.0.0.1", "localhost:2583", "did:web:hold01.atcr.io"),
    ]
    seeds: list[dict[str, Any]] = [{"method": "GET", "path": listed, "query": query} for query in queries * 2]
    seeds += [{"method": "POST", "path": crawl, "body": json.dumps({"hostname": text})} for text in texts]
    seeds += [{"method": "POST", "path": crawl, "body": json.dumps({"hostname": texts[0]}), "headers": {"content-type": kind}}
              for kind in ("application/json", "application/json; charset=utf-8", "text/plain")]  # fmt: skip
    seeds += [
        {"method": "GET", "path": health},
        {"method": "OPTIONS", "path": listed},
        {"method": "GET", "path": "/xrpc/a.b.c"},
    ]

    def read(data: bytes) -> str:
        sent = json.loads(data)
        caller = _caller()
        event = caller.event(
            sent["method"], sent["path"], sent.get("query", ()), headers=sent.get("headers"), body=sent.get("body")
        )
        got = caller.app(event | {"isBase64Encoded": bool(sent.get("encoded"))}, None)
        status, text = got["statusCode"], got["body"]
        if status == 204 or (status == 200 and not text):
            return ACCEPTED
        answer = json.loads(text)
        if status == 200:
            assert sent["path"].rpartition("/")[2] == _LISTING  # by which the caller finds the route
            assert all(parse_did(repo["did"]) for repo in answer["repos"])
            return ACCEPTED
        assert status in ((503,) if sent["path"] == health and status > 500 else (400, 405, 415, 429, 501)), got
        assert answer["error"] != "InternalServerError"
        assert answer["message"]
        assert len(text) < 8_000
        return str(answer["error"])

    return Target("api", 10, [json.dumps(seed).encode() for seed in seeds], _changed_request, read, around=_alone)


MAX_BODY = 1_000_000
"""Characters of a body that are changed further: changes may double it each time."""
_LISTING = "com.atproto.sync.listReposByCollection"


def _changed_request(rng: random.Random, data: bytes) -> bytes:
    """A request with other texts in it. It stays a request: what comes through the gateway is one, and is Unicode."""
    request = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        pair = rng.choice(request.get("query") or [["collection", CAPTAIN]])
        match rng.randrange(10):
            case 0:
                request["method"] = rng.choice(("GET", "POST", "OPTIONS", "PUT", "HEAD", "get", ""))
            case 1:
                name = rng.choice(("content-type", "accept", "origin", "content-length", "x"))
                request["headers"] = {name: changed_text(rng, "application/json")}
            case 2:
                request["path"] = "/xrpc/" + changed_text(rng, _LISTING)
            case 3:
                request["encoded"] = True
                if rng.random() < 0.7:
                    body = _unicode(request.get("body") or "").encode()
                    request["body"] = base64.b64encode(body).decode()
            case 4 if "query" in request:
                request["query"] = [
                    *request["query"],
                    *[[pair[0], changed_text(rng, pair[1])]] * rng.choice((1, 1, 10)),
                ]
            case 5 if "query" in request:
                pair[0] = changed_text(rng, pair[0])
            case _ if "body" in request:
                text = (request["body"] or "")[:MAX_BODY]
                try:
                    request["body"] = changed_json(rng, text.encode(errors="replace")).decode(errors="replace")
                except (ValueError, RecursionError):
                    request["body"] = changed_text(rng, text)
            case _:
                pair[1] = changed_text(rng, pair[1])
    return _unicode(json.dumps(request, ensure_ascii=False)).encode()


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


class _Rows:
    """Answers of DynamoDB: some DIDs in each listing, and no state."""

    def query(self, *, ExpressionAttributeValues: Mapping[str, Mapping[str, str]], **_: object) -> dict[str, Any]:
        if ":c" not in ExpressionAttributeValues:
            return {"Items": []}
        after = ExpressionAttributeValues[":k"]["S"]
        assert len(after) == 16
        keys = [f"{n:016}#did:plc:{n}" for n in range(1, 12)]
        return {"Items": [{"key": {"S": key}} for key in keys if key >= after]}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        ((table, wanted),) = RequestItems.items()
        rows = [
            {"did": key["did"], "listed": {"S": json.dumps({CAPTAIN: key["did"]["S"][8:].zfill(16)})}}
            for key in wanted["Keys"]
        ]
        return {"Responses": {table: rows}}


class _Hosts:
    """One host is known, and all others are new."""

    def load(self, origin: Origin) -> Any:
        assert len(str(origin).encode("ascii")) <= 2048  # what a key of DynamoDB may have
        known = origin.hostname == "known.atcr.io"
        return SimpleNamespace(kind="pds", status="active", failures=0, repo_count=1) if known else None

    def announce(self, row: object, *, crawl: bool) -> bool:
        return crawl

    def admit(self, origin: Origin, *, confirmed: bool, error: str | None = None) -> None:
        assert (error is None) == confirmed
        (error or "").encode()


class _Counts:
    """Budgets of which one in five is used up."""

    def count(self, kind: str, id: str, *, most: int, window: int) -> float | None:
        assert len(f"{kind}{id}@1800000000".encode("ascii")) <= 1024  # what a sort key of DynamoDB may have
        return None if len(id) % 5 else 1.5


@contextmanager
def _alone() -> Iterator[None]:
    """The app as it is deployed, but with no tables, no queue and no network behind it."""
    door = SimpleNamespace(
        get=lambda url, **_: Response(
            url, *((200, None, b'{"did": "did:web:x.io"}') if len(url) % 2 else (502, 1.0, b"\xff"))
        )
    )
    now = settings.read({"DISCOVERY_REQUEST_RATE": "0"})
    context = SimpleNamespace(
        settings=now,
        hosts=_Hosts(),
        bans=SimpleNamespace(of=lambda origin: None),
        budgets=Budgets(_Counts(), now),  # type: ignore[arg-type]
        door=door,
        queue=SimpleNamespace(send=queue.to_body),
    )
    reader = Reader(_Rows(), "t")
    with (
        patch.object(settings, "current", lambda: now),
        patch.object(process, "reader", lambda: reader),
        patch.object(process, "context", lambda: context),
    ):
        yield


@cache
def _caller() -> Api:
    import app

    return Api(app.app, "t")

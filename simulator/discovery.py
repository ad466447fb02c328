"""A discovery service that has what it is told to have, for ScriptedServer: listings and hosts, page by page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .scripted import Reply, Request, http


class DiscoveryService:
    """``listings``: DIDs by collection, in their order; ``hosts``: objects as listHosts has them; ``files``: contents by path.

    ``reply``, while it is set, is what everything is answered with. ``crawls`` are the hostnames that requestCrawl brought.
    """

    def __init__(self, page: int = 2) -> None:
        self.page = page
        self.listings: dict[str, list[str]] = {}
        self.hosts: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.reply: Reply = b""
        self.crawls: list[str] = []

    def __call__(self, request: Request) -> Reply:
        if self.reply != b"":
            return self.reply
        url = urlsplit(request.target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        match url.path.removeprefix("/xrpc/com.atproto.sync."):
            case "listReposByCollection":
                repos = [{"did": did} for did in self.listings.get(query["collection"], [])]
                return self._page(request, "repos", repos, query)
            case "listHosts":
                return self._page(request, "hosts", self.hosts, query)
            case "requestCrawl":
                self.crawls.append(json.loads(request.body)["hostname"])
                return http()
            case path if path in self.files:
                return self._tagged(request, self.files[path])
        return refusal(404, "NotFound", "there is nothing here")

    def _page(self, request: Request, name: str, items: Sequence[Any], query: dict[str, str]) -> bytes:
        begin = int(query.get("cursor") or 0)
        end = begin + min(self.page, int(query["limit"]))
        body: dict[str, Any] = {name: items[begin:end]}
        if end < len(items):
            body["cursor"] = str(end)
        return self._tagged(request, json.dumps(body).encode())

    def _tagged(self, request: Request, body: bytes) -> bytes:
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return http(304, etag=etag)
        return http(200, body, etag=etag)


def refusal(status: int, error: str, message: str, **headers: str) -> bytes:
    """An XRPC error."""
    return http(status, json.dumps({"error": error, "message": message}).encode(), **headers)

"""A relay: it follows hosts, sends on what they say under seqs of its own, and lists who has records in a collection."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cbor2
from aiohttp import web

from . import frames
from .cbor import Link
from .faults import Reply
from .host import Host
from .server import Refused

BY_COLLECTION = "com.atproto.sync.listReposByCollection"


class Relay(Host):
    """``follow`` hosts, whose events come over at once. It is no PDS: it has no accounts, and no describeServer.

    ``edit`` changes a frame's body on its way, or drops it (None): how a relay lies. ``also`` are DIDs that it lists for a
    collection beside those that it has seen.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.edit: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda body: body
        self.also: dict[str, list[str]] = {}
        self._follows: list[Host] = []

    def follow(self, *hosts: Host) -> None:
        """Send on what these hosts say from now on."""
        for host in hosts:
            self._follows.append(host)
            host.stream.heard_by.append(self.hear)

    def hear(self, frame: bytes) -> None:
        """Send a host's frame on."""
        reading = io.BytesIO(frame)
        header, body = (cbor2.load(reading, tag_hook=lambda tag, _: Link(tag.value[1:])) for _ in ("header", "body"))
        told = self.edit(body)
        if told is not None and header["op"] == 1 and "seq" in told:
            self.stream.emit(lambda seq, time: frames.message(header["t"], {**told, "seq": seq}))

    def answer(self, endpoint: str, request: web.BaseRequest) -> Reply:
        query = request.query
        if endpoint != BY_COLLECTION:
            raise Refused(404, "MethodNotImplemented", f"a relay has no {endpoint}")
        dids = self._listed(query.get("collection", ""))
        start = int(query.get("cursor") or 0)
        end = start + self._limit(query.get("limit"), 500, 2000)
        page: dict[str, Any] = {"repos": [{"did": did} for did in dids[start:end]]}
        return Reply.of(page if end >= len(dids) else {**page, "cursor": str(end)})

    def _listed(self, collection: str) -> list[str]:
        return [
            *(
                did
                for host in self._follows
                for did, account in host.accounts.items()
                if next(account.repo.paths(collection), None)
            ),
            *self.also.get(collection, ()),
        ]

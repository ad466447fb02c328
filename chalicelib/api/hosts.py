"""com.atproto.sync.listHosts and getHostStatus: the hosts that are crawled and followed here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from chalice.app import Request, Response

from chalicelib import process, settings
from chalicelib.api import cursor as cursors
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.syntax import Origin, parse_origin

MAX_LIMIT = 1000
DEFAULT_LIMIT = 200

_SCOPE = "listHosts"
_STATUS = {"paused": "idle"}
"""What the lexicon calls it; the others have its names."""


def list_hosts(request: Request) -> Response:
    """A page of hosts, first seen first; those that were announced and never reached are not among them. Raises
    ``XrpcFailure``: ``InvalidRequest``."""
    parameters = Parameters(request)
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    cursor = parameters.one("cursor")
    after = cursors.decode(_SCOPE, cursor, str, int, str) if cursor else None
    rows, following = process.reader().hosts(after=after, limit=limit)
    body: dict[str, object] = {"hosts": [_host(row) for row in rows if row["status"] != "unconfirmed"]}
    if following is not None:
        body["cursor"] = cursors.encode(_SCOPE, following)
    return xrpc.answer(body)


def get_host_status(request: Request) -> Response:
    """What is known of one host. Raises ``XrpcFailure``: ``InvalidRequest``, ``HostNotFound``."""
    public = partial(parse_origin, allow_private=settings.current().allow_private_hosts)
    origin = Parameters(request).parsed("hostname", public, "hold01.atcr.io")
    row = process.reader().host(str(origin))
    if row is None or row["status"] == "unconfirmed":
        raise XrpcFailure(400, "HostNotFound", f"{origin} is not crawled or followed here; it has to call requestCrawl")
    return xrpc.answer(_host(row))


def _host(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "hostname": Origin.parse_key(row["origin"]).authority,
        "seq": row.get("cursor"),
        "accountCount": row.get("repo_count"),
        "status": _STATUS.get(row["status"], row["status"]),
    }
    return {name: value for name, value in found.items() if value is not None}

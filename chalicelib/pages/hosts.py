"""The hosts that are crawled and followed here: all of them, and each on a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from chalice.app import Request

from chalicelib import process, settings
from chalicelib.api import cursor as cursors
from chalicelib.api import xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import Origin, parse_origin
from chalicelib.index.reader import Reader
from chalicelib.index.rows import Row
from chalicelib.pages.frame import Page, Site
from chalicelib.pages.markup import Html, joined, outside, theirs
from chalicelib.pages.parts import (
    alive,
    host_link,
    last_seen,
    moment,
    nothing_yet,
    onward,
    pairs,
    section,
    state,
    table,
)

ON_A_PAGE = 50
MAX_NAME = 60
MAX_ERROR = 300

_SCOPE = "hosts page"


def hosts(request: Request, site: Site) -> Page:
    """A page of hosts. Raises ``XrpcFailure``."""
    cursor = Parameters(request).one("cursor")
    after = cursors.decode(_SCOPE, cursor, str, int, str) if cursor else None
    reader = process.reader()
    rows, following = reader.hosts(after=after, limit=ON_A_PAGE)
    more = ""
    if following is not None:
        more = f"{site.place('hosts')}?{urlencode({'cursor': cursors.encode(_SCOPE, following)})}"
    return Page("Hosts", joined(hosts_table(reader, site, rows), onward(more, "More hosts") if more else None), "hosts")


def hosts_table(reader: Reader, site: Site, rows: Sequence[Row]) -> Html:
    """These hosts, but for those that were announced and never reached: anybody may have made up their names."""
    subscribers = alive(reader)
    shown = [
        (
            host_link(site, row["origin"], MAX_NAME),
            state(row["status"]),
            f"{row['repo_count']:,}" if "repo_count" in row else None,
            last_seen(row, subscribers),
        )
        for row in rows
        if row["status"] != "unconfirmed"
    ]
    if not shown:
        return nothing_yet("No host has been reached yet.")
    return table("Hosts that are crawled and followed", ("Host", "Status", "Repos", "Last seen"), shown)


def host(request: Request, site: Site, name: str) -> Page:
    """What is known of one host. Raises ``XrpcFailure``."""
    row = find(name)
    if row is None:
        raise XrpcFailure(
            404, "HostNotFound", f"No host {xrpc.shown(name)} is followed here. It has to call requestCrawl."
        )
    origin = Origin.parse_key(row["origin"])
    told = pairs(
        {
            "Status": state(row["status"]),
            "Address": outside(origin.url, theirs(origin.url, MAX_NAME)),
            "Repos": f"{row['repo_count']:,}" if "repo_count" in row else None,
            "First seen": moment(row["first_seen_at"]),
            "Last seen": last_seen(row, alive(process.reader())),
            "Announced": moment(row.get("announced_at")),
            "Crawled": moment(row.get("crawled_at")),
            "Stream": _stream(row),
            "Stream opened": moment(row.get("connected_at")),
        }
    )
    return Page(row["origin"], joined(told, _failures(row)), "hosts")


def find(name: str) -> Row | None:
    """The row of a host by its name, if there is one and it was ever reached."""
    try:
        origin = parse_origin(name, allow_private=settings.current().allow_private_hosts)
    except InvalidSyntax:
        return None
    row = process.reader().host(str(origin))
    return None if row is None or row["status"] == "unconfirmed" else row


def _stream(row: Mapping[str, Any]) -> Html | str:
    if "owner" not in row:
        return "not followed: nothing of it is in scope, or it is stopped"
    if "stream_error" in row:
        return theirs(row["stream_error"], MAX_ERROR)
    return "followed" if "connected_at" in row else "to be opened"


def _failures(row: Mapping[str, Any]) -> Html | None:
    if "last_error" not in row:
        return None
    told = {
        "What": theirs(row["last_error"], MAX_ERROR),
        "When": moment(row.get("last_error_at")),
        "In a row": str(row.get("failures", 0)),
        "Next attempt": moment(row.get("due_at")),
    }
    return section("Last failure", pairs(told))

"""Repos: those that are listed in a collection, and each on a page of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode

from chalice.app import Request

from chalicelib import process, settings
from chalicelib.api import listing, xrpc
from chalicelib.api import repos as known
from chalicelib.api.holds import CAPTAIN
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.errors import InvalidSyntax
from chalicelib.atproto.syntax import canonical_did, parse_did, parse_nsid
from chalicelib.index.reader import Entry, Reader
from chalicelib.pages.frame import Page, Site
from chalicelib.pages.holds import PATH, Captain, holds
from chalicelib.pages.markup import Content, Html, element, joined, theirs
from chalicelib.pages.parts import (
    alive,
    code,
    host_link,
    last_seen,
    moment,
    nothing_yet,
    onward,
    pairs,
    repo_link,
    section,
    state,
    table,
)

ON_A_PAGE = 25
MAX_NAME = 60
MAX_FIELD = 40
MAX_ERROR = 300
MAX_COLLECTIONS = 50
_LAST = 10**16 - 2
"""The last position that a listing can have."""


# -- a collection


def collection(request: Request, site: Site, nsid: str) -> Page:
    """A page of those that are listed in a collection. Raises ``XrpcFailure``."""
    try:
        name = listing.indexed(parse_nsid(nsid))
    except InvalidSyntax:
        raise XrpcFailure(404, "CollectionNotIndexed", f"{xrpc.shown(nsid)} is no name of a collection.") from None
    after = Parameters(request).integer("after", 0, _LAST, default=0)
    reader = process.reader()
    entries, more = reader.entries(name, after=after, limit=ON_A_PAGE)
    place = f"{site.place('collections', name)}?{urlencode({'after': entries[-1].first_seen})}" if more else ""
    whole = settings.current().answered.wants(name)
    content = joined(
        None
        if whole
        else element("p", "Indexed, but others may have records of it that are not known here.", class_="note"),
        holds_table(reader, site, entries) if name == CAPTAIN else _repos_table(site, entries),
        onward(place, "More") if more else None,
    )
    return Page(name, content)


def holds_table(reader: Reader, site: Site, entries: Sequence[Entry]) -> Html:
    """These entries of the listing of captains, with what the captains say."""
    if not entries:
        return nothing_yet("No hold is listed yet.")
    subscribers = alive(reader)
    rows = (
        (
            repo_link(site, hold.entry.verbatim, MAX_NAME),
            _field(hold.captain.region),
            _field(hold.captain.provider),
            _access(hold.captain),
            last_seen(hold.host, subscribers),
        )
        for hold in holds(reader, entries)
    )
    return table(
        "Holds, in the order in which they were listed", ("Hold", "Region", "Provider", "Access", "Last seen"), rows
    )


def _repos_table(site: Site, entries: Iterable[Entry]) -> Html:
    rows = [(repo_link(site, entry.verbatim, MAX_NAME), moment(entry.first_seen / 1000)) for entry in entries]
    if not rows:
        return nothing_yet("Nobody is listed yet.")
    return table("Repos, in the order in which they were listed", ("Repo", "Listed"), rows)


# -- a repo


def repo(request: Request, site: Site, name: str) -> Page:
    """What is known of a repo, and why it is as it is. Raises ``XrpcFailure``."""
    try:
        did = canonical_did(parse_did(unquote(name)))  # a gateway may have decoded it or not: a DID's port says %3A
    except InvalidSyntax:
        raise XrpcFailure(404, "RepoNotFound", f"{xrpc.shown(name)} is no DID.") from None
    found = known.status_here(did)
    told = pairs(
        {
            "Account": state("active" if found["active"] else found.get("status", "inactive")),
            "Index": state(found["sync"]),
            "Why": _field(found.get("reason"), MAX_ERROR),
            "Host": host_link(site, found["host"], MAX_NAME) if "host" in found else None,
            "Revision": code(found["rev"]) if "rev" in found else None,
            "Crawled": _when(found.get("crawledAt")),
            "Next attempt": _when(found.get("nextAttemptAt")),
        }
    )
    row = process.reader().record(did, PATH) if found["active"] else None
    same = f"{site.place('xrpc', 'io.atcr.discovery.getRepoStatus')}?{urlencode({'did': found['did']})}"
    content = joined(
        told,
        _failure(found),
        _hold(site, Captain.of(row)) if row else None,
        _records(site, found),
        onward(same, "The same as JSON"),
    )
    return Page(found["did"], content)


def _failure(found: Mapping[str, Any]) -> Html | None:
    if "lastError" not in found:
        return None
    told = {"What": theirs(found["lastError"], MAX_ERROR), "When": _when(found.get("lastErrorAt"))}
    return section("Last failure", pairs(told))


def _hold(site: Site, captain: Captain) -> Html:
    told = {
        "Region": _field(captain.region),
        "Provider": _field(captain.provider),
        "Access": _access(captain),
        "Owner": _owner(site, captain.owner),
        "Deployed": _field(captain.deployed_at),
    }
    return section("Hold", pairs(told), note="What its captain record says.")


def _records(site: Site, found: Mapping[str, Any]) -> Html:
    counts = found["collections"]
    if not counts:
        return section("Records", nothing_yet("Nothing of it is indexed."))
    rows = [
        (site.link("collections", each["name"], theirs(each["name"], MAX_NAME)), f"{each['records']:,}")
        for each in counts[:MAX_COLLECTIONS]
    ]
    return section("Records", table("Records that are indexed, by collection", ("Collection", "Records"), rows))


# -- what strangers wrote


def _field(text: str | None, most: int = MAX_FIELD) -> Content:
    return None if text is None else theirs(text, most)


def _access(captain: Captain) -> Content:
    return None if captain.public is None else state("public" if captain.public else "private")


def _owner(site: Site, owner: str | None) -> Content:
    if owner is None:
        return None
    try:
        return repo_link(site, parse_did(owner), MAX_NAME)
    except InvalidSyntax:
        return _field(owner)


def _when(text: str | None) -> Content:
    return None if text is None else moment(datetime.fromisoformat(text).timestamp() * 1000)

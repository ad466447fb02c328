"""Records from the index: com.atproto.repo.getRecord, listRecords and describeRepo, for the collections that are indexed; and
io.atcr.discovery.listRecords, which gives those of all repos, and what changed since."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chalice.app import Request, Response

from chalicelib import process, settings
from chalicelib.api import cursor as cursors
from chalicelib.api import listing, repos, xrpc
from chalicelib.api.xrpc import Parameters, XrpcFailure
from chalicelib.atproto.syntax import Origin, parse_nsid, parse_record_key
from chalicelib.index.reader import Entry
from chalicelib.index.rows import Row
from chalicelib.index.state import IDENTITY, feed_of

MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_RECORDS = 1000
"""Records in a page of io.atcr.discovery.listRecords, and of one repo in a page of changes."""
DEFAULT_RECORDS = 100
MAX_BYTES = 3_000_000
"""Of the records in one page, about. Lambda's answers have 6 MB at most."""
SINCE_DAYS = 29
"""A ``since`` may be so old. Who has left a listing is remembered a day longer."""

_AT_ONCE = 8
"""Repos that are read at a time."""
_DAY = 86_400
"""Seconds."""


# -- one repo


def get_record(request: Request) -> Response:
    """A record as it is indexed. Raises ``XrpcFailure``: ``InvalidRequest``, ``CollectionNotIndexed``, ``RecordNotFound``, and
    those of getLatestCommit."""
    parameters = Parameters(request)
    collection, cid = _indexed(parameters), parameters.one("cid")
    rkey = parameters.parsed("rkey", parse_record_key, "self")
    repo = repos.public(repos.did_of(request, "repo"))
    row = process.reader().record(repo["did"], f"{collection}/{rkey}")
    if row is None or (cid is not None and cid != row["cid"]):
        raise XrpcFailure(400, "RecordNotFound", "there is no such record in what is indexed of this repo")
    return xrpc.answer(_bare(repo, row))


def list_records(request: Request) -> Response:
    """The records of a repo in one collection, in the order of their keys. Raises ``XrpcFailure``: ``InvalidRequest``,
    ``CollectionNotIndexed``, and those of getLatestCommit."""
    parameters = Parameters(request)
    collection = _indexed(parameters)
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    backwards, cursor = parameters.boolean("reverse"), parameters.one("cursor")
    repo = repos.public(repos.did_of(request, "repo"))
    scope = f"repo.listRecords {repo['did']} {collection}"
    (after,) = cursors.decode(scope, cursor, str) if cursor else (None,)
    rows = process.reader().records(repo["did"], collection, limit=limit + 1, after=after, backwards=backwards)
    page = list(_within_bytes(rows[:limit]))
    body: dict[str, Any] = {"records": [_bare(repo, row) for row in page]}
    if len(page) < len(rows):
        body["cursor"] = cursors.encode(scope, [_rkey(page[-1])])
    return xrpc.answer(body)


def describe_repo(request: Request) -> Response:
    """What is known of a repo without asking anyone: which indexed collections it has; its DID document as far as it is
    kept; its handle, which nobody checks here. Raises ``XrpcFailure``: ``InvalidRequest``, and those of getLatestCommit."""
    repo = repos.public(repos.did_of(request, "repo"))
    identity = process.reader().state_of(IDENTITY, repo["did"]) or {
        "key": None,
        "pds": repo.get("host"),
        "handle": None,
    }
    return xrpc.answer(
        {
            "handle": identity["handle"] or "handle.invalid",
            "did": repos.name_of(repo),
            "didDoc": _document(repos.name_of(repo), identity),
            "collections": sorted(repo["collections"]),
            "handleIsCorrect": False,
        }
    )


def _document(did: str, identity: Row) -> dict[str, Any]:
    """As much of a DID document as is kept."""
    document: dict[str, Any] = {"@context": ["https://www.w3.org/ns/did/v1"], "id": did}
    if identity["handle"]:
        document["alsoKnownAs"] = [f"at://{identity['handle']}"]
    if identity["key"]:
        document["verificationMethod"] = [
            {"id": f"{did}#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": identity["key"]}
        ]
    if identity["pds"]:
        url = Origin.parse_key(identity["pds"]).url
        document["service"] = [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": url}]
    return document


# -- all repos


def list_all(request: Request) -> Response:
    """io.atcr.discovery.listRecords: the records of everyone in a collection, in the order of the listing; or with ``since``,
    of those repos that changed. Raises ``XrpcFailure``: ``InvalidRequest``, ``CollectionNotIndexed``,
    ``CollectionIncomplete``, ``ChangesNotKept``, ``SinceTooOld``."""
    parameters = Parameters(request)
    collection = listing.answered(parameters.parsed("collection", parse_nsid, "io.atcr.hold.captain"))
    limit = parameters.integer("limit", 1, MAX_RECORDS, default=DEFAULT_RECORDS)
    since, cursor = parameters.one("since"), parameters.one("cursor")
    if since and cursor:
        raise xrpc.invalid_request("give a cursor or a since, not both")
    return xrpc.answer(_changed(collection, since, limit) if since else _all(collection, cursor, limit))


def _all(collection: str, cursor: str | None, limit: int) -> dict[str, Any]:
    """A page of all records. ``since`` is from when the first page was asked for: what changes while the pages are read is
    told by it."""
    reader, scope = process.reader(), f"discovery.listRecords {collection}"
    if cursor:
        head, asked_at, position, after = cursors.decode(scope, cursor, int, int, int, str)
    else:
        head, asked_at, position, after = reader.head(collection), int(time.time()), 0, ""
    records, size, more = list[dict[str, Any]](), 0, True
    while more:
        # The repo at ``position`` was not shown whole, where ``after`` says up to which record it was.
        entries, more = reader.entries(collection, after=position - bool(after), limit=_AT_ONCE)
        starts = [after if entry.first_seen == position else "" for entry in entries]
        for entry, rows in _read(collection, entries, starts, limit + 1):
            for row in rows:
                if len(records) == limit or size > MAX_BYTES:
                    following = cursors.encode(scope, [head, asked_at, position, after])
                    return {"records": records, "cursor": following} | _since(collection, head, asked_at)
                records.append(_full(entry.verbatim, row))
                size += len(row.get("value", ""))
                position, after = entry.first_seen, _rkey(row)
            position, after = entry.first_seen, ""
    return {"records": records} | _since(collection, head, asked_at)


def _changed(collection: str, since: str, limit: int) -> dict[str, Any]:
    """The repos whose records changed, each once, with all records that it has now: none, if it has left the listing."""
    if collection not in settings.current().changes:
        kept = ", ".join(sorted(settings.current().changes)) or "none"
        raise XrpcFailure(400, "ChangesNotKept", f"changes of {collection} are not kept here; kept: {kept}")
    position, asked_at = cursors.decode(f"since {collection}", since, int, int)
    now = int(time.time())
    if now - asked_at > SINCE_DAYS * _DAY:
        raise XrpcFailure(400, "SinceTooOld", f"this since is older than {SINCE_DAYS} days: begin again without one")
    reader = process.reader()
    head = reader.head(collection)
    records, changed, size, more = list[dict[str, Any]](), list[dict[str, Any]](), 0, True
    while more and len(changed) < limit and len(records) < limit and size <= MAX_BYTES:
        entries, more = reader.entries(feed_of(collection), after=position, limit=min(_AT_ONCE, limit - len(changed)))
        rows_of = reader.repos([entry.did for entry in entries], "listed")
        there = [entry for entry in entries if collection in rows_of.get(entry.did, {}).get("listed", {})]
        found = dict(_read(collection, there, [""] * len(there), MAX_RECORDS + 1))
        for entry in entries:
            rows = list(_within_bytes(found.get(entry, [])[:MAX_RECORDS]))
            records += [_full(entry.verbatim, row) for row in rows]
            changed.append({"did": entry.verbatim, "complete": len(rows) == len(found.get(entry, []))})
            size += sum(len(row.get("value", "")) for row in rows)
            position = entry.first_seen
            if size > MAX_BYTES:
                more = more or entry is not entries[-1]
                break
    if not more:
        position, asked_at = max(position, head), now
    return {"records": records, "repos": changed, "more": more} | _since(collection, position, asked_at)


def _since(collection: str, position: int, asked_at: int) -> dict[str, str]:
    """Where to ask from the next time. ``asked_at``: all that had left by then is known to who has it, UTC seconds."""
    if collection not in settings.current().changes:
        return {}
    return {"since": cursors.encode(f"since {collection}", [position, asked_at])}


def _read(
    collection: str, entries: Sequence[Entry], starts: Sequence[str], limit: int
) -> Iterator[tuple[Entry, list[Row]]]:
    """The first records of each of these repos, after the key in ``starts``."""
    reader = process.reader()

    def records(entry: Entry, after: str) -> list[Row]:
        return reader.records(entry.did, collection, limit=limit, after=after or None)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from zip(entries, pool.map(records, entries, starts), strict=True)


# -- parts


def _indexed(parameters: Parameters) -> str:
    collection = parameters.parsed("collection", parse_nsid, "io.atcr.hold.captain")
    return listing.indexed(collection)


def _within_bytes(rows: Sequence[Row]) -> Iterator[Row]:
    """As many as fit into a page, one at least."""
    size = 0
    for row in rows:
        if size > MAX_BYTES:
            return
        size += len(row.get("value", ""))
        yield row


def _rkey(row: Row) -> str:
    return str(row["path"].partition("/")[2])


def _bare(repo: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """A record as com.atproto.repo has it. One whose value is not usable is shown as an empty object that says why."""
    value = json.loads(row["value"]) if "value" in row else {"$problem": row["problem"]}
    return {"uri": f"at://{repos.name_of(repo)}/{row['path']}", "cid": row["cid"], "value": value}


def _full(did: str, row: Row) -> dict[str, Any]:
    found = {
        "uri": f"at://{did}/{row['path']}",
        "cid": row["cid"],
        "did": did,
        "rev": row["rev"],
        "indexedAt": repos.datetime_of(row["indexed_at"]),
    }
    return found | ({"value": json.loads(row["value"])} if "value" in row else {"problem": row["problem"]})

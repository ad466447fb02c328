"""GET /v1/listCollections, in the form in which collectiondir answers it: how many repos have records in each collection."""

from __future__ import annotations

from chalice.app import Request, Response

from chalicelib import process
from chalicelib.api import xrpc
from chalicelib.api.repos import datetime_of
from chalicelib.api.xrpc import Parameters
from chalicelib.index.clock import now_ms
from chalicelib.index.statistics import COLLECTIONS, STATISTICS, Statistics

MAX_LIMIT = 1000
DEFAULT_LIMIT = 500
COUNTED_NOW = 500
"""Up to so many repos are counted when somebody asks; the survey counts more."""
MAX_ASKED = 50


def list_collections(request: Request) -> Response:
    """``collections``: the number of repos by collection, in the order of their names, or only of those that ``c`` names;
    ``records``: that of their records. Raises ``XrpcFailure``: ``InvalidRequest``."""
    parameters = Parameters(request)
    limit = parameters.integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)
    only, cursor = parameters.many("c", most=MAX_ASKED), parameters.one("cursor") or ""
    found = statistics()
    names = sorted(name for name in found.repos if (name in only if only else name > cursor))
    page = names if only else names[:limit]
    return xrpc.answer(
        {
            "collections": {name: found.repos[name] for name in page},
            "records": {name: found.records[name] for name in page},
            "countedAt": datetime_of(found.counted_at),
            "cursor": page[-1] if len(page) < len(names) else "",
        }
    )


def statistics() -> Statistics:
    """The last count; one of now, while there are few repos."""
    reader = process.reader()
    dids = reader.in_scope(after=" ", limit=COUNTED_NOW + 1)
    if len(dids) > COUNTED_NOW:
        content = reader.state_of(STATISTICS, COLLECTIONS)
        return Statistics(now_ms()) if content is None else Statistics.of(content)
    found = Statistics(now_ms())
    for row in reader.repos(dids, "listed", "collections").values():
        found.add(row["listed"], row["collections"])
    return found

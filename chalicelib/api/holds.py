"""GET /.well-known/holds.json: all holds in one document, for clients that want nothing more (docs/holds.schema.json)."""

from __future__ import annotations

import json
import time
from typing import Any

from chalice.app import Request, Response

from chalicelib import process, settings
from chalicelib.api import xrpc
from chalicelib.api.repos import datetime_of
from chalicelib.api.xrpc import XrpcFailure
from chalicelib.atproto.scope import Scope
from chalicelib.atproto.syntax import Origin
from chalicelib.index.reader import Reader

CAPTAIN = "io.atcr.hold.captain"
RKEY = "self"
FRESH_SECONDS = 300
"""How long the document may be kept; ``generatedAt`` is a multiple of it, so that it is the same as long as the holds are."""
MAX_BYTES = 5_000_000
"""Lambda's answers have 6 MB at most. A longer document goes without the records."""
MAX_HOLDS = 50_000

_PAGE = 500


def holds_json(request: Request) -> Response:
    """The document. Raises ``XrpcFailure``: ``TooManyHolds``, ``CollectionNotIndexed``."""
    response = xrpc.answer(document(process.reader(), settings.current().answered, time.time()))
    response.headers["Cache-Control"] = f"public, max-age={FRESH_SECONDS}"
    return response


def document(reader: Reader, answered: Scope, now: float) -> dict[str, Any]:
    """All holds that are listed, if their collection is ``answered``; ``now`` in seconds since 1970. Raises ``XrpcFailure`` where
    they are too many for one document."""
    if not answered.wants(CAPTAIN):
        raise XrpcFailure(400, "CollectionNotIndexed", f"{CAPTAIN} is not indexed here, or not completely")
    holds, position, more = list[dict[str, Any]](), 0, True
    while more:
        entries, more = reader.entries(CAPTAIN, after=position, limit=_PAGE)
        repos = reader.repos((entry.did for entry in entries), "host")
        records = reader.records_at((entry.did for entry in entries), f"{CAPTAIN}/{RKEY}")
        for entry in entries:
            position, record, host = entry.first_seen, records.get(entry.did, {}), repos.get(entry.did, {}).get("host")
            found = {
                "did": entry.verbatim,
                "host": Origin.parse_key(host).authority if host else None,
                "record": json.loads(record["value"]) if "value" in record else None,
                "cid": record.get("cid"),
                "rev": record.get("rev"),
                "indexedAt": datetime_of(record.get("indexed_at")),
            }
            holds.append({name: value for name, value in found.items() if value is not None})
        if len(holds) > MAX_HOLDS:
            raise XrpcFailure(
                503, "TooManyHolds", f"there are more than {MAX_HOLDS}: page through listReposByCollection"
            )
    if len(json.dumps(holds)) > MAX_BYTES:
        holds = [{name: hold[name] for name in ("did", "host") if name in hold} for hold in holds]
    generated_at = datetime_of(int(now // FRESH_SECONDS * FRESH_SECONDS * 1000))
    return {"version": 1, "generatedAt": generated_at, "holds": holds}

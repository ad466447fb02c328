"""What the index must say, from the simulator; and what it says, from the tables themselves. Nothing here comes from the code
that writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from simulator.cbor import cid_text
from simulator.host import UNLISTED
from simulator.neighbourhood import Neighbourhood
from tests.oracle import engine


def is_wanted(path: str) -> bool:
    return path.startswith("io.atcr.") and "/" in path


def differences(net: Neighbourhood) -> list[str]:
    """Where the index is not the truth; empty if it is."""
    found = list(inconsistencies())
    repos = {row["did"]: row for row in engine.rows("repos")}
    records: dict[str, dict[str, str]] = {}
    for row in engine.rows("records"):
        records.setdefault(row["did"], {})[row["path"]] = row["cid"]
    listed = {(row["collection"], row["key"].partition("#")[2]) for row in engine.rows("listings")}
    expected_listings: set[tuple[str, str]] = set()
    for did in net.homes:
        account = net.account(did)
        row = repos.get(did)
        if account is None:  # deleted: nothing of it is kept
            if records.get(did):
                found.append(f"{did} is deleted and has records {sorted(records[did])}")
            continue
        if not account.public:
            # Of a repo without anything indexed, nobody sees the status.
            indexed = row is not None and json.loads(row["collections"])
            if row is not None and indexed and (row["active"] or row.get("status") != account.status):
                found.append(f"{did} is {account.status}, the row says {_brief(row)}")
            continue
        if row is not None and not row["active"] and row.get("status") in UNLISTED:
            found.append(f"{did} is {account.status or 'active'}, the row says {row.get('status')}")
        true = {path: cid_text(record.cid) for path, record in account.repo.records().items() if is_wanted(path)}
        if records.get(did, {}) != true:
            found.append(f"{did} has records {_short(records.get(did, {}))}, should have {_short(true)}")
        counts = Counter(path.partition("/")[0] for path in true)
        if row is not None and json.loads(row["collections"]) != counts:
            found.append(f"{did} counts {row['collections']}, should be {dict(counts)}")
        if true and row is not None and row["rev"] > account.repo.rev:
            found.append(f"{did} is at rev {row['rev']}, its repo at {account.repo.rev}")
        expected_listings |= {(collection, did) for collection in counts}
    for collection, did in sorted(listed - expected_listings):
        found.append(f"{did} is listed in {collection} and should not be")
    for collection, did in sorted(expected_listings - listed):
        found.append(f"{did} is not listed in {collection} and should be")
    return found


def inconsistencies() -> Iterable[str]:
    """What must not be at any moment, whatever is under way: rows that are written together contradict each other."""
    repos = {row["did"]: row for row in engine.rows("repos")}
    heads = {row["id"]: row["number"] for row in engine.rows("state") if row["kind"] == "listing-head"}
    seen: set[tuple[str, str]] = set()
    listings: set[tuple[str, str, str]] = set()
    for row in engine.rows("listings"):
        key, _, did = row["key"].partition("#")
        if (row["collection"], key) in seen:
            yield f"two rows of {row['collection']} have the key {key}"
        seen.add((row["collection"], key))
        if int(key) > heads.get(row["collection"], 0):
            yield f"{row['collection']} has the key {key} beyond its head {heads.get(row['collection'])}"
        listings.add((did, row["collection"], key))
    noted = {
        (did, collection, key) for did, row in repos.items() for collection, key in json.loads(row["listed"]).items()
    }
    for did, collection, key in sorted(listings ^ noted):
        yield f"{did} in {collection} under {key}: {'noted' if (did, collection, key) in noted else 'listed'} only"
    counts: dict[str, Counter[str]] = {}
    for row in engine.rows("records"):
        counts.setdefault(row["did"], Counter())[row["path"].partition("/")[0]] += 1
    for did, row in repos.items():
        # A snapshot is written in several transactions; from the first to the last the row says so.
        landing = row["sync"] == "desynchronized"
        if not landing and row["sync"] != "refused" and json.loads(row["collections"]) != counts.get(did, {}):
            yield f"{did} counts {row['collections']} and has {dict(counts.get(did, {}))} ({row['sync']})"


def _brief(row: dict[str, Any]) -> dict[str, str]:
    names = (
        "active",
        "status",
        "claim",
        "sync",
        "reason",
        "host",
        "rev",
        "collections",
        "asked",
        "answered",
        "last_error",
    )
    return {name: str(row[name]) for name in names if name in row}


def _short(records: dict[str, str]) -> dict[str, str]:
    return {path: cid[-6:] for path, cid in records.items()}

"""What the index must say, from the simulator; and what it says, from the tables themselves. Nothing here comes from the code
that writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from simulator.cbor import cid_text
from simulator.host import UNLISTED, Account
from simulator.neighbourhood import Neighbourhood
from tests.oracle import engine

Row = dict[str, Any]
UNSETTLED = ("reason", "claim", "job", "due_at", "last_error", "resolve_again", "audit")
"""What a row has only while there is something to do, or something is wrong."""


FEED = "changes:"
"""Before the collection's name, in the keys of its feed of changes."""


def is_wanted(path: str) -> bool:
    return path.startswith("io.atcr.") and "/" in path


def differences(net: Neighbourhood) -> list[str]:
    """Where the index is not the truth, now that nothing is due; empty if it is."""
    found = list(inconsistencies())
    repos = {row["did"]: row for row in engine.rows("repos")}
    records: dict[str, dict[str, Any]] = {}
    for row in engine.rows("records"):
        records.setdefault(row["did"], {})[row["path"]] = row
    listed = {
        (row["collection"], row["key"].partition("#")[2])
        for row in engine.rows("listings")
        if not row["collection"].startswith(FEED)
    }
    expected: set[tuple[str, str]] = set()
    for did in {*net.homes, *repos, *records}:
        row, account = repos.get(did), net.account(did)
        if account is None:  # deleted: nothing of it is kept
            # One that is known at another host, where it is not to be had, and was deleted unheard: its records wait there.
            elsewhere = row is not None and not row["active"] and row.get("host") != _home(net, did)
            wrong = [f"has records {sorted(records[did])}"] if records.get(did) and not elsewhere else []
        elif not account.public:
            wrong = _of_withdrawn(account, row)
        else:
            wrong = _of_public(net, account, row, records.get(did, {}))
            expected |= {(path.partition("/")[0], did) for path in account.repo.paths() if is_wanted(path)}
        found += [f"{did} is {account and (account.status or 'active')} and {each}; {_brief(row)}" for each in wrong]
    found += [f"{did} is listed in {collection} and should not be" for collection, did in sorted(listed - expected)]
    found += [f"{did} is not listed in {collection} and should be" for collection, did in sorted(expected - listed)]
    return found


def _of_withdrawn(account: Account, row: Row | None) -> Iterable[str]:
    """Of a repo that is there, and that nobody can have now."""
    if (
        row is not None
        and json.loads(row["collections"])
        and (row["active"], row.get("status")) != (False, account.status)
    ):
        yield "its status is another"


def _of_public(net: Neighbourhood, account: Account, row: Row | None, records: dict[str, Row]) -> Iterable[str]:
    true = {path: record for path, record in account.repo.records().items() if is_wanted(path)}
    if {path: record["cid"] for path, record in records.items()} != {
        path: cid_text(record.cid) for path, record in true.items()
    }:
        yield f"has records {sorted(records)}, should have {sorted(true)}, or of other versions"
    elif any(json.loads(records[path]["value"]) != record.value for path, record in true.items()):
        yield "has a record with another value"
    counts = Counter(path.partition("/")[0] for path in true)
    if row is None:
        if true:
            yield "has no row"
        return
    if json.loads(row["collections"]) != counts:
        yield f"counts {row['collections']}, should be {dict(counts)}"
    if not row["active"] and row.get("status") in UNLISTED:
        yield "its status is another"
    if not true:
        return
    # A list, and a crawl, need not say of a public repo that it is not quite active.
    if (row["active"], row.get("status")) not in ((account.status is None, account.status), (True, None)):
        yield "its status is another"
    if row["rev"] > account.repo.rev:
        yield f"its repo is at rev {account.repo.rev}"
    if row["sync"] != "synced" or any(name in row for name in UNSETTLED) or row["asked"] > row["answered"]:
        yield "is not settled"
    home = _home(net, account.did)
    if (row.get("host"), row.get("scope_host")) != (home, home):
        yield f"its host should be {home}"


def _home(net: Neighbourhood, did: str) -> str | None:
    """The host that the DID's document names, as it stands in rows."""
    return f"http://{net.homes[did].hostname}" if did in net.homes else None


class ListingOrder:
    """Whoever is listed later sorts later: a client that kept its last cursor misses nobody."""

    def __init__(self) -> None:
        self._heads: dict[str, int] = {}
        self._seen: set[tuple[str, str]] = set()

    def look(self) -> list[str]:
        """What is wrong with what was listed since the last look."""
        now = {(row["collection"], row["key"]) for row in engine.rows("listings")}
        heads = {row["id"]: row["number"] for row in engine.rows("state") if row["kind"] == "listing-head"}
        late = [
            f"{key} was listed in {collection} behind {self._heads[collection]}"
            for collection, key in sorted(now - self._seen)
            if int(key.partition("#")[0]) <= self._heads.get(collection.removeprefix(FEED), 0)
        ]
        late += [f"the head of {name} went back" for name, head in self._heads.items() if heads.get(name, 0) < head]
        self._heads, self._seen = heads, now
        return late


class Follower:
    """A client that asks for changes only. What it knows then is what it would be told if it asked for everything."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def look(self) -> None:
        """Take over what changed since the last look, as it is now."""
        changed: set[tuple[str, str]] = set()
        for row in engine.rows("listings"):
            position, _, did = row["key"].partition("#")
            if row["collection"].startswith(FEED) and int(position) > self._since.get(row["collection"], 0):
                changed.add((row["collection"].removeprefix(FEED), did))
        for collection in {collection for collection, _ in changed}:
            feed = FEED + collection
            self._since[feed] = max(
                int(row["key"].partition("#")[0]) for row in engine.rows("listings") if row["collection"] == feed
            )
        there = _records_of_listed()
        for each in changed:
            self._known[each] = there.get(each, {})

    def misses(self, feeds: Iterable[str]) -> list[str]:
        """Where what it knows is not what there is."""
        self.look()
        there = {key: records for key, records in _records_of_listed().items() if key[0] in feeds}
        known = {key: records for key, records in self._known.items() if records}
        return [
            f"{did} has {there.get((collection, did))} in {collection}, and a follower knows of {known.get((collection, did))}"
            for collection, did in sorted({*there, *known})
            if there.get((collection, did)) != known.get((collection, did))
        ]


def _records_of_listed() -> dict[tuple[str, str], dict[str, str]]:
    """The CIDs of the records, by collection and DID, of those that are listed in it."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in engine.rows("listings"):
        if not row["collection"].startswith(FEED):
            found[(row["collection"], row["key"].partition("#")[2])] = {}
    for row in engine.rows("records"):
        key = (row["path"].partition("/")[0], row["did"])
        if key in found:
            found[key][row["path"]] = row["cid"]
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
        head = heads.get(row["collection"].removeprefix(FEED), 0)
        if int(key) > head:
            yield f"{row['collection']} has the key {key} beyond its head {head}"
        listings.add((did, row["collection"], key))
    noted = {
        (did, f"{kind}{collection}", key)
        for did, row in repos.items()
        for kind, name in (("", "listed"), (FEED, "changed"))
        for collection, key in json.loads(row[name]).items()
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


def _brief(row: Row | None) -> str:
    names = (
        *(
            "active",
            "status",
            "claim",
            "sync",
            "reason",
            "host",
            "scope_host",
            "rev",
            "collections",
            "asked",
            "answered",
        ),
        *("job", "retry_at", "failures", "last_error"),
    )
    return "no row" if row is None else f"the row says { {name: row[name] for name in names if name in row} }"

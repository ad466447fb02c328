"""The pages of listings that the API serves.

Talks to DynamoDB through the plain client: the listing Lambda starts cold often, and needs nothing else.
A page of one collection is one query, whatever the number of DIDs. The union of several is a merge of their listings:

    a:  1 x   4 y   9 z          a DID counts where it was listed first among the collections asked for,
    b:  2 y   5 w                so y stands at 2, and the 4 is passed over:   x  y  w  z
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from chalicelib.index.clock import now_ms
from chalicelib.index.state import LISTING_HEAD, feed_of

Position = Mapping[str, int]
"""For each collection the ``first_seen`` of the last row that was passed; what is not in it begins at the beginning."""

MAX_PASSED = 10_000
"""Entries that one page of a union passes over at most: DIDs that it has shown before, in another of the collections."""

_BATCH = 100
_JSON = frozenset({"collections", "listed"})


@dataclass(frozen=True)
class Page:
    """Some DIDs in the order of their first listing; ``next`` is the position after them, if there are more."""

    dids: tuple[str, ...]
    next: Position | None


@dataclass(frozen=True, order=True)
class _Entry:
    first_seen: int
    collection: str
    did: str
    verbatim: str


class Reader:
    """Reads listings. ``client`` is a botocore DynamoDB client, ``prefix`` the beginning of the tables' names."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def page(self, collections: Sequence[str], *, limit: int, after: Position) -> Page:
        """The DIDs listed in at least one of ``collections``, at most ``limit`` of them (1 or more), after a position. Where
        collections share most of their DIDs, a page may have fewer, even none, and still not be the last."""
        names = sorted(set(collections))
        entries = heapq.merge(*(self._entries(name, after.get(name, 0), limit + 1) for name in names))
        passed, dids, repeated = dict(after), list[str](), 0
        for entry, counts in self._earliest(entries, names):
            if (counts and len(dids) == limit) or repeated == MAX_PASSED:
                return Page(tuple(dids), passed)
            if counts:
                dids.append(entry.verbatim)
            else:
                repeated += 1
            passed[entry.collection] = entry.first_seen
        return Page(tuple(dids), None)

    def head(self, collection: str) -> int:
        """The last position of a collection's listing and of its feed of changes; 0 where nobody was ever listed."""
        key = {"kind": {"S": LISTING_HEAD}, "id": {"S": collection}}
        item = self._client.get_item(TableName=f"{self._prefix}-state", Key=key, ConsistentRead=True).get("Item")
        return 0 if item is None else int(item["number"]["N"])

    def changed(self, collection: str, *, limit: int, after: int) -> Page:
        """The DIDs whose records in a collection have changed, come or gone after a position of its feed, in the order of
        their last change: at most ``limit`` (1 or more). Only of collections whose changes are fed."""
        page = self.page([feed_of(collection)], limit=limit, after={feed_of(collection): after})
        return page if page.next is None else Page(page.dids, {collection: page.next[feed_of(collection)]})

    def repo(self, did: str) -> dict[str, Any] | None:
        """The row of a repo (see ``tables.RepoRow``) by its canonical DID, as plain values; ``None`` if there is none."""
        key = {"did": {"S": did}}
        item = self._client.get_item(TableName=f"{self._prefix}-repos", Key=key, ConsistentRead=True).get("Item")
        return None if item is None else {name: _plain(name, value) for name, value in item.items()}

    def state(self, kind: str) -> dict[str, dict[str, Any]]:
        """What stands in the rows of a kind that have not expired, by id; for kinds of which there are few."""
        answer = self._client.query(
            TableName=f"{self._prefix}-state",
            KeyConditionExpression="kind = :kind",
            ExpressionAttributeValues={":kind": {"S": kind}},
            ConsistentRead=True,
        )
        return {
            item["id"]["S"]: json.loads(item["content"]["S"])
            for item in answer["Items"]
            if "content" in item and ("expires_at" not in item or int(item["expires_at"]["N"]) * 1000 > now_ms())
        }

    def _earliest(self, entries: Iterator[_Entry], names: list[str]) -> Iterator[tuple[_Entry, bool]]:
        """Each entry, and whether it is its DID's earliest among the collections ``names``."""
        if len(names) == 1:
            yield from ((entry, True) for entry in entries)
            return
        while batch := list(islice(entries, _BATCH)):
            listed = self._listed({entry.did for entry in batch})
            for entry in batch:
                # A repo enters several listings at once, often under the same number: then the name decides.
                keys = [(int(key), name) for name, key in listed.get(entry.did, {}).items() if name in names]
                yield entry, bool(keys) and min(keys) == (entry.first_seen, entry.collection)

    def _listed(self, dids: set[str]) -> dict[str, dict[str, str]]:
        """Where each of these DIDs (100 at most) is listed, and under which key."""
        table = f"{self._prefix}-repos"
        wanted: Any = {
            table: {
                "Keys": [{"did": {"S": did}} for did in sorted(dids)],
                "ProjectionExpression": "did, listed",
                "ConsistentRead": True,
            }
        }
        found: dict[str, dict[str, str]] = {}
        while wanted:
            answer = self._client.batch_get_item(RequestItems=wanted)
            found |= {item["did"]["S"]: json.loads(item["listed"]["S"]) for item in answer["Responses"].get(table, [])}
            wanted = answer.get("UnprocessedKeys")
        return found

    def _entries(self, collection: str, after: int, page: int) -> Iterator[_Entry]:
        request = {
            "TableName": f"{self._prefix}-listings",
            "KeyConditionExpression": "#c = :c AND #k >= :k",
            "ExpressionAttributeNames": {"#c": "collection", "#k": "key"},
            "ExpressionAttributeValues": {":c": {"S": collection}, ":k": {"S": f"{after + 1:016d}"}},
            "ConsistentRead": True,
            "Limit": page,
        }
        while True:
            answer = self._client.query(**request)
            for item in answer["Items"]:
                first_seen, _, did = item["key"]["S"].partition("#")
                yield _Entry(int(first_seen), collection, did, item["did"]["S"] if "did" in item else did)
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _plain(name: str, value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    if name in _JSON:
        return json.loads(content)
    return int(content) if kind == "N" else content

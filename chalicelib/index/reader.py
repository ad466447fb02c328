"""The pages of listings that the API serves.

Talks to DynamoDB through the plain client: the listing Lambda starts cold often, and needs nothing else.
A page of one collection is one query, whatever the number of DIDs. The union of several is a merge of their listings:

    a:  1 x   4 y   9 z          a DID counts where it was listed first among the collections asked for,
    b:  2 y   5 w                so y stands at 2, and the 4 is passed over:   x  y  w  z
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from chalicelib.index.rows import Rows

Position = Mapping[str, int]
"""For each collection the ``first_seen`` of the last row that was passed; what is not in it begins at the beginning."""

MAX_PASSED = 10_000
"""Entries that one page of a union passes over at most: DIDs that it has shown before, in another of the collections."""

_BATCH = 100


@dataclass(frozen=True)
class Page:
    """Some DIDs in the order of their first listing; ``next`` is the position after them, if there are more."""

    dids: tuple[str, ...]
    next: Position | None


@dataclass(frozen=True, order=True)
class Entry:
    """A row of a listing. ``did`` is canonical, ``verbatim`` as its host spells it."""

    first_seen: int
    collection: str
    did: str
    verbatim: str


class Reader(Rows):
    """Reads listings, and the rows of what stands in them."""

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

    def entries(self, collection: str, *, after: int, limit: int) -> tuple[list[Entry], bool]:
        """The first entries (1 or more) of a listing, or of a feed of changes (``feed_of``), after a position, and whether there
        are more."""
        found = list(islice(self._entries(collection, after, limit + 1), limit + 1))
        return found[:limit], len(found) > limit

    def _earliest(self, entries: Iterator[Entry], names: list[str]) -> Iterator[tuple[Entry, bool]]:
        """Each entry, and whether it is its DID's earliest among the collections ``names``."""
        if len(names) == 1:
            yield from ((entry, True) for entry in entries)
            return
        while batch := list(islice(entries, _BATCH)):
            repos = self.repos({entry.did for entry in batch}, "listed")
            for entry in batch:
                # A repo enters several listings at once, often under the same number: then the name decides.
                keys = [(int(key), name) for name, key in _listed(repos.get(entry.did)) if name in names]
                yield entry, bool(keys) and min(keys) == (entry.first_seen, entry.collection)

    def _entries(self, collection: str, after: int, page: int) -> Iterator[Entry]:
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
                yield Entry(int(first_seen), collection, did, item["did"]["S"] if "did" in item else did)
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _listed(repo: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    return () if repo is None else repo["listed"].items()

"""Listings, and the feeds of changes beside them: what is entered and left, in the transaction that changes a repo's row.

    listings   collection            key                 who has records in it, in the order of first listing
               io.atcr.hold.captain  0017...01#did:a
               io.atcr.hold.captain  0017...03#did:b
               changes:io.atcr.hold.captain  0017...03#did:b     whose records in it changed, came or went,
               changes:io.atcr.hold.captain  0017...09#did:a     in the order of their last change
    state      listing-head, collection  -> the last key, of both

The head only rises, by a condition of each transaction, so whoever comes later sorts later, whatever the clocks say, and a key
is never used twice. Leaving deletes the exact old key. A DID stands once in a feed: each change moves its row to the end.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from chalicelib.index.state import LISTING_HEAD, feed_of
from chalicelib.index.tables import RepoRow, Tables

MAX_CHANGES = 10
"""Listings entered or left in one transaction; more are settled in further ones."""
MAX_FEEDS = 5
"""Collections whose changes are fed."""
MAX_ITEMS = 2 * MAX_CHANGES + 3 * MAX_FEEDS
"""Items of one transaction: the head and the row of what is entered; for a feed the head, the row, and the row before it."""
GONE_DAYS = 30
"""How long a feed keeps the row of a DID that has left the listing."""


class Listings:
    """Adds to transactions. ``feeds``: the collections whose changes are fed, at most MAX_FEEDS."""

    def __init__(self, tables: Tables, feeds: Set[str]) -> None:
        self._tables = tables
        self.feeds = frozenset(feeds)

    def steps(self, row: RepoRow, wanted: Set[str]) -> tuple[list[str], list[str]]:
        """The listings to enter and to leave next, so that the DID stands in those that are ``wanted``."""
        listed = frozenset(row.listed)
        entering = sorted(wanted - listed)[:MAX_CHANGES]
        return entering, sorted(listed - wanted)[: MAX_CHANGES - len(entering)]

    def add(
        self,
        transaction: TransactWrite,
        row: RepoRow,
        *,
        entering: Sequence[str],
        leaving: Sequence[str],
        fed: Sequence[str],
        now: int,
    ) -> None:
        """Add to the transaction what makes these steps, and note their keys on ``row``. ``now`` is in UTC ms."""
        listings = self._tables.listings
        row.listed, row.changed = dict(row.listed), dict(row.changed)
        heads = {collection: self._advance(transaction, collection, now) for collection in sorted({*entering, *fed})}
        for collection in leaving:
            transaction.delete(listings(collection, f"{row.listed.pop(collection)}#{row.did}"))
        for collection in entering:
            row.listed[collection] = heads[collection]
            transaction.save(listings(collection, f"{heads[collection]}#{row.did}", did=row.verbatim))
        for collection in fed:
            feed, before = feed_of(collection), row.changed.get(collection)
            if before is not None:
                transaction.delete(listings(feed, f"{before}#{row.did}"))
            row.changed[collection] = heads[collection]
            expires_at = None if collection in row.listed else now // 1000 + GONE_DAYS * 86_400
            transaction.save(listings(feed, f"{heads[collection]}#{row.did}", did=row.verbatim, expires_at=expires_at))

    def _advance(self, transaction: TransactWrite, collection: str, now: int) -> str:
        """Add the step of a collection's head to the transaction; returns the first part of the key."""
        state = self._tables.state
        try:
            last = int(state.get(LISTING_HEAD, collection, consistent_read=True).number)
            condition: Condition = state.number == last
        except state.DoesNotExist:
            last, condition = 0, state.number.does_not_exist()
        first_seen = max(now * 1000, last + 1)
        transaction.update(state(LISTING_HEAD, collection), actions=[state.number.set(first_seen)], condition=condition)
        return f"{first_seen:016d}"

    def lost(self, row: RepoRow) -> tuple[frozenset[str], frozenset[str]]:
        """The collections whose listing, and those whose feed, does not have the row that the repo's row says it has."""
        listed = {(name, f"{key}#{row.did}"): name for name, key in row.listed.items()}
        fed = {(feed_of(name), f"{key}#{row.did}"): name for name, key in row.changed.items() if name in row.listed}
        for entry in self._tables.listings.batch_get(sorted(listed | fed), consistent_read=True):
            listed.pop((entry.collection, entry.key), None)
            fed.pop((entry.collection, entry.key), None)
        return frozenset(listed.values()), frozenset(fed.values())

"""Who a DID is: its signing key and its PDS, from memory, from the ``state`` table, or newly resolved.

A document that cannot be fetched now is not a changed document: the last good one is kept and served for as long as that lasts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from chalicelib.atproto.crypto import parse_multibase
from chalicelib.atproto.errors import DidNotFound, MalformedDidDocument, RemoteError
from chalicelib.atproto.identity import Identity, Resolver
from chalicelib.atproto.syntax import Did, Origin, canonical_did
from chalicelib.index.clock import Clock, now_ms
from chalicelib.index.state import IDENTITY, State

KEEP_SECONDS = 30 * 24 * 3600
MAX_KEY = 1024
"""Bytes in a sort key of DynamoDB."""
MEMORY = 50_000
RETRY_MS = 10_000
"""A document that could not be fetched is not tried for again so soon, while a good one is known."""


@dataclass(frozen=True)
class _Cached:
    identity: Identity
    fetched_at: int
    failed_at: int = 0
    """When it could not be fetched again."""


class Identities:
    """Resolves DIDs through two caches. One per process; safe to use from several threads."""

    def __init__(self, resolver: Resolver, state: State, *, ttl_seconds: float, clock: Clock = now_ms) -> None:
        self._resolver = resolver
        self._state = state
        self._ttl_ms = int(ttl_seconds * 1000)
        self._clock = clock
        self._memory: OrderedDict[str, _Cached] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, did: Did, *, newer_than: int | None = None, shared: bool = False) -> Identity:
        """The identity of ``did``; with ``newer_than`` (UTC ms) from a document that was fetched after that moment, if it
        can be fetched at all; ``shared``: from the newest that any process has fetched. Raises ``RemoteError`` or
        ``MalformedDidDocument`` only where no good one is known."""
        found = self._look(did, newer_than, shared=shared)
        if found is not None and (
            found.fetched_at >= self._oldest(newer_than) or self._clock() - found.failed_at < RETRY_MS
        ):
            return found.identity
        return self._fetch(did, canonical_did(did), found)

    def known(self, did: Did, *, newer_than: int | None = None) -> Identity | None:
        """The identity, if a document that is new enough is known; ``None`` if somebody outside would have to be asked."""
        found = self._look(did, newer_than)
        return found.identity if found is not None and found.fetched_at >= self._oldest(newer_than) else None

    def refresh(self, did: Did) -> Identity:
        """The identity from a document fetched now, if it can be fetched."""
        return self.get(did, newer_than=self._clock() + 1)

    def _oldest(self, newer_than: int | None) -> int:
        return max(self._clock() - self._ttl_ms, newer_than or 0)

    def _look(self, did: Did, newer_than: int | None, *, shared: bool = False) -> _Cached | None:
        """The newest there is in memory or in the table, be it fresh enough or not. ``shared``: memory is not enough."""
        key = canonical_did(did)
        cached = self._recall(key)
        if not shared and cached is not None and cached.fetched_at >= self._oldest(newer_than):
            return cached
        stored = self._stored(did, key)
        if stored is not None and (cached is None or stored.fetched_at > cached.fetched_at):
            cached = stored
            self._remember(key, cached)
        return cached

    def _fetch(self, did: Did, key: str, last_good: _Cached | None) -> Identity:
        now = self._clock()
        try:
            identity = self._resolver.resolve(did)
        except DidNotFound:
            # A directory that says so is believed; a web server may just be set up wrongly for a while.
            if last_good is None or did.startswith("did:plc:"):
                raise
            return self._stale(key, last_good)
        except (RemoteError, MalformedDidDocument):
            if last_good is None:
                raise
            return self._stale(key, last_good)
        fresh = _Cached(identity, now)
        self._remember(key, fresh)
        if last_good is None or last_good.identity != identity or now - last_good.fetched_at > self._ttl_ms // 2:
            content = {
                "key": identity.key.multibase if identity.key else None,
                "pds": str(identity.pds) if identity.pds else None,
                "handle": identity.handle,
            }
            self._state.write(IDENTITY, key, content, number=now, keep_seconds=KEEP_SECONDS)
        return identity

    def _stale(self, key: str, last_good: _Cached) -> Identity:
        """The last good one, since there is no newer one now."""
        self._remember(key, replace(last_good, failed_at=self._clock()))
        return last_good.identity

    def _stored(self, did: Did, key: str) -> _Cached | None:
        row = self._state.read(IDENTITY, key) if len(key) <= MAX_KEY else None  # a longer DID has no document
        if row is None:
            return None
        identity = Identity(
            did,
            key=parse_multibase(row.content["key"]) if row.content["key"] else None,
            pds=Origin.parse_key(row.content["pds"]) if row.content["pds"] else None,
            handle=row.content["handle"],
        )
        return _Cached(identity, int(row.number))

    def _recall(self, key: str) -> _Cached | None:
        with self._lock:
            cached = self._memory.get(key)
            if cached is not None:
                self._memory.move_to_end(key)
            return cached

    def _remember(self, key: str, cached: _Cached) -> None:
        with self._lock:
            self._memory[key] = cached
            self._memory.move_to_end(key)
            while len(self._memory) > MEMORY:
                self._memory.popitem(last=False)

"""Records as ATCR and Bluesky apps write them: paths with values, made up from a random source."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .clock import Clock

CAPTAIN = "io.atcr.hold.captain"
CREW = "io.atcr.hold.crew"
LAYER = "io.atcr.hold.layer"
STATS = "io.atcr.hold.stats"
SCAN = "io.atcr.hold.scan"
MANIFEST = "io.atcr.manifest"
TAG = "io.atcr.tag"
SAILOR_PROFILE = "io.atcr.sailor.profile"
SAILOR_STAR = "io.atcr.sailor.star"

_NAMES = ("api", "web", "worker", "proxy", "cache", "build", "docs", "bot")
_OCI = "application/vnd.oci.image"

Entry = tuple[str, dict[str, Any]]
"""A path and a record."""


class Author:
    """Makes records for one account."""

    def __init__(self, did: str, clock: Clock, rng: random.Random) -> None:
        self.did = did
        self._clock = clock
        self._rng = rng

    def hold(self, *, crew: int = 1, layers: int = 0) -> Iterator[Entry]:
        """The records of a hold: captain, ``crew`` members, ``layers`` layers, stats and scans in proportion."""
        yield self.captain()
        for number in range(crew):
            yield self.crew(number)
        for number in range(layers):
            yield self.layer()
            if number % 10 == 0:
                yield self.stats(number // 10)
                yield self.scan()

    def sailor(self, *, manifests: int = 1, hold: str | None = None) -> Iterator[Entry]:
        """What a user of ATCR has in their repo: a profile, and for each push a manifest; one tag a name. ``hold``: the DID of
        the one that has their blobs, which is then named."""
        yield self.sailor_profile(hold)
        tags: dict[str, dict[str, Any]] = {}
        for _ in range(manifests):
            path, value = self.manifest(hold)
            yield path, value
            tag_path, tag = self.tag(value["repository"], path.rpartition("/")[2])
            tags[tag_path] = tag
        yield from tags.items()

    def captain(self, *, public: bool = True) -> Entry:
        return f"{CAPTAIN}/self", self._value(
            CAPTAIN,
            owner=self.did,
            public=public,
            allowAllCrew=False,
            enableBlueskyPosts=False,
            region="eu-central",
            deployedAt=self._clock.timestamp(),
        )

    def crew(self, number: int) -> Entry:
        permissions = ["blob:read", "blob:write"] if number else ["blob:read", "blob:write", "crew:admin"]
        return f"{CREW}/{self._hex(20)}", self._value(
            CREW,
            member=f"did:plc:{self._hex(24)}",
            role="member" if number else "admin",
            permissions=permissions,
            addedAt=self._clock.timestamp(),
        )

    def layer(self) -> Entry:
        return f"{LAYER}/{self._clock.tid()}", self._value(
            LAYER,
            digest=self._digest(),
            size=self._rng.randrange(1_000, 200_000_000),
            mediaType=f"{_OCI}.layer.v1.tar+gzip",
            manifest=f"at://{self.did}/{MANIFEST}/{self._hex(64)}",
            userDid=self.did,
            createdAt=self._clock.timestamp(),
        )

    def stats(self, number: int, pulls: int = 0) -> Entry:
        """The counters of one image; the record key is the same for the same ``number``."""
        return f"{STATS}/stats{number}", self._value(
            STATS,
            ownerDid=self.did,
            repository=_NAMES[number % len(_NAMES)],
            pullCount=pulls,
            pushCount=1,
            updatedAt=self._clock.timestamp(),
        )

    def scan(self) -> Entry:
        digest = self._hex(64)
        counts = {level: self._rng.randrange(9) for level in ("critical", "high", "medium", "low")}
        return f"{SCAN}/{digest}", self._value(
            SCAN,
            manifest=f"at://{self.did}/{MANIFEST}/{digest}",
            repository=self._rng.choice(_NAMES),
            userDid=self.did,
            **counts,
            total=sum(counts.values()),
            scannedAt=self._clock.timestamp(),
        )

    def manifest(self, hold: str | None = None) -> Entry:
        digest = self._hex(64)
        layers = [self._blob(f"{_OCI}.layer.v1.tar+gzip") for _ in range(self._rng.randrange(1, 6))]
        return f"{MANIFEST}/{digest}", self._value(
            MANIFEST,
            repository=self._rng.choice(_NAMES),
            digest=f"sha256:{digest}",
            mediaType=f"{_OCI}.manifest.v1+json",
            schemaVersion=2,
            config=self._blob(f"{_OCI}.config.v1+json"),
            layers=layers,
            createdAt=self._clock.timestamp(),
            **({"holdDid": hold} if hold else {}),
        )

    def tag(self, repository: str, digest: str, tag: str = "latest") -> Entry:
        return f"{TAG}/{repository}_{tag}", self._value(
            TAG,
            repository=repository,
            tag=tag,
            manifest=f"at://{self.did}/{MANIFEST}/{digest}",
            createdAt=self._clock.timestamp(),
        )

    def sailor_profile(self, hold: str | None = None) -> Entry:
        now = self._clock.timestamp()
        return f"{SAILOR_PROFILE}/self", self._value(
            SAILOR_PROFILE, createdAt=now, updatedAt=now, **({"defaultHold": hold} if hold else {})
        )

    def noise(self, count: int) -> Iterator[Entry]:
        """Records of another app: a profile first, then posts and likes."""
        if count > 0:
            yield "app.bsky.actor.profile/self", self._value("app.bsky.actor.profile", displayName=self._hex(8))
        for number in range(1, count):
            yield self.like() if number % 3 else self.post()

    def post(self) -> Entry:
        kind = "app.bsky.feed.post"
        return f"{kind}/{self._clock.tid()}", self._value(
            kind, text=self._hex(self._rng.randrange(2, 200)), langs=["en"], createdAt=self._clock.timestamp()
        )

    def like(self) -> Entry:
        kind = "app.bsky.feed.like"
        subject = {"uri": f"at://did:plc:{self._hex(24)}/app.bsky.feed.post/{self._clock.tid()}", "cid": self._hex(59)}
        return f"{kind}/{self._clock.tid()}", self._value(kind, subject=subject, createdAt=self._clock.timestamp())

    def _blob(self, media_type: str) -> dict[str, Any]:
        return {"digest": self._digest(), "size": self._rng.randrange(100, 200_000_000), "mediaType": media_type}

    def _value(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"$type": kind, **fields}

    def _digest(self) -> str:
        return f"sha256:{self._hex(64)}"

    def _hex(self, length: int) -> str:
        return self._rng.randbytes((length + 1) // 2).hex()[:length]

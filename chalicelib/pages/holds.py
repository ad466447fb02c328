"""The holds, as their captain records describe them. Every field is what a stranger wrote, of any type and length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from chalicelib.api.holds import CAPTAIN, RKEY
from chalicelib.index.reader import Entry, Reader
from chalicelib.index.rows import Row

PATH: Final = f"{CAPTAIN}/{RKEY}"
MAX_RECORD: Final = 20_000
"""Characters of a captain record that are looked at; a real one has 300."""


@dataclass(frozen=True)
class Captain:
    """What is usable of a captain record. ``None``: it does not say, or not in the type that it should have."""

    public: bool | None = None
    owner: str | None = None
    region: str | None = None
    provider: str | None = None
    deployed_at: str | None = None

    @classmethod
    def of(cls, row: Row | None) -> Self:
        """Of a row of the records."""
        text = (row or {}).get("value", "")
        value = json.loads(text) if 0 < len(text) <= MAX_RECORD else None
        if not isinstance(value, dict):
            return cls()
        public = value.get("public")
        return cls(
            public if isinstance(public, bool) else None,
            *(_text(value.get(name)) for name in ("owner", "region", "provider", "deployedAt")),
        )


@dataclass(frozen=True)
class Hold:
    """A listed hold. ``host``: the row of its host, where that is known."""

    entry: Entry
    captain: Captain
    host: Row


def holds(reader: Reader, entries: Sequence[Entry]) -> Iterator[Hold]:
    """The holds of these entries of the listing."""
    dids = [entry.did for entry in entries]
    repos, captains = reader.repos(dids, "host"), reader.records_at(dids, PATH)
    hosts = reader.hosts_of(repo["host"] for repo in repos.values() if "host" in repo)
    for entry in entries:
        host = repos.get(entry.did, {}).get("host", "")
        yield Hold(entry, Captain.of(captains.get(entry.did)), hosts.get(host, {}))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None

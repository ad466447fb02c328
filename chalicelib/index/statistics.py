"""How many repos are listed in each collection, and how many records they have there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATISTICS = "statistics"
"""Kind of the state row that has the last count; ``COLLECTIONS`` is its id."""
COLLECTIONS = "collections"


@dataclass
class Statistics:
    """Counts by collection. ``counted_at`` is in UTC ms."""

    counted_at: int
    repos: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)

    def add(self, listed: Iterable[str], collections: Mapping[str, int]) -> None:
        """Count one repo: the collections in which it is listed, and its records by collection."""
        for name in listed:
            self.repos[name] += 1
            self.records[name] += collections.get(name, 0)

    def content(self) -> dict[str, Any]:
        """As it is stored."""
        return {"at": self.counted_at, "repos": dict(self.repos), "records": dict(self.records)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Statistics:
        """What was stored."""
        return cls(content["at"], Counter(content["repos"]), Counter(content["records"]))

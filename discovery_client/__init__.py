"""Which repos have records of a collection, asked of several discovery services, lists and registrations at once.

    >>> from discovery_client import Client
    >>> with Client(["https://a.example", "https://b.example"], cache="~/.cache/holds") as client:
    ...     for repo in client.discover("io.atcr.hold.captain").repos:
    ...         print(repo.did, repo.sources)

It needs httpx and nothing else. ``docs/client.md`` of atcr-discovery says what it promises.
"""

from __future__ import annotations

from discovery_client.client import AsyncClient, Client, Comparison, Discovered, Mode, Repo, Report, State
from discovery_client.entries import HOLDS
from discovery_client.errors import BadAnswer, DiscoveryError, NoAnswer, Refused, SourceFailed, Unreachable
from discovery_client.web import Limits, Retry

__all__ = [
    "HOLDS",
    "AsyncClient",
    "BadAnswer",
    "Client",
    "Comparison",
    "Discovered",
    "DiscoveryError",
    "Limits",
    "Mode",
    "NoAnswer",
    "Refused",
    "Repo",
    "Report",
    "Retry",
    "SourceFailed",
    "State",
    "Unreachable",
]

"""Everything that this package raises, but ValueError for what it was called with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discovery_client.client import Report


class DiscoveryError(Exception):
    """The base of all."""


class SourceFailed(DiscoveryError):
    """One source did not answer as it should; the message says how. Reports have its text, callers seldom see it."""


class Unreachable(SourceFailed):
    """No answer, or not a whole one in time."""


class Refused(SourceFailed):
    """An answer with an error's status."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(" ".join(part for part in (str(status), error, message) if part))
        self.status, self.error = status, error
        """``error``: the XRPC name, such as ``HostBanned``; empty where there is none."""


class BadAnswer(SourceFailed):
    """An answer that is not what the protocol says, or more than was allowed."""


class NoAnswer(DiscoveryError):
    """Not one source had anything to say, the cache included: an empty list would be taken for the truth."""

    def __init__(self, reports: Sequence[Report]) -> None:
        super().__init__("; ".join(f"{report.source}: {report.error}" for report in reports))
        self.reports = tuple(reports)

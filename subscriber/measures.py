"""What a subscriber measures: of each commit that it applied, and once a minute of everything else."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from chalicelib import metrics

MOST_LAG_MS = 24 * 3600 * 1000
"""A host may send any time with its events; one from before that says nothing about us."""
_REJECTED = frozenset({"no-authority", "inactive", "overrun"})
_VERIFIED = ("applied", "followed")


def applied(time: str, now: int) -> None:
    """A commit that its host dated ``time`` is durable at ``now`` (UTC ms)."""
    try:
        lag = now - datetime.fromisoformat(time).timestamp() * 1000
    except ValueError:
        return
    if 0 <= lag <= MOST_LAG_MS:
        metrics.observe("Lag", lag, "Milliseconds")


class Measures:
    """Turns counts that rise since the start into what happened since the last time."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._events = 0

    def measure(self, *, outcomes: Counter[str], events: int, hosts: int, open_: int, oldest: float) -> None:
        """Write how things are, and what happened since the last time.

        ``outcomes``: what became of events, by kind; ``events``: frames read; ``hosts``, ``open_``: how many are followed,
        and how many streams are open; ``oldest``: seconds for which the first event that is not done has waited.
        """
        news = outcomes - self._outcomes
        read = max(0, events - self._events)
        self._outcomes, self._events = outcomes.copy(), events
        metrics.count("Heartbeats")
        metrics.observe("Hosts", hosts, "Count")
        metrics.observe("OpenStreams", open_, "Count")
        metrics.observe("OldestEvent", oldest, "Seconds")
        metrics.count("Events", read)
        metrics.count("EventsPassedOver", max(0, read - news.total()))
        metrics.count("CommitsVerified", sum(news[kind] for kind in _VERIFIED))
        for outcome, number in news.items():
            kind, _, reason = outcome.partition(":")
            if kind == "desynchronized":
                metrics.count("Resyncs", number, Reason=reason)
            elif kind in _REJECTED:
                metrics.count("Rejected", number, Reason=kind)
        metrics.flush()

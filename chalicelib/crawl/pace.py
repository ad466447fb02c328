"""How fast one host is asked, and read, and how fast one caller may ask us."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most ``rate`` requests (or bytes, or what else is counted) a second on average, of which ``burst`` may come at once.
    Safe to use from several threads.

    The generic cell rate algorithm (ITU-T I.371): one number, the moment from which on the next request is on time.
    """

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap = 1 / rate
        self._early = burst * self._gap
        self._clock = clock
        self._on_time = clock()
        self._lock = threading.Lock()

    def reserve(self, number: int = 1) -> float:
        """Seconds to wait before the next request, or so many of them, which are then taken as made."""
        with self._lock:
            now = self._clock()
            self._on_time = max(self._on_time, now) + number * self._gap
            return max(0.0, self._on_time - self._early - now)

    def attempt(self) -> float:
        """For a request that is not made to wait: 0 if it is on time, and taken as made; else the seconds until it would be."""
        with self._lock:
            now = self._clock()
            on_time = max(self._on_time, now) + self._gap
            wait = max(0.0, on_time - self._early - now)
            self._on_time = self._on_time if wait else on_time
            return wait

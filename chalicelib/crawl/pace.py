"""How fast one host is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most ``rate`` requests a second on average, of which ``burst`` may come at once. Safe to use from several threads.

    The generic cell rate algorithm (ITU-T I.371): one number, the moment from which on the next request is on time.
    """

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap = 1 / rate
        self._early = (burst - 1) * self._gap
        self._clock = clock
        self._on_time = clock()
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Seconds to wait before the next request, which is then taken as made."""
        with self._lock:
            now = self._clock()
            wait = max(0.0, self._on_time - self._early - now)
            self._on_time = max(self._on_time, now) + self._gap
            return wait

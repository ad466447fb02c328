"""What the stream of one host may bring in a second. Beyond, it is not read for a while: nothing is lost, its host waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from chalicelib import metrics
from chalicelib.crawl.pace import Pace
from chalicelib.settings import Settings
from chalicelib.telemetry import log

BURST_SECONDS = 10
"""So many seconds' worth may come at once, as after a short interruption."""
TELL_SECONDS = 60.0


class StreamBudget:
    """Of one host, whatever number of connections it takes. ``clock``: monotonic seconds."""

    def __init__(self, host: str, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        frames, size = settings.stream_frames_per_second, settings.stream_bytes_per_second
        self._host = host
        self._clock = clock
        self._frames = Pace(frames, BURST_SECONDS * frames, clock=clock)
        self._bytes = Pace(size, BURST_SECONDS * size, clock=clock)
        self._told = -TELL_SECONDS

    def spend(self, frames: int, size: int) -> float:
        """So many frames and bytes were read: seconds for which nothing more is to be read."""
        wait = max(self._frames.reserve(frames), self._bytes.reserve(size))
        if wait > 0 and self._clock() - self._told >= TELL_SECONDS:
            self._told = self._clock()
            log("stream-slowed", host=self._host, seconds=round(wait, 3))
            metrics.count("StreamsSlowed")
        return wait

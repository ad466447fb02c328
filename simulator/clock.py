"""Time and TIDs. A clock is handed to whoever needs one, so that a run can be repeated to the byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""Where a counting clock begins, in microseconds of the Unix epoch: in the past, for a rev must not lie ahead."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


class Clock:
    """Microseconds that only rise. By default it counts (one millisecond a tick); ``wall`` follows real time."""

    def __init__(self, start: int = START, *, step: int = 1_000, source: Callable[[], int] | None = None) -> None:
        self.now = start
        self._step = step
        self._source = source

    @classmethod
    def wall(cls) -> Clock:
        """Real time, as a running demonstration wants it."""
        return cls(0, step=1, source=lambda: time.time_ns() // 1_000)

    def tick(self) -> int:
        """The next instant: never one that was given before."""
        self.now = max(self.now + self._step, self._source() if self._source else 0)
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * 1_000_000)

    def tid(self) -> str:
        """A fresh TID (atproto.com/specs/tid): a record key or a rev, sorting after all given before."""
        return tid(self.tick())

    def timestamp(self) -> str:
        """A fresh datetime as events and records carry it."""
        return (_EPOCH + timedelta(microseconds=self.tick())).isoformat(timespec="milliseconds")[:-6] + "Z"


def tid(microseconds: int, clock_id: int = 0) -> str:
    """The TID of an instant: 53 bits of microseconds and 10 of clock id, five bits a character."""
    number = microseconds << 10 | clock_id
    return "".join(_TID_ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))

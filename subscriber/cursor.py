"""How far a stream's effects are durable.

seq:      10   11   12   13   14          events begin in the order of the stream and end in any order;
state:   done done  open done skipped     the cursor stands before the first one that is still open: at 11
"""

from __future__ import annotations


class CursorTracker:
    """Follows the events of one stream under one epoch. Not thread-safe: it belongs to the event loop."""

    def __init__(self, durable: int | None = None) -> None:
        self.durable = durable
        """The highest seq up to which every effect is durable; ``None`` before the first event."""
        self._window: list[list[int | bool]] = []  # a deque would take ten times as much, and mostly it is empty
        self._entries: dict[int, list[int | bool]] = {}

    @property
    def open(self) -> int:
        """How many events are begun and not done."""
        return len(self._entries)

    def skip(self, seq: int) -> None:
        """An event without any effect."""
        window = self._window
        if not window:
            self.durable = seq
        elif window[-1][1]:
            window[-1][0] = seq
        else:
            window.append([seq, True])

    def begin(self, seq: int) -> None:
        """An event whose effect is still to come."""
        entry: list[int | bool] = [seq, False]
        self._entries[seq] = entry
        self._window.append(entry)

    def done(self, seq: int) -> None:
        """The effect of that event is durable."""
        self._entries.pop(seq)[1] = True
        window = self._window
        while window and window[0][1]:
            self.durable = int(window.pop(0)[0])

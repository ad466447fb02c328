"""What a stream may bring in a second: a burst, then its rate, in frames and in bytes."""

from __future__ import annotations

import pytest

from chalicelib import settings
from subscriber import budget
from subscriber.budget import BURST_SECONDS, TELL_SECONDS, StreamBudget


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ours(clock: Clock) -> StreamBudget:
    """A hundred frames and 100,000 bytes a second."""
    limits = {"DISCOVERY_STREAM_FRAMES_PER_SECOND": "100", "DISCOVERY_STREAM_BYTES_PER_SECOND": "100000"}
    return StreamBudget("hold.example.com", settings.read(limits), clock=clock)


def test_a_burst_is_read_at_once_and_what_follows_at_its_rate(ours: StreamBudget, clock: Clock) -> None:
    assert ours.spend(100 * BURST_SECONDS, 1) == 0
    assert ours.spend(50, 1) == pytest.approx(0.5)
    clock.now += 0.5
    assert ours.spend(0, 0) == pytest.approx(0)
    assert ours.spend(1, 1) == pytest.approx(0.01)


def test_few_large_frames_are_too_many_bytes(ours: StreamBudget) -> None:
    assert ours.spend(1, 100_000 * BURST_SECONDS) == 0
    assert ours.spend(1, 250_000) == pytest.approx(2.5)


def test_a_stream_over_its_budget_is_told_of_once_a_minute(
    ours: StreamBudget, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(budget, "log", lambda event, **fields: told.append(f"{event} {fields['host']}"))
    for _ in range(1_000):
        clock.now += ours.spend(10_000, 1)
        if clock.now > 1000 + 3 * TELL_SECONDS:
            break
    assert set(told) == {"stream-slowed hold.example.com"}
    assert 1 < len(told) <= 4

"""How fast one host is asked: a burst, and then its rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.crawl.pace import Pace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_does_not_wait_and_what_follows_keeps_the_rate() -> None:
    pace = Pace(10, 3, clock=Clock())
    assert [pace.reserve() for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_after_a_rest_there_is_a_burst_again() -> None:
    clock = Clock()
    pace = Pace(10, 3, clock=clock)
    for _ in range(6):
        pace.reserve()
    clock.now += 60
    assert [pace.reserve() for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


@given(
    rate=st.floats(0.5, 100),
    burst=st.integers(1, 20),
    rests=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_in_no_stretch_of_time_are_there_more_requests_than_the_rate_and_a_burst(
    rate: float, burst: int, rests: list[float]
) -> None:
    clock = Clock()
    pace, made = Pace(rate, burst, clock=clock), []
    for rest in rests:
        clock.now += rest
        made.append(clock.now + pace.reserve())
    for first in range(len(made)):
        for last in range(first, len(made)):
            assert last - first + 1 <= burst + (made[last] - made[first]) * rate + 1e-6

"""The cursor never passes an event whose effect is not durable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from subscriber.cursor import CursorTracker


def test_without_events_the_cursor_stays_where_it_was() -> None:
    assert CursorTracker().durable is None
    assert CursorTracker(7).durable == 7


def test_a_skipped_event_moves_the_cursor_at_once() -> None:
    tracker = CursorTracker(7)
    tracker.skip(9)
    assert tracker.durable == 9


def test_an_open_event_holds_the_cursor_and_all_that_comes_after_it() -> None:
    tracker = CursorTracker(7)
    tracker.begin(10)
    tracker.skip(11)
    tracker.begin(12)
    tracker.done(12)
    assert tracker.durable == 7
    assert tracker.open == 1
    tracker.done(10)
    assert tracker.durable == 12


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=60), st.randoms(use_true_random=False))
def test_in_any_order_the_cursor_stands_before_the_first_open_event(steps, random) -> None:
    tracker, seq, began, open_ = CursorTracker(), 0, [], set()
    for gap, skipped in steps:
        seq += gap
        began.append(seq)
        if skipped:
            tracker.skip(seq)
        else:
            tracker.begin(seq)
            open_.add(seq)
        if open_ and random.random() < 0.5:
            done = random.choice(sorted(open_))
            open_.remove(done)
            tracker.done(done)
        passed = [s for s in began if not open_ or s < min(open_)]
        assert tracker.durable == (max(passed) if passed else None)
        assert tracker.open == len(open_)

"""The committed offset never passes an event that is not done, in whatever order events finish."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.local.dispatcher.offsets import Tracker


def _naive_position(start: int, fetched: Iterable[int], unfinished: set[int]) -> int:
    return min(unfinished, default=max(fetched, default=start - 1) + 1)


@given(st.data())
def test_the_position_is_the_lowest_unfinished_offset_at_every_moment(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 1_000))
    tracker, fetched, unfinished = Tracker(start), [], set[int]()
    committed = start
    for _ in range(data.draw(st.integers(0, 40))):
        if unfinished and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(unfinished)))
            tracker.finish(offset)
            unfinished.remove(offset)
        else:
            offset = (fetched[-1] if fetched else start - 1) + data.draw(st.integers(1, 3))
            fetched.append(offset)
            if data.draw(st.booleans()):
                tracker.begin(offset)
                unfinished.add(offset)
            else:
                tracker.skip(offset)
        assert tracker.position == _naive_position(start, fetched, unfinished)
        assert tracker.unfinished == len(unfinished)
        assert tracker.position >= committed, "a commit never goes back"
        committed = tracker.position


@given(st.permutations(list(range(20))), st.integers(0, 20))
def test_a_crash_redelivers_every_event_that_was_not_done(order: list[int], done: int) -> None:
    tracker = Tracker(0)
    for offset in range(20):
        tracker.begin(offset)
    for offset in order[:done]:
        tracker.finish(offset)
    redelivered = set(range(tracker.position, 20))
    assert set(order[done:]) <= redelivered


def test_an_offset_that_goes_back_is_an_error() -> None:
    tracker = Tracker(10)
    tracker.begin(10)
    with pytest.raises(ValueError, match="offset 10"):
        tracker.skip(10)

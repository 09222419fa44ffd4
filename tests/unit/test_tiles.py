"""A window is covered by tiles exactly: no second twice, none missing, none outside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tollgate.tiles import DAY, GRANULARITIES, HOUR, MINUTE, cover, floor

LENGTHS = st.one_of(
    st.integers(0, 3 * DAY),
    st.builds(
        lambda step, k, off: max(0, step * k + off),
        st.sampled_from(GRANULARITIES),
        st.integers(0, 40),
        st.integers(-2, 2),
    ),
)
STARTS = st.one_of(
    st.integers(0, 2**33),
    st.builds(lambda day, off: max(0, day * DAY + off), st.integers(0, 30_000), st.integers(-HOUR, HOUR)),
)


@given(STARTS, LENGTHS)
def test_a_cover_is_disjoint_and_exactly_the_window(start: int, length: int) -> None:
    ranges = sorted(cover(start, start + length), key=lambda each: each[1])
    second = start
    for _, first, end in ranges:
        assert first == second
        assert end > first
        second = end
    assert second == start + length


@given(STARTS, LENGTHS)
def test_a_cover_holds_whole_tiles_only(start: int, length: int) -> None:
    for granularity, first, end in cover(start, start + length):
        assert first % granularity == 0
        assert end % granularity == 0


@given(STARTS, LENGTHS)
def test_a_cover_uses_fine_tiles_only_at_the_edges(start: int, length: int) -> None:
    for granularity, first, end in cover(start, start + length):
        coarser = {1: MINUTE, MINUTE: HOUR, HOUR: DAY}.get(granularity)
        if coarser is not None:
            whole = floor(end, coarser) - -(-first // coarser) * coarser
            assert whole <= 0, f"{whole} s of {first}..{end} fit tiles of {coarser} s"


def test_an_empty_window_needs_no_tiles() -> None:
    assert cover(100, 100) == []
    assert cover(100, 99) == []


def test_a_window_over_a_minute_boundary_takes_seconds_around_whole_minutes() -> None:
    assert cover(58, 185) == [(1, 58, 60), (60, 60, 180), (1, 180, 185)]

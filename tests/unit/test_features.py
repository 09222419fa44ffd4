"""The feature list is data that training, the stream and the model server can all rely on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import oracle
from tollgate.feature_matrix import WindowSums, assemble
from tollgate.features import FEATURES, LABEL_DELAY, Aggregate, Window, digest, names, retention, windows
from tollgate.store.tile_merge import Event
from tollgate.tiles import DAY, GRANULARITIES, EntityKind, cover

MOMENTS = st.one_of(
    st.integers(10**9, 2 * 10**9),
    st.builds(lambda day, off: day * DAY + off, st.integers(10_000, 25_000), st.integers(-3_700, 3_700)),
)
EVENTS = st.lists(
    st.builds(
        Event,
        st.uuids().map(str),
        st.sampled_from(["c-1", "c-2"]),
        st.sampled_from(["m-1", "m-2"]),
        st.integers(1, 10**8),
        st.integers(1_700_000_000 - 40 * DAY, 1_700_000_000),
    ),
    max_size=30,
)


@given(MOMENTS)
def test_no_window_needs_tiles_older_than_the_retention(t: int) -> None:
    for window in windows():
        for granularity, first, _ in cover(*window.bounds(t)):
            assert t - first <= retention(window.entity, granularity), (window, granularity)


@pytest.mark.parametrize("entity", EntityKind)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_retention_is_no_longer_than_some_window_needs(entity: EntityKind, granularity: int) -> None:
    needed = 0
    for t in range(1_700_000_000, 1_700_000_000 + DAY, 7):
        for window in windows():
            if window.entity == entity:
                needed = max([needed, *(t - first for g, first, _ in cover(*window.bounds(t)) if g == granularity)])
    assert needed <= retention(entity, granularity) <= needed + 2 * max(granularity, 60)


@given(MOMENTS)
def test_a_window_ends_before_the_second_of_its_transaction(t: int) -> None:
    for window in windows():
        start, end = window.bounds(t)
        assert start <= t - window.delay - window.length < start + window.hop
        assert end == t - window.delay <= t


def test_fraud_counts_only_where_labels_have_had_their_time() -> None:
    for feature in FEATURES:
        if feature.aggregate is Aggregate.FRAUD_RATE:
            assert feature.window is not None
            assert feature.window.delay >= LABEL_DELAY


def test_names_are_unique_and_a_ratio_comes_after_what_it_divides_by() -> None:
    assert len(set(names())) == len(FEATURES)
    for i, feature in enumerate(FEATURES):
        if feature.over is not None:
            assert feature.over in names()[:i]


def test_every_change_of_the_definition_changes_the_digest() -> None:
    first, second, *rest = FEATURES
    counted = next(feature for feature in FEATURES if feature.window is not None)
    assert counted.window is not None
    longer = dataclasses.replace(
        counted, window=Window(counted.window.entity, counted.window.length + 1, counted.window.delay)
    )
    changed = [
        (second, first, *rest),
        (first, second),
        (dataclasses.replace(first, name="other"), second, *rest),
        tuple(longer if feature is counted else feature for feature in FEATURES),
    ]
    assert len({digest(), *map(digest, changed)}) == len(changed) + 1


@given(EVENTS, st.data())
def test_equal_sums_give_the_features_of_the_definition_bit_for_bit(events: list[Event], data: st.DataObject) -> None:
    frauds = {event.transaction_id for event in events if data.draw(st.booleans())}
    current = Event("now", "c-1", "m-1", data.draw(st.integers(1, 10**8)), data.draw(MOMENTS.map(_near)))
    sums = {}
    for window in windows():
        whose = current.customer_id if window.entity == EntityKind.CUSTOMER else current.terminal_id
        found = oracle.window_sums(events, frauds, window, whose, current.occurred_s)
        sums[window] = WindowSums(*(np.array([value], np.int64) for value in dataclasses.astuple(found)))
    matrix = assemble(np.array([current.amount_minor]), np.array([current.occurred_s]), sums)
    assert matrix.tobytes() == np.array([oracle.features(events, frauds, current)]).tobytes()


def test_an_unknown_customer_at_an_unknown_terminal_has_its_own_amount_and_else_zeros() -> None:
    sums = {window: WindowSums.zeros(1) for window in windows()}
    row = dict(zip(names(), assemble(np.array([1_250]), np.array([1_700_000_000]), sums)[0], strict=True))
    assert row["amount"] == row["customer_sum_1h"] == row["customer_max_30d"] == row["customer_mean_7d"] == 12.5
    assert row["customer_count_30d"] == row["amount_over_customer_mean_7d"] == 1
    assert row["customer_std_30d"] == row["terminal_count_30d"] == row["terminal_fraud_rate_30d"] == 0


def _near(t: int) -> int:
    return 1_700_000_000 - t % (2 * DAY)

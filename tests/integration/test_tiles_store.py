"""Tiles on a real Postgres: whatever order, batches, duplicates and lateness, windows hold what the events say."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import oracle, stores
from tollgate.errors import Retryable
from tollgate.feature_matrix import assemble
from tollgate.features import windows
from tollgate.local.layout import Layout
from tollgate.store.connection import Connection, connect
from tollgate.store.tile_merge import Event, Fraud, Merged, merge_batch
from tollgate.store.tiles import read_window_sums
from tollgate.tiles import DAY, HOUR, MINUTE, EntityKind

pytestmark = pytest.mark.integration

NOW = 1_700_000_000
ONE = Event("t-1", "c-1", "m-1", 1_250, NOW - HOUR)
AGES = st.one_of(
    st.sampled_from([0, 1, MINUTE, 10 * MINUTE, HOUR, DAY, 7 * DAY, 8 * DAY, 14 * DAY, 30 * DAY, 37 * DAY]).flatmap(
        lambda age: st.integers(max(0, age - 1), age + 1)
    ),
    st.integers(0, 40 * DAY),
)
EVENTS = st.lists(
    st.builds(
        Event,
        st.uuids().map(lambda found: f"t-{found.hex}"),
        st.sampled_from(["c-1", "c-2", "c-3"]),
        st.sampled_from(["m-1", "m-2"]),
        st.integers(1, 10**8),
        AGES.map(lambda age: NOW - age),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda event: event.transaction_id,
)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    with stores.server(tmp_path_factory.mktemp("tiles")) as layout:
        yield layout


@pytest.fixture
def url(postgres: Layout) -> str:
    return stores.fresh(postgres)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    connection = connect(url, application="tests")
    yield connection
    connection.close()


@pytest.fixture
def reader(url: str) -> Iterator[Connection]:
    connection = connect(url, application="tests")
    connection.autocommit = True
    yield connection
    connection.close()


def fraud(event: Event) -> Fraud:
    return Fraud(event.transaction_id, event.customer_id, event.terminal_id, event.occurred_s)


def stored(reader: Connection) -> dict[tuple[int, str, int, int], oracle.Tile]:
    with reader.cursor() as cursor:
        cursor.execute("SELECT * FROM tiles")
        return {row[:4]: row[4:] for row in cursor.fetchall()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.data())
def test_features_from_tiles_are_those_of_the_raw_events_bit_for_bit(
    connection: Connection, reader: Connection, events: list[Event], data: st.DataObject
) -> None:
    with reader.cursor() as cursor:
        cursor.execute("TRUNCATE tiles, tile_events, stream_progress")
    frauds = [fraud(event) for event in events if data.draw(st.booleans())]
    facts = data.draw(st.permutations([*events, *frauds, *events[::2], *frauds[::2]]))
    size = data.draw(st.integers(1, len(facts)))
    for batch_id, first in enumerate(range(0, len(facts), size)):
        batch = facts[first : first + size]
        arrived = (
            [fact for fact in batch if isinstance(fact, Event)],
            [fact for fact in batch if isinstance(fact, Fraud)],
        )
        assert merge_batch(connection, "q", batch_id, *arrived) is not None
        if data.draw(st.booleans()):
            assert merge_batch(connection, "q", data.draw(st.integers(0, batch_id)), *arrived) is None

    assert stored(reader) == oracle.tiles(events, frauds)
    known = {each.transaction_id for each in frauds}
    asked = [event._replace(occurred_s=NOW - data.draw(AGES)) for event in events[:5]]
    sums, newest = read_window_sums(
        reader,
        [event.customer_id for event in asked],
        [event.terminal_id for event in asked],
        [event.occurred_s for event in asked],
        windows(),
    )
    for window in windows():
        for i, event in enumerate(asked):
            whose = event.customer_id if window.entity == EntityKind.CUSTOMER else event.terminal_id
            expected = oracle.window_sums(events, known, window, whose, event.occurred_s)
            assert tuple(int(column[i]) for column in dataclasses.astuple(sums[window])) == dataclasses.astuple(
                expected
            )
    amounts = np.array([event.amount_minor for event in asked])
    matrix = assemble(amounts, np.array([event.occurred_s for event in asked]), sums)
    assert matrix.tobytes() == np.array([oracle.features(events, known, event) for event in asked]).tobytes()
    assert newest == datetime.fromtimestamp(max(event.occurred_s for event in events), UTC)


def test_a_batch_says_what_was_new_in_it(connection: Connection) -> None:
    other = ONE._replace(transaction_id="t-2")
    assert merge_batch(connection, "q", 0, [ONE, ONE], [fraud(ONE), fraud(ONE)]) == Merged(1, 1)
    assert merge_batch(connection, "q", 1, [ONE, other], [fraud(ONE)]) == Merged(1, 0)
    assert merge_batch(connection, "q", 2, [], []) == Merged(0, 0)


def test_a_replayed_batch_is_refused_and_another_query_is_not(connection: Connection, reader: Connection) -> None:
    merge_batch(connection, "q", 7, [ONE], [])
    assert merge_batch(connection, "q", 7, [ONE._replace(transaction_id="t-2")], []) is None
    assert merge_batch(connection, "q", 6, [ONE._replace(transaction_id="t-3")], []) is None
    assert merge_batch(connection, "of another checkpoint", 0, [ONE], []) == Merged(0, 0)
    assert stored(reader) == oracle.tiles([ONE], [])


def test_a_label_before_its_transaction_is_counted_once(connection: Connection, reader: Connection) -> None:
    merge_batch(connection, "q", 0, [], [fraud(ONE)])
    assert stored(reader) == oracle.tiles([], [fraud(ONE)])
    merge_batch(connection, "q", 1, [ONE], [fraud(ONE)])
    merge_batch(connection, "q", 2, [ONE], [fraud(ONE)])
    assert stored(reader) == oracle.tiles([ONE], [fraud(ONE)])


def test_the_first_body_under_an_id_is_the_one_that_counts(connection: Connection, reader: Connection) -> None:
    merge_batch(connection, "q", 0, [ONE, ONE._replace(amount_minor=9)], [])
    merge_batch(connection, "q", 1, [ONE._replace(customer_id="c-9")], [])
    assert stored(reader) == oracle.tiles([ONE], [])


def test_merges_at_the_same_time_count_each_fact_once(url: str, reader: Connection) -> None:
    events = [ONE._replace(transaction_id=f"t-{i}", customer_id=f"c-{i % 7}") for i in range(500)]
    frauds = [fraud(event) for event in events[::3]]
    barrier = threading.Barrier(4)

    def merge(query: int) -> Merged | None:
        own = connect(url, application="tests", statement_timeout_ms=60_000)
        try:
            barrier.wait(30)
            half = events if query % 2 else events[::-1]
            return merge_batch(own, f"q{query}", 0, half, frauds)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as threads:
        merged = [each for each in threads.map(merge, range(4)) if each is not None]
    assert sum(each.events for each in merged) == len(events)
    assert sum(each.frauds for each in merged) == len(frauds)
    assert stored(reader) == oracle.tiles(events, frauds)


def test_a_flood_of_largest_amounts_does_not_overflow(connection: Connection, reader: Connection) -> None:
    flood = [ONE._replace(transaction_id=f"t-{i}", amount_minor=10**8) for i in range(1_000)]
    merge_batch(connection, "q", 0, flood, [])
    merge_batch(connection, "q", 1, [event._replace(transaction_id=f"{event[0]}-2") for event in flood], [])
    (sums, _) = read_window_sums(reader, ["c-1"], ["m-1"], [NOW], windows())
    matrix = assemble(np.array([1]), np.array([NOW]), sums)
    assert np.isfinite(matrix).all()


def test_an_interrupted_merge_leaves_nothing(url: str, reader: Connection) -> None:
    waiting = connect(url, application="tests", statement_timeout_ms=200)
    try:
        with reader.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE tiles IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Retryable):
                merge_batch(waiting, "q", 0, [ONE], [fraud(ONE)])
            cursor.execute("COMMIT")
        assert stored(reader) == {}
        assert merge_batch(waiting, "q", 0, [ONE], [fraud(ONE)]) == Merged(1, 1)
    finally:
        waiting.close()


def test_an_empty_store_gives_zeros_and_no_time(reader: Connection) -> None:
    sums, newest = read_window_sums(reader, ["c-1"], ['"; DROP TABLE tiles; {\\'], [NOW], windows())
    assert newest is None
    assert all(not column.any() for each in sums.values() for column in dataclasses.astuple(each))


def test_no_pairs_still_say_how_new_the_tiles_are(connection: Connection, reader: Connection) -> None:
    merge_batch(connection, "q", 0, [ONE], [])
    sums, newest = read_window_sums(reader, [], [], [], windows())
    assert newest == datetime.fromtimestamp(ONE.occurred_s, UTC)
    assert {each.n.shape for each in sums.values()} == {(0,)}


def test_a_batch_without_transactions_does_not_make_the_tiles_look_newer(
    connection: Connection, reader: Connection
) -> None:
    merge_batch(connection, "q", 0, [], [fraud(ONE)])
    assert read_window_sums(reader, [], [], [], windows())[1] is None

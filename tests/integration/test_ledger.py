"""The ledger and the labels on a real Postgres: once for each transaction, whoever comes when."""

from __future__ import annotations

import math
import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import psycopg2
import pytest

from kit import events, stores
from tollgate.decision import Contribution, Decided, Outcome
from tollgate.errors import Reason, Rejected, Retryable
from tollgate.local.layout import Layout
from tollgate.store import labels, ledger
from tollgate.store.connection import Connection, connect, retryable

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    with stores.server(tmp_path_factory.mktemp("ledger")) as layout:
        yield layout


@pytest.fixture
def url(postgres: Layout) -> str:
    return stores.fresh(postgres)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    connection = connect(url, application="tests")
    yield connection
    connection.close()


def at_once(url: str, work: Sequence[Callable[[Connection], object]]) -> list[object]:
    """Run each on a connection of its own, all starting at the same moment; an error is its result."""
    barrier = threading.Barrier(len(work))

    def one(each: Callable[[Connection], object]) -> object:
        connection = connect(url, application="tests")
        try:
            barrier.wait(30)
            return each(connection)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(one, work))


def count(connection: Connection, table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def test_what_is_recorded_is_what_is_found(connection: Connection) -> None:
    made = events.decided(events.transaction(channel="online", country="DE"))
    recorded = ledger.record(connection, made)
    found = ledger.find(connection, made.transaction.transaction_id)
    assert recorded == ledger.Recorded(made.decision, first=True)
    assert found == made


def test_an_unknown_transaction_is_not_found(connection: Connection) -> None:
    assert ledger.find(connection, "nobody-knows") is None


def test_the_same_again_gives_the_stored_decision_byte_for_byte(connection: Connection) -> None:
    transaction = events.transaction()
    first = ledger.record(connection, events.decided(transaction))
    again = ledger.record(
        connection, events.decided(transaction, outcome=Outcome.APPROVE, probability=0.5, latency_ms=99.0)
    )
    assert (first.first, again.first) == (True, False)
    assert msgspec.json.encode(again.decision) == msgspec.json.encode(first.decision)


def any_float(rng: random.Random) -> float:
    """Any finite double: all bit patterns are equally likely."""
    while True:
        (value,) = struct.unpack("<d", rng.randbytes(8))
        if math.isfinite(value):
            return float(value)


def any_moment(rng: random.Random) -> datetime:
    """Any microsecond in any zone."""
    zone = timezone(timedelta(minutes=rng.randint(-14 * 60, 14 * 60)))
    return datetime.fromtimestamp(rng.randrange(10**9), zone) + timedelta(microseconds=rng.randrange(10**6))


def any_decision(rng: random.Random) -> Decided:
    return events.decided(
        events.transaction(),
        probability=rng.choice([-0.0, 1.0, 5e-324, rng.random()]),
        reasons=[Contribution("f\U0001f600\\\"'%s", any_float(rng), any_float(rng)), Contribution("", -0.0, 0.0)],
        policy_version="a\nb\\n'é",
        features_as_of=rng.choice([None, any_moment(rng)]),
        requested_at=any_moment(rng),
        decided_at=any_moment(rng),
        latency_ms=rng.choice([-0.0, any_float(rng)]),
    )


def test_the_answer_to_the_first_delivery_is_byte_for_byte_that_to_the_next(connection: Connection) -> None:
    rng = random.Random(4)
    made = [any_decision(rng) for _ in range(300)]
    first, again = ledger.record_many(connection, made), ledger.record_many(connection, made)
    for one, two, asked in zip(first, again, made, strict=True):
        assert isinstance(one, ledger.Recorded)
        assert isinstance(two, ledger.Recorded)
        assert (one.first, two.first) == (True, False)
        assert msgspec.json.encode(one.decision) == msgspec.json.encode(two.decision)
        assert one.decision == asked.decision


def test_of_one_delivery_twice_in_a_batch_only_one_is_the_first(connection: Connection) -> None:
    made = events.decided(events.transaction())
    results = ledger.record_many(connection, [made, made])
    assert results == [ledger.Recorded(made.decision, first=True), ledger.Recorded(made.decision, first=False)]


def test_a_partition_that_was_dropped_is_made_again(connection: Connection) -> None:
    for _ in range(2):
        assert ledger.record(connection, events.decided(events.transaction())).first
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE ledger_20260501")


def test_a_decision_whose_day_has_left_the_ledger_is_not_made_again(connection: Connection) -> None:
    made = events.decided(events.transaction())
    ledger.record(connection, made)
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE ledger_20260501")
    with pytest.raises(Rejected, match="left the ledger"):
        ledger.record(connection, made)


def test_another_body_under_the_same_id_is_a_conflict_and_changes_nothing(connection: Connection) -> None:
    transaction = events.transaction()
    other = msgspec.structs.replace(transaction, amount_minor=transaction.amount_minor + 1)
    first = ledger.record(connection, events.decided(transaction))
    with pytest.raises(Rejected) as rejected:
        ledger.record(connection, events.decided(other))
    assert rejected.value.reason is Reason.CONFLICT
    assert ledger.decisions(connection, [transaction.transaction_id]) == {transaction.transaction_id: first.decision}


def test_another_body_on_another_day_is_a_conflict_too(connection: Connection) -> None:
    transaction = events.transaction()
    tomorrow = msgspec.structs.replace(transaction, occurred_at=transaction.occurred_at + timedelta(days=1))
    ledger.record(connection, events.decided(transaction))
    with pytest.raises(Rejected, match="another body"):
        ledger.record(connection, events.decided(tomorrow))
    assert count(connection, "ledger") == 1


def test_a_batch_answers_each_in_its_place(connection: Connection) -> None:
    old, new = events.transaction(), events.transaction()
    ledger.record(connection, events.decided(old))
    batch = [
        events.decided(new),
        events.decided(msgspec.structs.replace(old, amount_minor=1)),
        events.decided(new, probability=0.9),
        events.decided(msgspec.structs.replace(new, amount_minor=2)),
        events.decided(old),
    ]
    results = ledger.record_many(connection, batch)
    kinds = [each.reason if isinstance(each, Rejected) else each.decision.probability for each in results]
    assert kinds == [0.1 + 0.2, Reason.CONFLICT, 0.1 + 0.2, Reason.CONFLICT, 0.1 + 0.2]
    assert count(connection, "ledger") == count(connection, "ledger_ids") == 2


def test_a_hundred_deliveries_at_once_make_one_row_and_a_hundred_equal_answers(
    url: str, connection: Connection
) -> None:
    transaction = events.transaction()
    decisions = [events.decided(transaction, latency_ms=float(i)) for i in range(50)]
    work = [lambda c, made=made: ledger.record(c, made) for made in decisions]
    results = at_once(url, work) + at_once(url, work)
    assert all(isinstance(each, ledger.Recorded) for each in results), results
    recorded = [each for each in results if isinstance(each, ledger.Recorded)]
    assert len({msgspec.json.encode(each.decision) for each in recorded}) == 1
    assert sum(each.first for each in recorded) == 1
    assert count(connection, "ledger") == 1


def test_of_many_bodies_under_one_id_at_once_exactly_one_wins(url: str, connection: Connection) -> None:
    transaction = events.transaction()
    bodies = [
        msgspec.structs.replace(
            transaction, amount_minor=100 + i, occurred_at=transaction.occurred_at + timedelta(days=i % 3)
        )
        for i in range(40)
    ]
    results = at_once(url, [lambda c, t=t: ledger.record(c, events.decided(t)) for t in bodies])
    winners = [t for t, result in zip(bodies, results, strict=True) if isinstance(result, ledger.Recorded)]
    losers = [each for each in results if isinstance(each, Rejected) and each.reason is Reason.CONFLICT]
    assert (len(winners), len(losers)) == (1, 39), results
    found = ledger.find(connection, transaction.transaction_id)
    assert found is not None
    assert found.transaction == winners[0]


def test_batches_that_share_ids_in_opposite_orders_do_not_deadlock(url: str, connection: Connection) -> None:
    made = [events.decided(events.transaction()) for _ in range(40)]
    orders = [made, made[::-1]] * 6
    results = at_once(url, [lambda c, batch=batch: ledger.record_many(c, batch) for batch in orders])
    assert all(isinstance(each, list) for each in results), results
    assert count(connection, "ledger") == 40


def test_the_first_transactions_of_new_days_may_come_at_once(url: str, connection: Connection) -> None:
    start = datetime(2031, 1, 1, tzinfo=UTC)
    made = [
        events.decided(events.transaction(occurred_at=(start + timedelta(days=i % 10)).isoformat())) for i in range(40)
    ]
    results = at_once(url, [lambda c, each=each: ledger.record(c, each) for each in made])
    assert all(isinstance(each, ledger.Recorded) for each in results), results
    assert count(connection, "ledger") == 40
    assert count(connection, "pg_inherits WHERE inhparent = 'ledger'::regclass") == 10


def test_a_new_day_does_not_wait_for_a_reader_of_the_ledger(url: str, connection: Connection) -> None:
    ledger.record(connection, events.decided(events.transaction()))
    reader = connect(url, application="tests")
    try:
        assert ledger.summary(reader).decided == 1  # and its transaction stays open
        result = ledger.record(connection, events.decided(events.transaction(occurred_at="2031-06-01T00:00:00Z")))
        assert result.first
    finally:
        reader.close()


def test_the_day_is_that_of_utc(connection: Connection) -> None:
    ledger.record(connection, events.decided(events.transaction(occurred_at="2031-06-02T01:30:00+02:00")))
    assert count(connection, "ledger_20310601") == 1


def test_a_batch_that_fails_leaves_nothing(connection: Connection) -> None:
    good = events.decided(events.transaction())
    bad = msgspec.structs.replace(events.decided(events.transaction()), features_hash="nul\x00")
    with pytest.raises(psycopg2.DataError, match="Unicode"):
        ledger.record_many(connection, [good, bad])
    assert count(connection, "ledger_ids") == count(connection, "ledger") == 0
    assert ledger.record(connection, good).first


def test_a_server_that_is_away_is_temporary_trouble() -> None:
    with pytest.raises(Retryable, match="Postgres is away"):
        connect("postgresql://nobody@127.0.0.1:1/none", application="tests")


def test_a_connection_that_was_cut_is_temporary_trouble(url: str, connection: Connection) -> None:
    pid = connection.get_backend_pid()
    other = psycopg2.connect(url)
    with other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
    other.close()
    with pytest.raises(Retryable), retryable():
        ledger.record(connection, events.decided(events.transaction()))


def _decided(outcome: Outcome, latency_ms: float = 1.0) -> Decided:
    return events.decided(events.transaction(), outcome=outcome, latency_ms=latency_ms)


def test_the_summary_counts_by_outcome_and_knows_the_latency(connection: Connection) -> None:
    outcomes = [Outcome.APPROVE] * 97 + [Outcome.DECLINE] * 4
    ledger.record_many(connection, [_decided(o, latency_ms=float(i)) for i, o in enumerate(outcomes)])
    summary = ledger.summary(connection)
    assert summary.outcomes == {Outcome.APPROVE: 97, Outcome.REVIEW: 0, Outcome.DECLINE: 4}
    assert (summary.decided, summary.degraded) == (101, 0)
    assert (summary.latency_p50_ms, summary.latency_p99_ms) == (50.0, 99.0)


def test_the_summary_of_a_time_without_decisions_is_empty(connection: Connection) -> None:
    ledger.record(connection, _decided(Outcome.REVIEW))
    summary = ledger.summary(connection, since=datetime.now(UTC) + timedelta(hours=1))
    assert (summary.decided, summary.latency_p50_ms, summary.latency_p99_ms) == (0, None, None)


def test_the_latest_come_newest_first_and_by_outcome(connection: Connection) -> None:
    made = [_decided(outcome) for outcome in (*Outcome, *Outcome)]
    for each in made:
        ledger.record(connection, each)
    assert ledger.latest(connection) == made[::-1]
    assert ledger.latest(connection, 1, [Outcome.REVIEW]) == [made[4]]


def test_quality_compares_what_was_flagged_with_what_was_fraud(connection: Connection) -> None:
    cases = {
        (Outcome.DECLINE, True): 3,
        (Outcome.REVIEW, True): 1,
        (Outcome.DECLINE, False): 1,
        (Outcome.APPROVE, True): 2,
        (Outcome.APPROVE, False): 5,
    }
    everything = []
    for (outcome, is_fraud), times in cases.items():
        for _ in range(times):
            made = _decided(outcome)
            everything.append(made.transaction.transaction_id)
            ledger.record(connection, made)
            labels.write(connection, events.label(made.transaction, is_fraud=is_fraud))
    ledger.record(connection, _decided(Outcome.DECLINE))  # not labelled
    labels.write(connection, events.label(events.transaction()))  # never decided
    quality = ledger.quality(connection)
    assert quality == ledger.Quality(labelled=12, frauds=6, flagged=5, caught=4)
    assert (quality.precision, quality.recall) == (4 / 5, 4 / 6)
    assert ledger.quality(connection, everything[:4]) == ledger.Quality(labelled=4, frauds=4, flagged=4, caught=4)


def test_quality_without_labels_is_unknown_and_not_zero(connection: Connection) -> None:
    ledger.record(connection, _decided(Outcome.DECLINE))
    quality = ledger.quality(connection)
    assert (quality.precision, quality.recall) == (None, None)


def test_of_two_sources_the_newer_verdict_counts(connection: Connection) -> None:
    made = _decided(Outcome.DECLINE)
    ledger.record(connection, made)
    labels.write(connection, events.label(made.transaction, is_fraud=True, source="chargeback", day=9))
    labels.write(connection, events.label(made.transaction, is_fraud=False, source="analyst", day=10))
    assert ledger.quality(connection).frauds == 0
    assert labels.of(connection, made.transaction.transaction_id) == {"chargeback": True, "analyst": False}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1, 2, 0)])
def test_the_later_verdict_of_a_source_stands_in_whatever_order_they_come(
    connection: Connection, order: tuple[int, ...]
) -> None:
    transaction = events.transaction()
    verdicts = [
        events.label(transaction, is_fraud=True, day=8),
        events.label(transaction, is_fraud=False, day=9),
        events.label(transaction, is_fraud=True, day=10),
    ]
    standing = [labels.write(connection, verdicts[i]) for i in order]
    assert standing[-1] == verdicts[2]
    assert labels.of(connection, transaction.transaction_id) == {"chargeback": True}


def test_labels_in_one_batch_see_the_same_standing_verdict(connection: Connection) -> None:
    transaction = events.transaction()
    early = events.label(transaction, is_fraud=True, day=8)
    late = events.label(transaction, is_fraud=False, day=9)
    assert labels.write_many(connection, [late, early, late]) == [late, late, late]
    assert count(connection, "labels") == 1


def test_the_answer_to_a_label_is_the_same_bytes_each_time(connection: Connection) -> None:
    zone = timezone(timedelta(hours=2))
    made = events.label(events.transaction())
    there = msgspec.structs.replace(made, labelled_at=made.labelled_at.astimezone(zone))
    first, again = labels.write(connection, there), labels.write(connection, there)
    assert msgspec.json.encode(first) == msgspec.json.encode(again) == msgspec.json.encode(made)


def test_old_and_new_labels_in_one_batch_are_each_answered_with_what_stands(connection: Connection) -> None:
    known, new = events.transaction(), events.transaction()
    standing = labels.write(connection, events.label(known, day=9))
    late, older = events.label(new, day=8), events.label(known, is_fraud=False, day=8)
    other = events.label(known, is_fraud=False, source="analyst", day=3)
    assert labels.write_many(connection, [older, late, other]) == [standing, late, other]


def test_verdicts_of_one_source_at_once_end_with_the_latest(url: str, connection: Connection) -> None:
    transaction = events.transaction()
    verdicts = [events.label(transaction, is_fraud=day % 2 == 0, day=day) for day in range(1, 29)]
    results = at_once(url, [lambda c, each=each: labels.write(c, each) for each in verdicts])
    assert not [each for each in results if isinstance(each, Exception)]
    assert labels.write(connection, verdicts[0]) == verdicts[-1]

"""The live stream: what is published, how fast, and that a restart continues it as if nothing had happened."""

from __future__ import annotations

import time
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError, Retryable
from tollgate.simulator import stream as stream_module
from tollgate.simulator.options import US, Position
from tollgate.simulator.publisher import KafkaPublisher
from tollgate.simulator.records import WorldSource
from tollgate.simulator.stream import Pacer, Sent, Stream
from tollgate.simulator.world import World
from tollgate.transaction import parse_label, parse_transaction
from unit.simulator_listener import SMALL, Heard, Listener

WORLD = World(SMALL)
START = Position(9, 0)


def stream_to(listener: Listener, start: Position = START) -> Stream:
    return Stream(WorldSource(WORLD), listener, start)


def test_transactions_on_the_wire_are_the_worlds_and_parse_as_the_contract_says() -> None:
    listener = Listener()
    stream_to(listener).run(300)
    days = [WORLD.day(d) for d in range(9, 13)]
    expected = [row for day in days for row in day.table().to_pylist()]
    heard = listener.on("transactions")
    assert len(heard) == 300
    for record, row in zip(heard, expected, strict=False):
        parsed = parse_transaction(record.value)
        assert parsed.channel is None
        for name in ("transaction_id", "customer_id", "terminal_id", "amount_minor", "currency", "occurred_at"):
            assert getattr(parsed, name) == row[name]
        assert record.key == row["customer_id"]
        assert not record.headers


def test_labels_follow_when_event_time_passes_them_beginning_with_the_last_days_of_history() -> None:
    listener = Listener()
    sent = stream_to(listener).run(300)
    history_ends = WORLD.clock_us(START)
    now_us = WORLD.clock_us(sent.position)
    rows = {r["transaction_id"]: r for d in range(13) for r in WORLD.day(d).table().to_pylist()}
    due = [
        (us, f"t-{d:06d}-{i:06d}")
        for d in range(13)
        for i, us in enumerate(WORLD.day(d).labelled_us.tolist())
        if history_ends < us <= now_us
    ]
    heard = listener.on("labels")
    assert [r.key for r in heard] == [key for _, key in sorted(due)]
    assert sent.labels == len(heard) > 0
    for record in heard:
        label = parse_label(record.value)
        row = rows[label.transaction_id]
        for name in ("customer_id", "terminal_id", "occurred_at", "is_fraud", "labelled_at"):
            assert getattr(label, name) == row[name]
        assert label.source == "chargeback"


def test_a_label_never_comes_before_its_time() -> None:
    listener = Listener()
    stream_to(listener).run(300)
    clock = [parse_transaction(r.value).occurred_at.timestamp() for r in listener.on("transactions")]
    position = 0
    for record in listener.records:
        if record.topic == "transactions":
            position += 1
        else:
            assert parse_label(record.value).labelled_at.timestamp() <= clock[position]


@given(st.integers(0, 350), st.integers(0, 350), st.integers(0, 130))
@settings(max_examples=25, deadline=None)
def test_a_stream_in_two_runs_is_the_stream_in_one(first: int, second: int, index: int) -> None:
    start = Position(8, index)
    whole, parts = Listener(), Listener()
    one = stream_to(whole, start).run(first + second)
    middle = stream_to(parts, start).run(first)
    end = stream_to(parts, middle.position).run(second)
    assert [r.without_time() for r in parts.records] == [r.without_time() for r in whole.records]
    assert end.position == one.position
    assert middle.labels + end.labels == one.labels


def test_a_second_run_of_one_stream_goes_on_where_the_first_stopped() -> None:
    whole, parts = Listener(), Listener()
    stream_to(whole).run(200)
    stream = stream_to(parts)
    stream.run(80)
    stream.run(120)
    assert [r.without_time() for r in parts.records] == [r.without_time() for r in whole.records]


def test_flushing_publishes_the_labels_of_what_was_streamed_each_once_and_no_others() -> None:
    listener = Listener()
    stream = stream_to(listener)
    stream.run(50)
    before = len(listener.on("labels"))
    assert stream.flush_labels() == 50
    flushed = [r.key for r in listener.on("labels")[before:]]
    assert flushed == [parse_transaction(r.value).transaction_id for r in listener.on("transactions")]
    assert listener.confirmed == len(listener.records)
    assert stream.flush_labels() == 0
    stream.run(30)
    assert stream.flush_labels() == 30


def test_everything_reported_is_confirmed_first() -> None:
    listener = Listener()
    reports: list[tuple[Sent, int]] = []
    stream_to(listener).run(20, rate=400, report=lambda s: reports.append((s, listener.confirmed)), report_every_s=0.01)
    assert len(reports) >= 3
    for sent, confirmed in reports:
        assert sent.transactions + sent.labels == confirmed
    assert reports[-1][0].transactions == 20


def test_the_rate_is_kept_by_every_single_transaction() -> None:
    listener = Listener()
    stream = stream_to(listener)
    started = time.monotonic()
    stream.run(60, rate=200)
    for number, record in enumerate(listener.on("transactions")):
        assert record.at - started >= number / 200


def test_what_a_pause_delays_is_caught_up() -> None:
    pacer = Pacer(100, Event())
    time.sleep(0.5)
    started = time.monotonic()
    for _ in range(50):
        assert pacer.wait()
    assert time.monotonic() - started < 0.25


def test_a_stop_is_honoured_while_waiting_and_the_position_is_the_next_transaction() -> None:
    stop = Event()

    def stop_after_five(heard: Heard) -> None:
        if heard.topic == "transactions" and heard.body["transaction_id"] == "t-000009-000004":
            stop.set()

    listener = Listener(stop_after_five)
    started = time.monotonic()
    sent = stream_to(listener).run(None, rate=50, stop=stop)
    assert time.monotonic() - started < 10
    assert sent.transactions == 5
    assert sent.position == Position(9, 5)


def test_an_endless_run_ends_when_it_is_told_to() -> None:
    stop = Event()
    listener = Listener(lambda heard: stop.set())
    assert stream_to(listener).run(stop=stop).transactions == 1


def test_kafka_away_is_said_when_the_stream_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STOP_FLUSH_S", 0.2)
    stop = Event()
    stop.set()
    with KafkaPublisher("127.0.0.1:1") as away:
        away.publish("transactions", "c-00001", b"{}")
        with pytest.raises(Retryable, match="did not confirm"):
            Stream(WorldSource(WORLD), away, START).run(1, stop=stop)


def test_an_unreachable_kafka_confirms_nothing() -> None:
    with KafkaPublisher("127.0.0.1:1") as away:
        away.publish("transactions", "c-00001", b"{}")
        assert not away.flush(0.1)


def test_the_clock_at_a_position_is_the_latest_transaction_before_it() -> None:
    day = WORLD.day(9)
    assert WORLD.clock_us(Position(9, 1)) == day.occurred_us[0]
    assert WORLD.clock_us(Position(10, 0)) == day.occurred_us[-1] == WORLD.clock_us(Position(9, len(day)))
    assert WORLD.clock_us(Position(0, 0)) == SMALL.day_start_us(0)
    assert np.diff([WORLD.clock_us(Position(9, i)) for i in range(5)]).min() >= 0
    assert WORLD.clock_us(Position(0, 0)) % (86_400 * US) == 0


def test_negative_rates_and_counts_are_refused() -> None:
    for wrong in ({"count": -1}, {"rate": -1.0}):
        with pytest.raises(ConfigurationError, match="negative"):
            stream_to(Listener()).run(**wrong)  # type: ignore[arg-type]

"""record and label as their own processes on a real Postgres: durable before they answer, once whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
import pytest

from kit import events, stores
from kit.function_process import Answer, FunctionProcess, environment
from tollgate.decision import Decided, Decision, Outcome
from tollgate.events import LABELLED, RECORDED, CloudEvent
from tollgate.local import postgres as postgres_part
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor
from tollgate.store import labels, ledger, ledger_rows
from tollgate.store.connection import Connection, connect, migrate
from tollgate.transaction import Label
from tollgate_functions.lanes import Lanes

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def python() -> Path:
    return environment(Layout.resolve())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stores.server(tmp_path_factory.mktemp("store")) as layout:
        yield stores.fresh(layout)


@pytest.fixture(scope="module")
def record(python: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    folder = tmp_path_factory.mktemp("record")
    with FunctionProcess(python, "record", {"TOLLGATE_DATABASE_URL": url}, folder) as process:
        yield process


@pytest.fixture(scope="module")
def label(python: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    folder = tmp_path_factory.mktemp("label")
    with FunctionProcess(python, "label", {"TOLLGATE_DATABASE_URL": url}, folder) as process:
        yield process


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    connection = connect(url, application="tests")
    connection.autocommit = True
    yield connection
    connection.close()


def reason(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["reason"]


def read(answer: Answer) -> Decision:
    assert answer.status == 200, answer
    return msgspec.json.decode(answer.event().data, type=Decision)


def label_event(made: Label) -> CloudEvent:
    return events.from_kafka_source(msgspec.json.encode(made), stream="labels")


def test_the_reply_is_the_contracts_recorded_event_with_the_stored_decision(
    record: FunctionProcess, connection: Connection
) -> None:
    made = events.decided(events.transaction())
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    (answer,) = record.deliver(events.decided_event(made, traceparent=trace))
    reply, name = answer.event(), made.transaction.transaction_id
    assert (reply.type, reply.source, reply.id, reply.subject) == (RECORDED, "/tollgate/record", name, name)
    assert reply.extensions == {
        "correlationid": name,
        "partitionkey": name,
        "origin": "transactions/3/5",
        "traceparent": trace,
    }
    assert read(answer) == made.decision
    assert ledger.find(connection, name) == made


def test_a_hundred_deliveries_at_once_make_one_row_and_a_hundred_equal_replies(
    record: FunctionProcess, connection: Connection
) -> None:
    transaction = events.transaction()
    made = [events.decided(transaction, latency_ms=float(i)) for i in range(100)]
    answers = record.deliver(*map(events.decided_event, made))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ledger WHERE transaction_id = %s", (transaction.transaction_id,))
        assert cursor.fetchone() == (1,)


def test_the_reply_is_the_same_bytes_for_the_first_delivery_and_for_the_next(record: FunctionProcess) -> None:
    here = events.decided(events.transaction())
    there = here.decision.decided_at.astimezone(timezone(timedelta(hours=-3)))
    made = msgspec.structs.replace(here, decision=msgspec.structs.replace(here.decision, decided_at=there))
    (first,), (again,) = record.deliver(events.decided_event(made)), record.deliver(events.decided_event(made))
    assert first.body == again.body == msgspec.json.encode(ledger_rows.stored(here.decision))
    assert first.event() == again.event()


def test_of_many_bodies_under_one_id_at_once_exactly_one_wins(record: FunctionProcess, connection: Connection) -> None:
    transaction = events.transaction()
    bodies = [msgspec.structs.replace(transaction, amount_minor=1 + i) for i in range(50)]
    sample = 'tollgate_dead_letters_total{reason="conflict"}'
    before = record.metric(sample)
    answers = record.deliver(*(events.decided_event(events.decided(each)) for each in bodies))
    won = [each for each, answer in zip(bodies, answers, strict=True) if answer.status == 200]
    assert len(won) == 1
    assert [reason(answer) for answer in answers if answer.status != 200] == [(422, "conflict")] * 49
    assert record.metric(sample) == before + 49
    found = ledger.find(connection, transaction.transaction_id)
    assert found is not None
    assert found.transaction == won[0]


def test_many_different_ones_at_once_are_each_answered_with_their_own(record: FunctionProcess) -> None:
    made = [events.decided(events.transaction(), latency_ms=float(i)) for i in range(300)]
    answers = record.deliver(*map(events.decided_event, made))
    assert [read(answer) for answer in answers] == [each.decision for each in made]


def test_one_that_fails_does_not_spoil_those_that_wait_with_it(url: str) -> None:
    def work(connection: Connection, items: Sequence[int]) -> list[int]:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 100 / unnest(%s)", (list(items),))
            return [value for (value,) in cursor]

    async def run() -> list[int | BaseException]:
        lanes: Lanes[int, int] = Lanes(url, "tests", work)
        try:
            return await asyncio.gather(*map(lanes.submit, [1, 2, 0, 4, 5]), return_exceptions=True)
        finally:
            lanes.close()

    one, two, zero, four, five = asyncio.run(run())
    assert (one, two, four, five) == (100, 50, 25, 20)
    assert isinstance(zero, psycopg2.errors.DivisionByZero)


def _broken(**changes: Any) -> bytes:
    document = json.loads(msgspec.json.encode(events.decided(events.transaction())))
    for path, value in changes.items():
        inner, name = path.split("__")
        document[inner][name] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"{}", "invalid_field"),
        (b"[]", "invalid_field"),
        (_broken(decision__outcome="maybe"), "invalid_field"),
        (_broken(decision__probability=1.5), "invalid_field"),
        (_broken(decision__transaction_id="another"), "invalid_field"),
        (_broken(decision__decided_at="2026-05-01T12:00:00"), "invalid_field"),
        (_broken(decision__features_as_of="9999-12-31T23:59:59-01:00"), "invalid_field"),
        (_broken(decision__policy_version="nul\x00"), "invalid_field"),
        (_broken(transaction__amount_minor=0), "invalid_field"),
        (_broken(transaction__customer_id="4111111111111111"), "card_number"),
    ],
)
def test_what_is_no_decision_is_answered_422_and_not_recorded(
    record: FunctionProcess, connection: Connection, data: bytes, expected: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ledger")
        before = cursor.fetchone()
        (answer,) = record.deliver(
            msgspec.structs.replace(events.decided_event(events.decided(events.transaction())), data=data)
        )
        assert reason(answer) == (422, expected)
        cursor.execute("SELECT count(*) FROM ledger")
        assert cursor.fetchone() == before


def test_an_event_of_another_type_is_answered_422(record: FunctionProcess, label: FunctionProcess) -> None:
    transaction = events.from_kafka_source(json.dumps(events.body()).encode())
    assert reason(record.deliver(transaction)[0]) == (422, "unknown_event_type")
    assert reason(label.deliver(transaction)[0]) == (422, "unknown_event_type")
    made = events.decided_event(events.decided(events.transaction()))
    assert reason(label.deliver(made)[0]) == (422, "unknown_event_type")


def test_a_label_is_stored_and_answered_with_the_contracts_labelled_event(
    label: FunctionProcess, connection: Connection
) -> None:
    made = events.label(events.transaction())
    (answer,) = label.deliver(label_event(made))
    reply = answer.event()
    assert (reply.type, reply.source) == (LABELLED, "/tollgate/label")
    assert (reply.id, reply.subject) == (f"{made.transaction_id}/chargeback", made.transaction_id)
    assert reply.extensions["origin"] == "labels/3/5"
    assert msgspec.json.decode(reply.data, type=Label) == made
    assert labels.of(connection, made.transaction_id) == {"chargeback": True}


def test_labels_in_any_order_at_once_end_with_the_latest_verdict(
    label: FunctionProcess, connection: Connection
) -> None:
    transaction = events.transaction()
    made = [events.label(transaction, is_fraud=day % 2 == 0, day=day) for day in range(1, 29)] * 3
    answers = label.deliver(*map(label_event, made))
    assert {answer.status for answer in answers} == {200}
    assert labels.of(connection, transaction.transaction_id) == {"chargeback": True}
    (again,) = label.deliver(label_event(made[0]))
    assert msgspec.json.decode(again.event().data, type=Label) == made[27]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{", "malformed_json"),
        (b"{}", "missing_field"),
        (json.dumps({**json.loads(msgspec.json.encode(events.label(events.transaction()))), "is_fraud": 1}).encode(),
         "invalid_field"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_answered_422(label: FunctionProcess, data: bytes, expected: str) -> None:
    assert reason(label.deliver(events.from_kafka_source(data, stream="labels"))[0]) == (422, expected)


def test_while_postgres_is_away_nothing_is_acknowledged_and_afterwards_it_goes_on(
    python: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("away")
    layout = stores.elsewhere(folder)
    made = [events.decided(events.transaction()) for _ in range(20)]
    batch = [events.decided_event(each) for each in made]
    try:
        layout.create()
        settings = {"TOLLGATE_DATABASE_URL": layout.database_url().reveal()}
        with FunctionProcess(python, "record", settings, folder) as record:
            for _ in range(2):  # never there, then there and gone
                answers = record.deliver(*batch)
                assert {reason(answer) for answer in answers} == {(503, "retryable")}
                assert {answer.headers["retry-after"] for answer in answers} == {"1"}
                with Supervisor(layout) as supervisor:
                    supervisor.start(postgres_part.part(layout))
                    supervisor.wait_ready()
                    migrate(layout.database_url().reveal())
                    for _ in range(3):
                        answers = record.deliver(*batch)
                        if {answer.status for answer in answers} == {200}:
                            break
                    assert [read(answer) for answer in answers] == [each.decision for each in made]
                    connection = connect(layout.database_url().reveal(), application="tests")
                    assert ledger.summary(connection).decided == 20
                    connection.close()
            assert record.stop() == 0
        assert "Traceback" not in record.log.read_text()
    finally:
        postgres_part.purge(layout)


def test_a_backend_that_is_killed_costs_one_delivery_and_no_decision(
    record: FunctionProcess, url: str, connection: Connection
) -> None:
    made = [events.decided(events.transaction(), outcome=Outcome.REVIEW) for _ in range(50)]
    batch = [events.decided_event(each) for each in made]
    killer = psycopg2.connect(url)
    with killer, killer.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'tollgate-record'"
        )
        assert cursor.fetchone() != (0,)
    killer.close()
    statuses = {answer.status for answer in record.deliver(*batch)}
    assert statuses <= {200, 503}
    for _ in range(3):
        answers = record.deliver(*batch)
    assert [read(answer) for answer in answers] == [each.decision for each in made]
    stored: dict[str, Decided | None] = {
        each.transaction.transaction_id: ledger.find(connection, each.transaction.transaction_id) for each in made
    }
    assert all(stored.values())

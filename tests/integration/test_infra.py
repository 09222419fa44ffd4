"""Postgres, Kafka and Envoy as the embedded platform runs them: killed, they come back with what they acknowledged."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kit.ports import free_base
from tollgate.errors import ConfigurationError
from tollgate.local import gateway, jars, kafka, postgres, probes
from tollgate.local.gateway import Revision
from tollgate.local.layout import HOST, Layout, checkout
from tollgate.local.part import Part
from tollgate.local.supervisor import Supervisor

pytestmark = pytest.mark.integration

ECHO = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = sys.argv[1].encode()
        self.send_response(500 if self.path.endswith("/fails") else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_):
        print(self.path, flush=True)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Echo).serve_forever()
"""
"""Stands for a revision of the model server: answers its own name."""


@dataclass(frozen=True)
class Infra:
    """What runs for this module."""

    layout: Layout
    supervisor: Supervisor

    def kill(self, name: str) -> None:
        """kill -9, and wait until it was started again and is ready."""
        before = self.supervisor.status()[name]
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while self.supervisor.status()[name].restarts == before.restarts:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.supervisor.wait_ready(name, timeout=60)


@pytest.fixture(scope="module")
def infra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infra]:
    """Postgres, Kafka, Envoy and two stand-in revisions; at the end nothing of them may be left."""
    home = tmp_path_factory.mktemp("a home with spaces")
    root = checkout()
    assert root is not None
    downloaded = root / ".tollgate" / "jars"
    downloaded.mkdir(parents=True, exist_ok=True)
    (home / "jars").symlink_to(downloaded)
    layout = Layout(home, free_base())
    jars.ensure(layout, jars.KAFKA)
    try:
        with Supervisor(layout) as supervisor:
            supervisor.start(postgres.part(layout), kafka.part(layout), gateway.part(layout))
            supervisor.start(revision(layout, "model"), revision(layout, "model_canary"))
            supervisor.wait_ready(timeout=120)
            yield Infra(layout, supervisor)
            started = [
                process
                for status in supervisor.status().values()
                if status.pid is not None
                for process in (
                    psutil.Process(status.pid),
                    *psutil.Process(status.pid).children(recursive=True),
                )
            ]
        assert len(started) > 5
        assert [process for process in started if process.is_running()] == []
    finally:
        postgres.purge(layout)
    assert not layout.public_root.exists()


def revision(layout: Layout, name: str) -> Part:
    return Part(
        name=name,
        command=[sys.executable, "-c", ECHO, name, str(layout.port(name))],
        ready=lambda: probes.tcp(layout.port(name)),
    )


def query(infra: Infra, statement: str, database: str = "tollgate") -> list[tuple[object, ...]]:
    connection = psycopg2.connect(infra.layout.database_url(database).reveal())
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_postgres_keeps_every_committed_row_when_it_is_killed(infra: Infra) -> None:
    query(infra, "create table kept (id integer primary key)")
    for number in range(50):
        query(infra, f"insert into kept values ({number})")
    infra.kill("postgres")
    assert query(infra, "select id from kept order by id") == [(number,) for number in range(50)]


def test_postgres_is_durable_checked_and_closed_to_others(infra: Infra) -> None:
    assert query(infra, "show data_checksums") == [("on",)]
    assert query(infra, "show fsync") == [("on",)]
    assert query(infra, "show synchronous_commit") == [("on",)]
    assert query(infra, "select current_database()", "mlflow") == [("mlflow",)]
    url = infra.layout.database_url().reveal()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url.replace(infra.layout.database_password(), "wrong"))
    listening = [one for one in psutil.net_connections("tcp") if one.laddr[1] == infra.layout.port("postgres")]
    assert {one.laddr[0] for one in listening} == {HOST}
    pid = infra.supervisor.status()["postgres"].pid
    assert psutil.Process(pid).uids().effective != 0


def produce(infra: Infra, topic: str, values: list[str]) -> None:
    refused: list[object] = []
    producer = Producer({"bootstrap.servers": infra.layout.kafka_bootstrap, "acks": "all", "linger.ms": 0})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(30) == 0
    assert refused == [None] * len(values)


def consume(infra: Infra, topic: str, count: int) -> list[str]:
    consumer = Consumer({"bootstrap.servers": infra.layout.kafka_bootstrap, "group.id": "test"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        records, deadline = [], time.monotonic() + 30
        while len(records) < count and time.monotonic() < deadline:
            records += consumer.consume(count, timeout=1)
        return [record.value().decode() for record in records if record.error() is None]
    finally:
        consumer.close()


def test_kafka_keeps_every_acknowledged_record_when_it_is_killed(infra: Infra) -> None:
    assert "kept" in kafka.ensure_topics(infra.layout, ("kept",), partitions=1)
    assert kafka.ensure_topics(infra.layout, ("kept",), partitions=1) == []
    values = [f"record {number}" for number in range(2_000)]
    produce(infra, "kept", values[:1_000])
    infra.kill("kafka")
    produce(infra, "kept", values[1_000:])
    assert consume(infra, "kept", 2_000) == values


def test_kafka_does_not_make_topics_that_nobody_declared(infra: Infra) -> None:
    producer = Producer({"bootstrap.servers": infra.layout.kafka_bootstrap, "message.timeout.ms": 2_000})
    refused: list[KafkaError] = []
    producer.produce("typo", "x", on_delivery=lambda error, _: refused.append(error))
    producer.flush(10)
    assert [str(error.name()) for error in refused] == ["_MSG_TIMED_OUT"]  # the topic never came
    admin = AdminClient({"bootstrap.servers": infra.layout.kafka_bootstrap})
    assert "typo" not in admin.list_topics(timeout=10).topics


def test_kafka_stamps_records_with_its_own_time(infra: Infra) -> None:
    kafka.ensure_topics(infra.layout, ("stamped",), partitions=1)
    producer = Producer({"bootstrap.servers": infra.layout.kafka_bootstrap})
    producer.produce("stamped", "x", timestamp=1_000)
    producer.flush(10)
    consumer = Consumer({"bootstrap.servers": infra.layout.kafka_bootstrap, "group.id": "test"})
    try:
        consumer.assign([TopicPartition("stamped", 0, 0)])
        record = consumer.poll(20)
        assert record is not None
        assert record.timestamp()[0] == 2  # LogAppendTime
        assert abs(record.timestamp()[1] / 1_000 - time.time()) < 60
    finally:
        consumer.close()


def infer(infra: Infra, number: int, path: str = "/v2/models/fraud/infer") -> str:
    """Which revision answered, or the status."""
    request = urllib.request.Request(
        infra.layout.url("gateway") + path, b"{}", {"ce-id": f"tx-{number}", "content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


def answers(infra: Infra, count: int = 400) -> list[str]:
    return [infer(infra, number) for number in range(count)]


def split(infra: Infra, stable: int) -> None:
    """Route by weight, and wait until Envoy has taken it up and found the revisions healthy."""
    model, canary = infra.layout.port("model"), infra.layout.port("model_canary")
    gateway.write_routes(
        infra.layout,
        [Revision("model", stable, HOST, model), Revision("model_canary", 100 - stable, HOST, canary)],
    )
    wanted = {name for name, weight in (("model", stable), ("model_canary", 100 - stable)) if weight}
    deadline = time.monotonic() + 10
    while set(answers(infra, 60)) != wanted:
        assert time.monotonic() < deadline, f"{stable} % was not taken up"
        time.sleep(0.1)


@pytest.mark.parametrize("stable", [100, 90, 50, 0])
def test_the_gateway_splits_by_weight_without_a_restart(infra: Infra, stable: int) -> None:
    before = infra.supervisor.status()["gateway"].pid
    split(infra, stable)
    counts = Counter(answers(infra))
    assert counts["model"] == pytest.approx(4 * stable, abs=25)
    assert counts["model"] + counts["model_canary"] == 400
    assert infra.supervisor.status()["gateway"].pid == before
    assert gateway.read_routes(infra.layout) == {"model": stable, "model_canary": 100 - stable}


def test_a_transaction_sent_again_meets_the_same_revision(infra: Infra) -> None:
    split(infra, 50)
    first = answers(infra)
    assert first == answers(infra)
    split(infra, 60)
    moved = [number for number, (old, new) in enumerate(zip(first, answers(infra), strict=True)) if old != new]
    assert len(moved) < 80  # a tenth moves, not everything


def test_without_a_healthy_revision_the_gateway_says_503_and_recovers(infra: Infra) -> None:
    split(infra, 100)
    infra.supervisor.stop("model")
    deadline = time.monotonic() + 10
    assert infer(infra, 1) == "503"
    infra.supervisor.start(revision(infra.layout, "model"))
    while infer(infra, 1) != "model":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_failed_inference_is_not_sent_a_second_time(infra: Infra) -> None:
    split(infra, 100)
    assert infer(infra, 1, "/v2/models/fraud/fails") == "500"
    assert infra.layout.log("model").read_text().count("/fails") == 1


def test_the_gateway_keeps_its_weights_when_it_is_killed(infra: Infra) -> None:
    split(infra, 50)
    first = answers(infra, 100)
    infra.kill("gateway")
    split(infra, 50)
    assert answers(infra, 100) == first


def test_without_any_revision_the_gateway_says_503(infra: Infra) -> None:
    gateway.write_routes(infra.layout, [])
    deadline = time.monotonic() + 10
    while infer(infra, 1) != "503":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_weights_that_make_no_whole_are_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(ConfigurationError, match="do not add up to 100"):
        gateway.write_routes(layout, [Revision("a", 90, HOST, 1), Revision("b", 20, HOST, 2)])
    with pytest.raises(ConfigurationError, match="each name once"):
        gateway.write_routes(layout, [Revision("a", 90, HOST, 1), Revision("a", 10, HOST, 2)])
    assert gateway.read_routes(layout) == {}

"""Spark on real Kafka and Postgres: every fact is in the tiles exactly once, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from confluent_kafka import Producer

from kit import oracle, stores
from kit.ports import free_port
from tollgate.events import REQUESTED, CloudEvent, to_kafka, to_kafka_structured
from tollgate.feature_matrix import assemble
from tollgate.features import windows
from tollgate.local import jars, java, kafka, postgres
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor
from tollgate.simulator.history import write_history
from tollgate.simulator.options import WorldSettings
from tollgate.simulator.world import World
from tollgate.store.connection import connect
from tollgate.store.tile_merge import Event, Fraud
from tollgate.store.tiles import read_window_sums
from tollgate.tiles import DAY
from tollgate_spark.backfill import kept_since

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
NOW = 1_700_000_000
PATIENCE_S = 240

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Rig:
    """Kafka and Postgres for the tests of this module, in a folder whose name has a space."""

    layout: Layout
    supervisor: Supervisor

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(CHECKOUT / each) for each in ("src", "spark")),
            "JAVA_HOME": str(java.spark_home(java.find(), self.layout.run / "java")),
            "TOLLGATE_SPARK_JARS": ":".join(map(str, jars.classpath(self.layout, jars.SPARK))),
            "TOLLGATE_DATABASE_URL": self.layout.database_url().reveal(),
            "TOLLGATE_KAFKA_BOOTSTRAP": self.layout.kafka_bootstrap,
        }

    def tiles(self) -> dict[tuple[int, str, int, int], oracle.Tile]:
        return {row[:4]: row[4:] for row in self.rows("SELECT * FROM tiles")}

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        connection = connect(self.layout.database_url().reveal(), application="tests")
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        finally:
            connection.close()

    def counted(self) -> tuple[int, int]:
        """How many transactions and frauds the guard knows."""
        sql = "SELECT count(*) FILTER (WHERE counted), count(*) FILTER (WHERE fraud) FROM tile_events"
        events, frauds = self.rows(sql)[0]
        return int(str(events)), int(str(frauds))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("spark") / "a home"
    home.mkdir()
    (CHECKOUT / ".tollgate" / "jars").mkdir(parents=True, exist_ok=True)
    (home / "jars").symlink_to(CHECKOUT / ".tollgate" / "jars")
    layout = stores.elsewhere(home)
    jars.ensure(layout, jars.KAFKA)
    jars.ensure(layout, jars.SPARK)
    try:
        with Supervisor(layout) as supervisor:
            supervisor.start(postgres.part(layout), kafka.part(layout))
            supervisor.wait_ready()
            kafka.ensure_topics(layout)
            yield Rig(layout, supervisor)
    finally:
        postgres.purge(layout)


@pytest.fixture
def fresh(rig: Rig) -> Rig:
    stores.fresh(rig.layout)
    return rig


class Stream:
    """A running `tollgate_spark.stream`."""

    def __init__(self, rig: Rig, checkpoint: Path, log: Path) -> None:
        self.rig, self.log, self.metrics_port = rig, log, free_port()
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tollgate_spark.stream", "--checkpoint", str(checkpoint)],
                env={**rig.environ, "TOLLGATE_METRICS_PORT": str(self.metrics_port)},
                stdout=out,
                stderr=out,
            )

    def wait(self, what: str, arrived: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not arrived():
            assert self.process.poll() is None, f"the stream ended: {self.log.read_text()[-3_000:]}"
            assert time.monotonic() < deadline, f"{what} did not happen: {self.log.read_text()[-3_000:]}"
            time.sleep(0.1)

    def wait_counted(self, expected: tuple[int, int]) -> None:
        self.wait(f"{expected} facts in the guard", lambda: self.rig.counted() == expected)

    def scrape(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except urllib.error.URLError:  # not there yet
            return {}
        return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}


@contextmanager
def streaming(rig: Rig, folder: Path) -> Iterator[Stream]:
    stream = Stream(rig, folder / "a checkpoint", folder / "stream.log")
    try:
        yield stream
    finally:
        stream.process.kill()
        stream.process.wait()


def send(rig: Rig, topic: str, records: Sequence[tuple[bytes, Headers]]) -> None:
    producer = Producer({"bootstrap.servers": rig.layout.kafka_bootstrap, "linger.ms": 5})
    for value, headers in records:
        producer.produce(topic, value, key=b"k", headers=headers)
        producer.poll(0)
    assert producer.flush(60) == 0


def moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()


def body(event: Event) -> bytes:
    return json.dumps(
        {
            "transaction_id": event.transaction_id,
            "customer_id": event.customer_id,
            "terminal_id": event.terminal_id,
            "amount_minor": event.amount_minor,
            "currency": "EUR",
            "occurred_at": moment(event.occurred_s),
        }
    ).encode()


def label(event: Event, is_fraud: bool = True, source: str = "chargeback") -> bytes:
    return json.dumps(
        {
            "transaction_id": event.transaction_id,
            "customer_id": event.customer_id,
            "terminal_id": event.terminal_id,
            "occurred_at": moment(event.occurred_s),
            "is_fraud": is_fraud,
            "source": source,
            "labelled_at": moment(event.occurred_s + 7 * DAY),
        }
    ).encode()


def cloud(event: Event, kind: str = REQUESTED) -> CloudEvent:
    return CloudEvent(
        id=event.transaction_id, source="/shop", type=kind, datacontenttype="application/json", data=body(event)
    )


def some(prefix: str, n: int) -> list[Event]:
    return [
        Event(f"{prefix}-{i}", f"c-{i % 13}", f"m-{i % 7}", 100 + i * 37 % 9_000, NOW + i * 611 % (20 * DAY))
        for i in range(n)
    ]


def fraud(event: Event) -> Fraud:
    return Fraud(event.transaction_id, event.customer_id, event.terminal_id, event.occurred_s)


def plain(bodies: Sequence[bytes]) -> list[tuple[bytes, Headers]]:
    return [(each, []) for each in bodies]


def test_whoever_is_killed_every_fact_is_in_the_tiles_once(fresh: Rig, tmp_path: Path) -> None:
    events, posted = some("p", 6_000), some("q", 40)
    frauds = events[::9]
    bad = [b"{broken", b"[]", b"[" * 9_999, b'{"transaction_id": "x"}', body(events[0]._replace(customer_id="no id!"))]
    card = body(events[0]._replace(transaction_id="card", customer_id="4111111111111111"))
    unknown = to_kafka(cloud(events[0]._replace(transaction_id="unknown"), "com.example.other"))
    send(fresh, "labels", plain([label(event) for event in frauds[:100]]))
    send(fresh, "transactions", plain([body(event) for event in events[:2_000]]))
    with streaming(fresh, tmp_path) as stream:
        stream.wait("the first merge", lambda: fresh.counted()[0] > 0)
        send(fresh, "transactions", plain([*bad, card, *(body(event) for event in events[2_000:4_000])]))
        stream.process.send_signal(signal.SIGKILL)
        stream.process.wait()
    with streaming(fresh, tmp_path) as stream:
        stream.wait("another merge", lambda: fresh.counted()[0] > 2_000)
        os.kill(fresh.supervisor.status()["postgres"].pid or 0, signal.SIGKILL)
        changed = body(events[0]._replace(amount_minor=1))
        send(fresh, "transactions", plain([*(body(event) for event in events[3_000:]), changed]))
        send(fresh, "labels", plain([label(each, source="analyst") for each in frauds]))
        send(fresh, "labels", plain([label(each, is_fraud=False) for each in events[:50]]))
        structured = [to_kafka_structured(cloud(event)) for event in posted[20:]]
        binary = [to_kafka(cloud(event)) for event in posted[:25]]
        send(fresh, "transactions-posted", [(value, headers) for headers, value in [*binary, *structured, unknown]])
        fresh.supervisor.wait_ready()
        stream.wait_counted((len(events) + len(posted), len(frauds)))
        stream.wait("a look at the posted", lambda: stream.scrape().get(_refused("unknown_event_type"), 0) == 1)

        stream.process.send_signal(signal.SIGTERM)
        assert stream.process.wait(60) == 0, stream.log.read_text()[-3_000:]
    assert fresh.tiles() == oracle.tiles([*events, *posted], [fraud(event) for event in frauds])
    assert fresh.layout.database_url().reveal() not in stream.log.read_text()


def test_a_lost_checkpoint_reads_everything_again_and_changes_nothing(fresh: Rig, tmp_path: Path) -> None:
    send(fresh, "transactions", plain([body(event) for event in some("s", 100)]))
    with streaming(fresh, tmp_path) as stream:  # the topics also hold what other tests sent
        stream.wait("a merge", lambda: stream.scrape().get("tollgate_tiles_batches_total", 0) > 0)
        before = settled(fresh)
    (tmp_path / "other").mkdir()
    more = some("r", 300)
    with streaming(fresh, tmp_path / "other") as stream:
        send(fresh, "transactions", plain([body(event) for event in more]))
        stream.wait_counted((before[0] + len(more), before[1]))
        assert stream.scrape()['tollgate_tiles_duplicates_total{kind="transaction"}'] >= before[0]
        newest = stream.scrape()["tollgate_tiles_newest_event_seconds"]
    assert newest >= max(event.occurred_s for event in more)
    tiles = fresh.tiles()
    assert all(tiles[key][0] >= tile[0] for key, tile in oracle.tiles(more, []).items())


def settled(rig: Rig) -> tuple[int, int]:
    """The guard's counts once they have stopped growing."""
    last, since = rig.counted(), time.monotonic()
    while time.monotonic() < since + 5:
        time.sleep(0.2)
        if (found := rig.counted()) != last:
            last, since = found, time.monotonic()
    return last


def test_a_history_in_pieces_or_again_and_then_its_late_labels_equal_the_oracle(fresh: Rig, tmp_path: Path) -> None:
    whole, first, csv = tmp_path / "whole history", tmp_path / "first half", tmp_path / "csv"
    write_history(World(WorldSettings(customers=40, terminals=30, start=date(2026, 1, 1))), 50, whole)
    table = pa.concat_tables([pyarrow.parquet.read_table(file) for file in sorted(whole.glob("*.parquet"))])
    half = table.slice(0, len(table) * 9 // 10)
    for folder in (first, csv):
        folder.mkdir()
    pyarrow.parquet.write_table(half, first / "part.parquet")
    pyarrow.csv.write_csv(pa.concat_tables([half, half.slice(0, 50)]), csv / "part.csv")  # with duplicates

    said = backfilled(fresh, first, csv, first, whole, whole)

    history = facts(table)
    newest_us = max(occurred for _, occurred, _ in history)
    known = [event for event, _, labelled in history if labelled is not None and labelled <= newest_us]
    later = [event for event, _, labelled in history if labelled is not None and labelled > newest_us]
    events = [event for event, _, _ in history]
    assert later
    assert [each is not None for each in said] == [True, True, False, True, False]
    assert said[1] is not None
    assert said[1]["tiles"] == 0, "the same transactions from another file are known"
    assert_kept(fresh, events, [fraud(event) for event in known], newest_us // 10**6)
    assert_features(fresh, events, {event.transaction_id for event in known}, newest_us // 10**6)

    before = fresh.counted()[1]
    with streaming(fresh, tmp_path) as stream:
        send(fresh, "labels", plain([label(event) for event in [*later, *known[-3:]]]))
        ids = {event.transaction_id for event in later}
        stream.wait("the late labels", lambda: _marked(fresh, ids) == len(ids))
    assert fresh.counted()[1] >= before + len(ids)
    assert_features(fresh, events, ids | {event.transaction_id for event in known}, newest_us // 10**6)


def backfilled(rig: Rig, *folders: Path) -> list[dict[str, int] | None]:
    """Backfill each folder in turn, all in one process (one Spark); what each did, None for nothing."""
    program = (
        "import dataclasses, json, os, sys; from pathlib import Path\n"
        "from tollgate_spark.backfill import backfill; from tollgate_spark.session import build\n"
        "spark = build('backfill', memory='512m')\n"
        "for folder in sys.argv[1:]:\n"
        "    done = backfill(spark, Path(folder), os.environ['TOLLGATE_DATABASE_URL'])\n"
        "    print(json.dumps(done and dataclasses.asdict(done)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, folders)],
        env=rig.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def facts(table: pa.Table) -> list[tuple[Event, int, int | None]]:
    """(event, its microsecond, the microsecond its fraud was known or None) of a history."""
    micros = [table[name].cast(pa.int64()).to_pylist() for name in ("occurred_at", "labelled_at")]
    ids = [table[name].to_pylist() for name in ("transaction_id", "customer_id", "terminal_id", "amount_minor")]
    return [
        (Event(*row, occurred // 10**6), occurred, labelled if is_fraud else None)
        for *row, occurred, labelled, is_fraud in zip(*ids, *micros, table["is_fraud"].to_pylist(), strict=True)
    ]


def assert_kept(rig: Rig, events: Sequence[Event], frauds: Sequence[Fraud], newest_s: int) -> None:
    """Every tile that a window may still read is there and right."""
    found, expected = rig.tiles(), oracle.tiles(events, frauds)
    since = {(kind, step): kept_since(newest_s, kind, step) for kind, _, step, _ in expected}  # type: ignore[arg-type]
    kept = {key: tile for key, tile in expected.items() if key[3] >= since[(key[0], key[2])]}  # type: ignore[index]
    assert 0 < len(kept) < len(expected)
    assert {key: tile for key, tile in found.items() if key in kept} == kept
    assert found.keys() <= expected.keys()


def assert_features(rig: Rig, events: Sequence[Event], frauds: set[str], newest_s: int) -> None:
    """The features of transactions after the history are those of the raw events, bit for bit."""
    asked = [
        event._replace(occurred_s=newest_s + 1 + i * 1_777 % (2 * DAY)) for i, event in enumerate(events[-1:-200:-5])
    ]
    connection = connect(rig.layout.database_url().reveal(), application="tests")
    connection.autocommit = True
    try:
        pairs = [e.customer_id for e in asked], [e.terminal_id for e in asked], [e.occurred_s for e in asked]
        sums, as_of = read_window_sums(connection, *pairs, windows())
    finally:
        connection.close()
    matrix = assemble(np.array([e.amount_minor for e in asked]), np.array([e.occurred_s for e in asked]), sums)
    assert matrix.tobytes() == np.array([oracle.features(events, frauds, e) for e in asked]).tobytes()
    assert as_of is not None
    assert as_of.timestamp() >= newest_s


def test_a_folder_without_a_history_says_what_to_do(tmp_path: Path, fresh: Rig) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tollgate_spark.backfill", "--history", str(tmp_path)],
        env=fresh.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "simulate a history first" in done.stderr
    assert "Traceback" not in done.stderr


def _marked(rig: Rig, ids: set[str]) -> int:
    quoted = ",".join(f"'{each}'" for each in ids)
    return int(str(rig.rows(f"SELECT count(*) FROM tile_events WHERE fraud AND transaction_id IN ({quoted})")[0][0]))


def _refused(reason: str) -> str:
    return f'tollgate_tiles_refused_total{{reason="{reason}"}}'

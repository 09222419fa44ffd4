"""The stream: Kafka records become tiles, exactly once, for as long as this process runs.

In: topics `transactions`, `transactions-posted` (CloudEvents that came through the Broker) and `labels`. Out: tiles in
Postgres. Spark keeps the offsets (in the checkpoint), executors parse (`tollgate_spark.records`), and the driver
hands each batch to `tollgate.store.tile_merge` with COPY: a batch is small, and one transaction makes it exact.
Next: the model server reads the tiles.

A batch may run again after a crash. The checkpoint gives it the same id and the same records, and Postgres knows both
the batch id and every transaction id. The progress row carries the id of the checkpoint: a new checkpoint numbers
its batches from 0 and must not be taken for the old one.

`python -m tollgate_spark.stream --checkpoint DIR`; TOLLGATE_DATABASE_URL, TOLLGATE_KAFKA_BOOTSTRAP,
TOLLGATE_METRICS_PORT and what `tollgate_spark.session` reads. SIGTERM ends it after the batch it is in.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import start_http_server
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from tollgate.errors import Retryable, TollgateError
from tollgate.settings import Settings
from tollgate.store.connection import Connection, connect
from tollgate.store.tile_merge import Event, Fraud, Merged, merge_batch
from tollgate_spark import metrics, records
from tollgate_spark.session import build

TRANSACTIONS, POSTED, LABELS = "transactions", "transactions-posted", "labels"
RECORDS_PER_BATCH = 20_000
"""At most so many records a batch: about two seconds of Postgres when catching up."""
STATEMENT_TIMEOUT_MS = 60_000
PAUSE_S = 0.2
"""How long to wait between two looks at the query, and at least before Postgres is tried again."""

log = logging.getLogger("tollgate.stream")


class Stopped(Exception):  # noqa: N818 - not an error
    """The process is ending; the batch at hand is not merged and will run again."""


class Merger:
    """What runs for each batch: collect the facts, merge them, count. `stop()` makes it refuse further batches."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: Connection | None = None
        self._newest = 0
        self._name = ""
        self._named = threading.Event()
        self._stopping = threading.Event()
        self._busy = threading.Lock()

    def name(self, query_id: str) -> None:
        """Say which checkpoint the batches belong to; the first batch waits for it."""
        self._name = f"tiles:{query_id}"
        self._named.set()

    def stop(self, timeout_s: float) -> None:
        """Let the batch that is under way finish (at most `timeout_s`) and refuse the next one."""
        self._stopping.set()
        if self._busy.acquire(timeout=timeout_s):
            self._busy.release()

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Merge one batch; waits for as long as Postgres is away. Raises `Stopped` when the process is ending."""
        began = time.perf_counter()
        with self._busy:
            if self._stopping.is_set():
                raise Stopped
            # One order on every run: what came first in Kafka counts, should one id have two bodies.
            rows = batch.toArrow().sort_by("arrived")
            events, frauds = _events(rows), _frauds(rows)
            self._named.wait()
            merged = self._merge(batch_id, events, frauds)
        seconds = time.perf_counter() - began
        new = merged or Merged(0, 0)
        _count(rows, events, frauds, new, seconds)
        self._newest = max([self._newest, *(event.occurred_s for event in events)])
        metrics.NEWEST.set(self._newest)
        log.info(
            "batch %d: %d records, %d new transactions, %d new frauds, %.2f s",
            *(batch_id, rows.num_rows, new.events, new.frauds, seconds),
        )

    def _merge(self, batch_id: int, events: list[Event], frauds: list[Fraud]) -> Merged | None:
        pause = PAUSE_S
        while True:
            try:
                if self._connection is None:
                    self._connection = connect(
                        self._url, application="stream", statement_timeout_ms=STATEMENT_TIMEOUT_MS
                    )
                return merge_batch(self._connection, self._name, batch_id, events, frauds)
            except Retryable as trouble:
                log.warning("batch %d waits %.1f s: %s", batch_id, pause, trouble)
                self.close()
                if self._stopping.wait(pause):
                    raise Stopped from trouble
                pause = min(2 * pause, 5.0)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _events(rows: pa.Table) -> list[Event]:
    found = rows.filter(pc.equal(rows["kind"], records.TRANSACTION))
    return list(map(Event, *(found[name].to_pylist() for name in Event._fields)))


def _frauds(rows: pa.Table) -> list[Fraud]:
    found = rows.filter(pc.equal(rows["kind"], records.FRAUD))
    return list(map(Fraud, *(found[name].to_pylist() for name in Fraud._fields)))


def _count(rows: pa.Table, events: list[Event], frauds: list[Fraud], new: Merged, seconds: float) -> None:
    for kind, n in ((each["values"].as_py(), each["counts"].as_py()) for each in rows["kind"].value_counts()):
        if kind in (records.TRANSACTION, records.FRAUD, records.LEGITIMATE):
            metrics.RECORDS.labels(kind).inc(n)
        else:
            metrics.RECORDS.labels("refused").inc(n)
            metrics.REFUSED.labels(kind).inc(n)
    metrics.DUPLICATES.labels(records.TRANSACTION).inc(len(events) - new.events)
    metrics.DUPLICATES.labels(records.FRAUD).inc(len(frauds) - new.frauds)
    metrics.BATCHES.inc()
    metrics.BATCH_SECONDS.observe(seconds)


def start(spark: SparkSession, bootstrap: str, checkpoint: str, merger: Merger) -> StreamingQuery:
    """Start the query; from the earliest record the first time, later from where the checkpoint is."""
    kafka = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", ",".join((TRANSACTIONS, POSTED, LABELS)))
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", RECORDS_PER_BATCH)
        .option("includeHeaders", "true")
        # Records that Kafka has deleted do not come back by stopping; Spark logs the gap.
        .option("failOnDataLoss", "false")
        .load()
    )
    cores = spark.sparkContext.defaultParallelism
    facts = kafka.select(*records.KAFKA).coalesce(cores).mapInArrow(_parse, records.SCHEMA)
    query: Any = facts.writeStream.foreachBatch(merger).option("checkpointLocation", checkpoint)
    started: StreamingQuery = query.trigger(processingTime="1 second").start()
    merger.name(started.id)
    return started


def _parse(batches: Any) -> Any:
    return records.parse(batches, LABELS)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or until the query fails (1)."""
    parser = argparse.ArgumentParser(prog="tollgate_spark.stream", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="folder (or URI) of Spark's checkpoint")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.ERROR)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        return _run(Settings.read("database_url", "kafka_bootstrap"), options.checkpoint, stopping)
    except TollgateError as error:
        log.error("%s", error)
        return 1


def _run(settings: Settings, checkpoint: str, stopping: threading.Event) -> int:
    spark = build("stream", memory="512m")
    merger = Merger(settings.database_url.reveal())
    query = start(spark, settings.kafka_bootstrap, checkpoint, merger)
    if settings.metrics_port:  # only now: who sees metrics takes the stream for ready
        start_http_server(settings.metrics_port)
    log.info("following %s, %s and %s", TRANSACTIONS, POSTED, LABELS)
    try:
        while not stopping.wait(PAUSE_S):
            if not query.isActive:
                log.error("the query ended: %s", _first_line(query.exception()))
                return 1
        merger.stop(timeout_s=10)
        query.stop()
        spark.stop()
    except Exception as error:
        # Spark's JVM may have got the same signal, or is gone: nothing is lost, the checkpoint says where to go on.
        if not stopping.is_set():
            log.error("Spark is gone: %s", _first_line(error))
            return 1
    finally:
        merger.close()
    log.info("stopped")
    return 0


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())

"""The backfill: a history becomes the tiles that windows still read at its end.

In: a folder of Parquet (or CSV with a header) files as `tollgate.simulator.history` writes them: transaction_id,
customer_id, terminal_id, amount_minor, occurred_at, is_fraud, labelled_at. Out: tiles and guard rows in Postgres, in
one transaction. Next: `tollgate_spark.stream` goes on from there; the model server reads.

Kept are the tiles within `tollgate.features.retention` of the history's end, and a day more for transactions that
come late. A fraud counts if its label was known at the end (labelled_at <= the newest transaction); the later labels
arrive as records. The guard gets every transaction that is in any kept tile: what is older than that can be delivered
or labelled again without harm, because no window reads its tiles any more.

Running it again changes nothing: the digest of what was read names the merge, and whatever the guard knows (from the
stream or from another history) is left out before Spark adds up.

`python -m tollgate_spark.backfill --history DIR`; TOLLGATE_DATABASE_URL and what `tollgate_spark.session` reads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from tollgate.errors import ConfigurationError, TollgateError
from tollgate.features import retention
from tollgate.settings import Settings
from tollgate.store.connection import connect
from tollgate.store.tile_merge import HistoryMerge, merge_history
from tollgate.tiles import DAY, GRANULARITIES, EntityKind, floor
from tollgate_spark.session import build

SLACK_S = DAY
_SCHEMA = (
    "transaction_id string, customer_id string, terminal_id string, amount_minor bigint,"
    " occurred_at timestamp, is_fraud boolean, labelled_at timestamp"
)
_COLUMNS = ("transaction_id", "customer_id", "terminal_id", "amount_minor", "occurred_s")
_ENTITY = {EntityKind.CUSTOMER: "customer_id", EntityKind.TERMINAL: "terminal_id"}

log = logging.getLogger("tollgate.backfill")


@dataclass(frozen=True, slots=True)
class Filled:
    """What a backfill did: transactions of the history, those kept in the guard, tiles written."""

    transactions: int
    guarded: int
    tiles: int


def backfill(spark: SparkSession, history: Path, database_url: str) -> Filled | None:
    """Merge the history in folder `history`; None when it was merged before.

    Raises `ConfigurationError` when the folder has no history, `Retryable` when Postgres is away.
    """
    rows = read(spark, history)
    total, newest_us = rows.agg(f.count("*"), f.max(f.unix_micros("occurred_at"))).collect()[0]
    if not total:
        raise ConfigurationError(f"{history} holds no transactions: simulate a history first")
    log.info("%d transactions until %s", total, datetime.fromtimestamp(newest_us // 10**6, UTC).isoformat())
    connection = connect(database_url, application="backfill", statement_timeout_ms=600_000)
    try:
        with merge_history(connection, f"backfill:{digest(history)}", newest_us // 10**6) as merge:
            if merge is None:
                log.info("merged before: nothing to do")
                return None
            return _fill(spark, rows, merge, total, newest_us)
    finally:
        connection.close()


def read(spark: SparkSession, history: Path) -> DataFrame:
    """The history's transactions with `_SCHEMA`. Raises `ConfigurationError` when there are no files."""
    if any(history.glob("*.parquet")):
        return spark.read.schema(_SCHEMA).parquet(str(history))
    if any(history.glob("*.csv")):
        columns = [column.split() for column in _SCHEMA.split(", ")]
        return spark.read.csv(str(history), header=True).select(*(f.col(name).cast(kind) for name, kind in columns))
    raise ConfigurationError(f"{history} has no *.parquet and no *.csv file: simulate a history first")


def digest(history: Path) -> str:
    """A short hash over the history's file names and contents: the same files, the same name in stream_progress."""
    found = hashlib.sha256()
    for file in sorted((*history.glob("*.parquet"), *history.glob("*.csv"))):
        found.update(f"{file.name}\0".encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()[:16]


def kept_since(newest_s: int, kind: EntityKind, granularity: int) -> int:
    """From which second on tiles of this kind are kept, a whole day so that every kept tile is complete."""
    return floor(newest_s - retention(kind, granularity) - SLACK_S, DAY)


def _fill(spark: SparkSession, rows: DataFrame, merge: HistoryMerge, total: int, newest_us: int) -> Filled:
    since = {(kind, step): kept_since(newest_us // 10**6, kind, step) for kind in EntityKind for step in GRANULARITIES}
    facts = _facts(spark, rows, merge, min(since.values()), newest_us).cache()
    events = facts.select("transaction_id", "occurred_s", f.col("n") > 0, f.col("frauds") > 0).toArrow()
    log.info("%d transactions can still change the tiles", events.num_rows)
    merge.add_events(_csv(events))
    log.info("they are in the guard")
    tiles = _tiles(facts, since).toArrow()
    log.info("%d tiles added up", tiles.num_rows)
    merge.add_tiles(_csv(tiles))
    log.info("they are in Postgres")
    facts.unpersist()
    return Filled(total, events.num_rows, tiles.num_rows)


def _facts(spark: SparkSession, rows: DataFrame, merge: HistoryMerge, since_s: int, newest_us: int) -> DataFrame:
    """Each transaction since `since_s` once, with n and frauds (0 or 1) that the tiles do not hold yet."""
    known_then = f.col("is_fraud") & (f.unix_micros("labelled_at") <= newest_us)
    facts = (
        rows.withColumn("occurred_s", f.unix_seconds("occurred_at"))
        .where(f.col("occurred_s") >= since_s)
        .dropDuplicates(["transaction_id"])
        .select(*_COLUMNS, f.lit(1).alias("n"), f.coalesce(known_then, f.lit(False)).cast("int").alias("frauds"))
    )
    known = merge.known(since_s)
    if not known:
        return facts
    log.info("%d transactions are known already", len(known))
    guard = spark.createDataFrame(known, "transaction_id string, counted boolean, fraud_counted boolean")
    return (
        facts.join(guard, "transaction_id", "left")
        .withColumn("n", f.when(f.col("counted"), 0).otherwise(1))
        .withColumn("frauds", f.when(f.col("fraud_counted"), 0).otherwise(f.col("frauds")))
        .where("n > 0 OR frauds > 0")
        .select(*_COLUMNS, "n", "frauds")
    )


def _tiles(facts: DataFrame, since: dict[tuple[EntityKind, int], int]) -> DataFrame:
    """The columns of `tiles` in order, each key once."""
    second, amount = f.col("occurred_s"), f.col("amount_minor")
    keys = [
        f.struct(
            f.lit(int(kind)).alias("kind"),
            f.col(_ENTITY[kind]).alias("id"),
            f.lit(step).alias("step"),
            (second - second % step).alias("start"),
            f.lit(first).alias("since"),
        )
        for (kind, step), first in since.items()
    ]
    counted = f.col("n") * amount
    squares = f.coalesce(f.try_sum(counted * amount), f.lit(2**63 - 1))
    return (
        facts.withColumn("key", f.explode(f.array(*keys)))
        .where("key.start >= key.since")
        .groupBy("key.kind", "key.id", "key.step", "key.start")
        .agg(f.sum("n"), f.sum(counted), squares, f.max(counted), f.sum("frauds"))
    )


def _csv(table: pa.Table) -> io.BytesIO:
    out = io.BytesIO()
    pa.csv.write_csv(table, out, pa.csv.WriteOptions(include_header=False))
    out.seek(0)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Backfill once; exit code 0 when the tiles hold the history, 1 when not (the message says why)."""
    parser = argparse.ArgumentParser(prog="tollgate_spark.backfill", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--history", required=True, type=Path, help="folder with the history's files")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.ERROR)
    began = time.perf_counter()
    try:
        settings = Settings.read("database_url")
        spark = build("backfill", memory="1g")
        log.info("Spark is up")
        try:
            backfill(spark, options.history, settings.database_url.reveal())
        finally:
            spark.stop()
    except TollgateError as error:
        log.error("%s", error)
        return 1
    log.info("done in %.1f s", time.perf_counter() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())

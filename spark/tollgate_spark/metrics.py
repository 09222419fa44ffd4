"""What the stream tells Prometheus. Seconds and totals; names are part of the contract with rules and panels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BATCHES = Counter("tollgate_tiles_batches_total", "Batches merged into the tiles")
RECORDS = Counter("tollgate_tiles_records_total", "Kafka records read, by what they are", ["kind"])
REFUSED = Counter("tollgate_tiles_refused_total", "Kafka records the domain refused (skipped here)", ["reason"])
DUPLICATES = Counter("tollgate_tiles_duplicates_total", "Facts that the tiles held already", ["kind"])
BATCH_SECONDS = Histogram(
    "tollgate_tiles_batch_seconds",
    "From a batch's begin to its commit in Postgres",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60),
)
NEWEST = Gauge("tollgate_tiles_newest_event_seconds", "Newest event time merged by this process (Unix seconds)")

"""Spark: from events to tiles. `stream` follows Kafka, `backfill` reads a history; both run on `session`."""

"""Kafka records to facts, on the executors.

In: Arrow batches of Kafka records (`KAFKA`), plain or CloudEvents in binary or structured mode. Out: Arrow batches
with `SCHEMA`: one row a record, either a fact for the tiles or why there is none. What the domain refuses here, the
decision path refuses by the same code and dead-letters; here it is only counted, so that it is not dead-lettered
twice. Next: `tollgate_spark.stream` merges the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tollgate.errors import Reason, Rejected
from tollgate.events import KAFKA_EVENT, REQUESTED, from_kafka
from tollgate.transaction import parse_label, parse_transaction

KAFKA = ("topic", "headers", "value", "timestamp")
SCHEMA = (
    "kind string, transaction_id string, customer_id string, terminal_id string,"
    " amount_minor bigint, occurred_s bigint, arrived timestamp"
)
"""`kind` is one of the three below, or the `tollgate.errors.Reason` of a refusal (then only `arrived` is set too)."""
TRANSACTION = "transaction"
FRAUD = "fraud"
LEGITIMATE = "legitimate"
"""A label that says so: nothing for the tiles."""

_NAMES = ("kind", "transaction_id", "customer_id", "terminal_id", "amount_minor", "occurred_s")
_TYPES = (pa.string(), pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64())

Row = tuple[str, str | None, str | None, str | None, int | None, int | None]


def parse(batches: Iterator[pa.RecordBatch], labels_topic: str) -> Iterator[pa.RecordBatch]:
    """What `mapInArrow` runs: columns `KAFKA` in, columns `SCHEMA` out, row by row in the same order."""
    for batch in batches:
        topics, headers, values, timestamps = (batch.column(name) for name in KAFKA)
        rows = [
            fact(topic == labels_topic, value, header)
            for topic, value, header in zip(topics.to_pylist(), values.to_pylist(), headers.to_pylist(), strict=True)
        ]
        columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), _TYPES, strict=True)]
        if rows:
            yield pa.RecordBatch.from_arrays([*columns, timestamps], [*_NAMES, "arrived"])


def fact(is_label: bool, value: bytes | None, headers: list[dict[str, Any]] | None) -> Row:
    """One record as a row of `SCHEMA` without `arrived`. `headers` are {"key", "value"} as Spark gives them."""
    try:
        body = _body(value or b"", headers or [])
        if is_label:
            label = parse_label(body)
            kind = FRAUD if label.is_fraud else LEGITIMATE
            return (kind, label.transaction_id, label.customer_id, label.terminal_id, 0, _second(label.occurred_at))
        transaction = parse_transaction(body)
    except Rejected as refusal:
        return (refusal.reason.value, None, None, None, None, None)
    except RecursionError:  # a structured CloudEvent nested thousands of levels deep
        return (Reason.MALFORMED_JSON.value, None, None, None, None, None)
    return (
        TRANSACTION,
        transaction.transaction_id,
        transaction.customer_id,
        transaction.terminal_id,
        transaction.amount_minor,
        transaction.occurred_s,
    )


def _second(moment: Any) -> int:
    return int(moment.timestamp() // 1)


def _body(value: bytes, headers: list[dict[str, Any]]) -> bytes:
    event = from_kafka([(header["key"], header["value"]) for header in headers], value)
    if event is None:
        return value
    if event.type not in (KAFKA_EVENT, REQUESTED):
        raise Rejected(Reason.UNKNOWN_EVENT_TYPE, "an event type that nobody decides")
    return event.data

"""Transactions, decisions and labels for tests, and the events they travel in."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from tollgate.decision import Contribution, Decided, Decision, Model, Outcome
from tollgate.events import DECIDED, KAFKA_EVENT, CloudEvent
from tollgate.transaction import Label, Transaction, parse_transaction

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def body(**fields: Any) -> dict[str, Any]:
    """A transaction as its producer writes it, with an id of its own; a field given as None is left out."""
    made = {
        "transaction_id": f"t-{uuid.uuid4()}",
        "customer_id": "c-1",
        "terminal_id": "m-1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "occurred_at": "2026-05-01T12:00:00Z",
        **fields,
    }
    return {name: value for name, value in made.items() if value is not None}


def transaction(**fields: Any) -> Transaction:
    """The same, read."""
    return parse_transaction(json.dumps(body(**fields)).encode())


def from_kafka_source(data: bytes, *, stream: str = "transactions", offset: int = 5, **extensions: str) -> CloudEvent:
    """The event a KafkaSource makes of a plain record of topic `transactions` (or `labels`)."""
    return CloudEvent(
        id=f"partition:3/offset:{offset}",
        source=f"/apis/v1/namespaces/tollgate/kafkasources/{stream}#{stream}",
        type=KAFKA_EVENT,
        subject=f"partition:3#{offset}",
        time="2026-05-01T12:00:01.500Z",
        datacontenttype="application/json",
        extensions={"stream": stream, **extensions},
        data=data,
    )


def decided(of: Transaction, *, latency_ms: float = 12.5, **fields: Any) -> Decided:
    """A decision about a transaction, declined unless told otherwise, with numbers that are hard to store exactly."""
    decision = Decision(
        transaction_id=of.transaction_id,
        outcome=Outcome.DECLINE,
        probability=0.1 + 0.2,
        reasons=[
            Contribution("customer_count_1h", 1e-7, 2 / 3),
            Contribution("amount", 1e21, -5e-324),
            Contribution("is_night", -0.0, 1.0),
        ],
        model=Model("fraud", "7", "fraud-00007", "champion"),
        policy_version="2026-11+abcdef12",
        features_as_of=datetime(2026, 5, 1, 11, 59, 59, 999_999, tzinfo=UTC),
        degraded=False,
        degraded_why=None,
        requested_at=datetime(2026, 5, 1, 12, 0, 1, 1, tzinfo=UTC),
        decided_at=datetime(2026, 5, 1, 12, 0, 1, 12_501, tzinfo=UTC),
        latency_ms=latency_ms,
    )
    return Decided(msgspec.structs.replace(decision, **fields), of, [1 / 3, 1e-320, 12.0], "0123456789abcdef")


def decided_event(made: Decided, **extensions: str) -> CloudEvent:
    """The event `decide` replies with."""
    name = made.transaction.transaction_id
    return CloudEvent(
        id=name,
        source="/tollgate/decide",
        type=DECIDED,
        subject=name,
        time=made.decision.decided_at.isoformat(),
        datacontenttype="application/json",
        extensions={"correlationid": name, "origin": "transactions/3/5", "partitionkey": name, **extensions},
        data=msgspec.json.encode(made),
    )


def label(of: Transaction, *, is_fraud: bool = True, source: str = "chargeback", day: int = 8) -> Label:
    """A verdict about a transaction, known since that day of May."""
    return Label(
        of.transaction_id,
        of.customer_id,
        of.terminal_id,
        of.occurred_at,
        is_fraud,
        source,
        datetime(2026, 5, day, tzinfo=UTC),
    )

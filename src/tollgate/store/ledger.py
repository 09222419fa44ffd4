"""The decision ledger: what was decided about each transaction, once, for good.

In: `Decided` from function `record`. Out: `Recorded` with the decision as stored (its JSON is the same bytes each
time), and for the command line `find`, `decisions`, `latest`, `summary`, `quality` (these only read; the caller ends
the transaction). One statement holds everything about a decision: `ledger_ids` decides who is first, the row in the
day's partition says what was decided.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

import msgspec
from psycopg2.errors import CheckViolation

from tollgate.decision import Contribution, Decided, Decision, Model, Outcome
from tollgate.errors import Reason, Rejected
from tollgate.store import ledger_days
from tollgate.store.connection import Connection, committed
from tollgate.store.ledger_report import Quality, Summary, quality, summary
from tollgate.transaction import Transaction

__all__ = [
    "Quality",
    "Recorded",
    "Summary",
    "decisions",
    "find",
    "latest",
    "quality",
    "record",
    "record_many",
    "summary",
]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The decision as the ledger holds it; `first` when this very delivery put it there."""

    decision: Decision
    first: bool


_KINDS = {
    "occurred_on": "date", "transaction_id": "text", "customer_id": "text", "terminal_id": "text",
    "amount_minor": "bigint", "currency": "text", "occurred_at": "timestamptz", "channel": "text", "country": "text",
    "outcome": "text", "probability": "float8", "features": "float8[]", "features_hash": "text", "reasons": "jsonb",
    "model_name": "text", "model_version": "text", "model_revision": "text", "model_role": "text",
    "policy_version": "text", "features_as_of": "timestamptz", "degraded": "boolean", "degraded_why": "text",
    "requested_at": "timestamptz", "decided_at": "timestamptz", "latency_ms": "float8",
}  # fmt: skip
_COLUMNS = ", ".join(_KINDS)
# Everything given as one JSON document: one parameter to quote, one round trip, and numbers keep every bit.
_WRITE = (
    "WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset(%s) AS g(body_hash bytea, "
    + ", ".join(f"{name} {kind}" for name, kind in _KINDS.items())
    + ")), new AS (INSERT INTO ledger_ids (transaction_id, body_hash, occurred_on)"
    " SELECT transaction_id, body_hash, occurred_on FROM given ORDER BY transaction_id"
    " ON CONFLICT DO NOTHING RETURNING transaction_id)"
    f" INSERT INTO ledger ({_COLUMNS}) SELECT {_COLUMNS} FROM given JOIN new USING (transaction_id)"
    " RETURNING transaction_id"
)
_READ = "SELECT " + ", ".join("l.reasons::text" if name == "reasons" else f"l.{name}" for name in _KINDS)
_BY_ID = " FROM ledger_ids i JOIN ledger l ON l.occurred_on = i.occurred_on AND l.transaction_id = i.transaction_id"


def record(connection: Connection, decided: Decided) -> Recorded:
    """Put one decision into the ledger, or read back the one that is there.

    Raises `Rejected` (conflict) when the transaction's id was decided before with another body.
    """
    (result,) = record_many(connection, [decided])
    if isinstance(result, Rejected):
        raise result
    return result


def record_many(connection: Connection, decided: Sequence[Decided]) -> list[Recorded | Rejected]:
    """Record several in one commit, each with its own result, in order. Of equal ids the first given wins.

    psycopg2's errors pass through (`tollgate.store.connection.retryable` sorts them): the batch may be given again.
    """
    candidates: dict[str, Decided] = {}
    for each in decided:
        candidates.setdefault(each.transaction.transaction_id, each)
    digests = {name: each.transaction.digest() for name, each in candidates.items()}
    given = {name: msgspec.structs.replace(each, decision=stored(each.decision)) for name, each in candidates.items()}
    document = msgspec.json.encode([_row(each, digests[name]) for name, each in given.items()]).decode()
    try:
        new = _write(connection, document)
    except CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
        # No partition yet (or no longer) for one of the days; every other time this costs nothing.
        ledger_days.ensure(connection, (_day(each.transaction) for each in given.values()))
        new = _write(connection, document)
    held = {name: (digests[name], given[name].decision) for name in new}
    others = [name for name in given if name not in held]
    if others:
        with committed(connection) as cursor:
            cursor.execute(f"{_READ}, i.body_hash{_BY_ID} WHERE i.transaction_id = ANY(%s)", (others,))
            held |= {row[1]: (bytes(row[-1]), _decision(row)) for row in cursor}
    return [
        _result(each, held.get(name), first=name in new and each is candidates[name])
        for each in decided
        for name in [each.transaction.transaction_id]
    ]


def stored(decision: Decision) -> Decision:
    """The decision as the ledger gives it back, to the byte: times in UTC, no negative zero (numeric has none)."""
    as_of = decision.features_as_of
    return msgspec.structs.replace(
        decision,
        probability=decision.probability + 0.0,
        reasons=[Contribution(r.feature, r.value + 0.0, r.contribution + 0.0) for r in decision.reasons],
        features_as_of=None if as_of is None else as_of.astimezone(UTC),
        requested_at=decision.requested_at.astimezone(UTC),
        decided_at=decision.decided_at.astimezone(UTC),
        latency_ms=decision.latency_ms + 0.0,
    )


def _write(connection: Connection, document: str) -> set[str]:
    """The ids that were not there before: these rows are in the ledger now."""
    with committed(connection) as cursor:
        cursor.execute(_WRITE, (document,))
        return {name for (name,) in cursor}


def find(connection: Connection, transaction_id: str) -> Decided | None:
    """The decision about one transaction with what it was made from; None when it was never decided."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_READ}{_BY_ID} WHERE i.transaction_id = %s", (transaction_id,))
        row = cursor.fetchone()
    return None if row is None else _decided(row)


def decisions(connection: Connection, ids: Collection[str]) -> dict[str, Decision]:
    """The decisions about those of `ids` that were decided, by transaction id."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_READ}{_BY_ID} WHERE i.transaction_id = ANY(%s)", (list(ids),))
        return {row[1]: _decision(row) for row in cursor}


def latest(connection: Connection, limit: int = 20, outcomes: Collection[Outcome] = tuple(Outcome)) -> list[Decided]:
    """What was recorded last, newest first, at most `limit`, of the given outcomes."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_READ} FROM ledger l WHERE l.outcome = ANY(%s) ORDER BY l.recorded_at DESC, l.transaction_id LIMIT %s",
            ([outcome.value for outcome in outcomes], limit),
        )
        return [_decided(row) for row in cursor]


def _day(transaction: Transaction) -> date:
    return transaction.occurred_at.astimezone(UTC).date()


def _result(decided: Decided, held: tuple[bytes, Decision] | None, *, first: bool) -> Recorded | Rejected:
    if held is None:
        return Rejected(Reason.CONFLICT, "the transaction was decided before, and its day has left the ledger since")
    body_hash, decision = held
    if not first and body_hash != decided.transaction.digest():
        return Rejected(
            Reason.CONFLICT,
            "transaction_id was decided before with another body; send another transaction under an id of its own",
        )
    return Recorded(decision, first)


def _row(decided: Decided, body_hash: bytes) -> dict[str, Any]:
    t, d = decided.transaction, decided.decision
    return {
        "body_hash": f"\\x{body_hash.hex()}",
        "occurred_on": _day(t), "transaction_id": t.transaction_id, "customer_id": t.customer_id,
        "terminal_id": t.terminal_id, "amount_minor": t.amount_minor, "currency": t.currency,
        "occurred_at": t.occurred_at, "channel": t.channel, "country": t.country,
        "outcome": d.outcome, "probability": d.probability, "features": decided.features,
        "features_hash": decided.features_hash, "reasons": d.reasons,
        "model_name": d.model.name, "model_version": d.model.version,
        "model_revision": d.model.revision, "model_role": d.model.role,
        "policy_version": d.policy_version, "features_as_of": d.features_as_of,
        "degraded": d.degraded, "degraded_why": d.degraded_why,
        "requested_at": d.requested_at, "decided_at": d.decided_at, "latency_ms": d.latency_ms,
    }  # fmt: skip


def _decision(row: Sequence[Any]) -> Decision:
    outcome, probability, _, _, reasons, *model = row[9:18]
    policy_version, as_of, degraded, why, requested, decided, latency = row[18:25]
    return Decision(
        transaction_id=row[1],
        outcome=Outcome(outcome),
        probability=probability,
        reasons=msgspec.json.decode(reasons, type=list[Contribution]),
        model=Model(*model),
        policy_version=policy_version,
        features_as_of=as_of,
        degraded=degraded,
        degraded_why=why,
        requested_at=requested,
        decided_at=decided,
        latency_ms=latency,
    )


def _decided(row: Sequence[Any]) -> Decided:
    return Decided(_decision(row), Transaction(*row[1:9]), row[11], row[12])

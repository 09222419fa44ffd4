"""The decision ledger: what was decided about each transaction, once, for good.

In: `Decided` from function `record`. Out: `Recorded` with the decision as stored (its JSON is the same bytes each
time), and for the command line `find`, `decisions`, `latest`, `summary`, `quality` (these only read; the caller ends
the transaction). One commit holds everything about a decision: `ledger_ids` decides who is first, the row in the
day's partition says what was decided.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

import msgspec
from psycopg2.extras import execute_values

from tollgate.decision import Contribution, Decided, Decision, Model, Outcome
from tollgate.errors import Reason, Rejected
from tollgate.store import ledger_days
from tollgate.store.connection import Connection
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


_COLUMNS = (
    "occurred_on, transaction_id, customer_id, terminal_id, amount_minor, currency, occurred_at, channel, country,"
    " outcome, probability, features, features_hash, reasons, model_name, model_version, model_revision, model_role,"
    " policy_version, features_as_of, degraded, degraded_why, requested_at, decided_at, latency_ms"
)
_READ = "SELECT " + ", ".join(f"l.{name.strip()}" for name in _COLUMNS.split(",")).replace(
    "l.reasons", "l.reasons::text"
)
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

    psycopg2's errors pass through (`tollgate.store.connection.retryable` sorts them); nothing is committed then.
    """
    ledger_days.ensure(connection, (_day(each.transaction) for each in decided))
    # Ids in one order everywhere: two batches that share ids wait for each other instead of deadlocking.
    candidates = {each.transaction.transaction_id: i for i, each in reversed(list(enumerate(decided)))}
    order = [candidates[name] for name in sorted(candidates)]
    with connection, connection.cursor() as cursor:
        new = execute_values(
            cursor,
            "INSERT INTO ledger_ids (transaction_id, body_hash, occurred_on) VALUES %s"
            " ON CONFLICT DO NOTHING RETURNING transaction_id",
            [(t.transaction_id, t.digest(), _day(t)) for t in (decided[i].transaction for i in order)],
            page_size=len(order),
            fetch=True,
        )
        firsts = {candidates[name] for (name,) in new}
        if firsts:
            execute_values(
                cursor,
                f"INSERT INTO ledger ({_COLUMNS}) VALUES %s",  # noqa: S608 - a constant
                [_row(decided[i]) for i in sorted(firsts)],
                page_size=len(firsts),
            )
        cursor.execute(f"{_READ}, i.body_hash{_BY_ID} WHERE i.transaction_id = ANY(%s)", (list(candidates),))
        stored = {row[1]: (bytes(row[-1]), _decision(row)) for row in cursor.fetchall()}
    return [_result(each.transaction, stored, i in firsts) for i, each in enumerate(decided)]


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


def _result(transaction: Transaction, stored: dict[str, tuple[bytes, Decision]], first: bool) -> Recorded | Rejected:
    found = stored.get(transaction.transaction_id)
    if found is None:
        return Rejected(Reason.CONFLICT, "the transaction was decided before, and its day has left the ledger since")
    body_hash, decision = found
    if body_hash != transaction.digest():
        return Rejected(
            Reason.CONFLICT,
            "transaction_id was decided before with another body; send another transaction under an id of its own",
        )
    return Recorded(decision, first)


def _row(decided: Decided) -> tuple[Any, ...]:
    t, d = decided.transaction, decided.decision
    return (
        _day(t), t.transaction_id, t.customer_id, t.terminal_id, t.amount_minor, t.currency, t.occurred_at,
        t.channel, t.country,
        d.outcome.value, d.probability, decided.features, decided.features_hash,
        msgspec.json.encode(d.reasons).decode(),
        d.model.name, d.model.version, d.model.revision, d.model.role,
        d.policy_version, d.features_as_of, d.degraded, d.degraded_why, d.requested_at, d.decided_at, d.latency_ms,
    )  # fmt: skip


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

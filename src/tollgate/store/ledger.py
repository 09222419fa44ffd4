"""The decision ledger: what was decided about each transaction, once, for good.

In: `Decided` from function `record`. Out: `Recorded` with the decision as stored (its JSON is the same bytes each
time), and for the command line `find`, `decisions`, `latest`, `summary`, `quality` (these only read; the caller ends
the transaction). One statement holds everything about a decision: `ledger_ids` decides who is first, the row in the
day's partition says what was decided.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
from psycopg2.errors import CheckViolation

from tollgate.decision import Decided, Decision, Outcome
from tollgate.errors import Reason, Rejected
from tollgate.store import ledger_days
from tollgate.store import ledger_rows as rows
from tollgate.store.connection import Connection, committed
from tollgate.store.ledger_report import Quality, Summary, quality, summary

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


# Everything given as one JSON document: one parameter to quote, one round trip, and numbers keep every bit.
# Ids in one order everywhere: two batches that share some wait for each other instead of deadlocking.
_WRITE = f"""
WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset(%s) AS g(body_hash bytea, {rows.TYPED})),
new AS (
  INSERT INTO ledger_ids (transaction_id, body_hash, occurred_on)
  SELECT transaction_id, body_hash, occurred_on FROM given ORDER BY transaction_id
  ON CONFLICT DO NOTHING RETURNING transaction_id)
INSERT INTO ledger ({rows.COLUMNS}) SELECT {rows.COLUMNS} FROM given JOIN new USING (transaction_id)
RETURNING transaction_id"""  # noqa: S608 - made of constants


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
    names = [each.transaction.transaction_id for each in decided]
    candidates = {name: i for i, name in reversed(list(enumerate(names)))}
    digests = {name: decided[i].transaction.digest() for name, i in candidates.items()}
    given = {
        name: msgspec.structs.replace(decided[i], decision=rows.stored(decided[i].decision))
        for name, i in candidates.items()
    }
    document = msgspec.json.encode([rows.document(each, digests[name]) for name, each in given.items()]).decode()
    try:
        new = _write(connection, document)
    except CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
        # No partition yet (or no longer) for one of the days; every other time this costs nothing.
        ledger_days.ensure(connection, (rows.day(each.transaction) for each in given.values()))
        new = _write(connection, document)
    held = {name: (digests[name], given[name].decision) for name in new}
    others = [name for name in given if name not in held]
    if others:
        with committed(connection) as cursor:
            cursor.execute(f"{rows.READ}, i.body_hash{rows.BY_ID} WHERE i.transaction_id = ANY(%s)", (others,))
            held |= {row[1]: (bytes(row[-1]), rows.read_decision(row)) for row in cursor}
    return [
        _result(each, held.get(name), first=name in new and candidates[name] == i)
        for i, (name, each) in enumerate(zip(names, decided, strict=True))
    ]


def _write(connection: Connection, document: str) -> set[str]:
    """The ids that were not there before: these rows are in the ledger now."""
    with committed(connection) as cursor:
        cursor.execute(_WRITE, (document,))
        return {name for (name,) in cursor}


def find(connection: Connection, transaction_id: str) -> Decided | None:
    """The decision about one transaction with what it was made from; None when it was never decided."""
    with connection.cursor() as cursor:
        cursor.execute(f"{rows.READ}{rows.BY_ID} WHERE i.transaction_id = %s", (transaction_id,))
        row = cursor.fetchone()
    return None if row is None else rows.read_decided(row)


def decisions(connection: Connection, ids: Collection[str]) -> dict[str, Decision]:
    """The decisions about those of `ids` that were decided, by transaction id."""
    with connection.cursor() as cursor:
        cursor.execute(f"{rows.READ}{rows.BY_ID} WHERE i.transaction_id = ANY(%s)", (list(ids),))
        return {row[1]: rows.read_decision(row) for row in cursor}


def latest(connection: Connection, limit: int = 20, outcomes: Collection[Outcome] = tuple(Outcome)) -> list[Decided]:
    """What was recorded last, newest first, at most `limit`, of the given outcomes."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"{rows.READ} FROM ledger l WHERE l.outcome = ANY(%s)"
            " ORDER BY l.recorded_at DESC, l.transaction_id LIMIT %s",
            ([outcome.value for outcome in outcomes], limit),
        )
        return [rows.read_decided(row) for row in cursor]


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

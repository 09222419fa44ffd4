"""Labels: what transactions turned out to be, one verdict for each source.

In: `Label`s from function `label`. Out: the verdict that stands. Read by `ledger.quality` and by training.
Of two verdicts of one source the one with the later `labelled_at` stands (of equal times the fraud), in whatever
order and however often they arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from tollgate.errors import Rejected
from tollgate.store.connection import Connection, committed
from tollgate.transaction import Label

# The labels given as one JSON document: one parameter to quote, one round trip. What comes back are those that stand
# now; keys in one order everywhere: batches that share keys wait for each other instead of deadlocking.
_WRITE = (
    "INSERT INTO labels AS old (transaction_id, source, is_fraud, labelled_at)"
    " SELECT * FROM json_to_recordset(%s)"
    " AS given(transaction_id text, source text, is_fraud boolean, labelled_at timestamptz)"
    " ORDER BY transaction_id, source"
    " ON CONFLICT (transaction_id, source) DO UPDATE"
    " SET is_fraud = excluded.is_fraud, labelled_at = excluded.labelled_at, received_at = now()"
    " WHERE (excluded.labelled_at, excluded.is_fraud) > (old.labelled_at, old.is_fraud)"
    " RETURNING transaction_id, source"
)


def write(connection: Connection, label: Label) -> Label:
    """Store one label; returns it with the verdict that now stands for its transaction and source."""
    (standing,) = write_many(connection, [label])
    assert isinstance(standing, Label)
    return standing


def write_many(connection: Connection, labels: Sequence[Label]) -> list[Label | Rejected]:
    """Store several in one commit; each comes back with the verdict that stands. None is ever rejected.

    psycopg2's errors pass through (`tollgate.store.connection.retryable` sorts them): the batch may be given again.
    """
    best: dict[tuple[str, str], Label] = {}
    for label in sorted(labels, key=lambda each: (each.labelled_at, each.is_fraud)):
        best[label.transaction_id, label.source] = label
    rows = [
        {"transaction_id": name, "source": source, "is_fraud": each.is_fraud, "labelled_at": each.labelled_at}
        for (name, source), each in best.items()
    ]
    with committed(connection) as cursor:
        cursor.execute(_WRITE, (msgspec.json.encode(rows).decode(),))
        standing = {key: (best[key].is_fraud, best[key].labelled_at) for key in cursor}
        others = [name for name, source in best if (name, source) not in standing]
        if others:
            cursor.execute(
                "SELECT transaction_id, source, is_fraud, labelled_at FROM labels WHERE transaction_id = ANY(%s)",
                (others,),
            )
            standing |= {(name, source): (verdict, since) for name, source, verdict, since in cursor}
    return [_standing(label, *standing[label.transaction_id, label.source]) for label in labels]


def of(connection: Connection, transaction_id: str) -> dict[str, bool]:
    """The standing verdict (is it a fraud) of each source about one transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT source, is_fraud FROM labels WHERE transaction_id = %s", (transaction_id,))
        return dict(cursor.fetchall())


def _standing(label: Label, is_fraud: bool, labelled_at: datetime) -> Label:
    return msgspec.structs.replace(label, is_fraud=is_fraud, labelled_at=labelled_at.astimezone(UTC))

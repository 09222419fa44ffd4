"""Labels: what transactions turned out to be, one verdict for each source.

In: `Label`s from function `label`. Out: the verdict that stands. Read by `ledger.quality` and by training.
Of two verdicts of one source the one with the later `labelled_at` stands (of equal times the fraud), in whatever
order and however often they arrive.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from psycopg2.extras import execute_values

from tollgate.errors import Rejected
from tollgate.store.connection import Connection
from tollgate.transaction import Label


def write(connection: Connection, label: Label) -> Label:
    """Store one label; returns it with the verdict that now stands for its transaction and source."""
    (standing,) = write_many(connection, [label])
    assert isinstance(standing, Label)
    return standing


def write_many(connection: Connection, labels: Sequence[Label]) -> list[Label | Rejected]:
    """Store several in one commit; each comes back with the verdict that stands. None is ever rejected.

    psycopg2's errors pass through (`tollgate.store.connection.retryable` sorts them); nothing is committed then.
    """
    best: dict[tuple[str, str], Label] = {}
    for label in sorted(labels, key=lambda each: (each.labelled_at, each.is_fraud)):
        best[label.transaction_id, label.source] = label
    with connection, connection.cursor() as cursor:
        # Keys in one order everywhere: batches that share keys wait for each other instead of deadlocking.
        execute_values(
            cursor,
            "INSERT INTO labels AS old (transaction_id, source, is_fraud, labelled_at) VALUES %s"
            " ON CONFLICT (transaction_id, source) DO UPDATE"
            " SET is_fraud = excluded.is_fraud, labelled_at = excluded.labelled_at, received_at = now()"
            " WHERE (excluded.labelled_at, excluded.is_fraud) > (old.labelled_at, old.is_fraud)",
            [(*key, best[key].is_fraud, best[key].labelled_at) for key in sorted(best)],
            page_size=len(best),
        )
        cursor.execute(
            "SELECT transaction_id, source, is_fraud, labelled_at FROM labels WHERE transaction_id = ANY(%s)",
            ([name for name, _ in best],),
        )
        standing = {(name, source): (verdict, since) for name, source, verdict, since in cursor.fetchall()}
    return [_standing(label, *standing[label.transaction_id, label.source]) for label in labels]


def of(connection: Connection, transaction_id: str) -> dict[str, bool]:
    """The standing verdict (is it a fraud) of each source about one transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT source, is_fraud FROM labels WHERE transaction_id = %s", (transaction_id,))
        return dict(cursor.fetchall())


def _standing(label: Label, is_fraud: bool, labelled_at: object) -> Label:
    return msgspec.structs.replace(label, is_fraud=is_fraud, labelled_at=labelled_at)

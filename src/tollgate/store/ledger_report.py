"""What the ledger adds up to: counts and latency for the summary and the live view, quality against labels.

In: the ledger and the labels. Out: `Summary`, `Quality`, for the command line (reached as `tollgate.store.ledger`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from tollgate.decision import Outcome
from tollgate.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Summary:
    """Decisions by outcome (every outcome is there), how many were degraded, and latency in milliseconds from the
    transaction's arrival to its decision (None without decisions)."""

    outcomes: dict[Outcome, int]
    degraded: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None

    @property
    def decided(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Quality:
    """Decisions against labels, on the labelled part of the ledger. Flagged: reviewed or declined."""

    labelled: int
    frauds: int
    flagged: int
    caught: int

    @property
    def precision(self) -> float | None:
        """The share of the flagged that are frauds; None when nothing labelled was flagged."""
        return self.caught / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """The share of the frauds that were flagged; None when no fraud is labelled."""
        return self.caught / self.frauds if self.frauds else None


_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def summary(connection: Connection, since: datetime = _BEGINNING) -> Summary:
    """What was recorded at or after `since` (wall clock, not the transactions' own time)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT outcome, count(*), count(*) FILTER (WHERE degraded) FROM ledger"
            " WHERE recorded_at >= %s GROUP BY outcome",
            (since,),
        )
        rows = cursor.fetchall()
        cursor.execute(
            "SELECT percentile_cont(array[0.5, 0.99]) WITHIN GROUP (ORDER BY latency_ms) FROM ledger"
            " WHERE recorded_at >= %s",
            (since,),
        )
        (latency,) = cursor.fetchone() or (None,)
    counts = {Outcome(outcome): count for outcome, count, _ in rows}
    p50, p99 = latency or (None, None)
    return Summary({o: counts.get(o, 0) for o in Outcome}, sum(row[2] for row in rows), p50, p99)


def quality(connection: Connection, ids: Collection[str] | None = None) -> Quality:
    """Decisions against labels, all of them or those about `ids`. Of several sources the newest verdict counts."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH verdicts AS ("
            " SELECT DISTINCT ON (transaction_id) transaction_id, is_fraud FROM labels"
            " ORDER BY transaction_id, labelled_at DESC, is_fraud DESC, source)"
            " SELECT count(*), count(*) FILTER (WHERE v.is_fraud), count(*) FILTER (WHERE l.outcome <> 'approve'),"
            " count(*) FILTER (WHERE v.is_fraud AND l.outcome <> 'approve')"
            " FROM verdicts v JOIN ledger_ids i USING (transaction_id)"
            " JOIN ledger l ON l.occurred_on = i.occurred_on AND l.transaction_id = i.transaction_id"
            " WHERE %(ids)s IS NULL OR i.transaction_id = ANY(%(ids)s)",
            {"ids": None if ids is None else list(ids)},
        )
        row = cursor.fetchone()
    assert row is not None
    return Quality(*row)

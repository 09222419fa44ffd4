"""Tiles, written: a batch of facts goes in exactly once, whatever is delivered again, late or in another order.

In: a batch of the stream (transactions and frauds, as Spark parsed them) or a whole history (tiles that Spark added
up). Out: rows in `tiles`, the guard `tile_events` and `stream_progress`, all in one transaction. Next:
`tollgate.store.tiles` reads them.

Postgres, not Spark, adds up the stream's batches: what may be added depends on which transactions are already in,
and only the transaction that adds them can know that exactly. (Spark aggregating first would need a read of the guard
before and a check after.) The guard holds two facts about a transaction, each once: it is counted, its fraud is
counted; a label may come first. Every merge takes one advisory lock: merges happen one after another, so they never
deadlock, and the history's merge can hold the guard still while Spark adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import BinaryIO, NamedTuple

from psycopg2 import extensions

from tollgate.store.connection import Connection, retryable

_MERGE_LOCK = 7_105_002


class Event(NamedTuple):
    """A transaction as tiles see it: amount in minor units, `occurred_s` in epoch seconds."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    amount_minor: int
    occurred_s: int


class Fraud(NamedTuple):
    """A label that says fraud, with what it needs to find the tiles without its transaction."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    occurred_s: int


@dataclass(frozen=True, slots=True)
class Merged:
    """How many transactions and frauds of a batch were new."""

    events: int
    frauds: int


_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS tile_batch (
    seq integer, transaction_id text, customer_id text, terminal_id text,
    amount_minor bigint, occurred_s bigint, fraud boolean
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS tile_fresh (
    customer_id text, terminal_id text, amount_minor bigint, occurred_s bigint, n integer, frauds integer
) ON COMMIT DELETE ROWS;
"""

# The first of a batch wins under one id, as it does in the ledger; `known` remembers it for later batches.
_FRESH_EVENTS = """
WITH arrived AS (
    SELECT DISTINCT ON (transaction_id) * FROM tile_batch WHERE NOT fraud ORDER BY transaction_id, seq
), fresh AS (
    INSERT INTO tile_events AS known (transaction_id, occurred_s, counted, fraud)
    SELECT transaction_id, occurred_s, true, false FROM arrived
    ON CONFLICT (transaction_id) DO UPDATE SET counted = true WHERE NOT known.counted
    RETURNING transaction_id
)
INSERT INTO tile_fresh SELECT customer_id, terminal_id, amount_minor, occurred_s, 1, 0
FROM arrived JOIN fresh USING (transaction_id)
"""
_FRESH_FRAUDS = """
WITH arrived AS (
    SELECT DISTINCT ON (transaction_id) * FROM tile_batch WHERE fraud ORDER BY transaction_id, seq
), fresh AS (
    INSERT INTO tile_events AS known (transaction_id, occurred_s, counted, fraud)
    SELECT transaction_id, occurred_s, false, true FROM arrived
    ON CONFLICT (transaction_id) DO UPDATE SET fraud = true WHERE NOT known.fraud
    RETURNING transaction_id
)
INSERT INTO tile_fresh SELECT customer_id, terminal_id, 0, occurred_s, 0, 1
FROM arrived JOIN fresh USING (transaction_id)
"""
_MERGE = """
INSERT INTO tiles AS tile
    (entity_kind, entity_id, granularity, tile_start, n, sum_minor, sumsq_minor, max_minor, frauds)
{rows}
ON CONFLICT (entity_kind, entity_id, granularity, tile_start) DO UPDATE SET
    n = tile.n + excluded.n,
    sum_minor = tile.sum_minor + excluded.sum_minor,
    sumsq_minor = least(tile.sumsq_minor::numeric + excluded.sumsq_minor, 9223372036854775807)::bigint,
    max_minor = greatest(tile.max_minor, excluded.max_minor),
    frauds = tile.frauds + excluded.frauds
"""
# Squares stop at the largest bigint: a flood of largest amounts must not stop the stream with an overflow.
_MERGE_FRESH = _MERGE.format(
    rows="""
SELECT entity.kind, entity.id, step, occurred_s - occurred_s % step,
       sum(n), sum(amount_minor), least(sum(amount_minor * amount_minor), 9223372036854775807),
       max(amount_minor), sum(frauds)
FROM tile_fresh,
     LATERAL (VALUES (1, customer_id), (2, terminal_id)) AS entity (kind, id),
     unnest(ARRAY[1, 60, 3600, 86400]) AS step
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
"""
)
_PROGRESS = """
INSERT INTO stream_progress AS progress (query, batch_id, merged_at, max_occurred_s)
VALUES (%s, %s, now(), %s)
ON CONFLICT (query) DO UPDATE SET
    batch_id = excluded.batch_id, merged_at = excluded.merged_at,
    max_occurred_s = greatest(progress.max_occurred_s, excluded.max_occurred_s)
"""


def merge_batch(
    connection: Connection, query: str, batch_id: int, events: Iterable[Event], frauds: Iterable[Fraud]
) -> Merged | None:
    """Merge one batch in one transaction; None when `query` already merged `batch_id` or a later one.

    `events` in order of arrival: under one id the first counts. A non-fraud label is no fact for tiles: leave it
    out. Raises `Retryable` when Postgres is away or busy; then nothing was written.
    """
    events, frauds = list(events), list(frauds)
    with retryable(), connection, connection.cursor() as cursor:
        if _merged_up_to(cursor, query) >= batch_id:
            return None
        cursor.execute(_STAGING)
        cursor.copy_expert("COPY tile_batch FROM STDIN", _text(events, frauds))
        cursor.execute(_FRESH_EVENTS)
        new_events = cursor.rowcount
        cursor.execute(_FRESH_FRAUDS)
        new_frauds = cursor.rowcount
        cursor.execute(_MERGE_FRESH)
        newest = max((event.occurred_s for event in events), default=0)
        cursor.execute(_PROGRESS, (query, batch_id, newest))
        return Merged(new_events, new_frauds)


class HistoryMerge:
    """One history's merge under way: everything is written when its `with` block ends, or nothing."""

    def __init__(self, cursor: extensions.cursor) -> None:
        self._cursor = cursor

    def known(self, since_s: int) -> list[tuple[str, bool, bool]]:
        """(transaction id, counted, fraud counted) of what is already in, from second `since_s` on."""
        self._cursor.execute(
            "SELECT transaction_id, counted, fraud FROM tile_events WHERE occurred_s >= %s", (since_s,)
        )
        return self._cursor.fetchall()

    def add_events(self, csv: BinaryIO) -> None:
        """Guard rows as CSV: transaction_id, occurred_s, counted, fraud (true or false)."""
        self._cursor.execute("CREATE TEMP TABLE history_events (LIKE tile_events) ON COMMIT DROP")
        self._cursor.copy_expert("COPY history_events FROM STDIN (FORMAT csv)", csv)
        self._cursor.execute(
            "INSERT INTO tile_events AS known SELECT * FROM history_events ORDER BY transaction_id"
            " ON CONFLICT (transaction_id) DO UPDATE SET"
            " counted = known.counted OR excluded.counted, fraud = known.fraud OR excluded.fraud"
        )

    def add_tiles(self, csv: BinaryIO) -> None:
        """Tiles to add as CSV: the columns of `tiles` in order, each key once."""
        self._cursor.execute("CREATE TEMP TABLE history_tiles (LIKE tiles) ON COMMIT DROP")
        self._cursor.copy_expert("COPY history_tiles FROM STDIN (FORMAT csv)", csv)
        self._cursor.execute(_MERGE.format(rows="SELECT * FROM history_tiles ORDER BY 1, 2, 3, 4"))


@contextmanager
def merge_history(connection: Connection, query: str, newest_s: int) -> Iterator[HistoryMerge | None]:
    """Merge a whole history in the transaction that the `with` block is; None when `query` is already merged.

    `newest_s` is the history's newest event time (epoch seconds). No batch is merged meanwhile. Raises `Retryable`
    when Postgres is away or busy; then nothing was written.
    """
    with retryable(), connection, connection.cursor() as cursor:
        if _merged_up_to(cursor, query) >= 0:
            yield None
            return
        yield HistoryMerge(cursor)
        cursor.execute(_PROGRESS, (query, 0, newest_s))


def _merged_up_to(cursor: extensions.cursor, query: str) -> int:
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MERGE_LOCK,))
    cursor.execute("SELECT batch_id FROM stream_progress WHERE query = %s", (query,))
    found = cursor.fetchone()
    return -1 if found is None else int(found[0])


def _text(events: list[Event], frauds: list[Fraud]) -> StringIO:
    """COPY's text format; ids are of an alphabet without its special characters (tollgate.transaction)."""
    lines = [f"{i}\t{e[0]}\t{e[1]}\t{e[2]}\t{e[3]}\t{e[4]}\tf\n" for i, e in enumerate(events)]
    lines += [f"{i}\t{e[0]}\t{e[1]}\t{e[2]}\t0\t{e[3]}\tt\n" for i, e in enumerate(frauds)]
    return StringIO("".join(lines))

"""Tiles, read: what the transactions in every window of a request add up to, in one round trip.

In: n pairs of customer and terminal, each with its second. Out: `WindowSums` for each window (exact integers) and
the newest event time the tiles hold. Next: `tollgate.feature_matrix.assemble`. Who writes tiles:
`tollgate.store.tile_merge`.

The windows of one transaction mostly share their ends, so their covers have tile ranges in common: each distinct
range is asked for once, Postgres adds it up, and here the ranges are added up into windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from tollgate.feature_matrix import WindowSums
from tollgate.features import Window
from tollgate.store.connection import Connection, retryable
from tollgate.tiles import EntityKind, cover

_MAX = 3
_Range = tuple[int, str, int, int, int]

_PREPARE = """
PREPARE tollgate_window_sums (smallint[], text[], integer[], bigint[], bigint[]) AS
SELECT part.i, total.n, total.sum_minor, total.sumsq_minor, total.max_minor, total.frauds
FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY AS part (kind, id, granularity, first_start, end_start, i)
CROSS JOIN LATERAL (
    SELECT sum(n)::bigint AS n, sum(sum_minor)::bigint AS sum_minor,
           least(sum(sumsq_minor), 9223372036854775807)::bigint AS sumsq_minor,
           max(max_minor) AS max_minor, sum(frauds)::bigint AS frauds
    FROM tiles
    WHERE entity_kind = part.kind AND entity_id = part.id AND granularity = part.granularity
      AND tile_start >= part.first_start AND tile_start < part.end_start
) AS total
WHERE total.n IS NOT NULL
UNION ALL
SELECT 0, nullif(max(max_occurred_s), 0), 0, 0, 0, 0 FROM stream_progress
"""
# LATERAL, so that the plan is one index scan a range whatever the planner knows about the table's size.
_EXECUTE = "EXECUTE tollgate_window_sums (%s, %s, %s, %s, %s)"

_prepared: WeakSet[Connection] = WeakSet()


def read_window_sums(
    connection: Connection,
    customers: Sequence[str],
    terminals: Sequence[str],
    occurred_s: Sequence[int],
    windows: Sequence[Window],
) -> tuple[dict[Window, WindowSums], datetime | None]:
    """Sums over each window for n transactions, and the newest event time merged into the tiles (None: none yet).

    `customers`, `terminals` and `occurred_s` (epoch seconds) have n entries each; n may be 0. One statement, so one
    consistent snapshot; its plan is prepared once per connection. Give a connection in autocommit mode (otherwise
    psycopg2 adds a round trip for BEGIN and leaves the transaction open). Raises `Retryable` when Postgres is away.
    """
    ranges: dict[_Range, int] = {}
    members: list[int] = []  # ranges by number, those of one window and row side by side
    starts: list[int] = []  # where in `members` each window and row begins
    seconds = [int(second) for second in occurred_s]
    for window in windows:
        entity, ids = int(window.entity), customers if window.entity is EntityKind.CUSTOMER else terminals
        for entity_id, second in zip(ids, seconds, strict=True):
            starts.append(len(members))
            for granularity, first, end in cover(*window.bounds(second)):
                members.append(ranges.setdefault((entity, entity_id, granularity, first, end), len(ranges)))

    totals, newest = _totals(connection, list(ranges))
    if not starts:
        return {window: WindowSums.zeros(0) for window in windows}, _moment(newest)
    parts = totals[members]
    added = np.add.reduceat(parts, starts)
    added[:, _MAX] = np.maximum.reduceat(parts[:, _MAX], starts)
    by_window = added.reshape(len(windows), len(seconds), 5)
    sums = {window: WindowSums(*by_window[w].T) for w, window in enumerate(windows)}
    return sums, _moment(newest)


def _moment(newest: int | None) -> datetime | None:
    return None if newest is None else datetime.fromtimestamp(newest, UTC)


def _totals(connection: Connection, ranges: list[_Range]) -> tuple[NDArray[np.int64], int | None]:
    """int64 [ranges, 5] (n, sum, sum of squares, max, frauds), and the newest event second."""
    kinds, ids, granularities, firsts, ends = zip(*ranges, strict=True) if ranges else ((),) * 5
    # Array literals: Postgres reads one much faster than psycopg2's ARRAY[...] with an expression per element.
    literals = (_array(kinds), _array(map(_quoted, ids)), _array(granularities), _array(firsts), _array(ends))
    with retryable(), connection.cursor() as cursor:
        if connection not in _prepared:
            cursor.execute(_PREPARE)
            _prepared.add(connection)
        cursor.execute(_EXECUTE, literals)
        found = cursor.fetchall()
    totals = np.zeros((len(ranges) + 1, 5), np.int64)
    newest = None
    for i, *values in found:
        if i:
            totals[i] = values
        else:
            newest = values[0]
    return totals[1:], newest


def _array(values: Iterable[object]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

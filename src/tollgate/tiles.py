"""Tiles: what Spark adds up and windows are sums of.

A tile is (entity kind, entity id, granularity, start): how many transactions, the sum, the sum of squares and the
largest of their amounts, and how many were fraud, in [start, start + granularity). All are integers (minor units),
so merging is exact and in any order. In: epoch seconds. Out: the tiles to write for an event, and the smallest set
of tiles that covers a window. Next: `tollgate.store.tiles` keeps them, `tollgate.feature_matrix` adds them up.
The idea is Chronon's tiled windows (Airbnb, 2024); the cover is the greedy one over nested granularities.
"""

from __future__ import annotations

from enum import IntEnum

SECOND, MINUTE, HOUR, DAY = 1, 60, 3_600, 86_400
GRANULARITIES: tuple[int, ...] = (SECOND, MINUTE, HOUR, DAY)
"""Tile lengths in seconds, each a multiple of the one before."""


class EntityKind(IntEnum):
    """Whose transactions a tile adds up; the value is what Postgres stores."""

    CUSTOMER = 1
    TERMINAL = 2


def floor(seconds: int, step: int) -> int:
    """The largest multiple of `step` that is at most `seconds`. Also works on integer numpy arrays."""
    return seconds - seconds % step


def cover(start: int, end: int) -> list[tuple[int, int, int]]:
    """Disjoint tile ranges whose union is exactly [start, end): (granularity, first start, end), coarse where possible.

    >>> cover(58, 125)
    [(1, 58, 60), (60, 60, 120), (1, 120, 125)]
    """
    ranges: list[tuple[int, int, int]] = []
    _cover(start, end, len(GRANULARITIES) - 1, ranges)
    return ranges


def _cover(start: int, end: int, level: int, ranges: list[tuple[int, int, int]]) -> None:
    if start >= end:
        return
    step = GRANULARITIES[level]
    first, last = -(-start // step) * step, floor(end, step)
    if first < last:
        if level:
            _cover(start, first, level - 1, ranges)
        ranges.append((step, first, last))
        if level:
            _cover(last, end, level - 1, ranges)
    else:
        _cover(start, end, level - 1, ranges)

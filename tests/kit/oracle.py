"""The features and the tiles as the contract words them, computed by looking at every raw event.

In: transactions and the ids of the frauds that are known. Out: feature rows and tiles to compare with what the store,
Spark and the feature matrix make of them. Nothing of `tollgate.tiles` is used, and of `tollgate.features` only the
list: plain loops, one event at a time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tollgate.features import FEATURES, Aggregate, Feature, Own, Window
from tollgate.store.tile_merge import Event, Fraud
from tollgate.tiles import EntityKind

MINUTE, HOUR, DAY = 60, 3_600, 86_400

Tile = tuple[int, int, int, int, int]
"""n, sum, sum of squares, max, frauds."""


@dataclass(frozen=True)
class Sums:
    """What the transactions in a window add up to, in minor units."""

    n: int
    sum_minor: int
    sumsq_minor: int
    max_minor: int
    frauds: int


def hop(length: int) -> int:
    """Windows up to 1 h hop by 1 s, up to 1 d by 1 min, up to 7 d by 1 h, longer by 1 d."""
    if length <= HOUR:
        return 1
    if length <= DAY:
        return MINUTE
    return HOUR if length <= 7 * DAY else DAY


def window_sums(events: Sequence[Event], frauds: Collection[str], window: Window, entity_id: str, t: int) -> Sums:
    """All events of the entity in [floor(t - delay - length, hop), t - delay), frauds as far as known."""
    start = (t - window.delay - window.length) // hop(window.length) * hop(window.length)
    inside = []
    for event in events:
        whose = event.customer_id if window.entity == EntityKind.CUSTOMER else event.terminal_id
        if whose == entity_id and start <= event.occurred_s < t - window.delay:
            inside.append(event)
    amounts = [event.amount_minor for event in inside]
    return Sums(
        len(inside),
        sum(amounts),
        sum(amount * amount for amount in amounts),
        max(amounts, default=0),
        sum(event.transaction_id in frauds for event in inside),
    )


def features(
    events: Sequence[Event], frauds: Collection[str], current: Event, wanted: Sequence[Feature] = FEATURES
) -> list[float]:
    """The feature row of `current`, whose own transaction may or may not be among `events`."""
    row: dict[str, float] = {}
    for feature in wanted:
        row[feature.name] = _value(feature, row, events, frauds, current)
    return [row[feature.name] for feature in wanted]


def tiles(events: Sequence[Event], frauds: Sequence[Fraud]) -> dict[tuple[int, str, int, int], Tile]:
    """Every tile that these transactions and frauds make, each of them counted once."""
    made: dict[tuple[int, str, int, int], list[int]] = {}

    def at(kind: int, entity_id: str, second: int) -> list[list[int]]:
        keys = [(kind, entity_id, step, second // step * step) for step in (1, MINUTE, HOUR, DAY)]
        return [made.setdefault(key, [0, 0, 0, 0, 0]) for key in keys]

    for event in events:
        for kind, entity_id in ((1, event.customer_id), (2, event.terminal_id)):
            for tile in at(kind, entity_id, event.occurred_s):
                tile[0] += 1
                tile[1] += event.amount_minor
                tile[2] += event.amount_minor * event.amount_minor
                tile[3] = max(tile[3], event.amount_minor)
    for fraud in frauds:
        for kind, entity_id in ((1, fraud.customer_id), (2, fraud.terminal_id)):
            for tile in at(kind, entity_id, fraud.occurred_s):
                tile[4] += 1
    return {key: (tile[0], tile[1], tile[2], tile[3], tile[4]) for key, tile in made.items()}


def _value(
    feature: Feature, row: dict[str, float], events: Sequence[Event], frauds: Collection[str], current: Event
) -> float:
    t, amount = current.occurred_s, current.amount_minor
    match feature.own:
        case Own.AMOUNT:
            return amount / 100
        case Own.NIGHT:
            return float(t // HOUR % 24 < 7)
        case Own.WEEKEND:
            return float((t // DAY + 4) % 7 in (0, 6))  # Sunday is 0
        case None:
            pass
    if feature.over is not None:
        return amount / 100 / row[feature.over] if row[feature.over] else 0.0
    assert feature.window is not None
    whose = current.customer_id if feature.window.entity == EntityKind.CUSTOMER else current.terminal_id
    sums = window_sums(events, frauds, feature.window, whose, t)
    n, total, squares, largest = sums.n, sums.sum_minor, sums.sumsq_minor, sums.max_minor
    if feature.including_current:
        n, total, squares, largest = n + 1, total + amount, squares + amount * amount, max(largest, amount)
    match feature.aggregate:
        case Aggregate.COUNT:
            return float(n)
        case Aggregate.SUM:
            return total / 100
        case Aggregate.MEAN:
            return float(total) / n / 100 if n else 0.0
        case Aggregate.MAX:
            return largest / 100
        case Aggregate.STD:
            mean = float(total) / n if n else 0.0
            return math.sqrt(max(float(squares) / n - mean * mean, 0.0)) / 100 if n else 0.0
        case Aggregate.FRAUD_RATE:
            return sums.frauds / n if n else 0.0
        case None:
            raise AssertionError(feature)

"""Window sums to the feature matrix: the one implementation that training and the model server both call.

In: for n transactions their amounts and times, and for each window of `tollgate.features` the integer sums over it
(from tiles online, from sorted history offline). Out: float64 [n, F] in the order of the feature list. All sums are
integers and every step after them is one IEEE operation on the same operands, so equal sums give equal bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollgate.features import FEATURES, Aggregate, Feature, Own, Window
from tollgate.tiles import DAY, HOUR

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MINOR = 100.0
"""Minor units in a major unit: features are in major units."""
NIGHT_ENDS = 7
"""Night is from 0:00 to 6:59 UTC."""


@dataclass(frozen=True, slots=True)
class WindowSums:
    """What the transactions in one window add up to, for n rows: int64 [n] each, amounts in minor units."""

    n: Ints
    sum_minor: Ints
    sumsq_minor: Ints
    max_minor: Ints
    frauds: Ints

    @classmethod
    def zeros(cls, rows: int) -> WindowSums:
        """Empty windows: what an unknown customer has."""
        return cls(*(np.zeros(rows, np.int64) for _ in range(5)))


def assemble(
    amount_minor: Ints,
    occurred_s: Ints,
    sums: Mapping[Window, WindowSums],
    features: tuple[Feature, ...] = FEATURES,
) -> Floats:
    """The feature matrix, float64 [n, F], C-contiguous.

    `amount_minor` and `occurred_s` are int64 [n] (minor units, epoch seconds); `sums` has an entry for every window
    of `features`. A window without transactions gives 0 for every aggregate.
    """
    amount = amount_minor.astype(np.float64) / MINOR
    matrix = np.empty((len(amount), len(features)), np.float64)
    column = {feature.name: matrix[:, i] for i, feature in enumerate(features)}
    with_current: dict[Window, WindowSums] = {}
    for i, feature in enumerate(features):
        if feature.own is not None:
            matrix[:, i] = _own(feature.own, amount, occurred_s)
        elif feature.over is not None:
            matrix[:, i] = _ratio(amount, column[feature.over])
        else:
            assert feature.window is not None
            assert feature.aggregate is not None
            window = sums[feature.window]
            if feature.including_current:
                if feature.window not in with_current:
                    with_current[feature.window] = _with_current(window, amount_minor)
                window = with_current[feature.window]
            matrix[:, i] = _aggregate(feature.aggregate, window)
    return matrix


def _own(own: Own, amount: Floats, occurred_s: Ints) -> Floats:
    match own:
        case Own.AMOUNT:
            return amount
        case Own.NIGHT:
            return (occurred_s % DAY < NIGHT_ENDS * HOUR).astype(np.float64)
        case Own.WEEKEND:
            # 1970-01-01 was a Thursday: day 2 of the epoch's week is Saturday, day 3 Sunday.
            day = (occurred_s // DAY) % 7
            return np.asarray((day == 2) | (day == 3), np.float64)


def _with_current(window: WindowSums, amount_minor: Ints) -> WindowSums:
    return WindowSums(
        window.n + 1,
        window.sum_minor + amount_minor,
        window.sumsq_minor + amount_minor * amount_minor,
        np.maximum(window.max_minor, amount_minor),
        window.frauds,
    )


def _aggregate(aggregate: Aggregate, window: WindowSums) -> Floats:
    n = window.n.astype(np.float64)
    match aggregate:
        case Aggregate.COUNT:
            return n
        case Aggregate.SUM:
            return window.sum_minor.astype(np.float64) / MINOR
        case Aggregate.MEAN:
            return _mean(window.sum_minor, n) / MINOR
        case Aggregate.MAX:
            return window.max_minor.astype(np.float64) / MINOR
        case Aggregate.STD:
            mean = _mean(window.sum_minor, n)
            variance = _mean(window.sumsq_minor, n) - mean * mean
            return np.sqrt(np.maximum(variance, 0.0)) / MINOR
        case Aggregate.FRAUD_RATE:
            return _mean(window.frauds, n)


def _mean(total: Ints, n: Floats) -> Floats:
    return _ratio(total.astype(np.float64), n)


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below != 0)

"""The features, as data: one line each. Training, Spark and the model server all follow this list.

In: nothing. Out: `FEATURES` (order matters: it is the model's input), the windows they need, and a digest of it all
that travels with a model and that the model server compares before it serves. Next: `tollgate.feature_matrix`
turns window sums into numbers; `tollgate.tiles.cover` says which tiles make a window.

To add a feature, add a line to `FEATURES`. Nothing else needs to change: the next `tollgate train` uses it.

A window for a transaction at t covers [floor(t - delay - length, hop), floor(t - delay, 1 s)): it never holds the
transaction itself nor others of the same second, so that the value is the same whatever arrives first.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from json import dumps

from tollgate.tiles import DAY, HOUR, MINUTE, SECOND, EntityKind, floor


class Aggregate(StrEnum):
    """What is made of the transactions in a window. Amounts are in major units (euros), rates from 0 to 1."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    STD = "std"
    FRAUD_RATE = "fraud_rate"


class Own(StrEnum):
    """What is read off the transaction itself."""

    AMOUNT = "amount"
    NIGHT = "night"
    WEEKEND = "weekend"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of one entity's past: `length` and `delay` in seconds."""

    entity: EntityKind
    length: int
    delay: int = 0

    @property
    def hop(self) -> int:
        """How finely the start moves: 1 s up to 1 h, 1 min up to 1 d, 1 h up to 7 d, else 1 d."""
        if self.length <= HOUR:
            return SECOND
        if self.length <= DAY:
            return MINUTE
        return HOUR if self.length <= 7 * DAY else DAY

    def bounds(self, t: int) -> tuple[int, int]:
        """[start, end) in epoch seconds for a transaction at second `t`. Also works on integer numpy arrays."""
        return floor(t - self.delay - self.length, self.hop), t - self.delay


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the model's input: an aggregate over a window, a property of the transaction, or a ratio.

    `including_current` adds the transaction's own amount to the window (only where the window is not delayed).
    `over` divides the transaction's amount by another feature's value (0 where that is 0).
    """

    name: str
    aggregate: Aggregate | None = None
    window: Window | None = None
    including_current: bool = False
    own: Own | None = None
    over: str | None = None


def _customer(aggregate: Aggregate, label: str, length: int) -> Feature:
    return Feature(
        f"customer_{aggregate}_{label}",
        aggregate,
        Window(EntityKind.CUSTOMER, length),
        including_current=True,
    )


def _terminal(aggregate: Aggregate, label: str, length: int) -> Feature:
    return Feature(f"terminal_{aggregate}_{label}", aggregate, Window(EntityKind.TERMINAL, length, LABEL_DELAY))


LABEL_DELAY = 7 * DAY
"""How long it takes until a fraud is known; terminal risk looks at the time before that."""

FEATURES: tuple[Feature, ...] = (
    Feature("amount", own=Own.AMOUNT),
    Feature("is_night", own=Own.NIGHT),
    Feature("is_weekend", own=Own.WEEKEND),
    _customer(Aggregate.COUNT, "1min", MINUTE),
    _customer(Aggregate.COUNT, "10min", 10 * MINUTE),
    _customer(Aggregate.COUNT, "1h", HOUR),
    _customer(Aggregate.COUNT, "1d", DAY),
    _customer(Aggregate.COUNT, "7d", 7 * DAY),
    _customer(Aggregate.COUNT, "30d", 30 * DAY),
    _customer(Aggregate.SUM, "1h", HOUR),
    _customer(Aggregate.SUM, "1d", DAY),
    _customer(Aggregate.MEAN, "1d", DAY),
    _customer(Aggregate.MEAN, "7d", 7 * DAY),
    _customer(Aggregate.MEAN, "30d", 30 * DAY),
    _customer(Aggregate.MAX, "7d", 7 * DAY),
    _customer(Aggregate.MAX, "30d", 30 * DAY),
    _customer(Aggregate.STD, "30d", 30 * DAY),
    Feature("amount_over_customer_mean_7d", over="customer_mean_7d"),
    Feature("amount_over_customer_mean_30d", over="customer_mean_30d"),
    _terminal(Aggregate.COUNT, "1d", DAY),
    _terminal(Aggregate.COUNT, "7d", 7 * DAY),
    _terminal(Aggregate.COUNT, "30d", 30 * DAY),
    _terminal(Aggregate.FRAUD_RATE, "1d", DAY),
    _terminal(Aggregate.FRAUD_RATE, "7d", 7 * DAY),
    _terminal(Aggregate.FRAUD_RATE, "30d", 30 * DAY),
)


def names(features: tuple[Feature, ...] = FEATURES) -> tuple[str, ...]:
    """Feature names in the order of the model's input columns."""
    return tuple(f.name for f in features)


@cache
def windows(features: tuple[Feature, ...] = FEATURES) -> tuple[Window, ...]:
    """The distinct windows that the features need, in order of first use."""
    return tuple(dict.fromkeys(f.window for f in features if f.window is not None))


@cache
def digest(features: tuple[Feature, ...] = FEATURES) -> str:
    """A short hash of the whole definition: names, order and every parameter. Stored with a model."""
    text = dumps([asdict(f) for f in features], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def retention(entity: EntityKind, granularity: int, features: tuple[Feature, ...] = FEATURES) -> int:
    """How far back (seconds before now) tiles of this granularity are still read by some window.

    A window's start needs granularities finer than a day within one coarser tile of it, its end within one of `delay`.
    """
    coarser = {SECOND: MINUTE, MINUTE: HOUR, HOUR: DAY, DAY: DAY}[granularity]
    reach = 0
    for window in windows(features):
        if window.entity != entity:
            continue
        reach = max(reach, window.delay + coarser)
        if window.hop <= granularity or granularity == DAY:
            reach = max(reach, window.delay + window.length + window.hop)
    return reach

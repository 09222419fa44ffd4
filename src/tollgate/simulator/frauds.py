"""Which terminals and customers are compromised on which day, and which transactions that makes frauds.

In: one day's columns from `tollgate.simulator.world`. Out: scenario numbers and changed amounts. The scenarios
apply in the Handbook's order: amount (1), then terminal (2) over it, then customer (3) over both.
Every draw depends on the seed and its day only, so a day is the same whatever was generated before it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tollgate.simulator.columns import Ints
from tollgate.simulator.options import WorldSettings

TERMINALS_OF_REFERENCE = 10_000
CUSTOMERS_OF_REFERENCE = 5_000
"""The Handbook's world, to which its numbers of compromised terminals and customers belong."""


class Purpose(IntEnum):
    """What a random stream is for; part of its seed, so that no two uses share numbers."""

    PROFILES = 0
    DAY = 1
    TERMINALS = 2
    CUSTOMERS = 3
    CUSTOMER_FRAUDS = 4
    DRIFT = 5
    HOT_TERMINALS = 6
    MIX = 7


def rng(seed: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """The random stream for one purpose (and day)."""
    return np.random.default_rng([seed, int(purpose), *more])


def compromised_terminals(settings: WorldSettings, day: int) -> Ints:
    """The terminals drawn on `day`: compromised on this day and the following ones (`terminal_fraud_days`)."""
    expected = settings.terminals_compromised_per_day * settings.terminals / TERMINALS_OF_REFERENCE
    return _draw(rng(settings.seed, Purpose.TERMINALS, day), settings.terminals, expected)


def compromised_customers(settings: WorldSettings, day: int) -> Ints:
    """The customers drawn on `day`: compromised on this day and the following ones (`customer_fraud_days`)."""
    expected = settings.customers_compromised_per_day * settings.customers / CUSTOMERS_OF_REFERENCE
    return _draw(rng(settings.seed, Purpose.CUSTOMERS, day), settings.customers, expected)


def apply_frauds(
    settings: WorldSettings, day: int, customer: Ints, terminal: Ints, amount_minor: Ints
) -> tuple[NDArray[np.int8], Ints]:
    """Decide one day's frauds.

    Arguments are one day's columns, each [n], in order of time. Returns the scenario of each transaction
    (0 none) and the amounts, five times as high where scenario 3 struck (once per draw that hit the customer).
    """
    scenario = np.zeros(len(customer), np.int8)
    scenario[amount_minor > settings.fraud_amount_minor] = 1

    first = max(0, day - settings.terminal_fraud_days + 1)
    bad = np.zeros(settings.terminals, np.bool_)
    for drawn_on in range(first, day + 1):
        bad[compromised_terminals(settings, drawn_on)] = True
    scenario[bad[terminal]] = 2

    amounts = amount_minor.copy()
    first = max(0, day - settings.customer_fraud_days + 1)
    for drawn_on in range(first, day + 1):
        hit = np.flatnonzero(np.isin(customer, compromised_customers(settings, drawn_on)))
        stream = rng(settings.seed, Purpose.CUSTOMER_FRAUDS, day, drawn_on)
        struck = hit[stream.random(len(hit)) < 1 / 3]
        scenario[struck] = 3
        amounts[struck] *= 5
    return scenario, amounts


def _draw(stream: np.random.Generator, n: int, expected: float) -> Ints:
    """About `expected` distinct numbers below `n`: exactly that many when it is whole, else on average."""
    count = int(expected) + int(stream.random() < expected - int(expected))
    return stream.choice(n, size=min(count, n), replace=False, shuffle=False).astype(np.int64)

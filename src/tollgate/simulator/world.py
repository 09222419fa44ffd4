"""The world of the Fraud Detection Handbook's transaction process: who lives where, and what a day brings.

In: `WorldSettings` (and drifts). Out: `World.day(n)`, the columns of any day, the same whatever was asked before:
days 0 to D-1 are the history, day D and after are live, and a restart goes on in the same world.
Next: `tollgate.simulator.history` and `tollgate.simulator.stream`.

The process is described in Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card
Fraud Detection (2022), chapter 3. Where we differ: times have microseconds instead of whole seconds; a customer
with no terminal within the radius uses the nearest one instead of none; the third of a compromised customer's
transactions is drawn per transaction (so that a day needs no later day); numbers of compromised terminals and
customers scale with the world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tollgate.errors import ConfigurationError
from tollgate.simulator.columns import Bools, Day, Ints
from tollgate.simulator.frauds import Purpose, apply_frauds, rng
from tollgate.simulator.options import DAY_US, US, Drift, Position, WorldSettings
from tollgate.transaction import MAX_AMOUNT_MINOR

Floats = NDArray[np.float64]

PLANE = 100.0
"""Customers and terminals live in [0, PLANE] x [0, PLANE]."""
NOON_S = 43_200
SPREAD_S = 20_000
"""Times of day are normal around noon with this deviation, in seconds; those outside the day do not happen."""


@dataclass(frozen=True)
class Profiles:
    """Customers [c] and terminals [t]; customer i uses `reachable[offsets[i]:offsets[i + 1]]`."""

    customer_xy: Floats
    terminal_xy: Floats
    mean_amount: Floats
    transactions_per_day: Floats
    reachable: Ints
    offsets: Ints


@dataclass(frozen=True)
class World:
    """A deterministic world: equal settings and drifts give equal days, to the last cent."""

    settings: WorldSettings = field(default_factory=WorldSettings)
    drifts: tuple[Drift, ...] = ()

    @cached_property
    def profiles(self) -> Profiles:
        """Everybody's place and habits (made once, about a second for the Handbook's size)."""
        s = self.settings
        draw = rng(s.seed, Purpose.PROFILES)
        customer_xy = draw.uniform(0, PLANE, (s.customers, 2))
        mean_amount = draw.uniform(s.min_mean_amount, s.max_mean_amount, s.customers)
        per_day = draw.uniform(0, s.max_transactions_per_day, s.customers)
        terminal_xy = draw.uniform(0, PLANE, (s.terminals, 2))
        reachable, offsets = _reachable(customer_xy, terminal_xy, s.radius)
        return Profiles(customer_xy, terminal_xy, mean_amount, per_day, reachable, offsets)

    def day(self, number: int) -> Day:
        """The transactions of day `number` (from 0), in order of time. Raises `ConfigurationError` below 0."""
        if number < 0:
            raise ConfigurationError(f"day {number}: days count from 0")
        s, p = self.settings, self.profiles
        draw = rng(s.seed, Purpose.DAY, number)
        customer = np.repeat(np.arange(s.customers), draw.poisson(p.transactions_per_day))
        in_day_us = np.floor(draw.normal(NOON_S, SPREAD_S, len(customer)) * US).astype(np.int64)
        amount_minor = _amounts(draw, p.mean_amount[customer])
        choices = p.offsets[customer + 1] - p.offsets[customer]
        terminal = p.reachable[p.offsets[customer] + (draw.random(len(customer)) * choices).astype(np.int64)]

        kept = np.flatnonzero((in_day_us > 0) & (in_day_us < DAY_US))
        kept = kept[np.argsort(in_day_us[kept], kind="stable")]
        customer, terminal, amount_minor = customer[kept], terminal[kept], amount_minor[kept]
        occurred_us = s.day_start_us(number) + in_day_us[kept]

        active = [(k, d, _within(d, number, len(kept))) for k, d in enumerate(self.drifts)]
        for k, drift, where in active:
            terminal = self._crowd(drift, k, number, terminal, where)
        scenario, amount_minor = apply_frauds(s, number, customer, terminal, amount_minor)
        for _, drift, where in active:
            moved = np.clip(np.rint(amount_minor * drift.amount_factor), 1, MAX_AMOUNT_MINOR).astype(np.int64)
            amount_minor = np.where(where, moved, amount_minor)
        labelled_us = occurred_us + s.label_delay_us
        return Day(number, s.currency, customer, terminal, amount_minor, occurred_us, scenario, labelled_us)

    def clock_us(self, position: Position) -> int:
        """Event time when everything before `position` has happened: the latest transaction's, in microseconds.

        At the very beginning it is the start of day 0. A label is due once this reaches its `labelled_at`.
        """
        number, index = position.day, position.index
        while index == 0 and number > 0:
            number -= 1
            index = len(self.day(number))
        if index == 0:
            return self.settings.day_start_us(0)
        times = self.day(number).occurred_us
        return int(times[min(index, len(times)) - 1])

    def _crowd(self, drift: Drift, k: int, number: int, terminal: Ints, where: Bools) -> Ints:
        """Send a share of the transactions to the drift's few terminals."""
        s = self.settings
        size = min(drift.hot_terminals, s.terminals)
        hot = rng(s.seed, Purpose.HOT_TERMINALS, k).choice(s.terminals, size, replace=False)
        draw = rng(s.seed, Purpose.DRIFT, number, k)
        moves = where & (draw.random(len(terminal)) < drift.terminal_share)
        return np.where(moves, hot[draw.integers(0, size, len(terminal))], terminal)


def _within(drift: Drift, number: int, n: int) -> Bools:
    """Which of day `number`'s `n` transactions lie between the drift's start and end."""
    index = np.arange(n)

    def reached(at: Position) -> Bools:
        return (index >= at.index) if number == at.day else np.full(n, number > at.day)

    return reached(drift.start) & ~(reached(drift.end) if drift.end else np.zeros(n, np.bool_))


def _amounts(draw: np.random.Generator, mean: Floats) -> Ints:
    """Amounts in minor units, at least 1: normal(mean, mean / 2); the negative ones uniform(0, 2 mean) instead."""
    amount = draw.normal(mean, mean / 2)
    amount = np.where(amount < 0, draw.uniform(0, 2 * mean), amount)
    return np.maximum(np.rint(amount * 100), 1).astype(np.int64)


def _reachable(customer_xy: Floats, terminal_xy: Floats, radius: float) -> tuple[Ints, Ints]:
    """For each customer the terminals closer than `radius` (or the nearest): flat numbers and offsets."""
    flat: list[Ints] = []
    counts: list[Ints] = []
    for chunk in np.array_split(customer_xy, max(1, len(customer_xy) // 256)):
        squared = (chunk[:, :1] - terminal_xy[:, 0]) ** 2 + (chunk[:, 1:] - terminal_xy[:, 1]) ** 2
        near = squared < radius**2
        lonely = np.flatnonzero(~near.any(axis=1))
        near[lonely, squared[lonely].argmin(axis=1)] = True
        flat.append(np.nonzero(near)[1])
        counts.append(near.sum(axis=1))
    return np.concatenate(flat), np.concatenate([[0], np.cumsum(np.concatenate(counts))])

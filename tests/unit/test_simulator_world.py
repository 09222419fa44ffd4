"""The simulated world is the Handbook's process, and any of its days is the same whoever asks when."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError
from tollgate.simulator.columns import SCHEMA
from tollgate.simulator.options import DAY_US, US, Drift, Position, WorldSettings
from tollgate.simulator.world import World
from tollgate.transaction import is_card_number
from unit.simulator_listener import SMALL

TOWN = WorldSettings(seed=3, customers=400, terminals=800)
INSIDE = math.erf(43_200 / 20_000 / math.sqrt(2))
"""The share of normal(noon, 20,000 s) that falls inside the day."""


@pytest.fixture(scope="module")
def town() -> World:
    return World(TOWN)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=10, deadline=None)
def test_a_day_is_the_same_whatever_was_asked_before(first: int, second: int) -> None:
    one, other = World(SMALL), World(SMALL)
    one.day(first)
    assert one.day(second).table().equals(other.day(second).table())


def test_another_seed_is_another_world() -> None:
    assert not World(SMALL).day(0).table().equals(World(replace(SMALL, seed=8)).day(0).table())


def test_days_differ_from_each_other(town: World) -> None:
    one, two = town.day(1), town.day(2)
    n = min(len(one), len(two))
    assert (one.amount_minor[:n] != two.amount_minor[:n]).mean() > 0.9


def test_profiles_fill_the_published_ranges(town: World) -> None:
    p = town.profiles
    for values, low, high in (
        (p.customer_xy, 0, 100),
        (p.terminal_xy, 0, 100),
        (p.mean_amount, 5, 100),
        (p.transactions_per_day, 0, 4),
    ):
        assert values.min() >= low
        assert values.max() <= high
        width = high - low
        assert abs(values.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * values.size)
        assert values.max() - values.min() > 0.95 * width


def test_transactions_per_customer_are_poisson_around_each_customers_mean(town: World) -> None:
    days = 40
    counts = np.array([np.bincount(town.day(d).customer, minlength=TOWN.customers) for d in range(days)])
    expected = town.profiles.transactions_per_day * INSIDE * days
    frequent = expected > 10
    deviation = ((counts.sum(axis=0) - expected) ** 2 / expected)[frequent]
    assert abs(deviation.mean() - 1) < 5 * math.sqrt(2 / frequent.sum())
    dispersion = counts.var(axis=0, ddof=1)[frequent].sum() / counts.mean(axis=0)[frequent].sum()
    assert 0.9 < dispersion < 1.1


def test_times_of_day_are_normal_around_noon_cut_at_midnight(town: World) -> None:
    seconds = np.concatenate([(town.day(d).occurred_us % DAY_US) / US for d in range(200)])
    for hour in (6, 9, 12, 15, 18):
        z = (hour * 3600 - 43_200) / 20_000 / math.sqrt(2)
        expected = 0.5 + math.erf(z) / 2 / INSIDE
        assert abs((seconds < hour * 3600).mean() - expected) < 5 * 0.5 / math.sqrt(len(seconds))


def test_a_days_transactions_are_in_order_and_within_the_day(town: World) -> None:
    times = town.day(5).occurred_us
    start = int(datetime(2018, 4, 6, tzinfo=UTC).timestamp()) * US
    assert (np.diff(times) >= 0).all()
    assert times[0] > start
    assert times[-1] < start + DAY_US


def test_amounts_follow_the_customers_mean_and_negative_ones_are_redrawn() -> None:
    honest = World(replace(TOWN, customers_compromised_per_day=0.0))
    ratios = np.concatenate(
        [(d.amount_minor / 100) / honest.profiles.mean_amount[d.customer] for d in map(honest.day, range(200))]
    )
    assert ratios.min() > 0
    redrawn, lift = 0.02275, 0.5 * math.exp(-2) / math.sqrt(2 * math.pi)
    assert abs(ratios.mean() - (1 + lift)) < 5 * 0.5 / math.sqrt(len(ratios))
    below = (ratios < 0.5).mean()  # normal between -2 and -1 deviations, and a quarter of the redrawn
    assert abs(below - (0.15866 - redrawn + redrawn / 4)) < 5 * 0.35 / math.sqrt(len(ratios))


def test_customers_use_terminals_within_the_radius_or_else_the_nearest() -> None:
    sparse = World(replace(TOWN, terminals=100))
    p, day = sparse.profiles, sparse.day(3)
    distance = np.hypot(*(p.customer_xy[:, None, :] - p.terminal_xy[None, :, :]).transpose(2, 0, 1))
    lonely = 0
    for customer, terminal in zip(day.customer, day.terminal, strict=True):
        near = distance[customer] < 5
        lonely += not near.any()
        assert near[terminal] if near.any() else terminal == distance[customer].argmin()
    assert 0 < lonely < len(day)


def test_a_customer_uses_all_of_their_terminals_alike() -> None:
    village = World(WorldSettings(seed=1, customers=40, terminals=5, radius=200))
    used = np.concatenate([village.day(d).terminal for d in range(40)])
    shares = np.bincount(used, minlength=5) / len(used)
    assert np.abs(shares - 0.2).max() < 5 * math.sqrt(0.16 / len(used))


def test_the_truth_is_known_a_label_delay_later(town: World) -> None:
    day = World(replace(TOWN, label_delay_days=3)).day(2)
    assert (day.labelled_us - day.occurred_us == 3 * DAY_US).all()


def test_the_table_has_the_contracts_columns_and_unique_ids_that_are_no_card_numbers(town: World) -> None:
    table = town.day(183).table()
    assert table.schema.equals(SCHEMA)
    first = table.slice(0, 1).to_pylist()[0]
    day = town.day(183)
    assert first["transaction_id"] == "t-000183-000000"
    assert first["customer_id"] == f"c-{day.customer[0]:05d}"
    assert first["terminal_id"] == f"m-{day.terminal[0]:05d}"
    assert first["occurred_at"].timestamp() == pytest.approx(day.occurred_us[0] / US)
    assert (first["labelled_at"] - first["occurred_at"]).days == 7
    ids = table["transaction_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert not any(is_card_number(i.removeprefix("t-")) for i in ids)


def test_a_drift_begins_exactly_at_its_position_and_ends_there(town: World) -> None:
    start, end = Position(10, 100), Position(11, 50)
    drifted = World(TOWN, (Drift(start, end, amount_factor=2.0, terminal_share=0.0),))
    for number, low, high in ((9, 0, 0), (10, 100, 10**9), (11, 0, 50), (12, 0, 0)):
        before, after = town.day(number), drifted.day(number)
        inside = (np.arange(len(before)) >= low) & (np.arange(len(before)) < high)
        assert (after.amount_minor == np.where(inside, before.amount_minor * 2, before.amount_minor)).all()
        assert (after.scenario == before.scenario).all()
        assert (after.occurred_us == before.occurred_us).all()


def test_a_drift_moves_its_share_of_transactions_to_a_few_terminals(town: World) -> None:
    drift = Drift(Position(0, 0), amount_factor=1.0, terminal_share=0.4, hot_terminals=3)
    drifted = World(TOWN, (drift,))
    used = np.concatenate([drifted.day(d).terminal for d in range(10)])
    usual = np.concatenate([town.day(d).terminal for d in range(10)])
    busiest = np.sort(np.bincount(used))[-3:].sum() / len(used)
    assert 0.37 < busiest < 0.44
    assert abs((used != usual).mean() - 0.4) < 0.03


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"customers": 0}, "customers"),
        ({"customers": 200_001}, "200001"),
        ({"terminals": 0}, "terminals"),
        ({"radius": 0.0}, "radius"),
        ({"label_delay_days": 0}, "label_delay_days"),
        ({"max_transactions_per_day": 5.0}, "max_transactions_per_day"),
        ({"min_mean_amount": 200.0}, "mean amounts"),
    ],
)
def test_settings_no_world_can_be_made_of_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        WorldSettings(**wrong)  # type: ignore[arg-type]


def test_there_is_no_day_before_the_first() -> None:
    with pytest.raises(ConfigurationError, match="day -1"):
        World(SMALL).day(-1)

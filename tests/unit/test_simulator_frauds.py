"""Each fraud scenario, checked row by row against its definition by an oracle that knows only the draws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tollgate.simulator.frauds import compromised_customers, compromised_terminals
from tollgate.simulator.options import WorldSettings
from tollgate.simulator.world import World

DENSE = WorldSettings(
    seed=11,
    customers=300,
    terminals=200,
    terminals_compromised_per_day=250.0,  # 5 a day in this world
    customers_compromised_per_day=200.0,  # 12 a day
    terminal_fraud_days=4,
    customer_fraud_days=3,
    fraud_amount_minor=8_000,
)
NO_CAMPAIGNS = replace(DENSE, terminals_compromised_per_day=0.0, customers_compromised_per_day=0.0)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 30])
def test_every_row_has_the_scenario_that_its_definition_gives(number: int) -> None:
    day, plain = World(DENSE).day(number), World(NO_CAMPAIGNS).day(number)
    seen: set[int] = set()
    overruled: set[tuple[int, int]] = set()
    for i in range(len(day)):
        customer, terminal = day.customer[i], day.terminal[i]
        expected = 1 if plain.amount_minor[i] > 8_000 else 0
        if any(terminal in compromised_terminals(DENSE, d) for d in range(max(0, number - 3), number + 1)):
            overruled.add((expected, 2))
            expected = 2
        draws = sum(customer in compromised_customers(DENSE, d) for d in range(max(0, number - 2), number + 1))
        factor, rest = divmod(int(day.amount_minor[i]), int(plain.amount_minor[i]))
        assert rest == 0
        assert factor in [5**k for k in range(draws + 1)]
        if factor > 1:
            overruled.add((expected, 3))
            expected = 3
        assert day.scenario[i] == expected
        assert day.is_fraud[i] == (expected > 0)
        seen.add(expected)
    assert seen == {0, 1, 2, 3}
    assert (1, 2) in overruled


def test_a_third_of_a_compromised_customers_transactions_are_frauds() -> None:
    world = World(replace(DENSE, terminals_compromised_per_day=0.0, customer_fraud_days=1))
    struck = total = 0
    for number in range(60):
        day = world.day(number)
        drawn = set(compromised_customers(DENSE, number).tolist())
        mine = [s for c, s in zip(day.customer.tolist(), day.scenario.tolist(), strict=True) if c in drawn]
        struck, total = struck + mine.count(3), total + len(mine)
    assert total > 200
    assert abs(struck / total - 1 / 3) < 4 * math.sqrt(2 / 9 / total)


def test_a_small_world_draws_fewer_so_that_its_share_of_frauds_stays() -> None:
    small = WorldSettings(seed=2, customers=500, terminals=1_000)
    days = 500
    terminals = sum(len(compromised_terminals(small, d)) for d in range(days))
    customers = sum(len(compromised_customers(small, d)) for d in range(days))
    assert abs(terminals - 0.2 * days) < 4 * math.sqrt(0.16 * days)
    assert abs(customers - 0.3 * days) < 4 * math.sqrt(0.21 * days)


def test_the_handbooks_world_draws_two_terminals_and_three_customers_every_day() -> None:
    handbook = WorldSettings()
    for day in range(50):
        assert len(set(compromised_terminals(handbook, day).tolist())) == 2
        assert len(set(compromised_customers(handbook, day).tolist())) == 3

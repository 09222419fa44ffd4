"""The decision policy's laws, and what its file must hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate import policy
from tollgate.decision import Outcome
from tollgate.errors import ConfigurationError

STRICTNESS = {Outcome.APPROVE: 0, Outcome.REVIEW: 1, Outcome.DECLINE: 2}
SHIPPED = policy.load()

probabilities = st.floats(0, 1)
amounts = st.integers(1, 10**8)
money = st.floats(0, 10_000)
policies = st.builds(
    policy.Policy,
    version=st.just("any"),
    chargeback_fee=money,
    review_cost=money,
    review_recall=st.floats(0, 1),
    margin=st.floats(0, 1),
    lost_goodwill=money,
)


@given(policies, probabilities, probabilities, amounts)
def test_a_likelier_fraud_is_never_treated_more_leniently(
    rules: policy.Policy, one: float, other: float, amount: int
) -> None:
    low, high = sorted((one, other))
    costs_low, costs_high = rules.costs(low, amount), rules.costs(high, amount)
    # Costs that differ by rounding only have no order that a law could be about.
    for costs in (costs_low, costs_high):
        values = sorted(costs.values())
        if any(abs(a - b) <= 1e-9 * (abs(a) + abs(b)) for a, b in itertools.pairwise(values)):
            return
    assert STRICTNESS[rules.decide(low, amount)] <= STRICTNESS[rules.decide(high, amount)]


@given(policies, probabilities, amounts)
def test_no_other_outcome_is_expected_to_cost_less(rules: policy.Policy, probability: float, amount: int) -> None:
    costs = rules.costs(probability, amount)
    assert costs[rules.decide(probability, amount)] == min(costs.values())


@given(amounts)
def test_the_shipped_policy_approves_certain_honesty_and_declines_certain_fraud(amount: int) -> None:
    assert SHIPPED.decide(0.0, amount) is Outcome.APPROVE
    assert SHIPPED.decide(1.0, amount) is Outcome.DECLINE


@given(amounts, amounts)
def test_the_shipped_policy_approves_a_large_amount_only_at_a_probability_at_which_it_approves_a_small_one(
    one: int, other: int
) -> None:
    small, large = sorted((one, other))
    for probability in (0.01, 0.05, 0.2, 0.5):
        if SHIPPED.decide(probability, large) is Outcome.APPROVE:
            assert SHIPPED.decide(probability, small) is Outcome.APPROVE


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused_and_not_approved(probability: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        SHIPPED.decide(probability, 100)


def test_other_numbers_under_the_same_version_give_another_version(tmp_path: Path) -> None:
    changed = tmp_path / "policy.toml"
    changed.write_text(policy.DEFAULT.read_text().replace("review_cost = 4.0", "review_cost = 4.5"))
    assert policy.load(changed).version.split("+")[0] == SHIPPED.version.split("+")[0]
    assert policy.load(changed).version != SHIPPED.version


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("margin = 0.02", ""), "missing keys margin"),
        (("margin = 0.02", "margin = 2"), "margin: expected a number from 0 to 1"),
        (("margin = 0.02", "margin = true"), "margin: expected a number"),
        (("review_cost = 4.0", 'review_cost = "4"'), "review_cost: expected a number"),
        (("review_cost = 4.0", "review_cost = -1"), "review_cost: expected a number from 0"),
        (("review_cost = 4.0", "review_cost = nan"), "review_cost: expected a number"),
        (("margin = 0.02", "margin = 0.02\nspeed = 1"), "unknown keys speed"),
        (("margin = 0.02", "margin ="), "not TOML"),
        (('version = "2026-11"', 'version = ""'), "version: expected a text"),
    ],
)
def test_a_wrong_policy_file_is_refused_naming_the_key(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    file = tmp_path / "policy.toml"
    text = policy.DEFAULT.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(ConfigurationError, match=complaint):
        policy.load(file)


def test_a_policy_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"TOLLGATE_POLICY_FILE: cannot read .*nowhere\.toml"):
        policy.load(tmp_path / "nowhere.toml")

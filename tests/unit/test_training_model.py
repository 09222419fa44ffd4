"""A model learns only from labels known in time, is the same for the same seed, and is measured honestly."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from tollgate import policy
from tollgate.decision import Outcome
from tollgate.errors import ConfigurationError
from tollgate.features import FEATURES
from tollgate.tiles import DAY
from tollgate_training import train
from tollgate_training.evaluate import Scored, card_precision, measure, policy_metrics
from tollgate_training.history import NEVER, US, History
from tollgate_training.platt import Calibration, calibrate
from tollgate_training.register import Registry
from tollgate_training.split import Protocol, split

FIRST_DAY = 17_000


def history(days: int = 30, per_day: int = 20, delay_days: int = 7) -> History:
    """Every day `per_day` transactions of as many customers; every day another customer is a fraud's victim."""
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    occurred = ((FIRST_DAY + day) * DAY + np.tile(np.arange(per_day), days) * 60 + 30) * US
    customer = np.tile(np.arange(per_day), days)
    return History(
        customer=customer,
        terminal=customer % 3,
        amount_minor=np.full(n, 1_000),
        occurred_us=occurred,
        is_fraud=customer == day % per_day,
        labelled_us=occurred + delay_days * DAY * US,
        digest="",
    )


def test_the_parts_follow_each_other_with_the_delay_between() -> None:
    h = history()
    parts = split(h, Protocol(train_days=5, valid_days=3, delay_days=7, test_days=4, drop_known=False))
    days = [sorted(set((h.day[rows] - FIRST_DAY).tolist())) for rows in (parts.train, parts.valid, parts.test)]
    assert days == [[11, 12, 13, 14, 15], [16, 17, 18], [26, 27, 28, 29]]


def test_a_label_that_was_not_known_when_the_test_began_is_not_learned_from() -> None:
    h = history()
    late = h.labelled_us.copy()
    late[h.day == FIRST_DAY + 15] += 5 * DAY * US
    parts = split(dataclasses.replace(h, labelled_us=late), Protocol(train_days=5, valid_days=3, test_days=4))
    assert FIRST_DAY + 15 not in h.day[parts.train]
    assert FIRST_DAY + 14 in h.day[parts.train]


def test_days_without_labels_are_not_measured_on() -> None:
    h = history()
    unlabelled = np.where(h.day >= FIRST_DAY + 28, NEVER, h.labelled_us)
    parts = split(dataclasses.replace(h, labelled_us=unlabelled), Protocol(train_days=5, valid_days=3, test_days=4))
    assert h.day[parts.test].max() == FIRST_DAY + 27


def test_a_card_leaves_the_test_on_the_day_its_compromise_is_known_as_the_handbook_has_it() -> None:
    h, delay = history(), 7
    protocol = Protocol(train_days=5, valid_days=3, delay_days=delay, test_days=4)
    kept = set(split(h, protocol).test.tolist())
    for i in split(h, dataclasses.replace(protocol, drop_known=False)).test.tolist():
        before = (h.day >= FIRST_DAY + 11) & (h.day <= h.day[i] - delay - 1) & (h.customer == h.customer[i])
        assert (i in kept) == (not h.is_fraud[before].any())


def test_a_history_too_short_says_which_part_has_nothing() -> None:
    with pytest.raises(ConfigurationError, match=r"train_days: 0 labelled transactions.*the history has 20 days"):
        split(history(days=20), Protocol())


@pytest.mark.parametrize(("name", "value"), [("train_days", 0), ("test_days", 0), ("delay_days", -1)])
def test_a_part_without_a_day_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is {value}"):
        Protocol(**{name: value})


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    matrix = random.gamma(
        2.0, 30.0, (n, len(FEATURES))
    ).round()  # few distinct values: a small model, trained in no time
    return matrix, random.random(n) < 1 / (1 + np.exp(6 - matrix[:, 0] / 20 - matrix[:, 5] / 60))


def test_equal_data_and_seed_give_equal_bytes_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for cores in (1, 2, 2):
        monkeypatch.setattr(train, "_cores", lambda cores=cores: cores)
        model = train.fit(*rows(2_000, 1), *rows(1_000, 2), seed=7)
        digests.append(hashlib.sha256(model.ubj).hexdigest())
    assert len(set(digests)) == 1


def test_the_model_is_cut_at_its_best_round_and_its_bytes_score_the_same_elsewhere() -> None:
    model = train.fit(*rows(2_000, 1), *rows(1_000, 2), seed=7)
    assert model.booster.num_boosted_rounds() == model.rounds < train.MAX_ROUNDS
    elsewhere = xgboost.Booster()
    elsewhere.load_model(bytearray(model.ubj))
    matrix, fraud = rows(500, 3)
    margin = elsewhere.predict(xgboost.DMatrix(matrix, feature_names=elsewhere.feature_names), output_margin=True)
    np.testing.assert_array_equal(model.calibration.probability(margin.astype(float)), model.probability(matrix))
    assert abs(model.probability(matrix).mean() - fraud.mean()) < 0.05


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.5, -2.0), (3.0, 1.0)])
def test_calibration_finds_the_scale_that_made_the_labels(a: float, b: float) -> None:
    random = np.random.default_rng(0)
    margin = random.normal(0, 2, 50_000)
    fraud = random.random(50_000) < Calibration(a, b).probability(margin)
    found = calibrate(margin, fraud)
    oracle = LogisticRegression(C=1e9, tol=1e-10).fit(margin[:, None], fraud)
    assert found.a == pytest.approx(oracle.coef_[0, 0], rel=0.01)
    assert found.b == pytest.approx(oracle.intercept_[0], abs=0.01)


def test_calibration_stays_finite_where_the_margins_separate_the_labels() -> None:
    margin = np.linspace(-50, 50, 1_000)
    found = calibrate(margin, margin > 0)
    probability = found.probability(margin * 1e6)
    assert np.isfinite([found.a, found.b]).all()
    assert 0 <= probability.min() < probability.max() <= 1


def scored(fraud: list[int], p: list[float], customer: list[int], day: list[int], amount: int = 10_000) -> Scored:
    return Scored(
        np.array(fraud, bool), np.array(p), np.full(len(p), amount, np.int64), np.array(customer), np.array(day)
    )


def test_card_precision_counts_cards_not_transactions_and_a_found_card_leaves() -> None:
    day_one = ([1, 0, 0, 0], [0.2, 0.9, 0.8, 0.1], [1, 1, 2, 3], [1] * 4)
    day_two = ([1, 1, 0], [0.9, 0.5, 0.1], [1, 2, 3], [2] * 3)
    both = scored(*(a + b for a, b in zip(day_one, day_two, strict=True)))
    # Day 1: cards 1 (found) and 2. Day 2 without card 1: cards 2 (found) and 3.
    assert card_precision(both, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert card_precision(scored(*day_two), 2) == 1.0


def test_the_cost_is_the_policy_s_own_with_the_truth_for_the_probability() -> None:
    costs = policy.load()
    s = scored([1, 0, 0, 1], [0.99, 0.99, 0.0, 0.0], [1, 2, 3, 4], [1] * 4)
    found = policy_metrics(s, costs)
    declined_good = costs.costs(0.0, 10_000)[Outcome.DECLINE]
    missed = costs.costs(1.0, 10_000)[Outcome.APPROVE]
    assert found["cost_per_1000"] == pytest.approx(1_000 * (declined_good + missed) / 4)
    assert found["cost_approving_all_per_1000"] == pytest.approx(1_000 * 2 * missed / 4)
    assert (found["decline_precision"], found["decline_recall"], found["alert_rate"]) == (0.5, 0.5, 0.5)
    assert (found["review_precision"], found["review_rate"]) == (0.0, 0.0)


def test_a_perfect_score_measures_as_perfect() -> None:
    s = scored([1, 0, 0, 1], [1.0, 0.0, 0.0, 1.0], [1, 2, 3, 4], [1, 1, 2, 2])
    found = measure(s, policy.load())
    assert (found["auc_roc"], found["average_precision"], found["brier"], found["cost_per_1000"]) == (1, 1, 0, 0)


def test_the_registry_is_named_without_its_password() -> None:
    registry = Registry.from_environment({"MLFLOW_TRACKING_URI": "postgresql+psycopg2://me:hunter2@db:5432/mlflow?x=y"})
    assert str(registry) == "postgresql+psycopg2://db:5432/mlflow"


@pytest.mark.parametrize("value", ["", "  ", "mlruns"])
def test_without_a_registry_nothing_is_trained(value: str) -> None:
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI"):
        Registry.from_environment({"MLFLOW_TRACKING_URI": value})

"""Measures: how good a model is on days it has not seen, as a ranking, as a probability and in money.

In: labels, calibrated probabilities, amounts, customers and days of the test rows, and the policy.
Out: a flat dict of numbers under the names MLflow shows. Next: `tollgate_training.register`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from tollgate.decision import Outcome
from tollgate.feature_matrix import Floats, Ints
from tollgate.policy import Policy

TOP_CARDS = 100
"""How many cards a day the analysts can look at (the Handbook's number)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The test rows with their score; every array is [n], the probability calibrated."""

    fraud: NDArray[np.bool_]
    probability: Floats
    amount_minor: Ints
    customer: Ints
    day: Ints


def measure(scored: Scored, policy: Policy) -> dict[str, float]:
    """All metrics; amounts of money in major units."""
    return {
        "auc_roc": float(roc_auc_score(scored.fraud, scored.probability)),
        "average_precision": float(average_precision_score(scored.fraud, scored.probability)),
        f"card_precision_at_{TOP_CARDS}": card_precision(scored, TOP_CARDS),
        "brier": float(brier_score_loss(scored.fraud, scored.probability)),
        "fraud_rate": float(scored.fraud.mean()),
        "mean_probability": float(scored.probability.mean()),
    } | policy_metrics(scored, policy)


def card_precision(scored: Scored, top: int) -> float:
    """Mean over the days of the share of frauds among the `top` cards with the highest score of the day.

    A card scores as its riskiest transaction and counts as fraud when any of its day is one; a compromised card
    that was among the top leaves the days after (it has been found), as the Handbook measures it.
    """
    found: set[int] = set()
    precisions = []
    for day in np.unique(scored.day):
        rows = np.flatnonzero((scored.day == day) & ~np.isin(scored.customer, list(found)))
        cards, card = np.unique(scored.customer[rows], return_inverse=True)
        risk = np.zeros(len(cards))
        np.maximum.at(risk, card, scored.probability[rows])
        fraud = np.zeros(len(cards), np.bool_)
        np.logical_or.at(fraud, card, scored.fraud[rows])
        first = np.argsort(-risk, kind="stable")[:top]
        precisions.append(float(fraud[first].sum()) / top)
        found.update(cards[first][fraud[first]].tolist())
    return float(np.mean(precisions))


def policy_metrics(scored: Scored, policy: Policy) -> dict[str, float]:
    """What the policy would have done with these scores, and what it would have cost per 1,000 transactions.

    An alert is a review or a decline. The cost is the policy's own, with the truth in place of the probability.
    """
    counts: Counter[tuple[Outcome, bool]] = Counter()
    cost = cost_approving_all = expected = 0.0
    for fraud, p, amount in zip(
        scored.fraud.tolist(), scored.probability.tolist(), scored.amount_minor.tolist(), strict=True
    ):
        outcome = policy.decide(p, amount)
        counts[outcome, fraud] += 1
        expected += policy.costs(p, amount)[outcome]
        truly = policy.costs(float(fraud), amount)
        cost += truly[outcome]
        cost_approving_all += truly[Outcome.APPROVE]
    frauds, per_thousand = int(scored.fraud.sum()), 1_000 / len(scored.fraud)
    metrics = {
        "cost_per_1000": cost * per_thousand,
        "cost_expected_per_1000": expected * per_thousand,
        "cost_approving_all_per_1000": cost_approving_all * per_thousand,
    }
    alerts = (Outcome.REVIEW, Outcome.DECLINE)
    for name, outcomes in {"review": alerts[:1], "decline": alerts[1:], "alert": alerts}.items():
        caught = sum(counts[outcome, True] for outcome in outcomes)
        raised = caught + sum(counts[outcome, False] for outcome in outcomes)
        metrics[f"{name}_rate"] = raised / len(scored.fraud)
        metrics[f"{name}_precision"] = caught / raised if raised else 0.0
        metrics[f"{name}_recall"] = caught / frauds
    return metrics

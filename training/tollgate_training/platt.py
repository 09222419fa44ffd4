"""Platt scaling: the booster's margin becomes a probability that can be multiplied with money.

In: margins and labels of days the booster has not learned from. Out: `Calibration`, p = 1 / (1 + exp(-(a m + b))).
Next: it travels with the model in `tollgate.json`, and the model server applies it.
Fitted by Newton's method on Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollgate.feature_matrix import Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """The two numbers; `a` is positive for a model that is better than chance."""

    a: float
    b: float

    def probability(self, margin: Floats) -> Floats:
        """float64 [n] to float64 [n] from 0 to 1."""
        # Beyond 700 exp overflows; the probability is 0 or 1 to the last bit long before.
        return 1.0 / (1.0 + np.exp(-np.clip(self.a * margin + self.b, -700.0, 700.0)))


def calibrate(margin: Floats, fraud: NDArray[np.bool_]) -> Calibration:
    """The likeliest calibration of float64 margins [n]; both kinds must be among the labels."""
    frauds = int(fraud.sum())
    target = np.where(fraud, (frauds + 1) / (frauds + 2), 1 / (len(fraud) - frauds + 2))
    columns = np.column_stack([margin, np.ones_like(margin)])
    weights = np.array([1.0, 0.0])
    loss = _loss(columns @ weights, target)
    for _ in range(100):
        p = Calibration(*weights).probability(margin)
        gradient = columns.T @ (p - target)
        curvature = columns.T @ (columns * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (new := _loss(columns @ (weights - size * step), target)) > loss and size > 1e-10:
            size /= 2
        if new >= loss or np.abs(size * step).max() < 1e-10:
            break
        weights, loss = weights - size * step, new
    return Calibration(float(weights[0]), float(weights[1]))


def _loss(score: Floats, target: Floats) -> float:
    return float(np.sum(np.logaddexp(0.0, score) - target * score))

"""Fit and calibrate: feature matrices become a model whose probability is worth money.

In: the matrices and labels of the train and validation days. Out: `Model`, an XGBoost booster and two calibration
numbers; equal data and seed give equal bytes. Next: `tollgate_training.evaluate` measures it,
`tollgate_training.artifact` writes it down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from tollgate.feature_matrix import Floats
from tollgate.features import names
from tollgate_training.platt import Calibration, calibrate

PARAMETERS: dict[str, Any] = {
    "objective": "binary:logistic",
    # `hist` with its default of 256 bins loses precision on amounts; 4,096 equals `exact` here, ten times as fast.
    "tree_method": "hist",
    "max_bin": 4096,
    "eta": 0.05,
    "max_depth": 6,
    "min_child_weight": 5,
    "eval_metric": "logloss",
}
MAX_ROUNDS = 2_000
PATIENCE = 30
"""Rounds without a better loss on the validation days until training stops."""


@dataclass(frozen=True)
class Model:
    """A booster over `tollgate.features.FEATURES` in order, cut at its best round, and its calibration."""

    booster: Any
    calibration: Calibration
    parameters: dict[str, Any]
    rounds: int

    @cached_property
    def ubj(self) -> bytes:
        """The booster as XGBoost's UBJ."""
        return bytes(self.booster.save_raw("ubj"))

    def probability(self, matrix: Floats) -> Floats:
        """The calibrated fraud probability for float64 [n, F], float64 [n]."""
        return self.calibration.probability(_margin(self.booster, matrix))


def fit(
    train: Floats, train_fraud: NDArray[np.bool_], valid: Floats, valid_fraud: NDArray[np.bool_], *, seed: int
) -> Model:
    """Train on [n, F] and stop when the validation rows, which are later, get no better; then calibrate on them."""
    # base_score is said explicitly: what XGBoost would estimate itself has changed between its versions.
    parameters = PARAMETERS | {"base_score": float(train_fraud.mean()), "seed": seed, "nthread": _cores()}
    columns: dict[str, Any] = {
        "feature_names": list(names()),
        "max_bin": PARAMETERS["max_bin"],
        "nthread": parameters["nthread"],
    }
    learn = xgboost.QuantileDMatrix(train, train_fraud, **columns)
    check = xgboost.QuantileDMatrix(valid, valid_fraud, ref=learn, **columns)
    booster = xgboost.train(
        parameters,
        learn,
        MAX_ROUNDS,
        evals=[(check, "valid")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    rounds = booster.best_iteration + 1
    booster = booster[:rounds]
    return Model(booster, calibrate(_margin(booster, valid), valid_fraud), parameters, rounds)


def _margin(booster: Any, matrix: Floats) -> Floats:
    rows = xgboost.DMatrix(matrix, feature_names=list(names()))
    return np.asarray(booster.predict(rows, output_margin=True), np.float64)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

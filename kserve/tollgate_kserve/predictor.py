"""Scoring: the feature matrix in, calibrated probabilities and reasons out. Pure: no network, no clock.

In: a verified `Manifest` and float64 [n, F]. Out: probability float64 [n]; reasons, a list a row.
Inside, XGBoost compares float32: values beyond that range are refused before they come here. Next: `serving`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost

from tollgate.decision import Contribution
from tollgate.feature_matrix import Floats
from tollgate_kserve.artifact import MODEL_FILE, ArtifactError, Manifest


class Predictor:
    """One loaded booster with its calibration. Safe to call from several threads."""

    def __init__(self, manifest: Manifest) -> None:
        """Load the booster. Raises `ArtifactError` when it does not fit its manifest."""
        self.manifest = manifest
        # One thread a prediction: at small n a thread pool costs more than it gains, and requests run side by side.
        self._booster = xgboost.Booster({"nthread": 1})
        try:
            self._booster.load_model(manifest.folder / MODEL_FILE)
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise ArtifactError(f"{MODEL_FILE} cannot be loaded: {str(error).splitlines()[0]}") from None
        self._check()

    def probability(self, matrix: Floats) -> Floats:
        """Calibrated fraud probability, float64 [n], for features float64 [n, F]."""
        margin = self._booster.inplace_predict(matrix, predict_type="margin", validate_features=False)
        scale = self.manifest.calibration
        exponent = scale.a * margin.astype(np.float64) + scale.b
        # tanh form: exact at both ends, where exp() of a large number would overflow.
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * exponent)))

    def contributions(self, matrix: Floats) -> Floats:
        """TreeSHAP, float64 [n, F + 1]: how far a feature moved the calibrated log-odds; the last column is the base.

        A row adds up to the logit of its probability: Platt scaling is linear in the margin, so it scales each part.
        """
        raw = self._booster.predict(xgboost.DMatrix(matrix, nthread=1), pred_contribs=True, validate_features=False)
        scaled = raw.astype(np.float64) * self.manifest.calibration.a
        scaled[:, -1] += self.manifest.calibration.b
        return np.asarray(scaled)

    def reasons(self, matrix: Floats, most: int) -> list[list[Contribution]]:
        """Per row what speaks for fraud: the at most `most` largest positive contributions, largest first."""
        names, result = self.manifest.features, []
        for row, parts in zip(matrix, self.contributions(matrix)[:, :-1], strict=True):
            order = [int(i) for i in np.argsort(-parts, kind="stable")[:most] if parts[i] > 0]
            result.append([Contribution(names[i], float(row[i]), float(parts[i])) for i in order])
        return result

    def _check(self) -> None:
        expected = len(self.manifest.features)
        if self._booster.num_features() != expected:
            raise ArtifactError(f"{MODEL_FILE} has {self._booster.num_features()} columns, its manifest {expected}")
        names = self._booster.feature_names
        if names is not None and tuple(names) != self.manifest.features:
            raise ArtifactError(f"{MODEL_FILE} names its columns {names}, its manifest {list(self.manifest.features)}")
        config: dict[str, Any] = json.loads(self._booster.save_config())
        objective = config["learner"]["objective"]["name"]
        if objective != "binary:logistic":
            raise ArtifactError(
                f"{MODEL_FILE}: objective {objective} is not binary:logistic; its margin is no log-odds"
            )

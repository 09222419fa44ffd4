"""Scoring: the feature matrix in, calibrated probabilities and reasons out. Pure: no network, no clock.

In: a verified `Manifest` and float64 [n, F]. Out: probability float64 [n]; reasons, a list a row.
Inside, XGBoost compares float32: values beyond that range are refused before they come here. Next: `serving`.
"""

from __future__ import annotations

import json
from ctypes import CDLL, POINTER, byref, c_char_p, c_float, c_uint64, string_at
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from xgboost.libpath import find_lib_path

from tollgate.decision import Contribution
from tollgate.feature_matrix import Floats
from tollgate_kserve.artifact import MODEL_FILE, ArtifactError, Manifest

_LIBRARY = CDLL(find_lib_path()[0])
_LIBRARY.XGBGetLastError.restype = c_char_p
_MARGIN = json.dumps(
    {
        "type": 1,
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,
        "missing": float("nan"),
        "strict_shape": False,
        "cache_id": 0,
    }
).encode()
"""Margins (log-odds before calibration) of all trees."""


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
        scale = self.manifest.calibration
        exponent = scale.a * self._margin(matrix).astype(np.float64) + scale.b
        # tanh form: exact at both ends, where exp() of a large number would overflow.
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * exponent)))

    def _margin(self, matrix: Floats) -> NDArray[np.float32]:
        """What `Booster.inplace_predict` returns, float32 [n], by the same documented call of XGBoost's C API.

        Around it, the Python method spends twice what the trees take at small n, on questions answered here already.
        """
        matrix = np.ascontiguousarray(matrix, np.float64)
        n, width = matrix.shape
        if width != len(self.manifest.features):  # C would read past the end
            raise ValueError(f"a matrix of {width} columns; the model has {len(self.manifest.features)}")
        described = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f8","version":3}' % (matrix.ctypes.data, n, width)
        shape, dimensions, margins = POINTER(c_uint64)(), c_uint64(), POINTER(c_float)()
        status = _LIBRARY.XGBoosterPredictFromDense(
            self._booster.handle, described, _MARGIN, None, byref(shape), byref(dimensions), byref(margins)
        )
        if status:
            raise RuntimeError(f"XGBoost: {_LIBRARY.XGBGetLastError().decode().strip().splitlines()[0]}")
        # A copy: the memory is this thread's until its next prediction.
        return np.frombuffer(string_at(margins, 4 * n), np.float32)

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

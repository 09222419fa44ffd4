"""A small model that was really trained, in a folder as training leaves it and the storage initializer delivers it.

In: a folder. Out: model.ubj, tollgate.json and registry.json in it. Takes well under a second.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from tollgate import features
from tollgate.feature_matrix import Floats

CALIBRATION = {"kind": "platt", "a": 0.9, "b": -0.25}


def matrix(rows: int, seed: int = 1) -> Floats:
    """Feature values that look like the real ones: amounts, counts, rates; float64 [rows, F]."""
    random = np.random.default_rng(seed)
    values = random.gamma(2.0, 30.0, (rows, len(features.names())))
    for i, name in enumerate(features.names()):
        if name.startswith("is_") or "rate" in name:
            values[:, i] = random.random(rows) < 0.2
        elif "count" in name:
            values[:, i] = np.floor(values[:, i] / 10)
    return values


def write(folder: Path, *, version: str = "3", **manifest: Any) -> Path:
    """Train and write the folder; `manifest` replaces fields of tollgate.json."""
    folder.mkdir(parents=True, exist_ok=True)
    values = matrix(2_000)
    names = list(features.names())
    risk = values[:, names.index("amount")] + 80 * values[:, names.index("terminal_fraud_rate_7d")]
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "base_score": 0.3, "nthread": 1, "seed": 7},
        xgboost.DMatrix(values, label=risk > 130, feature_names=names),
        num_boost_round=20,
    )
    booster.save_model(folder / "model.ubj")
    digest = hashlib.sha256((folder / "model.ubj").read_bytes()).hexdigest()
    made = {
        "format": 1,
        "features": names,
        "features_hash": features.digest(),
        "calibration": CALIBRATION,
        "sha256": {"model.ubj": digest},
        "trained_on": {"rows": len(values), "seed": 1},
        "metrics": {},
        **manifest,
    }
    (folder / "tollgate.json").write_text(json.dumps(made))
    (folder / "registry.json").write_text(
        json.dumps({"name": "fraud", "version": version, "alias": "champion", "run_id": "0" * 32})
    )
    return folder

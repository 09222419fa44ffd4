"""The model artifact: a folder that MLflow shows as a model and the model server loads, without a pickle in it.

In: `Model` and what it was trained on. Out: a folder with MLmodel, `model.ubj` and `tollgate.json` (feature names and
hash, calibration, the digest of `model.ubj`). Next: `tollgate_training.register` uploads it; the storage initializer
delivers it to the model server, which refuses it when the hash or the digest does not match.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tollgate.feature_matrix import Floats
from tollgate.features import digest, names
from tollgate_training.train import Model

FORMAT = 1


def write(
    folder: Path,
    model: Model,
    *,
    trained_on: dict[str, Any],
    metrics: dict[str, float],
    example: Floats,
    mlflow_model: Any = None,
) -> None:
    """Write the artifact into `folder`, which is new. `example`: a few rows of features, float64 [k, F]."""
    import mlflow.xgboost  # takes seconds: only where a model is written
    import numpy as np
    import pandas as pd
    import xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs = Schema([ColSpec(DataType.double, name) for name in names()])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1,))])
    mlflow.xgboost.save_model(
        model.booster,
        str(folder),
        mlflow_model=mlflow_model,
        signature=ModelSignature(inputs, outputs),
        input_example=pd.DataFrame(example, columns=list(names())),
        pip_requirements=[f"xgboost-cpu=={xgboost.__version__}"],
        model_format="ubj",
    )
    booster = folder / "model.ubj"
    card = {
        "format": FORMAT,
        "features": list(names()),
        "features_hash": digest(),
        "calibration": {"kind": "platt", **asdict(model.calibration)},
        "sha256": {booster.name: hashlib.sha256(booster.read_bytes()).hexdigest()},
        "trained_on": trained_on,
        "metrics": metrics,
    }
    (folder / "tollgate.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")

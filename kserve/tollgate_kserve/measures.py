"""The Prometheus metrics of the model server; the SDK serves them on /metrics beside its own.

In: what `serving` observes. Out: the metrics named in contracts.md. Seconds, no ids.
"""

from __future__ import annotations

from prometheus_client import Histogram

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

BATCH_SIZE = Histogram(
    "tollgate_inference_batch_size",
    "Rows scored together: of one request, or of several that waited at the same time.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 1_000, 10_000),
)
SCORE = Histogram(
    "tollgate_score",
    "Calibrated fraud probabilities answered.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0),
)
_STAGE = Histogram(
    "tollgate_stage_seconds", "Time a batch of inference requests spent in a stage.", ["stage"], buckets=_FAST
)
FEATURES, PREDICT, REASONS = (_STAGE.labels(stage) for stage in ("features", "predict", "reasons"))
FEATURE_AGE = Histogram(
    "tollgate_feature_age_seconds",
    "How far the newest event in the tiles was behind the transaction (event time).",
    buckets=(0, 1, 2, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400),
)

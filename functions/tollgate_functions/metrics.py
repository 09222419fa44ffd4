"""The functions' Prometheus metrics, by the names of the contracts.

In: what the handlers observe. Out: a scrape on TOLLGATE_METRICS_PORT.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from prometheus_client import Counter, Histogram

from tollgate.errors import Reason

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

DECISIONS = Counter("tollgate_decisions", "Decisions made.", ("outcome", "model_version", "degraded"))
DECISION_SECONDS = Histogram("tollgate_decision_seconds", "Kafka append (or arrival) to decision.", buckets=_SECONDS)
STAGE_SECONDS = Histogram("tollgate_stage_seconds", "Time spent in one stage.", ("stage",), buckets=_SECONDS)
DEAD_LETTERS = Counter("tollgate_dead_letters", "Events refused for good, by reason.", ("reason",))

for _reason in Reason:
    DEAD_LETTERS.labels(_reason.value)  # every reason is there at 0, so that rates start right


@cache
def _stage(name: str) -> Histogram:
    return STAGE_SECONDS.labels(name)


def stage(name: str) -> AbstractContextManager[object]:
    """Observe how long the block takes as `tollgate_stage_seconds{stage=name}`; failures count too."""
    timer: AbstractContextManager[object] = _stage(name).time()
    return timer

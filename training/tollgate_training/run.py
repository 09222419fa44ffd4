"""One training run from end to end: read, features, fit, measure, register.

In: the history's folder, the split's settings, a seed. Out: `Outcome`; one `Progress` call per finished stage.
Next: `python -m tollgate_training` and `tollgate train` print it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollgate.policy import Policy
from tollgate.tiles import DAY
from tollgate_training import history
from tollgate_training.dataset import Dataset
from tollgate_training.split import Protocol, Split, split

Progress = Callable[[str, float, str], None]
"""Called with a stage's name, its seconds, and what came of it."""
EXAMPLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run reports; `seconds` by stage, in order."""

    version: str
    alias: str
    run_id: str
    metrics: dict[str, float]
    seconds: dict[str, float]


def run(
    source: Path,
    *,
    policy: Policy,
    protocol: Protocol | None = None,
    seed: int = 0,
    progress: Progress = lambda stage, seconds, result: None,
) -> Outcome:
    """Train on the history in `source` and register the model where MLFLOW_TRACKING_URI says.

    Raises `ConfigurationError` for a history or settings that cannot be used, `TollgateError` when MLflow does not
    answer.
    """
    # XGBoost and scikit-learn take seconds to import: a wrong argument is answered before that.
    from tollgate_training import evaluate, register, train

    registry = register.Registry.from_environment()
    protocol = protocol or Protocol()
    stages = _Stages(progress)

    with stages("read") as said:
        data = history.read(source)
        said(f"{len(data):,} transactions, {int(data.is_fraud.sum()):,} frauds, {_day(data.day[-1])} the last day")
    with stages("features") as said:
        parts = split(data, protocol)
        dataset = Dataset(data)
        x_train, x_valid, x_test = (dataset.matrix(rows) for rows in (parts.train, parts.valid, parts.test))
        said(f"{len(x_train):,} + {len(x_valid):,} + {len(x_test):,} rows of {x_train.shape[1]} features")
    with stages("fit") as said:
        warming = threading.Thread(target=register.warm_up, name="import-mlflow", daemon=True)
        warming.start()
        model = train.fit(x_train, data.is_fraud[parts.train], x_valid, data.is_fraud[parts.valid], seed=seed)
        warming.join()
        said(f"{model.rounds} trees, {len(model.ubj):,} bytes")
    with stages("evaluate") as said:
        scored = evaluate.Scored(
            fraud=data.is_fraud[parts.test],
            probability=model.probability(x_test),
            amount_minor=data.amount_minor[parts.test],
            customer=data.customer[parts.test],
            day=data.day[parts.test],
        )
        metrics = evaluate.measure(scored, policy)
        said(f"AUC {metrics['auc_roc']:.3f}, average precision {metrics['average_precision']:.3f}")
    with stages("register") as said:
        result = register.Result(
            model=model,
            metrics=metrics,
            scored=scored,
            trained_on=_trained_on(data, parts, protocol, seed, policy),
            example=x_train[:EXAMPLE_ROWS],
        )
        registered = register.register(result, registry)
        said(f"fraud version {registered.version}, {registered.alias}")
    return Outcome(registered.version, registered.alias, registered.run_id, metrics, stages.seconds)


class _Stages:
    """Times the stages and reports each when it is done."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[str], None]]:
        results: list[str] = []
        start = time.perf_counter()
        yield results.append
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self._progress(name, self.seconds[name], " ".join(results))


def _trained_on(data: history.History, parts: Split, protocol: Protocol, seed: int, policy: Policy) -> dict[str, Any]:
    return {
        **asdict(protocol),
        "first_day": _day(data.day[parts.train[0]]),
        "last_day": _day(data.day[parts.train[-1]]),
        "test_first_day": _day(data.day[parts.test[0]]),
        "test_last_day": _day(data.day[parts.test[-1]]),
        "rows": len(parts.train),
        "frauds": int(data.is_fraud[parts.train].sum()),
        "data_digest": data.digest,
        "seed": seed,
        "policy_version": policy.version,
    }


def _day(day: int) -> str:
    return datetime.fromtimestamp(int(day) * DAY, UTC).date().isoformat()

"""Registration: a measured model becomes a version of the registered model `fraud` in MLflow.

In: `Result`. Out: the version and its alias: `champion` for the first, `challenger` for every later one until a gate
or a person promotes it. Logged with it: parameters, metrics, plots, importance, and the digest of the data.
Next: the storage initializer resolves `mlflow://models/fraud@champion`.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from tollgate.errors import ConfigurationError, TollgateError
from tollgate.feature_matrix import Floats
from tollgate.features import digest
from tollgate_training import artifact, plots
from tollgate_training.evaluate import Scored
from tollgate_training.train import Model

EXPERIMENT = "fraud"
MODEL_NAME = "fraud"
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, slots=True)
class Registry:
    """Where MLflow is: MLFLOW_TRACKING_URI (a database, or an MLflow server), and where new experiments' files go."""

    uri: str
    artifact_root: str | None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Registry:
        """Read MLFLOW_TRACKING_URI and TOLLGATE_ARTIFACT_ROOT. Raises `ConfigurationError`."""
        uri = environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not urlsplit(uri).scheme:
            raise ConfigurationError(
                "MLFLOW_TRACKING_URI is not set to a URI: give the registry's database "
                "(postgresql://..., sqlite:///...) or an MLflow server (http://...)"
            )
        return cls(uri, environ.get("TOLLGATE_ARTIFACT_ROOT", "").strip() or None)

    def __str__(self) -> str:
        """The URI without user and password."""
        parts = urlsplit(self.uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


@dataclass(frozen=True, slots=True)
class Result:
    """A trained and measured model with everything that is logged about it; `example` is float64 [k, F]."""

    model: Model
    metrics: dict[str, float]
    scored: Scored
    trained_on: dict[str, Any]
    example: Floats


@dataclass(frozen=True, slots=True)
class Registered:
    """The new version."""

    version: str
    alias: str
    run_id: str


def warm_up() -> None:
    """Import MLflow, which takes seconds; worth a thread while XGBoost, which holds no lock, trains."""
    with _quiet():
        import mlflow.xgboost  # noqa: F401


def register(result: Result, registry: Registry) -> Registered:
    """Log and register. Raises `TollgateError` (never with credentials in it) when MLflow does not answer."""
    with _quiet():
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return _register(result, registry)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            text = str(error).replace(registry.uri, str(registry))
            if password := urlsplit(registry.uri).password:
                text = text.replace(password, "***").replace(unquote(password), "***")
            raise TollgateError(f"MLflow at {registry}: the model was not registered: {text}") from None


def _register(result: Result, registry: Registry) -> Registered:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model as MlflowModel

    client = MlflowClient(registry.uri, registry.uri)
    experiment = _experiment(client, registry.artifact_root)
    run_id = client.create_run(experiment, run_name=f"train {result.trained_on['data_digest'][:8]}").info.run_id
    try:
        logged = client.create_logged_model(experiment, name=MODEL_NAME, source_run_id=run_id, model_type="xgboost")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        with tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
            _log_run(client, run_id, result, Path(scratch) / "run", logged.model_id)
            artifact.write(
                Path(scratch) / "model",
                result.model,
                trained_on=result.trained_on,
                metrics=result.metrics,
                example=result.example,
                mlflow_model=MlflowModel(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_id=logged.model_id,
                    model_uuid=logged.model_id,
                ),
            )
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
        client.finalize_logged_model(logged.model_id, "READY")
        version, alias = _new_version(client, run_id, logged.model_id)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return Registered(version, alias, run_id)


def _experiment(client: Any, artifact_root: str | None) -> str:
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifact_root))


def _log_run(client: Any, run_id: str, result: Result, folder: Path, model_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    now = int(time.time() * 1_000)
    parameters = {**result.model.parameters, "rounds": result.model.rounds, "features_hash": digest()}
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0, model_id=model_id) for name, value in result.metrics.items()],
        params=[Param(name, str(value)) for name, value in {**parameters, **result.trained_on}.items()],
        tags=[RunTag("features_hash", digest())],
    )
    data = Dataset(
        name="history",
        digest=result.trained_on["data_digest"][:36],
        source_type="local",
        source=json.dumps({"sha256": result.trained_on["data_digest"]}),
        profile=json.dumps({"rows": result.trained_on["rows"], "frauds": result.trained_on["frauds"]}),
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    folder.mkdir()
    gain = result.model.booster.get_score(importance_type="total_gain")
    importance = {name: float(value) / sum(gain.values()) for name, value in gain.items()}
    plots.write(folder, result.scored, result.metrics["average_precision"], importance)
    (folder / "importance.json").write_text(json.dumps(importance, indent=2) + "\n", "utf-8")
    client.log_artifacts(run_id, str(folder))


def _new_version(client: Any, run_id: str, model_id: str) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        model = client.create_registered_model(MODEL_NAME)
    version = client.create_model_version(
        MODEL_NAME,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags={"features_hash": digest()},
        model_id=model_id,
    ).version
    alias = CHALLENGER if CHAMPION in model.aliases else CHAMPION
    client.set_registered_model_alias(MODEL_NAME, alias, version)
    return str(version), alias


@contextmanager
def _quiet() -> Iterator[None]:
    """No telemetry, no progress bars, no emoji, no warnings about MLflow's own insides; errors stay."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

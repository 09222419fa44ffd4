"""The MLflow server with its UI, and its store, which training and the storage initializer read directly.

In: the Postgres database `mlflow`. Out: a `Part`, `client_env` for those who open the store, and `prepare_store`,
which must have run before any of them: two that create the tables at the same moment trip over each other.
Nothing on the decision path waits for the server.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from tollgate.errors import TollgateError
from tollgate.local import probes
from tollgate.local.layout import HOST, Layout
from tollgate.local.part import Part
from tollgate.local.process import environment

_PREPARE = """
import os
from mlflow.cli import cli
uri, root = os.environ["MLFLOW_BACKEND_STORE_URI"], os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
cli(["db", "upgrade", uri], standalone_mode=False)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(uri, root)  # makes the default experiment, with this artifact root
"""


def part(layout: Layout) -> Part:
    """Describe the server; `prepare_store` comes first."""
    return Part(
        name="mlflow",
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(layout.port("mlflow"))),
            *("--workers", "1", "--no-serve-artifacts"),
        ],
        env=_server_env(layout),
        ready=lambda: probes.http(f"{layout.url('mlflow')}/health"),
        depends_on=("postgres",),
        ready_timeout=120,
        grace=10,
    )


def artifact_root(layout: Layout) -> Path:
    """Where artifacts are: a plain folder, which client and server both reach."""
    return layout.data / "mlflow"


def client_env(layout: Layout) -> dict[str, str]:
    """Environment of a process that opens the store itself, without the server."""
    return {
        "MLFLOW_TRACKING_URI": _store_url(layout),
        "TOLLGATE_ARTIFACT_ROOT": str(artifact_root(layout)),
        **_QUIET,
    }


def prepare_store(layout: Layout) -> None:
    """Create or upgrade the tables, once for each MLflow version. Postgres must run.

    Raises `TollgateError` with MLflow's own words when that fails.
    """
    root = artifact_root(layout)
    root.mkdir(parents=True, exist_ok=True)
    stamp, version = root / ".store-version", importlib.metadata.version("mlflow")
    if stamp.is_file() and stamp.read_text() == version:
        return
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE],
        env=environment(layout, _server_env(layout)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.replace(layout.database_password(), "***").strip()
        raise TollgateError(f"MLflow's tables cannot be created or upgraded: {words[-800:]}")
    stamp.write_text(version)


def _store_url(layout: Layout) -> str:
    """With the driver named: SQLAlchemy 2.1 takes another one by default, which is not installed."""
    return layout.database_url("mlflow").reveal().replace("postgresql://", "postgresql+psycopg2://", 1)


def _server_env(layout: Layout) -> dict[str, str]:
    """By environment, not by command line: the URL carries the password."""
    return {
        "MLFLOW_BACKEND_STORE_URI": _store_url(layout),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(artifact_root(layout)),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **_QUIET,
    }


_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}

"""The parts that are Tollgate's own code: which command, which settings, when ready.

In: `Layout`. Out: `Part`s for the supervisor. What is not ours (Postgres, Kafka, Envoy, MLflow) has modules of
its own beside this one. The commands and settings are those of the cluster's images, with other addresses.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tollgate.errors import ConfigurationError
from tollgate.local import probes
from tollgate.local.layout import HOST, Layout, checkout
from tollgate.local.part import Part

FUNCTIONS = ("decide", "record", "label")


def root() -> Path:
    """The checkout: the parts' code and Knative's objects lie there. Raises `ConfigurationError` outside one."""
    found = checkout()
    if found is None:
        raise ConfigurationError(
            "the embedded platform runs from a source checkout: clone the repository and `make up`"
        )
    return found


def function(layout: Layout, name: str) -> Part:
    """One function (func-python) with the settings it would get from its Knative Service."""
    env = {
        "LISTEN_ADDRESS": f"{HOST}:{layout.port(name)}",
        "TOLLGATE_METRICS_PORT": str(layout.port(f"{name}_metrics")),
        **_own_code("functions"),
    }
    if name == "decide":
        env["TOLLGATE_MODEL_URL"] = layout.url("gateway")
        if file := os.environ.get("TOLLGATE_POLICY_FILE"):
            env["TOLLGATE_POLICY_FILE"] = file
    else:
        env["TOLLGATE_DATABASE_URL"] = layout.database_url().reveal()
    return Part(
        name=name,
        command=[str(layout.env / "functions/bin/python"), "-m", "tollgate_functions", name],
        env=env,
        ready=lambda: probes.http(f"{layout.url(name)}/health/readiness"),
        depends_on=() if name == "decide" else ("postgres",),
    )


def model(layout: Layout, folder: Path, revision: str) -> Part:
    """The InferenceService's server on a model folder that the storage initializer delivered."""
    return Part(
        name="model",
        command=[
            str(layout.env / "serving/bin/python"),
            "-m",
            "tollgate_kserve",
            f"--model_dir={folder}",
            f"--host={HOST}",
            f"--http_port={layout.port('model')}",
            f"--grpc_port={layout.port('model_grpc')}",
        ],
        env={
            "TOLLGATE_DATABASE_URL": layout.database_url().reveal(),
            "K_REVISION": revision,
            **_own_code("kserve"),
        },
        ready=lambda: probes.http(f"{layout.url('model')}/v2/health/ready"),
        depends_on=("postgres",),
    )


def dispatcher(layout: Layout) -> Part:
    """The stand-in for Knative Eventing, on the objects in knative/base."""
    services = {name: layout.url(name) for name in FUNCTIONS}
    return Part(
        name="dispatcher",
        command=[sys.executable, "-m", "tollgate.local.dispatcher", "--manifests", str(root() / "knative/base")],
        env={
            "TOLLGATE_KAFKA_BOOTSTRAP": layout.kafka_bootstrap,
            "TOLLGATE_SERVICES": json.dumps(services),
            "TOLLGATE_INGRESS_PORT": str(layout.port("broker")),
            "TOLLGATE_METRICS_PORT": str(layout.port("dispatcher_metrics")),
        },
        ready=lambda: probes.http(f"{layout.url('dispatcher_metrics')}/readyz"),
        depends_on=("kafka",),
    )


def spark(layout: Layout, env: dict[str, str]) -> Part:
    """The streaming job that keeps the tiles; `env` names the Java and the connector's jars."""
    return Part(
        name="spark",
        command=[
            sys.executable,
            "-m",
            "tollgate_spark.stream",
            "--checkpoint",
            str(layout.data / "spark/checkpoint"),
        ],
        env={
            "TOLLGATE_KAFKA_BOOTSTRAP": layout.kafka_bootstrap,
            "TOLLGATE_DATABASE_URL": layout.database_url().reveal(),
            "TOLLGATE_METRICS_PORT": str(layout.port("spark_metrics")),
            **env,
        },
        ready=lambda: probes.http(f"{layout.url('spark_metrics')}/metrics"),
        depends_on=("kafka", "postgres"),
        ready_timeout=90.0,
    )


def console(layout: Layout) -> Part:
    """The web page on the living flow. It depends on nothing: what is away, it shows."""
    return Part(
        name="console",
        command=[sys.executable, "-m", "tollgate.local.console"],
        env={
            "TOLLGATE_HOME": str(layout.home),
            "TOLLGATE_PORT_BASE": str(layout.port_base),
            "TOLLGATE_KAFKA_BOOTSTRAP": layout.kafka_bootstrap,
            "TOLLGATE_DATABASE_URL": layout.database_url().reveal(),
        },
        ready=lambda: probes.http(f"{layout.url('console')}/healthz"),
    )


def _own_code(folder: str) -> dict[str, str]:
    """The part's environment holds only what its image would; the code comes from the checkout."""
    return {"PYTHONPATH": os.pathsep.join(str(root() / each) for each in ("src", folder))}

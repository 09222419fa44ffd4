"""How the platform of this home is: every part's state and URL, and the one cause behind what is wrong.

In: run/state.json, which the supervisor publishes. Out: rows, URLs, environment variables for other tools.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tollgate.local.layout import Layout
from tollgate.local.lock import running_pid
from tollgate.local.supervisor import read_state

_CAUSES_FIRST = (
    "postgres",
    "kafka",
    "model",
    "gateway",
    "decide",
    "record",
    "label",
    "dispatcher",
    "spark",
    "mlflow",
    "console",
)
"""What others need comes first: the first unhealthy one is the cause, the rest are its consequences."""
_PORT = {"dispatcher": "broker", "spark": "spark_metrics"}
_HTTP = {"dispatcher", "gateway", "mlflow", "decide", "record", "label", "model", "console"}


@dataclass(frozen=True, slots=True)
class Report:
    """`root_cause` is None when everything runs, else one sentence with what to do."""

    rows: list[dict[str, Any]]
    root_cause: str | None


def report(layout: Layout) -> Report:
    """The parts as the supervisor last saw them."""
    if running_pid(layout) is None:
        return Report([], f"nothing runs on {layout.home}: start it with `make up` or `tollgate up`")
    state = read_state(layout)
    parts: Mapping[str, Mapping[str, Any]] = state.get("parts", {})  # type: ignore[assignment]
    rows = [_row(layout, name, part) for name, part in parts.items()]
    sick = {row["part"]: row for row in rows if row["state"] != "ready" or row["note"]}
    for name in _CAUSES_FIRST:
        if name in sick:
            row = sick[name]
            why = row["note"] or "no reason was given"
            others = sorted(set(sick) - {name})
            after = f" (and so {', '.join(others)})" if others else ""
            return Report(rows, f"{name} is {row['state']}{after}: {why}. Look at `tollgate logs {name}`")
    if missing := [name for name in _CAUSES_FIRST if name not in parts]:
        return Report(rows, f"still starting: {', '.join(missing)} not started yet; watch `tollgate logs up`")
    return Report(rows, None)


def running(layout: Layout, pid: int) -> bool:
    """Whether the platform that process `pid` started is complete and every part is ready."""
    return running_pid(layout) == pid and report(layout).root_cause is None


def urls(layout: Layout) -> dict[str, str]:
    """Where people and programs find things."""
    return {
        "console": layout.url("console"),
        "broker": layout.broker_url,
        "v2": f"{layout.url('gateway')}/v2/models/fraud",
        "mlflow": layout.url("mlflow"),
        "kafka": layout.kafka_bootstrap,
        "postgres": f"postgresql://127.0.0.1:{layout.port('postgres')}/tollgate",
    }


def environment(layout: Layout) -> dict[str, str]:
    """The variables that Tollgate's own commands and other tools read; the database URL holds its password."""
    return {
        "TOLLGATE_BROKER_URL": layout.broker_url,
        "TOLLGATE_MODEL_URL": layout.url("gateway"),
        "TOLLGATE_KAFKA_BOOTSTRAP": layout.kafka_bootstrap,
        "TOLLGATE_DATABASE_URL": layout.database_url().reveal(),
        "TOLLGATE_MLFLOW_URL": layout.url("mlflow"),
        "MLFLOW_TRACKING_URI": layout.url("mlflow"),
    }


def _row(layout: Layout, name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    port = layout.port(_PORT.get(name, name))
    since = part["started_at"]
    return {
        "part": name,
        "state": part["state"],
        "restarts": part["restarts"],
        "pid": part["pid"],
        "url": f"http://127.0.0.1:{port}" if name in _HTTP else f"127.0.0.1:{port}",
        "up_seconds": round(time.time() - since) if since else None,
        "seconds_to_ready": part["seconds_to_ready"],
        "last_exit": part["last_exit"],
        "log": str(layout.log(name)),
        "note": part["waiting_for"] or (part["last_exit"] if part["state"] != "ready" else None),
    }

"""`tollgate backfill | train`: history into tiles, history into a registered model.

In: a folder of history files. Out: the part's own progress and result. Each runs as a process of its own, with the
embedded platform's addresses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tollgate.cli.output import command
from tollgate.local import mlflow, world
from tollgate.local.layout import Layout
from tollgate.local.up import java_env

_History = Annotated[Path | None, typer.Option("--data", help="History files [the simulated history of this home].")]


@command
def backfill(data: _History = None) -> None:
    """Fold a history into the feature tiles with Spark; doing it again changes nothing."""
    layout = Layout.resolve()
    env = {"TOLLGATE_DATABASE_URL": layout.database_url().reveal(), **java_env(layout, "backfill-by-hand")}
    _run("tollgate_spark.backfill", layout, data, env)


@command
def train(data: _History = None) -> None:
    """Train a model on a history and register it: `champion` when there is none yet, else `challenger`."""
    layout = Layout.resolve()
    _run("tollgate_training", layout, data, mlflow.client_env(layout))


def _run(module: str, layout: Layout, data: Path | None, env: dict[str, str]) -> None:
    folder = data or world.history_folder(layout)
    code = subprocess.call([sys.executable, "-m", module, "--history", str(folder)], env={**os.environ, **env})
    if code:
        raise typer.Exit(code)

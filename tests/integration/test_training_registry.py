"""`python -m tollgate_training` on a real MLflow store: what it registers is what the model server will load."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from tollgate.features import digest, names
from tollgate.simulator.history import write_history
from tollgate.simulator.options import WorldSettings
from tollgate.simulator.world import World

PASSWORD = "hunter2"
DAYS = ("--days", "14", "--valid-days", "5", "--test-days", "5", "--seed", "3")

# MLflow's import raises warnings of its own, which our tests turn into errors: its store is read in a process apart.
LOOK = """
import json, logging, sys
logging.disable(logging.ERROR)
from mlflow import MlflowClient
client = MlflowClient()
model = client.get_registered_model("fraud")
versions = []
for version in client.search_model_versions("name='fraud'"):
    run = client.get_run(version.run_id)
    versions.append({
        "version": version.version, "status": version.status,
        "folder": client.get_model_version_download_uri("fraud", version.version),
        "metrics": run.data.metrics, "params": run.data.params, "run_status": run.info.status,
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "dataset": run.inputs.dataset_inputs[0].dataset.digest,
        "artifacts": sorted(a.path for a in client.list_artifacts(version.run_id)),
    })
aliases = {alias: str(version) for alias, version in model.aliases.items()}
print(json.dumps({"aliases": aliases, "versions": sorted(versions, key=lambda v: int(v["version"]))}))
"""


def environment(folder: Path) -> dict[str, str]:
    # MLflow used in this process leaves its own variables in the environment (the registry of another test, for one).
    outside = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("MLFLOW")}
    return {
        **outside,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "TOLLGATE_ARTIFACT_ROOT": str(folder / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def python(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history") / "files"
    write_history(World(WorldSettings(customers=400, terminals=800, seed=1)), 40, folder)
    return folder


@pytest.fixture(scope="module")
def runs(history: Path, tmp_path_factory: pytest.TempPathFactory) -> list[subprocess.CompletedProcess[str]]:
    """Two runs with equal data and seed into one fresh store."""
    folder = tmp_path_factory.mktemp("with space")
    arguments = ("-m", "tollgate_training", "--history", str(history), *DAYS)
    done = [python(*arguments, env=environment(folder)) for _ in range(2)]
    for run in done:
        run.args = folder
        assert run.returncode == 0, run.stderr
    return done


@pytest.fixture(scope="module")
def store(runs: list[subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    looked = python("-c", LOOK, env=environment(runs[0].args))
    assert looked.returncode == 0, looked.stderr
    return json.loads(looked.stdout)


def test_the_first_version_is_champion_and_the_next_a_challenger(runs, store) -> None:
    said = [json.loads(run.stdout) for run in runs]
    assert [(s["version"], s["alias"]) for s in said] == [("1", "champion"), ("2", "challenger")]
    assert store["aliases"] == {"champion": "1", "challenger": "2"}


def test_stdout_is_one_line_and_stderr_a_line_per_stage_without_chatter(runs) -> None:
    stages = ["read", "features", "fit", "evaluate", "register"]
    for run in runs:
        assert run.stdout.count("\n") == 1
        assert [line.split()[0] for line in run.stderr.splitlines()] == stages
        assert list(json.loads(run.stdout)["seconds"]) == stages


def test_what_was_said_is_what_was_logged(runs, store) -> None:
    for run, version in zip(runs, store["versions"], strict=True):
        assert version["metrics"] == pytest.approx(json.loads(run.stdout)["metrics"])
        assert version["experiment"] == "fraud"
        assert (version["status"], version["run_status"]) == ("READY", "FINISHED")
        assert version["params"]["features_hash"] == digest()
        assert version["dataset"] == version["params"]["data_digest"][:36]
        assert {"precision_recall.png", "calibration.png", "importance.png"} <= set(version["artifacts"])


def test_the_artifact_says_what_the_server_must_check_and_holds_no_pickle(store) -> None:
    folder = Path(store["versions"][0]["folder"].removeprefix("file://"))
    card = json.loads((folder / "tollgate.json").read_text())
    assert card["format"] == 1
    assert tuple(card["features"]) == names()
    assert card["features_hash"] == digest()
    assert card["sha256"] == {"model.ubj": hashlib.sha256((folder / "model.ubj").read_bytes()).hexdigest()}
    assert card["calibration"]["kind"] == "platt"
    assert (folder / "MLmodel").is_file()
    assert not [f for f in folder.rglob("*") if f.suffix in {".pkl", ".pickle", ".joblib"}]


def test_equal_data_and_seed_register_equal_model_bytes(store) -> None:
    models = [Path(v["folder"].removeprefix("file://")) / "model.ubj" for v in store["versions"]]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_the_registered_model_scores_like_the_one_trained(history, store) -> None:
    from tollgate_training.dataset import Dataset
    from tollgate_training.history import read
    from tollgate_training.platt import Calibration
    from tollgate_training.split import Protocol, split

    folder = Path(store["versions"][0]["folder"].removeprefix("file://"))
    card = json.loads((folder / "tollgate.json").read_text())
    booster = xgboost.Booster()
    booster.load_model(folder / "model.ubj")
    data = read(history)
    rows = split(data, Protocol(train_days=14, valid_days=5, test_days=5)).test
    matrix = xgboost.DMatrix(Dataset(data).matrix(rows), feature_names=card["features"])
    margin = booster.predict(matrix, output_margin=True).astype(np.float64)
    calibration = Calibration(card["calibration"]["a"], card["calibration"]["b"])
    brier = float(np.mean((calibration.probability(margin) - data.is_fraud[rows]) ** 2))
    assert brier == pytest.approx(card["metrics"]["brier"], rel=1e-12)


def test_mlflow_itself_loads_it_as_a_model(runs, store) -> None:
    load = (
        "import json, sys, logging; logging.disable(logging.ERROR); import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/fraud@champion')\n"
        "print(model.predict(pd.DataFrame([[1.0] * 25], columns=json.loads(sys.argv[1]))).shape)"
    )
    loaded = python("-c", load, json.dumps(names()), env=environment(runs[0].args))
    assert loaded.stdout.strip() == "(1,)", loaded.stderr


def test_a_registry_that_does_not_answer_fails_without_showing_the_password(history, tmp_path: Path) -> None:
    env = {
        **environment(tmp_path),
        "MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@127.0.0.1:1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    done = python("-m", "tollgate_training", "--history", str(history), *DAYS, env=env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the model was not registered" in done.stderr
    assert "http://127.0.0.1:1" in done.stderr
    assert PASSWORD not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_history_that_is_not_there_fails_with_what_to_do(tmp_path: Path) -> None:
    done = python("-m", "tollgate_training", "--history", str(tmp_path / "none"), env=environment(tmp_path))
    assert done.returncode == 1
    assert "tollgate simulate" in done.stderr
    assert "Traceback" not in done.stderr

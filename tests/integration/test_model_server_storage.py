"""The storage initializer against a real MLflow registry: what arrives, and what is said when it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from kit import model_folder
from kit.model_server import CHECKOUT
from tollgate.errors import ConfigurationError
from tollgate_kserve import artifact, storage
from tollgate_kserve.artifact import ArtifactError
from tollgate_kserve.storage import ModelUri, UnknownModel

pytestmark = pytest.mark.integration


class Registry:
    """A registry in SQLite, its artifacts in a folder, read directly as the embedded platform does."""

    def __init__(self, home: Path) -> None:
        self.uri = f"sqlite:///{home}/registry.db"
        self.artifacts = home / "artifacts"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, while it creates its tables
            from mlflow.tracking import MlflowClient

            self.client: Any = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            self.experiment = self.client.create_experiment("fraud", artifact_location=self.artifacts.as_uri())
        self.client.create_registered_model("fraud")

    def register(self, folder: Path, alias: str) -> tuple[str, Path]:
        """Log a folder as a model and register it: the version, and where its files lie."""
        run = self.client.create_run(self.experiment)
        self.client.log_artifacts(run.info.run_id, str(folder), "model")
        source = f"{run.info.artifact_uri}/model"
        version = str(self.client.create_model_version("fraud", source, run.info.run_id).version)
        self.client.set_registered_model_alias("fraud", alias, version)
        return version, Path(source.removeprefix("file://"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = model_folder.write(tmp_path / "trained")
    (folder / "registry.json").unlink()
    return folder


def left_behind(destination: Path) -> list[str]:
    return [path.name for path in destination.parent.iterdir() if path.name.startswith((".incoming", ".before"))]


def test_an_alias_brings_the_version_it_points_to_and_says_which(
    registry: Registry, trained: Path, tmp_path: Path
) -> None:
    version, _ = registry.register(trained, "champion")
    found = storage.fetch("mlflow://models/fraud@champion", tmp_path / "model", registry.uri)
    manifest = artifact.load(tmp_path / "model")
    assert (manifest.name, manifest.version, manifest.alias) == ("fraud", version, "champion")
    assert manifest.run_id == registry.client.get_model_version("fraud", version).run_id
    assert json.loads((tmp_path / "model/registry.json").read_bytes()) == found
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    assert left_behind(tmp_path / "model") == []


def test_another_version_replaces_the_folder_whole(registry: Registry, trained: Path, tmp_path: Path) -> None:
    first, _ = registry.register(trained, "champion")
    second, _ = registry.register(trained, "challenger")
    destination = tmp_path / "model"
    storage.fetch(f"mlflow://models/fraud/{first}", destination, registry.uri)
    (destination / "stale.json").write_text("{}")
    storage.fetch(f"mlflow://models/fraud/{second}", destination, registry.uri)
    assert artifact.load(destination).version == second
    assert not (destination / "stale.json").exists()
    assert left_behind(destination) == []


def test_the_same_version_again_downloads_nothing_but_damage_is_repaired(
    registry: Registry, trained: Path, tmp_path: Path
) -> None:
    version, _ = registry.register(trained, "champion")
    uri, destination = f"mlflow://models/fraud/{version}", tmp_path / "model"
    storage.fetch(uri, destination, registry.uri)
    before = (destination / "model.ubj").stat().st_ino
    storage.fetch(uri, destination, registry.uri)
    assert (destination / "model.ubj").stat().st_ino == before
    (destination / "model.ubj").write_bytes(b"damaged")
    storage.fetch(uri, destination, registry.uri)
    assert artifact.load(destination).version == version


def test_damaged_files_are_refused_and_what_was_there_stays(registry: Registry, trained: Path, tmp_path: Path) -> None:
    good, _ = registry.register(trained, "champion")
    bad, files = registry.register(trained, "challenger")
    (files / "model.ubj").write_bytes(b"exchanged")
    destination = tmp_path / "model"
    storage.fetch(f"mlflow://models/fraud/{good}", destination, registry.uri)
    with pytest.raises(ArtifactError, match="damaged or exchanged"):
        storage.fetch(f"mlflow://models/fraud/{bad}", destination, registry.uri)
    assert artifact.load(destination).version == good
    assert left_behind(destination) == []


def test_a_pickle_in_the_registry_does_not_arrive(registry: Registry, trained: Path, tmp_path: Path) -> None:
    (trained / "python_model.pkl").write_bytes(b"")
    registry.register(trained, "challenger")
    with pytest.raises(ArtifactError, match=r"python_model\.pkl"):
        storage.fetch("mlflow://models/fraud@challenger", tmp_path / "model", registry.uri)
    assert not (tmp_path / "model").exists()
    assert left_behind(tmp_path / "model") == []


def test_what_the_registry_does_not_have_is_named_with_what_it_has(
    registry: Registry, trained: Path, tmp_path: Path
) -> None:
    version, _ = registry.register(trained, "champion")
    for uri, message in (
        ("mlflow://models/fraud@winner", f"no alias 'winner'; there are: .*champion \\(version {version}\\)"),
        ("mlflow://models/fraud/4711", "'fraud' has no version 4711"),
        ("mlflow://models/froud@champion", "no model 'froud'"),
    ):
        with pytest.raises(UnknownModel, match=message):
            storage.fetch(uri, tmp_path / "model", registry.uri)


def test_the_command_exits_0_1_and_75(registry: Registry, trained: Path, tmp_path: Path) -> None:
    registry.register(trained, "champion")

    def run(uri: str, tracking_uri: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tollgate_kserve.storage", uri, str(tmp_path / "model")],
            env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert run("mlflow://models/fraud@champion", registry.uri)[0] == 0
    assert artifact.load(tmp_path / "model").alias == "champion"
    for code, message, uri, tracking_uri in (
        (1, "no alias 'winner'", "mlflow://models/fraud@winner", registry.uri),
        (1, "not a model URI", "s3://models/fraud", registry.uri),
        (1, "MLFLOW_TRACKING_URI is not set", "mlflow://models/fraud@champion", ""),
        (1, "scheme 'ftp'", "mlflow://models/fraud@champion", "ftp://registry"),
        (75, "127.0.0.1:9 is away", "mlflow://models/fraud@champion", "http://127.0.0.1:9"),
        (
            75,
            "127.0.0.1:9 is away",
            "mlflow://models/fraud@champion",
            "postgresql+psycopg2://u:secret@127.0.0.1:9/mlflow",
        ),
    ):
        got, text = run(uri, tracking_uri)
        assert (got, message in text) == (code, True), text
        assert "secret" not in text


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_a_mounted_destination_is_filled_in_place(registry: Registry, trained: Path, tmp_path: Path) -> None:
    """KServe gives an empty volume, which cannot be renamed over."""
    registry.register(trained, "champion")
    destination = tmp_path / "mnt"
    destination.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", destination], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        storage.fetch("mlflow://models/fraud@champion", destination, registry.uri)
        assert artifact.load(destination).alias == "champion"
        assert not [path for path in destination.iterdir() if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", destination], check=True)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mlflow://models/fraud@champion", ModelUri("fraud", "champion", None)),
        ("mlflow://models/fraud/12", ModelUri("fraud", None, "12")),
    ],
)
def test_a_model_uri_names_an_alias_or_a_version(uri: str, expected: ModelUri) -> None:
    assert storage.parse(uri) == expected


@pytest.mark.parametrize(
    "uri", ["", "mlflow://fraud@champion", "mlflow://models/fraud", "mlflow://models/fraud/latest", "models:/fraud/1"]
)
def test_anything_else_is_no_model_uri(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="not a model URI"):
        storage.parse(uri)

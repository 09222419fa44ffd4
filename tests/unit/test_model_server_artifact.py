"""Which model folders the server refuses, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit import model_folder
from tollgate import features
from tollgate_kserve import artifact
from tollgate_kserve.artifact import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder.write(tmp_path / "model")


def change(folder: Path, file: str = "tollgate.json", **fields: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_folder_as_training_writes_it_is_accepted(folder: Path) -> None:
    manifest = artifact.load(folder)
    assert (manifest.name, manifest.version, manifest.alias) == ("fraud", "3", "champion")
    assert manifest.features == features.names()
    assert manifest.features_hash == features.digest()
    assert (manifest.calibration.a, manifest.calibration.b) == (0.9, -0.25)


def test_one_changed_byte_in_the_model_is_noticed(folder: Path) -> None:
    body = bytearray((folder / "model.ubj").read_bytes())
    body[len(body) // 2] ^= 1
    (folder / "model.ubj").write_bytes(body)
    with pytest.raises(ArtifactError, match=r"model\.ubj: sha256 .* damaged or exchanged"):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["python_model.pkl", "data/weights.PICKLE", "scaler.joblib"])
def test_a_pickle_anywhere_in_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match=f"{Path(name).name}.*refused"):
        artifact.load(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "extra.json").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match=r"extra\.json is a link"):
        artifact.load(folder)


def test_the_refusal_names_the_feature_that_is_missing_and_the_one_that_is_unknown(folder: Path) -> None:
    change(folder, features=["velocity", *features.names()[1:]])
    with pytest.raises(ArtifactError, match=r"lacks \['amount'\] and has \['velocity'\]"):
        artifact.load(folder)


def test_the_refusal_names_where_the_order_differs(folder: Path) -> None:
    names = list(features.names())
    names[2], names[3] = names[3], names[2]
    change(folder, features=names)
    with pytest.raises(ArtifactError, match=f"order differs, first at '{names[2]}'"):
        artifact.load(folder)


def test_same_names_with_another_definition_are_refused(folder: Path) -> None:
    change(folder, features_hash="0123456789abcdef")
    with pytest.raises(ArtifactError, match=f"hash 0123456789abcdef, here {features.digest()}"):
        artifact.load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "format 2 is not known"),
        ({"sha256": {}}, "no entry for model.ubj"),
        ({"sha256": {"model.ubj": "0" * 64, "../x.json": "0" * 64}}, "sha256"),
        ({"calibration": {"kind": "isotonic"}}, "not of kind 'platt'"),
        ({"calibration": {"kind": "platt", "a": -1.0, "b": 0.0}}, "a > 0"),
        ({"calibration": {"kind": "platt", "a": float("nan"), "b": 0.0}}, "a > 0"),
        ({"features": "amount"}, "not a list of names"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, fields: dict[str, object], message: str) -> None:
    change(folder, **fields)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["model.ubj", "tollgate.json", "registry.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        artifact.load(folder)


def test_a_registry_entry_without_version_is_refused(folder: Path) -> None:
    (folder / "registry.json").write_text('{"name": "fraud"}')
    with pytest.raises(ArtifactError, match=r"registry\.json: 'version' is missing"):
        artifact.load(folder)

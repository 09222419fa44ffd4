"""The model folder: what is in it, and whether it may be served.

In: a folder as training writes it and `tollgate_kserve.storage` delivers it (model.ubj, tollgate.json, registry.json).
Out: `Manifest`, after the digests, the features and the file kinds were checked. Next: `predictor` loads the booster.
Only the standard library: the storage initializer verifies with this too, without XGBoost.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate import features
from tollgate.errors import TollgateError

FORMAT = 1
MODEL_FILE, MANIFEST_FILE, REGISTRY_FILE = "model.ubj", "tollgate.json", "registry.json"
_CODE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".npy", ".npz", ".pt", ".pth", ".bin"}
"""Formats that unpickle, or that hide what they are: loading them can run code."""


class ArtifactError(TollgateError):
    """The model folder must not be served; the text says what differs and what to do."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt: probability = 1 / (1 + exp(-(a * margin + b)))."""

    a: float
    b: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """A verified folder. `version` is MLflow's; `alias` is what was asked for, None when a version was."""

    folder: Path
    features: tuple[str, ...]
    features_hash: str
    calibration: Calibration
    name: str
    version: str
    alias: str | None
    run_id: str


def verify_files(folder: Path) -> dict[str, Any]:
    """Check kinds and digests of the files; returns tollgate.json. Raises `ArtifactError`."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder: give --model_dir the folder with {MODEL_FILE}")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _CODE_SUFFIXES:
            raise ArtifactError(
                f"{path.name}: pickle-like files are code and are refused; only UBJ and JSON are served"
            )
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{path.name} is a link that leads out of the model folder")
    manifest = _json(folder / MANIFEST_FILE)
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{MANIFEST_FILE}: format {manifest.get('format')!r} is not known here (this server reads {FORMAT})"
        )
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or MODEL_FILE not in digests:
        raise ArtifactError(f"{MANIFEST_FILE}: sha256 has no entry for {MODEL_FILE}")
    for name, expected in digests.items():
        path = folder / name
        if Path(name).name != name or Path(name).suffix not in {".ubj", ".json"}:
            raise ArtifactError(
                f"{MANIFEST_FILE}: sha256 names {name!r}; only .ubj and .json files of the folder belong"
            )
        if not path.is_file():
            raise ArtifactError(f"{name} is missing from {folder}: the download is incomplete")
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != expected:
            raise ArtifactError(
                f"{name}: sha256 {actual[:12]}… is not the {str(expected)[:12]}… that training wrote down; "
                "the file was damaged or exchanged"
            )
    return manifest


def load(folder: Path) -> Manifest:
    """Verify everything, features included, and describe the folder. Raises `ArtifactError`."""
    manifest = verify_files(folder)
    names = _check_features(manifest)
    registry = _json(folder / REGISTRY_FILE)
    try:
        return Manifest(
            folder=folder,
            features=names,
            features_hash=manifest["features_hash"],
            calibration=_calibration(manifest.get("calibration")),
            name=str(registry["name"]),
            version=str(registry["version"]),
            alias=None if registry.get("alias") is None else str(registry["alias"]),
            run_id=str(registry.get("run_id", "")),
        )
    except KeyError as missing:
        raise ArtifactError(f"{REGISTRY_FILE}: {missing} is missing") from None


def _check_features(manifest: dict[str, Any]) -> tuple[str, ...]:
    """The model's columns must be this server's, in this order and with these definitions."""
    theirs, ours = manifest.get("features"), list(features.names())
    if not isinstance(theirs, list) or not all(isinstance(name, str) for name in theirs):
        raise ArtifactError(f"{MANIFEST_FILE}: features is not a list of names")
    if theirs != ours:
        missing = [name for name in ours if name not in theirs]
        unknown = [name for name in theirs if name not in ours]
        difference = (
            f"it lacks {missing or 'none'} and has {unknown or 'none'} that this server does not know"
            if missing or unknown
            else f"the order differs, first at {next(b for a, b in zip(ours, theirs, strict=True) if a != b)!r}"
        )
        raise ArtifactError(
            f"the model was trained on other features: {difference}; train again or serve with its code"
        )
    if manifest.get("features_hash") != features.digest():
        raise ArtifactError(
            f"the model's features have the same names but other definitions (hash {manifest.get('features_hash')}, "
            f"here {features.digest()}): a window, a delay or an aggregate changed; train again"
        )
    return tuple(theirs)


def _calibration(raw: object) -> Calibration:
    if not isinstance(raw, dict) or raw.get("kind") != "platt":
        raise ArtifactError(f"{MANIFEST_FILE}: calibration is not of kind 'platt'")
    a, b = raw.get("a"), raw.get("b")
    if not isinstance(a, int | float) or not isinstance(b, int | float) or not math.isfinite(a + b) or a <= 0:
        raise ArtifactError(f"{MANIFEST_FILE}: calibration needs numbers a > 0 and b, got {a!r} and {b!r}")
    return Calibration(float(a), float(b))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path.name} is missing from {path.parent}: this is no Tollgate model folder") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path.name} is not a JSON object")
    return value

"""Scores and reasons, checked against the trees themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from kit import model_folder
from tollgate import features
from tollgate_kserve import artifact
from tollgate_kserve.artifact import ArtifactError
from tollgate_kserve.predictor import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder.write(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(artifact.load(folder))


def walk(node: dict[str, Any], row: dict[str, float]) -> float:
    """The leaf that a row reaches, comparing as XGBoost does: float32, strictly less goes to `yes`."""
    while "leaf" not in node:
        goes = "yes" if np.float32(row[node["split"]]) < np.float32(node["split_condition"]) else "no"
        node = next(child for child in node["children"] if child["nodeid"] == node[goes])
    return float(node["leaf"])


def test_probability_is_what_walking_the_trees_gives(folder: Path, predictor: Predictor) -> None:
    booster = xgboost.Booster()
    booster.load_model(folder / "model.ubj")
    trees = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    rows = model_folder.matrix(50, seed=5)
    for row, probability in zip(rows, predictor.probability(rows), strict=True):
        named = dict(zip(features.names(), row, strict=True))
        margin = math.log(0.3 / 0.7) + sum(walk(tree, named) for tree in trees)
        assert probability == pytest.approx(1 / (1 + math.exp(-(0.9 * margin - 0.25))), rel=1e-5)


def test_the_margin_has_the_bits_of_the_python_package(predictor: Predictor) -> None:
    for rows in (model_folder.matrix(1, seed=9), model_folder.matrix(400, seed=9), model_folder.matrix(400)[::2]):
        expected = predictor._booster.inplace_predict(rows, predict_type="margin")
        np.testing.assert_array_equal(predictor._margin(rows), expected)


def test_a_matrix_of_another_width_is_an_error_not_a_read_past_its_end(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="24 columns"):
        predictor.probability(model_folder.matrix(3)[:, 1:])


def test_a_row_scores_the_same_alone_and_in_a_batch(predictor: Predictor) -> None:
    rows = model_folder.matrix(300, seed=6)
    alone = [predictor.probability(rows[i : i + 1])[0] for i in range(len(rows))]
    assert alone == predictor.probability(rows).tolist()


def test_contributions_add_up_to_the_logit_of_the_probability(predictor: Predictor) -> None:
    rows = model_folder.matrix(200, seed=7)
    probability = predictor.probability(rows)
    logit = np.log(probability / (1 - probability))
    np.testing.assert_allclose(predictor.contributions(rows).sum(axis=1), logit, rtol=1e-4, atol=1e-4)


def test_reasons_are_what_speaks_for_fraud_largest_first(predictor: Predictor) -> None:
    rows = model_folder.matrix(100, seed=8)
    contributions = predictor.contributions(rows)[:, :-1]
    for row, parts, reasons in zip(rows, contributions, predictor.reasons(rows, 4), strict=True):
        expected = sorted((part for part in parts if part > 0), reverse=True)[:4]
        assert [reason.contribution for reason in reasons] == expected
        for reason in reasons:
            column = features.names().index(reason.feature)
            assert reason.value == row[column]
            assert reason.contribution == parts[column]


def test_a_model_with_other_columns_than_its_manifest_is_refused(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "narrow")
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(np.eye(4), label=[0, 1, 0, 1]), 1)
    booster.save_model(folder / "model.ubj")
    with pytest.raises(ArtifactError, match="has 4 columns, its manifest 25"):
        Predictor(_reload(folder))


def test_a_model_with_another_objective_is_refused(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "squared")
    rows = model_folder.matrix(50)
    booster = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(rows, label=rows[:, 0]), 1)
    booster.save_model(folder / "model.ubj")
    with pytest.raises(ArtifactError, match="reg:squarederror is not binary:logistic"):
        Predictor(_reload(folder))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "noise")
    (folder / "model.ubj").write_bytes(b"{L\x00not a model")
    with pytest.raises(ArtifactError, match=r"model\.ubj cannot be loaded"):
        Predictor(_reload(folder))


def _reload(folder: Path) -> artifact.Manifest:
    """The manifest after the digest was made to fit the exchanged model: only the booster's own checks are left."""
    import hashlib

    path = folder / "tollgate.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"] = {"model.ubj": hashlib.sha256((folder / "model.ubj").read_bytes()).hexdigest()}
    path.write_text(json.dumps(manifest))
    return artifact.load(folder)

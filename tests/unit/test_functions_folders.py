"""Each function's folder is one that the func CLI (1.23) accepts."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate.settings import Settings

FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"
NAMES = ["decide", "record", "label"]
# What the schema of func.yaml at 1.23 allows, as far as a python function uses it.
TOP = {
    "specVersion",
    "name",
    "runtime",
    "registry",
    "image",
    "namespace",
    "created",
    "invoke",
    "build",
    "run",
    "deploy",
}
REFERENCE = re.compile(r"\{\{ (configMap|secret):[a-z0-9-]+:[A-Za-z0-9_.-]+ \}\}")


def load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((FUNCTIONS / name / "func.yaml").read_text())
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", NAMES)
def test_func_yaml_says_what_the_cli_needs(name: str) -> None:
    document = load(name)
    assert set(document) <= TOP
    assert document["specVersion"] == "0.36.0"
    assert (document["name"], document["runtime"], document["invoke"]) == (name, "python", "cloudevent")
    assert isinstance(document["created"], datetime)
    assert document["build"] == {"builder": "pack"}
    assert set(document["deploy"]) <= {"healthEndpoints", "options"}
    scale = document["deploy"]["options"]["scale"]
    assert 1 <= scale["min"] <= scale["max"]
    assert scale["metric"] in ("concurrency", "rps")


@pytest.mark.parametrize("name", NAMES)
def test_the_health_endpoints_are_those_that_func_python_serves(name: str) -> None:
    assert load(name)["deploy"]["healthEndpoints"] == {
        "liveness": "/health/liveness",
        "readiness": "/health/readiness",
    }


@pytest.mark.parametrize("name", NAMES)
def test_its_environment_names_real_settings_and_holds_no_secret(name: str) -> None:
    known = {f"TOLLGATE_{each.name.upper()}" for each in fields(Settings)}
    for each in load(name)["run"]["envs"]:
        assert each["name"] in known
        assert REFERENCE.fullmatch(each["value"])


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_a_project_with_a_package_called_function(name: str) -> None:
    project = tomllib.loads((FUNCTIONS / name / "pyproject.toml").read_text())
    assert project["project"]["name"] == "function"
    assert "new" in (FUNCTIONS / name / "function" / "__init__.py").read_text()

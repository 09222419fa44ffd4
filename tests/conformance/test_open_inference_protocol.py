"""The Open Inference Protocol (V2) over HTTP, as any of its servers should speak it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kit.model_server import Answer

from .conftest import Server


def refused(answer: Answer) -> None:
    """A 4xx whose body has an `error` text."""
    assert 400 <= answer.status < 500, answer
    assert isinstance(answer.body, dict), answer
    assert isinstance(answer.body.get("error"), str), answer
    assert answer.body["error"]


def test_the_server_is_live_and_ready(server: Server) -> None:
    assert server.get("/health/live").status == 200
    assert server.get("/health/ready").status == 200


def test_the_server_says_its_name_version_and_extensions(server: Server) -> None:
    answer = server.get("")
    assert answer.status == 200
    assert isinstance(answer.body["name"], str)
    assert isinstance(answer.body["version"], str)
    assert isinstance(answer.body["extensions"], list)


def test_the_model_is_ready(server: Server) -> None:
    assert server.get(f"/models/{server.model}/ready").status == 200


def test_the_model_describes_its_tensors(server: Server, metadata: dict[str, Any]) -> None:
    assert metadata["name"] == server.model
    assert isinstance(metadata["platform"], str)
    assert all(isinstance(version, str) for version in metadata.get("versions") or [])
    for tensor in metadata["inputs"] + metadata["outputs"]:
        assert isinstance(tensor["name"], str)
        assert isinstance(tensor["datatype"], str)
        assert all(isinstance(size, int) and (size == -1 or size > 0) for size in tensor["shape"])


def test_an_inference_answers_tensors_whose_data_fills_their_shape(
    server: Server, metadata: dict[str, Any], example: dict[str, Any]
) -> None:
    answer = server.infer(example)
    assert answer.status == 200, answer
    assert answer.body["model_name"] == server.model
    announced = {tensor["name"]: tensor for tensor in metadata["outputs"]}
    assert answer.body["outputs"]
    for output in answer.body["outputs"]:
        tensor = announced[output["name"]]
        assert output["datatype"] == tensor["datatype"]
        assert len(output["shape"]) == len(tensor["shape"])
        assert all(open_ in (-1, size) for open_, size in zip(tensor["shape"], output["shape"], strict=True))
        assert len(_flat(output["data"])) == math.prod(output["shape"])


def test_nested_data_means_the_same_as_flat_data(server: Server, example: dict[str, Any]) -> None:
    nested = json.loads(json.dumps(example))
    for tensor in nested["inputs"]:
        tensor["data"] = _nest(tensor["data"], tensor["shape"])
    assert server.infer(nested).body["outputs"] == server.infer(example).body["outputs"]


def test_the_id_comes_back(server: Server, example: dict[str, Any]) -> None:
    assert server.infer({**example, "id": "conformance-42"}).body["id"] == "conformance-42"


def test_only_the_outputs_asked_for_are_answered(
    server: Server, metadata: dict[str, Any], example: dict[str, Any]
) -> None:
    for tensor in metadata["outputs"]:
        answer = server.infer({**example, "outputs": [{"name": tensor["name"]}]})
        assert answer.status == 200, answer
        assert [output["name"] for output in answer.body["outputs"]] == [tensor["name"]]


def test_unknown_members_and_parameters_do_not_disturb(server: Server, example: dict[str, Any]) -> None:
    assert server.infer({**example, "parameters": {"priority": 1, "note": "x", "flag": True}}).status == 200


def test_an_unknown_output_is_refused(server: Server, example: dict[str, Any]) -> None:
    refused(server.infer({**example, "outputs": [{"name": "no-such-output"}]}))


def test_an_unknown_model_is_a_404(server: Server, example: dict[str, Any]) -> None:
    for answer in (server.infer(example, model="no-such-model"), server.get("/models/no-such-model")):
        refused(answer)
        assert answer.status == 404
    assert server.get("/models/no-such-model/ready").status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"datatype": "BYTES"},
        {"datatype": "FP99"},
        {"shape": [7, 7, 7]},
        {"shape": []},
        {"name": "no-such-input"},
        {"data": []},
        {"data": ["x"]},
        {"data": None},
        {"data": [None]},
    ],
    ids=json.dumps,
)
def test_a_wrong_input_is_refused(server: Server, example: dict[str, Any], change: dict[str, Any]) -> None:
    first, *others = example["inputs"]
    refused(server.infer({"inputs": [{**first, **change}, *others]}))


def test_one_value_too_many_or_too_few_is_refused(server: Server, example: dict[str, Any]) -> None:
    first, *others = example["inputs"]
    for data in (first["data"] + [1], first["data"][:-1]):
        refused(server.infer({"inputs": [{**first, "data": data}, *others]}))


@pytest.mark.parametrize("member", ["name", "shape", "datatype", "data"])
def test_an_input_without_a_required_member_is_refused(server: Server, example: dict[str, Any], member: str) -> None:
    first, *others = example["inputs"]
    refused(server.infer({"inputs": [{key: first[key] for key in first if key != member}, *others]}))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"inputs": {}}', b'{"inputs": []}'])
def test_what_is_no_inference_request_is_refused(server: Server, body: bytes) -> None:
    refused(server.infer(body))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_json_number_is_refused(server: Server, example: dict[str, Any], literal: str) -> None:
    first = {**example["inputs"][0], "data": [0.125, *example["inputs"][0]["data"][1:]]}
    body = json.dumps({"inputs": [first, *example["inputs"][1:]]}).replace("0.125", literal)
    refused(server.infer(body.encode()))


def _flat(data: Any) -> list[Any]:
    return [value for part in data for value in _flat(part)] if isinstance(data, list) else [data]


def _nest(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    step = len(flat) // shape[0]
    return [_nest(flat[i : i + step], shape[1:]) for i in range(0, len(flat), step)]

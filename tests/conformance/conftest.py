"""What the suite needs: a client for the server that was named, and a request that its model accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from kit.model_server import Answer, call

_SIZES = {"FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"}


@dataclass(frozen=True)
class Server:
    """The server under test and the model that requests go to."""

    url: str
    model: str

    def get(self, path: str) -> Answer:
        """GET below /v2."""
        return call(f"{self.url}/v2{path}")

    def infer(self, body: Any, model: str | None = None) -> Answer:
        """POST an inference request; bytes are sent as they are."""
        headers = {"Content-Type": "application/json"}
        return call(f"{self.url}/v2/models/{model or self.model}/infer", body, headers=headers)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    url = request.config.getoption("--oip-url", default=None)
    if not url:  # nobody named a server: Tollgate's own, through its gateway
        url = request.getfixturevalue("platform").layout.url("gateway")
    return Server(url.rstrip("/"), request.config.getoption("--oip-model"))


@pytest.fixture(scope="session")
def metadata(server: Server) -> dict[str, Any]:
    answer = server.get(f"/models/{server.model}")
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


@pytest.fixture
def example(metadata: dict[str, Any]) -> dict[str, Any]:
    """A valid request: ones of the announced datatypes, every open dimension 1."""
    inputs = []
    for tensor in metadata["inputs"]:
        if tensor["datatype"] not in _SIZES:
            pytest.skip(f"input {tensor['name']!r} is {tensor['datatype']}: the suite makes up numbers only")
        shape = [1 if size == -1 else size for size in tensor["shape"]]
        inputs.append({**{k: tensor[k] for k in ("name", "datatype")}, "shape": shape, "data": [1] * math.prod(shape)})
    return {"inputs": inputs}

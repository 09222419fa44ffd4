"""A V2 gRPC client on the KServe SDK, run as a script by the serving environment's interpreter.

In: host:port; on stdin a JSON list of a good and a bad V2 request to `fraud`. Out on stdout, as JSON: the good
request's answer with its inputs as typed contents, the same with raw bytes, and (status, details) of the bad one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from grpc.aio import AioRpcError
from kserve.inference_client import InferenceGRPCClient
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput


def request(body: dict[str, Any], *, raw: bool) -> InferRequest:
    inputs = []
    for each in body["inputs"]:
        tensor = InferInput(each["name"], each["shape"], each["datatype"], each["data"])
        if raw and each["datatype"] == "BYTES":
            tensor.set_data_from_numpy(np.array([value.encode() for value in each["data"]], object))
        elif raw:
            tensor.set_data_from_numpy(np.array(each["data"], np.int64))
        inputs.append(tensor)
    outputs = [RequestedOutput(each["name"]) for each in body.get("outputs", [])]
    return InferRequest("fraud", inputs, request_id=body.get("id"), request_outputs=outputs)


def values(data: Any) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in np.ravel(data).tolist()]


async def main() -> None:
    good, bad = json.load(sys.stdin)
    async with InferenceGRPCClient(sys.argv[1], timeout=10) as client:
        shown: list[Any] = []
        for raw in (False, True):
            answer = await client.infer(request(good, raw=raw))
            shown.append(
                {
                    "id": answer.id,
                    "parameters": {name: value.string_param for name, value in answer.parameters.items()},
                    "outputs": {output.name: values(output.as_numpy()) for output in answer.outputs},
                }
            )
        try:
            await client.infer(request(bad, raw=False))
        except AioRpcError as error:
            shown.append([error.code().name, error.details()])
    json.dump(shown, sys.stdout)


asyncio.run(main())

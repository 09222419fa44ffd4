"""The models as the KServe SDK knows them: gRPC, and HTTP with binary tensors.

In: the SDK's `InferRequest`. Out: its `InferResponse`; a refusal becomes 400 or INVALID_ARGUMENT, temporary trouble
503 or UNAVAILABLE. Next: `serving` does the work, as it does for `edge`.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor.exceptions import Unavailable
from kserve.errors import InvalidInput, ModelNotFound
from kserve.model import Model
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from tollgate.errors import Rejected, Retryable
from tollgate_kserve.edge import metadata
from tollgate_kserve.serving import Service
from tollgate_kserve.tensors import Request, RequestedOutput, Tensor


class ServedModel(Model):  # type: ignore[misc]
    """A `Service` registered with the SDK's model server."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.name)
        self.service = service
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the inputs."""
        return [each._asdict() for each in self.service.inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the outputs."""
        return [each._asdict() for each in self.service.outputs]

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> InferResponse:
        """Answer one request of the SDK."""
        if not isinstance(payload, InferRequest):
            raise InvalidInput(
                f"model {self.name!r} speaks V2 (Open Inference Protocol): POST /v2/models/{self.name}/infer"
            )
        try:
            answer = await self.service.infer(_request(payload))
        except Rejected as error:
            raise InvalidInput(error.detail) from None
        except Retryable as error:
            if payload.from_grpc:
                raise Unavailable(str(error)) from None
            raise
        return InferResponse(
            response_id=payload.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=self.service.version,
            # Lists: the SDK's to_grpc() fails on arrays when the request came as raw bytes.
            infer_outputs=[
                InferOutput(o.name, o.shape, o.datatype, o.data.reshape(-1).tolist()) for o in answer.outputs
            ],
            parameters=dict(answer.parameters),
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


class ServedDataPlane(DataPlane):  # type: ignore[misc]
    """Readiness that looks at the models, and metadata with their version."""

    async def ready(self) -> bool:
        """True while every model is loaded; False once the server drains."""
        models = self.model_registry.get_models().values()
        return bool(models) and all([await model.healthy() for model in models])

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """V2 metadata."""
        return metadata(self.get_model_from_registry(model_name).service)


class FixedModels(ModelRepositoryExtension):  # type: ignore[misc]
    """A revision is its model: nobody loads or unloads one in a running server."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise _fixed(self._model_registry, model_name)

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise _fixed(self._model_registry, model_name)


class OnlyFaults(logging.Filter):
    """Drops the stack traces that the SDK logs for every refused request: the answer says it, and they fill disks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a refusal."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, (InvalidInput, ModelNotFound, Unavailable))


def handle_errors(app: FastAPI) -> None:
    """Give the SDK's routes our statuses and the V2 error body."""

    @app.exception_handler(Retryable)
    async def _retryable(_: HttpRequest, error: Retryable) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        where = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        return JSONResponse({"error": f"not a valid request: {'; '.join(where)}"}, 400)


def _fixed(registry: Any, name: str) -> Exception:
    if registry.get_model(name) is None:
        unknown: Exception = ModelNotFound(name)
        return unknown
    fixed: Exception = InvalidInput(f"model {name!r} belongs to this revision; a new revision serves another one")
    return fixed


def _request(payload: InferRequest) -> Request:
    return Request(
        inputs=[Tensor(each.name, list(each.shape), each.datatype, _data(each)) for each in payload.inputs],
        id=payload.id,
        outputs=[RequestedOutput(each.name) for each in payload.request_outputs or ()],
    )


def _data(tensor: InferInput) -> Any:
    """Values of a tensor; raw bytes become an array, when they have the announced length."""
    if tensor._raw_data is None:
        return tensor.data
    try:
        return tensor.as_numpy()
    except Exception:
        raise InvalidInput(
            f"input {tensor.name!r}: the raw bytes do not hold {tensor.shape} of {tensor.datatype}"
        ) from None

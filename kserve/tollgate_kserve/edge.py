"""The quick HTTP route: V2 inference and metadata, answered before the SDK's own routes are reached.

In: ASGI requests. POST /v2/models/<name>[/versions/<v>]/infer with JSON is decoded, answered and encoded here, once;
GET /v2/models/<name> likewise, because the SDK's metadata has no room for the feature order. Everything else (health,
metrics, V1, binary tensors) passes on to the SDK, never with more than `MAX_BODY` bytes. Errors are {"error": "..."}.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import orjson

from tollgate.errors import Reason, Rejected, Retryable
from tollgate_kserve.serving import Answer, Output, Service
from tollgate_kserve.tensors import Request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 8 * 1024 * 1024
"""Largest request body, in bytes: what gRPC takes too, and room for 10,000 rows."""
MAX_DRAINED = 4 * MAX_BODY
"""How much of a body over the limit is read and thrown away before the connection is closed."""
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/infer)?")
_BINARY = b"inference-header-content-length"
_log = logging.getLogger("tollgate.model")
_decode = msgspec.json.Decoder(Request).decode


class Edge:
    """The ASGI app that uvicorn calls; the SDK's app is behind it.

    Outermost, not one of the app's middlewares: the SDK's Timing middleware alone looks through all routes for a
    request's name, which costs more than reading its features.
    """

    def __init__(self, app: App, services: dict[str, Service]) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        method, match = scope["method"], _PATH.fullmatch(scope["path"])
        if method == "GET" and match and not match[3]:
            return await self._guard(self._metadata, match, None, send)
        if method not in ("POST", "PUT", "PATCH"):
            return await self._app(scope, receive, send)
        try:
            body = await _read(scope, receive)
        except Rejected as error:
            return await _reply(send, 413, {"error": error.detail}, (b"connection", b"close"))
        if method == "POST" and match and match[3] and not any(name == _BINARY for name, _ in scope["headers"]):
            return await self._guard(self._infer, match, body, send)
        return await self._app(scope, _replay(body, receive), send)

    async def _guard(self, work: Any, match: re.Match[str], body: bytes | None, send: Send) -> None:
        """Run `work`, turn what it raises into a status."""
        name, version = match[1], match[2]
        service = self._services.get(name)
        if service is None:
            known = ", ".join(self._services)
            return await _reply(send, 404, {"error": f"there is no model {name[:64]!r} here; there are {known}"})
        if version is not None and version != service.version:
            detail = f"model {name!r} has version {service.version} here, not {version[:64]!r}"
            return await _reply(send, 404, {"error": detail})
        try:
            return await _reply(send, 200, await work(service, body))
        except Rejected as error:
            return await _reply(send, 400, {"error": error.detail})
        except Retryable as error:
            return await _reply(send, 503, {"error": str(error)}, (b"retry-after", b"1"))
        except Exception:
            _log.exception("inference failed")
            return await _reply(send, 500, {"error": "internal error; the server's log has it"})

    async def _metadata(self, service: Service, _: bytes | None) -> dict[str, Any]:
        return metadata(service)

    async def _infer(self, service: Service, body: bytes) -> dict[str, Any]:
        try:
            request = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(Reason.MALFORMED_JSON, f"not a V2 inference request: {error}") from None
        return _body(service, request, await service.infer(request))


def metadata(service: Service) -> dict[str, Any]:
    """V2 model metadata; `parameters` carries the feature order (comma separated: they are scalars) and hash."""
    return {
        "name": service.name,
        "versions": [service.version],
        "platform": "xgboost",
        "inputs": [each._asdict() for each in service.inputs],
        "outputs": [each._asdict() for each in service.outputs],
        "parameters": service.metadata,
    }


def _body(service: Service, request: Request, answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = {"model_name": service.name, "model_version": service.version}
    if request.id is not None:
        body["id"] = request.id
    body["parameters"] = answer.parameters
    body["outputs"] = [_output(each) for each in answer.outputs]
    return body


def _output(output: Output) -> dict[str, Any]:
    data = output.data.tolist() if output.datatype == "BYTES" else output.data.reshape(-1)
    return {"name": output.name, "datatype": output.datatype, "shape": output.shape, "data": data}


async def _read(scope: Message, receive: Receive) -> bytes:
    """The whole body. Raises `Rejected` when it is over the limit, after having thrown away what a client may still
    be sending: one that is cut off while it sends sees a reset connection instead of the answer.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > MAX_DRAINED:
        raise _too_large()
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_DRAINED:
            raise _too_large()
        if size <= MAX_BODY:
            parts.append(part)
        if not message.get("more_body"):
            break
    if size > MAX_BODY:
        raise _too_large()
    return b"".join(parts)


def _too_large() -> Rejected:
    return Rejected(Reason.OVERSIZE, f"the request body is over the limit of {MAX_BODY} bytes")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, for the SDK; then what really comes (a disconnect)."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _reply(send: Send, status: int, body: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    length = (b"content-length", str(len(data)).encode())
    head = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})

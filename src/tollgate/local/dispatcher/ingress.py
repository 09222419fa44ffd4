"""HTTP in: POST /NAMESPACE/BROKER takes one CloudEvent and answers 202 when Kafka has it; health and metrics.

In: events from callers and functions. Out: the Broker's topic (`writer`). 400 says what is wrong with the event,
413 that it is too large, 404 that there is no such Broker, 503 that Kafka is away (try again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tollgate.errors import Reason, Rejected, Retryable
from tollgate.events import from_http
from tollgate.local.dispatcher.courier import MAX_EVENT_BYTES
from tollgate.local.dispatcher.manifests import Topic
from tollgate.local.dispatcher.metrics import INGRESS
from tollgate.local.dispatcher.writer import Writer

_MAX_BODY_BYTES = 2 * MAX_EVENT_BYTES  # a structured event may carry its data in base64, a third longer


def ingress(brokers: Mapping[str, Topic], writer: Writer, ready: Callable[[], str]) -> web.Application:
    """The application on the ingress port. `ready` answers an empty text, or what is missing."""

    async def post(request: web.Request) -> web.Response:
        response = await _take(request, brokers, writer)
        INGRESS.labels(str(response.status)).inc()
        return response

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/{namespace}/{broker}", post)
    _health(app, ready)
    return app


def observability(ready: Callable[[], str]) -> web.Application:
    """The application on the metrics port."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    _health(app, ready)
    return app


async def _take(request: web.Request, brokers: Mapping[str, Topic], writer: Writer) -> web.Response:
    path = "{namespace}/{broker}".format(**request.match_info)
    if path not in brokers:
        return _answer(404, Reason.INVALID_FIELD, f"there is no such Broker; there is: {', '.join(brokers)}")
    try:
        event = from_http(request.headers, await request.read())
        if len(event.data) > MAX_EVENT_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_EVENT_BYTES, len(event.data))
        await writer.put(brokers[path], event)
    except web.HTTPRequestEntityTooLarge:
        return _answer(413, Reason.OVERSIZE, f"the Broker takes events of up to {MAX_EVENT_BYTES} bytes")
    except Rejected as rejected:
        return _answer(413 if rejected.reason is Reason.OVERSIZE else 400, rejected.reason, rejected.detail)
    except Retryable as trouble:
        body = {"error": f"{trouble}; try again"}
        return web.json_response(body, status=503, headers={"Retry-After": "1"})
    return web.Response(status=202)


def _answer(status: int, reason: Reason, detail: str) -> web.Response:
    return web.json_response({"reason": reason, "detail": detail}, status=status)


def _health(app: web.Application, ready: Callable[[], str]) -> None:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = ready()
        return web.Response(text=f"{missing or 'ready'}\n", status=503 if missing else 200)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)

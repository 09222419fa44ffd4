"""HTTP: the page, the state document, its stream, a decision's details. Only GET, only by this machine's own names.

In: requests to 127.0.0.1 or localhost; any other Host is refused (a page elsewhere whose name was pointed at this
machine must not read payment data). Out: JSON, Server-Sent Events, and the page's files from this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from tollgate.errors import Rejected, Retryable
from tollgate.local import health
from tollgate.local.console.flow import Flow
from tollgate.local.console.lookup import Lookup
from tollgate.local.console.state import GUIDE, details, document
from tollgate.local.layout import Layout, checkout
from tollgate.policy import Policy
from tollgate.transaction import check_id

_EVERY_S = 1.0
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "md": "text/plain"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Console:
    """The handlers and what they read. `keep` must run beside them."""

    def __init__(self, layout: Layout, flow: Flow, lookup: Lookup, policy: Policy) -> None:
        self._layout = layout
        self._flow = flow
        self._lookup = lookup
        self._policy = policy
        self._report = health.Report([], "looking ...")
        self._beat = asyncio.Condition()
        self._closing = False

    def application(self) -> web.Application:
        """The application with its routes."""
        port = self._layout.port("console")
        app = web.Application(middlewares=[_guard({f"127.0.0.1:{port}", f"localhost:{port}"})])
        app.on_response_prepare.append(_harden)
        for path, handler in (
            ("/healthz", self._healthz),
            ("/api/state", self._state),
            ("/api/events", self._events),
            ("/api/decisions/{id}", self._decision),
        ):
            app.router.add_get(path, handler, allow_head=False)
        for file in (files(__package__) / "page").iterdir():
            path = "/" if file.name == "index.html" else f"/{file.name}"
            app.router.add_get(path, _file(file.read_bytes(), file.name), allow_head=False)
        if (root := checkout()) is not None:  # installed from a wheel, there is no guide beside it
            app.router.add_get(GUIDE, _file((root / "README.md").read_bytes(), "README.md"), allow_head=False)
        return app

    async def keep(self) -> None:
        """Every second: look at the parts and tell the streams, for ever."""
        while True:
            try:
                self._report = await asyncio.to_thread(health.report, self._layout)
            except Exception as error:  # a half-written or foreign state file must not end the page
                self._report = health.Report([], f"the platform's state cannot be read: {error}")
            async with self._beat:
                self._beat.notify_all()
            await asyncio.sleep(_EVERY_S)

    async def close(self) -> None:
        """Let the streams end."""
        self._closing = True
        async with self._beat:
            self._beat.notify_all()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _state(self, _: web.Request) -> web.Response:
        return _json(self._document(0))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        after = 0
        while not self._closing:
            state = self._document(after)
            after = state["history"]["last"]
            try:
                await response.write(b"data: " + msgspec.json.encode(state) + b"\n\n")
            except ConnectionResetError:  # the page was closed
                break
            async with self._beat:
                await self._beat.wait()
        return response

    async def _decision(self, request: web.Request) -> web.Response:
        transaction_id = request.match_info["id"]
        try:
            check_id("id", transaction_id)
            found = await self._lookup.details(transaction_id)
        except Rejected as error:
            return _json({"error": str(error)}, 400)
        except Retryable as error:
            return _json({"error": f"{error}; try again"}, 503)
        if found is None:
            return _json({"error": "no transaction with this id was decided"}, 404)
        return _json(details(*found, self._policy))

    def _document(self, after: int) -> dict[str, Any]:
        return document(self._layout, self._report, self._flow, self._lookup, after)


def _guard(hosts: set[str]) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.headers.get("Host") not in hosts:
            return _json({"error": f"open this page as {' or '.join(sorted(hosts))}"}, 421)
        if request.method != "GET":
            return _json({"error": "this page only shows: GET is all it knows"}, 405)
        return await handler(request)

    return guard


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _file(body: bytes, name: str) -> _Handler:
    content_type = _TYPES[name.rpartition(".")[2]]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return answer


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")

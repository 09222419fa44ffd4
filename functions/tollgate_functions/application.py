"""func-python's application, with a guard at the door.

In: HTTP requests. Out: a well-formed CloudEvent in `scope["event"]` for the function, or 422 with a reason.
Left alone, func-python 0.8.1 answers a JSON array without CloudEvent headers with 500 (which Knative retries in
vain), makes up ids that are missing, reads bodies of any size, and answers text instead of a reason.
Starting, stopping, LISTEN_ADDRESS and the health endpoints are func-python's; `tollgate_functions.server` listens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from func_python.cloudevent import ASGIApplication, CloudEventSender

from tollgate.errors import Reason, Rejected
from tollgate.events import CloudEvent, from_http
from tollgate_functions.answer import Send, reject
from tollgate_functions.server import serve

MAX_EVENT_BYTES = 256 * 1024
"""Largest accepted event body: a decided event (transaction, decision, features) is a few KB."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Application(ASGIApplication):  # type: ignore[misc] # func-python has no types
    """Serves one function instance: `Application(new()).serve()`."""

    def serve(self) -> None:
        """Until SIGTERM; see `tollgate_functions.server.serve`."""
        serve(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/health/"):
            await super().__call__(scope, receive, send)
            return
        try:
            body = await _read(receive)
            if body is None:
                return
            scope["event"] = _event(scope, body)
        except Rejected as error:
            await reject(send, error)
            return
        await self.f.handle(scope, receive, CloudEventSender(send))


def _event(scope: Scope, body: bytes) -> CloudEvent:
    if scope["method"] != "POST":
        raise Rejected(Reason.INVALID_FIELD, f"{scope['method']} is not POST: send CloudEvents with POST")
    return from_http({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}, body)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when the sender went away. Raises `Rejected` when it is too large."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_EVENT_BYTES:
            raise Rejected(Reason.OVERSIZE, f"the event has more than {MAX_EVENT_BYTES} bytes")
    return body

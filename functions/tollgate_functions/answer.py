"""From what a handler did to the HTTP answer that Knative acts on.

In: the coroutine that handles one event. Out: 200 and the reply event (binary mode), 204, or an error: 422 with
`{"reason", "detail"}` (goes to the dead letter), 503 with Retry-After (delivered again), 500 (a bug; delivered again).
func-python's own error answers are never reached: they repeat exception texts and answer a ValueError with 500.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tollgate.errors import Rejected, Retryable
from tollgate.events import CloudEvent, to_http
from tollgate_functions.metrics import DEAD_LETTERS

Send = Callable[[dict[str, Any]], Awaitable[None]]
"""ASGI's raw send: func-python's `send.http`."""

log = logging.getLogger("tollgate.functions")


async def answer(send: Send, work: Awaitable[CloudEvent | None]) -> None:
    """Await `work` and answer with its reply event, with nothing, or with what went wrong."""
    try:
        reply = await work
    except Rejected as error:
        await reject(send, error)
    except Retryable as error:
        log.warning("answered 503: %s", error)
        await _problem(send, 503, "retryable", str(error), {"retry-after": "1"})
    except Exception as error:
        # The frames, not the message: a message may repeat a payload.
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("answered 500: %s\n%s", type(error).__name__, frames)
        await _problem(send, 500, "bug", f"unexpected {type(error).__name__}; see the function's log", {})
    else:
        if reply is None:
            await _respond(send, 204, {}, b"")
        else:
            headers, body = to_http(reply)
            await _respond(send, 200, headers, body)


async def reject(send: Send, error: Rejected) -> None:
    """Answer 422: nothing that is sent again can change it. Counts the reason."""
    DEAD_LETTERS.labels(error.reason.value).inc()
    await _problem(send, 422, error.reason.value, error.detail, {})


async def _problem(send: Send, status: int, reason: str, detail: str, headers: dict[str, str]) -> None:
    body = msgspec.json.encode({"reason": reason, "detail": detail})
    await _respond(send, status, {"content-type": "application/json", **headers}, body)


async def _respond(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    headers["content-length"] = str(len(body))
    if status == 204:
        del headers["content-length"]
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})

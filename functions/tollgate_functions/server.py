"""What listens for a function: uvicorn with httptools and uvloop, which costs half the CPU of func-python's hypercorn.

In: func-python's ASGI application and LISTEN_ADDRESS, read by func-python itself. Out: it is served until SIGTERM or
SIGINT; what is under way then is answered first. An image that the func CLI builds runs hypercorn instead: the
function cannot tell.
"""

from __future__ import annotations

import signal
import socket
from typing import Any

import func_python.sock
import uvicorn

from tollgate.errors import ConfigurationError

_KEEP_ALIVE_S = 120
"""Longer than the Broker (30 s) and Knative's queue-proxy (90 s) keep idle connections: they close first, so that
none of their requests meets a connection that is just being closed here."""
_GRACE_S = 10
"""For what is under way at SIGTERM; the model server's time limit and Postgres's are shorter."""


def serve(application: Any) -> None:
    """Serve until a signal. Raises `ConfigurationError` when LISTEN_ADDRESS is wrong or taken, or the start failed."""
    sockets = _listen()
    # uvicorn raises the signal again once all is closed: this stop was in order, not a death by signal.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            loop="uvloop",
            http="httptools",
            ws="none",
            interface="asgi3",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    server.run(sockets=sockets)
    if not server.started:
        raise ConfigurationError("the function did not start; the lines above say why")


def _listen() -> list[socket.socket]:
    try:
        names = func_python.sock.bind()
    except Exception as error:  # func-python raises no narrower one, and has logged which address it is
        raise ConfigurationError(f"LISTEN_ADDRESS: {error}") from None
    return [socket.socket(fileno=int(name.removeprefix("fd://"))) for name in names]

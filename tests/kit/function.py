"""A function for tests: a real HTTP server that behaves as the test says, event by event."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tollgate.events import CloudEvent, from_http, to_http


class Call:
    """One request: its event, how many times that event was delivered, and the ways to answer it."""

    def __init__(self, handler: _Handler, event: CloudEvent, times: int) -> None:
        self.event, self.times = event, times
        self._handler = handler

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer plainly."""
        self._handler.send_response_only(status)
        for name, value in (headers or {}).items():
            self._handler.send_header(name, value)
        if status != 204:
            self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def reply(self, event: CloudEvent) -> None:
        """Answer with a CloudEvent in binary mode."""
        headers, body = to_http(event)
        self.answer(200, body, headers)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        """Take one's time."""
        time.sleep(seconds)


class StubFunction:
    """`behave` is called for each request, in its connection's thread; it may be replaced while running."""

    def __init__(self, behave: Callable[[Call], None]) -> None:
        self.behave = behave
        self.delay = 0.0
        self.events: list[CloudEvent] = []
        """Every delivery, in order of arrival."""
        self.most_at_once = 0
        self._at_once = 0
        self._times: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.function = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, handler: _Handler, event: CloudEvent) -> None:
        """Count the delivery, then behave."""
        with self._lock:
            self.events.append(event)
            self._times[event.source, event.id] += 1
            times = self._times[event.source, event.id]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.delay:
                time.sleep(self.delay)
            self.behave(Call(handler, event, times))
        finally:
            with self._lock:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    function: StubFunction
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.function.take(self, from_http(dict(self.headers.items()), body))

    def log_message(self, *args: Any) -> None:
        """Quiet."""

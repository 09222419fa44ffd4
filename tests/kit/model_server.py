"""The real model server as a process, and a small V2 client that shows every status.

In: a model folder and the layout whose Postgres it reads. Out: `ModelServer`, ready, until the block ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kit.ports import free_port
from tollgate.local import environments, parts, probes
from tollgate.local.layout import HOST, Layout

CHECKOUT = Path(__file__).resolve().parents[2]


class Answer(NamedTuple):
    """An HTTP answer: the body as JSON where it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def output(self, name: str) -> list[Any]:
        """The data of an output tensor."""
        data: list[Any] = next(each["data"] for each in self.body["outputs"] if each["name"] == name)
        return data


def call(url: str, body: Any = None, method: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request; `body` is sent as JSON unless it is bytes. Any status is an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, response.headers, _json(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, _json(error.read()))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


@dataclass(frozen=True)
class ModelServer:
    """A server that runs."""

    url: str
    grpc: str
    process: subprocess.Popen[bytes]
    log: Path

    def infer(self, model: str, body: Any, version: str | None = None) -> Answer:
        """POST an inference request."""
        where = f"/versions/{version}" if version else ""
        return call(f"{self.url}/v2/models/{model}{where}/infer", body)

    def get(self, path: str) -> Answer:
        """GET a path."""
        return call(self.url + path)

    def metric(self, name: str, labels: str = "") -> float:
        """The value of one sample on /metrics, 0 when it is not there."""
        text = self.get("/metrics").body.decode()
        line = next((line for line in text.splitlines() if line.startswith(f"{name}{labels} ")), f"{name} 0")
        return float(line.rpartition(" ")[2])

    def terminate(self) -> None:
        """SIGTERM, as Kubernetes sends it."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def running(layout: Layout, folder: Path, log: Path, *, as_in_a_pod: bool = False) -> Iterator[ModelServer]:
    """Start the server on free ports with the command of the embedded platform; kill it at the end.

    In a pod nobody tells it an address to listen on.
    """
    shared = Layout(CHECKOUT / ".tollgate")
    part = parts.model(layout, folder, "fraud-00001")
    http, grpc = free_port(), free_port()
    options = [each for each in part.command[1:] if not (as_in_a_pod and each.startswith("--host="))]
    command = [environments.ensure(shared, "serving"), *options, f"--http_port={http}", f"--grpc_port={grpc}"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **part.env}, stdout=out, stderr=out)
    server = ModelServer(f"http://{HOST}:{http}", f"{HOST}:{grpc}", process, log)
    try:
        deadline = time.monotonic() + 60
        while (trouble := probes.http(f"{server.url}/v2/health/ready")) is not None:
            assert process.poll() is None, f"the server stopped: {log.read_text()}"
            assert time.monotonic() < deadline, f"{trouble}: {log.read_text()}"
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()

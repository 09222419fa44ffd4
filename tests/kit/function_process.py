"""A function as its own process, in its own environment, spoken to over HTTP as the Broker does.

In: the function's name and settings. Out: a running `FunctionProcess`; `deliver` sends events at once and gives the
answers; `metric` reads one sample of its Prometheus scrape.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from kit.ports import free_port
from tollgate.events import CloudEvent, from_http, to_http
from tollgate.local import environments
from tollgate.local.layout import Layout

_PLAIN = "from func_python.cloudevent import serve; from function import new; serve(new)"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def event(self) -> CloudEvent:
        """The reply event."""
        return from_http(self.headers, self.body)


def environment(layout: Layout) -> Path:
    """The functions' Python, installed when it is not there yet."""
    return environments.ensure(layout, "functions")


def command(python: Path, name: str, settings: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m tollgate_functions <name>` with these settings and nothing of Tollgate's from outside."""
    return start([python, "-m", "tollgate_functions", name], settings, log, log.parent)


def start(words: Sequence[str | Path], settings: Mapping[str, str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start any command in `folder` as the functions' environment would see it."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith("TOLLGATE_")}
    with log.open("ab") as out:
        return subprocess.Popen(
            words,
            env={**outside, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'functions'}", **settings},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )


class FunctionProcess:
    """`with FunctionProcess(python, "decide", settings, folder) as decide:` runs it until the block ends."""

    def __init__(
        self, python: Path, name: str, settings: Mapping[str, str], folder: Path, *, plain: bool = False
    ) -> None:
        """`plain` serves the folder the way an image built by the func CLI does, with func-python and nothing else."""
        port, metrics = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._metrics = f"http://127.0.0.1:{metrics}/metrics"
        self.log = folder / f"{name}.log"
        listen = {"LISTEN_ADDRESS": f"127.0.0.1:{port}", "TOLLGATE_METRICS_PORT": str(metrics)}
        if plain:
            words: list[str | Path] = [python, "-c", _PLAIN]
            self._process = start(words, {**listen, **settings}, self.log, ROOT / "functions" / name)
        else:
            self._process = command(python, name, {**listen, **settings}, self.log)

    def __enter__(self) -> FunctionProcess:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{self.url}/health/readiness", timeout=2) as response:
                    if response.status == 200:
                        return self
            except OSError:
                if self._process.poll() is not None:
                    break
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the function did not start:\n{self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """SIGTERM, as a supervisor or Kubernetes does; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(15)

    def deliver(self, *events: CloudEvent) -> list[Answer]:
        """POST all of them at once (binary mode); the answers in their order."""
        return self.post(*map(to_http, events))

    def post(self, *messages: tuple[Mapping[str, str], bytes]) -> list[Answer]:
        """POST raw messages at once; the answers in their order."""
        return asyncio.run(_post(self.url, messages))

    def metric(self, sample: str) -> float:
        """The value of one sample, like `tollgate_dead_letters_total{reason="conflict"}`."""
        with urllib.request.urlopen(self._metrics, timeout=5) as response:
            text = response.read().decode()
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        assert found, f"{sample} is not in the scrape"
        return float(found[1])


async def _post(url: str, messages: Sequence[tuple[Mapping[str, str], bytes]]) -> list[Answer]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def one(headers: Mapping[str, str], body: bytes) -> Answer:
            async with session.post(url, data=body, headers=headers) as response:
                lower = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, lower, await response.read())

        return list(await asyncio.gather(*(one(headers, body) for headers, body in messages)))

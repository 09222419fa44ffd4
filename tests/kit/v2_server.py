"""A small model server that speaks V2 over real HTTP, with a model anybody can compute by hand.

In: requests for `fraud` and `fraud-features`. Out: probability = amount / 1,000.00 (at most 1), features
[amount, 1, 2, 3, 4, 5] and reasons that give feature i the contribution (-1)^i * i. Remembers what it was asked;
`misbehave` makes it fail the way model servers do. For tests of `decide` alone: end to end, the real server runs.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FEATURES_HASH = "0123456789abcdef"
NAMES = ("amount", "one", "two", "three", "four", "five")


def probability(amount_minor: int) -> float:
    """What the model says about an amount."""
    return min(1.0, amount_minor / 100_000)


def features(amount_minor: int) -> list[float]:
    """What the model says it looked at."""
    return [amount_minor / 100, 1.0, 2.0, 3.0, 4.0, 5.0]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    model: str
    headers: dict[str, str]
    body: dict[str, Any]


Misbehaviour = Callable[[str, dict[str, Any]], Awaitable[web.Response | None]]
"""Given the model and the honest answer: another response, or None for the honest one (which it may have changed)."""


@dataclass
class ModelServer:
    """`with ModelServer() as server:` serves on `server.url` until the block ends."""

    port: int = 0
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    misbehave: Misbehaviour | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> ModelServer:
        self.parameters = {
            "model_version": "7",
            "features_hash": FEATURES_HASH,
            "revision": "fraud-00007",
            "features_as_of": "2026-05-01T11:59:58Z",
        }
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v2/models/{model}/infer", self._infer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _infer(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        body = await request.json()
        self.asked.append(Asked(model, {k.lower(): v for k, v in request.headers.items()}, body))
        given = {tensor["name"]: tensor for tensor in body["inputs"]}
        if model == "fraud":
            amounts = given["amount_minor"]["data"]
            flat = [value for amount in amounts for value in features(amount)]
            outputs = {
                "probability": _tensor("FP64", [len(amounts)], [probability(amount) for amount in amounts]),
                "features": _tensor("FP64", [len(amounts), len(NAMES)], flat),
            }
        else:
            rows, width = given["features"]["shape"]
            flat = given["features"]["data"]
            made = [_reasons(flat[i * width : (i + 1) * width]) for i in range(rows)]
            outputs = {"reasons": _tensor("BYTES", [rows], [json.dumps(each) for each in made])}
        answer = {
            "model_name": model,
            "model_version": self.parameters.get("model_version"),
            "parameters": dict(self.parameters),
            "outputs": [{"name": each["name"], **outputs[each["name"]]} for each in body["outputs"]],
        }
        if self.misbehave is not None and (response := await self.misbehave(model, answer)) is not None:
            return response
        return web.json_response(answer)


def _tensor(datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"datatype": datatype, "shape": shape, "data": data}


def _reasons(row: list[float]) -> list[dict[str, Any]]:
    return [
        {"feature": name, "value": value, "contribution": float((-1) ** i * i)}
        for i, (name, value) in enumerate(zip(NAMES, row, strict=True))
    ]

"""A publisher that keeps what it is given, and the small worlds that the simulator's tests share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from tollgate.simulator.options import WorldSettings

SMALL = WorldSettings(seed=7, customers=60, terminals=50, radius=10.0)
"""About 116 transactions a day."""


class Heard(NamedTuple):
    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes]
    at: float

    @property
    def body(self) -> dict[str, object]:
        decoded: dict[str, object] = msgspec.json.decode(self.value)
        return decoded

    def without_time(self) -> tuple[str, str, bytes]:
        return self.topic, self.key, self.value


class Listener:
    """Stands where Kafka would be; `on_publish` is called with each record."""

    def __init__(self, on_publish: Callable[[Heard], None] | None = None) -> None:
        self.records: list[Heard] = []
        self.confirmed = 0
        self._on_publish = on_publish

    def publish(self, topic: str, key: str, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        heard = Heard(topic, key, value, headers or {}, time.monotonic())
        self.records.append(heard)
        if self._on_publish:
            self._on_publish(heard)

    def flush(self, timeout_s: float) -> bool:
        self.confirmed = len(self.records)
        return True

    def on(self, topic: str) -> list[Heard]:
        return [r for r in self.records if r.topic == topic]

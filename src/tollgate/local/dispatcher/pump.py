"""Moves events from one `intake` through one `courier`, many at a time, each on its own.

In: batches of arrivals. Out: `Intake.done` for each event that is durable elsewhere. One pump a KafkaSource or
Trigger, so a slow subscriber holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message

from tollgate.events import CloudEvent
from tollgate.local.dispatcher.courier import Courier
from tollgate.local.dispatcher.intake import Arrival, Intake
from tollgate.local.dispatcher.metrics import DELIVERY_SECONDS, EVENTS

log = logging.getLogger(__name__)


class Pump:
    """One KafkaSource or Trigger at work."""

    def __init__(
        self,
        courier: Courier,
        config: dict[str, Any],
        topics: tuple[str, ...],
        select: Callable[[Message], CloudEvent | None],
        window: int,
        on_fatal: Callable[[str], None],
    ) -> None:
        self._courier = courier
        self._intake = Intake(courier.name, config, topics, select, window, self._accept, on_fatal)
        self._on_fatal = on_fatal
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds = DELIVERY_SECONDS.labels(courier.name)

    def start(self) -> None:
        """Begin to read."""
        self._intake.start()

    @property
    def ready(self) -> bool:
        """Whether the consumer has its partitions."""
        return self._intake.assigned.is_set()

    async def stop(self, grace: float) -> None:
        """Stop reading, give events under way `grace` seconds, commit what is done. The rest comes again."""
        self._intake.stop_reading()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            log.info(
                "%s: %d events were under way at the stop and will be delivered again", self._courier.name, len(left)
            )
        await self._intake.close()

    def _accept(self, batch: list[Arrival]) -> None:
        for arrival in batch:
            task = asyncio.create_task(self._carry(arrival))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    async def _carry(self, arrival: Arrival) -> None:
        result = await self._courier.carry(arrival.event, arrival.where)
        self._intake.done(arrival)
        self._seconds.observe(time.monotonic() - arrival.at)
        EVENTS.labels(self._courier.name, result).inc()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: an event could not be carried", self._courier.name, exc_info=error)
            self._on_fatal(f"{self._courier.name}: {error!r}")

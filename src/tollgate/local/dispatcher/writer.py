"""Kafka out: one producer for the Broker's topic and every KafkaSink; a write counts when all replicas have it.

In: a CloudEvent and a topic, from `ingress` and `courier`. Out: an await that ends when Kafka acknowledged. Kafka
away is `Retryable`; a record that Kafka will never take (too large) is `Rejected`. A thread serves the producer's
callbacks and hands them to the event loop a batch at a time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tollgate.errors import Reason, Rejected, Retryable
from tollgate.events import CloudEvent, to_kafka, to_kafka_structured
from tollgate.local.dispatcher.manifests import Topic
from tollgate.topics import client

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 4 * 1024 * 1024
_PATIENCE_MS = 5_000
_PARTITION_KEY = "partitionkey"

_Outcome = tuple["asyncio.Future[None]", KafkaError | None]


class Writer:
    """The producer. `on_fatal` is called (in the event loop) when it cannot continue and the process must restart."""

    def __init__(self, bootstrap: str, on_fatal: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_fatal = on_fatal
        self._outcomes: list[_Outcome] = []
        self._stopping = False
        self.reachable = False
        self._producer = Producer(
            {
                **client(bootstrap),
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 8,
                "message.timeout.ms": _PATIENCE_MS,
                "message.max.bytes": MAX_RECORD_BYTES,
                "partitioner": "murmur2_random",  # the Java clients' choice: one key, one partition, whoever writes
                "socket.nagle.disable": True,
                "reconnect.backoff.max.ms": 1_000,
                "error_cb": self._on_error,
                "logger": log,
            }
        )
        self._thread = threading.Thread(target=self._serve, name="writer", daemon=True)
        self._thread.start()

    async def put(self, topic: Topic, event: CloudEvent) -> None:
        """Write one event; its `partitionkey` extension is the record's key. Raises `Retryable`, `Rejected`."""
        headers, value = (to_kafka_structured if topic.structured else to_kafka)(event)
        key = event.extensions.get(_PARTITION_KEY)
        done: asyncio.Future[None] = self._loop.create_future()

        def delivered(error: KafkaError | None, _message: Any) -> None:
            self._outcomes.append((done, error))

        while True:
            try:
                self._producer.produce(
                    topic.name, value, key.encode() if key else None, headers=headers, on_delivery=delivered
                )
                break
            except BufferError:  # the local queue is full: wait for room
                await asyncio.sleep(0.01)
            except KafkaException as error:
                _raise(error.args[0])
        await done

    async def connect(self) -> None:
        """Ask Kafka for its metadata once, so that readiness is known before the first event."""
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=_PATIENCE_MS / 1000)
            self.reachable = True
        except KafkaException as error:
            log.warning("Kafka does not answer yet: %s", error.args[0].str())

    async def close(self) -> None:
        """Wait for what was handed over, then stop the thread."""
        await asyncio.to_thread(self._producer.flush, _PATIENCE_MS / 1000)
        self._stopping = True
        await asyncio.to_thread(self._thread.join)
        self._resolve(self._outcomes)

    def _serve(self) -> None:
        while not self._stopping:
            self._producer.poll(0.1)
            if self._outcomes:
                ready, self._outcomes = self._outcomes, []
                self._loop.call_soon_threadsafe(self._resolve, ready)

    def _resolve(self, outcomes: list[_Outcome]) -> None:
        for done, error in outcomes:
            self.reachable = error is None or self.reachable
            if done.done():  # cancelled by a stop
                continue
            if error is None:
                done.set_result(None)
                continue
            try:
                _raise(error)
            except (Retryable, Rejected) as reason:
                done.set_exception(reason)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._loop.call_soon_threadsafe(self._on_fatal, error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.reachable = False


def _raise(error: KafkaError) -> None:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        raise Rejected(Reason.OVERSIZE, "the event is larger than the Kafka topic takes (max.message.bytes)")
    raise Retryable(f"Kafka did not take the event: {error.str()}")

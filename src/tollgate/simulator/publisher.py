"""Records out to Kafka: acknowledged by every replica, once each, or an error.

In: topic, key, value, headers from `tollgate.simulator.stream`. Out: Kafka. `Publisher` is all the stream knows,
so that tests listen in with a list.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tollgate.errors import Retryable
from tollgate.topics import client

DELIVERY_TIMEOUT_S = 120.0
"""A record that no broker has confirmed for so long is an error; until then the client retries."""
_AGAIN = "see `tollgate status`, then start again: it continues at the last saved position"


class Publisher(Protocol):
    """Takes records; `flush` makes sure of them."""

    def publish(self, topic: str, key: str, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        """Hand over one record. May wait for room; raises `Retryable` for an earlier record that failed."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s`; True when every record handed over is stored. Raises `Retryable` if one failed."""
        ...


class KafkaPublisher:
    """Publishes with acks=all and an idempotent producer; a delivery error surfaces at the next call."""

    def __init__(self, bootstrap: str) -> None:
        """`bootstrap` is host:port (several separated by commas)."""
        self._bootstrap = bootstrap
        self._failure: str | None = None
        self._producer = Producer(
            {
                **client(bootstrap),
                "client.id": "tollgate-simulator",
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
                "linger.ms": 20,
                "compression.type": "lz4",
                # The Java clients' partitioner: a key has one partition whoever writes it.
                "partitioner": "murmur2_random",
                # Outages are ours to report, in one sentence, not librdkafka's on stderr.
                "log_level": 0,
                "error_cb": self._trouble,
            }
        )

    def publish(self, topic: str, key: str, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        """See `Publisher.publish`."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while True:
            self._raise_failure()
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    on_delivery=self._delivered,
                    headers=dict(headers) if headers else None,
                )
                self._producer.poll(0)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise Retryable(f"Kafka at {self._bootstrap} takes no more records; {_AGAIN}") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Retryable(f"Kafka at {self._bootstrap}, topic {topic}: {error}") from None

    def flush(self, timeout_s: float) -> bool:
        """See `Publisher.flush`."""
        left = self._producer.flush(timeout_s)
        self._raise_failure()
        return not left

    def close(self) -> None:
        """Let go of the connection; what `flush` has not confirmed is dropped."""
        self._producer.purge()
        self._producer.flush(1)

    def __enter__(self) -> KafkaPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = f"topic {message.topic()}: {error.str()}"

    def _trouble(self, error: KafkaError) -> None:
        if error.fatal() and self._failure is None:
            self._failure = error.str()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise Retryable(f"Kafka at {self._bootstrap} did not store a record ({self._failure}); {_AGAIN}")

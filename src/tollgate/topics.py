"""Reading Kafka topics from the outside: the command line, the summary of a run, tests.

In: a topic. Out: its records, either those that are there now (`read`) or those that arrive from now on (`tail`).
Nothing is committed: looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tollgate.errors import Retryable

TRANSACTIONS = "transactions"
LABELS = "labels"
DECISIONS = "decisions"
DEAD_LETTERS = "dead-letters"
POSTED = "transactions-posted"

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record; `timestamp_ms` is the broker's append time, milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def position(self) -> str:
        """partition/offset, unique in its topic."""
        return f"{self.partition}/{self.offset}"


def client(bootstrap: str) -> dict[str, Any]:
    """What every Kafka client of ours has in common.

    A broker that stops in order takes itself off the list that clients know. Where it was the only one, they would
    ask nobody for five minutes; after three seconds they go back to the address they were given.
    """
    return {"bootstrap.servers": bootstrap, "metadata.recovery.rebootstrap.trigger.ms": 3_000}


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The offset that the next record of each partition will get. Raises `Retryable` when Kafka is away."""
    consumer = _consumer(bootstrap)
    try:
        return {p: high for p, (_, high) in _watermarks(consumer, topic).items()}
    finally:
        consumer.close()


def read(bootstrap: str, topic: str, start: Mapping[int, int] | None = None) -> Iterator[Record]:
    """Every record from `start` (partition to offset; default the beginning) to the end as it is now, then stop."""
    consumer = _consumer(bootstrap)
    try:
        marks = _watermarks(consumer, topic)
        first = {p: max(low, (start or {}).get(p, low)) for p, (low, _) in marks.items()}
        left = {p: high for p, (_, high) in marks.items() if first[p] < high}
        consumer.assign([TopicPartition(topic, p, first[p]) for p in left])
        while left:
            messages = consumer.consume(1_000, timeout=_TIMEOUT_S)
            if not messages:
                raise Retryable(f"Kafka at {bootstrap} stopped answering while topic {topic!r} was read")
            for message in messages:
                record = _record(message)
                end = left.get(record.partition)
                if end is not None and record.offset < end:
                    yield record
                if end is not None and record.offset >= end - 1:
                    del left[record.partition]
    finally:
        consumer.close()


class Tail:
    """Records of some topics that arrive after this was made; `poll` never waits longer than it is told."""

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self._consumer = _consumer(bootstrap)
        self._consumer.assign(
            [
                TopicPartition(topic, partition, high)
                for topic in topics
                for partition, (_, high) in _watermarks(self._consumer, topic).items()
            ]
        )

    def poll(self, seconds: float, at_most: int = 1_000) -> list[Record]:
        """What arrived, waiting up to `seconds` for the first; connection trouble gives an empty list."""
        return [_record(m) for m in self._consumer.consume(at_most, timeout=seconds) if m.error() is None]

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            **client(bootstrap),
            "group.id": "tollgate-looking",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
            # Records gather at the broker instead of waking whoever looks one by one.
            "fetch.wait.max.ms": 100,
            "fetch.min.bytes": 1_000_000,
            "log_level": 0,
        }
    )


def _watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    try:
        found = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        if found.error is not None:
            raise Retryable(f"Kafka has no topic {topic!r}: {found.error.str()}")
        marks = {}
        for partition in found.partitions:
            marks[partition] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)
    except KafkaException as error:
        raise Retryable(f"Kafka is away: {error.args[0].str()}") from error
    return marks


def _record(message: Any) -> Record:
    if message.error() is not None:
        raise Retryable(f"Kafka: {message.error().str()}")
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value() or b"",
        message.headers() or [],
    )

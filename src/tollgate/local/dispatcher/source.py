"""A Kafka record as the CloudEvent that Knative's KafkaSource makes of it.

In: a record of a KafkaSource's topic. Out: a CloudEvent for the source's sink (`courier`). A record that is a
CloudEvent stays one; anything else, an invalid CloudEvent too, becomes a dev.knative.kafka.event around its bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime

from confluent_kafka import Message

from tollgate.errors import Rejected
from tollgate.events import KAFKA_EVENT, CloudEvent, from_kafka
from tollgate.local.dispatcher.intake import position
from tollgate.local.dispatcher.manifests import Source

_RESERVED = frozenset(
    ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data")
)


def to_event(source: Source, message: Message) -> CloudEvent:
    """The event for one record, with the source's ceOverrides applied."""
    try:
        event = from_kafka(message.headers() or (), message.value())
    except Rejected:
        event = None
    if event is None:
        event = _plain(source, message)
    key = _text(message.key())
    if key and "partitionkey" not in event.extensions:
        event = event.with_extensions({"partitionkey": key})
    return event.with_extensions(source.extensions)


def _plain(source: Source, message: Message) -> CloudEvent:
    topic, partition, offset = position(message)
    extensions = {}
    for name, value in dict(message.headers() or ()).items():
        clean = "".join(c for c in name.lower() if c.isascii() and c.isalnum())
        if clean and clean not in _RESERVED and (text := _text(value)) is not None:
            extensions[clean] = text
    if (key := _text(message.key())) is not None:
        extensions["key"] = key
    stamp = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    return CloudEvent(
        id=f"partition:{partition}/offset:{offset}",
        source=f"/apis/v1/namespaces/{source.namespace}/kafkasources/{source.name}#{topic}",
        type=KAFKA_EVENT,
        subject=f"partition:{partition}#{offset}",
        time=stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        datacontenttype="application/json",
        extensions=extensions,
        data=message.value() or b"",
    )


def _text(value: bytes | str | None) -> str | None:
    """A key or header as an attribute's text; None when it cannot be one."""
    if value is None:
        return None
    try:
        text = value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None

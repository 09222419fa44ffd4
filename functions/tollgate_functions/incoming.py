"""What a handler needs to know about an event besides its data.

In: `scope["event"]`, from our `Application` or from func-python's own. Out: `tollgate.events.CloudEvent`, when the
request began, where it came from, and the extensions that a reply carries on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tollgate.events import KAFKA_EVENT, CloudEvent, origin

_TRACE = ("traceparent", "tracestate")


def received(event: Any) -> CloudEvent:
    """The event with its data as bytes. Under plain func-python (an image built by the func CLI) it comes as the
    CloudEvents SDK's class with decoded data: that is encoded again."""
    if isinstance(event, CloudEvent):
        return event
    data = event.get_data()
    if data is None:
        data = b""
    elif isinstance(data, str):
        data = data.encode()
    elif not isinstance(data, bytes):
        data = msgspec.json.encode(data)
    attributes = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in event.get_attributes().items()
        if value is not None
    }
    return CloudEvent.of(attributes, data)


def requested_at(event: CloudEvent, arrival: datetime) -> datetime:
    """When the request began: the time Kafka appended it, for a KafkaSource's event; else its arrival here.

    A caller's own `time` is not believed, it may be of another clock; nor is a time after the arrival.
    """
    if event.type != KAFKA_EVENT or event.time is None:
        return arrival
    try:
        return min(msgspec.convert(event.time, datetime), arrival)
    except msgspec.ValidationError:  # a leap second, which datetime does not have
        return arrival


def carried(event: CloudEvent, transaction_id: str) -> dict[str, str]:
    """The extensions of a reply: correlation, origin, the Kafka key, and the trace that the event is part of."""
    kept: dict[str, str] = {name: value for name, value in event.extensions.items() if name in _TRACE}
    return {"correlationid": transaction_id, "origin": origin(event), "partitionkey": transaction_id, **kept}

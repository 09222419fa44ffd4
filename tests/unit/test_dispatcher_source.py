"""A Kafka record becomes the CloudEvent that Knative's KafkaSource makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from tollgate import events
from tollgate.events import CloudEvent, to_kafka, to_kafka_structured
from tollgate.local.dispatcher.delivery import Delivery
from tollgate.local.dispatcher.manifests import Source, Topic
from tollgate.local.dispatcher.source import to_event

SOURCE = Source(
    name="transactions",
    namespace="tollgate",
    group="g",
    topics=("transactions",),
    consumers=1,
    initial_offset="earliest",
    extensions={"stream": "transactions"},
    sink=Topic("broker-tollgate"),
    delivery=Delivery(),
    dead_letter=Topic("dead-letters"),
)
EVENT = CloudEvent(id="T-1", source="/shop", type=events.REQUESTED, datacontenttype="application/json", data=b"{}")


def record(value: bytes | None, **more: Any) -> Message:
    """A record at transactions/3/42, written at 12:00:00.250 UTC."""
    stamp = (2, 1_772_366_400_250)
    return Message(**{"topic": "transactions", "partition": 3, "offset": 42, "timestamp": stamp, "value": value} | more)


def test_a_plain_record_is_named_after_its_place_and_time() -> None:
    event = to_event(SOURCE, record(b'{"a":1}', key=b"C-7"))
    assert event == CloudEvent(
        id="partition:3/offset:42",
        source="/apis/v1/namespaces/tollgate/kafkasources/transactions#transactions",
        type="dev.knative.kafka.event",
        subject="partition:3#42",
        time="2026-03-01T12:00:00.250Z",
        datacontenttype="application/json",
        extensions={"key": "C-7", "partitionkey": "C-7", "stream": "transactions"},
        data=b'{"a":1}',
    )


@pytest.mark.parametrize("encode", [to_kafka, to_kafka_structured])
def test_a_record_that_is_a_cloudevent_keeps_its_type_and_gets_the_overrides(encode: Any) -> None:
    headers, value = encode(EVENT)
    event = to_event(SOURCE, record(value, headers=headers, key=b"C-7"))
    assert event == EVENT.with_extensions({"stream": "transactions", "partitionkey": "C-7"})


def test_overrides_win_over_what_the_record_claims() -> None:
    headers, value = to_kafka(EVENT.with_extensions({"stream": "labels"}))
    assert to_event(SOURCE, record(value, headers=headers)).extensions["stream"] == "transactions"
    assert to_event(SOURCE, record(b"{}", headers=[("stream", b"labels")])).extensions["stream"] == "transactions"


def test_the_record_s_own_partitionkey_wins_over_its_key() -> None:
    headers, value = to_kafka(EVENT.with_extensions({"partitionkey": "own"}))
    assert to_event(SOURCE, record(value, headers=headers, key=b"C-7")).extensions["partitionkey"] == "own"


def test_an_invalid_cloudevent_is_handed_on_as_a_plain_record_so_that_its_function_refuses_it() -> None:
    event = to_event(SOURCE, record(b"{}", headers=[("ce_specversion", b"1.0"), ("ce_id", b"1")]))
    assert event.type == events.KAFKA_EVENT


def test_other_headers_become_extensions_under_a_name_cloudevents_allow() -> None:
    headers = [("traceparent", b"00-abc"), ("X-Request_Id", b"7"), ("id", b"forged"), ("raw", b"\xff"), ("--", b"x")]
    event = to_event(SOURCE, record(b"{}", headers=headers))
    assert event.extensions == {"traceparent": "00-abc", "xrequestid": "7", "stream": "transactions"}
    assert event.id == "partition:3/offset:42"


@given(
    st.none() | st.binary(max_size=100),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(st.text(min_size=1, max_size=9), st.none() | st.binary(max_size=9)), max_size=3),
)
def test_every_record_becomes_a_valid_event_with_its_bytes(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    event = to_event(SOURCE, record(value, key=key, headers=headers))
    assert event.data == (value or b"")
    assert CloudEvent.of(event.attributes(), event.data) == event

"""A dead letter says why, where it came from, and gives the original event back."""

from __future__ import annotations

import base64
import json

from tollgate import dead_letters
from tollgate.errors import Reason
from tollgate.events import DECIDED, KAFKA_EVENT, CloudEvent, to_kafka, to_kafka_structured
from tollgate.topics import Record


def record(event: CloudEvent, offset: int = 0, structured: bool = False) -> Record:
    headers, value = (to_kafka_structured if structured else to_kafka)(event)
    return Record("dead-letters", 0, offset, 1_790_000_000_000, None, value, headers)


def failed(event: CloudEvent, code: int, body: bytes) -> CloudEvent:
    return event.with_extensions(
        {
            "knativeerrordest": "http://decide",
            "knativeerrorcode": str(code),
            "knativeerrordata": base64.b64encode(body).decode(),
        }
    )


PLAIN = CloudEvent(
    id="partition:2/offset:41",
    source="/apis/v1/namespaces/tollgate/kafkasources/transactions#transactions",
    type=KAFKA_EVENT,
    datacontenttype="application/json",
    extensions={"stream": "transactions"},
    data=b'{"half": ',
)
REJECTED = json.dumps({"reason": "malformed_json", "detail": "not JSON"}).encode()


def test_the_reason_is_the_functions_own() -> None:
    for structured in (False, True):
        letter = dead_letters.read(record(failed(PLAIN, 422, REJECTED), structured=structured))
        assert (letter.reason, letter.detail, letter.code) == ("malformed_json", "not JSON", 422)
        assert letter.origin == "transactions/2/41"
        assert letter.event.data == PLAIN.data


def test_used_up_retries_are_called_exhausted() -> None:
    letter = dead_letters.read(record(failed(PLAIN, 503, b"upstream went away")))
    assert letter.reason == Reason.EXHAUSTED
    assert "503" in letter.detail


def test_the_origin_is_kept_through_decide() -> None:
    decided = CloudEvent(
        id="t-1",
        source="/tollgate/decide",
        type=DECIDED,
        extensions={"origin": "transactions/0/7", "correlationid": "t-1"},
        data=b"{}",
    )
    letter = dead_letters.read(record(failed(decided, 422, b'{"reason": "conflict", "detail": "other body"}')))
    assert letter.origin == "transactions/0/7"
    assert letter.transaction_id == "t-1"


def test_one_event_delivered_twice_is_one_dead_letter() -> None:
    letters = [dead_letters.read(record(failed(PLAIN, 422, REJECTED), offset)) for offset in (0, 1)]
    assert [letter.position for letter in dead_letters.distinct(letters)] == ["0/0"]


def test_the_original_event_comes_back_as_it_was() -> None:
    assert dead_letters.original(dead_letters.read(record(failed(PLAIN, 422, REJECTED)))) == PLAIN


def test_a_record_that_is_no_event_is_shown_too() -> None:
    letter = dead_letters.read(Record("dead-letters", 1, 3, 0, None, b"\xff\x00", []))
    assert letter.position == "1/3"
    assert letter.event.data == b"\xff\x00"

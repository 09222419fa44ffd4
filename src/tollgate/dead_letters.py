"""Dead letters: the events nobody could handle, each with the reason, ready to be replayed.

In: records of topic `dead-letters`, CloudEvents that carry Knative's knativeerror* attributes. Out: `DeadLetter`s,
and the original event again for the Broker. Delivery is at least once, so one event can be here twice: `origin`
(where it entered Tollgate) tells.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from tollgate.errors import Reason, Rejected
from tollgate.events import CloudEvent, from_kafka, origin
from tollgate.topics import Record

_ERROR_ATTRIBUTES = ("knativeerrordest", "knativeerrorcode", "knativeerrordata")


class _Answer(msgspec.Struct):
    """The body of a function's 422."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that could not be handled. `position` is partition/offset in the dead-letter topic."""

    position: str
    at: datetime
    reason: str
    detail: str
    code: int | None
    destination: str | None
    origin: str
    event: CloudEvent

    @property
    def transaction_id(self) -> str | None:
        """The transaction it was about, where that was known."""
        return self.event.extensions.get("correlationid")


def read(record: Record) -> DeadLetter:
    """Read one record of the dead-letter topic; a record that is no CloudEvent is itself a dead letter."""
    at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    try:
        event = from_kafka(record.headers, record.value)
    except Rejected:
        event = None
    if event is None:
        event = CloudEvent(id=record.position, source=f"/kafka/{record.topic}", type="unknown", data=record.value)
    code = event.extensions.get("knativeerrorcode", "")
    answer = _answer(event.extensions.get("knativeerrordata"))
    return DeadLetter(
        position=record.position,
        at=at,
        reason=answer.reason if answer else str(Reason.EXHAUSTED),
        detail=answer.detail if answer else f"retries used up; the last answer was {code or 'no connection'}",
        code=int(code) if code.isdigit() else None,
        destination=event.extensions.get("knativeerrordest"),
        origin=origin(event),
        event=event,
    )


def distinct(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """Each event once, however often it was delivered: the first by origin and reason."""
    seen: set[tuple[str, str]] = set()
    for letter in letters:
        if (key := (letter.origin, letter.reason)) not in seen:
            seen.add(key)
            yield letter


def original(letter: DeadLetter) -> CloudEvent:
    """The event as it was before it failed, to send to the Broker again."""
    kept = {name: value for name, value in letter.event.extensions.items() if name not in _ERROR_ATTRIBUTES}
    return msgspec.structs.replace(letter.event, extensions=kept)


def _answer(encoded: str | None) -> _Answer | None:
    if not encoded:
        return None
    try:
        return msgspec.json.decode(base64.b64decode(encoded, validate=True), type=_Answer)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None

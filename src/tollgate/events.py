"""A CloudEvent (1.0) as a value, and the four ways it travels: HTTP and Kafka, binary and structured.

In: headers and a body (from a producer, a function's reply, a Kafka record). Out: `CloudEvent`, or headers and a
body to send. Used by the embedded dispatcher and whoever else reads or writes events. Anything that is no valid
CloudEvent raises `tollgate.errors.Rejected` with the attribute's name; no message repeats a value.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import msgspec

from tollgate.errors import Reason, Rejected

KAFKA_EVENT: Final = "dev.knative.kafka.event"
"""What a KafkaSource calls a plain record."""
REQUESTED: Final = "dev.tollgate.transaction.requested"
DECIDED: Final = "dev.tollgate.transaction.decided"
RECORDED: Final = "dev.tollgate.transaction.recorded"
LABELLED: Final = "dev.tollgate.transaction.labelled"
DRIFTED: Final = "dev.tollgate.model.drifted"
REGISTERED: Final = "dev.tollgate.model.registered"
PROMOTED: Final = "dev.tollgate.rollout.promoted"
ROLLED_BACK: Final = "dev.tollgate.rollout.rolledback"
INFERENCE_REQUEST: Final = "org.kubeflow.serving.inference.request"
INFERENCE_RESPONSE: Final = "org.kubeflow.serving.inference.response"

SOURCE_DECIDE: Final = "/tollgate/decide"
SOURCE_RECORD: Final = "/tollgate/record"
SOURCE_LABEL: Final = "/tollgate/label"

STRUCTURED_JSON: Final = "application/cloudevents+json"
_KAFKA_ID = re.compile(r"partition:(\d+)/offset:(\d+)")
_BATCH: Final = "application/cloudevents-batch"
_NAME = re.compile(r"[a-z0-9]+")
_TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]"
    r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # surrogates cannot be sent as UTF-8
_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')  # what the HTTP binding leaves unescaped
_OPTIONAL = ("subject", "time", "datacontenttype", "dataschema")
_CORE = frozenset(("specversion", "id", "source", "type", *_OPTIONAL))


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `time` is RFC 3339 text, `extensions` map lower-case names to text, `data` is the raw payload."""

    id: str
    source: str
    type: str
    specversion: str = "1.0"
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, str] = {}
    data: bytes = b""

    @classmethod
    def of(cls, attributes: Mapping[str, str], data: bytes) -> CloudEvent:
        """Build and validate an event from its attributes (extensions included). Raises `Rejected`."""
        for name in ("specversion", "id", "source", "type"):
            if not attributes.get(name):
                raise Rejected(Reason.MISSING_FIELD, f"the CloudEvent has no attribute {name!r}")
        if attributes["specversion"] != "1.0":
            raise Rejected(Reason.INVALID_FIELD, "the CloudEvent's specversion is not 1.0, the only one understood")
        for name, value in attributes.items():
            if not _NAME.fullmatch(name) or name == "data":
                raise Rejected(
                    Reason.INVALID_FIELD,
                    "a CloudEvent attribute's name is not made of lower-case letters and digits",
                )
            if _CONTROL.search(value):
                raise Rejected(Reason.INVALID_FIELD, f"CloudEvent attribute {name!r} holds a control character")
        if (time := attributes.get("time")) and not _TIME.fullmatch(time):
            raise Rejected(Reason.INVALID_FIELD, "CloudEvent attribute 'time' is not RFC 3339 with a zone")
        return cls.trusted(attributes, data)

    @classmethod
    def trusted(cls, attributes: Mapping[str, str], data: bytes) -> CloudEvent:
        """Build an event from attributes that were validated before, such as the Broker's own records."""
        return cls(
            id=attributes["id"],
            source=attributes["source"],
            type=attributes["type"],
            subject=attributes.get("subject"),
            time=attributes.get("time"),
            datacontenttype=attributes.get("datacontenttype"),
            dataschema=attributes.get("dataschema"),
            extensions={k: v for k, v in attributes.items() if k not in _CORE},
            data=data,
        )

    def attributes(self) -> dict[str, str]:
        """Every attribute that has a value, extensions included, by its CloudEvents name."""
        found = {"specversion": self.specversion, "id": self.id, "source": self.source, "type": self.type}
        for name in _OPTIONAL:
            if (value := getattr(self, name)) is not None:
                found[name] = value
        found.update(self.extensions)
        return found

    def with_extensions(self, extensions: Mapping[str, str]) -> CloudEvent:
        """The same event with more (or other) extensions."""
        return msgspec.structs.replace(self, extensions={**self.extensions, **extensions})


def origin(event: CloudEvent) -> str:
    """Where an event entered Tollgate: topic/partition/offset for a Kafka record, else source#id."""
    if known := event.extensions.get("origin"):
        return known
    found = _KAFKA_ID.fullmatch(event.id)
    if event.type == KAFKA_EVENT and found:
        return f"{event.source.rpartition('#')[2]}/{found[1]}/{found[2]}"
    return f"{event.source}#{event.id}"


def from_http(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Decode an HTTP message in binary or structured mode; header names in any case. Raises `Rejected`."""
    lower = {name.lower(): value for name, value in headers.items()}
    content_type = lower.get("content-type", "")
    if content_type.lower().startswith(_BATCH):
        raise Rejected(Reason.INVALID_FIELD, "batches of CloudEvents are not accepted: send one event a request")
    if content_type.lower().startswith(STRUCTURED_JSON):
        return from_structured(body)
    attributes = {name[3:]: _unescape(name, value) for name, value in lower.items() if name.startswith("ce-")}
    if "datacontenttype" in attributes:
        raise Rejected(Reason.INVALID_FIELD, "send Content-Type instead of the header ce-datacontenttype")
    if content_type:
        attributes["datacontenttype"] = content_type
    return CloudEvent.of(attributes, body)


def is_event(headers: Mapping[str, str]) -> bool:
    """Whether an HTTP message (a function's answer) claims to be a CloudEvent; header names in lower case."""
    return "ce-specversion" in headers or headers.get("content-type", "").lower().startswith(STRUCTURED_JSON)


def to_http(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Encode in HTTP binary mode: headers with the attributes, the body is the data."""
    attributes = event.attributes()
    content_type = attributes.pop("datacontenttype", None)
    headers = {f"ce-{name}": quote(value, safe=_SAFE) for name, value in attributes.items()}
    if content_type is not None:
        headers["content-type"] = content_type
    return headers, event.data


def to_http_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Encode in HTTP structured mode: the whole event is one JSON document."""
    return {"content-type": f"{STRUCTURED_JSON}; charset=utf-8"}, to_structured(event)


KafkaHeaders = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]]
"""What a Kafka client gives: (name, value) pairs, or a mapping."""


def kafka_attributes(headers: KafkaHeaders) -> dict[str, str]:
    """The attributes in a Kafka record's binary-mode headers (`ce_*` and `content-type`), not validated.

    Raises `Rejected` when a value is not UTF-8.
    """
    found: dict[str, str] = {}
    try:
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            if value is None:
                continue
            if name.startswith("ce_"):
                found[name[3:]] = value if isinstance(value, str) else value.decode()
            elif name.lower() == "content-type":
                found["datacontenttype"] = value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        raise Rejected(Reason.INVALID_FIELD, "a CloudEvent header of the Kafka record is not UTF-8") from None
    return found


def from_kafka(headers: KafkaHeaders, value: bytes | None) -> CloudEvent | None:
    """Decode a Kafka record in binary or structured mode; None when it is a plain record.

    A record counts as structured when its content-type says so, or when it is a JSON object that has specversion,
    type, source and id. Raises `Rejected` for a record that claims to be a CloudEvent and is not a valid one.
    """
    attributes = kafka_attributes(headers)
    body = value or b""
    content_type = attributes.get("datacontenttype", "")
    if content_type.lower().startswith(STRUCTURED_JSON):
        return from_structured(body)
    if "specversion" in attributes:
        return CloudEvent.of(attributes, body)
    if b'"specversion"' in body:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        if isinstance(document, dict) and {"specversion", "type", "source", "id"} <= document.keys():
            return from_structured(body)
    return None


def to_kafka(event: CloudEvent) -> tuple[list[tuple[str, bytes | str | None]], bytes]:
    """Encode in Kafka binary mode: `ce_*` headers and content-type, the record's value is the data."""
    headers: list[tuple[str, bytes | str | None]] = [
        ("content-type" if name == "datacontenttype" else f"ce_{name}", value.encode())
        for name, value in event.attributes().items()
    ]
    return headers, event.data


def to_kafka_structured(event: CloudEvent) -> tuple[list[tuple[str, bytes | str | None]], bytes]:
    """Encode in Kafka structured mode: the record's value is one JSON document."""
    return [("content-type", STRUCTURED_JSON.encode())], to_structured(event)


def from_structured(body: bytes) -> CloudEvent:
    """Decode the JSON event format; JSON data stays as written (less the space around it). Raises `Rejected`."""
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(Reason.MALFORMED_JSON, "the structured CloudEvent is not a JSON object") from None
    raw = document.pop("data", None)
    encoded = document.pop("data_base64", None)
    attributes = {name: text for name, value in document.items() if (text := _text(value)) is not None}
    if raw is not None and encoded is not None:
        raise Rejected(Reason.INVALID_FIELD, "the structured CloudEvent has both 'data' and 'data_base64'")
    if encoded is not None:
        return CloudEvent.of(attributes, _bytes(encoded))
    if raw is None or bytes(raw) == b"null":
        return CloudEvent.of(attributes, b"")
    attributes.setdefault("datacontenttype", "application/json")
    value = _value(raw)
    if isinstance(value, str) and not _is_json(attributes["datacontenttype"]):
        return CloudEvent.of(attributes, value.encode())
    return CloudEvent.of(attributes, bytes(raw))


def to_structured(event: CloudEvent) -> bytes:
    """Encode the JSON event format: JSON data as it is, anything else (broken JSON too) as data_base64."""
    document: dict[str, Any] = dict(event.attributes())
    if event.data:
        document |= {"data": msgspec.Raw(event.data)} if _embeddable(event) else {"data_base64": event.data}
    return msgspec.json.encode(document)


def _embeddable(event: CloudEvent) -> bool:
    if not _is_json(event.datacontenttype or ""):
        return False
    try:
        return msgspec.json.decode(event.data) is not None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media in ("application/json", "text/json") or media.endswith("+json")


def _text(raw: msgspec.Raw) -> str | None:
    """An attribute's canonical text: JSON strings, integers and booleans are allowed, null means absent."""
    value = _value(raw)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise Rejected(Reason.INVALID_FIELD, "a CloudEvent attribute is neither text, a whole number nor a boolean")


def _value(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(Reason.MALFORMED_JSON, "the structured CloudEvent is not valid JSON") from None


def _bytes(raw: msgspec.Raw) -> bytes:
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise Rejected(Reason.INVALID_FIELD, "the CloudEvent's data_base64 is not base64 text") from None


def _unescape(name: str, value: str) -> str:
    """A header value of the HTTP binding: a quoted string is unquoted, then percent-encoding is undone."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if "%" not in value and value.isascii():
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        raise Rejected(Reason.INVALID_FIELD, f"header {name!r} is not percent-encoded UTF-8") from None

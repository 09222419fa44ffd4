"""Transactions and labels: what is accepted, and why the rest is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import Reason, Rejected
from tollgate.transaction import (
    MAX_AMOUNT_MINOR,
    MAX_BYTES,
    Transaction,
    is_card_number,
    parse_label,
    parse_transaction,
)

GOOD: dict[str, Any] = {
    "transaction_id": "t-1",
    "customer_id": "c:1",
    "terminal_id": "m.1_a",
    "amount_minor": 1250,
    "currency": "EUR",
    "occurred_at": "2026-05-01T12:00:00Z",
}
LABEL: dict[str, Any] = {
    "transaction_id": "t-1",
    "customer_id": "c:1",
    "terminal_id": "m.1_a",
    "occurred_at": "2026-05-01T12:00:00Z",
    "is_fraud": True,
    "source": "chargeback",
    "labelled_at": "2026-05-08T12:00:00Z",
}
VISA = "4111111111111111"  # the well-known test number

ids = st.text(st.sampled_from("abcXYZ019_-:."), min_size=1, max_size=64).filter(lambda text: not is_card_number(text))
short = st.none() | st.text(st.sampled_from("abzABZ_-"), min_size=1, max_size=32)
transactions = st.builds(
    Transaction,
    transaction_id=ids,
    customer_id=ids,
    terminal_id=ids,
    amount_minor=st.integers(1, MAX_AMOUNT_MINOR),
    currency=st.sampled_from(["EUR", "USD", "JPY"]),
    occurred_at=st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    channel=short,
    country=short,
)


def reason_of(body: bytes) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as rejected:
        parse_transaction(body)
    return rejected.value.reason, rejected.value.detail


def changed(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


@given(transactions)
def test_every_valid_transaction_survives_the_journey_through_json(transaction: Transaction) -> None:
    assert parse_transaction(msgspec.json.encode(transaction)) == transaction


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b"\xff\xfe", b'{"a": NaN}', b"[1]", b"null", b'"text"', b"1"])
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    assert reason_of(body)[0] is Reason.MALFORMED_JSON


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_field_is_named(name: str) -> None:
    body = json.dumps({k: v for k, v in GOOD.items() if k != name}).encode()
    assert reason_of(body) == (Reason.MISSING_FIELD, f"missing: {name}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transaction_id", ""),
        ("transaction_id", "x" * 65),
        ("transaction_id", "a b"),
        ("transaction_id", "a\nb"),
        ("transaction_id", 7),
        ("transaction_id", None),
        ("customer_id", "ünïcode"),
        ("terminal_id", "semi;colon"),
        ("amount_minor", 0),
        ("amount_minor", -5),
        ("amount_minor", MAX_AMOUNT_MINOR + 1),
        ("amount_minor", 12.5),
        ("amount_minor", "12"),
        ("amount_minor", True),
        ("amount_minor", 10**30),
        ("currency", "eur"),
        ("currency", "EURO"),
        ("currency", "EU\n"),
        ("occurred_at", "2026-05-01T12:00:00"),
        ("occurred_at", "yesterday"),
        ("occurred_at", "1969-12-31T23:59:59Z"),
        ("occurred_at", "9999-01-01T00:00:00Z"),
        ("occurred_at", 1_700_000_000),
        ("channel", ""),
        ("channel", "x" * 33),
        ("country", "D E"),
    ],
)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    reason, detail = reason_of(changed(**{name: value}))
    assert reason is Reason.INVALID_FIELD
    assert name in detail


def test_an_oversize_body_is_refused_before_it_is_read() -> None:
    assert reason_of(b"{" * (MAX_BYTES + 1))[0] is Reason.OVERSIZE
    filler = MAX_BYTES - len(changed(note=""))
    assert parse_transaction(changed(note="x" * filler)).transaction_id == "t-1"


@pytest.mark.parametrize("name", [*sorted(GOOD), "channel", "card", "pan"])
@pytest.mark.parametrize("value", [VISA, "4111 1111 1111 1111", "4111-1111-1111-1111", int(VISA)])
def test_a_card_number_is_refused_in_any_field_and_never_repeated(name: str, value: Any) -> None:
    reason, detail = reason_of(changed(**{name: value}))
    assert reason is Reason.CARD_NUMBER
    assert "4111" not in detail


@given(st.text(st.sampled_from("0123456789"), min_size=12, max_size=18))
def test_exactly_one_check_digit_makes_a_card_number(digits: str) -> None:
    assert sum(is_card_number(digits + str(check)) for check in range(10)) == 1


@pytest.mark.parametrize("text", ["411111111111", "41111111111111111111", "4111a11111111111", "", "4111111111111112"])
def test_too_short_too_long_or_without_its_check_digit_is_no_card_number(text: str) -> None:
    assert not is_card_number(text)


@given(transactions, transactions)
def test_digests_are_equal_exactly_when_bodies_are(one: Transaction, other: Transaction) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@given(transactions, st.sampled_from([f for f in Transaction.__struct_fields__ if f != "occurred_at"]))
def test_a_change_of_any_field_changes_the_digest(transaction: Transaction, name: str) -> None:
    value = getattr(transaction, name)
    other = msgspec.structs.replace(transaction, **{name: value + 1 if isinstance(value, int) else f"{value or ''}x"})
    assert other.digest() != transaction.digest()


@given(transactions, st.integers(-14, 14))
def test_the_same_moment_in_another_zone_is_the_same_body(transaction: Transaction, hours: int) -> None:
    elsewhere = transaction.occurred_at.astimezone(timezone(timedelta(hours=hours)))
    assert msgspec.structs.replace(transaction, occurred_at=elsewhere).digest() == transaction.digest()


def test_the_order_of_fields_and_unknown_ones_do_not_make_another_body() -> None:
    reordered = json.dumps({"note": "new", **dict(reversed(GOOD.items()))}).encode()
    assert parse_transaction(reordered).digest() == parse_transaction(changed()).digest()


def test_a_label_is_read() -> None:
    label = parse_label(json.dumps(LABEL).encode())
    assert (label.is_fraud, label.source, label.labelled_at) == (
        True,
        "chargeback",
        datetime(2026, 5, 8, 12, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_fraud": "yes"}, Reason.INVALID_FIELD),
        ({"is_fraud": 1}, Reason.INVALID_FIELD),
        ({"source": ""}, Reason.INVALID_FIELD),
        ({"labelled_at": "2026-05-08T12:00:00"}, Reason.INVALID_FIELD),
        ({"customer_id": VISA}, Reason.CARD_NUMBER),
    ],
)
def test_a_wrong_label_is_refused_with_its_reason(change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Rejected) as rejected:
        parse_label(json.dumps({**LABEL, **change}).encode())
    assert rejected.value.reason is reason
    assert next(iter(change)) in rejected.value.detail


@pytest.mark.parametrize("name", sorted(LABEL))
def test_a_missing_field_of_a_label_is_named(name: str) -> None:
    with pytest.raises(Rejected) as rejected:
        parse_label(json.dumps({k: v for k, v in LABEL.items() if k != name}).encode())
    assert (rejected.value.reason, rejected.value.detail) == (Reason.MISSING_FIELD, f"missing: {name}")

"""A card transaction and a fraud label, read from bytes and refused when they are not right.

In: a Kafka record's value or a CloudEvent's data (JSON). Out: `Transaction`, `Label`, and the digest by which
the ledger tells "the same again" from "another body under the same id". Next: `tollgate.features`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from tollgate.errors import Reason, Rejected

MAX_BYTES = 65_536
"""Largest accepted transaction or label, in bytes."""

_ID = re.compile(r"[A-Za-z0-9_\-:.]{1,64}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_SHORT = re.compile(r"[A-Za-z0-9_\-]{1,32}")
_DIGITS = re.compile(r"(?:\d[ \-]?){13,19}")
MAX_AMOUNT_MINOR = 10**8
"""Largest accepted amount (1,000,000.00): its square, added up over a window, still fits 64 bits."""
_REQUIRED = ("transaction_id", "customer_id", "terminal_id", "amount_minor", "currency", "occurred_at")

T = TypeVar("T", bound="Transaction | Label")


class Transaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One card transaction. `amount_minor` is in minor currency units (cents) and above 0."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    amount_minor: int
    currency: str
    occurred_at: datetime
    channel: str | None = None
    country: str | None = None

    @property
    def occurred_s(self) -> int:
        """Whole seconds since the epoch: the clock that tiles and windows use."""
        return int(self.occurred_at.timestamp() // 1)

    def digest(self) -> bytes:
        """SHA-256 of the canonical body (UTC, fixed field order): equal bodies have equal digests."""
        moment = self.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")
        fields = (
            self.transaction_id,
            self.customer_id,
            self.terminal_id,
            str(self.amount_minor),
            self.currency,
            moment,
            self.channel or "",
            self.country or "",
        )
        return hashlib.sha256("\x1f".join(fields).encode()).digest()


class Label(msgspec.Struct, frozen=True):
    """What a transaction turned out to be, who says so, and since when that is known."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    occurred_at: datetime
    is_fraud: bool
    source: str
    labelled_at: datetime


_NEEDED: dict[type, tuple[str, ...]] = {
    kind: tuple(f.name for f in msgspec.structs.fields(kind) if f.required) for kind in (Transaction, Label)
}
"""The fields that must be there; looked up once, because that evaluates every annotation (0.2 ms)."""


def parse_transaction(body: bytes) -> Transaction:
    """Read one transaction from JSON. Raises `Rejected` with the field and what was expected of it."""
    transaction = _decode(body, Transaction)
    for name in ("transaction_id", "customer_id", "terminal_id"):
        check_id(name, getattr(transaction, name))
    if not 0 < transaction.amount_minor <= MAX_AMOUNT_MINOR:
        raise Rejected(
            Reason.INVALID_FIELD,
            f"amount_minor: {transaction.amount_minor} is not an integer from 1 to {MAX_AMOUNT_MINOR} (minor units)",
        )
    if not _CURRENCY.fullmatch(transaction.currency):
        raise Rejected(Reason.INVALID_FIELD, "currency: expected three capital letters (ISO 4217), like EUR")
    for name in ("channel", "country"):
        value = getattr(transaction, name)
        if value is not None and not _SHORT.fullmatch(value):
            raise Rejected(Reason.INVALID_FIELD, f"{name}: expected 1 to 32 of A-Z a-z 0-9 _ -")
    check_moment("occurred_at", transaction.occurred_at)
    return transaction


def parse_label(body: bytes) -> Label:
    """Read one label from JSON. Raises `Rejected` with the field and what was expected of it."""
    label = _decode(body, Label)
    for name in ("transaction_id", "customer_id", "terminal_id", "source"):
        check_id(name, getattr(label, name))
    check_moment("occurred_at", label.occurred_at)
    check_moment("labelled_at", label.labelled_at)
    return label


def is_card_number(text: str) -> bool:
    """True when `text` is 13 to 19 digits (spaces and dashes allowed between) with a valid Luhn check digit."""
    if not _DIGITS.fullmatch(text):
        return False
    digits = [int(c) for c in text if c.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return total % 10 == 0


def _decode(body: bytes, kind: type[T]) -> T:
    if len(body) > MAX_BYTES:
        raise Rejected(Reason.OVERSIZE, f"{len(body)} bytes; at most {MAX_BYTES} are accepted")
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(Reason.MALFORMED_JSON, f"not JSON: {error}") from None
    except RecursionError:
        raise Rejected(Reason.MALFORMED_JSON, "nested too deeply; a flat JSON object is expected") from None
    if not isinstance(raw, dict):
        raise Rejected(Reason.MALFORMED_JSON, f"expected a JSON object, got {type(raw).__name__}")
    _refuse_card_numbers(raw)
    missing = [name for name in _NEEDED[kind] if name not in raw]
    if missing:
        raise Rejected(Reason.MISSING_FIELD, f"missing: {', '.join(missing)}")
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Rejected(Reason.INVALID_FIELD, str(error)) from None


def _refuse_card_numbers(raw: dict[str, Any]) -> None:
    """PCI DSS: a card number must not enter. Names the field, never the value."""
    for name, value in raw.items():
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
        if text is not None and is_card_number(text):
            shown = name if name in _REQUIRED else "an unexpected field"
            raise Rejected(Reason.CARD_NUMBER, f"{shown} holds what reads as a card number; send a token instead")


def check_id(name: str, value: str) -> None:
    """Raise `Rejected`, naming the field, unless `value` is an id as transactions, customers and terminals have."""
    if not _ID.fullmatch(value):
        raise Rejected(Reason.INVALID_FIELD, f"{name}: expected 1 to 64 of A-Z a-z 0-9 _ - : .")


def check_moment(name: str, value: datetime) -> None:
    """Raise `Rejected`, naming the field, unless `value` has a zone and lies where epoch seconds fit the tiles."""
    if value.tzinfo is None:
        raise Rejected(Reason.INVALID_FIELD, f"{name}: expected RFC 3339 with a zone, like 2026-05-01T12:00:00Z")
    if not 0 <= value.timestamp() < 2**33:
        raise Rejected(Reason.INVALID_FIELD, f"{name}: outside 1970 to 2242")

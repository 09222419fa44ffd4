"""Somebody's own transactions instead of simulated ones: a CSV or Parquet file as a source for the stream.

In: a file and a `ColumnMapping`. Out: `Entry` after `Entry`, with labels where the file has a fraud column.
Next: `tollgate.simulator.stream`, which treats them like simulated ones.

A file is one long day: `Position(0, n)` is its row n (from 0). Times without a zone are UTC. Rows are streamed in the
file's order. A row whose amount rounds to zero is skipped and counted (the Handbook's files have some; a transaction
has an amount above zero). Everything else that is wrong stops the replay at that row, before it is published.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from tollgate.errors import ConfigurationError, Reason, Rejected
from tollgate.simulator.mapping import ColumnMapping, resolve
from tollgate.simulator.money import to_minor
from tollgate.simulator.options import Position
from tollgate.simulator.records import LABEL_SOURCE, Entry, LabelRecord
from tollgate.simulator.table_file import Row, column_names, rows
from tollgate.transaction import (
    MAX_AMOUNT_MINOR,
    Label,
    Transaction,
    is_card_number,
    parse_label,
    parse_transaction,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG_NUMBER = re.compile(r"\d(?:[ -]?\d){12,18}")
_TRUTHS = {"1": True, "true": True, "t": True, "yes": True, "0": False, "false": False, "f": False, "no": False}


class Replay:
    """A file as a `Source`."""

    def __init__(
        self,
        path: Path,
        mapping: ColumnMapping | None = None,
        *,
        currency: str = "EUR",
        label_delay: timedelta = timedelta(days=7),
    ) -> None:
        """Columns that `mapping` leaves out are found by their standard names.

        `currency` is for files without such a column; `label_delay` for files that have a fraud column but not
        when it was known. Raises `ConfigurationError` when the file or its columns do not fit.
        """
        if label_delay <= timedelta(0):
            raise ConfigurationError(f"label delay {label_delay}: give more than 0")
        self.path = path
        self.mapping = resolve(str(path), column_names(path), mapping or ColumnMapping())
        self.zero_amounts = 0
        """How many rows have been skipped so far because their amount was zero."""
        self._currency = currency
        self._delay = label_delay
        self._columns = self.mapping.columns()

    def entries(self, start: Position) -> Iterator[Entry]:
        """The file's transactions from row `start.index` on. Raises `ConfigurationError` at a row that is wrong."""
        for number, row in enumerate(rows(self.path, self._columns, start.index), start.index):
            entry = self._entry(number, row)
            if entry is None:
                self.zero_amounts += 1
            else:
                yield entry

    def pending_labels(self, start: Position) -> Iterator[LabelRecord]:
        """Labels of rows before `start` that the stream has not come to (found by reading those rows again)."""
        waiting: list[LabelRecord] = []
        if self.mapping.is_fraud and start.index:
            for number, row in enumerate(rows(self.path, self._columns)):
                if number == start.index:
                    break
                entry = self._entry(number, row)
                if entry is None:
                    continue
                while waiting and waiting[0].due_us <= entry.occurred_us:
                    heapq.heappop(waiting)
                if entry.label:
                    heapq.heappush(waiting, entry.label)
        yield from waiting

    def _entry(self, number: int, row: Row) -> Entry | None:
        cells = _Cells(self.path, number + 1, self.mapping, dict(zip(self._columns, row, strict=True)))
        currency = cells.text("currency") or self._currency
        amount_minor = cells.whole("amount_minor") if self.mapping.amount_minor else cells.amount(currency)
        if amount_minor == 0:
            return None
        transaction = Transaction(
            transaction_id=cells.identity("transaction_id"),
            customer_id=cells.identity("customer_id"),
            terminal_id=cells.identity("terminal_id"),
            amount_minor=amount_minor,
            currency=currency,
            occurred_at=cells.moment("occurred_at"),
            channel=cells.text("channel"),
            country=cells.text("country"),
        )
        body = msgspec.json.encode(transaction)
        try:
            parse_transaction(body)
        except Rejected as error:
            raise cells.refuse(error) from None
        return Entry(
            next=Position(0, number + 1),
            occurred_us=_us(transaction.occurred_at),
            key=transaction.customer_id,
            body=body,
            label=self._label(transaction, cells),
        )

    def _label(self, transaction: Transaction, cells: _Cells) -> LabelRecord | None:
        is_fraud = cells.truth("is_fraud")
        if is_fraud is None:
            return None
        known = cells.moment("labelled_at") if cells.given("labelled_at") else transaction.occurred_at + self._delay
        if known <= transaction.occurred_at:
            raise cells.wrong("labelled_at", "a time after the transaction's")
        label = Label(
            transaction_id=transaction.transaction_id,
            customer_id=transaction.customer_id,
            terminal_id=transaction.terminal_id,
            occurred_at=transaction.occurred_at,
            is_fraud=is_fraud,
            source=LABEL_SOURCE,
            labelled_at=known,
        )
        body = msgspec.json.encode(label)
        try:
            parse_label(body)
        except Rejected as error:
            raise cells.refuse(error) from None
        return LabelRecord(_us(known), transaction.transaction_id, body)


class _Cells:
    """One row's cells by field, read as what the field needs or refused with file, row, column and value."""

    def __init__(self, path: Path, row: int, mapping: ColumnMapping, values: dict[str, Any]) -> None:
        self._path, self._row, self._mapping, self._values = path, row, mapping, values

    def given(self, field: str) -> bool:
        return self._value(field) is not None

    def text(self, field: str) -> str | None:
        value = self._value(field)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(field, "text")

    def identity(self, field: str) -> str:
        value = self._value(field)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
        raise self.wrong(field, "an id (text or a whole number)")

    def whole(self, field: str) -> int:
        value = self._value(field)
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_AMOUNT_MINOR:
            return value
        raise self.wrong(field, f"a whole number of minor units from 0 to {MAX_AMOUNT_MINOR}")

    def amount(self, currency: str) -> int:
        try:
            minor = to_minor(self._value("amount"), currency)
        except ValueError:
            minor = -1
        if not 0 <= minor <= MAX_AMOUNT_MINOR:
            raise self.wrong("amount", f"a decimal number like 12.50, from 0 to {MAX_AMOUNT_MINOR} minor units")
        return minor

    def moment(self, field: str) -> datetime:
        value = self._value(field)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                value = None
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        raise self.wrong(field, "a date and time like 2018-04-01 00:00:31 or 2018-04-01T00:00:31Z")

    def truth(self, field: str) -> bool | None:
        value = self._value(field)
        if value is None or isinstance(value, bool):
            return value
        found = _TRUTHS.get(str(value).lower())
        if found is None:
            raise self.wrong(field, "0 or 1, false or true, or nothing where it is not known")
        return found

    def refuse(self, error: Rejected) -> ConfigurationError:
        """Where in the file the contract was broken. The detail begins with the field's name."""
        field = re.split(r"\W", error.detail, maxsplit=1)[0]
        if error.reason is Reason.CARD_NUMBER or not getattr(self._mapping, field, None):
            return ConfigurationError(f"{self._path} row {self._row}: {error.detail}")
        return self.wrong(field, error.detail.partition(": ")[2])

    def wrong(self, field: str, expected: str) -> ConfigurationError:
        """What a person needs to find the cell; never show what reads as a card number."""
        text = str(self._value(field))
        hidden = any(is_card_number(run) for run in _LONG_NUMBER.findall(text))
        shown = "a card number (not shown)" if hidden else "empty" if self._value(field) is None else repr(text[:60])
        column = getattr(self._mapping, field)
        expected = expected.removeprefix("expected ")
        return ConfigurationError(f"{self._path} row {self._row}, column {column!r}: {shown}; expected {expected}")

    def _value(self, field: str) -> Any:
        column = getattr(self._mapping, field)
        return self._values[column] if column else None


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)

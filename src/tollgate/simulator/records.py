"""Transactions and labels as they go on the wire, and what a source of them offers the stream.

In: days of a `World` (or rows of a file, see `tollgate.simulator.replay`). Out: `Entry` after `Entry`, JSON bytes
that `tollgate.transaction` reads back. Next: `tollgate.simulator.stream` publishes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from tollgate.simulator.columns import Day, Ints, customer_id, terminal_id, transaction_id
from tollgate.simulator.options import DAY_US, Position
from tollgate.simulator.world import World

LABEL_SOURCE = "chargeback"


class LabelRecord(NamedTuple):
    """A label and when it is due: `due_us` is event time in microseconds since the epoch."""

    due_us: int
    key: str
    body: bytes


class Entry(NamedTuple):
    """One transaction ready to publish. `next` is the position after it; `label` what will be said about it."""

    next: Position
    occurred_us: int
    key: str
    body: bytes
    label: LabelRecord | None


class Source(Protocol):
    """Where a stream's transactions come from."""

    def entries(self, start: Position) -> Iterator[Entry]:
        """The transactions from `start` on."""
        ...

    def pending_labels(self, start: Position) -> Iterator[LabelRecord]:
        """Labels of transactions before `start` that are not due yet when the stream is at `start`."""
        ...


@dataclass(frozen=True)
class WorldSource:
    """A world as an endless source: day after day."""

    world: World

    def entries(self, start: Position) -> Iterator[Entry]:
        """The transactions from `start` on, without end. A start beyond a day's last one means the next day."""
        number, first = start.day, start.index
        while True:
            yield from encode_day(self.world.day(number), first)
            number, first = number + 1, 0

    def pending_labels(self, start: Position) -> Iterator[LabelRecord]:
        """Labels of history (and of what was streamed) with `labelled_at` after the event time at `start`."""
        settings = self.world.settings
        clock_us = self.world.clock_us(start)
        oldest = (clock_us - settings.label_delay_us - settings.day_start_us(0)) // DAY_US
        for number in range(max(0, oldest), start.day + 1):
            day = self.world.day(number)
            first = int(np.searchsorted(day.labelled_us, clock_us, side="right"))
            last = min(start.index, len(day)) if number == start.day else len(day)
            for entry in encode_day(day, first, last):
                if entry.label:
                    yield entry.label


def encode_day(day: Day, first: int = 0, last: int | None = None) -> Iterator[Entry]:
    """Transactions `first` to `last` (exclusive) of a day, with their labels, as `Entry`.

    The ids need no escaping and numbers print as themselves, so the JSON is put together here, ten times as fast
    as through an encoder.
    """
    part = slice(first, last)
    columns = zip(
        day.customer[part].tolist(),
        day.terminal[part].tolist(),
        day.amount_minor[part].tolist(),
        day.occurred_us[part].tolist(),
        moments(day.occurred_us[part]),
        day.is_fraud[part].tolist(),
        day.labelled_us[part].tolist(),
        moments(day.labelled_us[part]),
        strict=True,
    )
    for index, (customer, terminal, amount, at_us, at, fraud, due_us, due) in enumerate(columns, first):
        key, who, where = transaction_id(day.number, index), customer_id(customer), terminal_id(terminal)
        common = f'{{"transaction_id":"{key}","customer_id":"{who}","terminal_id":"{where}"'
        body = f'{common},"amount_minor":{amount},"currency":"{day.currency}","occurred_at":"{at}"}}'
        label = (
            f'{common},"occurred_at":"{at}","is_fraud":{"true" if fraud else "false"},'
            f'"source":"{LABEL_SOURCE}","labelled_at":"{due}"}}'
        )
        yield Entry(
            Position(day.number, index + 1), at_us, who, body.encode(), LabelRecord(due_us, key, label.encode())
        )


def moments(times_us: Ints) -> list[str]:
    """RFC 3339 in UTC with microseconds for each of [n] microseconds since the epoch."""
    texts: list[str] = np.datetime_as_string(times_us.astype("datetime64[us]"), timezone="UTC").tolist()
    return texts

"""One simulated day as columns, and the same as an Arrow table with ids.

In: the integers and booleans `tollgate.simulator.world` draws. Out: `Day`, and `pyarrow.Table` in `SCHEMA`.
Next: `tollgate.simulator.history` writes tables, `tollgate.simulator.records` makes JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("customer_id", pa.string(), nullable=False),
        pa.field("terminal_id", pa.string(), nullable=False),
        pa.field("amount_minor", pa.int64(), nullable=False),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("occurred_at", _MOMENT, nullable=False),
        pa.field("is_fraud", pa.bool_(), nullable=False),
        pa.field("fraud_scenario", pa.int8(), nullable=False),
        pa.field("labelled_at", _MOMENT, nullable=False),
    ]
)
"""The history's columns. `fraud_scenario` is 0 (none), 1 (amount), 2 (terminal) or 3 (customer)."""


@dataclass(frozen=True)
class Day:
    """The transactions of one day in order of time; every array has one entry per transaction.

    `customer` and `terminal` are numbers from 0; `occurred_us` and `labelled_us` microseconds since the epoch.
    """

    number: int
    currency: str
    customer: Ints
    terminal: Ints
    amount_minor: Ints
    occurred_us: Ints
    scenario: NDArray[np.int8]
    labelled_us: Ints

    def __len__(self) -> int:
        return len(self.customer)

    @property
    def is_fraud(self) -> Bools:
        """True where any scenario applies."""
        return self.scenario > 0

    def table(self) -> pa.Table:
        """The day in `SCHEMA`."""
        n = len(self)
        ids = pc.binary_join_element_wise(f"t-{self.number:06d}", _numbers("", 6, _roomy(n)).slice(0, n), "-")
        columns = [
            ids,
            _names("c-", self.customer),
            _names("m-", self.terminal),
            pa.array(self.amount_minor),
            pa.repeat(pa.scalar(self.currency), n),
            pa.array(self.occurred_us).cast(_MOMENT),
            pa.array(self.is_fraud),
            pa.array(self.scenario),
            pa.array(self.labelled_us).cast(_MOMENT),
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def transaction_id(day: int, index: int) -> str:
    """The id of transaction `index` of day `day`: never all digits, so never mistaken for a card number."""
    return f"t-{day:06d}-{index:06d}"


def customer_id(number: int) -> str:
    """The id of customer `number`."""
    return f"c-{number:05d}"


def terminal_id(number: int) -> str:
    """The id of terminal (merchant's machine) `number`."""
    return f"m-{number:05d}"


def _names(prefix: str, numbers: Ints) -> Any:
    most = int(numbers.max()) + 1 if len(numbers) else 0
    return _numbers(prefix, 5, _roomy(most)).take(pa.array(numbers))


def _roomy(n: int) -> int:
    """The next power of two: few distinct sizes, so that `_numbers` is built a few times and kept."""
    return 1 << max(n - 1, 1).bit_length()


@lru_cache(maxsize=16)
def _numbers(prefix: str, width: int, n: int) -> Any:
    return pa.array([f"{prefix}{i:0{width}d}" for i in range(n)], pa.string())

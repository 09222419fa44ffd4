"""The history as columns: what the training set is made from.

In: a folder (or one file) of Parquet or CSV with the columns that `tollgate simulate` writes. Out: `History`, numpy
columns in order of time, and a digest that says which data a model has seen. Next: `tollgate_training.dataset`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from tollgate.errors import ConfigurationError
from tollgate.tiles import DAY

US = 1_000_000
NEVER = np.iinfo(np.int64).max
"""The `labelled_us` of a transaction whose truth is not known yet."""

_TIME = pa.timestamp("us", "UTC")
_COLUMNS = {
    "customer_id": pa.string(),
    "terminal_id": pa.string(),
    "amount_minor": pa.int64(),
    "occurred_at": _TIME,
    "is_fraud": pa.bool_(),
    "labelled_at": _TIME,
}
_OPTIONAL = ("labelled_at",)
"""Columns in which a value may be missing: a transaction without a label yet."""


@dataclass(frozen=True, slots=True)
class History:
    """n transactions in order of time; every array is [n].

    `customer` and `terminal` number the entities from 0 in order of their ids; times are microseconds since the
    epoch, amounts minor units. `is_fraud` is the truth, known from `labelled_us` on.
    """

    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    occurred_us: NDArray[np.int64]
    is_fraud: NDArray[np.bool_]
    labelled_us: NDArray[np.int64]
    digest: str
    """SHA-256 over the columns and the ids: equal data, equal digest."""

    def __len__(self) -> int:
        return len(self.occurred_us)

    @property
    def occurred_s(self) -> NDArray[np.int64]:
        """Epoch seconds, rounded down: the transaction's second."""
        return self.occurred_us // US

    @property
    def labelled_s(self) -> NDArray[np.int64]:
        """Epoch seconds, rounded up: the first second at whose start the label is known."""
        return -(-self.labelled_us // US)

    @property
    def day(self) -> NDArray[np.int64]:
        """Days since the epoch (UTC)."""
        return self.occurred_s // DAY


def read(source: Path) -> History:
    """Read every `*.parquet` (else every `*.csv`) of a folder, or one such file.

    Raises `ConfigurationError` naming the file and the column when something is missing or cannot be read.
    """
    table = pa.concat_tables([_read_file(path) for path in _files(source)])
    if table.num_rows == 0:
        raise ConfigurationError(f"{source}: no transactions in it")
    for name in _COLUMNS:
        if (missing := table[name].null_count) and name not in _OPTIONAL:
            raise ConfigurationError(f"{source}: column {name} has {missing} empty values")
    if int(pc.min(table["amount_minor"]).as_py()) <= 0:
        raise ConfigurationError(f"{source}: column amount_minor has values below 1; amounts are positive minor units")
    return _history(table)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    for pattern in ("*.parquet", "*.csv"):
        if files := sorted(source.glob(pattern)):
            return files
    raise ConfigurationError(f"{source}: no *.parquet and no *.csv there; make a history with `tollgate simulate`")


def _read_file(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            convert = pa.csv.ConvertOptions(column_types=_COLUMNS, include_columns=list(_COLUMNS))
            table = pa.csv.read_csv(path, convert_options=convert)
        else:
            names = pa.parquet.read_schema(path).names
            if absent := [name for name in _COLUMNS if name not in names]:
                raise ConfigurationError(f"{path}: no column {absent[0]}; it has {', '.join(names)}")
            table = pa.parquet.read_table(path, columns=list(_COLUMNS))
        return table.select(list(_COLUMNS)).cast(pa.schema(list(_COLUMNS.items())))
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigurationError(f"{path}: cannot be read as a history: {error}") from None


def _history(table: pa.Table) -> History:
    occurred = _micros(table["occurred_at"])
    order = np.argsort(occurred, kind="stable")
    customer, customers = _codes(table["customer_id"])
    terminal, terminals = _codes(table["terminal_id"])
    columns = (
        customer[order],
        terminal[order],
        table["amount_minor"].to_numpy().astype(np.int64)[order],
        occurred[order],
        table["is_fraud"].to_numpy().astype(np.bool_)[order],
        _micros(table["labelled_at"])[order],
    )
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    for ids in (customers, terminals):
        digest.update("\n".join(ids).encode())
    return History(*columns, digest=digest.hexdigest())


def _micros(column: pa.ChunkedArray) -> NDArray[np.int64]:
    filled = pc.fill_null(column.cast(pa.int64()), int(NEVER))
    return np.asarray(filled.to_numpy(), dtype=np.int64)


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """Entities numbered in order of their ids, and the ids: the numbers do not depend on who comes first."""
    encoded = column.combine_chunks().dictionary_encode()
    ids = np.asarray(encoded.dictionary.to_pylist(), dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return rank[encoded.indices.to_numpy()], [str(i) for i in ids[order]]

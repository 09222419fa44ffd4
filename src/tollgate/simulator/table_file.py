"""Rows of a CSV or Parquet file, a batch at a time, never the whole file in memory.

In: a path and the columns wanted. Out: rows as tuples in the order of those columns; CSV cells are text as they
stand in the file (so that an amount is read as the decimal it is), Parquet cells are Python values; an empty cell
is None. Next: `tollgate.simulator.replay`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tollgate.errors import ConfigurationError

BATCH_ROWS = 8_192
BLOCK_BYTES = 4 << 20
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")

Row = tuple[Any, ...]


def column_names(path: Path) -> list[str]:
    """The file's columns. Raises `ConfigurationError` when it cannot be read as what its name says."""
    if _is_parquet(path):
        with _parquet(path) as file:
            names = list(file.schema_arrow.names)
    else:
        with _csv(path, pyarrow.csv.ConvertOptions()) as reader:
            names = list(reader.schema.names)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigurationError(f"{path}: more than one column is called {', '.join(map(repr, twice))}")
    return names


def rows(path: Path, columns: Sequence[str], start: int = 0) -> Iterator[Row]:
    """The rows from number `start` (0 is the first after the header) on, as tuples of `columns`."""
    skip = start
    for batch in _batches(path, list(columns)):
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        lists = [_values(batch.column(c)) for c in columns]
        yield from zip(*(values[skip:] for values in lists), strict=True)
        skip = 0


def _values(column: Any) -> list[Any]:
    """Python values; times in microseconds, because Python knows no finer ones."""
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
    return column.to_pylist()  # type: ignore[no-any-return]


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".pq"):
        raise ConfigurationError(f"{path}: expected a .csv or .parquet file")
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    return suffix != ".csv"


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    if _is_parquet(path):
        with _parquet(path) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)
        return
    convert = pyarrow.csv.ConvertOptions(
        column_types={c: pa.string() for c in columns},
        include_columns=columns,
        strings_can_be_null=True,
        null_values=[""],
    )
    with _csv(path, convert) as reader:
        try:
            yield from reader
        except pa.ArrowInvalid as error:
            raise _unreadable(path, error) from None


def _parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _csv(path: Path, convert: Any) -> Any:
    try:
        return pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            convert_options=convert,
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    """What is wrong with the file, without the row's text (which may hold anything)."""
    ragged = _RAGGED.search(str(error))
    if ragged:
        line, expected, got = ragged.groups()
        return ConfigurationError(
            f"{path} row {int(line) - 1}: {got} cells where the header has {expected}; is a cell with a comma "
            "missing its quotes?"
        )
    return ConfigurationError(f"{path}: cannot be read: {str(error).splitlines()[0]}")

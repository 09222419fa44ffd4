"""The past: days 0 to D-1 of a world as Parquet files that appear all at once or not at all.

In: a `World`. Out: a folder with `part-*.parquet` (columns: `tollgate.simulator.columns.SCHEMA`, one row group per
day, in order of time) and `_history.json`, which says which world this is and where it ends (Spark and pyarrow
skip names that begin with an underscore). Next: the backfill of tiles and the training set read the files;
`tollgate.simulator.run` goes on from `History.end`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from tollgate.errors import ConfigurationError
from tollgate.simulator.columns import SCHEMA
from tollgate.simulator.options import US, Position, WorldSettings
from tollgate.simulator.world import World

DAYS_PER_FILE = 31
_MANIFEST = "_history.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class History:
    """What `_history.json` holds.

    `labelled_until` is the history's event time: labels with `labelled_at` up to it belong to the past; the stream
    publishes exactly the later ones.
    """

    settings: WorldSettings
    days: int
    transactions: int
    frauds: int
    frauds_by_scenario: tuple[int, int, int]
    labelled_until: datetime

    @property
    def end(self) -> Position:
        """Where live begins."""
        return Position(self.days, 0)


def write_history(world: World, days: int, folder: Path, progress: Progress | None = None) -> History:
    """Write the first `days` days into `folder`; `progress(done_days, days)` after each day.

    The files are made in a folder beside it and renamed into place when complete. Raises `ConfigurationError`
    when `folder` already holds something or `days` is below 1, `OSError` when the disk is full.
    """
    if days < 1:
        raise ConfigurationError(f"a history of {days} days: give 1 or more")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: remove it first, or give another folder")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        history = _write(world, days, partial, progress)
        folder.mkdir(exist_ok=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return history


def read_history(folder: Path) -> History | None:
    """What history `folder` holds; None when it holds none. Raises `ConfigurationError` when it is unreadable."""
    try:
        return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=History)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{folder / _MANIFEST}: {error}; remove {folder} and simulate again") from None


def _write(world: World, days: int, folder: Path, progress: Progress | None) -> History:
    scenarios = [0, 0, 0, 0]
    clock_us = world.settings.day_start_us(0)
    for first in range(0, days, DAYS_PER_FILE):
        last = min(first + DAYS_PER_FILE, days)
        with pq.ParquetWriter(folder / f"part-{first:06d}.parquet", SCHEMA, compression="zstd") as writer:
            for number in range(first, last):
                day = world.day(number)
                writer.write_table(day.table())
                for scenario in range(4):
                    scenarios[scenario] += int((day.scenario == scenario).sum())
                if len(day):
                    clock_us = int(day.occurred_us[-1])
                if progress:
                    progress(number + 1, days)
    seconds, micros = divmod(clock_us, US)
    history = History(
        settings=world.settings,
        days=days,
        transactions=sum(scenarios),
        frauds=sum(scenarios[1:]),
        frauds_by_scenario=(scenarios[1], scenarios[2], scenarios[3]),
        labelled_until=datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros),
    )
    (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(history)))
    return history

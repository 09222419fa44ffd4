"""A history is all there or not there at all, and says where live begins."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tollgate.errors import ConfigurationError
from tollgate.simulator.history import read_history, write_history
from tollgate.simulator.options import Position
from tollgate.simulator.world import World
from unit.simulator_listener import SMALL

DAYS = 40


def test_the_files_hold_exactly_the_worlds_days_in_order(tmp_path: Path) -> None:
    world = World(SMALL)
    history = write_history(world, DAYS, tmp_path / "history")
    files = sorted((tmp_path / "history").glob("*.parquet"))
    read = pa.concat_tables([pq.read_table(f) for f in files])
    assert len(files) == 2
    assert read.equals(pa.concat_tables([world.day(d).table() for d in range(DAYS)]))
    assert history.transactions == read.num_rows
    assert history.frauds == sum(read["is_fraud"].to_pylist()) == sum(history.frauds_by_scenario)
    assert history.labelled_until == read["occurred_at"][-1].as_py()
    assert history.end == Position(DAYS, 0)
    assert ds.dataset(tmp_path / "history").count_rows() == read.num_rows


def test_the_same_world_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_history(World(SMALL), 3, tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_history(tmp_path) is None
    assert read_history(tmp_path / "nowhere") is None
    written = write_history(World(SMALL), 2, tmp_path / "h")
    assert read_history(tmp_path / "h") == written


def test_progress_is_told_after_every_day(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_history(World(SMALL), 5, tmp_path / "h", lambda done, total: told.append((done, total)))
    assert told == [(n, 5) for n in range(1, 6)]


def test_a_history_that_was_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_history(World(SMALL), 5, tmp_path / "h", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".h.partial"
    left.mkdir()
    (left / "part-000000.parquet").write_bytes(b"half a file")
    write_history(World(SMALL), 1, tmp_path / "h")
    assert [p.name for p in tmp_path.iterdir()] == ["h"]


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "h"
    folder.mkdir()
    write_history(World(SMALL), 1, folder)
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_history(World(SMALL), 2, folder)
    history = read_history(folder)
    assert history is not None
    assert history.days == 1


def test_a_history_of_no_days_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="0 days"):
        write_history(World(SMALL), 0, tmp_path / "h")


def test_a_damaged_description_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "_history.json").write_text("{")
    with pytest.raises(ConfigurationError, match="simulate again"):
        read_history(tmp_path)

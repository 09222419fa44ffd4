"""The training matrix says what was known at each transaction's moment, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError
from tollgate.feature_matrix import WindowSums, assemble
from tollgate.features import FEATURES, windows
from tollgate.tiles import DAY, HOUR, MINUTE, EntityKind
from tollgate_training import dataset
from tollgate_training.dataset import Dataset
from tollgate_training.history import NEVER, US, History, read

START = 1_700_000_000

GAPS = st.sampled_from([0, 1, 30, MINUTE, MINUTE - 1, HOUR, HOUR + 1, DAY, 3 * DAY, 7 * DAY, 7 * DAY + 1, 20 * DAY])
DELAYS = st.one_of(st.sampled_from([0, 1, 7 * DAY - 1, 7 * DAY, 7 * DAY + 1, 40 * DAY]), st.none())
EVENTS = st.lists(
    st.tuples(
        GAPS,
        st.integers(0, 2),  # customer
        st.integers(0, 1),  # terminal
        st.integers(1, 10**9),  # amount
        st.booleans(),  # fraud
        DELAYS,  # of the label
        st.integers(0, US - 1),  # microseconds of the transaction's second
    ),
    min_size=1,
    max_size=25,
)


def history(events: list[tuple[int, int, int, int, bool, int | None, int]]) -> History:
    second, rows = START, []
    for gap, customer, terminal, amount, fraud, delay, micros in events:
        second += gap
        occurred = second * US + micros
        rows.append((customer, terminal, amount, occurred, fraud, NEVER if delay is None else occurred + delay * US))
    rows.sort(key=lambda row: row[3])
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return History(*columns, digest="")


def naive_sums(h: History) -> dict[object, WindowSums]:
    """Every window of every transaction by looking at every event: the definition, in plain Python."""
    result: dict[object, WindowSums] = {}
    for window in windows():
        entity = h.customer if window.entity == EntityKind.CUSTOMER else h.terminal
        rows = []
        for i in range(len(h)):
            t = int(h.occurred_us[i]) // US
            start, end = window.bounds(t)
            seen = [j for j in range(len(h)) if entity[j] == entity[i] and start <= int(h.occurred_us[j]) // US < end]
            amounts = [int(h.amount_minor[j]) for j in seen]
            known = [j for j in seen if h.is_fraud[j] and int(h.labelled_us[j]) <= t * US]
            rows.append((len(seen), sum(amounts), sum(a * a for a in amounts), max(amounts, default=0), len(known)))
        result[window] = WindowSums(*(np.array(column, np.int64) for column in zip(*rows, strict=True)))
    return result


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_every_feature_of_every_transaction_equals_the_naive_definition_to_the_bit(events) -> None:
    h = history(events)
    expected = assemble(h.amount_minor, h.occurred_s, naive_sums(h))
    got = Dataset(h).matrix(np.arange(len(h)))
    np.testing.assert_array_equal(got.view(np.int64), expected.view(np.int64))


@given(EVENTS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_a_row_does_not_depend_on_which_other_rows_are_computed_nor_on_the_blocks(events, random) -> None:
    h = history(events)
    everything = Dataset(h).matrix(np.arange(len(h)))
    some = np.array(random.sample(range(len(h)), random.randint(1, len(h))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", 3)
        np.testing.assert_array_equal(Dataset(h).matrix(some), everything[some])


@given(EVENTS, st.integers(0, 60 * DAY))
@settings(max_examples=100, deadline=None)
def test_a_label_that_comes_later_changes_nothing_before_it_is_known(events, shift) -> None:
    h = history(events)
    shifted = np.where(h.labelled_us == NEVER, NEVER, np.minimum(h.labelled_us, NEVER - shift * US) + shift * US)
    before = Dataset(h).matrix(np.arange(len(h)))
    after = Dataset(dataclasses.replace(h, labelled_us=shifted)).matrix(np.arange(len(h)))
    untouched = h.occurred_us < h.labelled_us[h.is_fraud].min(initial=NEVER)
    np.testing.assert_array_equal(after[untouched], before[untouched])


@given(EVENTS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_transaction_s_features_do_not_depend_on_anything_after_it(events, data) -> None:
    h = history(events)
    cut = data.draw(st.integers(1, len(h)))
    past = History(*(getattr(h, f.name)[:cut] for f in dataclasses.fields(h) if f.name != "digest"), digest="")
    rows = np.arange(cut)
    np.testing.assert_array_equal(Dataset(past).matrix(rows), Dataset(h).matrix(rows))


def test_a_fraud_raises_the_terminal_s_risk_only_once_its_label_is_known() -> None:
    late = 9 * DAY  # the label takes longer than the seven days that the features wait
    h = history([(0, 0, 0, 100, True, late, 0), (8 * DAY, 1, 0, 100, False, 0, 0), (2 * DAY, 1, 0, 100, False, 0, 0)])
    column = [f.name for f in FEATURES].index("terminal_fraud_rate_7d")
    assert Dataset(h).matrix(np.arange(3))[:, column].tolist() == [0.0, 0.0, 1.0]


def table() -> pa.Table:
    moment = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "customer_id": ["c-2", "c-1", "c-2"],
            "terminal_id": ["m-1", "m-1", "m-0"],
            "amount_minor": pa.array([300, 100, 200], pa.int64()),
            "occurred_at": pa.array([3 * US, 1 * US + 5, 2 * US], pa.int64()).cast(moment),
            "is_fraud": [False, True, False],
            "labelled_at": pa.array([None, 9 * US + 1, 8 * US], pa.int64()).cast(moment),
        }
    )


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_history_is_read_in_order_of_time_from_parquet_and_csv_alike(tmp_path: Path, kind: str) -> None:
    write = pa.parquet.write_table if kind == "parquet" else pa.csv.write_csv
    write(table().slice(0, 1), tmp_path / f"b.{kind}")
    write(table().slice(1), tmp_path / f"a.{kind}")
    h = read(tmp_path)
    assert h.amount_minor.tolist() == [100, 200, 300]
    assert h.customer.tolist() == [0, 1, 1]
    assert h.terminal.tolist() == [1, 0, 1]
    assert h.is_fraud.tolist() == [True, False, False]
    assert h.occurred_s.tolist() == [1, 2, 3]
    assert h.labelled_s.tolist()[:2] == [10, 8]
    assert h.labelled_us[2] == NEVER
    pa.parquet.write_table(table(), tmp_path / "one.parquet")
    assert read(tmp_path / "one.parquet").digest == h.digest


def test_another_label_is_another_digest(tmp_path: Path) -> None:
    pa.parquet.write_table(table(), tmp_path / "a.parquet")
    column = table().schema.get_field_index("is_fraud")
    pa.parquet.write_table(table().set_column(column, "is_fraud", [[False, False, False]]), tmp_path / "b.parquet")
    assert read(tmp_path / "a.parquet").digest != read(tmp_path / "b.parquet").digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["is_fraud"]), "no column is_fraud"),
        (lambda t: t.slice(0, 0), "no transactions"),
        (lambda t: t.set_column(0, "customer_id", [["c", None, "c"]]), "customer_id has 1 empty"),
        (lambda t: t.set_column(2, "amount_minor", [[1, 0, 1]]), "amount_minor has values below 1"),
        (lambda t: t.set_column(2, "amount_minor", [["1", "two", "3"]]), "cannot be read as a history"),
    ],
)
def test_a_history_that_cannot_be_used_is_refused_with_the_file_and_the_column(tmp_path, change, message) -> None:
    pa.parquet.write_table(change(table()), tmp_path / "h.parquet")
    with pytest.raises(ConfigurationError, match=message) as refused:
        read(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_folder_without_a_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tollgate simulate"):
        read(tmp_path)

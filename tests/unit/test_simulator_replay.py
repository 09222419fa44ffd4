"""A file is streamed as what it says, whatever its columns are called, and what is wrong with it is said exactly."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError
from tollgate.simulator import table_file
from tollgate.simulator.history import write_history
from tollgate.simulator.mapping import ColumnMapping, parse_pairs, resolve
from tollgate.simulator.money import to_minor
from tollgate.simulator.options import Position
from tollgate.simulator.records import Entry
from tollgate.simulator.replay import Replay
from tollgate.simulator.stream import Stream
from tollgate.simulator.world import World
from tollgate.transaction import Transaction, parse_label, parse_transaction
from unit.simulator_listener import SMALL, Listener

HANDBOOK_HEADER = "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_TIME_SECONDS,TX_TIME_DAYS,TX_FRAUD"
HANDBOOK_ROWS = [
    "0,2018-04-01 00:00:31,596,3156,57.16,31,0,0",
    "1,2018-04-01 00:02:10,4961,3412,81.51,130,0,1",
    "2,2018-04-01 00:07:56,2,1365,0.29,476,0,0",
]
BEGIN = Position(0, 0)


def handbook(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HANDBOOK_HEADER, *rows]) + "\n")
    return path


def transactions(source: Replay) -> list[Transaction]:
    return [parse_transaction(e.body) for e in source.entries(BEGIN)]


def test_the_handbooks_columns_are_found_and_its_amounts_become_cents(tmp_path: Path) -> None:
    entries = list(Replay(handbook(tmp_path / "handbook.csv", *HANDBOOK_ROWS)).entries(BEGIN))
    assert parse_transaction(entries[1].body) == Transaction(
        transaction_id="1",
        customer_id="4961",
        terminal_id="3412",
        amount_minor=8151,
        currency="EUR",
        occurred_at=datetime(2018, 4, 1, 0, 2, 10, tzinfo=UTC),
    )
    assert [parse_transaction(e.body).amount_minor for e in entries] == [5716, 8151, 29]
    assert [e.key for e in entries] == ["596", "4961", "2"]
    assert [e.next for e in entries] == [Position(0, n) for n in (1, 2, 3)]
    labels = [parse_label(e.label.body) for e in entries if e.label]
    assert [label.is_fraud for label in labels] == [False, True, False]
    assert labels[0].labelled_at == datetime(2018, 4, 8, 0, 0, 31, tzinfo=UTC)


def test_parquet_with_typed_columns_says_the_same_as_csv(tmp_path: Path) -> None:
    moments = [datetime(2018, 4, 1, 0, 0, 31), datetime(2018, 4, 1, 0, 2, 10), datetime(2018, 4, 1, 0, 7, 56)]
    for unit in ("s", "us", "ns"):
        table = pa.table(
            {
                "TRANSACTION_ID": [0, 1, 2],
                "TX_DATETIME": pa.array(moments, pa.timestamp(unit)),
                "CUSTOMER_ID": [596, 4961, 2],
                "TERMINAL_ID": [3156, 3412, 1365],
                "TX_AMOUNT": [57.16, 81.51, 0.29],
                "TX_FRAUD": [0, 1, 0],
            }
        )
        pq.write_table(table, tmp_path / "handbook.parquet")
        from_parquet = list(Replay(tmp_path / "handbook.parquet").entries(BEGIN))
        assert from_parquet == list(Replay(handbook(tmp_path / "h.csv", *HANDBOOK_ROWS)).entries(BEGIN))


def test_a_simulated_history_is_replayed_as_it_was_simulated(tmp_path: Path) -> None:
    write_history(World(SMALL), 12, tmp_path / "h")
    file = next((tmp_path / "h").glob("*.parquet"))
    rows = pq.read_table(file).to_pylist()
    entries = list(Replay(file).entries(BEGIN))
    assert len(entries) == len(rows)
    for entry, row in zip(entries, rows, strict=True):
        parsed = parse_transaction(entry.body)
        assert entry.label is not None
        label = parse_label(entry.label.body)
        for name in ("transaction_id", "customer_id", "terminal_id", "amount_minor", "currency", "occurred_at"):
            assert getattr(parsed, name) == row[name]
        assert (label.is_fraud, label.labelled_at) == (row["is_fraud"], row["labelled_at"])


def test_columns_of_any_name_are_mapped(tmp_path: Path) -> None:
    file = tmp_path / "bank.csv"
    file.write_text("id,when,card,shop,sum,ccy,ch,land\na-1,2024-02-29T23:59:59.5+01:00,k1,s1,1000,JPY,pos,DE\n")
    mapping = parse_pairs(
        [
            *("transaction_id=id", "occurred_at=when", "customer_id=card", "terminal_id=shop"),
            *("amount=sum", "currency=ccy", "channel=ch", "country=land"),
        ]
    )
    (entry,) = Replay(file, mapping).entries(BEGIN)
    assert parse_transaction(entry.body) == Transaction(
        transaction_id="a-1",
        customer_id="k1",
        terminal_id="s1",
        amount_minor=1000,
        currency="JPY",
        occurred_at=datetime(2024, 2, 29, 22, 59, 59, 500_000, tzinfo=UTC),
        channel="pos",
        country="DE",
    )
    assert entry.label is None


def test_what_is_said_wins_over_what_is_found() -> None:
    columns = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "amount_minor", "amount", "gross", "card"]
    found = resolve("f", columns, ColumnMapping())
    assert (found.amount_minor, found.amount, found.customer_id) == ("amount_minor", None, "CUSTOMER_ID")
    said = resolve("f", columns, ColumnMapping(amount="gross", customer_id="card"))
    assert (said.amount_minor, said.amount, said.customer_id) == (None, "gross", "card")


def test_a_missing_column_is_named_with_what_the_file_has_and_how_to_map_it(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("TRANSACTION_ID,TX_DATETIME,who,TX_AMOUNT\n")
    with pytest.raises(ConfigurationError) as caught:
        Replay(file)
    assert "no column for customer_id, terminal_id" in str(caught.value)
    assert "TRANSACTION_ID, TX_DATETIME, who, TX_AMOUNT" in str(caught.value)
    assert "customer_id=COLUMN" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"no column 'whom' for customer_id.*who"):
        Replay(file, ColumnMapping(customer_id="whom"))


def test_a_file_without_amounts_is_told_both_ways_to_give_them() -> None:
    with pytest.raises(ConfigurationError, match=r"amount \(or amount_minor\).*amount=COLUMN"):
        resolve("f", ["transaction_id", "occurred_at", "customer_id", "terminal_id"], ColumnMapping())


@pytest.mark.parametrize("pair", ["amount", "amount=", "colour=RED", "=X"])
def test_a_pair_that_maps_nothing_is_shown_with_the_fields_there_are(pair: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FIELD=COLUMN.*transaction_id"):
        parse_pairs([pair])


def test_a_field_is_mapped_once() -> None:
    with pytest.raises(ConfigurationError, match="already mapped to 'a'"):
        parse_pairs(["amount=a", "amount=b"])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("TRANSACTION_ID", "", "empty; expected an id"),
        ("TRANSACTION_ID", "a b", "'a b'; expected 1 to 64 of"),
        ("TX_DATETIME", "01/04/2018", "'01/04/2018'; expected a date and time"),
        ("TX_DATETIME", "2018-13-01 00:00:31", "'2018-13-01 00:00:31'; expected a date and time"),
        ("TX_DATETIME", "", "empty; expected a date and time"),
        ("TX_DATETIME", "1815-06-18 11:35:00", "'1815-06-18 11:35:00'; expected|'1815-06-18 11:35:00'; outside"),
        ("CUSTOMER_ID", "x" * 65, "expected 1 to 64 of"),
        ("TX_AMOUNT", "twelve", "'twelve'; expected a decimal number"),
        ("TX_AMOUNT", "1 234", "expected a decimal number"),
        ("TX_AMOUNT", "-0.01", "'-0.01'; expected a decimal number like 12.50, from 0"),
        ("TX_AMOUNT", "NaN", "'NaN'; expected a decimal number"),
        ("TX_AMOUNT", "Infinity", "expected a decimal number"),
        ("TX_AMOUNT", "", "empty; expected a decimal number"),
        ("TX_AMOUNT", "1000000.01", "'1000000.01'; expected a decimal number"),
        ("TX_FRAUD", "maybe", "'maybe'; expected 0 or 1"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_column_and_value(tmp_path: Path, column: str, value: str, said: str) -> None:
    cells = dict(zip(HANDBOOK_HEADER.split(","), HANDBOOK_ROWS[1].split(","), strict=True))
    bad = ",".join((cells | {column: value}).values())
    file = handbook(tmp_path / "f.csv", HANDBOOK_ROWS[0], bad, HANDBOOK_ROWS[2])
    entries = Replay(file).entries(BEGIN)
    assert next(entries).key == "596"
    with pytest.raises(ConfigurationError, match=f"f.csv row 2, column '{column}': .*({said})"):
        next(entries)


@pytest.mark.parametrize("column", ["TRANSACTION_ID", "CUSTOMER_ID", "TX_DATETIME", "TX_AMOUNT", "TX_FRAUD"])
@pytest.mark.parametrize("number", ["4111111111111111", "4111 1111 1111 1111"])
def test_a_card_number_is_refused_and_not_repeated(tmp_path: Path, column: str, number: str) -> None:
    cells = dict(zip(HANDBOOK_HEADER.split(","), HANDBOOK_ROWS[1].split(","), strict=True))
    file = handbook(tmp_path / "f.csv", ",".join((cells | {column: number}).values()))
    with pytest.raises(ConfigurationError, match=r"row 1.*card number") as caught:
        list(Replay(file).entries(BEGIN))
    assert "1111" not in str(caught.value)


def test_a_row_with_too_many_cells_is_named_without_its_text(tmp_path: Path) -> None:
    file = handbook(tmp_path / "f.csv", HANDBOOK_ROWS[0], HANDBOOK_ROWS[1] + ",secret")
    with pytest.raises(ConfigurationError, match="row 2: 9 cells where the header has 8") as caught:
        list(Replay(file).entries(BEGIN))
    assert "secret" not in str(caught.value)


def test_amounts_of_zero_as_the_handbook_has_them_are_skipped_and_counted(tmp_path: Path) -> None:
    file = handbook(tmp_path / "f.csv", "0,2018-04-01 00:00:31,596,3156,0.00,31,0,0", *HANDBOOK_ROWS[1:])
    source = Replay(file)
    entries = list(source.entries(BEGIN))
    assert [e.key for e in entries] == ["4961", "2"]
    assert entries[0].next == Position(0, 2)
    assert source.zero_amounts == 1


def test_a_fraud_that_nobody_knows_of_yet_gets_no_label(tmp_path: Path) -> None:
    rows = [r.rsplit(",", 1)[0] + "," + truth for r, truth in zip(HANDBOOK_ROWS, ("true", "", "False"), strict=True)]
    labels = [e.label for e in Replay(handbook(tmp_path / "f.csv", *rows)).entries(BEGIN)]
    assert labels[1] is None
    assert [parse_label(label.body).is_fraud for label in labels if label] == [True, False]


def test_a_label_known_before_its_transaction_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text(
        "transaction_id,occurred_at,customer_id,terminal_id,amount_minor,is_fraud,labelled_at\n"
        "a,2024-01-02T00:00:00Z,c,m,5,1,2024-01-01T00:00:00Z\n"
    )
    with pytest.raises(ConfigurationError, match=r"row 1, column 'labelled_at'.*after the transaction"):
        list(Replay(file).entries(BEGIN))
    with pytest.raises(ConfigurationError, match="label delay"):
        Replay(file, label_delay=timedelta(0))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("f.csv", None, "no such file"),
        ("f.txt", b"x", "expected a .csv or .parquet"),
        ("f.csv", b"", "cannot be read"),
        ("f.parquet", b"not parquet", "cannot be read"),
        ("f.csv", b"amount,amount\n1,2\n", "more than one column is called 'amount'"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        Replay(tmp_path / name)


def test_text_that_is_not_utf8_is_an_error_of_the_file(tmp_path: Path) -> None:
    file = handbook(tmp_path / "f.csv", HANDBOOK_ROWS[0])
    file.write_bytes(file.read_bytes().replace(b"596", b"\xff\xfe"))
    with pytest.raises(ConfigurationError, match=r"f.csv: cannot be read.*UTF8"):
        list(Replay(file).entries(BEGIN))


def test_a_large_file_is_read_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "BLOCK_BYTES", 4_096)
    file = handbook(tmp_path / "f.csv", *(HANDBOOK_ROWS[0].replace("0,", f"{n},", 1) for n in range(5_000)))
    before = pa.total_allocated_bytes()
    entries = Replay(file).entries(BEGIN)
    first = next(entries)
    assert pa.total_allocated_bytes() - before < 200_000
    assert [parse_transaction(e.body).transaction_id for e in (first, *entries)] == [str(n) for n in range(5_000)]
    rest = [parse_transaction(e.body).transaction_id for e in Replay(file).entries(Position(0, 3_210))]
    assert rest == [str(n) for n in range(3_210, 5_000)]


def unsorted(path: Path, rows: list[tuple[int, int]]) -> Path:
    """A file whose rows are given as (minutes, label delay in minutes), in any order."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["transaction_id", "occurred_at", "customer_id", "terminal_id", "amount", "is_fraud", "labelled_at"]
        )
        for n, (minutes, delay) in enumerate(rows):
            at = start + timedelta(minutes=minutes)
            known = at + timedelta(minutes=delay)
            writer.writerow([f"t{n}", at.isoformat(), f"c{n % 3}", "m", "1.5", n % 2, known.isoformat()])
    return path


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=30),
    st.integers(0, 30),
)
@settings(max_examples=50, deadline=None)
@example(rows=[(0, 5), (5, 5), (6, 5)], first=2)
def test_a_replay_in_two_runs_is_the_replay_in_one_even_when_the_file_is_not_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]], first: int
) -> None:
    file = unsorted(tmp_path_factory.mktemp("replay") / "f.csv", rows)
    whole, parts = Listener(), Listener()
    one = Stream(Replay(file), whole, BEGIN).run()
    middle = Stream(Replay(file), parts, BEGIN).run(first)
    rest = Stream(Replay(file), parts, middle.position).run()
    assert middle.transactions + rest.transactions == one.transactions == len(rows)
    assert sorted(r.without_time() for r in parts.records) == sorted(r.without_time() for r in whole.records)
    assert [r.key for r in parts.on("transactions")] == [r.key for r in whole.on("transactions")]


def test_a_replay_can_begin_at_any_row(tmp_path: Path) -> None:
    file = unsorted(tmp_path / "f.csv", [(n, 5) for n in range(20)])
    everything: list[Entry] = list(Replay(file).entries(BEGIN))
    for first in (0, 1, 19, 20):
        assert list(Replay(file).entries(replace(BEGIN, index=first))) == everything[first:]


@given(st.integers(0, 10**8), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_every_minor_amount_survives_being_written_in_major_units(minor: int, currency: str) -> None:
    digits = {"EUR": 2, "JPY": 0, "KWD": 3}[currency]
    major = Decimal(minor).scaleb(-digits)
    assert to_minor(major, currency) == to_minor(str(major), currency) == to_minor(float(major), currency) == minor


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        ("0.285", 29),
        ("1.005", 101),
        (1.005, 101),
        ("2.675", 268),
        ("0.004", 0),
        ("1e2", 10_000),
        (7, 700),
        ("-1.005", -101),
    ],
)
def test_halves_are_rounded_away_from_zero_as_they_are_written(amount: str | float, cents: int) -> None:
    assert to_minor(amount, "EUR") == cents


@pytest.mark.parametrize("amount", ["", "1,50", "€5", None, True, "nan", float("inf"), "1e400"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValueError, match=r"amount|number"):
        to_minor(amount, "EUR")  # type: ignore[arg-type]

"""V2 tensors: what is accepted, and which tensor a refusal names."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from tollgate import features
from tollgate.errors import Rejected
from tollgate_kserve.tensors import MAX_ROWS, Request, Tensor, read_features, read_transactions

NAMES = features.names()
WIDTH = len(NAMES)
CARD = "4111111111111111"


def transactions(n: int = 1, **changes: Any) -> Request:
    """A request to `fraud` as JSON gives it; a change replaces a tensor's data, None leaves the tensor out."""
    data: dict[str, Any] = {
        "transaction_id": [f"t-{i}" for i in range(n)],
        "customer_id": [f"c-{i}" for i in range(n)],
        "terminal_id": [f"m-{i}" for i in range(n)],
        "amount_minor": list(range(1, n + 1)),
        "occurred_at": ["2026-05-01T12:00:00Z"] * n,
        **changes,
    }
    kinds = {"amount_minor": "INT64"}
    inputs = [
        {"name": name, "shape": [n], "datatype": kinds.get(name, "BYTES"), "data": values}
        for name, values in data.items()
        if values is not None
    ]
    return msgspec.convert({"inputs": inputs}, Request)


def matrix(data: Any, shape: list[int] | None = None, datatype: str = "FP64") -> Request:
    return Request([Tensor("features", [1, WIDTH] if shape is None else shape, datatype, data)])


def test_transactions_become_columns() -> None:
    moments = ["2026-05-01T12:00:00.900Z", "2026-05-01T14:00:01+02:00", "1970-01-01T00:00:00Z"]
    read = read_transactions(transactions(3, occurred_at=moments))
    assert read.customers == ["c-0", "c-1", "c-2"]
    assert read.terminals == ["m-0", "m-1", "m-2"]
    assert read.amount_minor.tolist() == [1, 2, 3]
    assert read.occurred_s.tolist() == [1_777_636_800, 1_777_636_801, 0]


def test_grpc_bytes_are_read_as_text() -> None:
    assert read_transactions(transactions(customer_id=[b"c-7"])).customers == ["c-7"]
    with pytest.raises(Rejected, match=r"'customer_id'.*UTF-8"):
        read_transactions(transactions(customer_id=[b"\xff"]))


@pytest.mark.parametrize(
    ("tensor", "data", "expected"),
    [
        ("transaction_id", [""], "1 to 64 of"),
        ("customer_id", ["a b"], "1 to 64 of"),
        ("customer_id", [5], "texts"),
        ("terminal_id", ["x" * 65], "1 to 64 of"),
        ("terminal_id", ["m", "n"], "2 values; shape [1] holds 1"),
        ("amount_minor", [0], "integer from 1"),
        ("amount_minor", [10**8 + 1], "integer from 1"),
        ("amount_minor", [2**70], "integer from 1"),
        ("amount_minor", [12.5], "integers"),
        ("amount_minor", [True], "integers"),
        ("amount_minor", ["12"], "integers"),
        ("amount_minor", [None], "integers"),
        ("amount_minor", 12, "integers"),
        ("occurred_at", ["yesterday"], "RFC 3339"),
        ("occurred_at", ["2026-05-01T12:00:00"], "with a zone"),
        ("occurred_at", ["1969-12-31T23:59:59Z"], "1970"),
        ("occurred_at", [1_777_636_800], "texts"),
    ],
)
def test_a_refusal_names_the_tensor_and_what_was_expected(tensor: str, data: Any, expected: str) -> None:
    with pytest.raises(Rejected) as refusal:
        read_transactions(transactions(**{tensor: data}))
    assert repr(tensor) in refusal.value.detail
    assert expected in refusal.value.detail


@pytest.mark.parametrize("tensor", ["transaction_id", "customer_id", "terminal_id"])
def test_a_card_number_is_refused_and_not_repeated(tensor: str) -> None:
    with pytest.raises(Rejected, match=f"'{tensor}'.*card number") as refusal:
        read_transactions(transactions(**{tensor: [CARD]}))
    assert CARD not in str(refusal.value)


@pytest.mark.parametrize("tensor", ["amount_minor", "occurred_at", "customer_id"])
def test_no_refusal_repeats_a_value(tensor: str) -> None:
    for value in (CARD + "!", int(CARD), [CARD], {CARD: CARD}):
        with pytest.raises(Rejected) as refusal:
            read_transactions(transactions(**{tensor: [value]}))
        assert CARD not in str(refusal.value)


def test_a_missing_and_an_unknown_tensor_are_named() -> None:
    with pytest.raises(Rejected, match="missing input 'terminal_id'"):
        read_transactions(transactions(terminal_id=None))
    with pytest.raises(Rejected, match="unknown input 'merchant'"):
        read_transactions(transactions(merchant=["x"]))


def test_a_tensor_given_twice_is_refused() -> None:
    request = transactions()
    with pytest.raises(Rejected, match="twice"):
        read_transactions(Request([*request.inputs, request.inputs[0]]))


def test_tensors_of_different_n_are_refused() -> None:
    request = transactions(2)
    request.inputs[3].shape, request.inputs[3].data = [1], [5]
    with pytest.raises(Rejected, match=r"'amount_minor': shape \[1\]; expected \[2\]"):
        read_transactions(request)


def test_a_wrong_datatype_is_refused() -> None:
    request = transactions()
    request.inputs[3].datatype = "INT32"
    with pytest.raises(Rejected, match="'amount_minor': datatype 'INT32'; expected INT64"):
        read_transactions(request)


@pytest.mark.parametrize("n", [0, -1, MAX_ROWS + 1])
def test_the_number_of_rows_is_bounded(n: int) -> None:
    request = transactions()
    request.inputs[0].shape = [n]
    with pytest.raises(Rejected, match=f"expected 1 to {MAX_ROWS}"):
        read_transactions(request)


@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_features_come_flat_nested_or_as_an_array(datatype: str) -> None:
    rows = np.arange(2.0 * WIDTH).reshape(2, WIDTH)
    for data in (rows.reshape(-1).tolist(), rows.tolist(), rows.astype(np.float32), [int(x) for x in rows.flat]):
        read = read_features(matrix(data, [2, WIDTH], datatype), NAMES)
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, rows)


def test_features_come_as_one_tensor_for_each_name_in_any_order() -> None:
    inputs = [Tensor(name, [2], "FP64", [i, i + 0.5]) for i, name in enumerate(NAMES)]
    read = read_features(Request(inputs[::-1]), NAMES)
    assert read[0].tolist() == [float(i) for i in range(WIDTH)]
    assert read[1].tolist() == [i + 0.5 for i in range(WIDTH)]


def test_a_missing_feature_tensor_is_named() -> None:
    inputs = [Tensor(name, [1], "FP64", [1.0]) for name in NAMES if name != "is_night"]
    with pytest.raises(Rejected, match="missing input 'is_night'"):
        read_features(Request(inputs), NAMES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_what_is_no_finite_float32_is_refused_with_its_place(value: float) -> None:
    rows = np.ones((2, WIDTH))
    rows[1, 3] = value
    with pytest.raises(Rejected, match=rf"\[1, 3\] \({NAMES[3]}\): expected a finite number"):
        read_features(matrix(rows.reshape(-1).tolist(), [2, WIDTH]), NAMES)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (matrix([1.0] * WIDTH, [WIDTH]), f"expected [n, {WIDTH}]"),
        (matrix([1.0] * WIDTH, [1, WIDTH - 1]), f"expected [n, {WIDTH}]"),
        (matrix([1.0] * (WIDTH - 1)), f"{WIDTH - 1} values"),
        (matrix([[1.0] * (WIDTH - 1)]), "nested row"),
        (matrix([1.0] * WIDTH, datatype="INT64"), "expected FP64 or FP32"),
        (matrix([None] * WIDTH), "numbers"),
        (matrix(["1"] * WIDTH), "numbers"),
        (matrix([True] * WIDTH), "numbers"),
        (matrix("x"), "numbers"),
        (matrix([]), "0 values"),
        (matrix([], [0, WIDTH]), "0 rows"),
        (Request([]), "missing input"),
    ],
)
def test_a_wrong_matrix_is_refused(request_: Request, expected: str) -> None:
    with pytest.raises(Rejected) as refusal:
        read_features(request_, NAMES)
    assert expected in refusal.value.detail

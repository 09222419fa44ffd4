"""V2 tensors to what the models work on, with a refusal that says which tensor and what was expected.

In: a V2 inference request (decoded JSON, or the SDK's form of a gRPC message). Out: `Transactions` or the feature
matrix. Every refusal is `Rejected`; its text never repeats a value, which could be a card number. Next: `serving`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from tollgate.errors import Reason, Rejected
from tollgate.feature_matrix import Floats, Ints
from tollgate.transaction import MAX_AMOUNT_MINOR, check_id, check_moment, is_card_number

MAX_ROWS = 10_000
"""Most rows a request may have."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOATS = ("FP64", "FP32")


class Tensor(msgspec.Struct):
    """A V2 input: `data` is flat or nested in row-major order, JSON values or a numpy array."""

    name: str
    shape: list[int]
    datatype: str
    data: Any


class RequestedOutput(msgspec.Struct):
    """An output asked for by name."""

    name: str


class Request(msgspec.Struct):
    """A V2 inference request; parameters are accepted and have no meaning here."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None


@dataclass(frozen=True, slots=True)
class Transactions:
    """What the features of n transactions are read by: ids [n]; int64 [n] minor units and epoch seconds."""

    customers: list[str]
    terminals: list[str]
    amount_minor: Ints
    occurred_s: Ints


def join(batches: Sequence[Transactions]) -> Transactions:
    """The transactions of several requests, one after another."""
    return Transactions(
        [customer for batch in batches for customer in batch.customers],
        [terminal for batch in batches for terminal in batch.terminals],
        np.concatenate([batch.amount_minor for batch in batches]),
        np.concatenate([batch.occurred_s for batch in batches]),
    )


TRANSACTION_TENSORS = {
    "transaction_id": "BYTES",
    "customer_id": "BYTES",
    "terminal_id": "BYTES",
    "amount_minor": "INT64",
    "occurred_at": "BYTES",
}
"""The inputs of model `fraud`: name and datatype, all of shape [n]."""


def read_transactions(request: Request) -> Transactions:
    """The n transactions of a request to `fraud`. Raises `Rejected`."""
    inputs = _by_name(request, tuple(TRANSACTION_TENSORS))
    rows = _rows(inputs["transaction_id"])
    column = {name: _values(inputs[name], datatype, rows) for name, datatype in TRANSACTION_TENSORS.items()}
    for name in ("transaction_id", "customer_id", "terminal_id"):
        for i, value in enumerate(column[name]):
            _each(name, i, check_id, value)
            if is_card_number(value):
                raise Rejected(Reason.CARD_NUMBER, f"input {name!r} [{i}] reads as a card number; send a token instead")
    for i, amount in enumerate(column["amount_minor"]):
        if not 0 < amount <= MAX_AMOUNT_MINOR:
            raise _bad("amount_minor", f"[{i}]: expected an integer from 1 to {MAX_AMOUNT_MINOR} (minor units)")
    moments = _convert(
        inputs["occurred_at"], column["occurred_at"], list[datetime], "RFC 3339, like 2026-05-01T12:00:00Z"
    )
    for i, moment in enumerate(moments):
        _each("occurred_at", i, check_moment, moment)
    return Transactions(
        column["customer_id"],
        column["terminal_id"],
        np.array(column["amount_minor"], np.int64),
        np.array([int(moment.timestamp() // 1) for moment in moments], np.int64),
    )


def read_features(request: Request, names: tuple[str, ...]) -> Floats:
    """The matrix of a request to `fraud-features`, float64 [n, F]: one tensor `features` or one [n] for each name."""
    if len(request.inputs) == 1 and request.inputs[0].name == "features":
        matrix = _matrix(request.inputs[0], len(names))
    else:
        inputs = _by_name(request, names, whole="features")
        rows = _rows(inputs[names[0]])
        matrix = np.empty((rows, len(names)), np.float64)
        for i, name in enumerate(names):
            matrix[:, i] = _values(inputs[name], _FLOATS, rows)
    usable = np.abs(matrix) <= _FLOAT32_MAX
    if not usable.all():
        row, column = (int(i) for i in np.argwhere(~usable)[0])
        raise _bad("features", f"[{row}, {column}] ({names[column]}): expected a finite number within FP32, not NaN")
    return matrix


def _matrix(tensor: Tensor, width: int) -> Floats:
    if tensor.datatype not in _FLOATS:
        raise _bad("features", f"datatype {_shown(tensor.datatype)}; expected FP64 or FP32")
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise _bad("features", f"shape {tensor.shape}; expected [n, {width}]")
    rows = _bounded("features", tensor.shape[0])
    if isinstance(tensor.data, np.ndarray):
        flat: Any = tensor.data.reshape(-1)
    elif isinstance(tensor.data, list) and tensor.data and isinstance(tensor.data[0], list):
        nested = _convert(tensor, tensor.data, list[list[float]], "numbers")
        if any(len(row) != width for row in nested):
            raise _bad("features", f"a nested row has another length than {width}")
        flat = [value for row in nested for value in row]
    else:
        flat = _convert(tensor, tensor.data, list[float], "numbers")
    if len(flat) != rows * width:
        raise _bad("features", f"{len(flat)} values; shape {tensor.shape} holds {rows * width}")
    return np.array(flat, np.float64).reshape(rows, width)


def _values(tensor: Tensor, datatype: str | tuple[str, ...], rows: int) -> list[Any]:
    """The `rows` values of a tensor of shape [rows]."""
    accepted = (datatype,) if isinstance(datatype, str) else datatype
    if tensor.datatype not in accepted:
        raise _bad(tensor.name, f"datatype {_shown(tensor.datatype)}; expected {' or '.join(accepted)}")
    if tensor.shape != [rows]:
        raise _bad(tensor.name, f"shape {tensor.shape}; expected [{rows}], as the first input has")
    data = tensor.data.tolist() if isinstance(tensor.data, np.ndarray) else tensor.data
    if accepted == ("BYTES",):
        values: list[Any] = _convert(tensor, _text(tensor.name, data), list[str], "texts")
    elif accepted == ("INT64",):
        values = _convert(tensor, data, list[int], "integers")
    else:
        values = _convert(tensor, data, list[float], "numbers")
    if len(values) != rows:
        raise _bad(tensor.name, f"{len(values)} values; shape {tensor.shape} holds {rows}")
    return values


def _text(name: str, data: Any) -> Any:
    """gRPC and binary tensors carry bytes: read them as UTF-8."""
    if not isinstance(data, list) or not any(isinstance(value, bytes) for value in data):
        return data
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in data]
    except UnicodeDecodeError:
        raise _bad(name, "expected UTF-8 text") from None


def _by_name(request: Request, names: tuple[str, ...], whole: str | None = None) -> dict[str, Tensor]:
    """Exactly the inputs `names`, each once."""
    found = {tensor.name: tensor for tensor in request.inputs}
    instead = f" (or the one input {whole!r} of shape [n, {len(names)}])" if whole else ""
    if missing := [name for name in names if name not in found]:
        raise Rejected(Reason.MISSING_FIELD, f"missing input {', '.join(map(repr, missing))}{instead}")
    if unknown := [name for name in found if name not in names]:
        raise Rejected(
            Reason.INVALID_FIELD, f"unknown input {_shown(unknown[0])}; expected {', '.join(names)}{instead}"
        )
    if len(found) != len(request.inputs):
        raise Rejected(Reason.INVALID_FIELD, "an input is given twice")
    return found


def _rows(tensor: Tensor) -> int:
    if len(tensor.shape) != 1:
        raise _bad(tensor.name, f"shape {tensor.shape}; expected [n]")
    return _bounded(tensor.name, tensor.shape[0])


def _bounded(name: str, rows: int) -> int:
    if not 1 <= rows <= MAX_ROWS:
        raise _bad(name, f"{rows} rows; expected 1 to {MAX_ROWS}")
    return rows


def _convert(tensor: Tensor, data: Any, kind: Any, expected: str) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _bad(tensor.name, f"expected {expected}: {error}") from None


def _each(name: str, i: int, check: Any, value: Any) -> None:
    try:
        check(name, value)
    except Rejected as error:
        raise _bad(name, f"[{i}]: {error.detail.partition(': ')[2]}") from None


def _shown(text: str) -> str:
    """A name from outside in a form that may be repeated."""
    return "(a card number)" if is_card_number(text) else repr(text[:64])


def _bad(name: str, what: str) -> Rejected:
    return Rejected(Reason.INVALID_FIELD, f"input {name!r}: {what}" if what[0] != "[" else f"input {name!r} {what}")

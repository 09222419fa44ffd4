"""The Open Inference Protocol (V2, REST) as `decide` speaks it: bytes to send, and answers read with suspicion.

In: transactions, or feature rows; the model server's JSON. Out: request bodies; `Scored` and reasons, one for each
row. Pure: `tollgate_functions.model` does the sending. An answer that does not hold what was asked for (a missing
tensor, a NaN, a probability outside [0, 1]) raises `Retryable`: no transaction is ever decided on a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tollgate.decision import Contribution, Model
from tollgate.errors import Retryable
from tollgate.transaction import Transaction


class Scored(msgspec.Struct, frozen=True):
    """What model `fraud` says about one transaction. `features` is in the model's column order."""

    probability: float
    features: list[float]
    features_hash: str
    features_as_of: datetime | None
    degraded_why: str | None
    model: Model


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _Answer(msgspec.Struct):
    model_name: str
    outputs: list[_Tensor]
    model_version: str | None = None
    parameters: dict[str, Any] = {}


class _Error(msgspec.Struct):
    error: str


def transactions_request(transactions: Sequence[Transaction]) -> bytes:
    """The body that asks model `fraud` for probability and features of n transactions; every tensor is [n]."""
    inputs = [
        _input("transaction_id", "BYTES", [each.transaction_id for each in transactions]),
        _input("customer_id", "BYTES", [each.customer_id for each in transactions]),
        _input("terminal_id", "BYTES", [each.terminal_id for each in transactions]),
        _input("amount_minor", "INT64", [each.amount_minor for each in transactions]),
        _input("occurred_at", "BYTES", [_rfc3339(each.occurred_at) for each in transactions]),
    ]
    return msgspec.json.encode({"inputs": inputs, "outputs": [{"name": "probability"}, {"name": "features"}]})


def reasons_request(rows: Sequence[Sequence[float]]) -> bytes:
    """The body that asks model `fraud-features` for the reasons of n feature rows, FP64 [n, F]."""
    width = len(rows[0]) if rows else 0
    flat = [value for row in rows for value in row]
    tensor = {"name": "features", "shape": [len(rows), width], "datatype": "FP64", "data": flat}
    return msgspec.json.encode({"inputs": [tensor], "outputs": [{"name": "reasons"}]})


def read_scores(body: bytes, rows: int) -> list[Scored]:
    """One `Scored` for each of the `rows` transactions asked about. Raises `Retryable`."""
    answer = _read(body)
    probabilities = _tensor(answer, "probability", rows).data
    flat = _flat(_tensor(answer, "features", rows))
    if len(probabilities) != rows or rows == 0 or len(flat) % rows:
        raise Retryable(f"the model server answered {len(probabilities)} probabilities for {rows} transactions")
    for number in probabilities:
        if not _finite(number) or not 0.0 <= number <= 1.0:
            raise Retryable("the model server's probability is not a number from 0 to 1")
    if not all(map(_finite, flat)):
        raise Retryable("the model server's features hold what is not a finite number")
    parameters = answer.parameters
    model = Model(
        name=answer.model_name,
        version=_text(parameters, "model_version") or answer.model_version or "",
        revision=_text(parameters, "revision") or "unknown",
        role=_text(parameters, "role") or "champion",
    )
    features_hash = _text(parameters, "features_hash")
    if not model.version or features_hash is None:
        raise Retryable("the model server's answer lacks model_version or features_hash in its parameters")
    as_of, why = _moment(parameters), _text(parameters, "degraded_why")
    width = len(flat) // rows
    return [
        Scored(
            probability=float(probability),
            features=[float(value) for value in flat[i * width : (i + 1) * width]],
            features_hash=features_hash,
            features_as_of=as_of,
            degraded_why=why,
            model=model,
        )
        for i, probability in enumerate(probabilities)
    ]


def read_reasons(body: bytes, rows: int) -> list[list[Contribution]]:
    """The contributions of each of the `rows` feature rows, in the server's order. Raises `Retryable`."""
    texts = _tensor(_read(body), "reasons", rows).data
    if len(texts) != rows:
        raise Retryable(f"the model server answered reasons for {len(texts)} of {rows} rows")
    try:
        return [msgspec.json.decode(text, type=list[Contribution]) for text in texts]
    except (msgspec.DecodeError, TypeError):
        raise Retryable("the model server's reasons are not a list of feature, value, contribution") from None


def read_error(body: bytes) -> str:
    """The text of a 4xx or 5xx answer, shortened; empty when the body is not V2's `{"error": ...}`."""
    try:
        return msgspec.json.decode(body, type=_Error).error[:300]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _input(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Retryable(f"the model server's answer is not a V2 response: {error}") from None


def _tensor(answer: _Answer, name: str, rows: int) -> _Tensor:
    for tensor in answer.outputs:
        if tensor.name == name:
            if not tensor.shape or tensor.shape[0] != rows:
                raise Retryable(f"the model server's {name} has shape {tensor.shape}, expected {rows} rows")
            return tensor
    raise Retryable(f"the model server's answer has no output {name!r}")


def _flat(tensor: _Tensor) -> list[Any]:
    """The values in row-major order; V2 allows both flat and nested arrays."""
    if tensor.data and isinstance(tensor.data[0], list):
        return [value for row in tensor.data for value in (row if isinstance(row, list) else [row])]
    return tensor.data


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    value = parameters.get(name)
    return str(value) if isinstance(value, (str, int)) and value != "" else None


def _moment(parameters: Mapping[str, Any]) -> datetime | None:
    text = _text(parameters, "features_as_of")
    if text is None:
        return None
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Retryable("the model server's features_as_of is not RFC 3339 with a zone")
    return moment

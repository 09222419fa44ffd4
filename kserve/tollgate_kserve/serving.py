"""The two models: a V2 request in, a V2 answer out, whatever transport carried it.

In: `tensors.Request` from `edge` (HTTP) or `models` (the SDK: gRPC, binary tensors). Out: `Answer`.
`fraud` reads the features itself; `fraud-features` is given them, so it needs no database. Requests that wait at the
same time are answered together (`gathering`). Refusals are `Rejected` and concern one request, temporary trouble and
overload are `Retryable`; both transports turn them into their own status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from tollgate.errors import Reason, Rejected
from tollgate.feature_matrix import Floats
from tollgate_kserve import measures
from tollgate_kserve.gathering import Gathering
from tollgate_kserve.predictor import Predictor
from tollgate_kserve.reader import FeatureReader
from tollgate_kserve.tensors import (
    TRANSACTION_TENSORS,
    Request,
    Transactions,
    join,
    read_features,
    read_transactions,
)

MOST_TOGETHER = 16
"""Rows up to which a request shares a batch; a larger one goes alone, on a thread that small ones never wait for."""
AT_ONCE = 32
"""Requests in a batch: with rows as above its statement stays far within its time limit."""
MOST_WAITING = 256
"""Requests of either kind under way; more are refused at once rather than answered too late."""

In = TypeVar("In")


class Output(NamedTuple):
    """A V2 output tensor; `data` is a numpy array of `shape`, objects (text) where the datatype is BYTES."""

    name: str
    datatype: str
    shape: list[int]
    data: np.ndarray[Any, Any]


class Spec(NamedTuple):
    """A tensor in a model's metadata; -1 is a dimension that varies."""

    name: str
    datatype: str
    shape: list[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs asked for, and the parameters of the response."""

    outputs: list[Output]
    parameters: dict[str, str]


class Service(Protocol):
    """What a transport needs of a model."""

    name: str
    version: str
    inputs: list[Spec]
    outputs: list[Spec]
    metadata: dict[str, str]

    async def infer(self, request: Request) -> Answer:
        """Answer one request. Raises `Rejected` or `Retryable`."""


@dataclass(slots=True)
class _Asked:
    """One request of a batch: the outputs it wants, its rows in the batch's matrix, and what was made for it."""

    wanted: list[str]
    rows: slice
    made: dict[str, Output] = field(default_factory=dict)


class _Scoring(Generic[In]):
    """What both models share: batches, outputs by name, scores, reasons, measures."""

    def __init__(self, name: str, predictor: Predictor, revision: str, most_reasons: int) -> None:
        manifest = predictor.manifest
        self.name = name
        self.version = manifest.version
        self.width = len(manifest.features)
        self.parameters = {
            "model_version": manifest.version,
            "features_hash": manifest.features_hash,
            "revision": revision,
        }
        self.metadata = {"features": ",".join(manifest.features), "features_hash": manifest.features_hash}
        self.outputs = [
            Spec("probability", "FP64", [-1]),
            Spec("features", "FP64", [-1, self.width]),
            Spec("reasons", "BYTES", [-1]),
        ]
        self._known = [spec.name for spec in self.outputs]
        self._predictor = predictor
        self._most_reasons = most_reasons
        self._together = Gathering(name, self._answer, at_once=AT_ONCE, most=MOST_WAITING)
        self._alone = Gathering(f"{name}-large", self._answer, at_once=1, most=MOST_WAITING)

    async def infer(self, request: Request) -> Answer:
        """Answer one request. Raises `Rejected`; `Retryable` on overload, or when Postgres is away or too slow."""
        shape = request.inputs[0].shape if request.inputs else ()
        gathering = self._alone if shape and shape[0] > MOST_TOGETHER else self._together
        return await gathering.submit(request)

    def _answer(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """An answer or its `Rejected` for each request. Raises `Retryable` for all of them."""
        asked: list[_Asked | Rejected] = []
        inputs: list[In] = []
        start = 0
        for request in requests:
            try:
                wanted, (rows, given) = self._wanted(request), self._read(request)
            except Rejected as error:
                asked.append(error)
            else:
                asked.append(_Asked(wanted, slice(start, start := start + rows)))
                inputs.append(given)
        good = [each for each in asked if isinstance(each, _Asked)]
        parameters = self.parameters
        if good:
            matrix, parameters = self._matrix(inputs)
            self._score(good, matrix)
        return [
            each if isinstance(each, Rejected) else Answer([each.made[name] for name in each.wanted], parameters)
            for each in asked
        ]

    def _read(self, request: Request) -> tuple[int, In]:
        """How many rows a request has, and what the matrix is made of. Raises `Rejected`."""
        raise NotImplementedError

    def _matrix(self, inputs: list[In]) -> tuple[Floats, dict[str, str]]:
        """The features of all rows of a batch, and the parameters of its answers. Raises `Retryable`."""
        raise NotImplementedError

    def _wanted(self, request: Request) -> list[str]:
        wanted = [output.name for output in request.outputs or ()] or ["probability"]
        for name in wanted:
            if name not in self._known:
                raise Rejected(
                    Reason.INVALID_FIELD, f"unknown output {name[:64]!r}; there are {', '.join(self._known)}"
                )
        return wanted

    def _score(self, asked: list[_Asked], matrix: Floats) -> None:
        """Make what each request wants; one prediction and one TreeSHAP for all who want it."""
        measures.BATCH_SIZE.observe(len(matrix))
        for each, values in _of_those_who_want("features", asked, matrix, lambda rows: rows):
            each.made["features"] = Output("features", "FP64", [len(values), self.width], values)
        for each, values in _of_those_who_want("probability", asked, matrix, self._probability):
            each.made["probability"] = Output("probability", "FP64", [len(values)], values)
        for each, values in _of_those_who_want("reasons", asked, matrix, self._reasons):
            each.made["reasons"] = Output("reasons", "BYTES", [len(values)], values)

    def _probability(self, matrix: Floats) -> Floats:
        with measures.PREDICT.time():
            probability = self._predictor.probability(matrix)
        for score in probability.tolist():
            measures.SCORE.observe(score)
        return probability

    def _reasons(self, matrix: Floats) -> np.ndarray[Any, Any]:
        with measures.REASONS.time():
            reasons = self._predictor.reasons(matrix, self._most_reasons)
        return np.array([msgspec.json.encode(row).decode() for row in reasons], object)


def _of_those_who_want(
    name: str, asked: list[_Asked], matrix: Floats, work: Callable[[Floats], np.ndarray[Any, Any]]
) -> Iterator[tuple[_Asked, np.ndarray[Any, Any]]]:
    """`work` done once, on the rows of all requests that want output `name`; each of them with its share."""
    those = [each for each in asked if name in each.wanted]
    if not those:
        return
    values = work(matrix if len(those) == len(asked) else np.concatenate([matrix[each.rows] for each in those]))
    start = 0
    for each in those:
        rows = each.rows.stop - each.rows.start
        yield each, values[start : start + rows]
        start += rows


class Fraud(_Scoring[Transactions]):
    """Model `fraud`: transactions in; the features are read here, for a whole batch in one round trip."""

    def __init__(
        self, predictor: Predictor, reader: FeatureReader, *, revision: str, most_reasons: int, name: str = "fraud"
    ) -> None:
        super().__init__(name, predictor, revision, most_reasons)
        self.inputs = [Spec(tensor, datatype, [-1]) for tensor, datatype in TRANSACTION_TENSORS.items()]
        self._reader = reader

    def _read(self, request: Request) -> tuple[int, Transactions]:
        batch = read_transactions(request)
        return len(batch.customers), batch

    def _matrix(self, inputs: list[Transactions]) -> tuple[Floats, dict[str, str]]:
        with measures.FEATURES.time():
            matrix, as_of = self._reader.read(inputs[0] if len(inputs) == 1 else join(inputs))
        if as_of is None:
            return matrix, self.parameters
        newest = as_of.timestamp()
        for batch in inputs:
            measures.FEATURE_AGE.observe(max(0.0, float(batch.occurred_s.max()) - newest))
        return matrix, {**self.parameters, "features_as_of": _rfc3339(as_of)}


class FraudFeatures(_Scoring[Floats]):
    """Model `fraud-features`: the feature matrix in."""

    def __init__(self, predictor: Predictor, *, revision: str, most_reasons: int, name: str = "fraud-features") -> None:
        super().__init__(name, predictor, revision, most_reasons)
        self.inputs = [Spec("features", "FP64", [-1, self.width])]
        self._names = predictor.manifest.features

    def _read(self, request: Request) -> tuple[int, Floats]:
        matrix = read_features(request, self._names)
        return len(matrix), matrix

    def _matrix(self, inputs: list[Floats]) -> tuple[Floats, dict[str, str]]:
        return inputs[0] if len(inputs) == 1 else np.concatenate(inputs), self.parameters


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

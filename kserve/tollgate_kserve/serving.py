"""The two models: a V2 request in, a V2 answer out, whatever transport carried it.

In: `tensors.Request` from `edge` (HTTP) or `models` (the SDK: gRPC, binary tensors). Out: `Answer`.
`fraud` reads the features itself; `fraud-features` is given them, so it needs no database. Refusals are `Rejected`,
temporary trouble and overload are `Retryable`; both transports turn them into their own status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from tollgate.errors import Reason, Rejected, Retryable
from tollgate.feature_matrix import Floats
from tollgate_kserve import measures
from tollgate_kserve.predictor import Predictor
from tollgate_kserve.reader import FeatureReader
from tollgate_kserve.tensors import TRANSACTION_TENSORS, Request, read_features, read_transactions


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


class Workers:
    """Threads with a bound on what waits for them, so that overload is answered at once instead of timing out."""

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = most
        self._under_way = 0

    async def run(self, work: Callable[[Request], Answer], request: Request) -> Answer:
        """`work(request)` on a thread. Raises `Retryable` when `most` requests are under way already."""
        if self._under_way >= self._most:
            raise Retryable(f"busy: {self._under_way} requests are under way; try again")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, request)
        finally:
            self._under_way -= 1


class _Scoring:
    """What both models share: outputs by name, scores, reasons, measures."""

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
        self._predictor = predictor
        self._most_reasons = most_reasons

    def _wanted(self, request: Request) -> list[str]:
        wanted = [output.name for output in request.outputs or ()] or ["probability"]
        known = [spec.name for spec in self.outputs]
        for name in wanted:
            if name not in known:
                raise Rejected(Reason.INVALID_FIELD, f"unknown output {name[:64]!r}; there are {', '.join(known)}")
        return wanted

    def _score(self, wanted: list[str], matrix: Floats) -> list[Output]:
        n = len(matrix)
        measures.BATCH_SIZE.observe(n)
        made: dict[str, Output] = {"features": Output("features", "FP64", [n, self.width], matrix)}
        if "probability" in wanted:
            with measures.PREDICT.time():
                probability = self._predictor.probability(matrix)
            for score in probability.tolist():
                measures.SCORE.observe(score)
            made["probability"] = Output("probability", "FP64", [n], probability)
        if "reasons" in wanted:
            with measures.REASONS.time():
                reasons = self._predictor.reasons(matrix, self._most_reasons)
            texts = np.array([msgspec.json.encode(row).decode() for row in reasons], object)
            made["reasons"] = Output("reasons", "BYTES", [n], texts)
        return [made[name] for name in wanted]


class Fraud(_Scoring):
    """Model `fraud`: transactions in; the features are read here."""

    def __init__(
        self, predictor: Predictor, reader: FeatureReader, *, revision: str, most_reasons: int, name: str = "fraud"
    ) -> None:
        super().__init__(name, predictor, revision, most_reasons)
        self.inputs = [Spec(tensor, datatype, [-1]) for tensor, datatype in TRANSACTION_TENSORS.items()]
        self._reader = reader
        self._workers = Workers(name, threads=4, most=256)

    async def infer(self, request: Request) -> Answer:
        """Answer one request. Raises `Rejected`; `Retryable` when Postgres is away or too slow, or on overload."""
        return await self._workers.run(self._answer, request)

    def _answer(self, request: Request) -> Answer:
        wanted = self._wanted(request)
        batch = read_transactions(request)
        with measures.FEATURES.time():
            matrix, as_of = self._reader.read(batch)
        parameters = self.parameters
        if as_of is not None:
            measures.FEATURE_AGE.observe(max(0.0, float(batch.occurred_s.max()) - as_of.timestamp()))
            parameters = {**parameters, "features_as_of": _rfc3339(as_of)}
        return Answer(self._score(wanted, matrix), parameters)


class FraudFeatures(_Scoring):
    """Model `fraud-features`: the feature matrix in."""

    def __init__(self, predictor: Predictor, *, revision: str, most_reasons: int, name: str = "fraud-features") -> None:
        super().__init__(name, predictor, revision, most_reasons)
        self.inputs = [Spec("features", "FP64", [-1, self.width])]
        self._names = predictor.manifest.features
        self._workers = Workers(name, threads=2, most=256)

    async def infer(self, request: Request) -> Answer:
        """Answer one request. Raises `Rejected`; `Retryable` on overload."""
        return await self._workers.run(self._answer, request)

    def _answer(self, request: Request) -> Answer:
        wanted = self._wanted(request)
        return Answer(self._score(wanted, read_features(request, self._names)), self.parameters)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

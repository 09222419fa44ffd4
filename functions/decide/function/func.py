"""decide: a transaction becomes approve, review or decline.

In: a KafkaSource's event of stream `transactions`, or `dev.tollgate.transaction.requested`. The model server says how
likely a fraud is, the policy what that means for the amount. Out: `dev.tollgate.transaction.decided`; the Broker
hands it to `record`. Keeps no state: the same event again makes the decision again, the ledger keeps the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tollgate import policy
from tollgate.decision import Contribution, Decided, Decision, Outcome
from tollgate.errors import Reason, Rejected, Retryable
from tollgate.events import DECIDED, KAFKA_EVENT, REQUESTED, SOURCE_DECIDE, CloudEvent
from tollgate.settings import Settings
from tollgate.transaction import Transaction, parse_transaction
from tollgate.v2 import Scored
from tollgate_functions.answer import answer
from tollgate_functions.incoming import carried, received, requested_at
from tollgate_functions.metrics import DECISION_SECONDS, DECISIONS, STAGE_SECONDS, stage
from tollgate_functions.model import ModelClient


def new() -> Function:
    """The function, its settings read. Raises `ConfigurationError` naming what is missing."""
    settings = Settings.read("model_url")
    return Function(settings, policy.load(settings.policy_file))


class Function:
    """Served by func-python, which calls `start` once, then `handle` for each event."""

    def __init__(self, settings: Settings, rules: policy.Policy) -> None:
        self._settings = settings
        self._policy = rules
        self._model: ModelClient | None = None

    def start(self, cfg: Mapping[str, str]) -> None:
        """Open the way to the model server (inside the event loop)."""
        self._model = ModelClient(self._settings)

    def stop(self) -> None:
        """Close it; the loop still runs."""
        if self._model is not None:
            self._closing = asyncio.get_running_loop().create_task(self._model.close())

    def alive(self) -> tuple[bool, str]:
        """The process answers."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Ready once started; a model server that is away is answered with 503, event by event."""
        return self._model is not None, "ready" if self._model is not None else "starting"

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one event with the decided event, or with why not."""
        await answer(send.http, self._decide(scope))

    async def _decide(self, scope: dict[str, Any]) -> CloudEvent:
        arrival = datetime.now(UTC)
        event = received(scope["event"])
        if not _is_transaction(event):
            raise Rejected(Reason.UNKNOWN_EVENT_TYPE, "decide handles transactions, not this event's type and stream")
        transaction = parse_transaction(event.data)
        if self._model is None:
            raise Retryable("decide is starting")
        extensions = carried(event, transaction.transaction_id)
        headers = {"ce-id": transaction.transaction_id}
        headers |= {name: extensions[name] for name in ("traceparent", "tracestate") if name in extensions}
        with stage("model"):
            scored = await self._model.score(transaction, headers)
        outcome = self._policy.decide(scored.probability, transaction.amount_minor)
        reasons: list[Contribution] = []
        if outcome is not Outcome.APPROVE:
            with stage("reasons"):
                reasons = await self._model.reasons(scored.features, headers)
        decision = self._decision(transaction, scored, outcome, reasons, requested_at(event, arrival))
        _observe(decision, arrival)
        return CloudEvent(
            id=transaction.transaction_id,
            source=SOURCE_DECIDE,
            type=DECIDED,
            subject=transaction.transaction_id,
            time=decision.decided_at.isoformat(),
            datacontenttype="application/json",
            extensions=extensions,
            data=msgspec.json.encode(Decided(decision, transaction, scored.features, scored.features_hash)),
        )

    def _decision(
        self,
        transaction: Transaction,
        scored: Scored,
        outcome: Outcome,
        reasons: list[Contribution],
        requested: datetime,
    ) -> Decision:
        strongest = sorted(reasons, key=lambda reason: -abs(reason.contribution))[: self._settings.reasons]
        decided = datetime.now(UTC)
        return Decision(
            transaction_id=transaction.transaction_id,
            outcome=outcome,
            probability=scored.probability,
            reasons=strongest,
            model=scored.model,
            policy_version=self._policy.version,
            features_as_of=scored.features_as_of,
            degraded=scored.degraded_why is not None,
            degraded_why=scored.degraded_why,
            requested_at=requested,
            decided_at=decided,
            latency_ms=round((decided - requested).total_seconds() * 1000, 3),
        )


def _is_transaction(event: CloudEvent) -> bool:
    if event.type == KAFKA_EVENT:
        return event.extensions.get("stream") == "transactions"
    return event.type == REQUESTED


def _observe(decision: Decision, arrival: datetime) -> None:
    degraded = "true" if decision.degraded else "false"
    DECISIONS.labels(decision.outcome.value, decision.model.version, degraded).inc()
    DECISION_SECONDS.observe(decision.latency_ms / 1000)
    STAGE_SECONDS.labels("queue").observe((arrival - decision.requested_at).total_seconds())

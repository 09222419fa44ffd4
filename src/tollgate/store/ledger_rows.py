"""A decision as a row of the ledger and back.

In: `Decided`, or a row that `READ` selected. Out: the JSON object that the ledger's one statement writes; `Decided`,
`Decision`. Used by `tollgate.store.ledger` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date
from typing import Any, Final

import msgspec

from tollgate.decision import Contribution, Decided, Decision, Model, Outcome
from tollgate.transaction import Transaction

KINDS: Final = {
    "occurred_on": "date", "transaction_id": "text", "customer_id": "text", "terminal_id": "text",
    "amount_minor": "bigint", "currency": "text", "occurred_at": "timestamptz", "channel": "text", "country": "text",
    "outcome": "text", "probability": "float8", "features": "float8[]", "features_hash": "text", "reasons": "jsonb",
    "model_name": "text", "model_version": "text", "model_revision": "text", "model_role": "text",
    "policy_version": "text", "features_as_of": "timestamptz", "degraded": "boolean", "degraded_why": "text",
    "requested_at": "timestamptz", "decided_at": "timestamptz", "latency_ms": "float8",
}  # fmt: skip
"""The columns that are written and read, in this order, and their types."""
COLUMNS = ", ".join(KINDS)
TYPED = ", ".join(f"{name} {kind}" for name, kind in KINDS.items())
READ = "SELECT " + ", ".join("l.reasons::text" if name == "reasons" else f"l.{name}" for name in KINDS)
BY_ID = " FROM ledger_ids i JOIN ledger l ON l.occurred_on = i.occurred_on AND l.transaction_id = i.transaction_id"


def day(transaction: Transaction) -> date:
    """The UTC day whose partition holds it."""
    return transaction.occurred_at.astimezone(UTC).date()


def stored(decision: Decision) -> Decision:
    """The decision as the ledger gives it back, to the byte: times in UTC, no negative zero (numeric has none)."""
    as_of = decision.features_as_of
    return msgspec.structs.replace(
        decision,
        probability=decision.probability + 0.0,
        reasons=[Contribution(r.feature, r.value + 0.0, r.contribution + 0.0) for r in decision.reasons],
        features_as_of=None if as_of is None else as_of.astimezone(UTC),
        requested_at=decision.requested_at.astimezone(UTC),
        decided_at=decision.decided_at.astimezone(UTC),
        latency_ms=decision.latency_ms + 0.0,
    )


def document(decided: Decided, body_hash: bytes) -> dict[str, Any]:
    """What `json_to_recordset` makes a row of: the columns of `KINDS` and `body_hash`."""
    t, d = decided.transaction, decided.decision
    return {
        "body_hash": f"\\x{body_hash.hex()}",
        "occurred_on": day(t), "transaction_id": t.transaction_id, "customer_id": t.customer_id,
        "terminal_id": t.terminal_id, "amount_minor": t.amount_minor, "currency": t.currency,
        "occurred_at": t.occurred_at, "channel": t.channel, "country": t.country,
        "outcome": d.outcome, "probability": d.probability, "features": decided.features,
        "features_hash": decided.features_hash, "reasons": d.reasons,
        "model_name": d.model.name, "model_version": d.model.version,
        "model_revision": d.model.revision, "model_role": d.model.role,
        "policy_version": d.policy_version, "features_as_of": d.features_as_of,
        "degraded": d.degraded, "degraded_why": d.degraded_why,
        "requested_at": d.requested_at, "decided_at": d.decided_at, "latency_ms": d.latency_ms,
    }  # fmt: skip


def read_decision(row: Sequence[Any]) -> Decision:
    """The decision in a row of `READ` (more columns may follow)."""
    outcome, probability, _, _, reasons, *model = row[9:18]
    policy_version, as_of, degraded, why, requested, decided, latency = row[18:25]
    return Decision(
        transaction_id=row[1],
        outcome=Outcome(outcome),
        probability=probability,
        reasons=msgspec.json.decode(reasons, type=list[Contribution]),
        model=Model(*model),
        policy_version=policy_version,
        features_as_of=as_of,
        degraded=degraded,
        degraded_why=why,
        requested_at=requested,
        decided_at=decided,
        latency_ms=latency,
    )


def read_decided(row: Sequence[Any]) -> Decided:
    """The decision in a row of `READ` with what it was made from."""
    return Decided(read_decision(row), Transaction(*row[1:9]), row[11], row[12])

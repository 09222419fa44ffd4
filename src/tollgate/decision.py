"""A decision: what Tollgate says about a transaction, and why.

In: the model's answer and the policy's outcome. Out: the data of `transaction.decided` (`Decided`, everything the
ledger keeps) and of `transaction.recorded` (`Decision`, what the payment system consumes).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from tollgate.transaction import Transaction


class Outcome(StrEnum):
    """What happens to the transaction."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


class Contribution(msgspec.Struct, frozen=True):
    """One reason: a feature, its value, and how far it moved the score (log-odds, TreeSHAP)."""

    feature: str
    value: float
    contribution: float


class Model(msgspec.Struct, frozen=True):
    """Which model answered: registered name and version, the revision that served it and that revision's role."""

    name: str
    version: str
    revision: str
    role: str


class Decision(msgspec.Struct, frozen=True):
    """The decision as the payment system sees it. `latency_ms` is from the transaction's arrival to the decision."""

    transaction_id: str
    outcome: Outcome
    probability: float
    reasons: list[Contribution]
    model: Model
    policy_version: str
    features_as_of: datetime | None
    degraded: bool
    degraded_why: str | None
    requested_at: datetime
    decided_at: datetime
    latency_ms: float


class Decided(msgspec.Struct, frozen=True):
    """A decision with what it was made from: the data of `dev.tollgate.transaction.decided`, for the ledger."""

    decision: Decision
    transaction: Transaction
    features: list[float]
    features_hash: str

"""The state document: everything the page shows, once a second, and the details of one decision.

In: `Flow`, `Lookup`, the supervisor's report. Out: plain dictionaries for JSON. No address of the database and no
secret is in them; texts that came with events are cut to a length, and are data, never markup.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from tollgate import features
from tollgate.dead_letters import DeadLetter
from tollgate.decision import Decided, Decision
from tollgate.local import health, parts
from tollgate.local.console.flow import Flow
from tollgate.local.console.lookup import Lookup
from tollgate.local.layout import Layout, checkout
from tollgate.policy import Policy

_LONGEST = 300
GUIDE = "/guide"
_LINKS = ("v2", "mlflow", "broker")
_TRIGGER = "knative-trigger-tollgate-"


def document(layout: Layout, report: health.Report, flow: Flow, lookup: Lookup, after: int = 0) -> dict[str, Any]:
    """The whole page; `history` holds the steps after number `after` (see `Ring.columns`)."""
    snapshot = flow.snapshot()
    lag = lag_by_part(snapshot.lag)
    return {
        "at": time.time(),
        "began_at": flow.began_at,
        "root_cause": report.root_cause,
        "parts": [_part(row, lag) for row in report.rows],
        "flow": {
            "trouble": flow.trouble,
            "decided": snapshot.decided,
            "outcomes": {str(outcome): count for outcome, count in snapshot.outcomes.items()},
            "rate": snapshot.rate,
            "p50_ms": snapshot.p50_ms,
            "p99_ms": snapshot.p99_ms,
            "dead": snapshot.dead,
            "lag": sum(snapshot.lag.values()),
        },
        "serving": {
            "models": [{**msgspec.to_builtins(model), "share": share} for model, share in flow.serving()],
            "policy_version": flow.policy_version(),
        },
        "ledger_trouble": lookup.trouble,
        "flagged": [_flagged(decision, lookup) for decision in flow.flagged()],
        "dead_letters": [_letter(letter) for letter in flow.dead_letters()],
        "links": _links(layout),
        "history": flow.ring.columns(after),
    }


def details(decided: Decided, labels: Mapping[str, bool], policy: Policy) -> dict[str, Any]:
    """One decision as the ledger holds it: features by name, labels, and what each outcome was expected to cost.

    Names are None when the decision was made with another list of features than this code's, costs when it was made
    under another policy.
    """
    known = decided.features_hash == features.digest()
    names = features.names() if known else (None,) * len(decided.features)
    same_policy = decided.decision.policy_version == policy.version
    costs = policy.costs(decided.decision.probability, decided.transaction.amount_minor)
    return {
        "decision": msgspec.to_builtins(decided.decision),
        "transaction": msgspec.to_builtins(decided.transaction),
        "features": [{"name": name, "value": value} for name, value in zip(names, decided.features, strict=False)],
        "features_hash": decided.features_hash,
        "labels": dict(labels),
        "costs": {str(outcome): cost for outcome, cost in costs.items()} if same_policy else None,
    }


def lag_by_part(groups: Mapping[str, int]) -> dict[str, int]:
    """Records still to handle, by the part that handles them: a function's Triggers count as the function's."""
    found: dict[str, int] = {}
    for group, lag in groups.items():
        trigger = group.removeprefix(_TRIGGER).partition("-")[0] if group.startswith(_TRIGGER) else ""
        part = trigger if trigger in parts.FUNCTIONS else "dispatcher"
        found[part] = found.get(part, 0) + lag
    return found


def _part(row: Mapping[str, Any], lag: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": row["part"],
        "state": row["state"],
        "level": _level(row),
        "restarts": row["restarts"],
        "pid": row["pid"],
        "up_seconds": row["up_seconds"],
        "note": _cut(row["note"]),
        "last_exit": _cut(row["last_exit"]),
        "lag": lag.get(row["part"]),
    }


def _level(row: Mapping[str, Any]) -> str:
    if row["state"] == "ready":
        return "warn" if row["note"] else "ok"
    return "warn" if row["state"] in ("pending", "starting") else "bad"


def _links(layout: Layout) -> list[dict[str, str]]:
    found = {name: url for name, url in health.urls(layout).items() if name in _LINKS}
    if checkout() is not None:
        found["guide"] = f"{layout.url('console')}{GUIDE}"
    return [{"name": name, "url": url} for name, url in found.items()]


def _flagged(decision: Decision, lookup: Lookup) -> dict[str, Any]:
    transaction = lookup.transaction(decision.transaction_id)
    return {
        "transaction_id": decision.transaction_id,
        "outcome": str(decision.outcome),
        "probability": decision.probability,
        "decided_at": decision.decided_at.timestamp(),
        "reasons": msgspec.to_builtins(decision.reasons),
        "amount_minor": transaction.amount_minor if transaction else None,
        "currency": transaction.currency if transaction else None,
        "customer_id": transaction.customer_id if transaction else None,
        "terminal_id": transaction.terminal_id if transaction else None,
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "position": letter.position,
        "at": letter.at.timestamp(),
        "reason": _cut(letter.reason),
        "detail": _cut(letter.detail),
        "origin": _cut(letter.origin),
    }


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."

"""The screen and its plain line say the same: how much, how fast, and why something was declined."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from tollgate.decision import Contribution, Decision, Model, Outcome
from tollgate.local.view import PartLine, because, line, screen
from tollgate.local.watch import Snapshot

DECLINED = Decision(
    transaction_id="t-7",
    outcome=Outcome.DECLINE,
    probability=0.93,
    reasons=[Contribution("amount", 912.5, 2.75), Contribution("terminal_fraud_rate_7d", 0.5, 1.5)],
    model=Model("fraud", "1", "fraud-predictor-00001", "champion"),
    policy_version="2026-11+0",
    features_as_of=None,
    degraded=False,
    degraded_why=None,
    requested_at=datetime(2026, 1, 1, tzinfo=UTC),
    decided_at=datetime(2026, 1, 1, tzinfo=UTC),
    latency_ms=12.0,
)
SNAPSHOT = Snapshot(
    outcomes={Outcome.APPROVE: 97, Outcome.DECLINE: 3},
    dead={"conflict": 2},
    rate=48.0,
    p50_ms=11.0,
    p99_ms=40.0,
    flagged=[DECLINED],
    lag={"trigger": 5},
    trouble=None,
)


def test_the_line_counts_everything() -> None:
    text = line(SNAPSHOT, sent=105)
    assert "105 sent, 100 decided (97 approved, 0 to review, 3 declined), 2 dead-lettered, 48/s" in text
    assert "p99 40 ms, lag 5" in text


def test_a_reason_has_its_feature_value_and_direction() -> None:
    assert because(DECLINED) == "amount = 912.5 (+2.75), terminal_fraud_rate_7d = 0.5 (+1.50)"


def test_the_screen_shows_the_declined_transaction_and_the_sick_part() -> None:
    console = Console(width=140, record=True, file=None, force_terminal=False)
    parts = [PartLine("kafka", "ready", 0), PartLine("model", "restarting", 2)]
    with console.capture() as captured:
        console.print(screen(SNAPSHOT, parts, 105, 60, {"broker": "http://b"}, "tollgate status"))
    text = captured.get()
    for expected in ("t-7", "terminal_fraud_rate_7d", "model restarting", "↻2", "http://b", "tollgate status"):
        assert expected in text

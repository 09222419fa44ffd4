"""A transaction on Kafka becomes a decision with reasons; everything is accounted for, whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from typing import Any

import pytest

from kit.platform import Run, RunningPlatform
from tollgate import dead_letters, topics
from tollgate.decision import Outcome
from tollgate.errors import Reason
from tollgate.local.parts import FUNCTIONS
from tollgate.simulator.mix import Mix
from tollgate.store import ledger
from tollgate.store.connection import connect

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PARTS = ("postgres", "kafka", "model", "gateway", *FUNCTIONS, "dispatcher", "spark", "console", "mlflow")


def test_every_record_is_decided_once_or_dead_lettered_with_its_reason(platform: RunningPlatform) -> None:
    run = platform.stream(2_000, rate=300, mix=Mix(duplicates=100, malformed=50, conflicts=20))
    summary = platform.settle(run)
    assert summary.problems == []
    assert summary.in_ledger == summary.on_topic == 2_000
    assert sum(summary.outcomes.values()) == 2_000
    assert summary.dead[Reason.CONFLICT] == 20
    expected = {**run.sent.malformed_reasons, Reason.CONFLICT: 20}
    assert dict(summary.dead) == expected
    assert summary.labelled == 2_000


def test_flagged_transactions_carry_reasons_and_approved_ones_do_not(platform: RunningPlatform) -> None:
    run = platform.stream(500, rate=0)
    assert platform.settle(run).problems == []
    connection = connect(platform.layout.database_url().reveal(), application="test")
    try:
        decided = ledger.decisions(connection, platform.ids(run))
    finally:
        connection.close()
    for decision in decided.values():
        assert decision.policy_version
        assert decision.model.name == "fraud"
        assert decision.model.version == "1"
        assert decision.degraded is False
        assert (decision.outcome is Outcome.APPROVE) == (decision.reasons == [])
    assert any(decision.reasons for decision in decided.values())


def test_the_same_exact_counts_while_every_part_is_killed_in_turn(platform: RunningPlatform) -> None:
    """kill -9 of each part while transactions flow: nothing lost, nothing twice, nothing approved unseen."""
    mix = Mix(duplicates=200, malformed=50, conflicts=20)
    done: list[Run] = []
    streaming = threading.Thread(target=lambda: done.append(platform.stream(5_000, rate=110, mix=mix)))
    streaming.start()
    killed = []
    for part in PARTS:
        time.sleep(3)
        assert streaming.is_alive(), f"the stream ended before {part} was killed"
        platform.kill(part)
        killed.append(part)
    streaming.join()
    assert killed == list(PARTS)
    platform.wait_ready()
    summary = platform.settle(done[0])
    assert summary.problems == []
    assert {name for name, row in platform.parts().items() if row["restarts"]} >= set(PARTS)


def test_an_event_posted_to_the_broker_takes_the_same_way(platform: RunningPlatform) -> None:
    transaction = _transaction("posted-1")
    assert _post(platform, transaction, "dev.tollgate.transaction.requested", "posted-1") == 202
    decision = _wait_decision(platform, "posted-1")
    assert decision["transaction"]["customer_id"] == transaction["customer_id"]
    copies = [r for r in topics.read(platform.layout.kafka_bootstrap, topics.POSTED) if b"posted-1" in r.value]
    assert len(copies) == 1, "Spark must see what was posted"


def test_an_unknown_event_type_is_dead_lettered(platform: RunningPlatform) -> None:
    assert _post(platform, _transaction("unknown-1"), "com.example.surprise", "unknown-1") == 202
    letter = _wait_letter(platform, "unknown-1")
    assert letter.reason == Reason.UNKNOWN_EVENT_TYPE


def test_nothing_is_decided_while_the_model_server_is_away(platform: RunningPlatform) -> None:
    """A stopped (not killed) server does not answer: deliveries time out, wait, and succeed once it is back."""
    pid = platform.pid("model")
    _signal(pid, "STOP")
    try:
        assert _post(platform, _transaction("waits-1"), "dev.tollgate.transaction.requested", "waits-1") == 202
        time.sleep(4)
        assert platform.cli("explain", "waits-1", check=False).returncode == 1
    finally:
        _signal(pid, "CONT")
    assert _wait_decision(platform, "waits-1")["outcome"] in set(Outcome)


def test_the_command_line_explains_lists_and_scores(platform: RunningPlatform) -> None:
    score = json.loads(platform.cli("score", "-o", "json", stdin=json.dumps(_transaction("score-1"))).stdout)[0]
    assert 0 <= score["probability"] <= 1
    assert score["reasons"]
    letters = json.loads(platform.cli("dlq", "list", "-o", "json").stdout)
    assert letters
    shown = json.loads(platform.cli("dlq", "show", letters[0]["position"], "-o", "json").stdout)[0]
    assert shown["reason"] == letters[0]["reason"]
    env = platform.cli("status", "-o", "env").stdout
    assert f"export TOLLGATE_BROKER_URL='{platform.layout.broker_url}'" in env


def test_a_replayed_dead_letter_is_handled_again(platform: RunningPlatform) -> None:
    assert (
        _post(platform, _transaction("replay-1") | {"amount_minor": -5}, "dev.tollgate.transaction.requested", "r")
        == 202
    )
    letter = _wait_letter(platform, "replay-1")
    assert letter.reason == Reason.INVALID_FIELD
    before = topics.ends(platform.layout.kafka_bootstrap, topics.DEAD_LETTERS)
    platform.cli("dlq", "replay", letter.position)
    again = _wait_letter(platform, "replay-1", before)
    assert (again.reason, again.origin) == (letter.reason, letter.origin)


def test_a_second_up_is_refused_with_what_to_do(platform: RunningPlatform) -> None:
    refused = platform.cli("up", check=False)
    assert refused.returncode != 0
    assert "tollgate down" in refused.stderr


def test_status_names_one_root_cause(platform: RunningPlatform) -> None:
    assert platform.cli("status").stdout
    pid = platform.kill("postgres")
    seen = platform.cli("status", check=False)
    platform.wait_ready()
    assert pid != platform.pid("postgres")
    if seen.returncode:  # it may already have been back
        assert "postgres is" in seen.stderr


def _transaction(transaction_id: str) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id,
        "customer_id": "c-00007",
        "terminal_id": "m-00007",
        "amount_minor": 48_000,
        "currency": "EUR",
        "occurred_at": "2026-05-01T03:00:00Z",
    }


def _post(platform: RunningPlatform, data: dict[str, Any], kind: str, event_id: str) -> int:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": kind,
        "ce-source": "/tests",
        "ce-id": event_id,
        "content-type": "application/json",
    }
    request = urllib.request.Request(platform.layout.broker_url, json.dumps(data).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def _wait_decision(platform: RunningPlatform, transaction_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        done = platform.cli("explain", transaction_id, "-o", "json", check=False)
        if done.returncode == 0:
            row: dict[str, Any] = json.loads(done.stdout)[0]
            return row
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.3)


def _wait_letter(platform: RunningPlatform, text: str, start: dict[int, int] | None = None) -> dead_letters.DeadLetter:
    deadline = time.monotonic() + 60
    while True:
        records = topics.read(platform.layout.kafka_bootstrap, topics.DEAD_LETTERS, start)
        for letter in map(dead_letters.read, records):
            if text.encode() in letter.event.data or letter.event.id == text:
                return letter
        assert time.monotonic() < deadline, f"no dead letter with {text}"
        time.sleep(0.3)


def _signal(pid: int, name: str) -> None:
    os.kill(pid, getattr(signal, f"SIG{name}"))

"""The state document: what the page is told, made from real decisions, without Kafka or Postgres."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from kit.events import decided, transaction
from tollgate import features, policy
from tollgate.dead_letters import DeadLetter
from tollgate.decision import Contribution, Decided, Model, Outcome
from tollgate.events import CloudEvent
from tollgate.local import health, parts
from tollgate.local.console.flow import FLAGGED, Flow
from tollgate.local.console.lookup import Lookup
from tollgate.local.console.state import details, document, lag_by_part
from tollgate.local.layout import Layout
from tollgate.settings import Secret

NOTHING = health.Report([], None)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, 2_000)


@pytest.fixture
def flow() -> Flow:
    return Flow("127.0.0.1:1")


@pytest.fixture
def lookup(layout: Layout) -> Lookup:
    return Lookup(Secret(layout.database_url().reveal()))


def row(part: str, state: str, note: str | None = None) -> dict[str, object]:
    return {
        "part": part,
        "state": state,
        "restarts": 2,
        "pid": 7,
        "url": "http://127.0.0.1:2011",
        "up_seconds": 3,
        "seconds_to_ready": 1.0,
        "last_exit": None,
        "log": "/somewhere/decide.log",
        "note": note,
    }


def test_flagged_transactions_come_newest_first_each_once_and_approvals_not(
    layout: Layout, flow: Flow, lookup: Lookup
) -> None:
    made = [decided(transaction(), outcome=Outcome.REVIEW).decision for _ in range(FLAGGED + 3)]
    for decision in made:
        flow.decided(decision)
    flow.decided(made[-1])
    flow.decided(decided(transaction(), outcome=Outcome.APPROVE).decision)
    shown = document(layout, NOTHING, flow, lookup)["flagged"]
    assert [each["transaction_id"] for each in shown] == [each.transaction_id for each in reversed(made)][:FLAGGED]
    assert shown[0]["amount_minor"] is None


def test_both_models_of_a_canary_show_with_their_shares(layout: Layout, flow: Flow, lookup: Lookup) -> None:
    for number in range(10):
        model = Model("fraud", "4", "fraud-00004", "canary") if number == 0 else Model("fraud", "3", "r3", "champion")
        flow.decided(decided(transaction(), model=model).decision)
    serving = document(layout, NOTHING, flow, lookup)["serving"]
    assert [(each["version"], each["role"], each["share"]) for each in serving["models"]] == [
        ("3", "champion", 0.9),
        ("4", "canary", 0.1),
    ]
    assert serving["policy_version"] == "2026-11+abcdef12"


def test_a_part_is_green_amber_or_red(layout: Layout, flow: Flow, lookup: Lookup) -> None:
    rows = [
        row("kafka", "ready"),
        row("model", "ready", "answers 503"),
        row("spark", "starting"),
        row("decide", "restarting"),
        row("mlflow", "failed"),
    ]
    state = document(layout, health.Report(rows, "decide is restarting"), flow, lookup)
    assert [part["level"] for part in state["parts"]] == ["ok", "warn", "warn", "bad", "bad"]
    assert state["root_cause"] == "decide is restarting"


def test_lag_of_a_trigger_counts_for_its_function_and_the_rest_for_the_dispatcher() -> None:
    found = lag_by_part(
        {
            "knative-trigger-tollgate-decide": 3,
            "knative-trigger-tollgate-record": 4,
            "knative-trigger-tollgate-decisions": 5,
            "tollgate-source-transactions": 6,
        }
    )
    assert found == {"decide": 3, "record": 4, "dispatcher": 11}


def test_no_secret_no_database_address_and_no_path_of_the_machine_is_in_it(
    layout: Layout, flow: Flow, lookup: Lookup
) -> None:
    report = health.Report([row("decide", "ready")], None)
    text = json.dumps(document(layout, report, flow, lookup))
    assert layout.database_password() not in text
    assert "postgres" not in text
    assert "/somewhere" not in text


def test_before_kafka_is_there_the_document_says_so(layout: Layout, flow: Flow, lookup: Lookup) -> None:
    state = document(layout, NOTHING, flow, lookup)
    assert state["flow"]["trouble"] == "Kafka is not there yet"
    assert state["flow"]["decided"] == 0


def test_a_long_text_of_a_dead_letter_is_cut(layout: Layout, flow: Flow, lookup: Lookup) -> None:
    event = CloudEvent(id="1", source="/s", type="t")
    flow.dead(DeadLetter("0/1", datetime.now(UTC), "conflict", "x" * 10_000, 422, None, "transactions/0/1", event))
    (letter,) = document(layout, NOTHING, flow, lookup)["dead_letters"]
    assert len(letter["detail"]) < 400
    assert (letter["reason"], letter["origin"]) == ("conflict", "transactions/0/1")


def test_details_name_each_feature_and_the_cheapest_outcome_is_the_one_taken() -> None:
    rules = policy.load()
    of = transaction(amount_minor=50_000)
    made = decided(of, probability=0.3, outcome=rules.decide(0.3, 50_000), policy_version=rules.version)
    values = [float(number) for number in range(len(features.FEATURES))]
    made = Decided(made.decision, of, values, features.digest())
    shown = details(made, {"chargeback": True}, rules)
    assert [(each["name"], each["value"]) for each in shown["features"]] == list(
        zip(features.names(), values, strict=True)
    )
    assert min(shown["costs"], key=shown["costs"].__getitem__) == shown["decision"]["outcome"]
    assert shown["labels"] == {"chargeback": True}


def test_details_of_another_time_say_what_is_not_known_instead_of_guessing() -> None:
    made = decided(transaction())
    shown = details(made, {}, policy.load())
    assert shown["costs"] is None
    assert [each["name"] for each in shown["features"]] == [None, None, None]
    assert [each["value"] for each in shown["features"]] == made.features


def test_hostile_texts_stay_what_they_are(layout: Layout, flow: Flow, lookup: Lookup) -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = decided(transaction(), reasons=[Contribution(evil, 1.0, 1.0)]).decision
    flow.decided(msgspec.structs.replace(made, transaction_id=evil))
    (shown,) = document(layout, NOTHING, flow, lookup)["flagged"]
    assert shown["transaction_id"] == evil
    assert shown["reasons"][0]["feature"] == evil


def test_the_part_gets_what_the_process_reads_and_waits_for_nobody(layout: Layout) -> None:
    part = parts.console(layout)
    assert part.depends_on == ()
    assert set(part.env) == {
        "TOLLGATE_HOME",
        "TOLLGATE_PORT_BASE",
        "TOLLGATE_KAFKA_BOOTSTRAP",
        "TOLLGATE_DATABASE_URL",
    }
    assert layout.url("console") == "http://127.0.0.1:2000"

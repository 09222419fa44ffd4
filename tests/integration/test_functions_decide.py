"""decide as its own process, between real HTTP neighbours: what it answers, asks and counts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from kit import events, v2_server
from kit.function_process import ROOT, Answer, FunctionProcess, command, environment, start
from kit.ports import free_port
from kit.v2_server import ModelServer
from tollgate import policy
from tollgate.decision import Decided, Outcome
from tollgate.events import DECIDED, REQUESTED, CloudEvent, to_http, to_http_structured
from tollgate.local.layout import Layout
from tollgate.transaction import MAX_BYTES

pytestmark = pytest.mark.integration

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
APPROVED, REVIEWED, DECLINED = 1_000, 10_000, 90_000


@pytest.fixture(scope="module")
def python() -> Path:
    return environment(Layout.resolve())


@pytest.fixture(scope="module")
def served(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FunctionProcess, ModelServer]]:
    with ModelServer() as server:
        settings = {"TOLLGATE_MODEL_URL": server.url, "TOLLGATE_MODEL_TIMEOUT_MS": "20000"}
        with FunctionProcess(python, "decide", settings, tmp_path_factory.mktemp("decide")) as process:
            yield process, server


@pytest.fixture
def model(served: tuple[FunctionProcess, ModelServer]) -> Iterator[ModelServer]:
    server = served[1]
    before = dict(server.parameters)
    server.asked.clear()
    yield server
    server.misbehave = None
    server.parameters = before


@pytest.fixture
def decide(served: tuple[FunctionProcess, ModelServer], model: ModelServer) -> FunctionProcess:
    return served[0]


def transaction_event(**fields: Any) -> CloudEvent:
    return events.from_kafka_source(json.dumps(events.body(**fields)).encode())


def reason(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["reason"]


def read(answer: Answer) -> Decided:
    assert answer.status == 200, answer
    return msgspec.json.decode(answer.event().data, type=Decided)


@pytest.mark.parametrize("amount", [APPROVED, REVIEWED, DECLINED])
def test_the_outcome_is_what_the_policy_says_about_the_models_probability(decide: FunctionProcess, amount: int) -> None:
    body = events.body(amount_minor=amount, channel="online")
    (answer,) = decide.deliver(events.from_kafka_source(json.dumps(body).encode()))
    made = read(answer)
    rules = policy.load()
    assert made.decision.probability == v2_server.probability(amount)
    assert made.decision.outcome is rules.decide(v2_server.probability(amount), amount)
    assert made.decision.policy_version == rules.version
    assert made.transaction == events.transaction(**body)
    assert made.features == v2_server.features(amount)
    assert made.features_hash == v2_server.FEATURES_HASH
    assert (made.decision.degraded, made.decision.degraded_why) == (False, None)


def test_the_amounts_of_these_tests_have_three_different_outcomes() -> None:
    rules = policy.load()
    made = [rules.decide(v2_server.probability(amount), amount) for amount in (APPROVED, REVIEWED, DECLINED)]
    assert made == [Outcome.APPROVE, Outcome.REVIEW, Outcome.DECLINE]


def test_the_reply_is_the_contracts_decided_event(decide: FunctionProcess) -> None:
    event = transaction_event(transaction_id="t-reply").with_extensions({"traceparent": TRACE})
    (answer,) = decide.deliver(event)
    reply = answer.event()
    assert (reply.type, reply.source, reply.id, reply.subject) == (DECIDED, "/tollgate/decide", "t-reply", "t-reply")
    assert reply.datacontenttype == "application/json"
    assert reply.extensions == {
        "correlationid": "t-reply",
        "partitionkey": "t-reply",
        "origin": "transactions/3/5",
        "traceparent": TRACE,
    }


def test_the_decision_names_the_model_that_made_it(decide: FunctionProcess, model: ModelServer) -> None:
    champion, challenger = transaction_event(), transaction_event()
    one = read(decide.deliver(champion)[0]).decision
    model.parameters |= {"role": "challenger", "model_version": "8"}
    two = read(decide.deliver(challenger)[0]).decision
    assert msgspec.to_builtins(one.model) == {
        "name": "fraud",
        "version": "7",
        "revision": "fraud-00007",
        "role": "champion",
    }
    assert (two.model.version, two.model.role) == ("8", "challenger")
    assert one.features_as_of == datetime(2026, 5, 1, 11, 59, 58, tzinfo=UTC)


def test_a_model_that_could_only_half_see_makes_a_degraded_decision(
    decide: FunctionProcess, model: ModelServer
) -> None:
    model.parameters["degraded_why"] = "tiles are 2 h old"
    del model.parameters["features_as_of"]
    decision = read(decide.deliver(transaction_event())[0]).decision
    assert (decision.degraded, decision.degraded_why, decision.features_as_of) == (True, "tiles are 2 h old", None)


def test_the_request_began_when_kafka_took_the_record(decide: FunctionProcess) -> None:
    decision = read(decide.deliver(transaction_event())[0]).decision
    assert decision.requested_at == datetime(2026, 5, 1, 12, 0, 1, 500_000, tzinfo=UTC)
    expected = (decision.decided_at - decision.requested_at).total_seconds() * 1000
    assert decision.latency_ms == pytest.approx(expected, abs=0.001)


def test_a_posted_request_began_when_it_arrived_whatever_its_sender_claims(decide: FunctionProcess) -> None:
    sent = datetime.now(UTC)
    event = CloudEvent(
        id="call-1",
        source="/shop",
        type=REQUESTED,
        time="2020-01-01T00:00:00Z",
        datacontenttype="application/json",
        data=json.dumps(events.body()).encode(),
    )
    (answer,) = decide.deliver(event)
    assert read(answer).decision.requested_at >= sent
    assert answer.event().extensions["origin"] == "/shop#call-1"


def test_structured_mode_is_understood(decide: FunctionProcess) -> None:
    (answer,) = decide.post(to_http_structured(transaction_event(amount_minor=REVIEWED)))
    assert read(answer).decision.outcome is Outcome.REVIEW


def test_an_approval_asks_the_model_once_and_carries_no_reasons(decide: FunctionProcess, model: ModelServer) -> None:
    made = read(decide.deliver(transaction_event(amount_minor=APPROVED))[0])
    assert made.decision.reasons == []
    assert [each.model for each in model.asked] == ["fraud"]


@pytest.mark.parametrize("amount", [REVIEWED, DECLINED])
def test_a_review_or_a_decline_carries_the_strongest_reasons_about_the_same_features(
    decide: FunctionProcess, model: ModelServer, amount: int
) -> None:
    made = read(decide.deliver(transaction_event(amount_minor=amount))[0])
    assert [(r.feature, r.contribution) for r in made.decision.reasons] == [
        ("five", -5.0),
        ("four", 4.0),
        ("three", -3.0),
        ("two", 2.0),
    ]
    assert [each.model for each in model.asked] == ["fraud", "fraud-features"]
    assert model.asked[1].body["inputs"][0]["data"] == made.features


def test_the_model_is_asked_in_v2_with_the_id_that_keeps_it_sticky(decide: FunctionProcess, model: ModelServer) -> None:
    event = transaction_event(transaction_id="t-sticky", amount_minor=DECLINED, occurred_at="2026-05-01T14:00:00+02:00")
    decide.deliver(event.with_extensions({"traceparent": TRACE}))
    for each in model.asked:
        assert each.headers["ce-id"] == "t-sticky"
        assert each.headers["traceparent"] == TRACE
    first = model.asked[0].body
    assert {t["name"]: (t["datatype"], t["shape"], t["data"]) for t in first["inputs"]} == {
        "transaction_id": ("BYTES", [1], ["t-sticky"]),
        "customer_id": ("BYTES", [1], ["c-1"]),
        "terminal_id": ("BYTES", [1], ["m-1"]),
        "amount_minor": ("INT64", [1], [DECLINED]),
        "occurred_at": ("BYTES", [1], ["2026-05-01T12:00:00Z"]),
    }
    assert [each["name"] for each in first["outputs"]] == ["probability", "features"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"transaction_id": ', "malformed_json"),
        (b"", "malformed_json"),
        (b"[1]", "malformed_json"),
        (b"\xff\xfe", "malformed_json"),
        (json.dumps(events.body(currency=None)).encode(), "missing_field"),
        (json.dumps(events.body(amount_minor=-1)).encode(), "invalid_field"),
        (json.dumps(events.body(customer_id="4111111111111111")).encode(), "card_number"),
        (json.dumps(events.body(note="x" * MAX_BYTES)).encode(), "oversize"),
        (b"x" * 300_000, "oversize"),
    ],
)
def test_a_hopeless_transaction_is_answered_422_with_its_reason_and_counted(
    decide: FunctionProcess, model: ModelServer, data: bytes, expected: str
) -> None:
    sample = f'tollgate_dead_letters_total{{reason="{expected}"}}'
    before = decide.metric(sample)
    (answer,) = decide.deliver(events.from_kafka_source(data))
    assert reason(answer) == (422, expected)
    assert decide.metric(sample) == before + 1
    assert model.asked == []


@pytest.mark.parametrize(
    "event",
    [
        events.from_kafka_source(b"{}", stream="labels"),
        CloudEvent(id="1", source="/x", type="com.example.other", data=b"{}"),
        CloudEvent(id="1", source="/x", type=DECIDED, data=b"{}"),
        CloudEvent(id="1", source="/x", type="com.example.other", extensions={"stream": "transactions"}, data=b"{}"),
    ],
)
def test_an_event_that_is_not_for_decide_is_answered_422(decide: FunctionProcess, event: CloudEvent) -> None:
    assert reason(decide.deliver(event)[0]) == (422, "unknown_event_type")


def _without(header: str) -> tuple[dict[str, str], bytes]:
    headers, body = to_http(transaction_event())
    return {name: value for name, value in headers.items() if name != header}, body


@pytest.mark.parametrize(
    ("message", "expected", "named"),
    [
        (_without("ce-id"), "missing_field", "id"),
        (_without("ce-source"), "missing_field", "source"),
        (_without("ce-type"), "missing_field", "type"),
        (_without("ce-specversion"), "missing_field", "specversion"),
        (({"content-type": "application/json"}, b"[1]"), "missing_field", "specversion"),
        (({**_without("")[0], "ce-specversion": "0.3"}, b"{}"), "invalid_field", "specversion"),
        (({**_without("")[0], "ce-time": "yesterday"}, b"{}"), "invalid_field", "time"),
        (({"content-type": "application/cloudevents+json"}, b"[1]"), "malformed_json", "structured"),
        (({"content-type": "application/cloudevents-batch+json"}, b"[]"), "invalid_field", "batch"),
    ],
)
def test_what_is_no_cloudevent_is_answered_422_saying_why(
    decide: FunctionProcess, message: tuple[dict[str, str], bytes], expected: str, named: str
) -> None:
    (answer,) = decide.post(message)
    assert reason(answer) == (422, expected)
    assert named in json.loads(answer.body)["detail"]


@contextmanager
def misbehaving(model: ModelServer, on: str, status: int, body: str = "") -> Iterator[None]:
    async def respond(asked: str, answer: dict[str, Any]) -> web.Response | None:
        return web.Response(status=status, text=body) if asked == on else None

    model.misbehave = respond
    yield
    model.misbehave = None


@pytest.mark.parametrize("on", ["fraud", "fraud-features"])
@pytest.mark.parametrize("status", [404, 429, 500, 502, 503, 504])
def test_a_model_server_in_trouble_means_try_again(
    decide: FunctionProcess, model: ModelServer, on: str, status: int
) -> None:
    with misbehaving(model, on, status):
        (answer,) = decide.deliver(transaction_event(amount_minor=DECLINED))
    assert reason(answer) == (503, "retryable")
    assert answer.headers["retry-after"] == "1"


def test_an_input_that_the_model_server_refuses_is_a_dead_letter_in_its_words(
    decide: FunctionProcess, model: ModelServer
) -> None:
    with misbehaving(model, "fraud", 400, '{"error": "occurred_at: expected RFC 3339"}'):
        (answer,) = decide.deliver(transaction_event())
    assert reason(answer) == (422, "invalid_field")
    assert "occurred_at: expected RFC 3339" in json.loads(answer.body)["detail"]


def test_a_model_server_that_is_too_slow_means_try_again(python: Path, tmp_path: Path) -> None:
    async def slow(asked: str, answer: dict[str, Any]) -> None:
        await asyncio.sleep(1.0)

    with ModelServer() as server:
        server.misbehave = slow
        settings = {"TOLLGATE_MODEL_URL": server.url, "TOLLGATE_MODEL_TIMEOUT_MS": "300"}
        with FunctionProcess(python, "decide", settings, tmp_path) as process:
            (answer,) = process.deliver(transaction_event())
    assert reason(answer) == (503, "retryable")
    assert "300 ms" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize("bad", ["NaN", "null", "1.5", "-0.1", '"0.1"', "true", "Infinity"])
def test_a_probability_that_is_none_is_never_decided_on(decide: FunctionProcess, model: ModelServer, bad: str) -> None:
    async def lie(asked: str, answer: dict[str, Any]) -> web.Response:
        answer["outputs"][0]["data"] = ["PROBABILITY"]
        return web.Response(text=json.dumps(answer).replace('"PROBABILITY"', bad), content_type="application/json")

    model.misbehave = lie
    assert reason(decide.deliver(transaction_event(amount_minor=APPROVED))[0]) == (503, "retryable")


@pytest.mark.parametrize("missing", ["features_hash", "model_version"])
def test_an_answer_without_its_provenance_is_never_decided_on(
    decide: FunctionProcess, model: ModelServer, missing: str
) -> None:
    del model.parameters[missing]
    assert reason(decide.deliver(transaction_event())[0]) == (503, "retryable")


@pytest.mark.parametrize("text", ["", "<html>", "{}", '{"model_name": "fraud", "outputs": []}'])
def test_an_answer_that_is_not_v2_is_never_decided_on(decide: FunctionProcess, model: ModelServer, text: str) -> None:
    with misbehaving(model, "fraud", 200, text):
        assert reason(decide.deliver(transaction_event())[0]) == (503, "retryable")


def test_decisions_and_their_stages_are_counted(decide: FunctionProcess) -> None:
    samples = [
        'tollgate_decisions_total{degraded="false",model_version="7",outcome="decline"}',
        "tollgate_decision_seconds_count",
        'tollgate_stage_seconds_count{stage="queue"}',
        'tollgate_stage_seconds_count{stage="model"}',
        'tollgate_stage_seconds_count{stage="reasons"}',
    ]
    decide.deliver(transaction_event(amount_minor=DECLINED))
    before = [decide.metric(sample) for sample in samples]
    decide.deliver(transaction_event(amount_minor=DECLINED))
    assert [decide.metric(sample) for sample in samples] == [each + 1 for each in before]


def test_many_at_once_are_each_answered_with_their_own_decision(decide: FunctionProcess) -> None:
    made = [transaction_event(transaction_id=f"t-many-{i}", amount_minor=100 + i) for i in range(200)]
    answers = decide.deliver(*made)
    for i, answer in enumerate(answers):
        decision = read(answer).decision
        assert (decision.transaction_id, decision.probability) == (f"t-many-{i}", v2_server.probability(100 + i))


def test_no_payload_and_no_id_is_in_the_log(decide: FunctionProcess, model: ModelServer) -> None:
    secret = "SECRET-9173"
    decide.deliver(
        events.from_kafka_source(json.dumps(events.body(customer_id=secret, amount_minor=-1)).encode()),
        transaction_event(customer_id=secret),
    )
    with misbehaving(model, "fraud", 503, secret):
        decide.deliver(transaction_event(customer_id=secret))
    log = decide.log.read_text()
    assert "answered 503" in log
    assert secret not in log


def test_a_model_server_that_is_away_means_try_again_until_it_is_back(python: Path, tmp_path: Path) -> None:
    port = free_port()
    with FunctionProcess(python, "decide", {"TOLLGATE_MODEL_URL": f"http://127.0.0.1:{port}"}, tmp_path) as process:
        event = transaction_event()
        for _ in range(2):
            assert reason(process.deliver(event)[0]) == (503, "retryable")
            with ModelServer(port=port):
                assert read(process.deliver(event)[0]).decision.outcome is Outcome.APPROVE


def test_an_image_that_the_func_cli_builds_answers_the_same(python: Path, tmp_path: Path) -> None:
    with ModelServer() as server:
        settings = {"TOLLGATE_MODEL_URL": server.url}
        with FunctionProcess(python, "decide", settings, tmp_path, plain=True) as process:
            declined, malformed = process.deliver(
                transaction_event(amount_minor=DECLINED), events.from_kafka_source(b'{"transaction_id": ')
            )
    assert read(declined).decision.outcome is Outcome.DECLINE
    assert declined.event().extensions["origin"] == "transactions/3/5"
    assert read(declined).decision.requested_at == datetime(2026, 5, 1, 12, 0, 1, 500_000, tzinfo=UTC)
    assert reason(malformed) == (422, "malformed_json")


@pytest.mark.parametrize("name", ["decide", "record", "label"])
def test_each_functions_own_tests_pass_in_its_environment(python: Path, tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    words: list[str | Path] = [python, "-W", "error", "-m", "unittest", "discover", "-s", "tests", "-t", "."]
    assert start(words, {}, log, ROOT / "functions" / name).wait(60) == 0, log.read_text()
    assert "OK" in log.read_text()


def test_another_policy_file_makes_other_decisions(python: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(policy.DEFAULT.read_text().replace("review_cost = 4.0", "review_cost = 4000.0"))
    with ModelServer() as server:
        settings = {"TOLLGATE_MODEL_URL": server.url, "TOLLGATE_POLICY_FILE": str(file), "TOLLGATE_REASONS": "1"}
        with FunctionProcess(python, "decide", settings, tmp_path) as process:
            decision = read(process.deliver(transaction_event(amount_minor=REVIEWED))[0]).decision
            declined = read(process.deliver(transaction_event(amount_minor=DECLINED))[0]).decision
    assert decision.outcome is policy.load(file).decide(0.1, REVIEWED) is not Outcome.REVIEW
    assert decision.policy_version == policy.load(file).version
    assert len(declined.reasons) == 1


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("decide", {}, "TOLLGATE_MODEL_URL is not set"),
        ("record", {}, "TOLLGATE_DATABASE_URL is not set"),
        ("label", {}, "TOLLGATE_DATABASE_URL is not set"),
        ("decide", {"TOLLGATE_MODEL_URL": "gateway"}, "TOLLGATE_MODEL_URL: 'gateway' is not a URL"),
        (
            "decide",
            {"TOLLGATE_MODEL_URL": "http://x", "TOLLGATE_POLICY_FILE": "/nowhere.toml"},
            "TOLLGATE_POLICY_FILE: cannot read /nowhere.toml",
        ),
    ],
)
def test_a_missing_or_wrong_setting_ends_it_at_once_with_the_settings_name(
    python: Path, tmp_path: Path, name: str, settings: dict[str, str], said: str
) -> None:
    log = tmp_path / "log"
    assert command(python, name, settings, log).wait(20) == 1
    assert said in log.read_text()
    assert "Traceback" not in log.read_text()


def test_an_unknown_function_is_a_usage_error(python: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert command(python, "guess", {}, log).wait(20) == 2
    assert "decide | label | record" in log.read_text()


def test_sigterm_ends_it_in_order_and_what_is_under_way_is_answered(python: Path, tmp_path: Path) -> None:
    with ModelServer() as server:

        async def slow(asked: str, answer: dict[str, Any]) -> None:
            await asyncio.sleep(0.7)

        server.misbehave = slow
        with FunctionProcess(python, "decide", {"TOLLGATE_MODEL_URL": server.url}, tmp_path) as process:
            answers: list[Answer] = []
            thread = threading.Thread(target=lambda: answers.extend(process.deliver(transaction_event())))
            thread.start()
            while not server.asked:
                time.sleep(0.01)
            code = process.stop()
            thread.join(10)
    assert code == 0
    assert read(answers[0]).decision.outcome is Outcome.APPROVE
    assert "Traceback" not in process.log.read_text()
    assert "Unclosed" not in process.log.read_text()


def test_every_listen_address_is_served(python: Path, tmp_path: Path) -> None:
    one, two = free_port(), free_port()
    settings = {"TOLLGATE_MODEL_URL": "http://127.0.0.1:1", "LISTEN_ADDRESS": f"127.0.0.1:{one},127.0.0.1:{two}"}
    process = command(python, "decide", settings, tmp_path / "log")
    try:
        for port in (one, two):
            url = f"http://127.0.0.1:{port}/health/readiness"
            for _ in range(200):
                try:
                    with urllib.request.urlopen(url, timeout=2) as response:
                        assert response.read() == b"ready"
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise AssertionError(f"port {port} is not served:\n{(tmp_path / 'log').read_text()}")
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_a_port_that_is_taken_ends_it_at_once(python: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        settings = {"TOLLGATE_MODEL_URL": "http://127.0.0.1:1", "LISTEN_ADDRESS": address}
        assert command(python, "decide", settings, tmp_path / "log").wait(20) == 1
    log = (tmp_path / "log").read_text()
    assert address in log
    assert "LISTEN_ADDRESS" in log
    assert "Traceback" not in log


def test_a_record_time_that_no_clock_shows_counts_as_the_arrival(decide: FunctionProcess) -> None:
    sent = datetime.now(UTC)
    event = msgspec.structs.replace(transaction_event(), time="2016-12-31T23:59:60Z")
    assert read(decide.deliver(event)[0]).decision.requested_at >= sent

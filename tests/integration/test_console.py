"""The console on a real Kafka and Postgres: what lands on the topics is on the page, whatever goes away meanwhile.

The console is started first, before Kafka and Postgres, as `tollgate up` may do. Decisions are stored in the ledger
and written to their topic as the KafkaSink writes them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from kit.events import decided, from_kafka_source, transaction
from kit.ports import free_base
from tollgate import policy
from tollgate.decision import Contribution, Decided, Outcome
from tollgate.events import RECORDED, SOURCE_RECORD, CloudEvent, to_kafka
from tollgate.local import jars, kafka, parts, postgres
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor
from tollgate.store import labels, ledger
from tollgate.store.connection import connect, migrate
from tollgate.topics import DEAD_LETTERS, DECISIONS
from tollgate.transaction import Label

pytestmark = pytest.mark.integration

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Layout, Supervisor]]:
    """Kafka, Postgres and the console, which was there first."""
    home = tmp_path_factory.mktemp("console home")
    there = Layout.resolve().jars
    there.mkdir(parents=True, exist_ok=True)
    (home / "jars").symlink_to(there)
    layout = Layout(home, free_base())
    jars.ensure(layout, jars.KAFKA)
    try:
        with Supervisor(layout) as supervisor:
            supervisor.start(parts.console(layout))
            supervisor.wait_ready("console")
            alone = state(layout)
            assert "Kafka" in alone["flow"]["trouble"]
            supervisor.start(postgres.part(layout), kafka.part(layout))
            supervisor.wait_ready()
            migrate(layout.database_url().reveal())
            kafka.ensure_topics(layout)
            eventually(lambda: state(layout)["flow"]["trouble"] is None)
            yield layout, supervisor
    finally:
        postgres.purge(layout)


@pytest.fixture
def layout(platform: tuple[Layout, Supervisor]) -> Layout:
    return platform[0]


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body of an answer, whatever the status."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def state(layout: Layout) -> dict[str, Any]:
    status, _, body = ask(f"{layout.url('console')}/api/state")
    assert status == 200
    return dict(json.loads(body))


def details(layout: Layout, name: str) -> tuple[int, dict[str, Any]]:
    status, _, body = ask(f"{layout.url('console')}/api/decisions/{name}")
    return status, json.loads(body)


def eventually(check: Callable[[], Any], seconds: float = 45) -> Any:
    """What `check` answers, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
    return found


def publish(layout: Layout, topic: str, event: CloudEvent) -> None:
    producer = Producer({"bootstrap.servers": layout.kafka_bootstrap, "message.timeout.ms": 30_000})
    headers, value = to_kafka(event)
    producer.produce(topic, value, event.id, headers=headers)
    assert producer.flush(30) == 0


def decide(layout: Layout, outcome: Outcome, **fields: Any) -> Decided:
    """A decision as it ends up: in the ledger, and on its topic."""
    made = decided(transaction(amount_minor=12_345), outcome=outcome, **fields)
    connection = connect(layout.database_url().reveal(), application="tests")
    try:
        ledger.record(connection, made)
    finally:
        connection.close()
    publish(layout, DECISIONS, recorded(made))
    return made


def recorded(made: Decided) -> CloudEvent:
    return CloudEvent(
        id=made.transaction.transaction_id,
        source=SOURCE_RECORD,
        type=RECORDED,
        datacontenttype="application/json",
        data=msgspec.json.encode(made.decision),
    )


def flagged(layout: Layout, name: str) -> dict[str, Any] | None:
    return next((each for each in state(layout)["flagged"] if each["transaction_id"] == name), None)


def stream(layout: Layout, seconds: float = 30) -> Iterator[dict[str, Any]]:
    """The documents of the event stream as they come."""
    deadline = time.monotonic() + seconds
    with urllib.request.urlopen(f"{layout.url('console')}/api/events", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        while time.monotonic() < deadline:
            if (line := answer.readline()).startswith(b"data: "):
                yield json.loads(line[6:])


def test_a_decision_on_the_topic_is_counted_and_a_flagged_one_is_shown_with_its_amount(layout: Layout) -> None:
    before = state(layout)["flow"]["outcomes"]
    approved = decide(layout, Outcome.APPROVE)
    declined = decide(layout, Outcome.DECLINE).decision
    found = eventually(lambda: (each := flagged(layout, declined.transaction_id)) and each["amount_minor"] and each)
    assert (found["outcome"], found["amount_minor"], found["currency"]) == ("decline", 12_345, "EUR")
    assert found["reasons"] == msgspec.to_builtins(declined.reasons)
    after = state(layout)["flow"]["outcomes"]
    assert {name: after.get(name, 0) - before.get(name, 0) for name in after} == {"approve": 1, "decline": 1}
    assert flagged(layout, approved.transaction.transaction_id) is None


def test_the_stream_brings_a_new_decision_and_each_step_of_history_once(layout: Layout) -> None:
    sent: Decided | None = None
    steps = 0
    last = None
    for document in stream(layout):
        history = document["history"]
        if last is not None:
            assert history["last"] - last == len(history["approve"])
            steps += history["review"].count(1)
        last = history["last"]
        if sent is None:
            sent = decide(layout, Outcome.REVIEW)
        there = sent.decision.transaction_id in [each["transaction_id"] for each in document["flagged"]]
        if there and steps:
            break
    else:
        pytest.fail("the decision never came")
    assert steps == 1


def test_the_details_are_what_the_ledger_holds(layout: Layout) -> None:
    rules = policy.load()
    made = decide(layout, Outcome.DECLINE, policy_version=rules.version)
    name = made.transaction.transaction_id
    connection = connect(layout.database_url().reveal(), application="tests")
    try:
        moment = made.transaction.occurred_at
        labels.write(connection, Label(name, "c-1", "m-1", moment, True, "chargeback", moment))
    finally:
        connection.close()
    status, found = details(layout, name)
    assert status == 200
    assert msgspec.convert(found["decision"], type(made.decision)) == made.decision
    assert found["transaction"]["terminal_id"] == "m-1"
    assert [each["value"] for each in found["features"]] == made.features
    assert found["labels"] == {"chargeback": True}
    assert set(found["costs"]) == {"approve", "review", "decline"}


def test_an_unknown_or_impossible_id_is_told_apart(layout: Layout) -> None:
    assert details(layout, "nobody")[0] == 404
    status, answer = details(layout, "%3Cscript%3E")
    assert status == 400
    assert "script" not in answer["error"]


def test_a_dead_letter_shows_with_its_reason(layout: Layout) -> None:
    answer = base64.b64encode(b'{"reason": "card_number", "detail": "customer_id holds a card number"}').decode()
    event = from_kafka_source(b"{}", offset=77, knativeerrorcode="422", knativeerrordata=answer)
    publish(layout, DEAD_LETTERS, event)
    eventually(lambda: state(layout)["flow"]["dead"].get("card_number"))
    letter = state(layout)["dead_letters"][0]
    assert (letter["reason"], letter["origin"]) == ("card_number", "transactions/3/77")
    assert "detail" in letter


def test_markup_in_an_event_travels_as_text_and_the_answer_is_no_page(layout: Layout) -> None:
    made = decided(transaction(), outcome=Outcome.REVIEW, reasons=[Contribution(EVIL, 1.0, 1.0)])
    hostile = msgspec.structs.replace(made, decision=msgspec.structs.replace(made.decision, transaction_id=EVIL))
    publish(layout, DECISIONS, msgspec.structs.replace(recorded(hostile), id="evil"))
    found = eventually(lambda: flagged(layout, EVIL))
    assert found["reasons"][0]["feature"] == EVIL
    _, headers, _ = ask(f"{layout.url('console')}/api/state")
    assert headers.get_content_type() == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_record_that_is_no_decision_is_named_and_the_next_one_counts(layout: Layout) -> None:
    publish(layout, DECISIONS, CloudEvent(id="x", source="/s", type="t", data=b"\xff\xfe{"))
    made = decide(layout, Outcome.REVIEW)
    eventually(lambda: flagged(layout, made.transaction.transaction_id))


def test_only_this_machines_own_names_are_answered(layout: Layout) -> None:
    port = layout.port("console")
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert ask(f"{layout.url('console')}/", Host=host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"localhost.:{port}"):
        status, _, body = ask(f"{layout.url('console')}/api/state", Host=host)
        assert status == 421
        assert b"flagged" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_can_be_changed_through_it(layout: Layout, method: str) -> None:
    assert ask(f"{layout.url('console')}/api/state", method)[0] == 405


def test_the_page_and_its_files_come_with_a_policy_that_allows_only_them(layout: Layout) -> None:
    status, headers, body = ask(f"{layout.url('console')}/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    rules = headers["Content-Security-Policy"]
    assert "default-src 'self'" in rules
    assert "unsafe" not in rules
    assert "require-trusted-types-for 'script'" in rules
    for name in re.findall(r'(?:src|href)="([a-z]+\.[a-z]+)"', body.decode()):
        status, headers, _ = ask(f"{layout.url('console')}/{name}")
        assert (status, headers["Content-Security-Policy"]) == (200, rules), name
    assert ask(f"{layout.url('console')}/..%2Fserver.py")[0] == 404


def test_without_postgres_the_details_say_try_again_and_come_back(platform: tuple[Layout, Supervisor]) -> None:
    layout, supervisor = platform
    made = decide(layout, Outcome.DECLINE)
    name = made.transaction.transaction_id
    assert details(layout, name)[0] == 200
    kill(supervisor, "postgres")
    status, answer = details(layout, name)
    assert status == 503
    assert layout.database_password() not in json.dumps(answer)
    eventually(lambda: details(layout, name)[0] == 200)
    later = decide(layout, Outcome.DECLINE).transaction.transaction_id
    eventually(lambda: (each := flagged(layout, later)) and each["amount_minor"])


def test_when_kafka_is_killed_the_page_says_so_and_goes_on_counting_afterwards(
    platform: tuple[Layout, Supervisor],
) -> None:
    layout, supervisor = platform
    restarts = supervisor.status()["console"].restarts
    kill(supervisor, "kafka")
    eventually(lambda: "kafka" in (state(layout)["root_cause"] or ""))
    supervisor.wait_ready("kafka", timeout=60)
    made = decide(layout, Outcome.REVIEW)
    eventually(lambda: flagged(layout, made.transaction.transaction_id))
    eventually(lambda: state(layout)["flow"]["trouble"] is None)
    assert supervisor.status()["console"].restarts == restarts


def test_it_stops_at_once_with_a_page_open_and_comes_back_when_killed(platform: tuple[Layout, Supervisor]) -> None:
    layout, supervisor = platform
    documents = stream(layout)
    next(documents)
    began = time.monotonic()
    supervisor.stop("console")
    assert time.monotonic() - began < 10
    documents.close()
    supervisor.start(parts.console(layout))
    supervisor.wait_ready("console")
    kill(supervisor, "console")
    supervisor.wait_ready("console", timeout=30)
    eventually(lambda: state(layout)["flow"]["trouble"] is None)


def kill(supervisor: Supervisor, name: str) -> None:
    """`kill -9`, and wait until the supervisor has seen it."""
    before = supervisor.status()[name]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: supervisor.status()[name].restarts > before.restarts)

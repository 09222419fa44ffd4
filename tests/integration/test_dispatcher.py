"""The dispatcher on a real Kafka: every event arrives, whatever is killed, refused, slow or away meanwhile.

Functions are real HTTP servers that misbehave on purpose, by the event's name, so that the right counts are known
beforehand. The manifests are the ones of `knative/base`, with short back-offs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from kit.function import Call, StubFunction
from kit.ports import free_base
from tollgate import events
from tollgate.events import CloudEvent, from_kafka, to_http, to_http_structured, to_kafka
from tollgate.local import jars, kafka
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor

pytestmark = pytest.mark.integration

KNATIVE = Path(__file__).parents[2] / "knative" / "base"
RETRIES = 10


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Layout, Supervisor]]:
    """A running Kafka with the plan's topics."""
    home = tmp_path_factory.mktemp("dispatcher home")
    there = Layout.resolve().jars
    there.mkdir(parents=True, exist_ok=True)
    (home / "jars").symlink_to(there)
    layout = Layout(home, free_base())
    jars.ensure(layout, jars.KAFKA)
    with Supervisor(layout) as supervisor:
        supervisor.start(kafka.part(layout))
        supervisor.wait_ready()
        kafka.ensure_topics(layout)
        yield layout, supervisor


@pytest.fixture(scope="module")
def layout(platform: tuple[Layout, Supervisor]) -> Layout:
    return platform[0]


class Dispatcher:
    """The process under test; `start` again after a `kill` goes on where it was."""

    def __init__(self, layout: Layout, folder: Path, functions: dict[str, StubFunction]) -> None:
        self.base = f"http://127.0.0.1:{layout.port('broker')}"
        self.metrics_url = f"http://127.0.0.1:{layout.port('dispatcher_metrics')}"
        self.broker = f"{self.base}/tollgate/tollgate"
        self.log = folder / "dispatcher.log"
        self._manifests = folder / "manifests"
        shutil.copytree(KNATIVE, self._manifests)
        for path in self._manifests.glob("*.yaml"):  # the same mesh, quicker to lose patience
            path.write_text(path.read_text().replace("PT0.2S", "PT0.002S").replace("PT30S", "PT2S"))
        self.environ = os.environ | {
            "TOLLGATE_KAFKA_BOOTSTRAP": layout.kafka_bootstrap,
            "TOLLGATE_INGRESS_PORT": str(layout.port("broker")),
            "TOLLGATE_METRICS_PORT": str(layout.port("dispatcher_metrics")),
            "TOLLGATE_SERVICES": json.dumps({name: function.url for name, function in functions.items()}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tollgate.local.dispatcher", "--manifests", str(self._manifests)]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), env=self.environ, stdout=log, stderr=log)
        wait_for(lambda: status(f"{self.base}/readyz") == 200, 30, f"the dispatcher is not ready, see {self.log}")

    def end(self, number: int) -> int:
        """Send a signal and wait; answers the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(20)
        self._process = None
        return code

    def metric(self, line: str) -> float:
        """One sample of the scrape, by its name and labels as printed."""
        with urllib.request.urlopen(f"{self.metrics_url}/metrics") as response:
            for text in response.read().decode().splitlines():
                if text.startswith(line + " "):
                    return float(text.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {line}")

    @property
    def running(self) -> bool:
        return self._process is not None


@pytest.fixture
def functions() -> Iterator[dict[str, StubFunction]]:
    """decide and record as they behave on a good day, and a label that has nothing to say."""
    with contextlib.ExitStack() as stack:
        yield {
            "decide": stack.enter_context(StubFunction(decide)),
            "record": stack.enter_context(StubFunction(record)),
            "label": stack.enter_context(StubFunction(lambda call: call.answer(204))),
        }


@pytest.fixture
def dispatcher(layout: Layout, tmp_path: Path, functions: dict[str, StubFunction]) -> Iterator[Dispatcher]:
    found = Dispatcher(layout, tmp_path, functions)
    found.start()
    try:
        yield found
    finally:
        if found.running:
            assert found.end(signal.SIGTERM) == 0


def decide(call: Call) -> None:
    """What the function does with a transaction: answer `decided`."""
    name = msgspec.json.decode(call.event.data)["transaction_id"]
    call.reply(
        CloudEvent(
            id=name,
            source=events.SOURCE_DECIDE,
            type=events.DECIDED,
            subject=name,
            datacontenttype="application/json",
            extensions={"partitionkey": name},
            data=call.event.data,
        )
    )


def record(call: Call) -> None:
    """What the function does with a decision: answer `recorded`."""
    call.reply(msgspec.structs.replace(call.event, source=events.SOURCE_RECORD, type=events.RECORDED))


def misbehave(call: Call) -> None:
    """By the transaction's number: refuses, never succeeds, drops connections, is busy for a while, or decides."""
    number = int(msgspec.json.decode(call.event.data)["transaction_id"].rsplit("-", 1)[1])
    if number % 50 == 0:
        call.answer(422, b'{"reason":"card_number","detail":"field customer_id"}')
    elif number % 50 == 1:
        call.answer(503)
    elif number % 10 == 2 and call.times <= 2:
        call.hang_up()
    elif number % 5 == 3 and call.times <= number % 4:
        call.answer(503, b"busy")
    else:
        decide(call)


def expected(names: list[str]) -> tuple[set[str], set[str], set[str]]:
    """Which of them `misbehave` decides, refuses, never succeeds with."""
    refused = {name for name in names if int(name.rsplit("-", 1)[1]) % 50 == 0}
    exhausted = {name for name in names if int(name.rsplit("-", 1)[1]) % 50 == 1}
    return set(names) - refused - exhausted, refused, exhausted


class Topics:
    """Reads topics from where they ended when the test began, and writes transactions."""

    def __init__(self, layout: Layout) -> None:
        self._bootstrap = layout.kafka_bootstrap
        self._starts = {topic: self._ends(topic) for topic in kafka.TOPICS}

    def send(self, names: list[str], topic: str = "transactions", **more: object) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 5, "logger": None})
        for name in names:
            value = json.dumps({"transaction_id": name, "pad": "x" * 200} | more)
            producer.produce(topic, value, key=f"C-{hash(name) % 97}")
            producer.poll(0)
        assert producer.flush(30) == 0

    def read(self, topic: str) -> list[CloudEvent]:
        """Every event of the topic since the test began."""
        consumer = self._consumer()
        ends = {each.partition: each.offset for each in self._ends(topic)}
        left = {each.partition for each in self._starts[topic] if each.offset < ends[each.partition]}
        found = []
        consumer.assign([each for each in self._starts[topic] if each.partition in left])
        while left:
            for message in consumer.consume(500, 0.2):
                event = from_kafka(message.headers() or (), message.value())
                assert event is not None
                found.append(event)
                if (message.offset() or 0) + 1 >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
        consumer.close()
        return found

    def _ends(self, topic: str) -> list[TopicPartition]:
        consumer = self._consumer()
        ends = [
            TopicPartition(topic, each, consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=10)[1])
            for each in range(kafka.PARTITIONS)
        ]
        consumer.close()
        return ends

    def _consumer(self) -> Consumer:
        return Consumer(
            {"bootstrap.servers": self._bootstrap, "group.id": "test", "enable.auto.commit": False, "log_level": 0}
        )


@pytest.fixture
def topics(layout: Layout) -> Topics:
    return Topics(layout)


def wait_for(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.05)


def status(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    return answer(url, body, headers)[0]


def answer(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and body (parsed when it is JSON) of a GET or POST; 0 when nobody listens."""
    request = urllib.request.Request(url, body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
        return error.code, json.loads(content) if content.startswith(b"{") else content
    except (urllib.error.URLError, ConnectionError):
        return 0, b""


def name_of(event: CloudEvent) -> str:
    found: str = msgspec.json.decode(event.data)["transaction_id"]
    return found


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def decided(topics: Topics) -> Counter[str]:
    return Counter(event.id for event in topics.read("broker-tollgate") if event.type == events.DECIDED)


def buried(topics: Topics, code: str) -> Counter[str]:
    letters = topics.read("dead-letters")
    return Counter(name_of(letter) for letter in letters if letter.extensions["knativeerrorcode"] == code)


def test_with_a_flaky_function_the_counts_are_exact(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = misbehave
    sent = names("flaky", 1_000)
    good, refused, exhausted = expected(sent)
    topics.send(sent)
    wait_for(
        lambda: len(topics.read("decisions")) + len(topics.read("dead-letters")) >= len(sent), 60, "events are missing"
    )

    assert Counter(name_of(event) for event in topics.read("decisions")) == Counter(good)
    assert decided(topics) == Counter(good)
    assert buried(topics, "422") == Counter(refused)
    assert buried(topics, "503") == Counter(exhausted)
    calls = Counter(name_of(call) for call in functions["decide"].events)
    assert {calls[name] for name in refused} == {1}, "what is hopeless is not tried again"
    assert {calls[name] for name in exhausted} == {RETRIES + 1}
    assert {calls[name] for name in good if name.endswith("02")} == {3}, "two dropped connections, then an answer"
    assert dispatcher.metric('tollgate_dead_letters_total{reason="card_number"}') == len(refused)
    assert dispatcher.metric('tollgate_dead_letters_total{reason="exhausted"}') == len(exhausted)
    assert dispatcher.metric('tollgate_dispatcher_events_total{consumer="trigger-decide",result="replied"}') == len(
        good
    )
    wait_for(
        lambda: dispatcher.metric('tollgate_dispatcher_lag_records{consumer="trigger-decide"}') == 0, 10, "lag remains"
    )
    assert dispatcher.metric('tollgate_dispatcher_in_flight{consumer="trigger-decide"}') == 0


def test_a_dead_letter_is_the_event_itself_with_who_refused_it_and_why(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = lambda call: call.answer(422, b'{"reason":"conflict"}' + b" " * 2_000)
    topics.send(["why-1"])
    wait_for(lambda: len(topics.read("dead-letters")) == 1, 20, "no dead letter")
    (letter,) = topics.read("dead-letters")
    (asked,) = functions["decide"].events
    errors = {name: letter.extensions[name] for name in letter.extensions if name.startswith("knativeerror")}
    kept = {name: value for name, value in letter.extensions.items() if name not in errors}
    assert msgspec.structs.replace(letter, extensions=kept) == asked
    assert errors["knativeerrordest"] == functions["decide"].url + "/"
    assert errors["knativeerrorcode"] == "422"
    body = base64.b64decode(errors["knativeerrordata"])
    assert len(body) == 1_024
    assert json.loads(body) == {"reason": "conflict"}
    assert asked.type == events.KAFKA_EVENT
    assert asked.extensions["stream"] == "transactions"


def test_kill_9_in_the_middle_loses_nothing(
    layout: Layout, dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = misbehave
    sent = names("killed", 3_000)
    good, refused, exhausted = expected(sent)
    topics.send(sent)
    for share in (0.2, 0.5, 0.8):  # at several moments of the run
        wait_for(lambda part=share: len(functions["decide"].events) >= part * len(sent), 60, "no progress")  # type: ignore[misc]
        assert dispatcher.end(signal.SIGKILL) == -signal.SIGKILL
        dispatcher.start()
    wait_for(lambda: set(map(name_of, topics.read("decisions"))) >= good, 60, "decisions are missing")
    wait_for(lambda: set(buried(topics, "503")) >= exhausted, 60, "dead letters are missing")

    assert set(decided(topics)) == good
    assert set(map(name_of, topics.read("decisions"))) == good
    assert set(buried(topics, "422")) == refused
    assert set(buried(topics, "503")) == exhausted
    assert set(map(name_of, functions["decide"].events)) == set(sent)


def test_an_orderly_stop_finishes_what_is_under_way_and_delivers_nothing_twice(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].delay = 0.2
    sent = names("drained", 300)
    topics.send(sent)
    wait_for(lambda: len(functions["decide"].events) >= 50, 20, "no progress")
    assert dispatcher.end(signal.SIGTERM) == 0
    assert len(decided(topics)) == len(functions["decide"].events), "an answer that came is a reply in the Broker"
    dispatcher.start()
    wait_for(lambda: len(decided(topics)) == len(sent), 30, "events are missing")
    assert decided(topics) == Counter(sent)
    assert Counter(map(name_of, functions["decide"].events)) == Counter(sent)


def test_a_function_that_is_away_or_slow_holds_up_no_other_trigger(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = lambda call: call.hang_up()
    sent = names("label", 200)
    topics.send(names("stuck", 2_000))
    topics.send(sent, "labels")
    wait_for(lambda: len(functions["label"].events) == len(sent), 10, "labels wait for transactions")
    functions["decide"].behave = decide
    wait_for(lambda: len(decided(topics)) + len(buried(topics, "500")) == 2_000, 60, "events are missing")


def test_a_slow_function_gets_no_more_than_64_requests_at_once(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].delay = 0.3
    topics.send(names("slow", 300))
    wait_for(lambda: len(decided(topics)) == 300, 30, "events are missing")
    assert functions["decide"].most_at_once == 64


def test_a_function_that_does_not_answer_in_time_is_asked_again(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    def sleepy(call: Call) -> None:
        if call.times == 1:
            call.wait(4)  # the manifests' timeout is 2 s here
        decide(call)

    functions["decide"].behave = sleepy
    topics.send(["late-1"])
    wait_for(lambda: len(decided(topics)) == 1, 20, "the event was given up")
    assert len(functions["decide"].events) == 2


def test_retry_after_is_honoured(dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics) -> None:
    moments: list[float] = []

    def busy(call: Call) -> None:
        moments.append(time.monotonic())
        if call.times == 1:
            call.answer(503, headers={"Retry-After": "1"})
        else:
            decide(call)

    functions["decide"].behave = busy
    topics.send(["patient-1"])
    wait_for(lambda: len(decided(topics)) == 1, 20, "the event was given up")
    assert moments[1] - moments[0] >= 1.0


def test_an_answer_that_is_no_cloudevent_is_a_dead_letter_not_a_silent_success(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = lambda call: call.answer(200, b"<html>")
    topics.send(["html-1"])
    wait_for(lambda: buried(topics, "422") == Counter(["html-1"]), 20, "no dead letter")


def test_a_record_too_large_for_the_broker_is_a_dead_letter_and_the_next_one_passes(
    layout: Layout, dispatcher: Dispatcher, topics: Topics
) -> None:
    producer = Producer({"bootstrap.servers": layout.kafka_bootstrap, "message.max.bytes": 3_000_000})
    producer.produce("transactions", b"x" * 2_000_000, partition=0)
    producer.produce("transactions", b'{"transaction_id":"after-1"}', partition=0)
    assert producer.flush(20) == 0
    wait_for(lambda: decided(topics) == Counter(["after-1"]), 20, "the partition is stuck")
    wait_for(lambda: len(topics.read("dead-letters")) == 1, 20, "no dead letter")
    (letter,) = topics.read("dead-letters")
    assert letter.extensions["knativeerrorcode"] == "413"
    assert json.loads(base64.b64decode(letter.extensions["knativeerrordata"]))["reason"] == "oversize"
    assert letter.id.startswith("partition:0/offset:"), "it says where the record is"


EVENT = CloudEvent(
    id="posted-1",
    source="/shop",
    type=events.REQUESTED,
    subject="posted-1",
    datacontenttype="application/json",
    extensions={"note": "größer als 50 %"},
    data=b'{"transaction_id":"posted-1"}',
)


@pytest.mark.parametrize("encode", [to_http, to_http_structured])
def test_a_posted_event_is_decided_and_copied_for_spark(
    encode: Any, dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    headers, body = encode(EVENT)
    assert status(dispatcher.broker, body, headers) == 202
    wait_for(lambda: len(topics.read("decisions")) == 1, 20, "not decided")
    assert functions["decide"].events == [EVENT]
    assert topics.read("transactions-posted") == [EVENT]
    assert Counter(event.type for event in topics.read("broker-tollgate")) == Counter(
        [events.REQUESTED, events.DECIDED, events.RECORDED]
    )


def test_a_cloudevent_on_the_topic_is_decided_once_and_not_copied(
    layout: Layout, dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    headers, value = to_kafka(EVENT)
    producer = Producer({"bootstrap.servers": layout.kafka_bootstrap})
    producer.produce("transactions", value, headers=headers)
    assert producer.flush(20) == 0
    wait_for(lambda: len(topics.read("decisions")) == 1, 20, "not decided")
    assert [event.type for event in functions["decide"].events] == [events.REQUESTED]
    assert topics.read("transactions-posted") == []


def test_an_event_of_a_type_nobody_knows_is_handed_to_decide_which_refuses_it(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    functions["decide"].behave = lambda call: call.answer(422, b'{"reason":"unknown_event_type","detail":"x"}')
    headers, body = to_http(msgspec.structs.replace(EVENT, type="com.example.nobody"))
    assert status(dispatcher.broker, body, headers) == 202
    wait_for(lambda: buried(topics, "422") == Counter(["posted-1"]), 20, "it vanished")
    assert dispatcher.metric('tollgate_dead_letters_total{reason="unknown_event_type"}') == 1


def test_the_ingress_refuses_with_a_reason_what_is_no_event(dispatcher: Dispatcher, topics: Topics) -> None:
    almost = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s"}
    whole, large = to_http(EVENT)[0], 1024 * 1024 + 1
    for headers, body, code, reason in (
        ({}, b"{}", 400, "missing_field"),
        (almost, b"{}", 400, "missing_field"),
        (almost | {"ce-type": "t", "ce-specversion": "0.3"}, b"{}", 400, "invalid_field"),
        ({"content-type": "application/cloudevents+json"}, b"{", 400, "malformed_json"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", 400, "invalid_field"),
        (whole, b"x" * large, 413, "oversize"),
        (whole, b"x" * (2 * large), 413, "oversize"),
    ):
        found, said = answer(dispatcher.broker, body, headers)
        assert (found, said["reason"]) == (code, reason)
    headers, body = to_http(EVENT)
    assert status(f"{dispatcher.base}/tollgate/other", body, headers) == 404
    assert topics.read("broker-tollgate") == []


def test_no_log_line_holds_a_payload_or_an_id(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    card = "4111111111111111"
    functions["decide"].behave = lambda call: call.answer(422, b'{"reason":"card_number","detail":"field x"}')
    topics.send([card], customer_id=card)
    headers, body = to_http(msgspec.structs.replace(EVENT, id=card, subject=card))
    assert status(dispatcher.broker, body, headers) == 202
    assert status(dispatcher.broker, body, headers | {"ce-time": card}) == 400
    wait_for(lambda: len(topics.read("dead-letters")) == 2, 20, "no dead letters")
    log = dispatcher.log.read_text()
    assert "card_number" in log
    assert card not in log


def test_kafka_restarting_answers_503_meanwhile_and_loses_nothing(
    platform: tuple[Layout, Supervisor], dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    layout, supervisor = platform
    functions["decide"].behave = misbehave
    sent = names("away", 600)
    good, _, exhausted = expected(sent)
    topics.send(sent)
    wait_for(lambda: len(functions["decide"].events) >= 100, 20, "no progress")
    supervisor.stop("kafka")
    headers, body = to_http(EVENT)
    assert status(dispatcher.broker, body, headers) == 503
    assert status(f"{dispatcher.base}/healthz") == 200
    wait_for(lambda: status(f"{dispatcher.base}/readyz") == 503, 10, "not ready is not said")
    supervisor.start(kafka.part(layout))
    supervisor.wait_ready("kafka")
    wait_for(lambda: set(map(name_of, topics.read("decisions"))) >= good, 60, "decisions are missing")
    wait_for(lambda: set(buried(topics, "503")) >= exhausted, 30, "dead letters are missing")
    wait_for(lambda: status(f"{dispatcher.base}/readyz") == 200, 20, "ready is not said")
    assert status(dispatcher.broker, body, headers) == 202


def test_a_stop_while_kafka_is_away_ends_all_the_same_and_loses_nothing(
    platform: tuple[Layout, Supervisor], dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    layout, supervisor = platform
    functions["decide"].behave = decide
    sent = names("stop", 300)
    topics.send(sent)
    wait_for(lambda: len(functions["decide"].events) >= 20, 20, "no progress")
    supervisor.stop("kafka")
    assert dispatcher.end(signal.SIGTERM) in (0, 1)
    supervisor.start(kafka.part(layout))
    supervisor.wait_ready("kafka")
    dispatcher.start()
    wait_for(lambda: set(map(name_of, topics.read("decisions"))) >= set(sent), 60, "decisions are missing")


def test_a_second_dispatcher_says_that_its_port_is_taken_and_disturbs_nobody(
    dispatcher: Dispatcher, functions: dict[str, StubFunction], topics: Topics
) -> None:
    second = dispatcher.command()
    done = subprocess.run(second, env=dispatcher.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is another dispatcher running?" in done.stderr
    topics.send(["undisturbed-1"])
    wait_for(lambda: len(topics.read("decisions")) == 1, 20, "the first one stopped")

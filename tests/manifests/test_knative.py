"""The event mesh in `knative/`: complete, consistent, and every event goes to exactly the Triggers it should.

No cluster here: fields are checked against the parts of the CRDs' schemas that matter (required fields, closed
lists), routing by evaluating the Triggers' filters as the embedded dispatcher does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tollgate import events
from tollgate.local.dispatcher.delivery import parse_duration
from tollgate.local.dispatcher.manifests import Service, Topic, load

BASE = Path(__file__).parents[2] / "knative" / "base"
FUNCTIONS = ("decide", "record", "label")
SERVICES = {name: f"http://{name}" for name in FUNCTIONS}
API = {
    "Namespace": "v1",
    "ConfigMap": "v1",
    "Broker": "eventing.knative.dev/v1",
    "Trigger": "eventing.knative.dev/v1",
    "KafkaSink": "eventing.knative.dev/v1alpha1",
    "KafkaSource": "sources.knative.dev/v1",
    "Service": "serving.knative.dev/v1",
}
SPEC_FIELDS = {
    "Broker": ({"config", "delivery"}, {"config", "delivery"}),
    "Trigger": ({"broker", "filters", "subscriber", "delivery"}, {"broker", "subscriber", "delivery"}),
    "KafkaSink": ({"topic", "bootstrapServers", "contentMode"}, {"topic", "bootstrapServers"}),
    "KafkaSource": (
        {
            "bootstrapServers", "topics", "consumerGroup", "consumers", "initialOffset", "ordering", "ceOverrides",
            "sink", "delivery",
        },
        {"bootstrapServers", "topics", "sink"},
    ),
}  # fmt: skip
"""(fields that exist in the CRD and are used here, fields without which nothing works)."""
TOPICS = {"transactions", "labels", "decisions", "dead-letters", "transactions-posted"}
CONTEXT_ATTRIBUTES = {"type", "source", "stream"}


def _documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield BASE / name, yaml.safe_load((BASE / name).read_text())


DOCUMENTS = list(_documents())
OBJECTS = {(doc["kind"], doc["metadata"]["name"]): doc for _, doc in DOCUMENTS}
each_document = pytest.mark.parametrize(("path", "document"), DOCUMENTS, ids=[path.name for path, _ in DOCUMENTS])
DELIVERING = [doc for doc in OBJECTS.values() if doc["kind"] in ("Broker", "Trigger", "KafkaSource")]
each_delivering = pytest.mark.parametrize(
    "document", DELIVERING, ids=lambda doc: f"{doc['kind']}-{doc['metadata']['name']}"
)


def _refs(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "ref" in node:
            yield node["ref"]
        for value in node.values():
            yield from _refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _refs(value)


def test_the_kustomization_lists_every_file_in_the_folder_once() -> None:
    listed = [path.name for path, _ in DOCUMENTS]
    assert sorted(listed) == sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")


@each_document
def test_a_file_is_named_kind_purpose_and_says_why_it_is_there(path: Path, document: dict[str, Any]) -> None:
    assert path.name.startswith(document["kind"].lower() + "-")
    assert path.read_text().startswith("# ")


@each_document
def test_an_object_has_its_crd_s_version_and_fields(path: Path, document: dict[str, Any]) -> None:
    assert document["apiVersion"] == API[document["kind"]]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", document["metadata"]["name"])
    if document["kind"] in SPEC_FIELDS:
        known, required = SPEC_FIELDS[document["kind"]]
        assert required <= document["spec"].keys() <= known


@each_document
def test_every_reference_leads_to_an_object_of_the_base_or_a_function(path: Path, document: dict[str, Any]) -> None:
    for ref in _refs(document):
        assert ref["apiVersion"] == API[ref["kind"]]
        assert (ref["kind"], ref["name"]) in OBJECTS or (ref["kind"] == "Service" and ref["name"] in FUNCTIONS)


@each_delivering
def test_nothing_is_dropped_retries_back_off_and_end_in_the_dead_letter(document: dict[str, Any]) -> None:
    delivery = document["spec"]["delivery"]
    assert delivery["deadLetterSink"]["ref"]["name"] == "dead-letters"
    assert delivery["retry"] >= 10
    assert delivery["backoffPolicy"] == "exponential"
    assert 0 < parse_duration("backoffDelay", delivery["backoffDelay"]) <= 1
    assert parse_duration("timeout", delivery["timeout"]) >= 10


def test_the_broker_keeps_its_events_in_kafka() -> None:
    broker = OBJECTS["Broker", "tollgate"]
    assert broker["metadata"]["annotations"]["eventing.knative.dev/broker.class"] == "Kafka"
    config = OBJECTS["ConfigMap", broker["spec"]["config"]["name"]]["data"]
    assert config.keys() == {"bootstrap.servers", "default.topic.partitions", "default.topic.replication.factor"}
    assert all(isinstance(value, str) for value in config.values())


def test_sources_start_at_the_first_record_and_mark_where_an_event_came_from() -> None:
    for name in ("transactions", "labels"):
        spec = OBJECTS["KafkaSource", name]["spec"]
        assert (spec["initialOffset"], spec["ordering"], spec["topics"]) == ("earliest", "unordered", [name])
        assert spec["ceOverrides"]["extensions"] == {"stream": name}


def test_one_kafka_is_used_by_all_and_only_known_topics() -> None:
    used, servers = set(), {OBJECTS["ConfigMap", "broker-tollgate"]["data"]["bootstrap.servers"]}
    for (kind, _), document in OBJECTS.items():
        if kind in ("KafkaSink", "KafkaSource"):
            spec = document["spec"]
            servers.update(spec["bootstrapServers"])
            used.update(spec.get("topics") or [spec["topic"]])
    assert used == TOPICS
    assert len(servers) == 1


def test_what_leaves_to_kafka_is_the_plain_payload_with_the_attributes_as_headers() -> None:
    assert {doc["spec"]["contentMode"] for (kind, _), doc in OBJECTS.items() if kind == "KafkaSink"} == {"binary"}


def test_filters_only_name_attributes_that_events_have() -> None:
    def names(node: Any) -> Iterator[str]:
        for each in node if isinstance(node, list) else [node]:
            for dialect, body in each.items():
                if dialect in ("exact", "prefix", "suffix"):
                    yield from body
                else:
                    yield from names(body)

    for (kind, _), document in OBJECTS.items():
        if kind == "Trigger":
            assert set(names(document["spec"]["filters"])) <= CONTEXT_ATTRIBUTES


def _triggered(**attributes: str) -> set[str]:
    return {trigger.name for trigger in load(BASE, SERVICES).triggers if trigger.wants(attributes)}


@pytest.mark.parametrize(
    ("attributes", "triggers"),
    [
        ({"type": events.KAFKA_EVENT, "stream": "transactions"}, {"decide"}),
        # A CloudEvent on the topic keeps its type: decided once, not counted twice by Spark.
        ({"type": events.REQUESTED, "stream": "transactions"}, {"decide"}),
        ({"type": events.REQUESTED}, {"decide", "posted"}),
        ({"type": events.REQUESTED, "stream": "mine"}, {"decide", "posted"}),
        ({"type": events.DECIDED, "source": events.SOURCE_DECIDE}, {"record"}),
        ({"type": events.RECORDED, "source": events.SOURCE_RECORD}, {"decisions"}),
        # Nobody slips a decision into the ledger or to the payment system through a topic, or under another's name.
        ({"type": events.DECIDED, "source": events.SOURCE_DECIDE, "stream": "transactions"}, {"decide"}),
        ({"type": events.RECORDED, "source": events.SOURCE_RECORD, "stream": "transactions"}, {"decide"}),
        ({"type": events.DECIDED, "source": "/elsewhere"}, {"decide"}),
        ({"type": events.RECORDED, "source": "/elsewhere"}, {"decide"}),
        ({"type": "com.example.nobody"}, {"decide"}),
        ({"type": "com.example.nobody", "stream": "mine"}, {"decide"}),
        ({"type": "com.example.nobody", "stream": "transactions"}, {"decide"}),
        ({"type": events.KAFKA_EVENT}, {"decide"}),
        ({"type": "dev.tollgate.transaction.requestedx"}, {"decide"}),
        # Known events that nothing listens to yet.
        ({"type": events.LABELLED, "source": events.SOURCE_LABEL}, set()),
        ({"type": events.DRIFTED}, set()),
        ({"type": events.REGISTERED}, set()),
        ({"type": events.PROMOTED}, set()),
        ({"type": events.ROLLED_BACK}, set()),
        ({"type": events.INFERENCE_REQUEST}, set()),
        ({"type": events.INFERENCE_RESPONSE}, set()),
    ],
)
def test_an_event_goes_to_exactly_these_triggers(attributes: dict[str, str], triggers: set[str]) -> None:
    assert _triggered(**{"source": "/any"} | attributes) == triggers


def test_transactions_go_to_the_broker_and_labels_straight_to_their_function() -> None:
    sinks = {source.name: source.sink for source in load(BASE, SERVICES).sources}
    assert sinks["labels"] == Service("http://label/")
    assert isinstance(sinks["transactions"], Topic)


def test_each_trigger_delivers_to_its_function_or_topic() -> None:
    found = {trigger.name: trigger.subscriber for trigger in load(BASE, SERVICES).triggers}
    assert found == {
        "decide": Service("http://decide/"),
        "posted": Topic("transactions-posted"),
        "record": Service("http://record/"),
        "decisions": Topic("decisions"),
    }

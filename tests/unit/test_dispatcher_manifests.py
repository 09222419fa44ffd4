"""The dispatcher understands the YAML it is given, and refuses what it could not do faithfully."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tollgate.errors import ConfigurationError
from tollgate.local.dispatcher.delivery import Delivery
from tollgate.local.dispatcher.manifests import Mesh, Service, Topic, load

BROKER = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "b"}, "spec": {}}
SINK = {
    "apiVersion": "eventing.knative.dev/v1alpha1",
    "kind": "KafkaSink",
    "metadata": {"name": "dead"},
    "spec": {"topic": "dead-topic", "bootstrapServers": ["k:9092"]},
}
ORDERED = {"kafka.eventing.knative.dev/delivery.order": "ordered"}
TO_DEAD = {"ref": {"kind": "KafkaSink", "name": "dead"}}
TO_BROKER = {"ref": {"kind": "Broker", "name": "b"}}
TO_FUNCTION = {"ref": {"kind": "Service", "name": "f"}}


def trigger(**spec: object) -> dict[str, object]:
    """A complete Trigger, with parts of its spec replaced (None removes one)."""
    whole = {"broker": "b", "subscriber": TO_FUNCTION, "delivery": {"deadLetterSink": TO_DEAD}} | spec
    return {"kind": "Trigger", "metadata": {"name": "t"}, "spec": {k: v for k, v in whole.items() if v is not None}}


def source(**spec: object) -> dict[str, object]:
    """A complete KafkaSource, with parts of its spec replaced."""
    whole = {"topics": ["in"], "consumerGroup": "g", "sink": TO_BROKER, "delivery": {"deadLetterSink": TO_DEAD}}
    whole |= {"initialOffset": "earliest"} | spec
    return {"kind": "KafkaSource", "metadata": {"name": "s"}, "spec": {k: v for k, v in whole.items() if v is not None}}


def read(folder: Path, *objects: object) -> Mesh:
    """Write the objects as a kustomization and read it as the dispatcher does."""
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "ns", "resources": ["all.yaml"]}))
    return load(folder, {"f": "http://127.0.0.1:1/"})


def test_references_are_resolved_to_urls_and_topics(tmp_path: Path) -> None:
    mesh = read(tmp_path, BROKER, SINK, trigger(), source(ceOverrides={"extensions": {"stream": "in"}}))
    assert mesh.brokers == {"ns/b": Topic("broker-b")}
    (found,) = mesh.triggers
    assert (found.broker, found.subscriber, found.dead_letter) == (
        Topic("broker-b"),
        Service("http://127.0.0.1:1/"),
        Topic("dead-topic", structured=True),  # KafkaSink's default content mode
    )
    assert found.group == "knative-trigger-ns-t"
    (origin,) = mesh.sources
    assert (origin.sink, origin.topics, origin.extensions) == (Topic("broker-b"), ("in",), {"stream": "in"})


def test_a_delivery_is_read_and_what_it_leaves_out_is_knative_s_default(tmp_path: Path) -> None:
    spec = {"deadLetterSink": TO_DEAD, "retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT1S", "timeout": "PT5S"}
    mesh = read(tmp_path, BROKER, SINK, trigger(delivery=spec))
    assert mesh.triggers[0].delivery == Delivery(retry=3, policy="linear", delay=1.0, timeout=5.0)


def test_a_trigger_without_delivery_takes_its_broker_s(tmp_path: Path) -> None:
    broker = BROKER | {"spec": {"delivery": {"retry": 2, "deadLetterSink": TO_DEAD}}}
    mesh = read(tmp_path, broker, SINK, trigger(delivery=None))
    assert mesh.triggers[0].delivery.retry == 2


def test_a_uri_is_a_subscriber_too_and_is_joined_to_a_service(tmp_path: Path) -> None:
    mesh = read(tmp_path, BROKER, SINK, trigger(subscriber={"uri": "http://127.0.0.1:9/x"}))
    assert mesh.triggers[0].subscriber == Service("http://127.0.0.1:9/x")
    mesh = read(tmp_path, BROKER, SINK, trigger(subscriber=TO_FUNCTION | {"uri": "/x"}))
    assert mesh.triggers[0].subscriber == Service("http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (trigger(delivery=None), "deadLetterSink"),
        (trigger(delivery={"retry": 3}), "deadLetterSink"),
        (trigger(subscriber={"ref": {"kind": "Service", "name": "g"}}), "TOLLGATE_SERVICES"),
        (trigger(subscriber={"ref": {"kind": "Channel", "name": "c"}}), "Channel"),
        (trigger(subscriber={"uri": "relative"}), "absolute uri"),
        (trigger(subscriber=None), "required field"),
        (trigger(broker="other"), "no Broker 'other'"),
        (trigger(filters=[{"cesql": "true"}]), "cesql"),
        (trigger(delivery={"deadLetterSink": TO_DEAD, "backoffDelay": "1s"}), "backoffDelay"),
        (trigger(delivery={"deadLetterSink": TO_DEAD, "backoffPolicy": "fast"}), "backoffPolicy"),
        (trigger(delivery={"deadLetterSink": {"ref": {"kind": "KafkaSink", "name": "x"}}}), "no KafkaSink 'x'"),
        (trigger() | {"metadata": {"name": "t", "annotations": ORDERED}}, "only delivers unordered"),
        (source(delivery=None), "deadLetterSink"),
        (source(initialOffset="middle"), "initialOffset"),
        (source(topics=None), "required field"),
    ],
)  # fmt: skip
def test_what_could_not_be_done_faithfully_stops_the_start_and_names_the_file(
    tmp_path: Path, broken: object, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read(tmp_path, BROKER, SINK, broken)
    assert "all.yaml" in str(caught.value)


def test_a_folder_without_a_kustomization_or_a_broker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"kustomization\.yaml"):
        load(tmp_path, {})
    with pytest.raises(ConfigurationError, match="no Broker"):
        read(tmp_path, SINK)

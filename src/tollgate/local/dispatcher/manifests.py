"""What the YAML in `knative/` says, as values: Broker, Triggers, KafkaSources, KafkaSinks, with references resolved.

In: a kustomize folder (its `kustomization.yaml` names the files and the namespace) and the URLs of the Services.
Out: `Mesh`, from which `__main__` builds ingress, sources and triggers. A reference that leads nowhere, a missing
dead-letter sink and everything this stand-in cannot do raise `ConfigurationError` with the file's name: better not
to start than to lose events quietly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tollgate.errors import ConfigurationError
from tollgate.local.dispatcher.delivery import Delivery, parse_duration
from tollgate.local.dispatcher.filters import Predicate, compile_trigger

_ORDER = "kafka.eventing.knative.dev/delivery.order"


@dataclass(frozen=True, slots=True)
class Service:
    """An HTTP subscriber."""

    url: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic: a KafkaSink's, or a Broker's own storage."""

    name: str
    structured: bool = False


Destination = Service | Topic


@dataclass(frozen=True, slots=True)
class Source:
    """A KafkaSource."""

    name: str
    namespace: str
    group: str
    topics: tuple[str, ...]
    consumers: int
    initial_offset: str
    extensions: Mapping[str, str]
    sink: Destination
    delivery: Delivery
    dead_letter: Destination


@dataclass(frozen=True, slots=True)
class Trigger:
    """A Trigger; `broker` is the topic it reads, `group` its consumer group."""

    name: str
    group: str
    broker: Topic
    wants: Predicate
    subscriber: Destination
    delivery: Delivery
    dead_letter: Destination


@dataclass(slots=True)
class Mesh:
    """All objects of one folder. `brokers` maps the ingress path NAMESPACE/NAME to the Broker's topic."""

    brokers: dict[str, Topic] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    triggers: list[Trigger] = field(default_factory=list)


def load(folder: Path, services: Mapping[str, str]) -> Mesh:
    """Read the kustomization in `folder`; `services` maps a Service's name to its URL."""
    path = folder / "kustomization.yaml"
    try:
        kustomization = yaml.safe_load(path.read_text())
        namespace = str(kustomization["namespace"])
        files = [folder / name for name in kustomization["resources"]]
        documents = [(file, doc) for file in files for doc in yaml.safe_load_all(file.read_text()) if doc]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: no readable kustomization with namespace and resources: {error}") from error
    reader = _Reader(namespace, services, documents)
    mesh = Mesh()
    for file, document in documents:
        try:
            reader.add(mesh, document)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{file}: a required field is missing or of another type: {error}") from error
    if not mesh.brokers:
        raise ConfigurationError(f"{folder}: holds no Broker")
    return mesh


class _Reader:
    def __init__(self, namespace: str, services: Mapping[str, str], documents: list[tuple[Path, Any]]) -> None:
        self._namespace = namespace
        self._services = services
        self._objects = {(doc["kind"], doc["metadata"]["name"]): doc for _, doc in documents}

    def add(self, mesh: Mesh, document: Mapping[str, Any]) -> None:
        """Turn one object into its value. Kinds that only a cluster needs are passed over."""
        name, spec = document["metadata"]["name"], document.get("spec") or {}
        match document["kind"]:
            case "Broker":
                mesh.brokers[f"{self._namespace}/{name}"] = self._broker(name)
            case "KafkaSink":
                self._sink(name)
            case "KafkaSource":
                mesh.sources.append(self._source(name, spec))
            case "Trigger":
                mesh.triggers.append(self._trigger(name, spec, document["metadata"].get("annotations") or {}))

    def _source(self, name: str, spec: Mapping[str, Any]) -> Source:
        delivery, dead_letter = self._delivery(spec.get("delivery"))
        initial = spec.get("initialOffset", "latest")
        if initial not in ("earliest", "latest"):
            raise ConfigurationError(f"initialOffset {initial!r} is neither earliest nor latest")
        overrides = (spec.get("ceOverrides") or {}).get("extensions") or {}
        return Source(
            name=name,
            namespace=self._namespace,
            group=spec["consumerGroup"],
            topics=tuple(spec["topics"]),
            consumers=int(spec.get("consumers", 1)),
            initial_offset=initial,
            extensions={str(key): str(value) for key, value in overrides.items()},
            sink=self._destination(spec["sink"]),
            delivery=delivery,
            dead_letter=dead_letter,
        )

    def _trigger(self, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> Trigger:
        if annotations.get(_ORDER, "unordered") != "unordered":
            raise ConfigurationError(f"annotation {_ORDER}: the embedded dispatcher only delivers unordered")
        broker = self._find("Broker", spec["broker"])
        delivery, dead_letter = self._delivery(spec.get("delivery") or (broker.get("spec") or {}).get("delivery"))
        return Trigger(
            name=name,
            group=f"knative-trigger-{self._namespace}-{name}",
            broker=self._broker(spec["broker"]),
            wants=compile_trigger(spec),
            subscriber=self._destination(spec["subscriber"]),
            delivery=delivery,
            dead_letter=dead_letter,
        )

    def _delivery(self, spec: Mapping[str, Any] | None) -> tuple[Delivery, Destination]:
        if not spec or not spec.get("deadLetterSink"):
            raise ConfigurationError("delivery.deadLetterSink is missing: what cannot be delivered would be lost")
        given: dict[str, Any] = {}
        if "retry" in spec:
            given["retry"] = int(spec["retry"])
        if (policy := spec.get("backoffPolicy", "exponential")) not in ("exponential", "linear"):
            raise ConfigurationError(f"delivery.backoffPolicy {policy!r} is neither exponential nor linear")
        given["policy"] = policy
        for key, target in _DURATIONS:
            if key in spec:
                given[target] = parse_duration(f"delivery.{key}", spec[key])
        return Delivery(**given), self._destination(spec["deadLetterSink"])

    def _destination(self, spec: Mapping[str, Any]) -> Destination:
        ref, uri = spec.get("ref"), spec.get("uri")
        if ref is None:
            if not isinstance(uri, str) or not uri.startswith(("http://", "https://")):
                raise ConfigurationError(f"a destination needs a ref or an absolute uri, not {uri!r}")
            return Service(uri)
        match ref["kind"]:
            case "Broker":
                self._find("Broker", ref["name"])
                return self._broker(ref["name"])
            case "KafkaSink":
                return self._sink(ref["name"])
            case "Service" if ref["name"] in self._services:
                return Service(self._services[ref["name"]].rstrip("/") + (uri or "/"))
            case "Service":
                raise ConfigurationError(f"no URL is known for Service {ref['name']!r}: name it in TOLLGATE_SERVICES")
        raise ConfigurationError(f"a destination of kind {ref['kind']!r} is not understood")

    def _sink(self, name: str) -> Topic:
        spec = self._find("KafkaSink", name)["spec"]
        mode = spec.get("contentMode", "structured")
        if mode not in ("binary", "structured"):
            raise ConfigurationError(f"KafkaSink {name!r}: contentMode {mode!r} is neither binary nor structured")
        return Topic(spec["topic"], structured=mode == "structured")

    def _broker(self, name: str) -> Topic:
        return Topic(f"broker-{name}")

    def _find(self, kind: str, name: str) -> Mapping[str, Any]:
        if (kind, name) not in self._objects:
            known = ", ".join(sorted(self._names(kind))) or "none"
            raise ConfigurationError(f"there is no {kind} {name!r} in this folder (there is: {known})")
        found: Mapping[str, Any] = self._objects[kind, name]
        return found

    def _names(self, kind: str) -> Iterator[str]:
        return (name for each, name in self._objects if each == kind)


_DURATIONS = (("backoffDelay", "delay"), ("timeout", "timeout"), ("retryAfterMax", "retry_after_max"))

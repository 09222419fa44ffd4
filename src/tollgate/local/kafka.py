"""Apache Kafka: one KRaft node, broker and controller in one process.

In: the jars of `tollgate.local.jars`, a Java. Out: a formatted log folder, a `Part`, and `ensure_topics`.
An acknowledged record is in the page cache, so it survives `kill -9` of the process (not a power cut).
"""

from __future__ import annotations

import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tollgate.errors import TollgateError
from tollgate.local import jars, probes
from tollgate.local import java as javas
from tollgate.local.layout import HOST, Layout
from tollgate.local.part import Part
from tollgate.topics import DEAD_LETTERS, DECISIONS, LABELS, POSTED, TRANSACTIONS

PARTITIONS = 4
TOPICS = (
    TRANSACTIONS,
    LABELS,
    DECISIONS,
    DEAD_LETTERS,
    POSTED,
    "broker-tollgate",
)
_HEAP = "512m"


def part(layout: Layout) -> Part:
    """Write the configuration, format the log folder on the first start, and describe the process.

    Raises `TollgateError` when the jars are missing or the folder cannot be formatted.
    """
    layout.create()
    java = javas.find().executable
    classpath = ":".join(str(jar) for jar in jars.classpath(layout, jars.KAFKA))
    config, logging = layout.run / "kafka.properties", layout.run / "kafka-log4j.properties"
    config.write_text(properties(_settings(layout)))
    logging.write_text(properties(_LOGGING))
    # A class path in the environment keeps the process list readable.
    env = {"CLASSPATH": classpath}
    quiet = f"-Dlog4j.configuration={logging.as_uri()}"
    if not (layout.data / "kafka" / "meta.properties").exists():
        _format(java, env, quiet, config)
    # IPv4 only, and no JMX: nothing listens but the two ports.
    options = [f"-Xmx{_HEAP}", f"-Xms{_HEAP}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
    options += ["-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true", quiet]
    return Part(
        name="kafka",
        command=[str(java), *options, "kafka.Kafka", str(config)],
        env=env,
        ready=lambda: ready(layout),
        ready_timeout=90,
        grace=30,
    )


def ready(layout: Layout) -> str | None:
    """Probe: a metadata request is answered and names the broker."""
    if (missing := probes.tcp(layout.port("kafka"))) is not None:
        return missing
    try:
        brokers = _admin(layout).list_topics(timeout=2).brokers
    except KafkaException as error:
        return f"metadata: {error.args[0].str()}"
    return None if brokers else "the broker is still fenced"


def ensure_topics(
    layout: Layout, topics: tuple[str, ...] = TOPICS, partitions: int = PARTITIONS, timeout: float = 30
) -> list[str]:
    """Create the topics that do not exist yet; returns those. Raises `TollgateError` when Kafka refuses."""
    admin = _admin(layout)
    try:
        there = admin.list_topics(timeout=timeout).topics
        missing = [name for name in topics if name not in there]
        if not missing:
            return []
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in missing]
        for future in admin.create_topics(wanted, operation_timeout=timeout).values():
            future.result(timeout)
        deadline = time.monotonic() + timeout
        while not _led(admin, missing):  # created is not yet writable
            if time.monotonic() > deadline:
                raise TollgateError(f"topics {', '.join(missing)} have no leader after {timeout:.0f} s")
            time.sleep(0.05)
    except KafkaException as error:
        raise TollgateError(f"topics could not be created: {error.args[0].str()}; see {layout.log('kafka')}") from error
    return missing


def properties(values: Mapping[str, object]) -> str:
    """Java's properties format; other than ASCII is escaped, and so are backslashes (in a folder's name)."""
    lines = []
    for name, value in values.items():
        text = str(value).replace("\\", "\\\\")
        units = text.encode("utf-16-be")
        escaped = "".join(
            chr(unit) if unit < 128 else f"\\u{unit:04x}"
            for unit in (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
        )
        lines.append(f"{name}={escaped}\n")
    return "".join(lines)


def _admin(layout: Layout) -> AdminClient:
    return AdminClient({"bootstrap.servers": layout.kafka_bootstrap, "log_level": 0})


def _led(admin: AdminClient, topics: list[str]) -> bool:
    there = admin.list_topics(timeout=5).topics
    return all(
        name in there and there[name].partitions and all(one.leader >= 0 for one in there[name].partitions.values())
        for name in topics
    )


def _format(java: Path, env: Mapping[str, str], quiet: str, config: Path) -> None:
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [str(java), "-Xmx256m", "-XX:TieredStopAtLevel=1", quiet, "kafka.tools.StorageTool", "format"]
    command += ["--cluster-id", cluster, "--config", str(config), "--ignore-formatted"]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise TollgateError(f"Kafka's log folder cannot be formatted: {(done.stderr or done.stdout).strip()[-800:]}")


def _settings(layout: Layout) -> dict[str, object]:
    broker, controller = layout.port("kafka"), layout.port("kafka_controller")
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"BROKER://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"BROKER://{HOST}:{broker}",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": layout.data / "kafka",
        "auto.create.topics.enable": "false",
        "log.message.timestamp.type": "LogAppendTime",
        # A dead letter is the refused record and what was wrong with it: larger than what producers may send.
        "message.max.bytes": 2_097_152,
        "log.cleaner.dedupe.buffer.size": 16_777_216,
        "num.partitions": PARTITIONS,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        # One node: what a cluster keeps three times exists once.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # A killed node must wait for its own old session to end: 3.5 s meets its fifth attempt to register.
        "broker.session.timeout.ms": 3_500,
        "broker.heartbeat.interval.ms": 500,
        # There is nobody to hand over to; a lone broker that takes itself off the list leaves its clients without any,
        # and librdkafka's consumers then may not find their group's coordinator again for minutes.
        "controlled.shutdown.enable": "false",
    }


_LOGGING = {
    "log4j.rootLogger": "WARN, out",
    "log4j.logger.kafka.server.KafkaRaftServer": "INFO",
    "log4j.appender.out": "org.apache.log4j.ConsoleAppender",
    "log4j.appender.out.layout": "org.apache.log4j.PatternLayout",
    "log4j.appender.out.layout.ConversionPattern": "%d{ISO8601} %p %c{1}: %m%n",
}

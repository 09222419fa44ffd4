"""`tollgate up`: from nothing to a living flow, in stages.

In: `Options`. Out: every part running and supervised, the champion model serving, live transactions streaming;
with `transactions`, a `Summary` that accounts for every one of them. What exists already is not made again.
The stages and what each needs are in `_stages`; everything that runs stays in the modules beside this one.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from tollgate.local import environments, gateway, jars, kafka, mlflow, parts, postgres, summary, tool, world
from tollgate.local import java as javas
from tollgate.local.layout import HOST, Layout
from tollgate.local.part import Part
from tollgate.local.stages import Board, Reporter, Stage, run_stages
from tollgate.local.supervisor import Supervisor
from tollgate.simulator.history import History
from tollgate.simulator.mix import Mix
from tollgate.simulator.options import Position
from tollgate.simulator.publisher import KafkaPublisher
from tollgate.simulator.records import WorldSource
from tollgate.simulator.run import Pace, simulate
from tollgate.simulator.stream import Sent
from tollgate.simulator.world import World
from tollgate.store.connection import migrate

MODEL = "fraud"
CHAMPION = f"mlflow://models/{MODEL}@champion"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    transactions: int | None = None
    """Stop after so many live transactions; None: go on until interrupted."""
    rate: float = 50.0
    """Live transactions per second on the wall clock; 0: as fast as possible."""
    mix: Mix = field(default_factory=Mix)
    """Bad input on purpose; needs `transactions`."""
    size: Mapping[str, int] = field(default_factory=dict)
    """The world's size, the fields of `tollgate.local.world.Size` that were given."""


class Registry(msgspec.Struct):
    """`registry.json`, which the storage initializer puts beside a model."""

    name: str
    version: str


class Platform:
    """The running platform of one home; `with Platform(...)` holds its lock and stops everything at the end."""

    def __init__(self, layout: Layout, options: Options, stop: threading.Event) -> None:
        self.layout = layout
        self.options = options
        self.supervisor = Supervisor(layout)
        self.sent: Sent | None = None
        self.model: Registry | None = None
        self._stop = stop
        self._history: History | None = None

    def start(self, board: Board) -> dict[str, float]:
        """Run the stages; returns their seconds. Raises the first stage's error."""
        return run_stages(self._stages(), board, self._stop)

    def stream(self, stop: threading.Event) -> Sent:
        """Publish live transactions until `stop` or as many as were asked for, from where the last run ended.

        A run with an end also publishes the labels of what it sent, so that the summary can tell how good it was.
        """
        asked = self.options
        pace = Pace(asked.transactions, asked.rate, asked.mix, flush_labels=asked.transactions is not None)
        options = world.stream_options(self.layout, self._need_history(), pace)
        with KafkaPublisher(self.layout.kafka_bootstrap) as publisher:
            self.sent = simulate(options, publisher, stop, self._remember)
        return self.sent

    def position(self) -> Position:
        """Where the stream is in the world."""
        return world.position(self.layout, self._need_history())

    def account(self, start: Position, sent: Sent, before: summary.Offsets) -> summary.Summary:
        """What became of the transactions sent from `start` on, looked up once."""
        source = WorldSource(World(self._need_history().settings))
        ids = [_transaction_id(entry.body) for entry in islice(source.entries(start), sent.transactions)]
        return summary.account(self.layout.kafka_bootstrap, self.layout.database_url().reveal(), ids, sent, before)

    def _need_history(self) -> History:
        assert self._history is not None, "start() comes first"
        return self._history

    def _remember(self, sent: Sent) -> None:
        self.sent = sent

    def _stages(self) -> list[Stage]:
        return [
            Stage("serving env", lambda report: self._environment("serving", report)),
            Stage("functions env", lambda report: self._environment("functions", report)),
            Stage("kafka jars", lambda report: self._jars(jars.KAFKA, report)),
            Stage("spark jars", lambda report: self._jars(jars.SPARK, report)),
            Stage("history", self._make_history),
            Stage("postgres", self._postgres),
            Stage("registry", self._registry, ("postgres",)),
            Stage("kafka", self._kafka, ("kafka jars",)),
            Stage("tiles", self._backfill, ("history", "postgres")),
            Stage("training", self._train, ("history", "registry")),
            Stage("model", self._model, ("training", "serving env")),
            Stage("functions", self._functions, ("functions env", "postgres")),
            Stage("broker", self._broker, ("kafka", "functions", "model")),
            Stage("stream", self._spark, ("tiles", "kafka", "spark jars")),
            Stage("console", self._console, ("kafka", "postgres")),
            Stage("mlflow", self._mlflow, ("registry",)),
        ]

    def _environment(self, extra: str, report: Reporter) -> None:
        environments.ensure(self.layout, extra, report)
        report("installed")

    def _jars(self, wanted: jars.JarSet, report: Reporter) -> None:
        jars.ensure(self.layout, wanted, report)
        report("downloaded")

    def _make_history(self, report: Reporter) -> None:
        self._history = world.ensure_history(self.layout, self.options.size, report)

    def _postgres(self, report: Reporter) -> None:
        self._start(postgres.part(self.layout))
        applied = migrate(self.layout.database_url().reveal())
        report(f"schema: {', '.join(applied) or 'up to date'}")

    def _registry(self, report: Reporter) -> None:
        mlflow.prepare_store(self.layout)
        report("MLflow's store is ready")

    def _mlflow(self, report: Reporter) -> None:
        self._start(mlflow.part(self.layout))
        report(self.layout.url("mlflow"))

    def _kafka(self, report: Reporter) -> None:
        self._start(kafka.part(self.layout))
        made = kafka.ensure_topics(self.layout)
        report(f"{len(made)} topics made" if made else self.layout.kafka_bootstrap)

    def _backfill(self, report: Reporter) -> None:
        done = self.layout.data / "backfilled"
        if done.exists():
            report("the tiles hold the history")
            return
        command = [sys.executable, "-m", "tollgate_spark.backfill", "--history", str(world.history_folder(self.layout))]
        env = {"TOLLGATE_DATABASE_URL": self.layout.database_url().reveal(), **java_env(self.layout, "backfill")}
        tool.run(self.layout, "backfill", command, env, report, self._stop)
        done.touch()

    def _train(self, report: Reporter) -> None:
        done = self.layout.data / "trained.json"
        if done.exists():
            report("the registry has a champion")
            return
        command = [sys.executable, "-m", "tollgate_training", "--history", str(world.history_folder(self.layout))]
        result = tool.run(self.layout, "training", command, mlflow.client_env(self.layout), report, self._stop)
        done.write_text(result)
        trained = msgspec.json.decode(result, type=_Trained)
        quality = ", ".join(f"{name} {trained.metrics[name]:.3f}" for name in _SHOWN if name in trained.metrics)
        report(f"version {trained.version} registered as {trained.alias}: {quality}")

    def _model(self, report: Reporter) -> None:
        incoming = self.layout.data / "models/incoming"
        command = [sys.executable, "-m", "tollgate_kserve.storage", CHAMPION, str(incoming)]
        tool.run(self.layout, "storage", command, mlflow.client_env(self.layout), report, self._stop)
        self.model = msgspec.json.decode((incoming / "registry.json").read_bytes(), type=Registry)
        folder = self.layout.data / "models" / MODEL / self.model.version
        if folder.exists():
            shutil.rmtree(incoming)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(incoming, folder)
        revision = f"{MODEL}-predictor-{int(self.model.version):05d}"
        target = gateway.Revision(revision, 100, HOST, self.layout.port("model"))
        gateway.write_routes(self.layout, [target])
        self._start(parts.model(self.layout, folder, revision), gateway.part(self.layout))
        report(f"{MODEL} version {self.model.version} as {revision}")

    def _functions(self, report: Reporter) -> None:
        self._start(*(parts.function(self.layout, name) for name in parts.FUNCTIONS))
        report(", ".join(parts.FUNCTIONS))

    def _broker(self, report: Reporter) -> None:
        self._start(parts.dispatcher(self.layout))
        report(self.layout.broker_url)

    def _spark(self, report: Reporter) -> None:
        connector = {"TOLLGATE_SPARK_JARS": str(self.layout.jars / jars.SPARK.name)}
        self._start(parts.spark(self.layout, java_env(self.layout, "stream") | connector))
        report("Spark keeps the tiles")

    def _console(self, report: Reporter) -> None:
        self._start(parts.console(self.layout))
        report(self.layout.url("console"))

    def _start(self, *started: Part) -> None:
        self.supervisor.start(*started)
        self.supervisor.wait_ready(*(each.name for each in started))


def java_env(layout: Layout, who: str) -> dict[str, str]:
    """The Java that Spark's processes use, and a folder for what `who` leaves behind when it is killed."""
    scratch = layout.run / "spark" / who
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return {"JAVA_HOME": str(javas.spark_home(javas.find(), layout.run / "java")), "TMPDIR": str(scratch)}


class _Trained(msgspec.Struct):
    version: str
    alias: str
    metrics: dict[str, float]


_SHOWN = ("average_precision", "auc_roc", "card_precision_at_100")


class _Id(msgspec.Struct):
    transaction_id: str


def _transaction_id(body: bytes) -> str:
    return msgspec.json.decode(body, type=_Id).transaction_id

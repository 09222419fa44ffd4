"""`python -m tollgate.local.dispatcher --manifests knative/base`: wires the parts and runs until SIGTERM.

In: the manifests and `Settings`. Out: exit code 0 after an orderly stop, 1 when something cannot continue (the
supervisor starts it again), 2 when a setting or a manifest is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from confluent_kafka import Message

from tollgate.errors import ConfigurationError, Rejected
from tollgate.events import CloudEvent, kafka_attributes
from tollgate.local.dispatcher.courier import Courier
from tollgate.local.dispatcher.ingress import ingress, observability
from tollgate.local.dispatcher.manifests import Destination, Mesh, Source, Trigger, load
from tollgate.local.dispatcher.pump import Pump
from tollgate.local.dispatcher.settings import Settings
from tollgate.local.dispatcher.source import to_event
from tollgate.local.dispatcher.writer import MAX_RECORD_BYTES, Writer
from tollgate.topics import client

log = logging.getLogger("tollgate.local.dispatcher")

_CONCURRENCY = 64  # requests in flight a Trigger
_LAST_WORDS = 5.0  # seconds for the last commits and writes, after `grace`
_WINDOW = 1024  # events under way a KafkaSource or Trigger, those waiting for a retry included


class Dispatcher:
    """The running mesh. Make it inside a running event loop."""

    def __init__(self, mesh: Mesh, settings: Settings) -> None:
        self._settings = settings
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None
        self._writer = Writer(settings.kafka_bootstrap, self._fail)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        self._triggers = [self._trigger(each) for each in mesh.triggers]
        self._sources = [self._source(each, member) for each in mesh.sources for member in range(each.consumers)]
        self._ingress = web.AppRunner(
            ingress(mesh.brokers, self._writer, self.missing), access_log=None, shutdown_timeout=settings.grace
        )
        self._observability = web.AppRunner(observability(self.missing), access_log=None)

    async def start(self) -> None:
        """Open the ports, then the Triggers, then the sources that feed them. Raises `OSError` for a taken port."""
        for runner, port in (
            (self._observability, self._settings.metrics_port),
            (self._ingress, self._settings.ingress_port),
        ):
            await runner.setup()
            await web.TCPSite(runner, self._settings.host, port).start()
        self._watch = asyncio.create_task(self._watch_kafka())
        for pump in (*self._triggers, *self._sources):
            pump.start()

    async def stop(self) -> None:
        """Take in nothing more, finish what is under way, commit."""
        if self._watch is not None:
            self._watch.cancel()
        await self._ingress.cleanup()
        for group in (self._sources, self._triggers):
            await asyncio.gather(*(pump.stop(self._settings.grace) for pump in group))
        await self._http.close()
        await self._writer.close()
        await self._observability.cleanup()

    def missing(self) -> str:
        """What is not ready yet, or an empty text."""
        if not self._writer.reachable:
            return "Kafka does not answer"
        waiting = sum(not pump.ready for pump in (*self._triggers, *self._sources))
        return f"{waiting} consumers wait for their partitions" if waiting else ""

    async def _watch_kafka(self) -> None:
        while True:  # readiness must come back without waiting for the next event
            if not self._writer.reachable:
                await self._writer.connect()
            await asyncio.sleep(1)

    def _trigger(self, trigger: Trigger) -> Pump:
        def select(message: Message) -> CloudEvent | None:
            try:
                attributes = kafka_attributes(message.headers() or ())
                if not trigger.wants(attributes):
                    return None
                return CloudEvent.trusted(attributes, message.value() or b"")
            except (Rejected, KeyError):  # written to the Broker's topic by somebody else
                log.warning("trigger %s: a record of %s is no CloudEvent", trigger.name, message.topic())
                return None

        courier = self._courier(f"trigger-{trigger.name}", trigger, trigger.subscriber)
        config = self._consumer(trigger.group, 0, "earliest")
        return Pump(courier, config, (trigger.broker.name,), select, _WINDOW, self._fail)

    def _source(self, source: Source, member: int) -> Pump:
        def select(message: Message) -> CloudEvent:
            return to_event(source, message)

        name = f"source-{source.name}" + (f"-{member}" if member else "")
        courier = self._courier(name, source, source.sink)
        config = self._consumer(source.group, member, source.initial_offset)
        return Pump(courier, config, source.topics, select, _WINDOW, self._fail)

    def _courier(self, name: str, spec: Source | Trigger, destination: Destination) -> Courier:
        return Courier(
            name=name,
            destination=destination,
            delivery=spec.delivery,
            dead_letter=spec.dead_letter,
            reply_to=spec.broker if isinstance(spec, Trigger) else None,
            writer=self._writer,
            http=self._http,
            slots=asyncio.Semaphore(_CONCURRENCY),
        )

    def _consumer(self, group: str, member: int, initial: str) -> dict[str, Any]:
        return {
            **client(self._settings.kafka_bootstrap),
            "group.id": group,
            # A member with a name that comes back after a crash gets its partitions at once.
            "group.instance.id": f"{group}-{member}",
            "auto.offset.reset": initial,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "queued.min.messages": 2_000,
            "queued.max.messages.kbytes": 8_192,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 20,
            "fetch.min.bytes": 100_000,
            "fetch.message.max.bytes": MAX_RECORD_BYTES,
            "topic.metadata.refresh.interval.ms": 10_000,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 1_000,
        }

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)


async def run(mesh: Mesh, settings: Settings) -> int:
    """Run until a signal or a failure; answers the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    dispatcher = Dispatcher(mesh, settings)
    try:
        try:
            await dispatcher.start()
        except OSError as error:
            log.error("cannot listen: %s: is another dispatcher running?", error)
            return 1
        log.info("ingress on port %d: %s", settings.ingress_port, ", ".join(mesh.brokers))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopped, dispatcher.failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
    finally:
        try:
            await asyncio.wait_for(dispatcher.stop(), settings.grace + _LAST_WORDS)
        except TimeoutError:  # Kafka is away: a commit or a write waits for it. What is not committed comes again.
            log.warning("Kafka did not answer: stopping without it")
            os._exit(1)
    if dispatcher.failed.done():
        log.error("cannot continue: %s", dispatcher.failed.result())
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tollgate.local.dispatcher", description=__doc__)
    parser.add_argument("--manifests", type=Path, required=True, help="the kustomize folder, such as knative/base")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.read()
        mesh = load(options.manifests, settings.services)
    except ConfigurationError as error:
        log.error("%s", error)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(mesh, settings))


if __name__ == "__main__":
    sys.exit(main())

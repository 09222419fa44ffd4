"""Kafka in: one consumer of one group in a thread of its own, handing records to the event loop.

In: topics and a group from `manifests`. Out: batches of `Arrival` to `pump`, which calls `done` on each when the
event is durable elsewhere. Offsets are committed only up to the lowest that is not done (`offsets`). When `window`
events are under way nothing more is read, so that librdkafka's small queue fills and fetching stops by itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tollgate.events import CloudEvent
from tollgate.local.dispatcher.metrics import IN_FLIGHT, LAG
from tollgate.local.dispatcher.offsets import Tracker

log = logging.getLogger(__name__)

_BATCH = 256
_COMMIT_EVERY = 0.5
_MEASURE_EVERY = 1.0
_STAY_IN_GROUP = 60.0
_IDLE_POLL = 0.2
_BUSY_POLL = 0.02
_PACE = 0.002
_PACE_COLD = 0.02
_COLD_AFTER = 1.0


@dataclass(slots=True)
class Arrival:
    """An event under way; `at` is the monotonic clock when it was read."""

    event: CloudEvent
    where: str
    at: float
    tracker: Tracker
    offset: int


def position(message: Message) -> tuple[str, int, int]:
    """Topic, partition and offset of a record that was read."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise ValueError("a record that Kafka delivered has no topic, partition or offset")
    return topic, partition, offset


class Intake:
    """`select` turns a record into an event, or None when it needs no work; it runs in this thread."""

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        topics: tuple[str, ...],
        select: Callable[[Message], CloudEvent | None],
        window: int,
        on_batch: Callable[[list[Arrival]], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        self.name = name
        self.assigned = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._topics, self._select, self._window = topics, select, window
        self._on_batch, self._on_fatal = on_batch, on_fatal
        self._trackers: dict[tuple[str, int], Tracker] = {}
        self._done: deque[Arrival] = deque()
        self._room = threading.Event()
        self._stop_reading = self._stop = False
        self._last_commit = self._last_measure = self._last_poll = self._last_match = 0.0
        self._complaints: dict[int, float] = {}
        self._consumer = Consumer({**config, "on_commit": self._on_commit, "logger": log})
        self._thread = threading.Thread(target=self._run, name=f"intake-{name}", daemon=True)

    def start(self) -> None:
        """Join the group and begin to read."""
        self._thread.start()

    def done(self, arrival: Arrival) -> None:
        """The event is durable elsewhere; called from the event loop."""
        self._done.append(arrival)
        self._room.set()

    def stop_reading(self) -> None:
        """Hand over no more records; those under way may still be `done`."""
        self._stop_reading = True

    async def close(self) -> None:
        """Commit what is done, leave, end the thread."""
        self._stop_reading = self._stop = True
        self._room.set()
        if self._thread.ident is None:  # never started
            self._consumer.close()
        else:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop:
                self._turn()
            self._settle()
            self._commit(wait=True)
            self._consumer.close()
        except KafkaException as error:
            self._fatal(f"{self.name}: {error.args[0].str()}")
        except Exception as error:  # a bug must stop the process, not leave one consumer silent
            log.exception("%s: the intake failed", self.name)
            self._fatal(f"{self.name}: {error!r}")

    def _fatal(self, text: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_fatal, text)

    def _turn(self) -> None:
        self._settle()
        now = time.monotonic()
        under_way = sum(tracker.unfinished for tracker in self._trackers.values())
        if now - self._last_commit >= _COMMIT_EVERY:
            self._commit(wait=False)
            self._last_commit = now
        if now - self._last_measure >= _MEASURE_EVERY:
            self._measure(under_way)
            self._last_measure = now
        full = self._stop_reading or under_way >= self._window
        if full and now - self._last_poll < _STAY_IN_GROUP:
            self._room.wait(_BUSY_POLL)
            self._room.clear()
            return
        self._last_poll = now
        first = self._consumer.poll(_BUSY_POLL if under_way else _IDLE_POLL)
        if first is None:
            return
        more = 0 if full else min(_BATCH, self._window - under_way) - 1
        self._accept([first, *(self._consumer.consume(more, 0) if more > 0 else ())])

    def _accept(self, messages: list[Message]) -> None:
        now = time.monotonic()
        batch = []
        for message in messages:
            if (error := message.error()) is not None:
                self._complain(error)
                continue
            topic, partition, offset = position(message)
            tracker = self._tracker(topic, partition, offset)
            event = self._select(message)
            if event is None:
                tracker.skip(offset)
            else:
                tracker.begin(offset)
                batch.append(Arrival(event, f"{topic}/{partition}/{offset}", now, tracker, offset))
        if batch:
            self._loop.call_soon_threadsafe(self._on_batch, batch)
            self._last_match = now
        if len(messages) < _BATCH // 4:
            # Let a few records gather: on every record of the Broker each Trigger's thread would wake up otherwise,
            # those whose filter matches nothing too (they can wait a little longer).
            time.sleep(_PACE if now - self._last_match < _COLD_AFTER else _PACE_COLD)

    def _tracker(self, topic: str, partition: int, offset: int) -> Tracker:
        found = self._trackers.get((topic, partition))
        if found is None or offset < found.next:  # the topic was made anew: its offsets begin again
            found = self._trackers[topic, partition] = Tracker(offset)
        return found

    def _settle(self) -> None:
        while self._done:
            arrival = self._done.popleft()
            arrival.tracker.finish(arrival.offset)  # of a revoked partition: nobody looks at that tracker any more

    def _commit(self, *, wait: bool) -> None:
        offsets = []
        for (topic, partition), tracker in self._trackers.items():
            if (position := tracker.position) != tracker.committed:
                tracker.committed = position
                offsets.append(TopicPartition(topic, partition, position))
        if not offsets:
            return
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._on_commit(error.args[0], offsets)

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        if error is None:
            return
        self._complain(error)
        for each in offsets:  # tried again with the next commit
            if tracker := self._trackers.get((each.topic, each.partition)):
                tracker.committed = -1

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("%s: reads %d partitions", self.name, len(partitions))
        try:
            for each in consumer.committed(partitions, timeout=5):
                if each.offset >= 0:
                    self._trackers[each.topic, each.partition] = Tracker(each.offset)
        except KafkaException as error:
            log.warning("%s: the committed offsets are not known yet: %s", self.name, error.args[0].str())
        self.assigned.set()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._settle()
        self._commit(wait=True)
        self._forget(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("%s: lost %d partitions, their events will come again", self.name, len(partitions))
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._trackers.pop((each.topic, each.partition), None)
        self.assigned.clear()

    def _measure(self, under_way: int) -> None:
        IN_FLIGHT.labels(self.name).set(under_way)
        lag = 0
        for each in self._consumer.assignment():
            tracker = self._trackers.get((each.topic, each.partition))
            marks = self._consumer.get_watermark_offsets(each, cached=True)
            if marks and marks[1] >= 0:
                lag += max(0, marks[1] - (tracker.position if tracker else max(0, marks[0])))
        LAG.labels(self.name).set(lag)

    def _complain(self, error: KafkaError) -> None:
        """Log a passing trouble once a minute; stop the process for one that does not pass."""
        if error.fatal():
            raise KafkaException(error)
        now = time.monotonic()
        if now - self._complaints.get(error.code(), -60.0) >= 60.0:
            self._complaints[error.code()] = now
            log.warning("%s: %s", self.name, error.str())

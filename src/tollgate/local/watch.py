"""What flows, read from the outside: decisions and dead letters as they land on their topics, lag by consumer.

In: Kafka. Out: `Snapshot`s for the live view. Watching takes nothing from the flow: no offset is committed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tollgate import dead_letters
from tollgate.decision import Decision, Outcome
from tollgate.errors import TollgateError
from tollgate.events import from_kafka
from tollgate.topics import DEAD_LETTERS, DECISIONS, Record, Tail, client

_RECENT = 2_000
_RATE_WINDOW_S = 10.0
_LAG_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The flow since watching began. Latencies in milliseconds over the last 2,000 decisions; rate per second."""

    outcomes: dict[Outcome, int]
    dead: dict[str, int]
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    flagged: list[Decision]
    lag: dict[str, int]
    trouble: str | None

    @property
    def decided(self) -> int:
        """Decisions seen."""
        return sum(self.outcomes.values())


class Listener(Protocol):
    """Who wants each record, not only the sums. Called in the watching thread: be quick, do not raise."""

    def decided(self, decision: Decision) -> None:
        """A decision landed on its topic."""

    def dead(self, letter: dead_letters.DeadLetter) -> None:
        """An event landed on the dead-letter topic."""


@dataclass
class _Totals:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    arrivals: deque[float] = field(default_factory=deque)
    flagged: deque[Decision] = field(default_factory=lambda: deque(maxlen=8))
    lag: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None


class Watch:
    """A thread that follows the topics until `stop`; `snapshot` may be called from anywhere."""

    def __init__(self, bootstrap: str, listener: Listener | None = None) -> None:
        """Raises `Retryable` when Kafka, or a topic, is not there yet."""
        self._bootstrap = bootstrap
        self._listener = listener
        self._totals = _Totals()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._tail = Tail(bootstrap, DECISIONS, DEAD_LETTERS)
        self._threads = [
            threading.Thread(target=self._follow, name="watch", daemon=True),
            threading.Thread(target=self._measure_lag, name="watch-lag", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def snapshot(self) -> Snapshot:
        """The flow as it is now."""
        now = time.monotonic()
        with self._lock:
            totals = self._totals
            while totals.arrivals and now - totals.arrivals[0] > _RATE_WINDOW_S:
                totals.arrivals.popleft()
            ordered = sorted(totals.latencies)
            return Snapshot(
                outcomes=dict(totals.outcomes),
                dead=dict(totals.dead),
                rate=len(totals.arrivals) / _RATE_WINDOW_S,
                p50_ms=ordered[len(ordered) // 2] if ordered else None,
                p99_ms=ordered[int(len(ordered) * 0.99)] if ordered else None,
                flagged=list(totals.flagged),
                lag=dict(totals.lag),
                trouble=totals.trouble,
            )

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._tail.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            for record in self._tail.poll(0.2):
                with self._lock:
                    self._take(record)

    def _take(self, record: Record) -> None:
        totals = self._totals
        if record.topic == DEAD_LETTERS:
            letter = dead_letters.read(record)
            totals.dead[letter.reason] += 1
            if self._listener is not None:
                self._listener.dead(letter)
            return
        try:
            event = from_kafka(record.headers, record.value)
            decision = msgspec.json.decode(event.data if event else record.value, type=Decision)
        except (TollgateError, msgspec.DecodeError, UnicodeDecodeError) as error:
            totals.trouble = f"topic {DECISIONS} {record.position}: {error}"
            return
        totals.outcomes[decision.outcome] += 1
        totals.latencies.append(decision.latency_ms)
        totals.arrivals.append(time.monotonic())
        if decision.outcome is not Outcome.APPROVE:
            totals.flagged.append(decision)
        if self._listener is not None:
            self._listener.decided(decision)

    def _measure_lag(self) -> None:
        admin: AdminClient | None = None
        while not self._stop.wait(_LAG_EVERY_S):
            try:
                admin = admin or AdminClient({**client(self._bootstrap), "log_level": 0})
                lag = lags(admin)
            except (KafkaException, TollgateError) as error:
                admin = None  # one that saw the broker die may go on timing out after it is back
                with self._lock:
                    self._totals.trouble = f"Kafka does not say how far its readers are: {_text(error)}"
                continue
            with self._lock:
                self._totals.lag = lag
                self._totals.trouble = None


def _text(error: Exception) -> str:
    return error.args[0].str() if isinstance(error, KafkaException) else str(error)


def lags(admin: AdminClient) -> dict[str, int]:
    """How many records each consumer group has still to handle, by group name."""
    groups = [g.group_id for g in admin.list_consumer_groups(request_timeout=5).result().valid]
    found: dict[str, int] = {}
    for group in sorted(groups):
        request = [ConsumerGroupTopicPartitions(group)]
        committed = admin.list_consumer_group_offsets(request, request_timeout=5)[group].result().topic_partitions
        known = [p for p in committed if p.offset >= 0]
        if not known:
            continue
        wanted = {TopicPartition(p.topic, p.partition): OffsetSpec.latest() for p in known}  # type: ignore[no-untyped-call]
        ends = admin.list_offsets(wanted, request_timeout=5)
        end_of = {(p.topic, p.partition): future.result().offset for p, future in ends.items()}
        found[group] = sum(max(0, end_of[p.topic, p.partition] - p.offset) for p in known)
    return found

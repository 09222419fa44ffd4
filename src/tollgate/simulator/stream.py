"""The present: transactions to Kafka at a steady rate, labels following when event time reaches them.

In: a `Source` (world or file), a `Publisher`, a start position. Out: records on `transactions` (key customer_id)
and `labels` (key transaction_id), and `Sent`, what was published and the position to go on from.
Next: the KafkaSources of `knative/` and Spark's tiles.

Event time is warped: it is whatever the transactions say, while `rate` is about the clock on the wall.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event

from tollgate.errors import ConfigurationError, Retryable
from tollgate.simulator.frauds import Purpose, rng
from tollgate.simulator.mix import Mix, Plan, conflicting, make_plan, malformed
from tollgate.simulator.options import Position
from tollgate.simulator.publisher import Publisher
from tollgate.simulator.records import Entry, Source
from tollgate.topics import LABELS, TRANSACTIONS

STOP_FLUSH_S = 10.0
"""When asked to stop, wait at most this long for Kafka to confirm what is under way."""


@dataclass
class Sent:
    """What a run has published. Everything before `position` is stored in Kafka.

    `transactions` counts the originals; `malformed_reasons` says which reason each malformed record must get.
    """

    position: Position
    transactions: int = 0
    duplicates: int = 0
    malformed: int = 0
    conflicts: int = 0
    labels: int = 0
    seconds: float = 0.0
    malformed_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        """All records on `transactions`: originals, duplicates, conflicts and malformed ones."""
        return self.transactions + self.duplicates + self.malformed + self.conflicts


Report = Callable[[Sent], None]


class Pacer:
    """Lets `rate` per second pass, exact over any length of time: what a pause delays is caught up afterwards."""

    def __init__(self, rate: float, stop: Event) -> None:
        """`rate` 0 lets everything pass at once."""
        self._rate, self._stop = rate, stop
        self._start, self._passed = time.monotonic(), 0

    def wait(self) -> bool:
        """Wait for the next one's turn; False when asked to stop."""
        if self._rate > 0:
            early = self._start + self._passed / self._rate - time.monotonic()
            if early > 0 and self._stop.wait(early):
                return False
        self._passed += 1
        return not self._stop.is_set()


class Stream:
    """Publishes one source from one position on. `run` may be called again: it goes on where it stopped.

    A restart at `Sent.position` continues the very same stream: ids depend on the position only, so what was
    published after the last report comes again with the same id and body.
    """

    def __init__(self, source: Source, publisher: Publisher, start: Position, seed: int = 0) -> None:
        """`seed` places the bad input of `run(mix=...)`."""
        self.position = start
        self._publisher = publisher
        self._seed = seed
        self._entries = source.entries(start)
        # (due, order, key, body); order also says whether this stream published the transaction.
        self._labels = [(r.due_us, n, r.key, r.body) for n, r in enumerate(source.pending_labels(start))]
        heapq.heapify(self._labels)
        self._order = self._first_own = len(self._labels)

    def run(
        self,
        count: int | None = None,
        *,
        rate: float = 0.0,
        mix: Mix | None = None,
        stop: Event | None = None,
        report: Report | None = None,
        report_every_s: float = 1.0,
    ) -> Sent:
        """Publish `count` transactions (None: until stopped or the source ends), `rate` of them a second.

        Labels and bad input come on top of the rate. `report` gets a copy of the running `Sent` about every
        `report_every_s`, after Kafka has confirmed everything before its position: persist it there. If the
        source ends or `stop` is set early, only the part of `mix` planned so far has been sent.
        Raises `Retryable` when Kafka does not take a record, `ConfigurationError` for a mix over no count.
        """
        if rate < 0 or (count is not None and count < 0):
            raise ConfigurationError(f"rate {rate}, count {count}: neither can be negative")
        stop = stop or Event()
        plan = make_plan(mix or Mix(), count, rng(self._seed, Purpose.MIX, self.position.day, self.position.index))
        sent = Sent(self.position)
        kept: dict[int, Entry] = {}
        pacer = Pacer(rate, stop)
        began = reported = time.monotonic()

        def confirm() -> None:
            self._confirm(stop)
            sent.position, sent.seconds = self.position, time.monotonic() - began
            if report:
                report(replace(sent, malformed_reasons=Counter(sent.malformed_reasons)))

        while count is None or sent.transactions < count:
            if not pacer.wait() or (entry := next(self._entries, None)) is None:
                break
            number = sent.transactions
            sent.labels += self._publish_labels(entry.occurred_us)
            self._publish(entry)
            sent.transactions += 1
            if number in plan.originals:
                kept[number] = entry
            self._publish_bad(number, entry, plan, kept, sent)
            if time.monotonic() - reported >= report_every_s:
                confirm()
                reported = time.monotonic()
        confirm()
        return sent

    def flush_labels(self) -> int:
        """Publish the labels of everything this stream has published that are not due yet; returns how many.

        For the end of a run that wants to know how good the decisions were. A later stream from the same position
        publishes them again in their time: labels are idempotent by transaction and source.
        """
        own = sorted(label for label in self._labels if label[1] >= self._first_own)
        for _, _, key, body in own:
            self._publisher.publish(LABELS, key, body)
        self._confirm(Event())
        self._labels = [label for label in self._labels if label[1] < self._first_own]
        heapq.heapify(self._labels)
        return len(own)

    def _confirm(self, stop: Event) -> None:
        """Return when Kafka has everything; in steps, so that a stop (or Ctrl-C) gets through an outage."""
        give_up = None
        while not self._publisher.flush(0.5):
            if stop.is_set():
                give_up = give_up or time.monotonic() + STOP_FLUSH_S
                if time.monotonic() > give_up:
                    raise Retryable(
                        f"stopped, but Kafka did not confirm the last records within {STOP_FLUSH_S:.0f} s; "
                        "starting again sends them again, from the last saved position"
                    )

    def _publish(self, entry: Entry) -> None:
        self._publisher.publish(TRANSACTIONS, entry.key, entry.body)
        self.position = entry.next
        if entry.label:
            heapq.heappush(self._labels, (entry.label.due_us, self._order, entry.label.key, entry.label.body))
            self._order += 1

    def _publish_labels(self, now_us: int) -> int:
        published = 0
        while self._labels and self._labels[0][0] <= now_us:
            _, _, key, body = heapq.heappop(self._labels)
            self._publisher.publish(LABELS, key, body)
            published += 1
        return published

    def _publish_bad(self, number: int, entry: Entry, plan: Plan, kept: dict[int, Entry], sent: Sent) -> None:
        for kind in plan.malformed.get(number, ()):
            name = f"bad-{entry.next.day}-{entry.next.index}-{sent.malformed}"
            bad = malformed(kind, entry.body, name)
            self._publisher.publish(TRANSACTIONS, entry.key, bad.value, bad.headers)
            sent.malformed += 1
            sent.malformed_reasons[bad.reason] += 1
        for original in plan.duplicates.get(number, ()):
            self._publisher.publish(TRANSACTIONS, kept[original].key, kept[original].body)
            sent.duplicates += 1
        for original in plan.conflicts.get(number, ()):
            self._publisher.publish(TRANSACTIONS, kept[original].key, conflicting(kept[original].body))
            sent.conflicts += 1

"""What became of a run: every record that was sent is accounted for, or named as missing.

In: the ids that were sent and what was mixed in; the ledger, topic `decisions` and the dead letters. Out: `Summary`.
The accounting is by identity, not by counting messages: delivery is at least once, so a decision may be on its
topic twice, and must then be the same decision.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tollgate import dead_letters, topics
from tollgate.decision import Decision, Outcome
from tollgate.errors import Reason
from tollgate.events import from_kafka
from tollgate.simulator.stream import Sent
from tollgate.store import ledger
from tollgate.store.connection import connect, retryable

_LABELS_S = 10.0
"""How long a complete run waits for its next label."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where the topics ended before the run: what is before does not belong to it."""

    decisions: Mapping[int, int]
    dead_letters: Mapping[int, int]

    @classmethod
    def now(cls, bootstrap: str) -> Offsets:
        """The ends of the topics as they are now."""
        return cls(topics.ends(bootstrap, topics.DECISIONS), topics.ends(bootstrap, topics.DEAD_LETTERS))


@dataclass(frozen=True, slots=True)
class Summary:
    """One run's account. Latencies in milliseconds from Kafka's append to the decision; `span_s` from the first
    append to the last decision."""

    sent: Sent
    in_ledger: int
    outcomes: Mapping[Outcome, int]
    on_topic: int
    topic_records: int
    differing: int
    dead: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None
    span_s: float
    labelled: int
    precision: float | None
    recall: float | None
    missing: Sequence[str]

    @property
    def expected_dead(self) -> int:
        """How many records must be dead letters: the malformed and the conflicting ones."""
        return self.sent.malformed + self.sent.conflicts

    @property
    def complete(self) -> bool:
        """True when every record that was sent is where it belongs."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What does not add up, in words; empty when everything does."""
        found = []
        if self.in_ledger != self.sent.transactions:
            some = f", for example {', '.join(self.missing[:3])}" if self.missing else ""
            found.append(f"{self.sent.transactions - self.in_ledger} transactions are not in the ledger{some}")
        if self.on_topic != self.sent.transactions:
            found.append(f"topic decisions has {self.on_topic} of {self.sent.transactions} transactions")
        if self.differing:
            found.append(f"{self.differing} decisions on topic decisions differ from the ledger's")
        if sum(self.dead.values()) != self.expected_dead:
            found.append(f"{sum(self.dead.values())} dead letters, {self.expected_dead} expected")
        conflicts = self.dead.get(Reason.CONFLICT, 0)
        if conflicts != self.sent.conflicts:
            found.append(f"{conflicts} dead letters for a conflict, {self.sent.conflicts} expected")
        return found


def account(bootstrap: str, database_url: str, ids: Sequence[str], sent: Sent, before: Offsets) -> Summary:
    """Look everything up once. Raises `Retryable` when Kafka or Postgres is away."""
    wanted = set(ids)
    connection = connect(database_url, application="summary", statement_timeout_ms=60_000)
    try:
        with retryable():
            stored = ledger.decisions(connection, ids)
            quality = ledger.quality(connection, ids)
    finally:
        connection.close()
    on_topic: set[str] = set()
    records = differing = 0
    for record in topics.read(bootstrap, topics.DECISIONS, before.decisions):
        event = from_kafka(record.headers, record.value)
        decision = msgspec.json.decode(event.data if event else record.value, type=Decision)
        if decision.transaction_id in wanted:
            records += 1
            on_topic.add(decision.transaction_id)
            differing += stored.get(decision.transaction_id) != decision
    letters = dead_letters.distinct(
        map(dead_letters.read, topics.read(bootstrap, topics.DEAD_LETTERS, before.dead_letters))
    )
    latencies = sorted(each.latency_ms for each in stored.values())
    return Summary(
        sent=sent,
        in_ledger=len(stored),
        outcomes=Counter(each.outcome for each in stored.values()),
        on_topic=len(on_topic),
        topic_records=records,
        differing=differing,
        dead=Counter(letter.reason for letter in letters),
        p50_ms=latencies[len(latencies) // 2] if latencies else None,
        p99_ms=latencies[int(len(latencies) * 0.99)] if latencies else None,
        span_s=_span(stored.values()),
        labelled=quality.labelled,
        precision=quality.precision,
        recall=quality.recall,
        missing=sorted(wanted - stored.keys())[:10],
    )


def wait_complete(
    look: Callable[[], Summary], *, patience_s: float = 120.0, report: Callable[[Summary], None] = lambda _: None
) -> Summary:
    """Look until everything is accounted for and every label arrived, or until nothing has moved for `patience_s`.

    Returns the last look. Labels that stay away do not make a run incomplete: they say how good it was.
    """
    moved, last = time.monotonic(), (-1, -1, -1, -1)
    while True:
        summary = look()
        report(summary)
        now = (summary.in_ledger, summary.on_topic, sum(summary.dead.values()), summary.labelled)
        if now != last:
            moved, last = time.monotonic(), now
        quiet = time.monotonic() - moved
        all_labelled = summary.labelled >= summary.in_ledger or quiet > _LABELS_S
        if (summary.complete and all_labelled) or quiet > patience_s:
            return summary
        time.sleep(1.0)


def _span(decisions: Collection[Decision]) -> float:
    if not decisions:
        return 0.0
    first, last = min(each.requested_at for each in decisions), max(each.decided_at for each in decisions)
    return (last - first).total_seconds()

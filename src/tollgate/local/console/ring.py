"""The last minutes of the flow, in steps of two seconds, so that a page that is opened has something to draw.

In: each decision and dead letter as it arrives. Out: columns of equal length, oldest first, for `state`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tollgate.decision import Outcome

STEP_S = 2
STEPS = 450
"""15 minutes."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step: counts, and latency in milliseconds (None in a step without decisions)."""

    outcomes: dict[Outcome, int]
    dead: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(slots=True)
class _Open:
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dead: int = 0
    latencies: list[float] = field(default_factory=list)

    def close(self) -> Point:
        ordered = sorted(self.latencies)
        return Point(
            outcomes=dict(self.outcomes),
            dead=self.dead,
            p50_ms=ordered[len(ordered) // 2] if ordered else None,
            p99_ms=ordered[int(len(ordered) * 0.99)] if ordered else None,
        )


class Ring:
    """Closed steps, at most `STEPS` of them, and the one that is filling. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._points: deque[Point] = deque(maxlen=STEPS)
        self._step = self._now()
        self._open = _Open()

    def decided(self, outcome: Outcome, latency_ms: float) -> None:
        """Count a decision that arrives now."""
        with self._lock:
            self._roll()
            self._open.outcomes[outcome] += 1
            self._open.latencies.append(latency_ms)

    def dead(self) -> None:
        """Count a dead letter that arrives now."""
        with self._lock:
            self._roll()
            self._open.dead += 1

    def columns(self, after: int = 0) -> dict[str, Any]:
        """Closed steps later than number `after`; `last` is the number to ask with next time.

        A step's number is its start in epoch seconds divided by `step_s`; the steps follow each other without a gap.
        """
        with self._lock:
            self._roll()
            last = self._step - 1
            count = max(0, min(len(self._points), last - after))
            points = list(self._points)[len(self._points) - count :]
        return {
            "step_s": STEP_S,
            "last": last,
            **{str(outcome): [point.outcomes.get(outcome, 0) for point in points] for outcome in Outcome},
            "dead": [point.dead for point in points],
            "p50_ms": [_tenth(point.p50_ms) for point in points],
            "p99_ms": [_tenth(point.p99_ms) for point in points],
        }

    def _now(self) -> int:
        return int(self._clock() // STEP_S)

    def _roll(self) -> None:
        """Close the steps that are over. A clock set back keeps the open step open until it is reached again."""
        now = self._now()
        if now - self._step > STEPS:  # the machine slept: nothing of before is worth showing
            self._points.clear()
            self._open = _Open()
            self._step = now - STEPS
        while self._step < now:
            self._points.append(self._open.close())
            self._open = _Open()
            self._step += 1


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value, 1)

"""The ring keeps the last quarter of an hour in steps of two seconds, whatever the clock does."""

from __future__ import annotations

import pytest

from tollgate.decision import Outcome
from tollgate.local.console.ring import STEP_S, STEPS, Ring


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> Ring:
    return Ring(clock)


def test_a_step_shows_when_it_is_over_with_its_counts_and_its_own_percentiles(ring: Ring, clock: Clock) -> None:
    for latency in range(1, 101):
        ring.decided(Outcome.APPROVE, float(latency))
    ring.decided(Outcome.DECLINE, 1_000.0)
    ring.dead()
    assert ring.columns()["approve"] == []
    clock.now += STEP_S
    shown = ring.columns()
    assert (shown["approve"], shown["review"], shown["decline"], shown["dead"]) == ([100], [0], [1], [1])
    assert (shown["p50_ms"], shown["p99_ms"]) == ([51.0], [100.0])


def test_a_step_without_decisions_has_no_latency_and_leaves_no_gap(ring: Ring, clock: Clock) -> None:
    ring.decided(Outcome.REVIEW, 5.0)
    clock.now += 3 * STEP_S
    ring.decided(Outcome.REVIEW, 7.0)
    clock.now += STEP_S
    assert ring.columns()["review"] == [1, 0, 0, 1]
    assert ring.columns()["p99_ms"] == [5.0, None, None, 7.0]


def test_asking_with_the_last_number_gives_each_step_once(ring: Ring, clock: Clock) -> None:
    seen: list[int] = []
    last = 0
    for count in (3, 1, 4, 1, 5):
        for _ in range(count):
            ring.decided(Outcome.APPROVE, 1.0)
        clock.now += STEP_S
        fresh = ring.columns(last)
        last = fresh["last"]
        seen += fresh["approve"]
        assert ring.columns(last)["approve"] == []
    assert seen == [3, 1, 4, 1, 5]


def test_it_holds_a_quarter_of_an_hour_and_no_more(ring: Ring, clock: Clock) -> None:
    for number in range(STEPS + 50):
        if number % 2:
            ring.dead()
        clock.now += STEP_S
    shown = ring.columns()
    assert len(shown["dead"]) == STEPS
    assert sum(shown["dead"]) == STEPS / 2
    assert shown["last"] * STEP_S == clock.now - STEP_S


def test_after_a_sleep_of_the_machine_nothing_old_is_shown_as_new(ring: Ring, clock: Clock) -> None:
    ring.decided(Outcome.DECLINE, 1.0)
    clock.now += 86_400
    assert sum(ring.columns()["decline"]) == 0
    assert len(ring.columns()["decline"]) == STEPS


def test_a_clock_set_back_loses_no_decision(ring: Ring, clock: Clock) -> None:
    ring.decided(Outcome.APPROVE, 1.0)
    clock.now -= 600
    ring.decided(Outcome.APPROVE, 1.0)
    clock.now += 600 + STEP_S
    assert ring.columns()["approve"] == [2]

"""Stages run after what they need, side by side where they can, and stop at the first failure."""

from __future__ import annotations

import threading

import pytest

from tollgate.local.stages import Reporter, Stage, run_stages


class Listener:
    """A board that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, name: str) -> None:
        self.events.append(("started", name))

    def step(self, name: str, text: str, done: float | None = None, total: float | None = None) -> None:
        self.events.append(("step", f"{name}: {text}"))

    def finished(self, name: str, seconds: float, text: str) -> None:
        self.events.append(("finished", f"{name}: {text}"))

    def failed(self, name: str, seconds: float, text: str) -> None:
        self.events.append(("failed", f"{name}: {text}"))


def test_a_stage_starts_only_after_what_it_needs() -> None:
    order: list[str] = []
    stages = [
        Stage("last", lambda _: order.append("last"), ("left", "right")),
        Stage("left", lambda _: order.append("left"), ("first",)),
        Stage("right", lambda _: order.append("right"), ("first",)),
        Stage("first", lambda _: order.append("first")),
    ]
    seconds = run_stages(stages, Listener(), threading.Event())
    assert order[0] == "first"
    assert order[-1] == "last"
    assert set(seconds) == {"first", "left", "right", "last"}


def test_independent_stages_run_side_by_side() -> None:
    meet = threading.Barrier(2, timeout=10)
    run_stages([Stage("a", lambda _: _meet(meet)), Stage("b", lambda _: _meet(meet))], Listener(), threading.Event())


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait()


def test_the_first_failure_is_raised_and_nothing_new_starts() -> None:
    def fail(report: Reporter) -> None:
        raise RuntimeError("no disk")

    ran: list[str] = []
    board = Listener()
    stages = [Stage("bad", fail), Stage("after", lambda _: ran.append("after"), ("bad",))]
    with pytest.raises(RuntimeError, match="no disk"):
        run_stages(stages, board, threading.Event())
    assert ran == []
    assert ("failed", "bad: no disk") in board.events


def test_an_interrupt_keeps_waiting_stages_from_starting() -> None:
    stop = threading.Event()
    ran: list[str] = []
    stages = [Stage("first", lambda _: stop.set()), Stage("second", lambda _: ran.append("second"), ("first",))]
    assert set(run_stages(stages, Listener(), stop)) == {"first"}
    assert ran == []


def test_the_last_report_stays_beside_the_finished_stage() -> None:
    def work(report: Reporter) -> None:
        report("half", 1, 2)
        report("all of it", 2, 2)

    board = Listener()
    run_stages([Stage("work", work)], board, threading.Event())
    assert board.events[-1] == ("finished", "work: all of it")


def test_an_unknown_need_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown nowhere"):
        run_stages([Stage("a", lambda _: None, ("nowhere",))], Listener(), threading.Event())

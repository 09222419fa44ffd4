"""The stages of a start: what must run after what, side by side where it can, each with its seconds.

In: `Stage`s. Out: the seconds each took, or the first error. Whoever watches (`tollgate.local.board`) is told
of every start, step and end. A stage is a function in a thread: it waits for processes far more than it computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol


class Board(Protocol):
    """Who shows the stages. Called from several threads."""

    def started(self, name: str) -> None:
        """A stage begins."""

    def step(self, name: str, text: str, done: float | None = None, total: float | None = None) -> None:
        """A stage got somewhere: a few words, and how much of how much where that is known."""

    def finished(self, name: str, seconds: float, text: str) -> None:
        """A stage is through; `text` is the last thing worth knowing of it."""

    def failed(self, name: str, seconds: float, text: str) -> None:
        """A stage could not do its work."""


class Reporter:
    """What a running stage reports through; its last text stays beside the finished stage."""

    def __init__(self, board: Board, name: str) -> None:
        self._board = board
        self._name = name
        self.text = ""

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self.text = text
        self._board.step(self._name, text, done, total)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a start; `after` names the stages whose work it needs."""

    name: str
    run: Callable[[Reporter], None]
    after: tuple[str, ...] = ()


def run_stages(stages: Sequence[Stage], board: Board, stop: threading.Event, workers: int = 8) -> dict[str, float]:
    """Run every stage as soon as what it needs is done. Returns seconds by name.

    The first error is raised once the stages that were already running are through; `stop` keeps others from
    starting (an interrupt sets it).
    """
    known = {stage.name for stage in stages}
    for stage in stages:
        if missing := set(stage.after) - known:
            raise ValueError(f"stage {stage.name!r} comes after unknown {', '.join(sorted(missing))}")
    waiting = list(stages)
    seconds: dict[str, float] = {}
    running: dict[Future[float], str] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers, thread_name_prefix="stage") as pool:
        while waiting or running:
            if failure is None and not stop.is_set():
                for stage in [each for each in waiting if set(each.after) <= seconds.keys()]:
                    waiting.remove(stage)
                    running[pool.submit(_run, stage, board)] = stage.name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if (error := future.exception()) is not None:
                    failure = failure or error
                    stop.set()
                else:
                    seconds[name] = future.result()
    if failure is not None:
        raise failure
    return seconds


def _run(stage: Stage, board: Board) -> float:
    report = Reporter(board, stage.name)
    began = time.monotonic()
    board.started(stage.name)
    try:
        stage.run(report)
    except BaseException as error:
        board.failed(stage.name, time.monotonic() - began, str(error) or type(error).__name__)
        raise
    took = time.monotonic() - began
    board.finished(stage.name, took, report.text)
    return took

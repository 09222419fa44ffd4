"""How a start is shown: a live list of stages on a terminal, plain lines anywhere else.

In: the calls of `tollgate.local.stages.Board`. Out: text on stderr.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_EVERY_S = 2.0


class PlainBoard:
    """A line when a stage starts, at most one every two seconds while it goes on, and one when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def started(self, name: str) -> None:
        """See `Board`."""
        self._line(name, "...")

    def step(self, name: str, text: str, done: float | None = None, total: float | None = None) -> None:
        """See `Board`."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(name, self._began) < _EVERY_S:
                return
            self._last[name] = now
        share = f" ({100 * done / total:.0f} %)" if done is not None and total else ""
        self._line(name, f"{text}{share}")

    def finished(self, name: str, seconds: float, text: str) -> None:
        """See `Board`."""
        self._line(name, f"done in {seconds:.1f} s{f' - {text}' if text else ''}")

    def failed(self, name: str, seconds: float, text: str) -> None:
        """See `Board`."""
        self._line(name, f"FAILED after {seconds:.1f} s: {text}")

    def _line(self, name: str, text: str) -> None:
        at = time.monotonic() - self._began
        self._console.print(f"[{at:6.1f} s] {name:<14} {text}", markup=False, soft_wrap=True)


@dataclass
class _Row:
    began: float
    text: str = ""
    done: float | None = None
    total: float | None = None
    seconds: float | None = None
    failed: bool = False
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))


class LiveBoard:
    """Every stage on a line of its own, redrawn in place: a spinner, what it does, a bar, its seconds."""

    def __init__(self, console: Console) -> None:
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def started(self, name: str) -> None:
        """See `Board`."""
        with self._lock:
            self._rows[name] = _Row(time.monotonic())

    def step(self, name: str, text: str, done: float | None = None, total: float | None = None) -> None:
        """See `Board`."""
        with self._lock:
            row = self._rows[name]
            row.text, row.done, row.total = text, done, total

    def finished(self, name: str, seconds: float, text: str) -> None:
        """See `Board`."""
        with self._lock:
            row = self._rows[name]
            row.text, row.seconds, row.done = text, seconds, None

    def failed(self, name: str, seconds: float, text: str) -> None:
        """See `Board`."""
        with self._lock:
            row = self._rows[name]
            row.text, row.seconds, row.failed, row.done = text, seconds, True, None

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2)
        table.add_column(min_width=14)
        table.add_column(width=8, justify="right")
        table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
        with self._lock:
            for name, row in self._rows.items():
                if row.failed:
                    mark: RenderableType = Text("✗", style="bold red")
                elif row.seconds is not None:
                    mark = Text("✓", style="green")
                else:
                    mark = row.spinner
                took = row.seconds if row.seconds is not None else time.monotonic() - row.began
                detail: RenderableType = Text(row.text, style="red" if row.failed else "dim", no_wrap=True)
                if row.done is not None and row.total:
                    bar = ProgressBar(total=row.total, completed=row.done, width=24)
                    detail = Table.grid(padding=(0, 1))
                    detail.add_row(bar, Text(row.text, style="dim"))
                table.add_row(mark, Text(name, style="bold" if row.seconds is None else ""), f"{took:.1f} s", detail)
        return Group(table)


def board(console: Console) -> PlainBoard | LiveBoard:
    """The board that fits: live on a terminal, else plain lines."""
    return LiveBoard(console) if console.is_terminal else PlainBoard(console)

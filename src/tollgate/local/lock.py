"""One supervisor a home: the lock file, and finding or stopping whoever holds it.

In: `Layout`. Out: `RunLock` (held while the platform runs; the kernel frees it when the process dies), and for
other commands `running_pid` and `stop_running`. Next: `tollgate.local.supervisor`, `tollgate status | down`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from types import TracebackType
from typing import TextIO

import psutil

from tollgate.errors import TollgateError
from tollgate.local.layout import Layout

_SETTLE = 20.0
"""Seconds the parts of a killed supervisor may take to be ended before a new one gives up waiting."""


class AlreadyRunning(TollgateError):  # noqa: N818 - reads as what happened
    """Another supervisor runs on this home."""

    def __init__(self, layout: Layout, pid: int | None) -> None:
        super().__init__(
            f"Tollgate already runs on {layout.home} (pid {pid or 'unknown'}): "
            "`tollgate status` shows it, `tollgate down` stops it; "
            "for a second one set TOLLGATE_HOME and TOLLGATE_PORT_BASE"
        )
        self.pid = pid


class RunLock:
    """Held by the supervisor for its life (`with RunLock(layout):`)."""

    def __init__(self, layout: Layout, *, cleaning: bool = False) -> None:
        """`cleaning`: taken to clean up only, so do not wait, and let who comes wait for the end of it."""
        self._layout = layout
        self._cleaning = cleaning
        self._file: TextIO | None = None

    def __enter__(self) -> RunLock:
        """Take it. Raises `AlreadyRunning`; waits only while a dead supervisor's parts are being ended."""
        self._layout.create()
        file = (self._layout.run / "lock").open("a+")
        deadline = time.monotonic() + (0 if self._cleaning else _SETTLE)
        while not _try(file):
            holder = _noted(file)
            if (holder is not None and psutil.pid_exists(holder)) or time.monotonic() > deadline:
                file.close()
                raise AlreadyRunning(self._layout, holder)
            time.sleep(0.1)
        file.truncate(0)
        file.write("" if self._cleaning else f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def running_pid(layout: Layout) -> int | None:
    """The pid of the supervisor that runs on this home, or None."""
    try:
        file = (layout.run / "lock").open("r+")
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        return None if _try(file) else _noted(file)


def stop_running(layout: Layout, timeout: float = 90.0) -> bool:
    """Ask the running supervisor to stop and wait for it. False when none runs.

    Raises `TollgateError` when it is still there after `timeout` seconds.
    """
    pid = running_pid(layout)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while running_pid(layout) == pid:
        if time.monotonic() > deadline:
            raise TollgateError(
                f"the supervisor (pid {pid}) still runs after {timeout:.0f} s: look at {layout.logs}, "
                f"or end it with `kill -9 {pid}`; the next start cleans up behind it"
            )
        time.sleep(0.1)
    return True


def _try(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _noted(file: TextIO) -> int | None:
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isdigit() else None

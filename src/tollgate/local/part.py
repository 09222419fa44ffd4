"""What the supervisor is told about a process, and what it tells others about it.

In: modules such as `kafka` and `postgres` make a `Part`. Out: `Status`, published in run/state.json.
Next: `tollgate.local.supervisor`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tollgate.errors import TollgateError


class State(StrEnum):
    """Where a part is in its life."""

    PENDING = "pending"
    """Waits for the parts it depends on."""
    STARTING = "starting"
    """Its process runs, its probe has not succeeded yet."""
    READY = "ready"
    RESTARTING = "restarting"
    """It ended by itself; the next start waits for the back-off."""
    FAILED = "failed"
    """It never became ready, and is not tried again."""
    STOPPED = "stopped"


class PartFailed(TollgateError):  # noqa: N818 - reads as what happened
    """A part could not be made ready; the text ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One supervised process."""

    name: str
    command: list[str]
    ready: Callable[[], str | None]
    """The probe: None when ready, else what is missing yet. It may raise; the error counts as "not yet"."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own environment."""
    cwd: Path | None = None
    depends_on: tuple[str, ...] = ()
    """Names of parts that must be ready before the first start."""
    user: User | None = None
    """None: whoever runs the supervisor."""
    stop_signal: signal.Signals = signal.SIGTERM
    ready_timeout: float = 60.0
    """Seconds a start may take until its probe succeeds."""
    grace: float = 15.0
    """Seconds between `stop_signal` and SIGKILL."""


@dataclass(slots=True)
class Status:
    """What is known about a part at this moment."""

    name: str
    state: State = State.PENDING
    pid: int | None = None
    restarts: int = 0
    """How often it was started again after it had ended by itself."""
    last_exit: str | None = None
    """Why its last process ended: "exit code 1", "SIGKILL", "not ready in 60 s: ..."."""
    waiting_for: str | None = None
    """What keeps it from being ready, in the probe's words."""
    started_at: float | None = None
    """Epoch seconds of the last start."""
    seconds_to_ready: float | None = None
    """How long the last successful start took."""

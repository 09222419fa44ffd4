"""Where a stream stands, kept in a file so that the next run goes on there; one stream at a time.

In: the position that `Sent` reports. Out: the same after a restart. Next: `tollgate.simulator.run`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tollgate.errors import ConfigurationError
from tollgate.simulator.options import Drift, Position, WorldSettings


@dataclass(frozen=True)
class StreamState:
    """The next transaction, the world it belongs to, and all drifts so far (labels to come depend on them)."""

    settings: WorldSettings
    position: Position
    drifts: tuple[Drift, ...] = ()


def load_state(path: Path, settings: WorldSettings) -> StreamState | None:
    """The saved state, None when there is none.

    Raises `ConfigurationError` when it is unreadable or of another world than `settings` describes.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=StreamState)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: {error}; remove it to start anew") from None
    before, now = asdict(state.settings), asdict(settings)
    changed = [f"{name} {before[name]}, now {now[name]}" for name in before if before[name] != now[name]]
    if changed:
        raise ConfigurationError(
            f"{path} belongs to another world ({'; '.join(changed)}): use its settings, or remove history and state"
        )
    return state


def save_state(path: Path, state: StreamState) -> None:
    """Replace the file at once: after a crash it holds this state or the one before."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(state))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the state's lock. Raises `ConfigurationError` when another stream has it.

    Two streams from one state would give one id two bodies as soon as their drifts differ.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another stream is running from {path}: stop it first") from None
        yield


def drifts_from(drifts: tuple[Drift, ...], position: Position, wanted: Drift | None) -> tuple[Drift, ...]:
    """The drifts when `wanted` (None: no drift) applies from `position` on; `wanted.start` is not looked at.

    What went on until now ends there unless it is the same.
    """
    if drifts and drifts[-1].end is None:
        current = drifts[-1]
        if wanted and _shape(current) == _shape(wanted):
            return drifts
        drifts = (*drifts[:-1], Drift(current.start, position, *_shape(current)))
    return (*drifts, Drift(position, None, *_shape(wanted))) if wanted else drifts


def _shape(drift: Drift) -> tuple[float, float, int]:
    return drift.amount_factor, drift.terminal_share, drift.hot_terminals

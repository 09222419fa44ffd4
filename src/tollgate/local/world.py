"""The simulated world of this home: which one it is, and where in it the live stream is.

In: the options of the first `up`. Out: data/history and data/stream.json, so that a later `up` (or `simulate`) goes
on with the next transaction of the same world.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from tollgate.errors import ConfigurationError
from tollgate.local.layout import Layout
from tollgate.local.stages import Reporter
from tollgate.simulator.history import History, read_history, write_history
from tollgate.simulator.options import Drift, Position, WorldSettings
from tollgate.simulator.run import Pace, SimulateOptions
from tollgate.simulator.state import load_state
from tollgate.simulator.world import World

LIVE_DAYS_AGO = 30
"""The live stream begins this many days before today: it runs faster than the clock and needs the room."""


class Size(msgspec.Struct, frozen=True):
    """How large a world to make on the first start."""

    days: int = 60
    customers: int = 5_000
    terminals: int = 10_000
    seed: int = 0


def history_folder(layout: Layout) -> Path:
    """Where the simulated past lies, as Parquet."""
    return layout.data / "history"


def ensure_history(layout: Layout, wanted: Mapping[str, int], report: Reporter) -> History:
    """The home's history; made on the first start. `wanted` has the fields of `Size` that were asked for.

    Raises `ConfigurationError` when the home already holds a world of another size.
    """
    folder = history_folder(layout)
    found = read_history(folder)
    if found is None:
        size = Size(**wanted)
        start = (datetime.now(UTC) - timedelta(days=size.days + LIVE_DAYS_AGO)).date()
        settings = WorldSettings(seed=size.seed, customers=size.customers, terminals=size.terminals, start=start)
        found = write_history(
            World(settings), size.days, folder, lambda done, total: report(f"day {done} of {total}", done, total)
        )
    has = Size(found.days, found.settings.customers, found.settings.terminals, found.settings.seed)
    if any(getattr(has, name) != value for name, value in wanted.items()):
        raise ConfigurationError(
            f"{layout.home} holds a world of {has.days} days, {has.customers} customers, {has.terminals} terminals, "
            f"seed {has.seed}: start without those options to go on with it, or `tollgate down --purge` first"
        )
    report(f"{found.transactions:,} transactions of {found.days} days, {found.frauds:,} frauds")
    return found


def state_file(layout: Layout) -> Path:
    """Where the stream keeps its place in the world."""
    return layout.data / "stream.json"


def position(layout: Layout, history: History) -> Position:
    """Where the live stream goes on: after the last transaction that Kafka has confirmed."""
    state = load_state(state_file(layout), history.settings)
    return state.position if state else history.end


def stream_options(layout: Layout, history: History, pace: Pace, drift: Drift | None = None) -> SimulateOptions:
    """A live stream of this home's world from where it is, at this pace."""
    return SimulateOptions(history.settings, history.end, state_file(layout), drift, pace)


def need_history(layout: Layout) -> History:
    """The home's history. Raises `ConfigurationError` when there is none yet."""
    found = read_history(history_folder(layout))
    if found is None:
        raise ConfigurationError(f"{layout.home} has no world yet: `tollgate up` makes one")
    return found

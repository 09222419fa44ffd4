"""What `tollgate simulate` and `tollgate replay` do, as functions: options in, `Sent` out.

In: options from the command line, a `Publisher`. Out: records on Kafka, a state file that the next run continues.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event

from tollgate.simulator.mapping import ColumnMapping
from tollgate.simulator.mix import Mix
from tollgate.simulator.options import Drift, Position, WorldSettings
from tollgate.simulator.publisher import Publisher
from tollgate.simulator.records import Source, WorldSource
from tollgate.simulator.replay import Replay
from tollgate.simulator.state import StreamState, drifts_from, load_state, only_one, save_state
from tollgate.simulator.stream import Report, Sent, Stream
from tollgate.simulator.world import World


@dataclass(frozen=True)
class Pace:
    """How much and how fast: `count` transactions (None: no end), `rate` a second (0: as fast as possible)."""

    count: int | None = None
    rate: float = 0.0
    mix: Mix = field(default_factory=Mix)
    flush_labels: bool = False
    """Publish at the end the labels of what this run has streamed, without waiting for event time."""


@dataclass(frozen=True)
class SimulateOptions:
    """A live stream of a world. It starts at `start` (`History.end`), or where `state_file` says."""

    settings: WorldSettings = field(default_factory=WorldSettings)
    start: Position = field(default_factory=lambda: Position(0, 0))
    state_file: Path | None = None
    drift: Drift | None = None
    """The drift to apply from this run's start on (its own `start` is not looked at); None ends a drift."""
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class ReplayOptions:
    """A stream of a file's transactions, from row `first_row` (from 0) on."""

    path: Path
    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    currency: str = "EUR"
    label_delay: timedelta = timedelta(days=7)
    first_row: int = 0
    pace: Pace = field(default_factory=Pace)


def simulate(
    options: SimulateOptions, publisher: Publisher, stop: Event | None = None, report: Report | None = None
) -> Sent:
    """Stream a world; returns what was sent. With a state file, the next call goes on after it.

    `report` is called about once a second with a copy of the counts. Raises `ConfigurationError` (settings, state of
    another world, a second stream from the same state) and `Retryable` (Kafka does not take the records).
    After a kill, up to a second's transactions come again, with the same ids and bodies; only if that next run also
    switches a drift on or off do they come with other bodies (and are dead-lettered as conflicts).
    """
    path = options.state_file
    with only_one(path) if path else nullcontext():
        state = load_state(path, options.settings) if path else None
        state = state or StreamState(options.settings, options.start)
        drifts = drifts_from(state.drifts, state.position, options.drift)

        def save(position: Position) -> None:
            if path:
                save_state(path, StreamState(options.settings, position, drifts))

        save(state.position)
        source = WorldSource(World(options.settings, drifts))
        return _stream(source, state.position, options.settings.seed, options.pace, publisher, stop, report, save)


def replay(
    options: ReplayOptions, publisher: Publisher, stop: Event | None = None, report: Report | None = None
) -> Sent:
    """Stream a file; returns what was sent, `Sent.position.index` being the row to go on from.

    Raises `ConfigurationError` (file, columns, a bad row) and `Retryable` (Kafka does not take the records).
    """
    source = Replay(options.path, options.mapping, currency=options.currency, label_delay=options.label_delay)
    return _stream(source, Position(0, options.first_row), 0, options.pace, publisher, stop, report, None)


def _stream(
    source: Source,
    start: Position,
    seed: int,
    pace: Pace,
    publisher: Publisher,
    stop: Event | None,
    report: Report | None,
    save: Callable[[Position], None] | None,
) -> Sent:
    def confirmed(sent: Sent) -> None:
        if save:
            save(sent.position)
        if report:
            report(sent)

    stream = Stream(source, publisher, start, seed)
    sent = stream.run(pace.count, rate=pace.rate, mix=pace.mix, stop=stop, report=confirmed)
    if pace.flush_labels:
        sent.labels += stream.flush_labels()
    return sent
